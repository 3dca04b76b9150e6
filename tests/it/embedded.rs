//! The embedded deployment from the inside: what is placed is settled, survives a restart, and adds up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use sluice::audit::{Audit, Verdict, audit};
use sluice::checkout::{self, Placement, place};
use sluice::clock::{Clock, RealClock};
use sluice::deployment::embedded;
use sluice::gate::{MemoryGate, Refusal};
use sluice::ledger::{EpochStep, SqliteLedger, Turn, Turned};
use sluice::model::{Body, Effect, Error, Mint, OrderState, Phase, Result, Sale, Time, Window};
use sluice::queue::{Message, SqliteQueue};
use sluice::shop::Shop;
use sluice::sqlite::{Access, Store, Tables};
use sluice::{reconcile, settlement};

use crate::support::{create, eventually, keyed_order, order, sale, start, units};

async fn exact(shop: &Shop, sale: &Sale) -> Audit {
    let audit = audit(shop, &sale.id).await.unwrap().unwrap();
    assert_eq!(audit.findings, []);
    assert_eq!(audit.verdict, Verdict::Exact, "{audit:#?}");
    audit
}

fn accepted(placements: &[Result<Placement>]) -> usize {
    placements.iter().filter(|placed| matches!(placed, Ok(Placement::Accepted(_)))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_buys_exactly_the_stock() {
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path()).await;
    let deployment = &running.deployment;
    let (shop, sale) = (&deployment.shop, sale("drop"));
    create(shop, &sale, 100).await;
    let crowd = (0..5_000).map(|number| place(shop, order(shop, &sale, &format!("c-{number}"))));
    let placements = join_all(crowd).await;
    assert_eq!(accepted(&placements), 100);
    let sold_out =
        placements.iter().filter(|placed| matches!(placed, Ok(Placement::Refused(Refusal::SoldOut { .. })))).count();
    assert_eq!(sold_out, 4_900);
    assert!(deployment.drain().await);
    assert_eq!(exact(shop, &sale).await.stock.items[0].held, units(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_sees_what_a_gate_has_pending_that_is_being_loaded_anew() {
    let data = tempfile::tempdir().unwrap();
    let deployment = embedded(data.path(), Arc::new(RealClock::new())).await.unwrap();
    let (shop, sale) = (&deployment.shop, sale("reloaded"));
    let (settled, ()) = join(settlement::settle_once(shop), create(shop, &sale, 3)).await;
    settled.unwrap();
    exact(shop, &sale).await;
    assert!(matches!(place(shop, order(shop, &sale, "c-1")).await, Ok(Placement::Accepted(_))));
    shop.ledger.step_epoch(&sale.id, EpochStep::Raise).await.unwrap();
    let audit = audit(shop, &sale.id).await.unwrap().unwrap();
    assert_eq!((audit.verdict, &audit.findings), (Verdict::Unsettled, &vec![]), "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_orders_of_one_customer_stay_within_the_limit() {
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path()).await;
    let deployment = &running.deployment;
    let shop = &deployment.shop;
    let sale = Sale { per_customer_limit: Some(units(2)), ..sale("limited") };
    create(shop, &sale, 100).await;
    let race = (0..40).map(|number| place(shop, keyed_order(shop, &sale, "one", &format!("k-{number}"))));
    assert_eq!(accepted(&join_all(race).await), 2);
    assert!(deployment.drain().await);
    exact(shop, &sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_accepted_and_knows_its_retries() {
    let data = tempfile::tempdir().unwrap();
    let sale = sale("restart");
    let running = start(data.path()).await;
    create(&running.deployment.shop, &sale, 3).await;
    let order_before = order(&running.deployment.shop, &sale, "c-1");
    let placed = place(&running.deployment.shop, order_before.clone()).await.unwrap();
    assert!(matches!(placed, Placement::Accepted(_)), "{placed:?}");
    running.kill().await;

    let running = start(data.path()).await;
    let shop = &running.deployment.shop;
    reconcile::ensure_loaded(shop, &sale.id).await.unwrap();
    let again = place(shop, order(shop, &sale, "c-1")).await.unwrap();
    let Placement::Repeat(record) = again else { panic!("{again:?}") };
    assert_eq!((record.order.id, record.state), (order_before.id, OrderState::Held));
    assert_eq!(exact(shop, &sale).await.stock.items[0].held, units(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_once_however_many_race_to_end_it() {
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path()).await;
    let deployment = &running.deployment;
    let (shop, sale) = (&deployment.shop, sale("race"));
    create(shop, &sale, 50).await;
    for number in 0..50 {
        let order = order(shop, &sale, &format!("c-{number}"));
        let id = order.id;
        place(shop, order).await.unwrap();
        let turns = [Turn::Confirm, Turn::Cancel, Turn::Confirm, Turn::Cancel];
        let race = turns.map(|turn| checkout::turn(shop, id, turn, Duration::from_secs(5)));
        let turned = join_all(race).await;
        let done = turned.iter().filter(|turned| matches!(turned, Ok(Turned::Done(..)))).count();
        assert_eq!(done, 1, "{turned:?}");
    }
    exact(shop, &sale).await;
}

/// Between the closing marker and the opening of a sale that has ended, only the gate's memory knows what it carries over.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_again_while_an_ended_sale_is_loaded_does_not_hear_that_it_is_over() {
    let data = tempfile::tempdir().unwrap();
    let clock = Arc::new(RealClock::new());
    // Nothing runs in this deployment, so each step of the load is ours.
    let deployment = embedded(data.path(), clock.clone()).await.unwrap();
    let shop = &deployment.shop;
    let soon = Some(Time::from_millis(clock.now().millis() + 300));
    let sale = Sale { window: Window { phase: Phase::Armed, opens_at: None, closes_at: soon }, ..sale("ended") };
    shop.ledger.create(&sale, &[units(3)]).await.unwrap();
    let (load, settle) = (reconcile::reload(shop, &sale.id), settlement::settle_once(shop));
    let (loaded, settled) = join(load, settle).await;
    assert!(loaded.unwrap());
    settled.unwrap();
    let placed = place(shop, order(shop, &sale, "c-1")).await.unwrap();
    assert!(matches!(placed, Placement::Accepted(_)), "{placed:?}");
    // The queue loses it.
    let pulled = shop.queue.pull(10).await.unwrap();
    shop.queue.acknowledge(pulled.receipt).await.unwrap();
    eventually("the sale has ended", async || Some(clock.now()) > soon).await;

    let raised = shop.ledger.step_epoch(&sale.id, EpochStep::Raise).await.unwrap().unwrap();
    let close = Message { sale: sale.id.clone(), epoch: raised.epoch, body: Body::Close };
    shop.queue.push(close).await.unwrap();
    settlement::settle_once(shop).await.unwrap();
    let snapshot = shop.ledger.snapshot(&sale.id).await.unwrap().unwrap();
    assert!(shop.gate.load(&snapshot, raised.epoch).await.unwrap());
    let again = place(shop, order(shop, &sale, "c-1")).await.unwrap();
    assert_eq!(again, Placement::Unavailable(Effect::None), "it is neither over nor lost");

    shop.queue.bind(&sale.id, raised.epoch, true).await.unwrap();
    shop.ledger.step_epoch(&sale.id, EpochStep::Live(raised.epoch)).await.unwrap();
    assert!(shop.gate.open(&sale.id, raised.epoch).await.unwrap());
    let again = place(shop, order(shop, &sale, "c-1")).await.unwrap();
    assert!(matches!(again, Placement::Repeat(_)), "{again:?}");
    settlement::settle_once(shop).await.unwrap();
    assert_eq!(exact(shop, &sale).await.stock.items[0].held, units(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let clock = Arc::new(RealClock::new());
    let open = |tables, name| Store::open(&data.path().join(name), tables, Access::Write).unwrap();
    let stores = [open(Tables::Queue, "queue.db"), open(Tables::Ledger, "ledger.db")];
    let queue = Arc::new(SqliteQueue::new(stores[0].clone(), clock.clone(), Arc::default()));
    let ledger = Arc::new(SqliteLedger::new(stores[1].clone(), clock.clone()));
    let gate = Arc::new(MemoryGate::new(clock.clone()));
    let shop = Arc::new(Shop::new(gate, queue, ledger, clock, Mint::new([7; 32]), Arc::default()));
    let running = shop.clone();
    tokio::spawn(async move { futures_util::future::join(settlement::run(&running), reconcile::run(&running)).await });
    let sale = sale("full");
    create(&shop, &sale, 100_000).await;

    for store in &stores {
        limit_pages(store, 20).await;
    }
    let (mut promised, mut unknown, mut refused) = (0, 0, 0);
    for number in 0..200 {
        let crowd = (0..50).map(|other| place(&shop, order(&shop, &sale, &format!("c-{number}-{other}"))));
        for placed in join_all(crowd).await {
            match placed {
                Ok(Placement::Accepted(_)) => promised += 1,
                Ok(Placement::Unavailable(Effect::None)) => refused += 1,
                Err(Error::Unavailable { effect: Effect::Unknown, .. }) => unknown += 1,
                other => panic!("{other:?}"),
            }
        }
        if refused > 0 {
            break;
        }
    }
    assert!(promised > 0 && unknown > 0 && refused > 0, "{promised} promised, {unknown} unknown, {refused} refused");

    for store in &stores {
        limit_pages(store, 100_000).await;
    }
    eventually("everything admitted is settled", || async {
        let view = shop.gate.view(&sale.id).await.unwrap().unwrap();
        view.pending == 0 && shop.queue.depth().await.unwrap().waiting == 0
    })
    .await;
    assert_eq!(exact(&shop, &sale).await.stock.items[0].held, units(promised + unknown));
    assert!(matches!(place(&shop, order(&shop, &sale, "later")).await, Ok(Placement::Accepted(_))));
}

/// Sets by how many pages the database may grow from now on.
async fn limit_pages(store: &Store, more: i64) {
    let limit = move |connection: &rusqlite::Connection| {
        let pages: i64 = connection.query_row("pragma page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("pragma max_page_count = {}", pages + more), [], |_| Ok(()))?;
        Ok(())
    };
    store.write("test", limit).await.unwrap();
}
