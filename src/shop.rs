//! A shop: a gate, a queue, a ledger and a clock, as promises only. Which ones, `deployment` decides; the simulation in
//! the tests is one more deployment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use futures_channel::oneshot;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::model::{Mint, OrderId, Result, Sale, SaleId, limits};
use crate::queue::Queue;

/// Everything that the way of an order needs.
pub struct Shop {
    /// Refuses the crowd.
    pub gate: Arc<dyn Gate>,
    /// Carries claims to the ledger.
    pub queue: Arc<dyn Queue>,
    /// Sells.
    pub ledger: Arc<dyn Ledger>,
    /// Now, sleep, chance.
    pub clock: Arc<dyn Clock>,
    /// Makes order ids.
    pub mint: Mint,
    /// Who waits for a settlement in this process.
    pub waiting: Waiting,
    /// Claims between gate and queue, in this process.
    pub pushing: Semaphore,
    /// Whether the queue failed last time, so that orders are refused before the gate is asked.
    pub queue_down: AtomicBool,
    catalog: RwLock<HashMap<SaleId, Arc<Sale>>>,
}

impl Shop {
    /// A shop of these four.
    pub fn new(
        gate: Arc<dyn Gate>,
        queue: Arc<dyn Queue>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        mint: Mint,
    ) -> Self {
        Self {
            gate,
            queue,
            ledger,
            clock,
            mint,
            waiting: Waiting::default(),
            pushing: Semaphore::new(limits::PUSH_WAITING_MAX),
            queue_down: AtomicBool::new(false),
            catalog: RwLock::default(),
        }
    }

    /// The sale's items, limit and hold, which never change; read from the ledger once. Its window may be an old one:
    /// the gate decides by the window, or ask the ledger.
    pub async fn sale(&self, id: &SaleId) -> Result<Option<Arc<Sale>>> {
        if let Some(sale) = self.catalog.read().expect("no holder panics").get(id) {
            return Ok(Some(sale.clone()));
        }
        let Some(record) = self.ledger.sale(id).await? else { return Ok(None) };
        let sale = Arc::new(record.sale);
        self.catalog.write().expect("no holder panics").insert(id.clone(), sale.clone());
        Ok(Some(sale))
    }

    /// Some sale that was asked for in this process; `None` if none was.
    pub fn known_sale(&self) -> Option<SaleId> {
        self.catalog.read().expect("no holder panics").keys().next().cloned()
    }

    /// Remembers how the queue answered last.
    pub fn queue_answered<T>(&self, answer: &Result<T>) {
        let down = answer.is_err();
        if self.queue_down.swap(down, Ordering::Relaxed) != down {
            match answer {
                Ok(_) => tracing::info!("the queue is back"),
                Err(error) => tracing::error!(%error, "the queue is down: orders are refused until it is back"),
            }
        }
    }
}

/// Who waits in this process for an order to be settled.
#[derive(Default)]
pub struct Waiting {
    orders: Mutex<HashMap<OrderId, Vec<oneshot::Sender<()>>>>,
}

impl Waiting {
    /// Resolves once the order is settled by this process, or somebody asks too often.
    pub fn wait(&self, id: OrderId) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut orders = self.orders.lock().expect("no holder panics");
        let waiting = orders.entry(id).or_default();
        waiting.retain(|other| !other.is_canceled());
        waiting.push(tell);
        told
    }

    /// Wakes everybody who waits for this order.
    pub fn tell(&self, id: OrderId) {
        let waiting = self.orders.lock().expect("no holder panics").remove(&id);
        for tell in waiting.into_iter().flatten() {
            let _gone = tell.send(());
        }
    }

    /// Forgets waiters that gave up.
    pub fn forget(&self, id: OrderId) {
        let mut orders = self.orders.lock().expect("no holder panics");
        if let Some(waiting) = orders.get_mut(&id) {
            waiting.retain(|other| !other.is_canceled());
            if waiting.is_empty() {
                orders.remove(&id);
            }
        }
    }
}
