//! The words that the tests speak in: a sale, an order of one unit, a clock that is set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::ledger::Addition;
use sluice::model::{
    Claim, Customer, Epoch, Item, Line, Order, OrderId, Phase, Sale, SaleId, Sku, Time, Units, Window, Withdrawal,
};
use sluice::queue::{Body, Message};

/// A clock that goes only when told.
#[derive(Default)]
pub(crate) struct HandClock {
    millis: AtomicU64,
}

impl HandClock {
    pub(crate) fn pass(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Time {
        Time::from_millis(1_800_000_000_000).after(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    async fn sleep(&self, time: Duration) {
        self.millis.fetch_add(u64::try_from(time.as_millis()).expect("a short time"), Ordering::SeqCst);
        tokio::task::yield_now().await;
    }

    fn chance(&self) -> u64 {
        4
    }
}

/// How long the holds of [`sale`] last.
pub(crate) const HOLD_MS: u64 = 60_000;

pub(crate) fn units(count: u32) -> Units {
    Units::new(count).expect("few")
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).expect("a SKU")
}

pub(crate) fn sale_id(name: &str) -> SaleId {
    SaleId::new(name).expect("an id")
}

/// An open sale of these SKUs, with holds and without a limit.
pub(crate) fn sale(id: &str, skus: &[&str]) -> Sale {
    let item =
        |name: &&str| Item { sku: sku(name), name: (*name).to_owned(), price_cents: 100, currency: "EUR".to_owned() };
    Sale {
        id: sale_id(id),
        name: id.to_owned(),
        window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
        hold_seconds: u32::try_from(HOLD_MS / 1_000).expect("short"),
        per_customer_limit: None,
        items: skus.iter().map(item).collect(),
    }
}

pub(crate) fn id(number: u8) -> OrderId {
    OrderId([number; 16])
}

pub(crate) fn line(name: &str, quantity: u32) -> Line {
    Line { sku: sku(name), quantity: units(quantity) }
}

/// The order of this number in the sale `s`, by a customer of its own.
pub(crate) fn order(number: u8, lines: &[(&str, u32)]) -> Order {
    order_by(&format!("customer {number}"), number, lines)
}

pub(crate) fn order_by(who: &str, number: u8, lines: &[(&str, u32)]) -> Order {
    Order {
        id: id(number),
        sale: sale_id("s"),
        customer: Customer::new(who).expect("a customer"),
        lines: lines.iter().map(|(name, quantity)| line(name, *quantity)).collect(),
        accepted_at: Time::from_millis(1_800_000_000_000),
    }
}

pub(crate) fn claim(order: Order) -> Claim {
    Claim::Order(Arc::new(order))
}

pub(crate) fn withdrawal(number: u8, name: &str, quantity: u32) -> Claim {
    let (sale, reason) = (sale_id("s"), "a reason".to_owned());
    Claim::Withdrawal(Arc::new(Withdrawal { id: id(number), sale, line: line(name, quantity), reason }))
}

pub(crate) fn addition(number: u8, name: &str, quantity: u32) -> Addition {
    Addition { id: id(number), sale: sale_id("s"), line: line(name, quantity), reason: "a reason".to_owned() }
}

/// The claim's message under this epoch.
pub(crate) fn message(claim: Claim, epoch: u64) -> Message {
    Message::claim(claim, Epoch(epoch))
}

pub(crate) fn marker(body: Body, epoch: u64) -> Message {
    Message { sale: sale_id("s"), epoch: Epoch(epoch), body }
}
