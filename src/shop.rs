//! A shop: a gate, a queue, a ledger and a clock, as promises only. Which ones, `deployment` decides; the simulation in
//! the tests is one more deployment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use futures_channel::oneshot;

use crate::clock::Clock;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::model::{Mint, OrderId, Result, Sale, SaleId, limits};
use crate::queue::Queue;
use crate::way::Ways;

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
    /// Where the latest orders were when.
    pub ways: Arc<Ways>,
    /// Who waits for a settlement in this process.
    pub waiting: Waiting,
    /// Claims between gate and queue, in this process.
    pub pushing: Pushing,
    /// Whether the queue failed last time, so that orders are refused before the gate is asked.
    pub queue_down: AtomicBool,
    catalog: RwLock<HashMap<SaleId, Arc<Sale>>>,
}

impl Shop {
    /// A shop of these. The queue notes its stops in the same `ways`.
    pub fn new(
        gate: Arc<dyn Gate>,
        queue: Arc<dyn Queue>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        mint: Mint,
        ways: Arc<Ways>,
    ) -> Self {
        Self {
            gate,
            queue,
            ledger,
            clock,
            mint,
            ways,
            waiting: Waiting::default(),
            pushing: Pushing::default(),
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

    /// Some sale that was asked for in this process, and the same one if asked again; `None` if none was.
    pub fn known_sale(&self) -> Option<SaleId> {
        self.catalog.read().expect("no holder panics").keys().min().cloned()
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

/// Orders between the question to the gate and the queue's answer. What does not fit is refused before the gate is asked: an
/// admitted claim that waits too long would end in doubt, and a crowd beyond the capacity of either would leave nothing else.
pub struct Pushing {
    claims: AtomicUsize,
    claims_max: AtomicUsize,
}

impl Default for Pushing {
    fn default() -> Self {
        Self { claims: AtomicUsize::new(0), claims_max: AtomicUsize::new(limits::PUSH_WAITING_MAX) }
    }
}

impl Pushing {
    /// Whether there is no room for another order.
    pub fn is_full(&self) -> bool {
        self.claims.load(Ordering::Relaxed) >= self.claims_max.load(Ordering::Relaxed)
    }

    /// A claim is on its way until what is returned is dropped.
    pub fn begin(&self) -> OnItsWay<'_> {
        self.claims.fetch_add(1, Ordering::Relaxed);
        OnItsWay(self)
    }

    /// Notes how long the latest one took. The longer, the fewer there is room for; after a fast one there is room for one more
    /// than before, so that a crowd does not fill at once what has just emptied.
    pub fn took(&self, time: Duration) {
        if time < limits::PUSH_SLOW_TIME {
            let more = |max: usize| (max < limits::PUSH_WAITING_MAX).then_some(max + 1);
            let _all = self.claims_max.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        } else {
            let [least, most] = limits::PUSH_SLOW_CLAIMS;
            let fitting = limits::PUSH_SLOW_TIME_MAX.as_millis() * most as u128 / time.as_millis();
            let fitting = usize::try_from(fitting).unwrap_or(most).clamp(least, most);
            self.claims_max.store(fitting, Ordering::Relaxed);
        }
    }
}

/// A claim on its way to the queue.
pub struct OnItsWay<'a>(&'a Pushing);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.claims.fetch_sub(1, Ordering::Relaxed);
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

    /// Wakes everybody who waits for one of these orders.
    pub fn tell(&self, ids: impl IntoIterator<Item = OrderId>) {
        let mut orders = self.orders.lock().expect("no holder panics");
        if orders.is_empty() {
            return;
        }
        for tell in ids.into_iter().filter_map(|id| orders.remove(&id)).flatten() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_queue_gets_fewer_claims_at_a_time() {
        let pushing = Pushing::default();
        let [least, most] = limits::PUSH_SLOW_CLAIMS;
        let mut few: Vec<_> = (0..most).map(|_| pushing.begin()).collect();
        assert!(!pushing.is_full());
        pushing.took(limits::PUSH_SLOW_TIME);
        assert!(pushing.is_full());
        drop(few.pop());
        assert!(!pushing.is_full());
        pushing.took(10 * limits::PUSH_SLOW_TIME_MAX);
        few.truncate(least);
        assert!(pushing.is_full());
        drop(few.pop());
        assert!(!pushing.is_full());
        few.push(pushing.begin());
        assert!(pushing.is_full());
        pushing.took(Duration::ZERO);
        assert!(!pushing.is_full(), "a fast one makes room for one more");
        (0..limits::PUSH_WAITING_MAX).for_each(|_| pushing.took(Duration::ZERO));
        few.extend((few.len()..limits::PUSH_WAITING_MAX).map(|_| pushing.begin()));
        assert!(pushing.is_full(), "but not for ever");
    }
}
