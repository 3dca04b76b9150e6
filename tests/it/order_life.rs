//! The ledger in SQLite against the ledger on the napkin: whatever is asked in whatever sequence, both give the same
//! answers and have the same books. A failure is shrunk to the shortest sequence that shows it.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sluice::ledger::{EpochStep, Ledger, OrderFilter, SqliteLedger, Turn};
use sluice::model::{Epoch, Sale, Seq, Verb};
use sluice::queue::{Body, Message};
use sluice::sqlite::{Access, Store, Tables};
use tempfile::TempDir;

use crate::model_ledger::ModelLedger;
use crate::words::{HandClock, addition, claim, id, marker, message, order_by, sale, sale_id, units, withdrawal};

/// Sequences of one test run, and steps of one sequence.
const SEQUENCES: u32 = 96;
const STEPS_MAX: usize = 40;

#[derive(Debug, Clone)]
enum Step {
    Settle(Vec<Message>),
    Turn(u8, Turn),
    Lapse(usize),
    Pass(u64),
    Add(u8, &'static str, u32),
    Steer(Verb),
    Epochs(EpochStep),
    Restart,
}

/// Few ids, few SKUs (one of them unknown) and few epochs, so that they meet often.
fn a_message() -> impl Strategy<Value = Message> {
    let skus = prop::sample::subsequence(vec!["a", "b", "unknown"], 1..3);
    let order = (0..12_u8, skus, 1..4_u32, 0..3_usize, 0..4_u64).prop_map(|(number, skus, quantity, who, epoch)| {
        let lines: Vec<(&str, u32)> = skus.into_iter().map(|name| (name, quantity)).collect();
        message(claim(order_by(["x", "y", "z"][who], number, &lines)), epoch)
    });
    let withdrawal = (20..24_u8, prop::sample::select(vec!["a", "b", "unknown"]), 1..4_u32, 0..4_u64)
        .prop_map(|(number, name, quantity, epoch)| message(withdrawal(number, name, quantity), epoch));
    let close = (0..4_u64).prop_map(|epoch| marker(Body::Close, epoch));
    let sweep = (0..4_u64).prop_map(|number| marker(Body::Sweep(number), 1));
    prop_oneof![8 => order, 1 => withdrawal, 1 => close, 1 => sweep]
}

fn a_step() -> impl Strategy<Value = Step> {
    let turn = prop::sample::select(vec![Turn::Confirm, Turn::Cancel]);
    let verb = prop::sample::select(vec![Verb::Open, Verb::Pause, Verb::Resume, Verb::Close]);
    let epoch = prop_oneof![Just(EpochStep::Raise), (0..4_u64).prop_map(|epoch| EpochStep::Live(Epoch(epoch)))];
    prop_oneof![
        6 => prop::collection::vec(a_message(), 1..6).prop_map(Step::Settle),
        4 => (0..12_u8, turn).prop_map(|(number, turn)| Step::Turn(number, turn)),
        2 => (1..4_usize).prop_map(Step::Lapse),
        2 => (0..40_000_u64).prop_map(Step::Pass),
        1 => (30..33_u8, prop::sample::select(vec!["a", "b", "unknown"]), 1..4_u32)
            .prop_map(|(number, name, quantity)| Step::Add(number, name, quantity)),
        1 => verb.prop_map(Step::Steer),
        2 => epoch.prop_map(Step::Epochs),
        1 => Just(Step::Restart),
    ]
}

fn a_sale() -> impl Strategy<Value = (Sale, Vec<u32>)> {
    (prop::option::of(1..4_u32), prop::sample::select(vec![0, 30]), prop::collection::vec(0..9_u32, 2)).prop_map(
        |(limit, hold_seconds, stock)| {
            (Sale { per_customer_limit: limit.map(units), hold_seconds, ..sale("s", &["a", "b"]) }, stock)
        },
    )
}

#[test]
fn both_ledgers_say_and_keep_the_same() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
    let sequences = (a_sale(), prop::collection::vec(a_step(), 1..STEPS_MAX));
    let outcome = TestRunner::new(config)
        .run(&sequences, |((sale, stock), steps): ((Sale, Vec<u32>), _)| runtime.block_on(live(&sale, &stock, steps)));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn live(sale: &Sale, stock: &[u32], steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (clock, file) = (Arc::new(HandClock::default()), TempDir::new().unwrap());
    let open = || {
        let store = Store::open(&file.path().join("test.db"), Tables::Ledger, Access::Write).unwrap();
        Box::new(SqliteLedger::new(store, clock.clone())) as Box<dyn Ledger>
    };
    let model: Box<dyn Ledger> = Box::new(ModelLedger::new(clock.clone()));
    let mut sqlite = open();
    let stock: Vec<_> = stock.iter().map(|count| units(*count)).collect();
    prop_assert_eq!(sqlite.create(sale, &stock).await.unwrap(), model.create(sale, &stock).await.unwrap());
    for step in steps {
        if let Step::Restart = step {
            drop(sqlite);
            sqlite = open();
        }
        if let Step::Pass(millis) = step {
            clock.pass(millis);
        }
        answer(&*sqlite, &*model, &step).await?;
        compare(&*sqlite, &*model).await?;
    }
    Ok(())
}

async fn answer(sqlite: &dyn Ledger, model: &dyn Ledger, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Settle(messages) => {
            prop_assert_eq!(sqlite.settle(messages).await.unwrap(), model.settle(messages).await.unwrap());
        }
        Step::Turn(number, turn) => {
            let id = id(*number);
            prop_assert_eq!(sqlite.turn(id, *turn).await.unwrap(), model.turn(id, *turn).await.unwrap());
        }
        Step::Lapse(orders_max) => {
            prop_assert_eq!(sqlite.lapse(*orders_max).await.unwrap(), model.lapse(*orders_max).await.unwrap());
        }
        Step::Add(number, name, quantity) => {
            let addition = addition(*number, name, *quantity);
            prop_assert_eq!(sqlite.add(&addition).await.unwrap(), model.add(&addition).await.unwrap());
        }
        Step::Steer(verb) => {
            let id = sale_id("s");
            prop_assert_eq!(sqlite.steer(&id, *verb).await.unwrap(), model.steer(&id, *verb).await.unwrap());
        }
        Step::Epochs(step) => {
            let id = sale_id("s");
            prop_assert_eq!(sqlite.step_epoch(&id, *step).await.unwrap(), model.step_epoch(&id, *step).await.unwrap());
        }
        Step::Pass(_) | Step::Restart => {}
    }
    Ok(())
}

/// All books are the same, and a recount finds nothing in them.
async fn compare(sqlite: &dyn Ledger, model: &dyn Ledger) -> Result<(), TestCaseError> {
    let here = sale_id("s");
    prop_assert_eq!(sqlite.sales().await.unwrap(), model.sales().await.unwrap());
    prop_assert_eq!(
        sqlite.journal(&here, Seq(0), 10_000).await.unwrap(),
        model.journal(&here, Seq(0), 10_000).await.unwrap()
    );
    let all = OrderFilter { sale: here.clone(), state: None, customer: None, after: Seq(0), limit: 1_000 };
    prop_assert_eq!(sqlite.orders(&all).await.unwrap(), model.orders(&all).await.unwrap());
    for number in (20..24).chain(30..33) {
        let id = id(number);
        prop_assert_eq!(sqlite.adjustment(id).await.unwrap(), model.adjustment(id).await.unwrap());
    }
    let (mut one, mut other) =
        (sqlite.snapshot(&here).await.unwrap().unwrap(), model.snapshot(&here).await.unwrap().unwrap());
    for snapshot in [&mut one, &mut other] {
        snapshot.used.sort();
        snapshot.known.sort();
    }
    prop_assert_eq!((one.record, one.used), (other.record, other.used));
    let unknown: Vec<_> = other.known.iter().filter(|id| !one.known.contains(id)).collect();
    prop_assert!(unknown.is_empty(), "the snapshot lacks {:?}", unknown);
    let (one, other) = (sqlite.recount(&here).await.unwrap().unwrap(), model.recount(&here).await.unwrap().unwrap());
    let honest =
        one.findings.iter().all(|finding| finding.invariant == sluice::ledger::journal::Invariant::BrokenPromise);
    prop_assert!(honest, "{:?}", one.findings);
    prop_assert_eq!(one, other);
    Ok(())
}
