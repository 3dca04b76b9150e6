//! What every part of a run shares: its time, its chance, what is on its way, what happened last. The same seed is the same
//! run, to the last step.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Events kept for the message of a failure: all of a run, except for the longest.
const EVENTS_MAX: usize = 2_000;

pub(super) type Parcel = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One run's time and chance. A run stays on its thread; the atomics and locks are there because clocks are shared.
pub(crate) struct Sim {
    /// Whether events are kept. A run that fails is run again with them.
    noting: bool,
    random: AtomicU64,
    now_nanos: AtomicU64,
    numbers: AtomicU64,
    dying: AtomicBool,
    broken: AtomicBool,
    inner: Mutex<Inner>,
    ready: Mutex<Vec<Ready>>,
}

/// A task that can go on: its number, and where it is.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) number: u64,
    pub(super) slot: usize,
}

#[derive(Default)]
struct Inner {
    timers: BTreeMap<(Duration, u64), Waker>,
    sent: Vec<Parcel>,
    events: VecDeque<String>,
    violation: Option<Violation>,
}

/// An invariant that does not hold, and how it showed.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

impl Sim {
    pub(crate) fn new(seed: u64, noting: bool) -> Arc<Self> {
        Arc::new(Self {
            noting,
            random: AtomicU64::new(seed),
            now_nanos: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            dying: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            inner: Mutex::default(),
            ready: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    pub(super) fn ready(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.ready.lock().expect("no holder panics")
    }

    pub(super) fn number(&self) -> u64 {
        let number = self.numbers.load(Ordering::Relaxed) + 1;
        self.numbers.store(number, Ordering::Relaxed);
        number
    }

    /// Since the run began.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now_nanos.load(Ordering::Relaxed))
    }

    /// The next of the random numbers. The generator is SplitMix64 (Steele, Lea, Flood, 2014).
    pub(crate) fn chance(&self) -> u64 {
        let random = self.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.store(random, Ordering::Relaxed);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub(crate) fn below(&self, limit: usize) -> usize {
        usize::try_from(self.chance() % limit as u64).expect("below a usize")
    }

    /// A time below so many milliseconds.
    pub(crate) fn ms_below(&self, limit: usize) -> Duration {
        Duration::from_millis(self.below(limit) as u64)
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Sends something over the network, where it is nobody's: it lives on when its sender dies.
    pub(crate) fn send(&self, parcel: impl Future<Output = ()> + Send + 'static) {
        self.lock().sent.push(Box::pin(parcel));
    }

    pub(super) fn take_sent(&self) -> Vec<Parcel> {
        std::mem::take(&mut self.lock().sent)
    }

    /// Lets others go first, a few times or not at all.
    pub(crate) async fn pause(&self) {
        for _ in 0..[0, 0, 1, 2][self.below(4)] {
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
    }

    /// Ends the task that asks for it, here.
    pub(crate) async fn die(&self) {
        self.dying.store(true, Ordering::Relaxed);
        pending::<()>().await;
    }

    /// Whether the task that was just polled wants to die.
    pub(super) fn dies(&self) -> bool {
        self.dying.load(Ordering::Relaxed) && self.dying.swap(false, Ordering::Relaxed)
    }

    /// Lets time go by, and rings what is due.
    pub(crate) fn pass(&self, time: Duration) {
        let now = self.now() + time;
        self.now_nanos.store(u64::try_from(now.as_nanos()).expect("a short run"), Ordering::Relaxed);
        let due = {
            let mut inner = self.lock();
            let later = inner.timers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut inner.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// When the next timer rings.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.lock().timers.keys().next().map(|(at, _)| *at)
    }

    /// Comes back after this time. A busy machine may wake a sleeper late.
    pub(crate) async fn sleep(&self, time: Duration) {
        let late = if self.percent(50) { Duration::ZERO } else { self.ms_below(60) };
        Sleep { sim: self, number: self.number(), until: self.now() + time + late }.await;
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
        let now = self.now().as_millis();
        inner.events.push_back(format!("{now:>8} ms  {}", event()));
    }

    /// The run has failed; the first violation counts.
    pub(crate) fn violated(&self, invariant: &'static str, detail: String) {
        self.lock().violation.get_or_insert(Violation { invariant, detail });
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn failed(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
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
        if self.sim.now() >= self.until {
            return Poll::Ready(());
        }
        self.sim.lock().timers.insert((self.until, self.number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.sim.lock().timers.remove(&(self.until, self.number));
    }
}
