//! The crowd against the real program: it does everything a crowd does, and believes nothing it cannot check.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};
use sluice::audit::Verdict;
use sluice::clock::{Clock, RealClock};
use sluice::load::crowd::Habits;
use sluice::load::record::Outcome;
use sluice::load::wire::Target;
use sluice::load::{Plan, Visit};
use sluice::model::{MoveKind, SaleId};

use crate::cluster::{Cluster, TOKEN};
use crate::process::{Serving, run};
use crate::promises::free_address;
use crate::support::eventually;

#[test]
fn a_crowd_that_does_everything_finds_an_exact_sale() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    let items = ["--item", "a=400", "--item", "b=150", "--limit", "4", "--open"];
    run(data, &[&["sale", "create", "--name", "Drop", "--id", "drop"][..], &items].concat(), 0);
    let crowd = "load --sale drop --rate 4000 --orders 6000 --customers 2000 --connections 50 --seed 7 --json \
                 --again 0.1 --retries 0.2 --duplicates 0.1 --impatience 0.1 --mistakes 0.1 --confirm 0.3 --cancel 0.2 \
                 --lines 2 --quantity 2 --alone --twice";
    let told = run(data, &crowd.split_whitespace().collect::<Vec<_>>(), 0);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["check"]["verdict"], "exact", "{told:#}");
    let outcomes: Vec<&str> =
        told["outcomes"].as_array().unwrap().iter().filter_map(|row| row["outcome"].as_str()).collect();
    for outcome in ["accepted", "repeat", "sold_out", "key_reused"] {
        assert!(outcomes.contains(&outcome), "{outcome}: {told:#}");
    }
    assert!(told["check"]["again"].as_u64().unwrap() > 1_000, "{told:#}");
    let ended = &told["check"]["ended"];
    assert!(ended["sold"].as_u64().unwrap() > 0 && ended["released"].as_u64().unwrap() > 0, "{ended}");
    assert_eq!(serving.stop().0, Some(0));
    run(data, &["audit", "drop"], 0);
}

#[test]
fn a_crowd_notices_a_ledger_that_was_doctored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    run(data, &["sale", "create", "--name", "Drop", "--id", "drop", "--item", "a=50", "--open"], 0);
    let crowd = "load --sale drop --rate 2000 --orders 200 --seed 1";
    run(data, &crowd.split_whitespace().collect::<Vec<_>>(), 0);
    assert_eq!(serving.stop().0, Some(0));
    let doctored = rusqlite::Connection::open(data.join("data/ledger.db")).unwrap();
    doctored.execute_batch("update moves set units = 2 where sale = 'drop' and seq = 9").unwrap();
    drop(doctored);
    let findings = run(data, &["audit", "drop"], 10);
    assert!(findings.contains("#9"), "{findings}");
    let serving = Serving::start(data);
    let crowd = "load --sale drop --rate 2000 --orders 20 --seed 2";
    let told = run(data, &crowd.split_whitespace().collect::<Vec<_>>(), 10);
    assert!(!told.contains("· CONSERVED"), "{told}");
    assert_eq!(serving.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_insists_outlives_three_kills() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let address = free_address();
    let mut serving = Serving::start_at(data, &address);
    let items = ["--item", "a=1500", "--item", "b=700", "--limit", "4", "--open"];
    run(data, &[&["sale", "create", "--name", "Drop", "--id", "drop"][..], &items].concat(), 0);
    let token = std::fs::read_to_string(data.join("data/admin-token")).unwrap().trim().to_owned();
    let target = Target::find(&format!("http://{address}"), false).await.unwrap();
    let habits = Habits {
        customers: 3_000,
        orders: 4_000,
        rate_per_s: 2_000.0,
        retries: 0.2,
        duplicates: 0.1,
        impatience: 0.1,
        mistakes: 0.1,
        confirm: 0.3,
        cancel: 0.3,
        lines_max: 2,
        quantity_max: 2,
        ..Habits::plain(5)
    };
    let plan = Plan::insistent(vec![target.clone()], SaleId::new("drop").unwrap(), &token, habits);
    let clock = Arc::new(RealClock::new());
    let mut visit = Visit::begin(plan, clock.clone()).await.unwrap();
    let kills = async {
        for kill in 1..=3 {
            let moves = async || {
                let stock = target.ask::<Value>(Method::GET, "/v1/sales/drop/stock", Some(&token), None).await;
                stock.map_or(0, |stock| stock["watermark"].as_u64().unwrap())
            };
            eventually("the sale is in full swing", async || moves().await > kill * 250).await;
            serving.kill();
            serving = Serving::start_at(data, &address);
        }
        (serving, clock.monotonic())
    };
    let (history, (_serving, healed)) = tokio::join!(visit.send(std::future::pending()), kills);
    let mut history = history.unwrap();
    history.healed_us = Some(visit.moment_us(healed));
    let again = history.records.iter().filter(|record| matches!(record.outcome, Outcome::Error | Outcome::Unavailable));
    assert!(again.count() > 0, "the kills met nobody");
    let (mut check, facts) = visit.check(&history).await.unwrap();
    assert_eq!((check.verdict, &check.violations), (Verdict::Exact, &Vec::new()));
    visit.twice(&history, &mut check, &facts).await.unwrap();
    assert_eq!((check.verdict, &check.violations), (Verdict::Exact, &Vec::new()));
    assert!(check.again >= check.promised && check.promised > 500, "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_two_apis_whose_holds_lapse_is_told_no_lie() {
    let cluster = Cluster::start();
    let items = json!([{"sku": "a", "stock": 400}, {"sku": "b", "stock": 100}]);
    cluster.create(items, json!({"hold_seconds": 2, "per_customer_limit": 4})).await;
    let habits = Habits {
        customers: 4_000,
        orders: 8_000,
        rate_per_s: 1_000.0,
        retries: 0.1,
        duplicates: 0.1,
        impatience: 0.1,
        mistakes: 0.1,
        confirm: 0.1,
        cancel: 0.3,
        lines_max: 2,
        quantity_max: 2,
        ..Habits::plain(11)
    };
    let plan = Plan::insistent(cluster.targets().await, SaleId::new("drop").unwrap(), TOKEN, habits);
    let mut visit = Visit::begin(plan, Arc::new(RealClock::new())).await.unwrap();
    let history = visit.send(std::future::pending()).await.unwrap();
    let (mut check, facts) = visit.check(&history).await.unwrap();
    let lapsed = facts.journal.iter().filter(|step| step.kind == MoveKind::Lapse).count();
    assert!(lapsed > 100, "{lapsed} holds lapsed");
    visit.twice(&history, &mut check, &facts).await.unwrap();
    assert_eq!((check.verdict, &check.violations), (Verdict::Exact, &Vec::new()), "{}", cluster.said());
    assert!(check.promised > 500, "{check:?}");
}
