//! What the ledger says, read through the operator's side of the API.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde::Deserialize;

use super::wire::Target;
use crate::clock::Clock;
use crate::model::{Customer, Line, OrderId, OrderState, Places, Reason, SaleId, SaleState, Sku, Time, Units, limits};

/// How often a sale is asked whether it is settled.
const SETTLED_POLL: Duration = Duration::from_millis(100);
/// How often the list is read again because the sale moved meanwhile.
const CUTS_MAX: usize = 5;

/// What is true after the crowd has gone.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether nothing is on its way any more.
    pub settled: bool,
    /// Whether nothing moved between the reading of the orders and of the stock.
    pub one_cut: bool,
    /// Units that one customer may have.
    pub per_customer_limit: Option<Units>,
    /// The orders that were there before the crowd came.
    pub before: HashSet<OrderId>,
    /// Those of them that had been released by then.
    pub before_released: HashSet<OrderId>,
    /// All orders of the sale.
    pub orders: Vec<OrderFact>,
    /// The number of the last move.
    pub watermark: u64,
    /// Whether every layer's arithmetic holds, as the server says.
    pub conserved: bool,
    /// The items, in the sale's sequence.
    pub items: Vec<ItemFact>,
    /// The server's time, read after the orders.
    pub now: Time,
    /// The server's own audit.
    pub audit: AuditFact,
}

/// An order as the ledger has it.
#[derive(Debug, Clone, Deserialize)]
pub struct OrderFact {
    /// Its id.
    pub id: OrderId,
    /// Whose.
    pub customer: Customer,
    /// What.
    pub lines: Vec<Line>,
    /// Where it is in its life.
    pub state: OrderState,
    /// Why, if it was released or refused.
    pub reason: Option<Reason>,
    /// When its hold lapses or lapsed.
    pub expires_at: Option<Time>,
}

impl OrderFact {
    /// Units of an item.
    pub fn units(&self, sku: &Sku) -> u64 {
        let lines = self.lines.iter().filter(|line| line.sku == *sku);
        lines.map(|line| u64::from(line.quantity.get())).sum()
    }

    /// Whether its units are its customer's, for now or for good.
    pub fn has_units(&self) -> bool {
        matches!(self.state, OrderState::Held | OrderState::Sold)
    }
}

/// Where the units of an item are.
#[derive(Debug, Clone)]
pub struct ItemFact {
    /// Which.
    pub sku: Sku,
    /// Where they are in the end.
    pub places: Places,
    /// Units put into the sale since the crowd came.
    pub added: u64,
}

/// The server's own audit.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AuditFact {
    /// `exact`, `violation` or `unsettled`.
    pub verdict: String,
    /// Units held and sold beyond the stock.
    pub oversold: u64,
    /// Units that the ledger could sell and the gate would refuse.
    pub undersold: u64,
    /// Orders that were accepted and are nowhere.
    pub lost: u64,
    /// Orders that were accepted and then refused.
    pub broken_promises: u64,
    /// Units and moves that do not add up.
    pub conservation_errors: u64,
    /// Everything that does not add up.
    pub findings: Vec<FindingFact>,
}

/// One thing that the server's audit found.
#[derive(Debug, Clone, Deserialize)]
pub struct FindingFact {
    /// Which invariant it breaks.
    pub invariant: String,
    /// The order, SKU or customer concerned.
    pub subject: String,
    /// What was found, in words.
    pub detail: String,
}

/// A sale as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct SaleFact {
    /// Its id.
    pub id: SaleId,
    /// For people.
    pub name: String,
    /// What it is now.
    pub state: SaleState,
    /// The server's time.
    pub server_time: Time,
    /// Units that one customer may have.
    pub per_customer_limit: Option<Units>,
    /// Its items.
    pub items: Vec<SaleItemFact>,
}

/// An item as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct SaleItemFact {
    /// Which.
    pub sku: Sku,
    /// Units put into the sale and not withdrawn.
    pub stock: Units,
}

impl SaleFact {
    /// Its items' SKUs, in its sequence.
    pub fn skus(&self) -> Vec<Sku> {
        self.items.iter().map(|item| item.sku.clone()).collect()
    }
}

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
    gate: Option<serde::de::IgnoredAny>,
}

/// Asks one server about one sale.
pub struct Books<'a> {
    /// The server.
    pub target: &'a Target,
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
pub struct Before {
    orders: Vec<OrderFact>,
    sale: SaleFact,
}

impl Books<'_> {
    async fn get<T: serde::de::DeserializeOwned>(&self, what: &str) -> anyhow::Result<T> {
        let path = format!("/v1/sales/{}/{what}", self.sale);
        self.target.ask(Method::GET, &path, Some(self.token), None).await
    }

    /// What the sale is before the crowd comes.
    pub async fn before(&self, sale: &SaleFact) -> anyhow::Result<Before> {
        Ok(Before { orders: self.orders().await?, sale: sale.clone() })
    }

    /// Waits until nothing is on its way any more; false if that took too long.
    pub async fn settled(&self, clock: &dyn Clock, time_max: Duration) -> anyhow::Result<bool> {
        let deadline = clock.monotonic() + time_max;
        loop {
            let open = sale(self.target, self.sale).await.map(|sale| sale.state == SaleState::Open);
            let stock = self.get::<Stock>("stock").await;
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

    /// Everything the check needs.
    pub async fn facts(&self, before: Before, settled: bool) -> anyhow::Result<Facts> {
        let mut stock: Stock = self.get("stock").await?;
        let mut cut = (self.orders().await?, false);
        for _ in 0..CUTS_MAX {
            let after: Stock = self.get("stock").await?;
            cut.1 = after.watermark == stock.watermark;
            stock = after;
            if cut.1 {
                break;
            }
            cut.0 = self.orders().await?;
        }
        let audit: AuditFact = self.get("audit").await.context("the server could not audit the sale")?;
        let sale = sale(self.target, self.sale).await?;
        let added = |sku: &Sku, stock: Units| {
            let was = before.sale.items.iter().find(|item| item.sku == *sku).map_or(Units::ZERO, |item| item.stock);
            u64::from(stock.minus(was).unwrap_or(Units::ZERO).get())
        };
        let fact = |item: StockItem| ItemFact {
            added: added(&item.sku, item.places.stock),
            sku: item.sku,
            places: item.places,
        };
        let released = before.orders.iter().filter(|order| order.state == OrderState::Released);
        Ok(Facts {
            settled,
            one_cut: cut.1 && stock.in_flight == 0,
            per_customer_limit: sale.per_customer_limit,
            before_released: released.map(|order| order.id).collect(),
            before: before.orders.iter().map(|order| order.id).collect(),
            orders: cut.0,
            watermark: stock.watermark,
            conserved: stock.conserved,
            items: stock.items.into_iter().map(fact).collect(),
            now: sale.server_time,
            audit,
        })
    }

    /// All orders of the sale, page by page.
    async fn orders(&self) -> anyhow::Result<Vec<OrderFact>> {
        let mut orders = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Page = self.get(&format!("orders?limit={}{cursor}", limits::PAGE_ORDERS_MAX)).await?;
            orders.extend(page.orders);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(orders),
            }
        }
    }
}
