//! Now, sleep, chance: real, or simulated. Whoever needs one of the three asks a [`Clock`], so that a simulation can
//! repeat every run from its seed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::model::Time;

/// Where time and chance come from.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day. It may jump; nothing waits by it.
    fn now(&self) -> Time;

    /// Since some fixed moment; never goes back. Timeouts go by it.
    fn monotonic(&self) -> Duration;

    /// Comes back after this time, or a little later.
    async fn sleep(&self, time: Duration);

    /// 64 random bits: ids of markers, jitter. Unguessable on the real clock.
    fn chance(&self) -> u64;
}

/// The machine's own clock and randomness.
pub struct RealClock {
    started: Instant,
}

impl RealClock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
#[expect(clippy::disallowed_methods, reason = "this is where time and chance come from")]
impl Clock for RealClock {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn chance(&self) -> u64 {
        getrandom::u64().expect("the operating system gives random bits")
    }
}
