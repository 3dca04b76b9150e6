//! A claim: what sets units aside at the gate and travels through the queue.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Line, Order, OrderId, SaleId, Units};

/// Takes units out of the sale: the downward half of an adjustment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Derived from sale, SKU and idempotency key.
    pub id: OrderId,
    /// Where.
    pub sale: SaleId,
    /// What and how many.
    pub line: Line,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Whatever takes units from `available`. Both kinds go the same way, so that neither can overtake the other's units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// A customer's order.
    Order(Arc<Order>),
    /// An operator's withdrawal.
    Withdrawal(Arc<Withdrawal>),
}

impl Claim {
    /// The one id under which it counts once.
    pub fn id(&self) -> OrderId {
        match self {
            Claim::Order(order) => order.id,
            Claim::Withdrawal(withdrawal) => withdrawal.id,
        }
    }

    /// Where.
    pub fn sale(&self) -> &SaleId {
        match self {
            Claim::Order(order) => &order.sale,
            Claim::Withdrawal(withdrawal) => &withdrawal.sale,
        }
    }

    /// The units it takes.
    pub fn lines(&self) -> &[Line] {
        match self {
            Claim::Order(order) => &order.lines,
            Claim::Withdrawal(withdrawal) => std::slice::from_ref(&withdrawal.line),
        }
    }

    /// All units of all lines.
    pub fn units(&self) -> Units {
        let sum = self.lines().iter().map(|line| line.quantity.get()).sum();
        Units::new(sum).unwrap_or(Units::ZERO)
    }
}
