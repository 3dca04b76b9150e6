//! The account: all that buyers were told, against the ledger's orders, its stock and its own recount.

use std::collections::HashMap;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::Target;

use crate::buyers::End;
use crate::cluster::TOKEN;

/// From the last answer to the last settlement, lapses included.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(10);
/// Counts of an audit that have to be 0.
const NONE: [&str; 7] =
    ["oversold", "undersold", "leaked", "lost", "doubled", "broken_promises", "conservation_errors"];

/// Waits until nothing is on its way any more, and holds the sale to every promise: each order ended as its customer was
/// told, there is no other, and each of these units is where the orders say. Answers with those that are held or sold.
pub(crate) async fn hold(target: &Target, sale: &str, units: usize, promised: &HashMap<String, End>) -> usize {
    let ask = async |what: &str| -> Value {
        target.ask(Method::GET, &format!("/v1/sales/{sale}/{what}"), Some(TOKEN), None).await.unwrap()
    };
    let clock = RealClock::new();
    let audit = loop {
        let audit = ask("audit").await;
        let lapsing = promised.values().any(|end| *end == End::Lapsed) && audit["stock"]["items"][0]["held"] != 0;
        if audit["verdict"] != "unsettled" && !lapsing {
            break audit;
        }
        assert!(clock.monotonic() < SETTLED_TIME_MAX, "not settled: {audit}");
        clock.sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(audit["verdict"], "exact", "{audit}");
    for count in NONE {
        assert_eq!(audit[count], 0, "{count}: {audit}");
    }
    let mut found = HashMap::new();
    let mut cursor = String::new();
    loop {
        let page = ask(&format!("orders?limit=500{cursor}")).await;
        for order in page["orders"].as_array().unwrap() {
            found.insert(order["id"].as_str().unwrap().to_owned(), end(order));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    for (id, told) in promised {
        assert_eq!(found.get(id), Some(&Some(*told)), "order {id} of {sale}");
    }
    assert_eq!(found.len(), promised.len(), "orders of {sale} that nobody was promised");
    let taken = promised.values().filter(|end| matches!(end, End::Held | End::Sold)).count();
    let item = &audit["stock"]["items"][0];
    assert_eq!(item["stock"], units, "an adjustment counted twice, or not at all: {audit}");
    assert_eq!(item["held"].as_u64().unwrap() + item["sold"].as_u64().unwrap(), taken as u64, "{audit}");
    taken
}

/// How an order ended; `None` if it did not, or not well.
fn end(order: &Value) -> Option<End> {
    match (order["state"].as_str()?, order["reason"].as_str()) {
        ("held", _) => Some(End::Held),
        ("sold", _) => Some(End::Sold),
        ("released", Some("cancelled")) => Some(End::Cancelled),
        ("released", Some("lapsed")) => Some(End::Lapsed),
        _ => None,
    }
}
