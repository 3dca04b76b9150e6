//! The embedded deployment from the inside: what is placed is settled, survives a restart, and adds up.

use std::sync::Arc;

use futures_util::future::join_all;
use sluice::audit::{Verdict, audit};
use sluice::checkout::{Placement, place};
use sluice::clock::RealClock;
use sluice::deployment::{Deployment, embedded};
use sluice::ledger::Creation;
use sluice::model::{Customer, Item, Line, Order, Phase, Sale, SaleId, Sku, Units, Window};
use sluice::reconcile;
use sluice::shop::Shop;

fn sale(id: &str, limit: Option<u32>) -> Sale {
    Sale {
        id: SaleId::new(id).unwrap(),
        name: id.to_owned(),
        window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
        hold_seconds: 600,
        per_customer_limit: limit.map(|limit| Units::new(limit).unwrap()),
        items: vec![Item { sku: sku(), name: "A".into(), price_cents: 100, currency: "EUR".into() }],
    }
}

fn sku() -> Sku {
    Sku::new("a").unwrap()
}

fn order(shop: &Shop, sale: &Sale, customer: &str, key: &str) -> Arc<Order> {
    Arc::new(Order {
        id: shop.mint.id("order", &sale.id, customer, key),
        sale: sale.id.clone(),
        customer: Customer::new(customer).unwrap(),
        lines: vec![Line { sku: sku(), quantity: Units::new(1).unwrap() }],
        accepted_at: shop.clock.now(),
    })
}

async fn start(data: &std::path::Path) -> Arc<Deployment> {
    let deployment = Arc::new(embedded(data, Arc::new(RealClock::new())).await.unwrap());
    tokio::spawn({
        let deployment = deployment.clone();
        async move { deployment.run().await }
    });
    deployment
}

async fn create(shop: &Shop, sale: &Sale, stock: u32) {
    let created = shop.ledger.create(sale, &[Units::new(stock).unwrap()]).await.unwrap();
    assert!(matches!(created, Creation::Created(_)));
    assert!(reconcile::reload(shop, &sale.id).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_buys_exactly_the_stock() {
    let data = tempfile::tempdir().unwrap();
    let deployment = start(data.path()).await;
    let shop = &deployment.shop;
    let sale = sale("drop", None);
    create(shop, &sale, 100).await;
    let crowd = (0..5_000).map(|number| place(shop, order(shop, &sale, &format!("c-{number}"), "k")));
    let placements = join_all(crowd).await;
    let accepted = placements.iter().filter(|placed| matches!(placed, Ok(Placement::Accepted(_)))).count();
    let sold_out = placements.iter().filter(|placed| matches!(placed, Ok(Placement::SoldOut { .. }))).count();
    assert_eq!((accepted, sold_out), (100, 4_900));
    assert!(deployment.drain().await);
    let audit = audit(shop, &sale.id).await.unwrap().unwrap();
    assert_eq!(audit.findings, []);
    assert_eq!(audit.verdict, Verdict::Exact);
    assert_eq!(audit.stock.items[0].held.get(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_orders_of_one_customer_stay_within_the_limit() {
    let data = tempfile::tempdir().unwrap();
    let deployment = start(data.path()).await;
    let shop = &deployment.shop;
    let sale = sale("limited", Some(2));
    create(shop, &sale, 100).await;
    let placements =
        join_all((0..40).map(|number| place(shop, order(shop, &sale, "one", &format!("k-{number}"))))).await;
    let accepted = placements.iter().filter(|placed| matches!(placed, Ok(Placement::Accepted(_)))).count();
    assert_eq!(accepted, 2);
    assert!(deployment.drain().await);
    assert_eq!(audit(shop, &sale.id).await.unwrap().unwrap().verdict, Verdict::Exact);
}
