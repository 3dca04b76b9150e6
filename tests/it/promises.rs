//! The promises, kept by the real program over real connections: by a crowd that repeats itself, and through kill -9.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::Value;
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::{Target, Wire};

use crate::buyers::{Buyers, Habit, Told, order};
use crate::process::{Serving, run};

fn create(data: &Path, items: &[&str]) {
    let items = items.iter().flat_map(|item| ["--item", item]);
    let args: Vec<&str> =
        ["sale", "create", "--name", "Drop", "--id", "drop", "--open"].into_iter().chain(items).collect();
    run(data, &args, 0);
}

/// The sale's stock, once nothing is on its way any more.
fn settled_audit(data: &Path) -> Value {
    let audit: Value = serde_json::from_str(&run(data, &["audit", "drop", "--json"], 0)).unwrap();
    assert_eq!(audit["verdict"], "exact", "{audit}");
    audit
}

/// 20,000 orders over 100 connections, spread over these servers. Every fifth order is the one that another connection, and
/// so another server, sends at about the same time; afterwards each accepted one is sent once more, to the next server.
/// Answers with the ids of all accepted orders; a sale of so few units is sold out by then.
pub(crate) async fn storm(targets: &[Target], skus: &'static [&'static str]) -> HashSet<String> {
    const CONNECTIONS: usize = 100;
    const ORDERS: usize = 20_000;
    let crowd = (0..CONNECTIONS).map(|connection| {
        let target = targets[connection % targets.len()].clone();
        tokio::spawn(async move {
            let mut wire = Wire::open(&target).await.unwrap();
            let mut told = Vec::new();
            for number in 0..ORDERS / CONNECTIONS {
                let sender = if number % 5 == 4 { (connection + 1) % CONNECTIONS } else { connection };
                let number = if number % 5 == 4 { number - 1 } else { number };
                let (customer, sku) = (format!("c-{sender}-{number}"), skus[(sender + number) % skus.len()]);
                told.push((customer.clone(), order(&mut wire, &target, "drop", &customer, sku).await.unwrap()));
            }
            told
        })
    });
    let mut orders: HashMap<String, HashSet<String>> = HashMap::new();
    let mut refused = HashSet::new();
    for told in join_all(crowd).await {
        for (customer, told) in told.unwrap() {
            match told {
                Told::Promised(id) => drop(orders.entry(customer).or_default().insert(id)),
                Told::SoldOut => drop(refused.insert(customer)),
                Told::NotNow => panic!("nothing was down"),
            }
        }
    }
    assert!(orders.values().all(|ids| ids.len() == 1), "a repeat led to another order");
    for (at, (customer, ids)) in orders.iter().enumerate() {
        let target = &targets[at % targets.len()];
        let mut wire = Wire::open(target).await.unwrap();
        let number: usize = customer.split('-').skip(1).map(|part| part.parse::<usize>().unwrap()).sum();
        let again = order(&mut wire, target, "drop", customer, skus[number % skus.len()]).await.unwrap();
        assert_eq!(again, Told::Promised(ids.iter().next().unwrap().clone()));
        assert!(!refused.contains(customer), "{customer} was accepted and then told that it is sold out");
    }
    orders.into_values().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_orders_over_a_hundred_connections_take_every_unit_once() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    create(folder.path(), &["a=100", "b=37", "c=1"]);
    let target = Target::find(&format!("http://{}", serving.address()), false).await.unwrap();
    let ids = storm(&[target], &["a", "b", "c"]).await;
    assert_eq!(ids.len(), 100 + 37 + 1);
    let audit = audit_when_settled(folder.path()).await;
    let held: Vec<u64> =
        audit["stock"]["items"].as_array().unwrap().iter().map(|item| item["held"].as_u64().unwrap()).collect();
    assert_eq!(held, [100, 37, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_kills_during_a_sale_break_no_promise_and_leave_no_unit() {
    const UNITS: u64 = 3_000;
    const KILLS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut serving = Serving::start_at(folder.path(), &address);
    create(folder.path(), &[&format!("a={UNITS}")]);
    let target = Target::find(&format!("http://{address}"), false).await.unwrap();
    let crowd = Buyers::come(std::slice::from_ref(&target), "drop", "c", 64, Habit::Keep);
    for kill in 1..=KILLS {
        // Every kill meets a sale in full swing, with orders between gate, queue and answer.
        while crowd.promised() < kill * 330 {
            tokio::task::yield_now().await;
        }
        serving.kill();
        serving = Serving::start_at(folder.path(), &address);
    }
    let promised = crowd.gone().await;
    let audit = audit_when_settled(folder.path()).await;
    assert_eq!(audit["stock"]["items"][0]["held"], UNITS, "{audit}");
    assert_eq!(promised.len() as u64, UNITS);
    for id in promised.keys() {
        let order: Value = target.ask(Method::GET, &format!("/v1/orders/{id}"), None, None).await.unwrap();
        assert_eq!(order["state"], "held", "{order}");
    }
}

/// Audits until nothing is on its way, for at most ten seconds.
async fn audit_when_settled(data: &Path) -> Value {
    for _ in 0..200 {
        if crate::process::sluice(data, &["audit", "drop"]).output().unwrap().status.code() != Some(11) {
            break;
        }
        RealClock::new().sleep(Duration::from_millis(50)).await;
    }
    settled_audit(data)
}

pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
