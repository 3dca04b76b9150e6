//! What the layers that run as servers of their own have in common: why one cannot be used, and how long to wait before
//! the next try.

use std::time::Duration;

/// The first wait after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait: a server that came back is found within this time.
const LONGEST: Duration = Duration::from_secs(1);

/// Why a server cannot be used, in words for the operator; the caller adds which setting named it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unusable {
    /// It is not there, or not yet: refused, silent, starting. Another try may succeed.
    #[error("{0}")]
    NotYet(String),
    /// It is there and will not do: a wrong address, password, name, version or setting. A person has to change something.
    #[error("{0}")]
    Wrong(String),
}

/// Waits that grow from one failure to the next, each shortened by chance, so that many processes do not come back at
/// the same moment ("full jitter", Marc Brooker, *Exponential Backoff and Jitter*, 2015).
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure; `chance` is 64 random bits.
    pub fn next(&mut self, chance: u64) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        FIRST / 2 + Duration::from_micros(chance % micros.max(1))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..8).map(|_| backoff.next(u64::MAX / 3).as_millis()).collect();
        assert!(longest.iter().all(|wait| (25..=1_025).contains(wait)), "{longest:?}");
        let mut backoff = Backoff { failures: 40 };
        assert!(backoff.next(999_999) > Duration::from_millis(1_000));
        backoff.reset();
        assert!(backoff.next(u64::MAX) <= Duration::from_millis(75));
    }
}
