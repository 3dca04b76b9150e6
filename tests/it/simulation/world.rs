//! What all processes reach, how calls get there on a bad day, and the planted bugs that the promises must catch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt;
use sluice::model::{Effect, Error, Result, SaleId};

use super::clocks::LedgerTime;
use super::gate::GateServer;
use super::promises::Promises;
use super::sim::Sim;
use crate::model_ledger::ModelLedger;
use crate::model_queue::ModelQueue;

/// A mistake planted on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    AcknowledgeBeforeCommit,
    LostPushAnsweredAsDurable,
    MovesAppliedTwice,
    StaleMemoryTrusted,
    NoFence,
    NoWait,
    NoMarker,
    RedeliveredMarkerTrusted,
    ClosedEpochsSettled,
    LateSettledWhileReloading,
    LedgerForgetsIds,
    LimitOnlyAtTheGate,
    CompensateOnTimeout,
    LiveBeforeBound,
    EpochIgnored,
    EmptyMeansSoldOut,
    PendingForgotten,
    NothingCarriedOver,
    FencedMeansFailed,
    FencesNotRepeated,
    OwnTimeOfDay,
    ConfirmUnguarded,
}

impl Bug {
    /// Such a one is looked for where calls are late: elsewhere it would take a hundred thousand runs.
    pub(crate) fn is_about_late_claims(self) -> bool {
        matches!(self, Bug::ClosedEpochsSettled | Bug::LateSettledWhileReloading)
    }
}

/// What all processes reach.
pub(crate) struct World {
    pub(crate) sim: Arc<Sim>,
    pub(crate) bug: Option<Bug>,
    /// Per sale.
    pub(crate) promises: Vec<Promises>,
    pub(crate) time: Arc<LedgerTime>,
    pub(crate) ledger: ModelLedger,
    /// The broker's queues; a sale is always in the same one.
    pub(crate) shards: Vec<ModelQueue>,
    pub(crate) gates: Vec<GateServer>,
    /// Whether there is a network between the processes and what they reach.
    pub(crate) distributed: bool,
    /// How many calls may still go wrong.
    pub(crate) faults_left: AtomicUsize,
    /// How often they do, in a hundred.
    pub(crate) fault_percent: usize,
    /// Whether calls are only late, and never lost.
    pub(crate) only_late: bool,
    /// So many calls of the queue fail from now on.
    pub(crate) queue_down_calls: AtomicUsize,
    /// So many workers die between pull and acknowledgement.
    pub(crate) worker_deaths: AtomicUsize,
    /// How often the broker crashed, and how often when it lost everything for the last time.
    pub(crate) broker_life: AtomicU64,
    pub(crate) broker_wiped: AtomicU64,
    /// When the last of the slow calls arrives, in milliseconds.
    pub(crate) slow_until_ms: AtomicU64,
    /// Whether the ledger was called since the last check, and which gates, a bit each.
    pub(crate) ledger_touched: AtomicBool,
    pub(crate) gates_touched: AtomicUsize,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Good,
    Slow,
    RequestLost,
    AnswerLost,
}

impl World {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// What was promised to the customers of this sale.
    pub(crate) fn promises(&self, sale: &SaleId) -> &Promises {
        self.promises.iter().find(|promises| promises.sale == *sale).expect("one of ours")
    }

    /// The shard of this sale.
    pub(crate) fn shard(&self, sale: &SaleId) -> usize {
        self.promises.iter().position(|promises| promises.sale == *sale).unwrap_or(0) % self.shards.len()
    }

    /// Takes one of the faults that are left.
    pub(crate) fn fault(&self) -> bool {
        less(&self.faults_left)
    }

    /// A worker that may die here; the moments around a marker are the ones that matter.
    pub(crate) async fn worker(&self, at_a_marker: bool) {
        let doomed =
            self.worker_deaths.load(Ordering::Relaxed) > 0 && self.sim.percent(40) && less(&self.worker_deaths);
        if doomed || (at_a_marker && self.sim.percent(60) && self.fault()) {
            self.sim.note(|| "a worker dies".into());
            self.sim.die().await;
        }
    }

    pub(crate) fn fate(&self) -> Fate {
        if self.fault_percent == 0 || !self.sim.percent(self.fault_percent) || !self.fault() {
            return Fate::Good;
        }
        match self.sim.below(3) {
            0 if !self.only_late => Fate::RequestLost,
            1 if !self.only_late => Fate::AnswerLost,
            _ => Fate::Slow,
        }
    }

    /// Something is on its way for up to this time.
    pub(crate) async fn slow(&self, ms_max: usize) {
        let time = self.sim.ms_below(ms_max);
        let until = u64::try_from((self.sim.now() + time).as_millis()).expect("a short run");
        self.slow_until_ms.fetch_max(until, Ordering::Relaxed);
        self.sim.sleep(time).await;
    }

    /// Calls a server. What was sent arrives even if its sender dies.
    pub(crate) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        layer: &'static str,
        serve: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T> {
        let fate = self.fate();
        self.sim.pause().await;
        if fate == Fate::RequestLost {
            self.sim.note(|| format!("a request to the {layer} is lost"));
            return Err(unavailable(layer));
        }
        if fate == Fate::Good && self.sim.percent(75) {
            let answer = serve(self);
            self.sim.pause().await;
            return Ok(answer);
        }
        let (tell, told) = oneshot::channel();
        let world = self.clone();
        self.sim.send(async move {
            world.sim.pause().await;
            if fate == Fate::Slow {
                world.slow(3_000).await;
            }
            let answer = serve(&world);
            world.sim.pause().await;
            if fate == Fate::AnswerLost {
                world.sim.note(|| format!("an answer of the {layer} is lost"));
            } else {
                let _gone = tell.send(answer);
            }
        });
        told.await.map_err(|_| unavailable(layer))
    }

    /// The broker crashes; it comes back with what it had, or with nothing.
    pub(crate) fn crash_broker(&self, wiped: bool, window: Duration) {
        let life = self.broker_life.fetch_add(1, Ordering::Relaxed) + 1;
        if wiped {
            self.broker_wiped.store(life, Ordering::Relaxed);
        }
        for shard in &self.shards {
            if wiped {
                shard.wipe();
            } else {
                shard.undo_bindings_since(self.sim.now().saturating_sub(window));
            }
        }
    }
}

/// One less, if there is one.
pub(crate) fn less(count: &AtomicUsize) -> bool {
    let left = count.load(Ordering::Relaxed);
    count.store(left.saturating_sub(1), Ordering::Relaxed);
    left > 0
}

pub(crate) fn unavailable(layer: &'static str) -> Error {
    Error::Unavailable { layer, why: "simulated".into(), effect: Effect::Unknown }
}

/// The doubles answer at once; only the way to them takes time.
pub(crate) fn at_once<T>(answer: impl Future<Output = Result<T>>) -> T {
    answer.now_or_never().expect("a double never waits").expect("a double never fails")
}
