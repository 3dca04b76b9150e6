//! Faults at the press of a button, as layers around a gate and a queue and beside a worker. They make the two promises of
//! the shop no weaker: a gate may be slow, a queue may deliver twice, a worker may die anywhere.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::gate::{Admission, Gate, GateView};
use crate::model::{Claim, Epoch, Move, OrderId, Result, SaleId, Seq, Snapshot};
use crate::queue::{Delivery, Depth, Message, Push, Queue, Receipt};
use crate::shop::Shop;

/// How long a killed worker is gone, and a frozen gate stands still.
const FAULT_TIME: Duration = Duration::from_secs(2);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The worker is dropped wherever it is, and begins anew after two seconds.
    KillWorker,
    /// The queue hands the next messages out twice.
    DeliverTwice,
    /// Orders wait two seconds for the gate.
    FreezeGate,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 3] = [Fault::KillWorker, Fault::DeliverTwice, Fault::FreezeGate];

    /// The word for it in an address.
    pub fn word(self) -> &'static str {
        match self {
            Fault::KillWorker => "kill-worker",
            Fault::DeliverTwice => "deliver-twice",
            Fault::FreezeGate => "freeze-gate",
        }
    }

    /// What happens, for the log.
    pub fn meaning(self) -> &'static str {
        match self {
            Fault::KillWorker => "the worker is killed, and starts again in 2 s",
            Fault::DeliverTwice => "the queue hands its next messages out twice",
            Fault::FreezeGate => "the gate stands still for 2 s",
        }
    }

    /// How long it lasts; nothing if it is over as soon as it has happened.
    pub fn time(self) -> Duration {
        match self {
            Fault::KillWorker | Fault::FreezeGate => FAULT_TIME,
            Fault::DeliverTwice => Duration::ZERO,
        }
    }
}

/// What was asked for and is still to happen.
pub struct Chaos {
    clock: Arc<dyn Clock>,
    kill: Notify,
    twice: AtomicBool,
    /// On the clock's monotonic time, in milliseconds.
    frozen_until_ms: AtomicU64,
}

impl Chaos {
    /// Nothing happens until it is asked for.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, kill: Notify::new(), twice: AtomicBool::new(false), frozen_until_ms: AtomicU64::new(0) })
    }

    /// Puts itself around the shop's gate and queue.
    pub fn surround(self: &Arc<Self>, shop: &mut Shop) {
        shop.gate = Arc::new(FreezingGate { gate: shop.gate.clone(), chaos: self.clone() });
        shop.queue =
            Arc::new(RepeatingQueue { queue: shop.queue.clone(), chaos: self.clone(), again: Mutex::default() });
    }

    /// Lets a fault happen. The second time before it has ended changes nothing, or prolongs it.
    pub fn strike(&self, fault: Fault) {
        match fault {
            Fault::KillWorker => self.kill.notify_waiters(),
            Fault::DeliverTwice => self.twice.store(true, Ordering::Relaxed),
            Fault::FreezeGate => {
                let until = self.clock.monotonic() + FAULT_TIME;
                self.frozen_until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        }
    }

    /// Works until the future is dropped; a kill drops the work itself, wherever it is.
    pub async fn run_worker<F: Future<Output = ()>>(&self, work: impl Fn() -> F) {
        loop {
            match select(pin!(work()), pin!(self.kill.notified())).await {
                Either::Left(((), _)) => return,
                Either::Right(_) => tracing::warn!("the worker was killed, as it was asked for"),
            }
            self.clock.sleep(FAULT_TIME).await;
        }
    }

    async fn thaw(&self) {
        let until = Duration::from_millis(self.frozen_until_ms.load(Ordering::Relaxed));
        let wait = until.saturating_sub(self.clock.monotonic());
        if !until.is_zero() && !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }
}

/// A gate that may stand still. Only orders wait for it: whoever looks at it sees the truth.
struct FreezingGate {
    gate: Arc<dyn Gate>,
    chaos: Arc<Chaos>,
}

#[async_trait]
impl Gate for FreezingGate {
    async fn admit(&self, claim: &Claim) -> Result<Admission> {
        self.chaos.thaw().await;
        self.gate.admit(claim).await
    }

    async fn load(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        self.gate.load(snapshot, epoch).await
    }

    async fn open(&self, sale: &SaleId, epoch: Epoch) -> Result<bool> {
        self.gate.open(sale, epoch).await
    }

    async fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Result<Option<Seq>> {
        self.gate.follow(sale, epoch, moves).await
    }

    async fn pending(&self, sale: &SaleId) -> Result<Vec<(Claim, Epoch)>> {
        self.gate.pending(sale).await
    }

    async fn find(&self, sale: &SaleId, id: OrderId) -> Result<Option<(Claim, Epoch)>> {
        self.gate.find(sale, id).await
    }

    async fn view(&self, sale: &SaleId) -> Result<Option<GateView>> {
        self.gate.view(sale).await
    }
}

/// A queue that may deliver twice, as every queue may.
struct RepeatingQueue {
    queue: Arc<dyn Queue>,
    chaos: Arc<Chaos>,
    again: Mutex<Option<Delivery>>,
}

#[async_trait]
impl Queue for RepeatingQueue {
    async fn push(&self, message: Message) -> Result<Push> {
        self.queue.push(message).await
    }

    async fn pull(&self, messages_max: usize) -> Result<Delivery> {
        if let Some(again) = self.again.lock().expect("no holder panics").take() {
            tracing::warn!(messages = again.messages.len(), "messages are delivered twice, as it was asked for");
            return Ok(again);
        }
        let delivery = self.queue.pull(messages_max).await?;
        if self.chaos.twice.swap(false, Ordering::Relaxed) {
            *self.again.lock().expect("no holder panics") = Some(delivery.clone());
        }
        Ok(delivery)
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<()> {
        self.queue.acknowledge(receipt).await
    }

    async fn park(&self, receipt: Receipt, why: &str) -> Result<()> {
        self.queue.park(receipt, why).await
    }

    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()> {
        self.queue.fence(sale, below).await
    }

    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()> {
        self.queue.bind(sale, epoch, open).await
    }

    async fn depth(&self) -> Result<Depth> {
        self.queue.depth().await
    }

    fn push_timeout(&self) -> Option<Duration> {
        self.queue.push_timeout()
    }
}
