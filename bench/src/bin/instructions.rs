//! Counts the processor's instructions of a refusal, of an accepted order and of its settlement in an embedded Sluice, and
//! compares them with bench/instructions.json: what `./bench/instructions` does.
//!
//! Under callgrind, a whole server and its crowd run in one thread (and SQLite in its own), twice on each way: with few orders,
//! and with many. The difference is what the orders cost, whatever it takes to start. The crowd is as simple as can be: fifty
//! connections send an order each, and then everybody's answer is read.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sluice::clock::RealClock;
use sluice::deployment::{Deployment, embedded};
use sluice::http::{self, Api, Limits, RunBy, Site, Tokens};
use sluice::ledger::Creation;
use sluice::model::{Item, Phase, Sale, SaleId, Sku, Units, Window};
use sluice::shop::Shop;
use sluice::{reconcile, settlement};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Orders that are placed at the same time.
const TOGETHER: usize = 50;
/// Orders of the short walk.
const FEW: usize = 1_000;
/// More orders of the long walk. Two starts differ by some million instructions, which is 1 % of what so many orders take.
const MORE_REFUSED: usize = 40_000;
const MORE_ACCEPTED: usize = 16_000;
/// A batch takes less, even under callgrind.
const IDLE: Duration = Duration::from_secs(5);
/// How much more counts as the same; another processor chooses other routines for copying and hashing.
const TOLERANCE: f64 = 0.05;
const TOLERANCE_OTHER_COMPILER: f64 = 0.15;

/// Without arguments, counts and compares; `walk WAY ORDERS` is what runs under callgrind.
fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => compare(false),
        ["--renew"] => compare(true),
        ["walk", way, orders] => walk(way, orders.parse()?).map(|()| ExitCode::SUCCESS),
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
    let [refuse, accept, both] = ["refuse", "accept", "settle"].map(per_order);
    let (refuse, accept, both) = (refuse?, accept?, both?);
    // What is settled has been accepted before.
    let counts = Counts { compiler: env!("BENCH_COMPILER").to_owned(), refuse, accept, settle: both - accept };
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
fn per_order(way: &str) -> anyhow::Result<f64> {
    let more = if way == "refuse" { MORE_REFUSED } else { MORE_ACCEPTED };
    let counted = count(way, FEW + more)? - count(way, FEW)?;
    Ok((counted / more as f64).round())
}

/// All instructions of one walk.
fn count(way: &str, orders: usize) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["walk", way, &orders.to_string()])
        .output()
        .context("valgrind does not start")?;
    ensure!(output.status.success(), "the walk failed: {}", String::from_utf8_lossy(&output.stderr));
    let counted = std::fs::read_to_string(&out)?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind counted nothing")?;
    Ok(total.trim().parse()?)
}

/// Opens a sale, and walks this way so many times.
fn walk(way: &str, orders: usize) -> anyhow::Result<()> {
    let (stock, status) = match way {
        "refuse" => (1, "409"),
        "accept" | "settle" => (1_000_000, "202"),
        other => anyhow::bail!("no way is called {other}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    runtime.block_on(async {
        let deployment = Arc::new(embedded(folder.path(), Arc::new(RealClock::new())).await?);
        let site = open(&deployment, stock).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(http::serve(listener, site, std::future::pending()));
        let mut crowd = Vec::new();
        for _connection in 0..TOGETHER {
            crowd.push(TcpStream::connect(address).await?);
        }
        // The first ones sell the only unit, if there is only one.
        place(&mut crowd, 0, TOGETHER, None).await?;
        place(&mut crowd, 1_000_000, orders, Some(status)).await?;
        if way == "settle" {
            // Until none comes any more.
            while let Ok(settled) = timeout(IDLE, settlement::settle_once(&deployment.shop)).await {
                settled?;
            }
            let waiting = deployment.shop.queue.depth().await?.waiting;
            ensure!(waiting == 0, "{waiting} orders are not settled");
        }
        serving.abort();
        anyhow::Ok(())
    })
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
    // Nothing runs beside the walk, and nothing is settled later unless the walk does it.
    tokio::select! {
        loaded = reconcile::ensure_loaded(shop, &sale.id) => loaded?,
        ended = settle(shop) => ended?,
    }
    let [gate, queue, ledger] = ["this process", "SQLite", "SQLite"];
    let tokens = Tokens::new(std::iter::once("token"), std::iter::empty());
    let api = Api::new(shop.clone(), RunBy { gate, queue, ledger }, tokens, Limits::default(), true);
    Ok(Site::whole(api))
}

/// Settles batch after batch, until it fails.
async fn settle(shop: &Shop) -> anyhow::Result<()> {
    loop {
        settlement::settle_once(shop).await?;
    }
}

/// Sends orders of one unit, each by another customer, one on every connection at a time; looks at every status.
async fn place(crowd: &mut [TcpStream], first: usize, orders: usize, status: Option<&str>) -> anyhow::Result<()> {
    let mut answer = vec![0; 4096];
    for round in 0..orders / crowd.len() {
        for (at, connection) in crowd.iter_mut().enumerate() {
            let number = first + round * TOGETHER + at;
            let body = format!(r#"{{"customer":"c-{number:08}","lines":[{{"sku":"ps5","quantity":1}}]}}"#);
            let length = body.len();
            let order = format!(
                "POST /v1/sales/drop/orders HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\nIdempotency-Key: k-{number:08}\r\n\r\n{body}"
            );
            connection.write_all(order.as_bytes()).await?;
        }
        for connection in &mut *crowd {
            // An answer is short, and sent at once.
            let length = connection.read(&mut answer).await?;
            let head = String::from_utf8_lossy(&answer[..length.min(12)]);
            ensure!(head.starts_with("HTTP/1.1 ") && length < answer.len(), "an answer makes no sense: {head}");
            let right = status.is_none_or(|status| head.ends_with(status));
            ensure!(right, "an order was answered {}", String::from_utf8_lossy(&answer[..length]));
        }
    }
    Ok(())
}
