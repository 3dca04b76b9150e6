//! What is promised in milliseconds: a test binary of its own, so that no other test runs beside it.

#[path = "it/eventually.rs"]
mod eventually;
#[path = "it/support.rs"]
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use sluice::audit::{Verdict, audit};
use sluice::checkout::{Placement, place};
use sluice::model::{Sale, Seq};

use support::{create, eventually, order, sale, start, units};

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_holds_that_lapse_together_are_available_again_within_a_quarter_second() {
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path()).await;
    let deployment = &running.deployment;
    let shop = &deployment.shop;
    let sale = Sale { hold_seconds: 2, ..sale("lapse") };
    create(shop, &sale, 10_000).await;
    let crowd = (0..10_000).map(|number| place(shop, order(shop, &sale, &format!("c-{number}"))));
    let placements = join_all(crowd).await;
    assert!(placements.iter().all(|placed| matches!(placed, Ok(Placement::Accepted(_)))));
    assert!(deployment.drain().await);
    eventually("the gate has all units back", || async {
        let view = shop.gate.view(&sale.id).await.unwrap().unwrap();
        view.items[0].available == units(10_000)
    })
    .await;
    let mut lags = Vec::new();
    for step in shop.ledger.journal(&sale.id, Seq(10_001), 20_000).await.unwrap() {
        let record = shop.ledger.order(step.claim.unwrap()).await.unwrap().unwrap();
        lags.push(step.at.since(record.expires_at.unwrap()));
    }
    lags.sort_unstable();
    let p99 = lags[lags.len() * 99 / 100];
    println!("p99 of the lag: {p99:?}");
    assert!(p99 < Duration::from_millis(250), "p99 of the lag is {p99:?}");
    let audit = audit(shop, &sale.id).await.unwrap().unwrap();
    assert_eq!((audit.verdict, audit.findings), (Verdict::Exact, Vec::new()));
    running.kill().await;
}
