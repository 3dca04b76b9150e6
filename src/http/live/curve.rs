//! Where the units of a sale were over time, from its journal: bins that widen tenfold whenever they become too many, so
//! that a sale of 300 ms is as well drawn as one of a week.

use serde::Serialize;

use super::tally::Tally;
use crate::model::Time;

/// Bins of one curve.
const BINS_MAX: usize = 1_000;
/// The narrowest bin.
const BIN_MS_MIN: i64 = 10;

/// Units available, held and sold, of all items together.
pub(super) type Levels = [u64; 3];

/// The levels at the end of each bin.
#[derive(Debug, Clone, Default)]
pub(super) struct Curve {
    bin_ms: i64,
    from_ms: i64,
    bins: Vec<Levels>,
}

/// A curve as it is sent. Bin number i begins at `from + i * bin_ms`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct CurveJson {
    bin_ms: i64,
    from: Time,
    /// At the end of each bin.
    available: Vec<u64>,
    held: Vec<u64>,
    sold: Vec<u64>,
    /// Within each bin.
    refused: Vec<u64>,
}

impl Curve {
    /// Begins a bin before this moment, if it has not begun yet.
    fn begin(&mut self, at: Time, levels: Levels) {
        if self.bins.is_empty() {
            self.bin_ms = BIN_MS_MIN;
            self.from_ms = at.millis() - at.millis().rem_euclid(BIN_MS_MIN) - BIN_MS_MIN;
            self.bins.push(levels);
        }
    }

    /// From this moment on the levels are these; before, they were those. Moments come in their sequence; one that is
    /// earlier than the last counts as the last.
    pub(super) fn note(&mut self, at: Time, before: Levels, levels: Levels) {
        self.begin(at, before);
        self.reach(at, before);
        if let Some(last) = self.bins.last_mut() {
            *last = levels;
        }
    }

    /// Makes the bin of this moment the last one, unless it is there already.
    fn reach(&mut self, at: Time, levels: Levels) {
        let place = |curve: &Self| {
            let since = at.millis().saturating_sub(curve.from_ms) / curve.bin_ms;
            usize::try_from(since).unwrap_or(0)
        };
        while place(self) >= BINS_MAX {
            self.bin_ms *= 10;
            self.bins = self.bins.chunks(10).filter_map(|bins| bins.last().copied()).collect();
        }
        let bins = (place(self) + 1).max(self.bins.len());
        self.bins.resize(bins, levels);
    }

    /// The whole curve up to the last move or refusal; `levels` are those of this moment.
    pub(super) fn read(&self, now: Time, levels: Levels, tally: Option<&Tally>) -> CurveJson {
        let mut curve = self.clone();
        let refused = tally.and_then(Tally::refused_between);
        if let Some((first, last)) = refused {
            curve.begin(first, levels);
            curve.reach(last, levels);
        }
        curve.begin(now, levels);
        let (from, bins) = (Time::from_millis(curve.from_ms), curve.bins.len());
        let width = u64::try_from(curve.bin_ms).unwrap_or(1);
        let of = |place: usize| curve.bins.iter().map(|levels| levels[place]).collect();
        CurveJson {
            bin_ms: curve.bin_ms,
            from,
            available: of(0),
            held: of(1),
            sold: of(2),
            refused: tally.map_or_else(|| vec![0; bins], |tally| tally.refused_in(from, width, bins)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::metrics::Outcome;

    fn at(ms: i64) -> Time {
        Time::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_sale_of_a_third_of_a_second_has_thirty_bins() {
        let mut curve = Curve::default();
        for unit in 0..100_u64 {
            let ms = i64::try_from(unit * 3).unwrap();
            curve.note(at(ms), [100 - unit, unit, 0], [99 - unit, unit + 1, 0]);
        }
        let read = curve.read(at(5_000), [0, 100, 0], None);
        assert_eq!((read.bin_ms, read.from, read.available.len()), (10, at(-10), 31));
        assert_eq!((read.available[0], read.available[1], read.available[30]), (100, 96, 0));
        assert_eq!((read.held[30], read.sold[30]), (100, 0));
    }

    #[test]
    fn a_long_sale_keeps_to_its_bins_and_its_levels() {
        let mut curve = Curve::default();
        for unit in 0..5_000_u64 {
            let ms = i64::try_from(unit * 7_919).unwrap();
            curve.note(at(ms), [5_000 - unit, 0, unit], [4_999 - unit, 0, unit + 1]);
        }
        let read = curve.read(at(0), [0, 0, 5_000], None);
        assert_eq!(read.bin_ms, 100_000);
        assert_eq!(read.available.len(), 396);
        assert!(read.sold.is_sorted() && read.sold.last() == Some(&5_000), "{read:?}");
        let middle = at(-10).millis() + 200 * read.bin_ms;
        let sold_by_then = (0..5_000).filter(|unit| at(unit * 7_919).millis() < middle).count() as u64;
        assert_eq!(read.sold[199], sold_by_then);
    }

    #[test]
    fn refusals_alone_make_a_curve_and_reach_beyond_the_last_move() {
        let tally = Tally::new(Duration::ZERO, at(0));
        tally.record(Outcome::SoldOut, Duration::from_millis(40), Duration::ZERO);
        let none = Curve::default().read(at(99), [5, 0, 0], Some(&tally));
        assert_eq!((none.available, none.refused), (vec![5, 5], vec![0, 1]));
        let mut curve = Curve::default();
        curve.note(at(0), [1, 0, 0], [0, 1, 0]);
        let read = curve.read(at(99), [0, 1, 0], Some(&tally));
        assert_eq!((read.available, read.refused), (vec![1, 0, 0, 0, 0, 0], vec![0, 0, 0, 0, 0, 1]));
    }
}
