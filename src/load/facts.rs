//! What the ledger says. [`Books`](super::books::Books) asks for it.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer};

use crate::model::{
    Customer, Line, MoveKind, OrderId, OrderState, Places, Reason, SaleId, SaleState, Seq, Sku, Time, Units,
};

/// What is true after the crowd has gone.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether nothing is on its way any more.
    pub settled: bool,
    /// When that was seen, or no longer waited for, in microseconds after the crowd's start.
    pub seen_us: u64,
    /// Whether nothing moved between the reading of the orders, the journal and the stock.
    pub one_cut: bool,
    /// Units that one customer may have.
    pub per_customer_limit: Option<Units>,
    /// The orders that were there before the crowd came.
    pub before: HashSet<OrderId>,
    /// Those of them that had been released by then.
    pub before_released: HashSet<OrderId>,
    /// The number of the last move when the crowd came.
    pub watermark_before: Seq,
    /// All orders of the sale.
    pub orders: Vec<OrderFact>,
    /// The whole journal.
    pub journal: Vec<MoveFact>,
    /// The number of the last move.
    pub watermark: u64,
    /// Whether every layer's arithmetic holds, as the server says.
    pub conserved: bool,
    /// The items, in the sale's sequence.
    pub items: Vec<ItemFact>,
    /// Messages that wait in the queue, whoever's; `None` if nobody asked.
    pub waiting: Option<u64>,
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
    /// When it was asked for, on the server's clock.
    pub accepted_at: Time,
    /// When its hold lapses or lapsed.
    pub expires_at: Option<Time>,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "MoveRead")]
pub struct MoveFact {
    /// Its number.
    pub seq: Seq,
    /// When, on the ledger's clock.
    pub at: Time,
    /// What happened.
    pub kind: MoveKind,
    /// To which order.
    pub order: Option<OrderId>,
    /// Or by which adjustment.
    pub adjustment: Option<String>,
    /// Whose order it is.
    pub customer: Option<Customer>,
    /// Which units.
    pub lines: Vec<Line>,
}

#[derive(Deserialize)]
struct MoveRead {
    seq: Seq,
    at: Time,
    #[serde(deserialize_with = "kind")]
    kind: MoveKind,
    claim: Option<String>,
    customer: Option<Customer>,
    lines: Vec<Line>,
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MoveKind, D::Error> {
    let word = String::deserialize(deserializer)?;
    MoveKind::from_word(&word).ok_or_else(|| serde::de::Error::custom(format!("`{word}` is no kind of move")))
}

impl From<MoveRead> for MoveFact {
    fn from(read: MoveRead) -> Self {
        let MoveRead { seq, at, kind, claim, customer, lines } = read;
        let order = claim.as_deref().and_then(|claim| claim.parse().ok());
        let adjustment = claim.filter(|_| order.is_none());
        Self { seq, at, kind, order, adjustment, customer, lines }
    }
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
    /// Units that the gate would admit; `None` while it is not loaded.
    pub gate: Option<Units>,
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
