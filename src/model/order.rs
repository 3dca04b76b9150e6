//! An order and its life: accepted, then held, then sold; or released; or refused.

use serde::{Deserialize, Serialize};

use super::{Customer, Invalid, OrderId, SaleId, Seq, Sku, Time, limits};

/// A number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Units(u32);

impl Units {
    /// No unit.
    pub const ZERO: Units = Units(0);

    /// At most [`limits::STOCK_UNITS_MAX`].
    pub fn new(count: u32) -> Result<Self, Invalid> {
        if count > limits::STOCK_UNITS_MAX {
            let max = limits::STOCK_UNITS_MAX;
            return Err(Invalid(format!("at most {max} units")));
        }
        Ok(Units(count))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Both together; `None` above the limit.
    pub fn plus(self, more: Units) -> Option<Units> {
        self.0.checked_add(more.0).and_then(|sum| Units::new(sum).ok())
    }

    /// What is left; `None` if there are fewer.
    pub fn minus(self, fewer: Units) -> Option<Units> {
        self.0.checked_sub(fewer.0).map(Units)
    }
}

/// Units of one SKU within an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// What is wanted.
    pub sku: Sku,
    /// How many; never 0.
    pub quantity: Units,
}

/// A customer's wish for units of one or more SKUs, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Derived from sale, customer and idempotency key.
    pub id: OrderId,
    /// Where.
    pub sale: SaleId,
    /// Who.
    pub customer: Customer,
    /// What; at least one, no SKU twice, in the customer's own sequence.
    pub lines: Vec<Line>,
    /// When it was asked for, on the API process's clock.
    pub accepted_at: Time,
}

/// Whether two orders under one key are the same wish; the sequence of the lines does not matter.
pub fn same_lines(one: &[Line], other: &[Line]) -> bool {
    one.len() == other.len() && one.iter().all(|line| other.contains(line))
}

/// Where an order is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// Kept, and on its way to the ledger.
    Accepted,
    /// The units are set aside until `expires_at`.
    Held,
    /// The units are the customer's.
    Sold,
    /// The hold was given back.
    Released,
    /// The ledger could not keep it. After a 202 this is a broken promise.
    Refused,
}

impl OrderState {
    /// The word for it, as it stands in the API and in the database.
    pub fn word(self) -> &'static str {
        match self {
            OrderState::Accepted => "accepted",
            OrderState::Held => "held",
            OrderState::Sold => "sold",
            OrderState::Released => "released",
            OrderState::Refused => "refused",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        use OrderState::{Accepted, Held, Refused, Released, Sold};
        [Accepted, Held, Sold, Released, Refused].into_iter().find(|state| state.word() == word)
    }
}

/// Why an order was released or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its holder gave it back.
    Cancelled,
    /// Its time ran out.
    Lapsed,
    /// The ledger had too few units.
    SoldOut,
    /// The ledger knew of more units of this customer than allowed.
    CustomerLimit,
}

impl Reason {
    /// The word for it, as it stands in the API and in the database.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Cancelled => "cancelled",
            Reason::Lapsed => "lapsed",
            Reason::SoldOut => "sold_out",
            Reason::CustomerLimit => "customer_limit",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        use Reason::{Cancelled, CustomerLimit, Lapsed, SoldOut};
        [Cancelled, Lapsed, SoldOut, CustomerLimit].into_iter().find(|reason| reason.word() == word)
    }
}

/// An order and where it is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRecord {
    /// The order itself.
    pub order: Order,
    /// Where it is.
    pub state: OrderState,
    /// Why, if it was released or refused.
    pub reason: Option<Reason>,
    /// When the ledger decided.
    pub settled_at: Option<Time>,
    /// When its hold lapses or lapsed.
    pub expires_at: Option<Time>,
    /// The journal's number of its latest move.
    pub seq: Option<Seq>,
}

impl OrderRecord {
    /// An order that the ledger has not seen yet.
    pub fn accepted(order: Order) -> Self {
        Self { order, state: OrderState::Accepted, reason: None, settled_at: None, expires_at: None, seq: None }
    }
}
