//! A long sale in one process: its memory after a million orders, and how fast it starts again over them.

use anyhow::ensure;

use crate::figures::{CONNECTIONS, Effort};
use crate::machine;
use crate::report::Report;
use crate::results::Bar;
use crate::scene::Scene;
use crate::wrk::{self, Load};

/// All of them are sold, in the quick runs as well: the bars are about a million.
const ORDERS: u64 = 1_000_000;
/// Megabytes at most.
const MEMORY_BAR_MB: f64 = 150.0;
/// From start to ready at most.
const START_BAR_MS: f64 = 1_000.0;

/// Sells a million units one by one, in a process and a folder of its own for every round; then stops and starts the last.
pub(crate) async fn measure(effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut memory = report.figure("memory", "peak memory after a million orders, embedded", "MB");
    memory.bar = Some(Bar::Max(MEMORY_BAR_MB));
    let (mut idle, mut audited) = (Vec::new(), Vec::new());
    let mut sold = None;
    for _round in 0..effort.rounds {
        let scene = Scene::embedded().await?;
        idle.push(machine::resident_mb(scene.pids()[0])?);
        let sale = scene.sale(ORDERS, 6 * 3600).await?;
        sell_out(&scene, &sale, ORDERS, CONNECTIONS).await?;
        scene.settled(&sale).await?;
        memory.subject.values.push(machine::peak_mb(scene.pids()[0])?);
        scene.audit(Some(&sale)).await?;
        audited.push(machine::peak_mb(scene.pids()[0])?);
        sold = Some((scene, sale));
    }
    let (mut scene, sale) = sold.expect("there is a round at least");
    let [idle, audited] = [idle, audited].map(|sizes| crate::results::median(sizes.into_iter()));
    let folder = scene.data_mb();
    memory.notes.push(format!("{idle:.0} MB before the first order; the data folder holds {folder:.0} MB"));
    memory.notes.push(format!("{audited:.0} MB after the audit"));
    report.put(memory)?;

    let mut start = report.figure("start", "start to ready over a million orders, embedded", "ms");
    start.bar = Some(Bar::Max(START_BAR_MS));
    let (mut crash, mut answer) = (Vec::new(), Vec::new());
    for _round in 0..effort.rounds.max(3) {
        start.subject.values.push(scene.restart(true).await?);
        let clock = sluice::clock::RealClock::new();
        ensure!(scene.order(&sale, "late").await? == 409, "a sold-out sale takes an order");
        answer.push(sluice::clock::Clock::monotonic(&clock).as_secs_f64() * 1e3);
        crash.push(scene.restart(false).await?);
    }
    let [crash, answer] = [crash, answer].map(|times| crate::results::median(times.into_iter()));
    start
        .notes
        .push(format!("its first refusal comes {answer:.0} ms after that; after kill -9 it is ready in {crash:.0} ms"));
    scene.audit(Some(&sale)).await?;
    report.put(start)
}

/// Orders until nothing is left of a sale of this stock.
pub(crate) async fn sell_out(scene: &Scene, sale: &str, stock: u64, connections: u32) -> anyhow::Result<()> {
    let mut seconds = 2;
    loop {
        let load = Load { connections, seconds, ..Load::new(&scene.target.url, sale, &[]) };
        let burst = wrk::run(&load)?;
        if burst.refused > 0 {
            return Ok(());
        }
        let stock_now = scene.stock(sale).await?;
        let available = stock_now["items"][0]["available"].as_f64().unwrap_or(stock as f64);
        seconds = ((available / burst.per_s) as u32).clamp(1, 60);
    }
}
