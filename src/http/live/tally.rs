//! What this process answered to the orders of one sale, as the live page shows it: counts, how long they took, and when the
//! refusals were. Atomics alone, because the way of a refusal goes through here.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::http::metrics::Outcome;
use crate::model::Time;

/// Parts of each power of two: a latency is known to an eighth.
const PARTS: u64 = 8;
/// Latencies from here on, about a minute, count as this long.
const LATENCY_US_MAX: u64 = (1 << 26) - 1;
const BUCKETS: usize = 24 * 8;
/// Bins of each width in which refusals are counted.
const BINS: usize = 1_000;
/// Widths of the bins in milliseconds: a refusal is counted in the narrowest that still reaches so far after the first order.
const WIDTHS_MS: [u64; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// The answers to the orders of one sale, since its first order in this process.
pub(in crate::http) struct Tally {
    since: Duration,
    since_time: Time,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    accepted: Latencies,
    sold_out: Latencies,
    other: Latencies,
    refused: Refused,
}

impl Tally {
    /// From this moment on, on both of the clock's times.
    pub(in crate::http) fn new(monotonic: Duration, now: Time) -> Self {
        Self {
            since: monotonic,
            since_time: now,
            outcomes: Default::default(),
            accepted: Latencies::default(),
            sold_out: Latencies::default(),
            other: Latencies::default(),
            refused: Refused::default(),
        }
    }

    /// One answer at this moment, and how long it took.
    pub(in crate::http) fn record(&self, outcome: Outcome, monotonic: Duration, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let latencies = match outcome {
            Outcome::Accepted => &self.accepted,
            Outcome::SoldOut => &self.sold_out,
            _ => &self.other,
        };
        latencies.record(took);
        if !matches!(outcome, Outcome::Accepted | Outcome::Repeated) {
            self.refused.record(monotonic.saturating_sub(self.since));
        }
    }

    pub(super) fn answers(&self) -> Answers {
        let count = |outcome: Outcome| self.outcomes[outcome as usize].load(Ordering::Relaxed);
        let all: u64 = Outcome::ALL.into_iter().map(|(outcome, _)| count(outcome)).sum();
        let [shed, sold_out, limit] = [Outcome::Unavailable, Outcome::SoldOut, Outcome::Limit].map(count);
        let [repeats, accepted] = [Outcome::Repeated, Outcome::Accepted].map(count);
        let other = all - shed - sold_out - limit - repeats - accepted;
        Answers { requests: all, shed, sold_out, limit, other, repeats, accepted }
    }

    pub(super) fn latency(&self) -> LatencyJson {
        LatencyJson { accepted: self.accepted.read(), sold_out: self.sold_out.read(), other: self.other.read() }
    }

    /// When the first and the last refusal were, to the narrowest bin; `None` if there was none.
    pub(super) fn refused_between(&self) -> Option<(Time, Time)> {
        let bins = self.refused.all();
        let (first, last) = (bins.first()?, bins.last()?);
        let at = |ms| self.since_time.after(Duration::from_millis(ms));
        Some((at(first.0), at(last.0)))
    }

    /// Refusals within each of so many bins of this width from this moment on.
    pub(super) fn refused_in(&self, from: Time, bin_ms: u64, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        for (since_ms, count) in self.refused.all() {
            let at = self.since_time.after(Duration::from_millis(since_ms));
            let bin = usize::try_from(at.since(from).as_millis() / u128::from(bin_ms.max(1))).unwrap_or(usize::MAX);
            if at >= from && bin < bins {
                counts[bin] += count;
            }
        }
        counts
    }
}

/// Answers so far, by what they came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Answers {
    pub(super) requests: u64,
    pub(super) shed: u64,
    pub(super) sold_out: u64,
    pub(super) limit: u64,
    pub(super) other: u64,
    pub(super) repeats: u64,
    pub(super) accepted: u64,
}

/// How long answers took, by what they came to.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct LatencyJson {
    accepted: Quantiles,
    sold_out: Quantiles,
    other: Quantiles,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
struct Quantiles {
    count: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    /// Where each bucket that is not empty ends, and how many are in it.
    buckets: Vec<(u64, u64)>,
}

struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), max_us: AtomicU64::new(0) }
    }
}

impl Latencies {
    fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        if us > self.max_us.load(Ordering::Relaxed) {
            self.max_us.fetch_max(us, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Quantiles {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(u64, u64)> =
            counts.enumerate().filter(|(_, count)| *count > 0).map(|(index, count)| (ends_us(index), count)).collect();
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        let max_us = self.max_us.load(Ordering::Relaxed);
        let at = |per_mille: u64| {
            let rank = (count * per_mille).div_ceil(1_000);
            let mut below = 0;
            let found = buckets.iter().find(|(_, count)| {
                below += count;
                below >= rank
            });
            found.map_or(0, |(end_us, _)| (*end_us).min(max_us))
        };
        Quantiles { count, p50_us: at(500), p99_us: at(990), p999_us: at(999), max_us, buckets }
    }
}

/// Below 8 a bucket for each microsecond, then eight for each power of two.
fn bucket(us: u64) -> usize {
    let us = us.min(LATENCY_US_MAX);
    let index = match us.checked_ilog2() {
        Some(power) if power >= 3 => u64::from(power - 2) * PARTS + ((us >> (power - 3)) & (PARTS - 1)),
        _ => us,
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

/// The first microsecond that is no longer in the bucket.
fn ends_us(index: usize) -> u64 {
    let next = index as u64 + 1;
    if next < PARTS { next } else { (PARTS + next % PARTS) << (next / PARTS - 1) }
}

/// Refusals over time. Nothing is ever folded together, so that counting is one addition.
struct Refused(Vec<AtomicU32>);

impl Default for Refused {
    fn default() -> Self {
        Self((0..BINS * WIDTHS_MS.len()).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Refused {
    fn record(&self, since: Duration) {
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let level = WIDTHS_MS.iter().position(|width| ms / width < BINS as u64).unwrap_or(WIDTHS_MS.len() - 1);
        let bin = usize::try_from(ms / WIDTHS_MS[level]).unwrap_or(BINS).min(BINS - 1);
        self.0[level * BINS + bin].fetch_add(1, Ordering::Relaxed);
    }

    /// Where each bin that is not empty begins, in milliseconds, and how many are in it.
    fn all(&self) -> Vec<(u64, u64)> {
        let counts = self.0.iter().map(|count| u64::from(count.load(Ordering::Relaxed)));
        let bins = counts.enumerate().filter(|(_, count)| *count > 0);
        bins.map(|(index, count)| ((index % BINS) as u64 * WIDTHS_MS[index / BINS], count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_a_bucket_that_ends_at_most_an_eighth_later() {
        let mut before = 0;
        for us in (0..5_000).chain([10_000, 65_535, 65_536, 1_000_000, LATENCY_US_MAX]) {
            let index = bucket(us);
            assert!(index >= before, "{us}");
            before = index;
            let end = ends_us(index);
            assert!(us < end && end <= us + us / 8 + 1, "{us} ends at {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let latencies = Latencies::default();
        (1..=1_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let read = latencies.read();
        assert_eq!((read.count, read.max_us), (1_000, 1_000));
        for (found, exact) in [(read.p50_us, 500), (read.p99_us, 990), (read.p999_us, 999)] {
            assert!((exact..=exact * 9 / 8).contains(&found), "{found} for {exact}");
        }
        assert_eq!(Latencies::default().read(), Quantiles::default());
    }

    #[test]
    fn refusals_are_found_again_in_any_bins() {
        let start = Time::from_millis(1_000_000);
        let tally = Tally::new(Duration::from_secs(50), start);
        for ms in [0, 5, 15, 9_999, 10_000, 99_999, 5_000_000] {
            let at = Duration::from_secs(50) + Duration::from_millis(ms);
            tally.record(Outcome::SoldOut, at, Duration::from_micros(3));
        }
        assert_eq!(tally.refused_in(start, 10, 3), [2, 1, 0]);
        assert_eq!(tally.refused_in(start, 10_000, 10).iter().sum::<u64>(), 6);
        assert_eq!(tally.refused_in(start, 1_000_000, 6), [6, 0, 0, 0, 0, 1]);
        let (first, last) = tally.refused_between().unwrap();
        assert_eq!((first, last.since(start)), (start, Duration::from_millis(5_000_000)));
        assert_eq!(tally.answers(), Answers { requests: 7, sold_out: 7, ..Answers::default() });
    }
}
