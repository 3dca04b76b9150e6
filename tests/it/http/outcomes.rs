//! One test per row of the outcome table, and one per way an order can go.

use std::sync::atomic::{AtomicU32, Ordering};

use insta::assert_json_snapshot;
use serde_json::json;

use super::{ADMIN, Reply, SHOP, Server, redacted};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_order_is_202_and_can_be_read() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let reply = server.order("s", "c-1", 2, &[]).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    let order = reply.json();
    assert_eq!(reply.header("location"), Some(format!("/v1/orders/{}", order["id"].as_str().unwrap()).as_str()));
    assert_eq!(reply.header("sluice-seq"), None);
    assert_json_snapshot!("accepted", redacted(order));
    let location = reply.header("location").unwrap();
    let read = server.ask("GET", location, &[("prefer", "wait=20")], None).await;
    assert_eq!((read.status, read.header("preference-applied")), (200, Some("wait=20")));
    assert!(read.header("sluice-seq").unwrap().parse::<u64>().unwrap() > 0);
    assert_json_snapshot!("held", redacted(read.json()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_patience_it_is_201_when_settled() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let held = server.order("s", "c-1", 1, &[("prefer", "respond-async, wait=90")]).await;
    assert_eq!((held.status, held.header("preference-applied")), (201, Some("wait=30")), "{}", held.text);
    assert_eq!(held.json()["state"], "held");
    assert!(held.header("location").is_some() && held.header("sluice-seq").is_some());
    server.open_sale("at-once", 5, json!({"hold_seconds": 0})).await;
    assert_eq!(server.settled("at-once", "c-1", 1).await["state"], "sold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_same_order() {
    let server = Server::start().await;
    server.open_sale("s", 2, json!({})).await;
    let first = server.settled("s", "c-1", 2).await;
    for _ in 0..2 {
        let again = server.order("s", "c-1", 2, &[]).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{}", again.text);
        assert_eq!(again.json(), first);
        assert!(again.header("sluice-seq").is_some());
    }
    let other = server.order("s", "c-2", 2, &[]).await;
    other.problem(409, "sold-out");
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_says_whether_units_may_return() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let order = server.settled("s", "c-1", 1).await;
    let refused = server.order("s", "c-2", 1, &[]).await;
    let problem = refused.problem(409, "sold-out");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_json_snapshot!("sold_out", problem);
    let confirm = format!("/v1/orders/{}/confirm", order["id"].as_str().unwrap());
    assert_eq!(server.admin("POST", &confirm, None).await.status, 200);
    eventually("nothing is held any more", async || {
        let refused = server.order("s", "c-3", 1, &[]).await;
        let problem = refused.problem(409, "sold-out");
        problem["may_return"] == false && refused.header("retry-after").is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_has_a_limit() {
    let server = Server::start().await;
    server.open_sale("s", 9, json!({"per_customer_limit": 2})).await;
    server.settled("s", "c-1", 1).await;
    let refused = server.order("s", "c-1", 2, &[("idempotency-key", "x")]).await;
    assert_eq!(refused.status, 400, "two keys are as bad as none");
    let body = json!({"customer": "c-1", "lines": [{"sku": "ps5", "quantity": 2}]});
    let refused = server.ask("POST", "/v1/sales/s/orders", &[("idempotency-key", "k-2")], Some(body)).await;
    let problem = refused.problem(409, "customer-limit");
    assert_json_snapshot!("customer_limit", problem);
    let problem = server.order("s", "c-2", 3, &[]).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"][0]["pointer"], "/lines/0/quantity");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_sells_within_its_window_only() {
    let server = Server::start().await;
    server.open_sale("later", 1, json!({"opens_at": "2099-01-01T00:00:00Z"})).await;
    let problem = server.order("later", "c-1", 1, &[]).await.problem(409, "sale-not-open");
    assert_eq!(problem["opens_at"], "2099-01-01T00:00:00.000Z");
    server.open_sale("draft", 1, json!({"opens_at": null})).await;
    let problem = server.order("draft", "c-1", 1, &[]).await.problem(409, "sale-not-open");
    assert_eq!(problem["opens_at"], json!(null));
    server.open_sale("s", 1, json!({})).await;
    assert_eq!(server.admin("POST", "/v1/sales/s/pause", None).await.json()["state"], "paused");
    server.order("s", "c-1", 1, &[]).await.problem(409, "sale-paused");
    assert_eq!(server.admin("POST", "/v1/sales/s/resume", None).await.json()["state"], "open");
    assert_eq!(server.order("s", "c-1", 1, &[]).await.status, 202);
    assert_eq!(server.admin("POST", "/v1/sales/s/close", None).await.json()["state"], "ended");
    server.order("s", "c-2", 1, &[]).await.problem(410, "sale-ended");
    assert_eq!(server.order("s", "c-1", 1, &[]).await.status, 200, "a retry finds its order after the end too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_confirmed_once_and_for_all() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let id = server.order("s", "c-1", 1, &[]).await.json()["id"].as_str().unwrap().to_owned();
    let confirm = format!("/v1/orders/{id}/confirm");
    let shop = format!("Bearer {SHOP}");
    for _ in 0..2 {
        let sold = server.ask("POST", &confirm, &[("authorization", &shop)], None).await;
        assert_eq!((sold.status, &sold.json()["state"]), (200, &json!("sold")), "{}", sold.text);
    }
    let problem = server.ask("POST", &format!("/v1/orders/{id}/cancel"), &[], None).await.problem(409, "wrong-state");
    assert_eq!(problem["state"], "sold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_cancelled_by_whoever_shows_its_id() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let id = server.settled("s", "c-1", 1).await["id"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let cancelled = server.ask("POST", &format!("/v1/orders/{id}/cancel"), &[], Some(json!({}))).await;
        assert_eq!(cancelled.status, 200, "{}", cancelled.text);
        assert_json_snapshot!("cancelled", redacted(cancelled.json()));
    }
    server.admin("POST", &format!("/v1/orders/{id}/confirm"), None).await.problem(409, "wrong-state");
    assert_eq!(server.settled("s", "c-2", 1).await["state"], "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_hold_is_gone() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({"hold_seconds": 1})).await;
    let id = server.settled("s", "c-1", 1).await["id"].as_str().unwrap().to_owned();
    eventually("it lapsed", async || server.get(&format!("/v1/orders/{id}")).await.json()["reason"] == "lapsed").await;
    server.admin("POST", &format!("/v1/orders/{id}/confirm"), None).await.problem(410, "hold-lapsed");
    let cancelled = server.ask("POST", &format!("/v1/orders/{id}/cancel"), &[], None).await;
    assert_eq!((cancelled.status, &cancelled.json()["reason"]), (200, &json!("lapsed")));
    assert_eq!(server.settled("s", "c-2", 1).await["state"], "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_wish() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let body = || Some(json!({"customer": "c-1", "lines": [{"sku": "ps5", "quantity": 1}]}));
    let path = "/v1/sales/s/orders";
    server.ask("POST", path, &[], body()).await.problem(400, "idempotency-key-missing");
    let long = "k".repeat(129);
    for bad in ["", &long, "tab\there", "é"] {
        server.ask("POST", path, &[("idempotency-key", bad)], body()).await.problem(400, "idempotency-key-missing");
    }
    assert_eq!(server.order("s", "c-1", 1, &[]).await.status, 202);
    server.order("s", "c-1", 2, &[]).await.problem(422, "idempotency-key-reused");
    eventually("it is settled", async || server.order("s", "c-1", 1, &[]).await.json()["state"] == "held").await;
    server.order("s", "c-1", 2, &[]).await.problem(422, "idempotency-key-reused");
    assert_eq!(server.order("s", "c-2", 2, &[]).await.status, 202, "another customer's key is another key");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_an_order_is_named() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let body = json!({
        "customer": "", "price": 1, "lines": [
            {"sku": "ps5", "quantity": 0}, {"sku": "ps5", "quantity": 10_001, "a/b~c": 1}, {"sku": "gone", "quantity": 1.5},
            {"quantity": "1"}, 7,
        ],
    });
    let reply = server.ask("POST", "/v1/sales/s/orders", &[("idempotency-key", "k")], Some(body)).await;
    assert_json_snapshot!("invalid_order", reply.problem(422, "invalid-request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_order_is_refused() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let mut client = server.client().await;
    let path = "/v1/sales/s/orders";
    let headers = [("content-type", "application/json; charset=utf-8"), ("idempotency-key", "k")];
    for not_json in ["{", "\"", "nul", "{} {}", "1e999999"] {
        client.ask("POST", path, &headers, not_json.to_owned()).await.problem(400, "invalid-request");
    }
    let twice = r#"{"customer":"a","customer":"b","lines":[{"sku":"ps5","quantity":1}]}"#;
    for (body, why) in [("[".repeat(60_000), "stand in each other"), (twice.to_owned(), "member \"customer\" twice")] {
        let problem = client.ask("POST", path, &headers, body).await.problem(422, "invalid-request");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(why), "{problem}");
    }
    let steering =
        client.ask("POST", "/v1/orders/ord_00000000000000000000000000000000/cancel", &headers, r#"{"why":1}"#);
    let problem = steering.await.problem(422, "invalid-request");
    assert_eq!(problem["errors"], json!([{"pointer": "/why", "detail": "is unknown: nothing may be given here"}]));
    let bytes = client.ask("POST", path, &headers, b"{\"customer\":\"\xff\"}".to_vec()).await;
    bytes.problem(400, "invalid-request");
    for not_an_order in ["", "{}", "[]", "null", "1", "\"x\"", "{\"lines\":[],\"customer\":\"c\"}"] {
        client.ask("POST", path, &headers, not_an_order).await.problem(422, "invalid-request");
    }
    let typed = [("content-type", "text/plain"), ("idempotency-key", "k")];
    client.ask("POST", path, &typed, "{}").await.problem(415, "unsupported-media-type");
    client.ask("POST", path, &typed[1..], "{}").await.problem(415, "unsupported-media-type");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let unknown = format!("/v1/orders/ord_{}", "0".repeat(32));
    for path in ["/v1/orders/1", &unknown, "/v1/sales/no", "/v1/sales/%FF", "/v1/sales/a%2Fb", "/v1", "/nothing"] {
        server.get(path).await.problem(404, "not-found");
    }
    let malformed = server.get("/v1/orders/1").await.text;
    assert_eq!(malformed, server.get(&unknown).await.text, "malformed and unknown ids are the same");
    server.order("no", "c-1", 1, &[]).await.problem(404, "not-found");
    server.order("%FF", "c-1", 1, &[]).await.problem(404, "not-found");
    server.ask("POST", &format!("{unknown}/cancel"), &[], None).await.problem(404, "not-found");
    for (method, path, allow) in [
        ("DELETE", "/v1/sales/s", "GET,HEAD"),
        ("PUT", "/v1/sales/s/orders", "GET,HEAD,POST"),
        ("BREW", "/v1/sales", "GET,HEAD,POST"),
    ] {
        let reply = server.ask(method, path, &[], None).await;
        reply.problem(405, "method-not-allowed");
        let mut allowed: Vec<&str> = reply.header("allow").unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow);
    }
    server.ask("OPTIONS", "/nothing", &[], None).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_needed_and_has_its_rights() {
    let server = Server::start().await;
    let none = server.get("/v1/sales/s/stock").await;
    none.problem(401, "unauthorized");
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let wrong = server.ask("GET", "/v1/sales/s/stock", &[("authorization", "Bearer x")], None).await;
    wrong.problem(401, "unauthorized");
    let shop = format!("Bearer {SHOP}");
    let refused = server.ask("GET", "/v1/sales/s/stock", &[("authorization", &shop)], None).await;
    refused.problem(403, "forbidden");
    let admin = format!("Bearer {ADMIN}");
    let foreign = [("authorization", admin.as_str()), ("origin", "http://evil.example")];
    server.ask("POST", "/v1/sales/s/open", &foreign, None).await.problem(403, "forbidden");
    server.ask("GET", "/v1/sales/s/stock", &foreign, None).await.problem(404, "not-found");
    let own = format!("http://{}", server.address);
    let own = [("authorization", admin.as_str()), ("origin", own.as_str())];
    server.ask("POST", "/v1/sales/s/open", &own, None).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_is_slowed_down() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut last = None;
    for _ in 0..1_100 {
        let guess = client.ask("GET", "/v1/sales/s/stock", &[("authorization", "Bearer x")], "").await;
        let done = guess.status == 429;
        last = Some(guess);
        if done {
            break;
        }
    }
    let last = last.unwrap();
    last.problem(429, "rate-limited");
    assert!(last.header("retry-after").is_some());
    assert_eq!(server.admin("GET", "/v1/sales/s/stock", None).await.status, 404, "a good token passes all the same");
}

/// Whether this is the 503 that leaves nothing behind.
fn is_not_now(reply: &Reply) -> bool {
    if reply.status != 503 {
        return false;
    }
    assert_eq!(reply.problem(503, "unavailable")["effect"], "none");
    assert_eq!(reply.header("retry-after"), Some("1"));
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_queue_is_down_the_answer_is_503() {
    let server = Server::start().await;
    server.open_sale("s", 1_000, json!({})).await;
    let number = AtomicU32::new(0);
    eventually("an order meets a queue that is down", async || {
        // The server finds out by itself, within a tick, that this is not so.
        server.shop().queue_down.store(true, Ordering::Relaxed);
        let customer = format!("c-{}", number.fetch_add(1, Ordering::Relaxed));
        is_not_now(&server.order("s", &customer, 1, &[]).await)
    })
    .await;
    eventually("it is back", async || server.order("s", "c-x", 1, &[]).await.status < 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_gate_is_not_loaded_the_answer_is_503() {
    let server = Server::start().await;
    let number = AtomicU32::new(0);
    let id = |number: u32| format!("s-{number}");
    eventually("an order comes before the gate is loaded", async || {
        let id = id(number.fetch_add(1, Ordering::Relaxed));
        let sale = crate::support::sale(&id);
        server.shop().ledger.create(&sale, &[crate::support::units(3)]).await.unwrap();
        is_not_now(&server.order(&id, "c-1", 1, &[]).await)
    })
    .await;
    let id = id(number.into_inner() - 1);
    eventually("it is loaded", async || server.order(&id, "c-1", 1, &[]).await.status < 300).await;
}
