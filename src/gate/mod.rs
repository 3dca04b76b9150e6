//! The gate refuses the crowd. It may say no; its yes sets units aside, but only the ledger sells them. Whatever it
//! forgets is read from the ledger again, so an empty, wrong, slow or restarted gate costs time, never a unit.
//!
//! Per sale it knows its epoch, the window, the units available, the units per customer, the claims admitted and not
//! yet settled, and the ids of all orders, so that a repeat is recognised as long as the sale lives.
//! At every watermark, `available + pending` at the gate is `available` in the ledger.

mod carry;
pub mod latch;
mod memory;
mod redis;

use async_trait::async_trait;

pub use memory::MemoryGate;
pub use redis::RedisGate;

use crate::model::{Claim, Epoch, Move, Order, OrderId, Result, SaleId, Seq, Sku, Snapshot, Time, Units};

/// The gate's promise. Every method may be called twice. After an error the call may have happened; asking again is safe.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Sets the claim's units aside, all or none, and remembers the claim until [`Gate::follow`] brings its settlement.
    /// The second time the answer is [`Admission::Repeat`] and nothing moves; a claim that is still pending is repeated by an
    /// open gate only, under whose epoch it may be pushed. A withdrawal is admitted before the window
    /// and while the sale is paused, and no limit counts it.
    async fn admit(&self, claim: &Claim) -> Result<Admission>;

    /// The order's refusal, where the gate can tell it without taking anything; `None` says nothing, and [`Gate::admit`]
    /// says the rest. Whoever asks may go away at any time.
    async fn refuse(&self, order: &Order) -> Result<Option<Refusal>> {
        let _ = order;
        Ok(None)
    }

    /// Takes over what the ledger knows, under this epoch, and forgets what it knew before, except what it carries over:
    /// the claims that are pending here and that the ledger does not know stay pending, under the new epoch, as long as
    /// units and the customer's limit suffice. A gate that cannot trust its memory carries nothing over. The sale stays
    /// closed until [`Gate::open`]. False, and nothing happens, if the gate already holds this epoch or a later one.
    async fn load(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool>;

    /// Lets the sale admit, if the gate still holds this epoch; the second time changes nothing.
    async fn open(&self, sale: &SaleId, epoch: Epoch) -> Result<bool>;

    /// Applies the moves that come directly after the last one applied, in their sequence, and answers with the number
    /// of the last one applied now; `None` if the gate does not hold this epoch. Moves that were applied before, and
    /// moves behind a gap, change nothing. After a refused claim the gate's memory is wrong: it shuts until it is loaded
    /// anew.
    async fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Result<Option<Seq>>;

    /// The claims admitted and not yet settled, with the gate's epoch; none for an unknown sale.
    async fn pending(&self, sale: &SaleId) -> Result<Vec<(Claim, Epoch)>>;

    /// One of the pending claims.
    async fn find(&self, sale: &SaleId, id: OrderId) -> Result<Option<(Claim, Epoch)>>;

    /// What the gate knows of a sale, at one moment; `None` if nothing.
    async fn view(&self, sale: &SaleId) -> Result<Option<GateView>>;
}

/// The gate's answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The units are set aside under this epoch.
    Admitted(Epoch),
    /// The claim was admitted before: it is still pending, with the lines it had then, or settled.
    Repeat(Option<(Claim, Epoch)>),
    /// No, and why.
    Refused(Refusal),
    /// The gate does not know the sale, or not yet: never "sold out".
    Unloaded,
}

/// Why the gate says no. Where several reasons hold, any one of them may be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Too few units of this SKU.
    SoldOut {
        /// Of which there are too few.
        sku: Sku,
        /// Whether units are held or on their way, so that some may come back.
        may_return: bool,
    },
    /// The customer would have more units than allowed.
    LimitReached {
        /// The units one customer may have.
        limit: Units,
        /// The units this one has.
        used: Units,
    },
    /// The sale has not begun.
    NotOpen {
        /// When it will; `None` for a draft.
        opens_at: Option<Time>,
    },
    /// The sale sells nothing for now.
    Paused,
    /// The sale is over.
    Ended,
}

/// What a gate knows of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateView {
    /// The life of this memory.
    pub epoch: Epoch,
    /// Whether it admits.
    pub live: bool,
    /// The last move applied.
    pub watermark: Seq,
    /// Claims admitted and not yet settled.
    pub pending: u64,
    /// Per SKU, in the sale's sequence.
    pub items: Vec<GateItem>,
}

/// What a gate knows of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateItem {
    /// Which.
    pub sku: Sku,
    /// Units it would admit.
    pub available: Units,
    /// Units of the pending claims.
    pub pending: Units,
}
