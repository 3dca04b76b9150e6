//! The vocabulary: what every other file talks about. Nothing here does input or output.

mod claim;
mod error;
mod ids;
pub mod limits;
mod message;
mod moves;
mod order;
mod record;
mod sale;
mod time;

pub use claim::{Claim, Withdrawal};
pub use error::{Effect, Error, Result};
pub use ids::{ByItself, Customer, Epoch, Mint, OrderId, SaleId, Seq, Sku};
pub use message::{Body, Message};
pub use moves::{Move, MoveKind};
pub use order::{Line, Order, OrderRecord, OrderState, Reason, Units, same_lines};
pub use record::{EpochStage, EpochState, SaleRecord, Snapshot};
pub use sale::{Item, Phase, Places, Sale, SaleState, Verb, Window};
pub use time::Time;

/// What is wrong with a piece of input, in words for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);
