//! The live stream: its numbers are those of the API, of /metrics and of the tables; its verdict turns red when it has to; and
//! nobody who watches holds anybody up.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sluice::model::Time;

use super::{ADMIN, SHOP, Server, pause};
use crate::support::eventually;
use crate::watcher::{Event, Watcher};

async fn watch(server: &Server, sale: &str) -> Watcher {
    let watcher = Watcher::open(&server.address.to_string(), sale, ADMIN).await;
    assert_eq!(watcher.status, 200);
    watcher
}

/// Changes the tables behind the ledger's back.
fn doctor(server: &Server, sql: &str) {
    let connection = rusqlite::Connection::open(server.data().join("ledger.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

fn is_tick(event: &Event, like: impl Fn(&Value) -> bool) -> bool {
    ["tick", "snapshot"].contains(&event.name.as_str()) && like(&event.data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_what_was_and_goes_on_with_what_comes() {
    let server = Server::start().await;
    server.open_sale("s", 10, json!({})).await;
    for number in 0..4 {
        server.settled("s", &format!("c-{number}"), 1).await;
    }
    let mut watcher = watch(&server, "s").await;
    let first = watcher.next().await.unwrap();
    assert_eq!((first.name.as_str(), first.id), ("snapshot", Some(5)));
    let snapshot = &first.data;
    assert_eq!(snapshot["curve"]["held"].as_array().unwrap().last(), Some(&json!(4)), "{snapshot}");
    assert_eq!(snapshot["curve"]["bin_ms"], 10, "{snapshot}");
    let marks: Vec<&str> = snapshot["marks"].as_array().unwrap().iter().map(|m| m["what"].as_str().unwrap()).collect();
    assert_eq!(marks, ["opened", "first_unit", "last_settle"]);
    assert_eq!((&snapshot["log"][0]["kind"], &snapshot["log"][0]["seq"]), (&json!("created"), &json!(1)));
    let rest = server.order("s", "c-9", 6, &[("prefer", "wait=20")]).await;
    assert_eq!(rest.status, 201, "{}", rest.text);
    assert_eq!(server.order("s", "late", 1, &[]).await.status, 409);
    let sold_out = watcher.until(|event| event.name == "log").await;
    assert_eq!((&sold_out.data["kind"], &sold_out.data["sku"]), (&json!("sold_out"), &json!("ps5")));
    let tick = watcher.until(|event| is_tick(event, |tick| tick["funnel"]["sold_out"] == 1)).await.data;
    let item = &tick["items"][0];
    assert_eq!((&item["available"], &item["held"], &item["gate"]["available"]), (&json!(0), &json!(10), &json!(0)));
    assert_eq!(
        tick["funnel"],
        json!({
            "requests": 6, "shed": 0, "sold_out": 1, "limit": 0, "other": 0, "repeats": 0, "accepted": 5,
            "settled": 5, "held": 5, "sold": 0, "lapsed": 0, "cancelled": 0,
        })
    );
    assert_eq!(tick["latency"]["accepted"]["count"], 5);
    assert_eq!((&tick["conserved"], &tick["demo"]), (&json!(true), &json!(false)));
    assert_eq!(
        tick["holds"]["next"].as_array().unwrap().iter().map(|due| due["units"].as_u64().unwrap()).sum::<u64>(),
        4
    );
    assert!(tick["process"]["memory_bytes"].as_u64().unwrap() > 1_000_000, "{tick}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_the_api_the_metrics_and_the_tables_say_the_same_while_a_crowd_runs() {
    let server = Server::start().await;
    server.open_sale("s", 600, json!({})).await;
    let mut watcher = watch(&server, "s").await;
    let crowd = async {
        for wave in 0..20 {
            let orders = (0..50).map(|number| {
                let (server, customer) = (&server, format!("c-{wave}-{number}"));
                async move { server.order("s", &customer, 1, &[]).await.status }
            });
            join_all(orders).await;
            pause(Duration::from_millis(60)).await;
        }
    };
    let mut compared = 0;
    let compare = async {
        loop {
            let event = watcher.next().await.unwrap();
            if event.name == "log" {
                continue;
            }
            let tick = event.data;
            assert_eq!((&tick["conserved"], &tick["verdict"]["first_offence"]), (&json!(true), &Value::Null), "{tick}");
            let stock = server.admin("GET", "/v1/sales/s/stock", None).await.json();
            if stock["watermark"] == tick["watermark"] && stock["in_flight"] == tick["in_flight"] {
                for name in ["sku", "stock", "available", "held", "sold", "in_flight", "gate"] {
                    assert_eq!(tick["items"][0][name], stock["items"][0][name], "{name} in {tick}");
                }
                compared += 1;
            }
            if tick["items"][0]["held"] == 600 && tick["funnel"]["requests"] == 1_000 {
                return tick;
            }
        }
    };
    let (tick, ()) = futures_util::future::join(compare, crowd).await;
    assert!(compared > 0, "no tick had the watermark of /stock");
    let metrics = server.get("/metrics").await.text;
    for (name, value) in [("held", 600), ("available", 0), ("stock", 600), ("sold", 0)] {
        let line = format!("sluice_units{{sale=\"s\",sku=\"ps5\",layer=\"ledger\",state=\"{name}\"}} {value}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
        assert_eq!(tick["items"][0][name], value);
    }
    let connection = rusqlite::Connection::open(server.data().join("ledger.db")).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(tick["funnel"]["settled"], count("select count(*) from orders"));
    assert_eq!(tick["funnel"]["held"], count("select count(*) from orders where state = 'held'"));
    assert_eq!(tick["watermark"], count("select seq from sales"));
    assert_eq!(tick["funnel"]["sold_out"], 400);
    let curve = watch(&server, "s").await.next().await.unwrap().data["curve"].take();
    let sum: u64 = curve["refused"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(sum, 400, "{curve}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_turns_red_when_the_ledger_is_doctored() {
    // What a row of an item says is held against the journal and the gate at the next tick, what an order's says by a recount.
    for (sql, broken) in [
        ("update items set available = available - 1, sold = sold + 1", "conservation_errors"),
        ("update items set stock = stock + 1, available = available + 1", "undersold"),
        ("update orders set state = 'sold'", "conservation_errors"),
        ("update moves set hash = zeroblob(32) where seq = 1", "conservation_errors"),
        ("update items set sku = 'other sku'", "conservation_errors"),
    ] {
        let server = Server::start().await;
        server.open_sale("s", 10, json!({})).await;
        server.settled("s", "c-1", 1).await;
        let mut watcher = watch(&server, "s").await;
        let first = watcher.next().await.unwrap().data;
        assert_eq!((&first["conserved"], &first["verdict"]["conservation_errors"]), (&json!(true), &json!(0)));
        doctor(&server, sql);
        let red = watcher.until(|event| is_tick(event, |tick| tick["conserved"] == false)).await.data;
        assert!(red["verdict"][broken].as_u64().unwrap() > 0, "{sql}: {red}");
        assert!(red["verdict"]["first_offence"]["what"].is_string(), "{red}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_watchers_see_the_same_and_hold_nobody_up() {
    let server = Server::start().await;
    server.open_sale("s", 50, json!({})).await;
    let mut watchers = join_all((0..100).map(|_| watch(&server, "s"))).await;
    let firsts = join_all(watchers.iter_mut().map(Watcher::next)).await;
    assert!(firsts.iter().flatten().all(|first| first.name == "snapshot"), "{firsts:?}");
    for number in 0..50 {
        assert_eq!(server.order("s", &format!("c-{number}"), 1, &[]).await.status, 202);
    }
    let sold_out = |event: &Event| is_tick(event, |tick| tick["items"][0]["held"] == 50 && tick["in_flight"] == 0);
    let ends = join_all(watchers.iter_mut().map(|watcher| watcher.until(sold_out))).await;
    assert!(ends.iter().all(|end| end.data["verdict"] == ends[0].data["verdict"]));
    let ticks = join_all(watchers.iter_mut().map(|watcher| watcher.until(|event| event.name == "tick"))).await;
    assert!(ticks.iter().all(|tick| tick.id == Some(51)), "the ticks go on when nothing changes");
    drop(watchers);
    // Those who come later begin with a snapshot of their own.
    let mut later = watch(&server, "s").await;
    assert_eq!(later.next().await.unwrap().data["funnel"]["held"], 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_the_operators() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let address = server.address.to_string();
    assert_eq!(Watcher::open(&address, "s", SHOP).await.status, 403);
    assert_eq!(Watcher::open(&address, "s", "wrong").await.status, 401);
    assert_eq!(Watcher::open(&address, "no-such-sale", ADMIN).await.status, 404);
    for (method, path) in [
        ("GET", "/v1/demo"),
        ("POST", "/v1/demo/crowd"),
        ("DELETE", "/v1/demo/crowd"),
        ("POST", "/v1/demo/chaos/kill-worker"),
    ] {
        server.admin(method, path, None).await.problem(404, "not-found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_first_when_the_server_stops() {
    let mut server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let mut watchers = join_all((0..7).map(|_| watch(&server, "s"))).await;
    join_all(watchers.iter_mut().map(Watcher::next)).await;
    drop(server.stop.take());
    for watcher in &mut watchers {
        let bye = watcher.until(|event| event.name == "bye").await;
        assert_eq!(bye.data, json!({"reason": "shutting_down"}));
        assert_eq!(watcher.next().await, None);
    }
    let stopped = tokio::time::timeout(Duration::from_secs(2), &mut server.serving).await;
    assert!(stopped.is_ok(), "streams keep the server from stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_that_come_back_are_seen_coming_and_going() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({"hold_seconds": 2})).await;
    let mut watcher = watch(&server, "s").await;
    server.settled("s", "c-1", 3).await;
    let next = watcher.until(|event| is_tick(event, |tick| tick["holds"]["next"][0]["units"] == 3)).await;
    let lapsed = watcher.until(|event| event.name == "log" && event.data["kind"] == "lapsed").await.data;
    assert_eq!(lapsed["text"], "a hold lapsed: 3 units came back");
    assert!(lapsed["order"].as_str().unwrap().starts_with("ord_"));
    assert!(lapsed["at"].as_str() > next.data["server_time"].as_str(), "{lapsed}");
    let back = watcher.until(|event| is_tick(event, |tick| tick["funnel"]["lapsed"] == 1)).await.data;
    assert!(back["holds"]["release_lag_seconds"].as_f64().unwrap() < 5.0, "{back}");
    assert_eq!(back["items"][0]["available"], 5);
    watcher.until(|event| is_tick(event, |tick| tick["holds"]["next"] == json!([]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_in_which_nothing_happens_ticks_as_often_as_another() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let mut watcher = watch(&server, "s").await;
    let mut times: Vec<Time> = Vec::new();
    while times.len() < 16 {
        let tick = watcher.until(|event| event.name == "tick").await.data;
        times.push(tick["server_time"].as_str().unwrap().parse().unwrap());
    }
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    gaps.sort_unstable();
    let usual = gaps[gaps.len() / 2];
    assert!((100..=250).contains(&usual.as_millis()), "4 to 10 a second: {gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_has_a_timeline() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    server.settled("s", "c-0", 1).await;
    let order = server.settled("s", "c-1", 1).await;
    server.settled("s", "c-2", 1).await;
    let id = order["id"].as_str().unwrap();
    let path = format!("/v1/orders/{id}/timeline");
    let steps = async || server.admin("GET", &path, None).await.json()["steps"].clone();
    let words = |steps: &Value| steps.as_array().unwrap().iter().map(|step| step["what"].clone()).collect::<Vec<_>>();
    let before = steps().await;
    let all = words(&before);
    assert_eq!(all[..3], ["asked", "admitted", "sealed"]);
    // The worker may be faster than the answer to the push, which may be heard before, between or after its two steps.
    let worker: Vec<_> = all[3..].iter().filter(|word| **word != "pushed").collect();
    assert!(all.len() == 6 && worker == ["pulled", "settled"], "{before}");
    let settled = all.iter().position(|word| word == "settled").unwrap();
    assert_eq!((&before[0]["at"], &before[settled]["at"]), (&order["accepted_at"], &order["settled_at"]));
    assert_eq!((&before[0]["gap_ms"], &before[settled]["seq"]), (&Value::Null, &json!(3)));
    assert!((1..=5).all(|at| before[at]["gap_ms"].as_f64().unwrap() >= 0.0), "{before}");
    let cancelled = server.ask("POST", &format!("/v1/orders/{id}/cancel"), &[], None).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    let after = steps().await;
    assert_eq!(words(&after), [&all[..], &[json!("cancelled")]].concat());
    assert_eq!((&after[settled]["seq"], &after[6]["seq"]), (&json!(3), &json!(5)));
    assert!(after[6]["gap_ms"].as_f64().unwrap() >= 0.0);
    let nobodys = "/v1/orders/ord_00000000000000000000000000000000/timeline";
    server.admin("GET", nobodys, None).await.problem(404, "not-found");
    eventually("the stock knows it", async || {
        server.admin("GET", "/v1/sales/s/stock", None).await.json()["items"][0]["available"] == 3
    })
    .await;
}
