//! Walks the two busiest ways through an embedded Sluice, and settlement behind them, so that `./bench/instructions` can count
//! the processor's instructions under callgrind. Nothing here depends on the machine's speed: the clock stands still, one
//! thread does the work, and what it waits for has a fixed size.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::Body;
use axum::extract::Request;
use serde::{Deserialize, Serialize};
use sluice::clock::Clock;
use sluice::deployment::{Deployment, embedded};
use sluice::http::{Api, Limits, RunBy, Site, Tokens};
use sluice::ledger::Creation;
use sluice::model::{Item, Phase, Sale, SaleId, Sku, Time, Units, Window};
use sluice::{reconcile, settlement};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Orders that are placed at the same time.
const TOGETHER: usize = 50;
/// Orders of each kind.
const ORDERS: usize = 2_000;

/// How much more counts as the same.
const TOLERANCE: f64 = 0.03;
const TOLERANCE_OTHER_COMPILER: f64 = 0.15;

/// A clock that stands still.
struct StoppedClock;

#[async_trait::async_trait]
impl Clock for StoppedClock {
    fn now(&self) -> Time {
        Time::from_millis(1_800_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _time: Duration) {
        tokio::task::yield_now().await;
    }

    fn chance(&self) -> u64 {
        4
    }
}

/// Without arguments, counts and compares; `walk WAY` is what runs under callgrind.
fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => compare(false),
        ["--renew"] => compare(true),
        ["walk", way] => walk(way).map(|()| ExitCode::SUCCESS),
        _ => anyhow::bail!("usage: instructions [--renew]"),
    }
}

/// What bench/instructions.json holds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Counts {
    /// Which compiler it was; another one makes other instructions.
    compiler: String,
    /// Instructions per order.
    refuse: f64,
    accept: f64,
    settle: f64,
}

impl Counts {
    fn ways(&self) -> [(&'static str, f64); 3] {
        [("refuse", self.refuse), ("accept", self.accept), ("settle", self.settle)]
    }
}

fn compare(renew: bool) -> anyhow::Result<ExitCode> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
    let [refuse, accept, settle] = ["refuse", "accept", "settle"].map(count);
    let counts =
        Counts { compiler: env!("BENCH_COMPILER").to_owned(), refuse: refuse?, accept: accept?, settle: settle? };
    if renew {
        std::fs::write(path, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!("{counts:?}");
        return Ok(ExitCode::SUCCESS);
    }
    let known: Counts = serde_json::from_str(&std::fs::read_to_string(path)?).context("bench/instructions.json")?;
    let tolerance = if known.compiler == counts.compiler { TOLERANCE } else { TOLERANCE_OTHER_COMPILER };
    let mut code = ExitCode::SUCCESS;
    for ((way, count), (_, known)) in counts.ways().into_iter().zip(known.ways()) {
        let change = count / known - 1.0;
        let verdict = match change {
            change if change > tolerance => {
                code = ExitCode::FAILURE;
                "MORE than may be: find out why, or write it down with ./bench/instructions --renew"
            }
            change if change < -tolerance => "less: write it down with ./bench/instructions --renew",
            _ => "as before",
        };
        println!(
            "{way:<7} {count:>9.0} instructions an order, {known:>9.0} before: {:+.1} %, {verdict}",
            100.0 * change
        );
    }
    Ok(code)
}

/// Instructions per order on this way.
fn count(way: &str) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=instructions::measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["walk", way])
        .output()
        .context("valgrind does not start")?;
    ensure!(output.status.success(), "the walk failed: {}", String::from_utf8_lossy(&output.stderr));
    let counted = std::fs::read_to_string(&out)?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind counted nothing")?;
    let total: f64 = total.trim().parse()?;
    ensure!(total > ORDERS as f64, "callgrind saw nothing of the walk");
    Ok(total / ORDERS as f64)
}

/// Prepares a sale, and walks this way many times.
fn walk(way: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let deployment = runtime.block_on(embedded(folder.path(), Arc::new(StoppedClock)))?;
    let stock = if way == "refuse" { 1 } else { 1_000_000 };
    let site = runtime.block_on(open(&deployment, stock))?;
    // The first ones fill caches and sell the only unit.
    place(&runtime, &site, orders(0, 2 * TOGETHER)?, None)?;
    let orders = orders(1_000_000, ORDERS)?;
    match way {
        "refuse" => measured(Box::new(|| place(&runtime, &site, orders, Some(409)))),
        "accept" => measured(Box::new(|| place(&runtime, &site, orders, Some(202)))),
        "settle" => {
            place(&runtime, &site, orders, Some(202))?;
            measured(Box::new(|| settle(&runtime, &deployment)))
        }
        other => anyhow::bail!("no way is called {other}"),
    }
}

/// callgrind counts inside this function only.
#[inline(never)]
fn measured<'a>(work: Box<dyn FnOnce() -> anyhow::Result<()> + 'a>) -> anyhow::Result<()> {
    black_box(work())
}

/// A sale of one SKU, open, and its gate loaded.
async fn open(deployment: &Deployment, stock: u32) -> anyhow::Result<Site> {
    let shop = &deployment.shop;
    let item = Item { sku: Sku::new("ps5")?, name: "Console".into(), price_cents: 100, currency: "EUR".into() };
    let sale = Sale {
        id: SaleId::new("drop")?,
        name: "drop".into(),
        window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
        hold_seconds: 600,
        per_customer_limit: None,
        items: vec![item],
    };
    let created = shop.ledger.create(&sale, &[Units::new(stock)?]).await?;
    ensure!(matches!(created, Creation::Created(_)), "the sale is there already");
    reconcile::ensure_loaded(shop, &sale.id).await?;
    let [gate, queue, ledger] = ["this process", "SQLite", "SQLite"];
    let tokens = Tokens::new(std::iter::once("token"), std::iter::empty());
    let api = Api::new(shop.clone(), RunBy { gate, queue, ledger }, tokens, Limits::default(), true);
    Ok(Site::whole(api))
}

/// Orders of one unit, each by another customer.
fn orders(first: usize, count: usize) -> anyhow::Result<Vec<Request>> {
    let order = |number: usize| {
        let body = format!(r#"{{"customer":"c-{number:08}","lines":[{{"sku":"ps5","quantity":1}}]}}"#);
        Ok(Request::post("/v1/sales/drop/orders")
            .header("host", "127.0.0.1:8080")
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .header("idempotency-key", format!("k-{number:08}"))
            .body(Body::from(body))?)
    };
    (first..first + count).map(order).collect()
}

/// Sends them, so many together, and looks at every status.
fn place(runtime: &Runtime, site: &Site, orders: Vec<Request>, status: Option<u16>) -> anyhow::Result<()> {
    let mut orders = orders.into_iter().peekable();
    while orders.peek().is_some() {
        let together = orders.by_ref().take(TOGETHER).map(|order| site.answer(order));
        for answer in runtime.block_on(futures_util::future::join_all(together)) {
            let right = status.is_none_or(|status| answer.status() == status);
            ensure!(right, "an order was answered {}", answer.status());
        }
    }
    Ok(())
}

/// Settles until the queue is empty.
fn settle(runtime: &Runtime, deployment: &Deployment) -> anyhow::Result<()> {
    let shop = &deployment.shop;
    runtime.block_on(async {
        while shop.queue.depth().await?.waiting > 0 {
            settlement::settle_once(shop).await?;
        }
        anyhow::Ok(())
    })
}
