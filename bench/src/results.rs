//! What was measured, as it is kept in docs/bench/results.json: every single run, so that anybody can count again.

use serde::{Deserialize, Serialize};

use crate::wrk::Burst;

/// Everything that the report shows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) figures: Vec<Figure>,
    pub(crate) growth: Vec<Growth>,
}

/// One figure: Sluice's runs beside those of its control.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// For people.
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) subject: Series,
    pub(crate) control: Option<Series>,
    pub(crate) bar: Option<Bar>,
    /// What else the runs showed.
    pub(crate) notes: Vec<String>,
    pub(crate) run: Run,
}

/// When and of what it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) commit: String,
    pub(crate) at: String,
    pub(crate) quick: bool,
}

/// Several runs of the same.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
    /// The load behind each value, where there was one.
    pub(crate) bursts: Vec<Burst>,
}

/// What is aimed at.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// At least so many times the control.
    RatioMin(f64),
    /// At most so much.
    Max(f64),
}

/// How the processor time of one order grows with something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What grows.
    pub(crate) axis: String,
    pub(crate) lines: Vec<GrowthLine>,
    pub(crate) run: Run,
}

/// The name of the line that shows what the stack costs without Sluice.
pub(crate) const CONTROL_LINE: &str = "the control's answers";
/// Cost may grow by this factor and is still called flat.
const FLAT: f64 = 1.2;

/// One sort of order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GrowthLine {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Point {
    /// How much there is of what grows.
    pub(crate) x: f64,
    /// The server's processor time per order, in microseconds, as if the machine had been equally fast at all points.
    pub(crate) server_us: f64,
    /// The same as it was measured.
    pub(crate) measured_us: f64,
    pub(crate) per_s: f64,
}

impl Series {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds a run whose figure is its rate.
    pub(crate) fn add(&mut self, burst: Burst) {
        self.values.push(burst.per_s);
        self.bursts.push(burst);
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.values.iter().copied())
    }

    pub(crate) fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }

    /// The median of something else that the bursts showed.
    pub(crate) fn of(&self, what: impl Fn(&Burst) -> f64) -> Option<f64> {
        (!self.bursts.is_empty()).then(|| median(self.bursts.iter().map(what)))
    }
}

impl Figure {
    /// The subject as a part of the control: the median of all turns, each against the control's turn beside it.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let turns = self.subject.values.iter().zip(&self.control.as_ref()?.values);
        Some(median(turns.map(|(subject, control)| subject / control)))
    }

    /// Whether the bar is reached; `None` without one.
    pub(crate) fn reached(&self) -> Option<bool> {
        match self.bar? {
            Bar::RatioMin(least) => self.ratio().map(|ratio| ratio >= least),
            Bar::Max(most) => Some(self.subject.median() <= most),
        }
    }
}

impl GrowthLine {
    /// Whether cost grows as little as it should; `None` for the control's, which is no cost of Sluice.
    pub(crate) fn flat(&self) -> Option<bool> {
        (self.name != CONTROL_LINE).then(|| self.factor() <= FLAT)
    }

    /// How many times dearer an order becomes at most: the largest factor between a point and any smaller one. Getting
    /// cheaper is no growth.
    pub(crate) fn factor(&self) -> f64 {
        let mut cheapest = f64::INFINITY;
        let mut factor = 1.0_f64;
        for point in &self.points {
            factor = factor.max(point.server_us / cheapest);
            cheapest = cheapest.min(point.server_us);
        }
        factor
    }
}

impl Results {
    /// Puts a figure in the place of the one of its name, or at the end.
    pub(crate) fn put(&mut self, figure: Figure) {
        match self.figures.iter_mut().find(|known| known.name == figure.name) {
            Some(known) => *known = figure,
            None => self.figures.push(figure),
        }
    }

    /// The same for growth.
    pub(crate) fn put_growth(&mut self, growth: Growth) {
        match self.growth.iter_mut().find(|known| known.name == growth.name) {
            Some(known) => *known = growth,
            None => self.growth.push(growth),
        }
    }
}

/// The middle of some numbers; between the two in the middle if there are two; not a number if there is none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 1) => values[half],
        (half, _) => f64::midpoint(values[half - 1], values[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn growth_is_against_the_cheapest_smaller_point() {
        let line = |costs: &[f64]| GrowthLine {
            name: String::new(),
            points: costs
                .iter()
                .map(|&server_us| Point { x: 1.0, server_us, measured_us: server_us, per_s: 1.0 })
                .collect(),
        };
        assert_eq!(line(&[4.0, 2.0, 3.0, 2.5]).factor(), 1.5);
        assert_eq!(line(&[4.0, 2.0, 1.0]).factor(), 1.0);
    }
}
