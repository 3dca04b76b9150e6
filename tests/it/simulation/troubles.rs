//! What can happen to machines, besides calls that go wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clocks::an_hour_off;
use super::executor::{Job, Owner};
use super::run::{Process, Run};
use super::sim::Sim;
use super::world::Bug;

/// The broker does not wait until a binding is on disk: a power failure may undo what is younger than this.
const BINDINGS_UNDONE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    TaskDies,
    WorkersDie,
    LoaderDies,
    ProcessDies,
    ProcessSleeps,
    WorkersRest,
    QueueDown,
    BrokerCrashes,
    BrokerWiped,
    FailOver,
    GateEmpty,
    GateRewound,
    LedgerClockSet,
    ProcessClockSet,
}

const TROUBLES: [Trouble; 14] = [
    Trouble::TaskDies,
    Trouble::WorkersDie,
    Trouble::LoaderDies,
    Trouble::ProcessDies,
    Trouble::ProcessSleeps,
    Trouble::WorkersRest,
    Trouble::QueueDown,
    Trouble::BrokerCrashes,
    Trouble::BrokerWiped,
    Trouble::FailOver,
    Trouble::GateEmpty,
    Trouble::GateRewound,
    Trouble::LedgerClockSet,
    Trouble::ProcessClockSet,
];

impl Trouble {
    fn needs_a_network(self) -> bool {
        self.takes_the_gates_memory() || matches!(self, Trouble::BrokerCrashes | Trouble::BrokerWiped)
    }

    fn takes_the_gates_memory(self) -> bool {
        matches!(self, Trouble::FailOver | Trouble::GateEmpty | Trouble::GateRewound)
    }
}

/// The troubles that a run knows: some and not others, so that the rare ones meet each other, too.
pub(super) struct Troubles {
    known: Vec<Trouble>,
    left: usize,
}

impl Troubles {
    pub(super) fn new(sim: &Sim, distributed: bool) -> Self {
        let percent = [20, 50, 80][sim.below(3)];
        let mut known: Vec<Trouble> = TROUBLES.into_iter().filter(|_| sim.percent(percent)).collect();
        known.retain(|trouble| distributed || !trouble.needs_a_network());
        // Accepted orders survive the loss of the queue or of the gate's memory; of both, they cannot.
        let wiped = sim.percent(40);
        known
            .retain(|trouble| if wiped { !trouble.takes_the_gates_memory() } else { *trouble != Trouble::BrokerWiped });
        Self { known, left: sim.below(12) }
    }

    /// Whether a gate may come back with an old dump.
    pub(super) fn rewind(&self) -> bool {
        self.known.contains(&Trouble::GateRewound)
    }
}

impl Run {
    /// One of the troubles that this run knows.
    pub(super) fn trouble(&mut self) {
        let trouble = TROUBLES[self.sim.below(TROUBLES.len())];
        if !self.troubles.known.contains(&trouble) || self.troubles.left == 0 {
            return;
        }
        self.troubles.left -= 1;
        self.sim.note(|| format!("trouble: {trouble:?}"));
        match trouble {
            Trouble::TaskDies => self.kill_a_task(|_| true),
            Trouble::WorkersDie => self.world.worker_deaths.store(1 + self.sim.below(4), Ordering::Relaxed),
            Trouble::LoaderDies => self.kill_a_task(|job| job == Job::Reload || job == Job::Tick),
            Trouble::ProcessDies => self.crash(),
            Trouble::ProcessSleeps => self.freeze(),
            Trouble::WorkersRest => self.rest = 20 + self.sim.below(60),
            Trouble::QueueDown => self.world.queue_down_calls.store(self.sim.below(6), Ordering::Relaxed),
            Trouble::BrokerCrashes => self.crash_broker(false),
            Trouble::BrokerWiped => self.crash_broker(true),
            Trouble::FailOver => self.fail_over(),
            Trouble::GateEmpty => self.world.gates[self.primary].wipe(),
            Trouble::GateRewound => {
                self.world.gates[self.primary].rewind(self.world.has(Bug::StaleMemoryTrusted));
            }
            Trouble::LedgerClockSet => self.world.time.jump(an_hour_off(&self.sim)),
            Trouble::ProcessClockSet => self.some_process().clock.jump(),
        }
    }

    fn some_process(&self) -> &Process {
        &self.processes[self.sim.below(self.processes.len())]
    }

    fn kill_a_task(&mut self, dies: impl Fn(Job) -> bool) {
        let Some((owner, job)) = self.executor.kill_one(dies) else { return };
        self.sim.note(|| format!("its {job:?} dies"));
        if job == Job::Settle {
            self.bury(owner);
        }
    }

    /// A worker is dead: sometimes it is the process's next one that takes over its connection.
    pub(super) fn bury(&self, owner: Owner) {
        if self.sim.percent(60) {
            let process = self.processes.iter().find(|process| process.owner == owner);
            process.into_iter().for_each(|process| process.queue.leave());
        }
    }

    fn crash(&mut self) {
        let index = self.sim.below(self.processes.len());
        let process = self.processes.remove(index);
        self.sim.note(|| format!("process {} dies", process.owner.0));
        if self.world.distributed {
            self.executor.kill(Some(process.owner));
        } else {
            self.executor.kill(None);
            self.world.gates[0].wipe();
        }
        process.queue.leave();
        self.start_process(process.role);
    }

    /// It stands still, perhaps for longer than a push may take; the broker may give its messages to another meanwhile.
    fn freeze(&mut self) {
        let Process { owner, queue, .. } = self.some_process().clone();
        if self.sim.percent(50) {
            queue.leave();
        }
        self.executor.freeze(owner, self.sim.ms_below(6_000));
    }

    fn crash_broker(&mut self, wiped: bool) {
        let undone = BINDINGS_UNDONE_MAX.mul_f64(self.sim.below(100) as f64 / 100.0);
        self.world.crash_broker(wiped, undone);
        for process in self.processes.clone() {
            process.queue.leave();
            let queue = Arc::clone(&process.queue);
            if !self.executor.does(process.owner, Job::Reconnect) {
                self.executor.spawn(process.owner, Job::Reconnect, async move { queue.reconnect().await });
            }
        }
    }

    /// The other server takes over; some processes reach the old one for a while.
    fn fail_over(&mut self) {
        self.primary = 1 - self.primary;
        self.sim.note(|| format!("gate {} takes over", self.primary));
        if !self.world.has(Bug::StaleMemoryTrusted) {
            self.world.gates[self.primary].distrust();
        }
        for process in &self.processes {
            if self.sim.percent(70) {
                process.reach.store(self.primary, Ordering::Relaxed);
            }
        }
    }
}
