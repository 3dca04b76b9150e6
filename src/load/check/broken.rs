//! What can be wrong, by name.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::model::OrderId;

/// Orders that a violation shows to people.
const ORDERS_SHOWN_MAX: usize = 5;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which promise it breaks.
    pub broken: Broken,
    /// The orders concerned.
    pub orders: Vec<OrderId>,
    /// What was found, in words.
    pub detail: String,
}

/// The promises to the crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// Never more units than there are.
    Oversold,
    /// Nobody is refused a unit that is left at the end.
    Undersold,
    /// No accepted order is refused.
    BrokenPromise,
    /// Every accepted order is in the ledger.
    Lost,
    /// Only its holder and time release an order.
    TakenAway,
    /// The order is the one that was asked for.
    WrongOrder,
    /// The same key is the same order, on every retry; and no order is two customers'.
    KeySplit,
    /// A retry of an accepted order is not refused.
    Forgotten,
    /// The same key with another cart is refused, and that alone.
    KeyReused,
    /// There is no order that nobody asked for.
    Unasked,
    /// An error with `effect: none`, or a refusal, leaves no order.
    LeftBehind,
    /// A confirmed order is sold.
    ConfirmUndone,
    /// A cancelled order is released.
    CancelUndone,
    /// A hold is confirmed before its end.
    ConfirmedLate,
    /// No order counts twice.
    Doubled,
    /// An order's life goes one way, with one move for each turn.
    Transition,
    /// No customer has more units than allowed.
    CustomerLimit,
    /// Every unit is in some place, and all counts agree.
    Conservation,
    /// The journal has no gap, and comes to what the stock and the orders say.
    Journal,
    /// Once all is quiet, the gate says what the ledger says.
    GateDiffers,
    /// Once all is quiet, the queue is empty.
    Undrained,
    /// Nobody is told "sold out" while enough was available all the time.
    FalseSoldOut,
    /// What was answered before something was asked comes before it.
    OutOfTurn,
    /// Soon after the last fault everything is settled.
    Unresolved,
    /// Sending everything again changes nothing.
    ChangedByRepeating,
    /// What the server's own audit found.
    Audit,
}

impl Broken {
    /// The word for it, as it stands in the JSON.
    pub fn word(self) -> &'static str {
        match self {
            Broken::Oversold => "oversold",
            Broken::Undersold => "undersold",
            Broken::BrokenPromise => "broken_promise",
            Broken::Lost => "lost",
            Broken::TakenAway => "taken_away",
            Broken::WrongOrder => "wrong_order",
            Broken::KeySplit => "key_split",
            Broken::Forgotten => "forgotten",
            Broken::LeftBehind => "left_behind",
            Broken::ConfirmUndone => "confirm_undone",
            Broken::CancelUndone => "cancel_undone",
            Broken::Doubled => "doubled",
            Broken::CustomerLimit => "customer_limit",
            Broken::Conservation => "conservation",
            Broken::ConfirmedLate => "confirmed_late",
            Broken::Transition => "transition",
            Broken::KeyReused => "key_reused",
            Broken::Unasked => "unasked",
            Broken::Journal => "journal",
            Broken::GateDiffers => "gate_differs",
            Broken::Undrained => "undrained",
            Broken::FalseSoldOut => "false_sold_out",
            Broken::OutOfTurn => "out_of_turn",
            Broken::Unresolved => "unresolved",
            Broken::ChangedByRepeating => "changed_by_repeating",
            Broken::Audit => "audit",
        }
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.broken.word())?;
        for order in self.orders.iter().take(ORDERS_SHOWN_MAX) {
            write!(f, " {order}")?;
        }
        match self.orders.len().saturating_sub(ORDERS_SHOWN_MAX) {
            0 => write!(f, ": {}", self.detail),
            more => write!(f, " and {more} more orders: {}", self.detail),
        }
    }
}
