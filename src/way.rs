//! The way of the latest orders, moment by moment, as far as this process took part: for people who look at one order.
//! Nothing depends on it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::model::{ByItself, OrderId};

/// Orders of one generation. Two are kept, so the latest so many are always known. A table of 2^13 holds them.
const GENERATION_ORDERS: usize = 7_000;

/// A moment on an order's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The gate was asked.
    Asked,
    /// The gate admitted it, and the queue was handed it.
    Admitted,
    /// The queue closed the batch that carries it, and began to send it.
    Sealed,
    /// The queue said that it is durable.
    Pushed,
    /// A worker had it.
    Pulled,
    /// The ledger's decision was committed.
    Settled,
}

/// When an order was where, on the monotonic clock of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way([Option<Duration>; 6]);

impl Way {
    /// When it was there; `None` if another process saw it, or nobody.
    pub fn at(&self, stop: Stop) -> Option<Duration> {
        self.0[stop as usize]
    }
}

/// The ways of the latest orders.
#[derive(Debug, Default)]
pub struct Ways {
    kept: Mutex<Kept>,
}

/// When the young are as many as may be, they become the old, and the old are forgotten.
#[derive(Debug, Default)]
struct Kept {
    young: HashMap<OrderId, Way, ByItself>,
    old: HashMap<OrderId, Way, ByItself>,
}

impl Ways {
    /// Notes when these orders made these stops. The first time counts: who does the same again changes nothing.
    pub fn note(&self, orders: impl IntoIterator<Item = OrderId>, stops: &[(Stop, Duration)]) {
        let mut kept = self.lock();
        for order in orders {
            let way = kept.way(order);
            for (stop, at) in stops {
                way.0[*stop as usize].get_or_insert(*at);
            }
        }
    }

    /// The way of an order; empty if it is not one of the latest.
    pub fn of(&self, order: OrderId) -> Way {
        let kept = self.lock();
        kept.young.get(&order).or_else(|| kept.old.get(&order)).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder panics")
    }
}

impl Kept {
    /// The order's way, among the young.
    fn way(&mut self, order: OrderId) -> &mut Way {
        if self.young.len() >= GENERATION_ORDERS && !self.young.contains_key(&order) {
            // The table of the old is the next one of the young, so none grows anew.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        let old = &mut self.old;
        self.young.entry(order).or_insert_with(|| old.remove(&order).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: usize) -> OrderId {
        OrderId((number as u128).to_be_bytes())
    }

    #[test]
    fn an_order_keeps_the_first_time_of_every_stop() {
        let (ways, [one, two]) = (Ways::default(), [1, 2].map(Duration::from_secs));
        ways.note([order(1)], &[(Stop::Asked, one), (Stop::Pushed, two)]);
        ways.note([order(1), order(2)], &[(Stop::Asked, two), (Stop::Pulled, two)]);
        let way = ways.of(order(1));
        let stops = [Stop::Asked, Stop::Admitted, Stop::Pushed, Stop::Pulled];
        assert_eq!(stops.map(|stop| way.at(stop)), [Some(one), None, Some(two), Some(two)]);
        assert_eq!(ways.of(order(3)), Way::default());
    }

    #[test]
    fn the_latest_are_kept_and_the_others_forgotten() {
        let (ways, now) = (Ways::default(), Duration::from_secs(1));
        let orders = 10 * GENERATION_ORDERS;
        ways.note((0..orders).map(order), &[(Stop::Sealed, now)]);
        // One that comes again stays what it was.
        let latest = orders - GENERATION_ORDERS..orders;
        ways.note(latest.clone().map(order), &[(Stop::Pulled, now)]);
        for number in latest {
            let way = ways.of(order(number));
            assert_eq!((way.at(Stop::Sealed), way.at(Stop::Pulled)), (Some(now), Some(now)), "{number}");
        }
        let kept = (0..orders).filter(|number| ways.of(order(*number)) != Way::default()).count();
        assert!(kept <= 2 * GENERATION_ORDERS, "{kept}");
    }
}
