//! The queue carries admitted claims to the ledger. What it says is durable reaches a settlement, at least once.
//!
//! It also keeps the fence: per sale, the epochs under which claims may still be pushed.

mod rabbitmq;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;

pub use crate::model::{Body, Message};
use crate::model::{Epoch, Result, SaleId};
pub use rabbitmq::RabbitQueue;
pub use sqlite::SqliteQueue;

/// The queue's promise.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Puts the message at the end. After [`Push::Durable`] it is pulled at least once, whatever crashes; after an
    /// error it may be. Pushed twice, it is pulled twice. Markers pass every fence.
    async fn push(&self, message: Message) -> Result<Push>;

    /// Waits for messages, and takes up to so many from the front without removing them (more, if they were pushed
    /// together): until they are acknowledged or parked, the next pull begins with them again. One settles at a time.
    /// What a crash brings back may come in another sequence, so a queue that may reorder drops the markers among it:
    /// they prove nothing any more, and whoever waits for one pushes it again.
    async fn pull(&self, messages_max: usize) -> Result<Delivery>;

    /// Removes what was pulled, and all before it: no later pull of this process brings it again, and after a crash it is
    /// at worst settled again, which changes nothing. The second time changes nothing.
    async fn acknowledge(&self, receipt: Receipt) -> Result<()>;

    /// Like [`Queue::acknowledge`], but only what was pulled is removed, nothing before it, and it is set aside for a person
    /// to look at; after a crash it may be set aside again. The second time changes nothing.
    async fn park(&self, receipt: Receipt, why: &str) -> Result<()>;

    /// From now on, claims under an epoch below this one are [`Push::Fenced`]. A lower `below` changes nothing.
    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()>;

    /// From now on, claims under this epoch are let in; or, with `false`, no longer. The second time changes nothing.
    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()>;

    /// How much is waiting, as far as this process can see.
    async fn depth(&self) -> Result<Depth>;

    /// After this time a push that has no answer is late: its claim must not be promised any more. Whoever promises counts from
    /// the question to the gate. `None` where no push is ever on its way past a fence.
    fn push_timeout(&self) -> Option<Duration>;
}

/// The queue's answer to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It survives a crash.
    Durable,
    /// Its epoch is over: it is not in the queue.
    Fenced,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// In the sequence of their pushing.
    pub messages: Vec<Message>,
    /// What to acknowledge them by.
    pub receipt: Receipt,
}

/// Stands for everything in one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The first position, included.
    pub from: u64,
    /// The last position, included.
    pub to: u64,
}

/// How much waits in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Claims and markers not yet acknowledged.
    pub waiting: u64,
    /// How long the oldest has been waiting; zero where only a process that pulls can see that, and this one has not pulled.
    pub oldest: Duration,
    /// Messages set aside.
    pub parked: u64,
}
