//! Runs futures one step at a time, in a sequence that only the seed decides. Each task belongs to a process, which may die
//! with all of them, or stand still for a while.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::sim::{Ready, Sim};

/// Whose task it is; a process that dies takes all of its own with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u32);

/// Nobody: whose the messages are that are on their way.
const NETWORK: Owner = Owner(0);

/// What a task is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Parcel,
    Place,
    Turn,
    Operate,
    Settle,
    Reconcile,
    Reload,
    Tick,
    Sweep,
    Lapse,
    AskQueue,
    Reconnect,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of a run.
pub(crate) struct Executor {
    tasks: Vec<Option<Task>>,
    free: Vec<usize>,
    /// Processes that stand still, until when, and their tasks that could go on.
    frozen: Vec<(Owner, Duration, Vec<Ready>)>,
    /// Whose tasks ended by [`Sim::die`], since somebody looked.
    pub(crate) dead: Vec<Owner>,
    sim: Arc<Sim>,
}

struct Task {
    number: u64,
    owner: Owner,
    job: Job,
    work: Work,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Says that a task can go on; once until it does.
struct Bell {
    task: Ready,
    rung: AtomicBool,
    sim: Arc<Sim>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.load(Ordering::Relaxed) {
            self.rung.store(true, Ordering::Relaxed);
            self.sim.ready().push(self.task);
        }
    }
}

impl Executor {
    pub(crate) fn new(sim: Arc<Sim>) -> Self {
        Self { tasks: Vec::new(), free: Vec::new(), frozen: Vec::new(), dead: Vec::new(), sim }
    }

    /// Lets one task go on that can. With none, time goes on to the next timer; false if none rings until then, and time
    /// has gone on to this moment.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        self.take_in();
        let Some(ready) = self.pick() else { return self.pass(until) };
        let Some(task) = self.tasks[ready.slot].as_mut().filter(|task| task.number == ready.number) else {
            return true;
        };
        task.bell.rung.store(false, Ordering::Relaxed);
        let done = task.work.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready();
        let dies = self.sim.dies();
        if done || dies {
            let owner = task.owner;
            self.remove(ready.slot);
            self.dead.extend((!done).then_some(owner));
        }
        true
    }

    fn pick(&mut self) -> Option<Ready> {
        loop {
            let ready = {
                let mut ready = self.sim.ready();
                let count = ready.len();
                if count == 0 {
                    return None;
                }
                ready.swap_remove(if count == 1 { 0 } else { self.sim.below(count) })
            };
            let owner = self.tasks[ready.slot].as_ref().map(|task| task.owner);
            match self.frozen.iter_mut().find(|(frozen, ..)| Some(*frozen) == owner) {
                Some((.., held)) => held.push(ready),
                None => return Some(ready),
            }
        }
    }

    fn pass(&mut self, until: Duration) -> bool {
        let now = self.sim.now();
        let next = self.sim.next_timer().into_iter().chain(self.frozen.iter().map(|(_, end, _)| *end)).min();
        let next = next.filter(|next| *next <= until);
        if next.is_none() && until == Duration::MAX {
            return false;
        }
        self.sim.pass(next.unwrap_or(until).saturating_sub(now));
        self.thaw(self.sim.now());
        next.is_some()
    }

    /// Lets time go by, whoever could go on meanwhile.
    pub(crate) fn leap(&mut self, time: Duration) {
        self.sim.pass(time);
        self.thaw(self.sim.now());
    }

    /// Starts a task.
    pub(crate) fn spawn(&mut self, owner: Owner, job: Job, work: impl Future<Output = ()> + 'static) {
        self.start(owner, job, Box::pin(work));
    }

    fn start(&mut self, owner: Owner, job: Job, work: Work) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        let task = Ready { number: self.sim.number(), slot };
        let bell = Arc::new(Bell { task, rung: AtomicBool::new(true), sim: self.sim.clone() });
        self.sim.ready().push(task);
        self.tasks[slot] = Some(Task { number: task.number, owner, job, work, waker: bell.clone().into(), bell });
    }

    fn take_in(&mut self) {
        for parcel in self.sim.take_sent() {
            self.start(NETWORK, Job::Parcel, parcel);
        }
    }

    fn remove(&mut self, slot: usize) {
        self.tasks[slot] = None;
        self.free.push(slot);
    }

    /// Stops a process where it stands, for so long.
    pub(crate) fn freeze(&mut self, owner: Owner, time: Duration) {
        if self.frozen.iter().all(|(frozen, ..)| *frozen != owner) {
            self.frozen.push((owner, self.sim.now() + time, Vec::new()));
        }
    }

    /// Those whose time has come go on.
    pub(crate) fn thaw(&mut self, until: Duration) {
        for index in (0..self.frozen.len()).rev() {
            if self.frozen[index].1 <= until {
                let (.., held) = self.frozen.swap_remove(index);
                self.sim.ready().extend(held);
            }
        }
    }

    /// Drops the tasks of these processes; all of them, for `None`.
    pub(crate) fn kill(&mut self, owner: Option<Owner>) {
        self.take_in();
        self.frozen.retain(|(frozen, ..)| owner.is_some_and(|owner| owner != *frozen));
        for slot in 0..self.tasks.len() {
            if self.tasks[slot].as_ref().is_some_and(|task| owner.is_none_or(|owner| owner == task.owner)) {
                self.remove(slot);
            }
        }
    }

    /// Drops one task of those for which this is true.
    pub(crate) fn kill_one(&mut self, can_die: impl Fn(Job) -> bool) -> Option<(Owner, Job)> {
        self.take_in();
        let able = |task: &Task| task.job != Job::Parcel && task.job != Job::Reconnect && can_die(task.job);
        let able: Vec<usize> =
            (0..self.tasks.len()).filter(|slot| self.tasks[*slot].as_ref().is_some_and(able)).collect();
        let slot = *able.get(self.sim.below(able.len().max(1)))?;
        let killed = self.tasks[slot].as_ref().map(|task| (task.owner, task.job));
        self.remove(slot);
        killed
    }

    /// Whether this process does this job at the moment.
    pub(crate) fn does(&self, owner: Owner, job: Job) -> bool {
        self.tasks.iter().flatten().any(|task| task.owner == owner && task.job == job)
    }

    /// Whether anybody does.
    pub(crate) fn anybody(&self, job: Job) -> bool {
        self.tasks.iter().flatten().any(|task| task.job == job)
    }
}
