//! The ledger alone sells. What it commits is true; everything else follows it.
//!
//! It keeps, per item, where its units are (`stock = available + held + sold`), the orders, the units per customer, and
//! the [journal]: every move of units, numbered per sale without gaps. [`Books`] reads, [`Ledger`] writes.
//! Every write is one transaction, and every write may be asked for twice.

mod desk;
pub mod journal;
mod postgres;
mod sqlite;

use async_trait::async_trait;

pub use journal::Recount;
pub use postgres::PostgresLedger;
pub use sqlite::SqliteLedger;

pub use crate::model::{EpochStage, EpochState, Move, MoveKind, SaleRecord, Snapshot};

use crate::model::{
    Customer, Epoch, Line, Message, OrderId, OrderRecord, OrderState, Reason, Result, Sale, SaleId, Seq, Sku, Time,
    Units, Verb,
};

/// What changes the truth. After an error the write may be committed: ask again, and the answer or the journal says so.
#[async_trait]
pub trait Ledger: Books {
    /// Creates a sale with so many units of each item, in the items' sequence. If the id is taken, nothing
    /// changes, whatever else was asked.
    async fn create(&self, sale: &Sale, stock: &[Units]) -> Result<Creation>;

    /// Opens, pauses, resumes or closes a sale; repeating it changes nothing.
    async fn steer(&self, sale: &SaleId, verb: Verb) -> Result<Steered>;

    /// Decides on the messages in their sequence, in one transaction. A claim that was decided before is
    /// [`Verdict::Known`]; one of an epoch that is over is [`Verdict::Late`], and its id stays free.
    async fn settle(&self, messages: &[Message]) -> Result<Settlement>;

    /// Turns a hold into a sale, or gives it back; repeating it is [`Turned::Already`].
    async fn turn(&self, id: OrderId, turn: Turn) -> Result<Turned>;

    /// Puts units into the sale; the second time under the same id changes nothing.
    async fn add(&self, addition: &Addition) -> Result<Added>;

    /// Gives back up to so many holds that are due on the ledger's clock, oldest first. The second time takes the
    /// next due ones.
    async fn lapse(&self, orders_max: usize) -> Result<Lapses>;

    /// Takes a step in the sale's epochs, see [`EpochStep`]; `None` for an unknown sale.
    async fn step_epoch(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>>;
}

/// What is true, without changing it. Each answer is one consistent cut.
#[async_trait]
pub trait Books: Send + Sync {
    /// All sales, newest first.
    async fn sales(&self) -> Result<Vec<SaleRecord>>;

    /// One sale.
    async fn sale(&self, sale: &SaleId) -> Result<Option<SaleRecord>>;

    /// One order.
    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>>;

    /// A page of a sale's orders, in the sequence of their settling.
    async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage>;

    /// One adjustment.
    async fn adjustment(&self, id: OrderId) -> Result<Option<Adjustment>>;

    /// Moves after this one, in their sequence.
    async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Result<Vec<Move>>;

    /// Everything that a gate needs to begin.
    async fn snapshot(&self, sale: &SaleId) -> Result<Option<Snapshot>>;

    /// Recounts a sale from its journal and orders, and compares with its rows.
    async fn recount(&self, sale: &SaleId) -> Result<Option<Recount>>;
}

/// A step in a sale's epochs. The step from reloading to closed is not here: settling a
/// [`Close`](crate::model::Body::Close) marker takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochStep {
    /// To the next number, reloading. Asked twice, it raises twice, and the first loader is overtaken.
    Raise,
    /// One more beat, if the epoch is still this one and not live; otherwise nothing happens.
    Beat(Epoch),
    /// From closed to live, if the epoch is still this one; otherwise nothing happens.
    Live(Epoch),
}

/// The answer to [`Ledger::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// The sale is there now.
    Created(SaleRecord),
    /// A sale of this id was there before.
    Exists(SaleRecord),
}

/// The answer to [`Ledger::steer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steered {
    /// It is so now, or was so before.
    Done(SaleRecord),
    /// The sale is in no state for it.
    WrongState(SaleRecord),
    /// There is no such sale.
    UnknownSale,
}

/// The answer to [`Ledger::settle`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settlement {
    /// One per message, in the messages' sequence.
    pub verdicts: Vec<Verdict>,
    /// What was written into the journals.
    pub moves: Vec<SaleMoves>,
}

/// Moves of one sale's journal, in their sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleMoves {
    /// Whose.
    pub sale: SaleId,
    /// Under which life of the gate it was written.
    pub epoch: Epoch,
    /// What happened.
    pub moves: Vec<Move>,
}

/// What the ledger decided on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The order is held or sold, or the units are withdrawn.
    Settled,
    /// The claim could not be kept: with an honest gate this does not happen.
    Refused(Reason),
    /// Decided before; nothing changed.
    Known,
    /// Its epoch was over before it came: dropped, and never promised to anybody.
    Late,
    /// A marker, noted if it was still of interest.
    Marker,
    /// There is no such sale, or no such SKU in it.
    Unknown,
}

/// What becomes of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The units are the customer's.
    Confirm,
    /// The units are available again.
    Cancel,
}

/// The answer to [`Ledger::turn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// It is so now.
    Done(OrderRecord, SaleMoves),
    /// It was so before.
    Already(OrderRecord),
    /// The hold's time had run out.
    Lapsed(OrderRecord),
    /// The order is in no state for it.
    WrongState(OrderRecord),
    /// The ledger has no such order; it may be on its way.
    Unknown,
}

/// Puts units into a sale: the upward half of an adjustment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Derived from sale, SKU and idempotency key.
    pub id: OrderId,
    /// Where.
    pub sale: SaleId,
    /// What and how many.
    pub line: Line,
    /// Why, in the operator's words.
    pub reason: String,
}

/// The answer to [`Ledger::add`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is so now.
    Done(Adjustment, SaleMoves),
    /// An adjustment of this id was there before.
    Already(Adjustment),
    /// The stock would pass its limit.
    TooMany,
    /// No such sale, or no such SKU in it.
    Unknown,
}

/// An adjustment of a sale's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Its id.
    pub id: OrderId,
    /// Where.
    pub sale: SaleId,
    /// What.
    pub sku: Sku,
    /// Units added, or withdrawn if negative.
    pub delta: i64,
    /// Why, in the operator's words.
    pub reason: String,
    /// When.
    pub at: Time,
    /// The journal's number of its move.
    pub seq: Seq,
    /// The stock after it.
    pub stock: Units,
}

/// The answer to [`Ledger::lapse`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lapses {
    /// What came back.
    pub moves: Vec<SaleMoves>,
    /// For each hold given back: how many milliseconds after its time.
    pub lags_ms: Vec<u64>,
    /// When the next hold is due; `None` if nothing is held.
    pub next_due: Option<Time>,
}

/// Which orders of a sale to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFilter {
    /// Whose.
    pub sale: SaleId,
    /// Only those in this state.
    pub state: Option<OrderState>,
    /// Only this customer's.
    pub customer: Option<Customer>,
    /// Only those settled after this one.
    pub after: Seq,
    /// At most so many.
    pub limit: usize,
}

/// A page of orders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderPage {
    /// In the sequence of their settling.
    pub orders: Vec<OrderRecord>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Seq>,
}
