//! The JSON of the live stream.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::curve::CurveJson;
use super::story::{Entry, Mark, Offence, Orders};
use super::tally::{Answers, LatencyJson};
use crate::audit::StockItem;
use crate::model::{Item, SaleId, SaleState, Seq, Time, Units};

/// A sale at one watermark.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Tick {
    pub(super) sale: SaleId,
    pub(super) name: String,
    pub(super) state: SaleState,
    pub(super) server_time: Time,
    pub(super) opens_at: Option<Time>,
    pub(super) closes_at: Option<Time>,
    pub(super) hold_seconds: u32,
    pub(super) per_customer_limit: Option<Units>,
    pub(super) watermark: Seq,
    pub(super) conserved: bool,
    pub(super) in_flight: u64,
    pub(super) verdict: VerdictJson,
    pub(super) items: Vec<ItemJson>,
    pub(super) funnel: Funnel,
    pub(super) latency: LatencyJson,
    pub(super) queue: QueueJson,
    pub(super) holds: HoldsJson,
    pub(super) process: ProcessJson,
    pub(super) marks: Vec<Mark>,
    pub(super) demo: bool,
}

/// The first event of a stream: a tick, and what led to it.
#[derive(Serialize)]
pub(super) struct Snapshot<'a> {
    #[serde(flatten)]
    pub(super) tick: &'a Tick,
    pub(super) curve: CurveJson,
    pub(super) log: &'a VecDeque<Entry>,
}

/// What must be 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct VerdictJson {
    pub(super) oversold: u64,
    pub(super) undersold: u64,
    pub(super) broken_promises: u64,
    pub(super) conservation_errors: u64,
    pub(super) first_offence: Option<Offence>,
}

/// Where the units of an item are, and what the item is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ItemJson {
    #[serde(flatten)]
    units: StockItem,
    name: String,
    price_cents: u64,
    currency: String,
}

/// What became of requests, in this process; and of orders, in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Funnel {
    requests: u64,
    shed: u64,
    sold_out: u64,
    limit: u64,
    other: u64,
    repeats: u64,
    accepted: u64,
    settled: u64,
    held: u64,
    sold: u64,
    lapsed: u64,
    cancelled: u64,
}

/// How much waits for settlement.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct QueueJson {
    pub(super) depth: u64,
    pub(super) oldest_seconds: f64,
    pub(super) dead_letters: u64,
}

/// Which holds end next, and how late the last one that lapsed did.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct HoldsJson {
    pub(super) next: Vec<Due>,
    pub(super) release_lag_seconds: Option<f64>,
}

/// Units whose holds end within this second.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Due {
    pub(super) at: Time,
    pub(super) units: u64,
}

/// The process that answers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ProcessJson {
    version: &'static str,
    gate: &'static str,
    queue: &'static str,
    ledger: &'static str,
    uptime_seconds: f64,
    /// Null where the system does not say.
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
}

/// The last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub(super) enum Bye {
    ShuttingDown,
    SaleGone,
    TooSlow,
}

impl ItemJson {
    pub(super) fn new(units: StockItem, item: &Item) -> Self {
        let Item { name, price_cents, currency, .. } = item;
        Self { units, name: name.clone(), price_cents: *price_cents, currency: currency.clone() }
    }
}

impl Funnel {
    pub(super) fn new(answers: Answers, orders: Orders) -> Self {
        let Answers { requests, shed, sold_out, limit, other, repeats, accepted } = answers;
        let Orders { settled, held, sold, lapsed, cancelled } = orders;
        Self { requests, shed, sold_out, limit, other, repeats, accepted, settled, held, sold, lapsed, cancelled }
    }
}

impl ProcessJson {
    pub(super) fn read(run_by: super::super::RunBy, uptime: Duration) -> Self {
        let super::super::RunBy { gate, queue, ledger } = run_by;
        let version = env!("CARGO_PKG_VERSION");
        let (cpu_seconds, memory_bytes) = (cpu_seconds(), memory_bytes());
        Self { version, gate, queue, ledger, uptime_seconds: uptime.as_secs_f64(), cpu_seconds, memory_bytes }
    }
}

/// Processor time of this process; Linux counts it in hundredths of a second for everybody who asks this way.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name stands in brackets and may hold anything; behind it, user and system time are the 12th and 13th field.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(f64::from(user.saturating_add(system)) / 100.0)
}

fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_knows_its_size() {
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1_000_000), "{:?}", memory_bytes());
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }

    #[test]
    fn a_bye_says_why() {
        assert_eq!(serde_json::to_string(&Bye::TooSlow).unwrap(), r#"{"reason":"too_slow"}"#);
    }
}
