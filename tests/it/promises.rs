//! The promises, kept by the real program over real connections: by a crowd that repeats itself, and through kill -9.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::{Target, Wire};

use crate::process::{Serving, run};

/// What an order was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// 202 or 200, with the order's id.
    Promised(String),
    SoldOut,
    /// 503, or no answer: ask again.
    NotNow,
}

/// Orders one unit over this connection.
async fn order(wire: &mut Wire, target: &Target, customer: &str, sku: &str) -> anyhow::Result<Told> {
    let body = json!({ "customer": customer, "lines": [{ "sku": sku, "quantity": 1 }] }).to_string();
    let mut request = target.request(Method::POST, "/v1/sales/drop/orders".parse()?, body.into());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert("idempotency-key", HeaderValue::from_str(&format!("{customer}-{sku}"))?);
    let answer = wire.call(request).await?;
    let body: Value = serde_json::from_slice(&answer.body)?;
    Ok(match (answer.status.as_u16(), body["type"].as_str()) {
        (200 | 202, _) => Told::Promised(body["id"].as_str().unwrap().to_owned()),
        (409, Some("/problems/sold-out")) => Told::SoldOut,
        (503, _) => Told::NotNow,
        _ => panic!("{}: {body}", answer.status),
    })
}

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
                told.push((customer.clone(), order(&mut wire, &target, &customer, sku).await.unwrap()));
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
        let again = order(&mut wire, target, customer, skus[number % skus.len()]).await.unwrap();
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
    let sold = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> = (0..64).map(|number| tokio::spawn(insist(target.clone(), number, sold.clone()))).collect();
    for kill in 1..=KILLS {
        // Every kill meets a sale in full swing, with orders between gate, queue and answer.
        while sold.load(Ordering::Relaxed) < kill * 330 {
            tokio::task::yield_now().await;
        }
        serving.kill();
        serving = Serving::start_at(folder.path(), &address);
    }
    let mut promised = HashSet::new();
    for told in join_all(crowd).await {
        for id in told.unwrap() {
            assert!(promised.insert(id), "two customers got one order");
        }
    }
    let audit = audit_when_settled(folder.path()).await;
    assert_eq!(audit["stock"]["items"][0]["held"], UNITS, "{audit}");
    assert_eq!(promised.len() as u64, UNITS);
    for id in &promised {
        let order: Value = target.ask(Method::GET, &format!("/v1/orders/{id}"), None, None).await.unwrap();
        assert_eq!(order["state"], "held", "{order}");
    }
}

/// Orders for one customer after another, each again and again until it has a final answer; ends at the first "sold out".
/// Answers with what was promised.
async fn insist(target: Target, number: usize, sold: Arc<AtomicUsize>) -> Vec<String> {
    let (clock, mut promised, mut wire) = (RealClock::new(), Vec::new(), None);
    for customer in 0.. {
        let customer = format!("c-{number}-{customer}");
        let told = loop {
            let told = once(&mut wire, &target, &customer).await.unwrap_or(Told::NotNow);
            if told != Told::NotNow {
                break told;
            }
            clock.sleep(Duration::from_millis(5)).await;
        };
        match told {
            Told::Promised(id) => promised.push(id),
            Told::SoldOut | Told::NotNow => break,
        }
        sold.fetch_add(1, Ordering::Relaxed);
    }
    promised
}

/// Orders over the open connection, or a new one; a connection that failed is not used again.
async fn once(wire: &mut Option<Wire>, target: &Target, customer: &str) -> anyhow::Result<Told> {
    let mut open = match wire.take() {
        Some(open) => open,
        None => Wire::open(target).await?,
    };
    let told = order(&mut open, target, customer, "a").await?;
    *wire = Some(open);
    Ok(told)
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

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
