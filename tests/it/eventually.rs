//! Waiting for what comes by itself; without anything else of these tests, so that the bench can borrow it with the servers.

use std::future::Future;
use std::time::Duration;

use sluice::clock::{Clock, RealClock};

/// Waits until it is so, for at most 20 seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let clock = RealClock::new();
    while !so().await {
        assert!(clock.monotonic() < Duration::from_secs(20), "still not so: {what}");
        clock.sleep(Duration::from_millis(5)).await;
    }
}
