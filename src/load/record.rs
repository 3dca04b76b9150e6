//! What is kept of every request, and of every time that it was sent: 56 bytes, whatever the answer was.

use serde::Serialize;

use crate::model::{Effect, OrderId, Seq};

/// One sending of a request, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The request's number in its crowd.
    pub request: u32,
    /// The status; 0 if there was no answer.
    pub status: u16,
    /// What it came to.
    pub outcome: Outcome,
    /// What may have happened all the same, if it was neither accepted nor turned.
    pub effect: Effect,
    /// The item that was sold out, by its place in the sale.
    pub sold_out: Option<u8>,
    /// Microseconds after the start.
    pub sent_us: u64,
    /// Microseconds after the start.
    pub answered_us: u64,
    /// The order's id, as far as it was told.
    pub order: Option<OrderId>,
    /// The journal's number of the order's latest move; 0 if it was not told.
    pub seq: Seq,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The order is kept (202, or 201 if settled).
    Accepted,
    /// The same order as before (200).
    Repeat,
    /// Too few units.
    SoldOut,
    /// The customer has enough.
    CustomerLimit,
    /// Another order was placed under this key.
    KeyReused,
    /// Another refusal, such as a paused sale.
    Refused,
    /// Not now: overloaded, loading, or too fast (429 and 503).
    Unavailable,
    /// No answer, or one that makes no sense.
    Error,
    /// The customer did not wait for the answer, on purpose.
    HungUp,
    /// The hold became a sale.
    Confirmed,
    /// The hold was given back.
    Cancelled,
}

impl Outcome {
    /// All of them, in the sequence in which they are shown.
    pub const ALL: [Outcome; 11] = [
        Outcome::Accepted,
        Outcome::Repeat,
        Outcome::SoldOut,
        Outcome::CustomerLimit,
        Outcome::KeyReused,
        Outcome::Refused,
        Outcome::Unavailable,
        Outcome::Error,
        Outcome::HungUp,
        Outcome::Confirmed,
        Outcome::Cancelled,
    ];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Repeat => "repeat",
            Outcome::SoldOut => "sold out",
            Outcome::CustomerLimit => "limit reached",
            Outcome::KeyReused => "key reused",
            Outcome::Refused => "other refusal",
            Outcome::Unavailable => "unavailable",
            Outcome::Error => "error",
            Outcome::HungUp => "hung up",
            Outcome::Confirmed => "confirmed",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// Whether the server said, for good, that there is no order.
    pub fn refuses(self) -> bool {
        matches!(self, Outcome::SoldOut | Outcome::CustomerLimit | Outcome::KeyReused | Outcome::Refused)
    }

    /// Whether a customer who means it asks again, under the same key.
    pub fn asks_again(self) -> bool {
        matches!(self, Outcome::Unavailable | Outcome::Error)
    }
}
