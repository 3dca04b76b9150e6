//! What several tests need: a small sale, orders, and a shop that runs.

use std::path::Path;
use std::sync::Arc;

use sluice::clock::RealClock;
use sluice::config::Role;
use sluice::deployment::{Deployment, embedded};
use sluice::ledger::Creation;
use sluice::model::{Customer, Item, Line, Order, Phase, Sale, SaleId, Sku, Units, Window};
use sluice::reconcile;
use sluice::shop::Shop;
use tokio::task::JoinHandle;

pub(crate) use crate::eventually::eventually;

pub(crate) const SKU: &str = "ps5";

/// An open sale of one SKU, held for ten minutes.
pub(crate) fn sale(id: &str) -> Sale {
    let item =
        Item { sku: Sku::new(SKU).unwrap(), name: "Console".into(), price_cents: 49_900, currency: "EUR".into() };
    Sale {
        id: SaleId::new(id).unwrap(),
        name: id.to_owned(),
        window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
        hold_seconds: 600,
        per_customer_limit: None,
        items: vec![item],
    }
}

pub(crate) fn units(count: u32) -> Units {
    Units::new(count).unwrap()
}

/// One unit for this customer; the customer's name is the key.
pub(crate) fn order(shop: &Shop, sale: &Sale, customer: &str) -> Arc<Order> {
    keyed_order(shop, sale, customer, customer)
}

pub(crate) fn keyed_order(shop: &Shop, sale: &Sale, customer: &str, key: &str) -> Arc<Order> {
    Arc::new(Order {
        id: shop.mint.id("order", &sale.id, customer, key),
        sale: sale.id.clone(),
        customer: Customer::new(customer).unwrap(),
        lines: vec![Line { sku: Sku::new(SKU).unwrap(), quantity: units(1) }],
        accepted_at: shop.clock.now(),
    })
}

/// The embedded deployment, running until the test ends or kills it.
pub(crate) struct Running {
    pub(crate) deployment: Arc<Deployment>,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends it the hard way, and waits until the folder is free.
    pub(crate) async fn kill(self) {
        let Running { deployment, mut task } = self;
        task.abort();
        let _ended = (&mut task).await;
        drop(deployment);
    }
}

/// The embedded deployment over this folder, running.
pub(crate) async fn start(data: &Path) -> Running {
    let deployment = Arc::new(embedded(data, Arc::new(RealClock::new())).await.unwrap());
    let running = deployment.clone();
    let task = tokio::spawn(async move { running.run(Role::All).await });
    Running { deployment, task }
}

/// Creates the sale and waits until the gate is loaded.
pub(crate) async fn create(shop: &Shop, sale: &Sale, stock: u32) {
    let created = shop.ledger.create(sale, &[units(stock)]).await.unwrap();
    assert!(matches!(created, Creation::Created(_)), "{created:?}");
    reconcile::ensure_loaded(shop, &sale.id).await.unwrap();
}
