//! Clocks. Each machine believes something else of the time of day, and may be set forward or back by an hour. The ledger's
//! machine decides; in a distributed deployment the others ask for its time once a second, and count on by themselves.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::model::Time;

use super::sim::Sim;

const START: Time = Time::from_millis(1_800_000_000_000);
/// How often a process asks for the ledger's time.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How wrong the answer may be.
const ERROR_MS_MAX: i64 = 20;
/// By how much two processes' words for one moment may differ.
pub(crate) const TOLERANCE_MS: i64 = 100;

/// The ledger's time of day.
pub(crate) struct LedgerTime {
    sim: Arc<Sim>,
    offset_ms: AtomicI64,
    set: Mutex<Option<Duration>>,
    /// The time of the process that calls a server at this moment.
    caller_ms: AtomicI64,
}

impl LedgerTime {
    pub(crate) fn new(sim: Arc<Sim>) -> Arc<Self> {
        let (offset_ms, caller_ms) = (AtomicI64::new(0), AtomicI64::new(START.millis()));
        Arc::new(Self { sim, offset_ms, set: Mutex::default(), caller_ms })
    }

    pub(crate) fn now(&self) -> Time {
        self.with_offset(self.offset_ms.load(Ordering::Relaxed))
    }

    fn with_offset(&self, offset_ms: i64) -> Time {
        Time::from_millis(START.after(self.sim.now()).millis() + offset_ms)
    }

    /// Somebody sets the clock.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
        *self.set.lock().expect("no holder panics") = Some(self.sim.now());
    }

    /// Whether all processes have known the ledger's time since that moment of the run.
    pub(crate) fn is_known_since(&self, moment: Duration) -> bool {
        let set = *self.set.lock().expect("no holder panics");
        set.is_none_or(|set| set + ASK_EVERY < moment)
    }

    /// The server called now goes by the time that its caller sends along.
    pub(crate) fn called_at(&self, now: Time) {
        self.caller_ms.store(now.millis(), Ordering::Relaxed);
    }
}

/// What a server goes by.
#[async_trait]
impl Clock for LedgerTime {
    fn now(&self) -> Time {
        Time::from_millis(self.caller_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.sim.now()
    }

    async fn sleep(&self, time: Duration) {
        self.sim.sleep(time).await;
    }

    fn chance(&self) -> u64 {
        self.sim.chance()
    }
}

/// What a process goes by.
pub(crate) struct ProcessClock {
    sim: Arc<Sim>,
    ledger: Arc<LedgerTime>,
    /// When it counts from; every machine has another such moment.
    begin: Duration,
    /// The ledger's offset as this process knows it, and when it asked.
    known: Mutex<(Duration, i64)>,
    error_ms: i64,
    ask_every: Duration,
    /// What its own machine believes, and whether it goes by that.
    own_ms: AtomicI64,
    own: bool,
}

impl ProcessClock {
    /// One process alone has the ledger in it, and so its time.
    pub(crate) fn new(sim: &Arc<Sim>, ledger: &Arc<LedgerTime>, alone: bool, own: bool) -> Arc<Self> {
        let error = i64::try_from(sim.below(41)).expect("small") - ERROR_MS_MAX;
        let own_ms = if sim.percent(50) { 0 } else { an_hour_off(sim) };
        Arc::new(Self {
            sim: sim.clone(),
            ledger: ledger.clone(),
            begin: sim.ms_below(1_000_000),
            known: Mutex::new((Duration::ZERO, ledger.offset_ms.load(Ordering::Relaxed))),
            error_ms: if alone { 0 } else { error },
            ask_every: if alone { Duration::ZERO } else { ASK_EVERY },
            own_ms: AtomicI64::new(own_ms),
            own,
        })
    }

    /// Somebody sets this machine's clock.
    pub(crate) fn jump(&self) {
        self.own_ms.fetch_add(an_hour_off(&self.sim), Ordering::Relaxed);
    }
}

/// Up to an hour, forward or back.
pub(crate) fn an_hour_off(sim: &Sim) -> i64 {
    i64::try_from(sim.below(7_200_000)).expect("two hours") - 3_600_000
}

#[async_trait]
impl Clock for ProcessClock {
    fn now(&self) -> Time {
        if self.own {
            return self.ledger.with_offset(self.own_ms.load(Ordering::Relaxed));
        }
        let now = self.sim.now();
        let mut known = self.known.lock().expect("no holder panics");
        if now >= known.0 + self.ask_every {
            *known = (now, self.ledger.offset_ms.load(Ordering::Relaxed));
        }
        self.ledger.with_offset(known.1 + self.error_ms)
    }

    fn monotonic(&self) -> Duration {
        self.begin + self.sim.now()
    }

    async fn sleep(&self, time: Duration) {
        self.sim.sleep(time).await;
    }

    fn chance(&self) -> u64 {
        self.sim.chance()
    }
}
