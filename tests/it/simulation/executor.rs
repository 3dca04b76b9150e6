//! Runs futures one step at a time, in a sequence that only the seed decides: who goes next, how late a timer rings, and
//! what chance brings. The same seed is the same run, to the last step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::model::Time;

/// Events kept for the message of a failure.
const EVENTS_MAX: usize = 40;

/// Whose task it is; a process that dies takes all of its own with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u32);

/// Nobody: whose the messages are that are on their way.
pub(crate) const NETWORK: Owner = Owner(0);

type Work = Pin<Box<dyn Future<Output = ()>>>;
type Parcel = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of a run.
pub(crate) struct Executor {
    tasks: BTreeMap<u64, Task>,
    /// Whose tasks ended by [`Sim::die`], since somebody looked.
    pub(crate) dead: Vec<Owner>,
    sim: Arc<Sim>,
}

struct Task {
    owner: Owner,
    name: &'static str,
    work: Work,
    waker: Waker,
}

/// What every part of a run shares: its time, its chance, what happened last.
pub(crate) struct Sim {
    /// Whether events are kept. A run that fails is run again with them.
    noting: bool,
    inner: Mutex<Inner>,
    ready: Arc<Mutex<Vec<u64>>>,
}

struct Inner {
    random: u64,
    now: Duration,
    timers: BTreeSet<(Duration, u64)>,
    sleepers: BTreeMap<u64, Waker>,
    sent: Vec<Parcel>,
    numbers: u64,
    events: VecDeque<String>,
    dying: bool,
    violation: Option<Violation>,
}

/// An invariant that does not hold, and how it showed.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

struct Ready {
    task: u64,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().expect("no holder panics");
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

impl Executor {
    pub(crate) fn new(sim: Arc<Sim>) -> Self {
        Self { tasks: BTreeMap::new(), dead: Vec::new(), sim }
    }

    /// Lets one task go on that can. With none, time goes on to the next timer; false if there is no timer either.
    pub(crate) fn step(&mut self) -> bool {
        self.take_in();
        let Some(number) = self.sim.pick_ready() else { return self.sim.pass_to_next_timer() };
        let Some(task) = self.tasks.get_mut(&number) else { return true };
        let waker = task.waker.clone();
        let done = task.work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if done || std::mem::take(&mut self.sim.lock().dying) {
            let task = self.tasks.remove(&number);
            self.dead.extend(task.filter(|_| !done).map(|task| task.owner));
        }
        true
    }

    /// Starts a task.
    pub(crate) fn spawn(&mut self, owner: Owner, name: &'static str, work: impl Future<Output = ()> + 'static) {
        self.start(owner, name, Box::pin(work));
    }

    fn start(&mut self, owner: Owner, name: &'static str, work: Work) {
        let number = self.sim.number();
        let ready = Arc::new(Ready { task: number, ready: self.sim.ready.clone() });
        self.sim.ready.lock().expect("no holder panics").push(number);
        self.tasks.insert(number, Task { owner, name, work, waker: ready.into() });
    }

    fn take_in(&mut self) {
        let sent = std::mem::take(&mut self.sim.lock().sent);
        sent.into_iter().for_each(|parcel| self.start(NETWORK, "parcel", parcel));
    }

    /// Drops the tasks for which this is true, wherever they are.
    pub(crate) fn kill(&mut self, mut dies: impl FnMut(Owner, &'static str) -> bool) {
        self.take_in();
        self.tasks.retain(|_, task| !dies(task.owner, task.name));
    }

    /// Drops one task of those for which this is true.
    pub(crate) fn kill_one(&mut self, can_die: impl Fn(Owner, &'static str) -> bool) -> Option<(Owner, &'static str)> {
        self.take_in();
        let able: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| can_die(task.owner, task.name)).map(|(number, _)| *number).collect();
        let number = *able.get(self.sim.below(able.len().max(1)))?;
        self.tasks.remove(&number).map(|task| (task.owner, task.name))
    }

    /// How many tasks of this owner have this name.
    pub(crate) fn count(&self, owner: Owner, name: &str) -> usize {
        self.tasks.values().filter(|task| task.owner == owner && task.name == name).count()
    }
}

impl Sim {
    pub(crate) fn new(seed: u64, noting: bool) -> Arc<Self> {
        let inner = Inner {
            random: seed,
            now: Duration::ZERO,
            timers: BTreeSet::new(),
            sleepers: BTreeMap::new(),
            sent: Vec::new(),
            numbers: 0,
            events: VecDeque::new(),
            dying: false,
            violation: None,
        };
        Arc::new(Self { noting, inner: Mutex::new(inner), ready: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.numbers += 1;
        inner.numbers
    }

    /// Sends something over the network, where it is nobody's: it lives on when its sender dies.
    pub(crate) fn send(&self, parcel: impl Future<Output = ()> + Send + 'static) {
        self.lock().sent.push(Box::pin(parcel));
    }

    /// A number below this one. The generator is SplitMix64 (Steele, Lea, Flood, 2014).
    pub(crate) fn below(&self, limit: usize) -> usize {
        usize::try_from(self.chance() % limit as u64).expect("below a usize")
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Lets others go first, a few times or not at all.
    pub(crate) async fn pause(&self) {
        for _ in 0..self.below(3) {
            self.give_way().await;
        }
    }

    async fn give_way(&self) {
        let mut waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Ends the task that asks for it, here.
    pub(crate) async fn die(&self) {
        self.lock().dying = true;
        pending::<()>().await;
    }

    fn pick_ready(&self) -> Option<u64> {
        let count = self.ready.lock().expect("no holder panics").len();
        let pick = self.below(count.max(1));
        (count > 0).then(|| self.ready.lock().expect("no holder panics").swap_remove(pick))
    }

    /// Lets time go by, and rings what is due.
    pub(crate) fn pass(&self, time: Duration) {
        let mut inner = self.lock();
        inner.now += time;
        let mut due = Vec::new();
        while let Some(&(at, number)) = inner.timers.first().filter(|(at, _)| *at <= inner.now) {
            inner.timers.remove(&(at, number));
            due.extend(inner.sleepers.remove(&number));
        }
        drop(inner);
        due.into_iter().for_each(Waker::wake);
    }

    fn pass_to_next_timer(&self) -> bool {
        let (now, next) = {
            let inner = self.lock();
            (inner.now, inner.timers.first().map(|(at, _)| *at))
        };
        let Some(next) = next else { return false };
        self.pass(next.saturating_sub(now));
        true
    }

    /// Remembers what happened, for the message of a failure.
    pub(crate) fn note(&self, event: impl FnOnce() -> String) {
        if !self.noting {
            return;
        }
        let mut inner = self.lock();
        if inner.events.len() == EVENTS_MAX {
            inner.events.pop_front();
        }
        let now = inner.now.as_millis();
        inner.events.push_back(format!("{now:>8} ms  {}", event()));
    }

    /// The run has failed; the first violation counts.
    pub(crate) fn violated(&self, invariant: &'static str, detail: String) {
        self.lock().violation.get_or_insert(Violation { invariant, detail });
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// What happened last, one event a line.
    pub(crate) fn events(&self) -> String {
        self.lock().events.iter().fold(String::new(), |text, event| text + "\n" + event)
    }
}

struct Sleep<'a> {
    sim: &'a Sim,
    number: u64,
    until: Duration,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.sim.lock();
        if inner.now >= self.until {
            return Poll::Ready(());
        }
        inner.timers.insert((self.until, self.number));
        inner.sleepers.insert(self.number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        let mut inner = self.sim.lock();
        inner.timers.remove(&(self.until, self.number));
        inner.sleepers.remove(&self.number);
    }
}

#[async_trait]
impl Clock for Sim {
    fn now(&self) -> Time {
        Time::from_millis(1_800_000_000_000).after(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.lock().now
    }

    /// A busy machine may wake a sleeper late.
    async fn sleep(&self, time: Duration) {
        let late_ms = if self.percent(50) { 0 } else { self.below(60) };
        let until = self.monotonic() + time + Duration::from_millis(late_ms as u64);
        Sleep { sim: self, number: self.number(), until }.await;
    }

    fn chance(&self) -> u64 {
        let mut inner = self.lock();
        inner.random = inner.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (inner.random ^ (inner.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
