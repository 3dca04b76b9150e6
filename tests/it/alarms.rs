//! What must be 0 can be something else: ledgers that were doctored by hand, under a server that runs, and the alarms that
//! say so.

use std::path::Path;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sluice::load::wire::{Target, Wire};

use crate::process::{Serving, run};
use crate::support::eventually;

/// A server with a sale of three units.
async fn start(data: &Path) -> (Serving, Target) {
    let serving = Serving::start(data);
    run(data, &["sale", "create", "--name", "Drop", "--id", "drop", "--item", "a=3", "--open"], 0);
    let target = Target::find(&format!("http://{}", serving.address()), false).await.unwrap();
    (serving, target)
}

/// Changes the ledger's rows behind everybody's back; the database would not allow it.
fn doctor(data: &Path, sql: &str) {
    let ledger = rusqlite::Connection::open(data.join("data/ledger.db")).unwrap();
    ledger.execute_batch(&format!("pragma busy_timeout = 10000; pragma ignore_check_constraints = on; {sql}")).unwrap();
}

#[test]
#[ignore = "the tests in the browser run it, in a process of its own"]
fn rows_are_doctored() {
    let [folder, sql] = ["SLUICE_TEST_FOLDER", "SLUICE_TEST_SQL"].map(|name| std::env::var(name).unwrap());
    doctor(Path::new(&folder), &sql);
}

/// Orders one unit; answers with the order's id.
async fn order(target: &Target, customer: &str) -> String {
    let body = json!({ "customer": customer, "lines": [{ "sku": "a", "quantity": 1 }] }).to_string();
    let mut request = target.request(Method::POST, "/v1/sales/drop/orders".parse().unwrap(), body.into());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert("idempotency-key", HeaderValue::from_static("k"));
    let answer = Wire::open(target).await.unwrap().call(request).await.unwrap();
    assert_eq!(answer.status, 202);
    let order: Value = serde_json::from_slice(&answer.body).unwrap();
    order["id"].as_str().unwrap().to_owned()
}

async fn metric(target: &Target, name: &str) -> u64 {
    let answer = target.fetch(Method::GET, "/metrics", None, None).await.unwrap();
    let text = String::from_utf8(answer.body.into()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_the_ledger_cannot_keep_is_counted_named_and_found() {
    const COUNTER: &str = "sluice_broken_promises_total{sale=\"drop\"}";
    let folder = tempfile::tempdir().unwrap();
    let (serving, target) = start(folder.path()).await;
    assert_eq!(metric(&target, COUNTER).await, 0);
    // The gate has three units to give, the ledger none.
    doctor(folder.path(), "update items set stock = 0, available = 0");
    let id = order(&target, "c-1").await;
    eventually("the order is refused", async || {
        let order: Value = target.ask(Method::GET, &format!("/v1/orders/{id}"), None, None).await.unwrap();
        order["state"] == "refused" && order["reason"] == "sold_out"
    })
    .await;
    eventually("it is counted", async || metric(&target, COUNTER).await == 1).await;
    serving.wait_for("the gate admitted what the ledger could not keep");
    let audit = run(folder.path(), &["audit", "drop"], 10);
    assert!(audit.contains("BROKEN PROMISES 1") && audit.contains(&id), "{audit}");
    assert_eq!(serving.stop().0, Some(0));
    let audit: Value = serde_json::from_str(&run(folder.path(), &["audit", "drop", "--json"], 10)).unwrap();
    assert_eq!(audit["broken_promises"], 1, "{audit}");
}

/// The state of this order, as the server tells it.
async fn state(target: &Target, id: &str) -> Value {
    let order: Value = target.ask(Method::GET, &format!("/v1/orders/{id}"), None, None).await.unwrap();
    order["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_row_is_gone_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (_serving, target) = start(folder.path()).await;
    let ids = [order(&target, "c-1").await, order(&target, "c-2").await];
    for id in &ids {
        eventually("it is held", async || state(&target, id).await == "held").await;
    }
    doctor(folder.path(), "delete from orders where customer = 'c-2'");
    let audit: Value = serde_json::from_str(&run(folder.path(), &["audit", "drop", "--json"], 10)).unwrap();
    assert_eq!((&audit["lost"], &audit["findings"][0]["subject"]), (&json!(1), &json!(ids[1])), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_ledger_cannot_write_is_set_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (_serving, target) = start(folder.path()).await;
    let refuse = "create trigger bad before insert on orders when new.customer = 'bad' \
                  begin select raise(abort, 'not this one'); end";
    doctor(folder.path(), refuse);
    let bad = order(&target, "bad").await;
    for customer in ["c-1", "c-2"] {
        let id = order(&target, customer).await;
        eventually("its neighbour is held", async || state(&target, &id).await == "held").await;
    }
    eventually("it is set aside", async || metric(&target, "sluice_dead_letters").await > 0).await;
    assert_eq!(state(&target, &bad).await, "accepted");
    run(folder.path(), &["audit", "drop"], 11);
    // Nobody brings it back but the gate, which has it pending.
    doctor(folder.path(), "drop trigger bad");
    eventually("it is held after all", async || state(&target, &bad).await == "held").await;
    run(folder.path(), &["audit", "drop"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn units_that_do_not_add_up_are_gauged() {
    let folder = tempfile::tempdir().unwrap();
    let (_serving, target) = start(folder.path()).await;
    let gauges = async || {
        [metric(&target, "sluice_oversold_units").await, metric(&target, "sluice_conservation_error_units").await]
    };
    assert_eq!(gauges().await, [0, 0]);
    doctor(folder.path(), "update items set available = 1");
    assert_eq!(gauges().await, [0, 2], "two units are nowhere");
    doctor(folder.path(), "update items set available = 0, held = 1, sold = 4");
    assert_eq!(gauges().await, [2, 2], "two units are sold that are not there");
    doctor(folder.path(), "update items set available = 3, held = 0, sold = 0");
    assert_eq!(gauges().await, [0, 0]);
    // Gate and ledger each add up, and disagree.
    doctor(folder.path(), "update items set stock = 4, available = 4");
    assert_eq!(gauges().await, [0, 1]);
    let audit = run(folder.path(), &["audit", "drop"], 10);
    assert!(audit.contains("UNDERSOLD 1") && audit.contains("NOT CONSERVED"), "{audit}");
}
