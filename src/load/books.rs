//! Asks for what the ledger says, through the operator's side of the API.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;

use super::facts::{AuditFact, Facts, ItemFact, MoveFact, OrderFact, SaleFact};
use super::wire::Target;
use crate::clock::Clock;
use crate::model::{OrderState, Places, SaleId, SaleState, Seq, Sku, Units, limits};

/// How often a sale is asked whether it is settled.
const SETTLED_POLL: Duration = Duration::from_millis(100);
/// What the metrics call the messages that wait in the queue.
const QUEUE_DEPTH: &str = "sluice_queue_depth ";
/// How often the list is read again because the sale moved meanwhile.
const CUTS_MAX: usize = 5;

#[derive(Deserialize)]
struct Sales {
    sales: Vec<SaleFact>,
}

#[derive(Deserialize)]
struct Page {
    orders: Vec<OrderFact>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Journal {
    moves: Vec<MoveFact>,
    next_after: Option<Seq>,
}

#[derive(Deserialize)]
struct Stock {
    watermark: u64,
    conserved: bool,
    in_flight: u64,
    items: Vec<StockItem>,
}

#[derive(Deserialize)]
struct StockItem {
    sku: Sku,
    #[serde(flatten)]
    places: Places,
    gate: Option<GateStock>,
}

#[derive(Deserialize)]
struct GateStock {
    available: Units,
}

/// Asks about one sale.
pub struct Books<'a> {
    /// The servers; the first that answers counts.
    pub targets: &'a [Target],
    /// The sale.
    pub sale: &'a SaleId,
    /// The operator's token.
    pub token: &'a str,
}

/// All sales of a server.
pub async fn sales(target: &Target) -> anyhow::Result<Vec<SaleFact>> {
    let sales: Sales = target.ask(Method::GET, "/v1/sales", None, None).await?;
    Ok(sales.sales)
}

/// One sale.
pub async fn sale(target: &Target, id: &SaleId) -> anyhow::Result<SaleFact> {
    target.ask(Method::GET, &format!("/v1/sales/{id}"), None, None).await
}

/// What a sale was before the crowd came.
#[derive(Debug, Clone)]
pub struct Before {
    orders: Vec<OrderFact>,
    watermark: Seq,
    sale: SaleFact,
}

impl Books<'_> {
    async fn get<T: serde::de::DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        self.ask(&format!("/v1/sales/{}{what}", self.sale)).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.fetch(path).await?;
        serde_json::from_slice(&answer).with_context(|| format!("the answer to GET {path} makes no sense"))
    }

    /// The first answer of any server.
    async fn fetch(&self, path: &str) -> anyhow::Result<Bytes> {
        let mut failed = None;
        for target in self.targets {
            match target.fetch(Method::GET, path, Some(self.token), None).await {
                Ok(answer) => return Ok(answer.body),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| anyhow::anyhow!("there is no server to ask")))
    }

    /// What the sale is before the crowd comes.
    pub async fn before(&self, sale: &SaleFact) -> anyhow::Result<Before> {
        // In this sequence: what moves in between counts as later, which accuses nobody.
        let watermark = self.get::<Stock>("/stock").await?.watermark;
        Ok(Before { orders: self.orders().await?, watermark: Seq(watermark), sale: sale.clone() })
    }

    /// Waits until nothing is on its way any more; false if that took too long.
    pub async fn settled(&self, clock: &dyn Clock, time_max: Duration) -> anyhow::Result<bool> {
        let deadline = clock.monotonic() + time_max;
        loop {
            let open = self.get::<SaleFact>("").await.map(|sale| sale.state == SaleState::Open);
            let stock = self.get::<Stock>("/stock").await;
            match (stock, open) {
                (Ok(stock), Ok(open)) => {
                    let loaded = stock.items.iter().all(|item| item.gate.is_some());
                    if stock.in_flight == 0 && (loaded || !open) {
                        return Ok(true);
                    }
                }
                (Err(error), _) | (_, Err(error)) if clock.monotonic() >= deadline => return Err(error),
                _ => {}
            }
            if clock.monotonic() >= deadline {
                return Ok(false);
            }
            clock.sleep(SETTLED_POLL).await;
        }
    }

    /// Waits until the queue is empty; answers with how many messages wait in the end, whoever's they are.
    pub async fn drained(&self, clock: &dyn Clock, time_max: Duration) -> anyhow::Result<u64> {
        let deadline = clock.monotonic() + time_max;
        loop {
            let metrics = self.fetch("/metrics").await?;
            let text = String::from_utf8_lossy(&metrics);
            let depth = text.lines().find_map(|line| line.strip_prefix(QUEUE_DEPTH)?.trim().parse().ok());
            let waiting = depth.context("the server's metrics lack the depth of its queue")?;
            if waiting == 0 || clock.monotonic() >= deadline {
                return Ok(waiting);
            }
            clock.sleep(SETTLED_POLL).await;
        }
    }

    /// Everything the check needs, but for when it was settled and what waits in the queue.
    pub async fn facts(&self, before: &Before, settled: bool) -> anyhow::Result<Facts> {
        let mut stock: Stock = self.get("/stock").await?;
        let mut cut = self.cut().await?;
        let mut one_cut = false;
        for _ in 0..CUTS_MAX {
            let after: Stock = self.get("/stock").await?;
            let last = cut.1.last().map_or(0, |step| step.seq.0);
            one_cut = after.watermark == stock.watermark && after.watermark == last;
            stock = after;
            if one_cut {
                break;
            }
            cut = self.cut().await?;
        }
        let audit: AuditFact = self.get("/audit").await.context("the server could not audit the sale")?;
        let sale: SaleFact = self.get("").await?;
        let added = |sku: &Sku, stock: Units| {
            let was = before.sale.items.iter().find(|item| item.sku == *sku).map_or(Units::ZERO, |item| item.stock);
            u64::from(stock.minus(was).unwrap_or(Units::ZERO).get())
        };
        let fact = |item: StockItem| ItemFact {
            added: added(&item.sku, item.places.stock),
            gate: item.gate.map(|gate| gate.available),
            sku: item.sku,
            places: item.places,
        };
        let released = before.orders.iter().filter(|order| order.state == OrderState::Released);
        Ok(Facts {
            settled,
            seen_us: 0,
            one_cut: one_cut && stock.in_flight == 0,
            per_customer_limit: sale.per_customer_limit,
            before_released: released.map(|order| order.id).collect(),
            before: before.orders.iter().map(|order| order.id).collect(),
            watermark_before: before.watermark,
            orders: cut.0,
            journal: cut.1,
            watermark: stock.watermark,
            conserved: stock.conserved,
            items: stock.items.into_iter().map(fact).collect(),
            waiting: None,
            now: sale.server_time,
            audit,
        })
    }

    async fn cut(&self) -> anyhow::Result<(Vec<OrderFact>, Vec<MoveFact>)> {
        Ok((self.orders().await?, self.journal(Seq(0)).await?))
    }

    /// The journal after this move, page by page.
    pub async fn journal(&self, after: Seq) -> anyhow::Result<Vec<MoveFact>> {
        let (mut moves, mut after) = (Vec::new(), Some(after));
        while let Some(Seq(number)) = after {
            let page: Journal = self.get(&format!("/journal?after={number}")).await?;
            moves.extend(page.moves);
            after = page.next_after;
        }
        Ok(moves)
    }

    /// All orders of the sale, page by page.
    async fn orders(&self) -> anyhow::Result<Vec<OrderFact>> {
        let mut orders = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Page = self.get(&format!("/orders?limit={}{cursor}", limits::PAGE_ORDERS_MAX)).await?;
            orders.extend(page.orders);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(orders),
            }
        }
    }
}
