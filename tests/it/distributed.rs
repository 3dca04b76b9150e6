//! The distributed deployment, for real: several processes of the program over PostgreSQL, Redis and RabbitMQ.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::Target;

use crate::cluster::{Cluster, TOKEN, with};
use crate::k6::{UNHURRIED, k6};
use crate::process::{Env, Serving, said};
use crate::promises::storm;
use crate::servers::free_port;
use crate::servers::redis::RedisServer;
use crate::servers::trio::Trio;
use crate::support::eventually;
use crate::watcher::Watcher;

#[tokio::test(flavor = "multi_thread")]
async fn two_apis_and_two_workers_sell_five_hundred_and_fifty_units_to_twenty_thousand_orders() {
    let cluster = Cluster::start();
    cluster.create(json!([{"sku": "a", "stock": 500}, {"sku": "b", "stock": 50}]), json!({})).await;
    let targets = cluster.targets().await;
    let ids = storm(&targets, &["a", "b"]).await;
    assert_eq!(ids.len(), 550);
    let audit = cluster.settled_audit().await;
    assert_eq!(audit["verdict"], "exact", "{audit}");
    for number in ["oversold", "undersold", "leaked", "lost", "doubled", "broken_promises", "conservation_errors"] {
        assert_eq!(audit[number], 0, "{audit}");
    }
    let truth = cluster.trio.psql("select sku, stock, available, held, sold from items order by sku");
    assert_eq!(truth, "a|500|0|500|0\nb|50|0|50|0");
    let orders = cluster.trio.psql("select count(*), count(distinct id) from orders where state = 'held'");
    assert_eq!(orders, "550|550");
    for member in cluster.members() {
        assert!(!member.said().contains("ERROR"), "{}", member.said());
    }
    // Without any server, and from the servers' memory alone.
    assert!(cluster.run(&["audit", "drop"], 0).contains("EXACT"));
    let mut cluster = cluster;
    for member in cluster.members_mut() {
        let (code, said, printed) = member.stop();
        assert_eq!((code, printed.as_str()), (Some(0), ""), "{said}");
    }
    cluster.run(&["audit", "drop", "--json"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_api_shows_the_whole_sale_live_and_a_worker_shows_nothing() {
    let cluster = Cluster::of(2, 1);
    cluster.create(json!([{"sku": "a", "stock": 40}]), json!({})).await;
    let targets = cluster.targets().await;
    let mut watchers = Vec::new();
    for api in &cluster.apis {
        let mut watcher = Watcher::open(&api.address, "drop", TOKEN).await;
        assert_eq!(watcher.next().await.unwrap().data["items"][0]["available"], 40);
        watchers.push(watcher);
    }
    // Everything is ordered at the first API; the second one shows it as well, but for the answers.
    for number in 0..50 {
        let order = json!({"customer": format!("c-{number}"), "lines": [{"sku": "a", "quantity": 1}]});
        let path = "/v1/sales/drop/orders";
        let answer = targets[0].answer(Method::POST, path, None, Some("k"), Some(&order)).await.unwrap();
        assert_eq!(answer.status, if number < 40 { 202 } else { 409 });
    }
    for (watcher, requests) in watchers.iter_mut().zip([50, 0]) {
        let end = watcher.until(|event| event.name == "tick" && event.data["funnel"]["held"] == 40).await.data;
        assert_eq!((&end["conserved"], &end["items"][0]["gate"]["available"]), (&json!(true), &json!(0)), "{end}");
        let stock: Value = targets[0].ask(Method::GET, "/v1/sales/drop/stock", Some(TOKEN), None).await.unwrap();
        assert_eq!((&end["watermark"], &end["items"][0]["held"]), (&stock["watermark"], &stock["items"][0]["held"]));
        let end = watcher.until(|event| event.name == "tick" && event.data["funnel"]["requests"] == requests).await;
        assert_eq!(end.data["process"]["ledger"], "PostgreSQL");
    }
    let log = cluster.settled_audit().await;
    assert_eq!(log["verdict"], "exact", "{log}");
    assert_eq!(Watcher::open(&cluster.workers[0].address, "drop", TOKEN).await.status, 404);
}

/// What a buyer's shop would see on a drop: 500 virtual users of k6, over both APIs.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_users_of_k6_empty_the_stock_and_leave_the_database_alone() {
    let cluster = Cluster::start();
    let transactions = || -> u64 {
        let sql = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        cluster.trio.psql(sql).parse().unwrap()
    };
    let before = transactions();
    let run =
        k6(&cluster.urls().join(","), TOKEN, &[&UNHURRIED[..], &[("STOCK", "1000"), ("RETRY_SHARE", "0.02")]].concat());
    assert_eq!(run.code, Some(0), "{}", run.printed);
    let summary = &run.summary;
    assert_eq!(summary["passed"], true, "{summary}");
    assert_eq!((&summary["checks"]["failed"], &summary["oversold"]), (&json!(0), &json!(0)), "{summary}");
    let ledger = &summary["ledger"];
    assert_eq!((&ledger["available"], &ledger["held"]), (&json!(0), &json!(1_000)), "{summary}");
    // Only a repeat of a settled order is looked up in the ledger; all else is answered by gate and queue. What went on in
    // the database meanwhile, the workers' own business included, bears that out.
    let [requests, repeated] = ["requests", "repeated"].map(|name| summary[name].as_u64().unwrap());
    let transactions = transactions() - before;
    println!("{}{requests} requests, {transactions} transactions of the database", run.printed);
    assert!(repeated * 20 <= requests, "{repeated} of {requests} were looked up");
    assert!(transactions * 5 <= requests, "{transactions} transactions for {requests} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_held_confirmed_cancelled_and_lapses_over_several_processes() {
    let cluster = Cluster::start();
    cluster.create(json!([{"sku": "a", "stock": 3}]), json!({ "hold_seconds": 2, "per_customer_limit": 1 })).await;
    let targets = cluster.targets().await;
    let order = async |at: usize, customer: &str| -> Value {
        let body = json!({ "customer": customer, "lines": [{ "sku": "a", "quantity": 1 }] }).to_string();
        let mut request = targets[at].request(Method::POST, "/v1/sales/drop/orders".parse().unwrap(), body.into());
        for (name, value) in [("content-type", "application/json"), ("idempotency-key", "k"), ("prefer", "wait=10")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let mut wire = sluice::load::wire::Wire::open(&targets[at]).await.unwrap();
        serde_json::from_slice(&wire.call(request).await.unwrap().body).unwrap()
    };
    let ask = async |at: usize, method: Method, path: String| -> Value {
        targets[at].ask(method, &path, Some(TOKEN), None).await.unwrap()
    };
    let (one, two, three) = (order(0, "one").await, order(1, "two").await, order(0, "three").await);
    for held in [&one, &two, &three] {
        assert_eq!(held["state"], "held", "{held}");
    }
    assert_eq!(order(1, "four").await["type"], "/problems/sold-out");
    let confirmed = ask(1, Method::POST, format!("/v1/orders/{}/confirm", one["id"].as_str().unwrap())).await;
    assert_eq!(confirmed["state"], "sold", "{confirmed}");
    let cancelled = ask(0, Method::POST, format!("/v1/orders/{}/cancel", two["id"].as_str().unwrap())).await;
    assert_eq!(cancelled["state"], "released", "{cancelled}");
    eventually("what was cancelled on one API is sold on the other", async || {
        order(1, "five").await["state"] == "held"
    })
    .await;
    eventually("the hold lapses", async || {
        let lapsed = ask(1, Method::GET, format!("/v1/orders/{}", three["id"].as_str().unwrap())).await;
        lapsed["state"] == "released" && lapsed["reason"] == "lapsed"
    })
    .await;
    let audit = cluster.settled_audit().await;
    assert_eq!(audit["verdict"], "exact", "{audit}");
    assert_eq!(audit["stock"]["items"][0]["sold"], 1, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_may_be_started_first() {
    let mut trio = Trio::start();
    let (folder, mut env) = (tempfile::tempdir().unwrap(), trio.env());
    env.push(("SLUICE_ADMIN_TOKEN", TOKEN.into()));
    trio.postgres.kill();
    trio.redis.server.kill();
    trio.rabbit.kill();
    let address = format!("127.0.0.1:{}", free_port());
    let api = Serving::spawn(folder.path(), &["serve", "--role", "api", "--listen", &address], &env);
    let worker = Serving::spawn(folder.path(), &["worker"], &env);
    for process in [&api, &worker] {
        for line in ["PostgreSQL (DATABASE_URL)", "Redis (REDIS_URL)", "RabbitMQ (RABBITMQ_URL)"] {
            process.wait_for(&format!("waiting for {line}"));
        }
    }
    let target = Target::find(&format!("http://{address}"), false).await.unwrap();
    assert_eq!(missing(&target).await, ["DATABASE_URL", "RABBITMQ_URL", "REDIS_URL"]);
    trio.redis.start_again();
    eventually("Redis is found", async || missing(&target).await == ["DATABASE_URL", "RABBITMQ_URL"]).await;
    trio.postgres.start_again();
    eventually("PostgreSQL is found", async || missing(&target).await == ["RABBITMQ_URL"]).await;
    trio.rabbit.start_again();
    eventually("everything is found", async || missing(&target).await.is_empty()).await;
    api.wait_for("RabbitMQ is there");
    assert_eq!(worker.stop().0, Some(0));
    trio.redis.server.kill();
    trio.rabbit.kill();
    eventually("what went away later is named, too", async || {
        let missing = missing(&target).await.join(" ");
        missing.contains("RabbitMQ")
    })
    .await;
    assert_eq!(api.stop().0, Some(0));
}

/// What /readyz lacks: the setting of a server that is waited for, or the sentence itself.
async fn missing(target: &Target) -> Vec<String> {
    let mut wire = sluice::load::wire::Wire::open(target).await.unwrap();
    let request = target.request(Method::GET, "/readyz".parse().unwrap(), bytes::Bytes::new());
    let answer = wire.call(request).await.unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["ready"] == true, answer.status == 200, "{body}");
    let sentence = |text: &Value| {
        let text = text.as_str().unwrap();
        text.split_once('(').map_or(text, |(_, setting)| setting.trim_end_matches(')')).to_owned()
    };
    body["missing"].as_array().unwrap().iter().map(sentence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_that_waits_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let env = vec![
        ("DATABASE_URL", format!("postgres://u@127.0.0.1:{port}/d")),
        ("REDIS_URL", format!("redis://127.0.0.1:{port}")),
        ("RABBITMQ_URL", format!("amqp://127.0.0.1:{port}")),
    ];
    for args in [&["worker"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let process = Serving::spawn(folder.path(), args, &env);
        process.wait_for("waiting for RabbitMQ");
        let clock = RealClock::new();
        assert_eq!(process.stop().0, Some(0));
        assert!(clock.monotonic() < Duration::from_secs(3), "it took {:?}", clock.monotonic());
    }
}

#[test]
fn a_wrong_setting_is_named_and_nothing_is_changed() {
    let trio = Trio::start();
    let folder = tempfile::tempdir().unwrap();
    let good = trio.env();
    let refused = |args: &[&str], name: &str, value: &str, says: &str| {
        let env: Env =
            good.iter().map(|(key, url)| (*key, if *key == name { value.into() } else { url.clone() })).collect();
        let output = with(folder.path(), args, &env);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{name}={value}: {said}");
        let line = said.lines().find(|line| line.starts_with("sluice: ")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(name) && line.contains(says), "{name}={value} says {says:?}? {said}");
        assert!(!said.contains("hunter2"), "a password is shown: {said}");
    };
    let (postgres, rabbit) = (&good[0].1, &good[2].1);
    let guarded = RedisServer::start(&["--requirepass", "right"]);
    let at = |url: &str| url.split('@').next_back().unwrap().to_owned();
    for args in [&["serve", "--listen", "127.0.0.1:0"][..], &["worker"]] {
        refused(args, "DATABASE_URL", &format!("postgres://sluice:hunter2@{}", at(postgres)), "password");
        refused(args, "DATABASE_URL", &format!("{postgres}_not_there"), "database");
        refused(args, "DATABASE_URL", "mysql://u:hunter2@127.0.0.1/d", "postgres://");
        refused(args, "REDIS_URL", "http://u:hunter2@127.0.0.1:1", "redis://");
        refused(args, "REDIS_URL", &guarded.url(), "password");
        refused(args, "REDIS_URL", &guarded.url().replace("redis://", "redis://:hunter2@"), "password");
        refused(args, "RABBITMQ_URL", "http://u:hunter2@127.0.0.1:1", "amqp://");
        refused(args, "RABBITMQ_URL", &format!("amqp://guest:hunter2@{}", at(rabbit)), "password");
        refused(args, "RABBITMQ_URL", &rabbit.replace("/v0", "/not-there"), "not-there");
        refused(args, "RABBITMQ_URL", "", "RABBITMQ_URL");
    }
    assert_eq!(trio.psql("select count(*) from pg_tables where schemaname = 'public'"), "0", "a table was made");
    let migrated = with(folder.path(), &["migrate"], &good);
    assert_eq!(migrated.status.code(), Some(0), "{}", said(&migrated));
    trio.psql(
        "insert into refinery_schema_history (version, name, applied_on, checksum) values (999, 'later', '', '0')",
    );
    refused(&["worker"], "DATABASE_URL", postgres, "999");
    trio.psql("delete from refinery_schema_history");
    refused(&["worker", "--no-migrate"], "DATABASE_URL", postgres, "sluice migrate");
}
