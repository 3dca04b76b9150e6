//! What a run came to: counts, latencies per outcome, and the verdict, for people and as JSON.

use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::check::Check;
use super::crowd::{Crowd, Habits};
use super::engine::{LATE_MS, Tally};
use super::record::{Outcome, Record};
use crate::audit::Verdict;
use crate::model::SaleId;

/// Violations that are shown to people; the JSON has them all.
const VIOLATIONS_SHOWN_MAX: usize = 20;

/// The longest latency that is told apart: longer than a request may wait, and its answer after that.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What a run came to. Its JSON only ever gains members; the unit stands last in their names.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The servers.
    pub urls: Vec<String>,
    /// The sale.
    pub sale: SaleId,
    /// Who came.
    pub crowd: Came,
    /// What they sent.
    pub requests: Requests,
    /// From the first moment to the last answer.
    pub elapsed_s: f64,
    /// Answers per second of that time.
    pub answers_per_s: f64,
    /// What the requests came to.
    pub outcomes: Vec<Latencies>,
    /// The crowd's answers against the ledger; null if nobody was asked.
    pub check: Option<Check>,
}

/// Who came.
#[derive(Debug, Clone, Serialize)]
pub struct Came {
    /// The same seed and habits make the same crowd.
    pub seed: u64,
    /// People.
    pub customers: u32,
    /// What they wanted; each wish has one idempotency key.
    pub wishes: u64,
    /// Connections that they shared.
    pub connections: usize,
}

/// What happened to the requests.
#[derive(Debug, Clone, Serialize)]
pub struct Requests {
    /// All that the crowd meant to send.
    pub offered: u64,
    /// Offered per second, on average.
    pub offered_per_s: f64,
    /// Sent.
    pub sent: u64,
    /// Those of them that were sent more than 10 ms after they were due. Their latency counts from when they were due.
    pub late: u64,
    /// Given up, because they could not leave within 5 s.
    pub dropped: u64,
    /// Sent again, because they heard nothing or "not now".
    pub again: u64,
    /// Requests about an order that there was not.
    pub unneeded: u64,
    /// Not sent because the run was interrupted.
    pub interrupted: u64,
}

/// How long one outcome took, from when the request was due to the end of its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latencies {
    /// Which.
    pub outcome: Outcome,
    /// Requests.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// Nine of ten were faster.
    pub p90_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
    /// 999 of 1,000 were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Summary {
    /// Sums a run up.
    pub fn new(
        urls: Vec<String>,
        sale: SaleId,
        habits: &Habits,
        connections: usize,
        crowd: &Crowd,
        records: &[Record],
        tally: &Tally,
    ) -> Self {
        let elapsed_s = records.iter().map(|record| record.answered_us).max().unwrap_or(0) as f64 / 1e6;
        let came =
            Came { seed: habits.seed, customers: habits.customers, wishes: crowd.wishes.len() as u64, connections };
        Self {
            urls,
            sale,
            crowd: came,
            requests: Requests::new(crowd, records, tally),
            elapsed_s: rounded(elapsed_s),
            answers_per_s: (records.len() as f64 / elapsed_s.max(1e-6)).round(),
            outcomes: latencies(crowd, records),
            check: None,
        }
    }

    /// Requests with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.iter().find(|latencies| latencies.outcome == outcome).map_or(0, |latencies| latencies.count)
    }

    /// The last line: what must be 0, and whether it is.
    pub fn verdict(&self) -> Option<String> {
        let Check { verdict, oversold, undersold, broken_promises, conserved, violations, .. } = self.check.as_ref()?;
        let mut line = format!("OVERSOLD {oversold} · UNDERSOLD {undersold} · BROKEN PROMISES {broken_promises} · ");
        line += if *conserved { "CONSERVED" } else { "NOT CONSERVED" };
        match verdict {
            Verdict::Exact => {}
            Verdict::Unsettled => line += " · NOT YET SETTLED",
            Verdict::Violation => line += &format!(" · VIOLATIONS {}", violations.len()),
        }
        Some(line)
    }

    /// The table of latencies.
    pub fn table(&self) -> Table<'_> {
        Table(&self.outcomes)
    }
}

impl Requests {
    fn new(crowd: &Crowd, records: &[Record], tally: &Tally) -> Self {
        let late = |record: &&Record| {
            record.sent_us > crowd.requests[record.request as usize].due_us.saturating_add(LATE_MS * 1_000)
        };
        let firsts: Vec<&Record> =
            records.chunk_by(|one, other| one.request == other.request).map(|sendings| &sendings[0]).collect();
        let offered = crowd.requests.len() as u64;
        let time_s = crowd.requests.last().map_or(0, |last| last.due_us) as f64 / 1e6;
        let dropped = tally.dropped();
        let unneeded = tally.unneeded();
        let sent = firsts.len() as u64;
        Self {
            offered,
            offered_per_s: (offered as f64 / time_s.max(1e-6)).round(),
            sent,
            late: firsts.into_iter().filter(late).count() as u64,
            dropped,
            again: records.len() as u64 - sent,
            unneeded,
            interrupted: offered.saturating_sub(sent + dropped + unneeded),
        }
    }
}

fn latencies(crowd: &Crowd, records: &[Record]) -> Vec<Latencies> {
    let empty = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order");
    let mut histograms = Outcome::ALL.map(|_| empty.clone());
    for record in records {
        let due_us = crowd.requests[record.request as usize].due_us;
        histograms[record.outcome as usize].saturating_record(record.answered_us.saturating_sub(due_us));
    }
    let some = Outcome::ALL.into_iter().zip(&histograms).filter(|(_, histogram)| !histogram.is_empty());
    some.map(|(outcome, histogram)| {
        let at_ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latencies {
            outcome,
            count: histogram.len(),
            p50_ms: at_ms(0.5),
            p90_ms: at_ms(0.9),
            p99_ms: at_ms(0.99),
            p999_ms: at_ms(0.999),
            max_ms: histogram.max() as f64 / 1e3,
        }
    })
    .collect()
}

fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// A number for people: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { crowd, requests, .. } = self;
        writeln!(f, "sale      {} at {}", self.sale, self.urls.join(" "))?;
        let (customers, wishes) = (grouped(crowd.customers.into()), grouped(crowd.wishes));
        let (seed, connections) = (crowd.seed, crowd.connections);
        writeln!(f, "crowd     {customers} customers, {wishes} wishes, {connections} connections, seed {seed}")?;
        let rate = requests.offered_per_s;
        writeln!(f, "offered   {} requests, {} a second", grouped(requests.offered), rounded(rate))?;
        let (sent, late, dropped) = (grouped(requests.sent), grouped(requests.late), grouped(requests.dropped));
        write!(f, "sent      {sent}, {late} of them late by more than {LATE_MS} ms, {dropped} dropped")?;
        let more = [(requests.again, "sent again"), (requests.unneeded, "not needed")];
        for (count, words) in more.into_iter().chain([(requests.interrupted, "interrupted")]) {
            if count > 0 {
                write!(f, ", {} {words}", grouped(count))?;
            }
        }
        writeln!(f, "\nanswered  in {} s, {} a second\n", self.elapsed_s, self.answers_per_s)?;
        writeln!(f, "{}", self.table())?;
        self.check.iter().try_for_each(|check| write!(f, "\n{}", Told(check)))
    }
}

/// The latencies per outcome, for people.
pub struct Table<'a>(&'a [Latencies]);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999, max] = ["p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
        write!(f, "{:<14}{:>11}{p50:>10}{p90:>10}{p99:>10}{p999:>10}{max:>10}", "outcome", "requests")?;
        for Latencies { outcome, count, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } in self.0 {
            let (outcome, count) = (outcome.words(), grouped(*count));
            write!(f, "\n{outcome:<14}{count:>11}")?;
            write!(f, "{p50_ms:>10.2}{p90_ms:>10.2}{p99_ms:>10.2}{p999_ms:>10.2}{max_ms:>10.2}")?;
        }
        Ok(())
    }
}

/// What the check found, for people.
struct Told<'a>(&'a Check);

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Check { promised, ended, watermark, violations, .. } = self.0;
        let [promised, held, sold, released] = [*promised, ended.held, ended.sold, ended.released].map(grouped);
        writeln!(f, "promised  {promised} ({held} held, {sold} sold, {released} released, as of #{watermark})")?;
        for violation in violations.iter().take(VIOLATIONS_SHOWN_MAX) {
            writeln!(f, "violation {violation}")?;
        }
        match violations.len().saturating_sub(VIOLATIONS_SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "          and {more} more, which --json shows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::check::{Broken, Ended, Violation};
    use crate::model::{Effect, OrderId, Seq, Sku};

    /// Ten orders, a millisecond apart: one accepted after 2.5 ms, one sold out in time, one sold out but sent late.
    fn summary() -> Summary {
        let habits = Habits { customers: 10, orders: 10, ..Habits::plain(7) };
        let mut crowd = Crowd::gather(&habits, &[Sku::new("ps5").unwrap()], None);
        (0..).zip(&mut crowd.requests).for_each(|(number, request)| request.due_us = number * 1_000);
        let record = |request, outcome, sent_us, answered_us| {
            let order = (outcome == Outcome::Accepted).then_some(OrderId([1; 16]));
            let (effect, seq) = (Effect::None, Seq(0));
            Record { request, status: 0, outcome, effect, sold_out: None, sent_us, answered_us, order, seq }
        };
        let records = [
            record(0, Outcome::Accepted, 100, 2_500),
            record(1, Outcome::SoldOut, 1_000, 1_200),
            record(2, Outcome::SoldOut, 12_001, 12_100),
        ];
        let sale = SaleId::new("drop").unwrap();
        let urls = vec!["http://127.0.0.1:8080".to_owned()];
        let mut summary = Summary::new(urls, sale, &habits, 2, &crowd, &records, &Tally::default());
        summary.check = Some(Check {
            verdict: Verdict::Violation,
            oversold: 0,
            undersold: 0,
            broken_promises: 1,
            conserved: true,
            watermark: 12,
            promised: 1,
            ended: Ended::default(),
            again: 0,
            violations: vec![Violation {
                broken: Broken::BrokenPromise,
                orders: vec![OrderId([1; 16])],
                detail: "it was accepted and then refused".into(),
            }],
        });
        summary
    }

    #[test]
    fn the_json_keeps_its_shape() {
        insta::assert_json_snapshot!(summary());
    }

    #[test]
    fn people_read_a_table_and_the_violations() {
        insta::assert_snapshot!(summary());
    }

    #[test]
    fn the_verdict_is_one_line() {
        let mut summary = summary();
        let bad = "OVERSOLD 0 · UNDERSOLD 0 · BROKEN PROMISES 1 · CONSERVED · VIOLATIONS 1";
        assert_eq!(summary.verdict().as_deref(), Some(bad));
        let check = summary.check.as_mut().unwrap();
        *check = Check { verdict: Verdict::Exact, broken_promises: 0, violations: Vec::new(), ..check.clone() };
        let good = "OVERSOLD 0 · UNDERSOLD 0 · BROKEN PROMISES 0 · CONSERVED";
        assert_eq!(summary.verdict().as_deref(), Some(good));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
