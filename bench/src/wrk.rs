//! The load of most figures: `wrk` with orders.lua, a closed crowd of so many connections.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::figures::CONNECTIONS;
use crate::machine::{self, Meter};

/// Customers have ten digits, so that every request has the same length.
static NEXT_CUSTOMER: AtomicU64 = AtomicU64::new(1_000_000_000);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Load<'a> {
    /// Without a path.
    pub(crate) url: &'a str,
    pub(crate) sale: &'a str,
    /// With several, the sales are called `SALE-0001` and so on.
    pub(crate) sales: u32,
    pub(crate) connections: u32,
    pub(crate) seconds: u32,
    /// Whether every request opens a connection of its own.
    pub(crate) churn: bool,
    /// Whose processor time counts as the server's.
    pub(crate) pids: &'a [u32],
}

impl<'a> Load<'a> {
    /// A second of the usual crowd in one sale.
    pub(crate) fn new(url: &'a str, sale: &'a str, pids: &'a [u32]) -> Self {
        Self { url, sale, sales: 1, connections: CONNECTIONS, seconds: 1, churn: false, pids }
    }
}

/// What a stretch of load came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Burst {
    /// Answers a second, of whatever kind was asked for.
    pub(crate) per_s: f64,
    /// All answers.
    pub(crate) answers: u64,
    /// Answers with a status of 400 or more.
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time per answer: of the server's processes, of the generator, and of the whole machine.
    pub(crate) server_us: f64,
    pub(crate) generator_us: f64,
    pub(crate) machine_us: f64,
}

impl Burst {
    /// With all processor time since the meter's start, so that what was done after the load counts as well.
    pub(crate) fn metered(self, meter: &Meter<'_>) -> anyhow::Result<Self> {
        let (server_us, machine_us) = meter.per_order(self.answers)?;
        Ok(Self { server_us, machine_us, ..self })
    }
}

/// What orders.lua prints in the end.
#[derive(Deserialize)]
struct Done {
    duration_us: f64,
    answers: u64,
    refused: u64,
    broken: u64,
    timeouts: u64,
    p50_us: f64,
    p99_us: f64,
}

/// Asks for so long. A request without an answer makes the run fail: it would be counted nowhere.
pub(crate) fn run(load: &Load<'_>) -> anyhow::Result<Burst> {
    let first = NEXT_CUSTOMER.load(Ordering::Relaxed).to_string();
    let (connections, seconds, sales) =
        (load.connections.to_string(), format!("{}s", load.seconds), load.sales.to_string());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/orders.lua");
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c", &connections, "-d", &seconds, "--timeout", "10s", "-s", script, load.url, "--"]);
    wrk.args([&first, load.sale, &sales]).args(load.churn.then_some("close"));
    let (meter, generator_us) = (Meter::start(load.pids)?, machine::children_cpu_us()?);
    let output = wrk.output().context("wrk does not start: on Debian or Ubuntu, apt-get install wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    let done = said.lines().rev().find(|line| line.starts_with('{')).with_context(|| format!("wrk said {said}"))?;
    let done: Done = serde_json::from_str(done)?;
    ensure!(done.answers > 0 && done.broken == 0 && done.timeouts == 0, "requests had no answer: {said}");
    NEXT_CUSTOMER.fetch_add(done.answers + 2 * u64::from(load.connections) + 1_000, Ordering::Relaxed);
    let answers = done.answers as f64;
    let burst = Burst {
        per_s: answers / done.duration_us * 1e6,
        answers: done.answers,
        refused: done.refused,
        seconds: done.duration_us / 1e6,
        p50_ms: done.p50_us / 1e3,
        p99_ms: done.p99_us / 1e3,
        generator_us: (machine::children_cpu_us()? - generator_us) / answers,
        ..Burst::default()
    };
    burst.metered(&meter)
}
