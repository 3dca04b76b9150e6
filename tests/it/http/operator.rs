//! What the operator does: sales, stock, lists, exports, audits; and what the machinery around reads.

use futures_util::future::join_all;
use insta::assert_json_snapshot;
use serde_json::json;

use super::{ADMIN, Server, redacted};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_created_once_and_read_by_all() {
    let server = Server::start().await;
    let body = json!({
        "id": "launch", "name": "Console launch", "opens_at": "2020-01-01T00:00:00+02:00", "per_customer_limit": 2,
        "items": [
            {"sku": "ps5", "name": "Console", "price_cents": 49_900, "currency": "EUR", "stock": 10},
            {"sku": "pad", "stock": 0},
        ],
    });
    let created = server.admin("POST", "/v1/sales", Some(body.clone())).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/v1/sales/launch")), "{}", created.text);
    assert_json_snapshot!("sale", redacted(created.json()));
    server.admin("POST", "/v1/sales", Some(body)).await.problem(409, "sale-exists");
    let read = server.get("/v1/sales/launch").await;
    assert_eq!(redacted(read.json()), redacted(created.json()));
    let draft =
        server.admin("POST", "/v1/sales", Some(json!({"name": "d", "items": [{"sku": "x", "stock": 1}]}))).await;
    assert_eq!((draft.status, &draft.json()["state"]), (201, &json!("draft")), "{}", draft.text);
    assert!(draft.json()["id"].as_str().unwrap().starts_with("sal_"));
    let list = server.get("/v1/sales").await.json();
    let ids: Vec<_> = list["sales"].as_array().unwrap().iter().map(|sale| &sale["id"]).collect();
    assert_eq!(ids, [&draft.json()["id"], &json!("launch")], "newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_a_sale_is_named() {
    let server = Server::start().await;
    let body = json!({
        "id": "-", "name": " ", "opens_at": "tomorrow", "closes_at": "2020-01-01T00:00:00Z", "hold_seconds": -1,
        "per_customer_limit": 0, "stok": 1, "items": [
            {"sku": "a", "stock": 1_000_000_001_u64}, {"sku": "a", "stock": 1, "price_cents": -1, "currency": "euro"}, {},
        ],
    });
    let reply = server.admin("POST", "/v1/sales", Some(body)).await;
    assert_json_snapshot!("invalid_sale", reply.problem(422, "invalid-request"));
    let items: Vec<_> = (0..65).map(|number| json!({"sku": format!("s{number}"), "stock": 1})).collect();
    let reply = server.admin("POST", "/v1/sales", Some(json!({"name": "n", "items": items}))).await;
    assert_eq!(reply.problem(422, "invalid-request")["errors"][0]["pointer"], "/items");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_in_the_wrong_state_says_so() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let twice = server.admin("POST", "/v1/sales/s/open", Some(json!({}))).await;
    assert_eq!(twice.status, 200, "repeating a verb is fine: {}", twice.text);
    server.admin("POST", "/v1/sales/s/open", Some(json!({"now": true}))).await.problem(422, "invalid-request");
    assert_eq!(server.admin("POST", "/v1/sales/s/close", None).await.status, 200);
    let problem = server.admin("POST", "/v1/sales/s/resume", None).await.problem(409, "wrong-state");
    assert_eq!(problem["state"], "ended");
    server.admin("POST", "/v1/sales/no/open", None).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_adjusted_once_per_key() {
    let server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    server.settled("s", "c-1", 3).await;
    let adjust = async |key: &str, body| {
        let bearer = format!("Bearer {ADMIN}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
        server.ask("POST", "/v1/sales/s/items/ps5/adjustments", &headers, Some(body)).await
    };
    let more = || json!({"delta": 50, "reason": "a pallet turned up"});
    let added = adjust("a", more()).await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert_eq!(added.json()["stock"], 55);
    let again = adjust("a", more()).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{}", again.text);
    assert_eq!(again.json(), added.json());
    adjust("a", json!({"delta": 49, "reason": "a pallet turned up"})).await.problem(422, "idempotency-key-reused");
    adjust("a", json!({"delta": 50, "reason": "another pallet"})).await.problem(422, "idempotency-key-reused");
    let fewer = adjust("b", json!({"delta": -52, "reason": "broken"})).await;
    assert_eq!((fewer.status, &fewer.json()["stock"]), (201, &json!(3)), "{}", fewer.text);
    adjust("b", json!({"delta": -52, "reason": "stolen"})).await.problem(422, "idempotency-key-reused");
    adjust("c", json!({"delta": -1, "reason": "broken"})).await.problem(409, "stock-committed");
    adjust("d", json!({"delta": 1_000_000_000, "reason": "r"})).await.problem(422, "invalid-request");
    let problem = adjust("e", json!({"delta": 0, "reason": "", "x": 1})).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    let body = Some(json!({"delta": 1, "reason": "r"}));
    server.admin("POST", "/v1/sales/s/items/no/adjustments", body).await.problem(404, "not-found");
    let stock = server.admin("GET", "/v1/sales/s/stock", None).await.json();
    assert_json_snapshot!("stock", stock);
    assert_eq!(server.admin("POST", "/v1/sales/s/close", None).await.status, 200);
    for delta in [1, -1] {
        adjust("late", json!({"delta": delta, "reason": "r"})).await.problem(410, "sale-ended");
    }
    assert_eq!(adjust("a", more()).await.status, 200, "a retry finds what was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_page_by_page_and_exported() {
    let server = Server::start().await;
    server.open_sale("s", 2_500, json!({})).await;
    let server = &server;
    join_all((0..25).map(|number| async move {
        let customer = if number == 7 { "=cmd".to_owned() } else { format!("c-{}", number % 5) };
        let body = json!({"customer": customer, "lines": [{"sku": "ps5", "quantity": 1}]});
        let key = format!("k-{number}");
        let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=20")];
        let reply = server.ask("POST", "/v1/sales/s/orders", &headers, Some(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
    }))
    .await;
    let list = async |query: &str| server.admin("GET", &format!("/v1/sales/s/orders?{query}"), None).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let page = list(&format!("limit=10&state=held{cursor}")).await.json();
        let orders = page["orders"].as_array().unwrap();
        assert!(orders.iter().all(|order| seen.insert(order["id"].to_string())));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 25);
    let of_one = list("customer=c-3").await.json();
    assert!(of_one["orders"].as_array().unwrap().iter().all(|order| order["customer"] == "c-3"));
    assert_eq!(list("state=sold").await.json(), json!({"orders": [], "next_cursor": null}));
    for wrong in ["limit=0", "limit=1001", "limit=-1", "state=lost", "cursor=1", "colour=red", "state=held&state=sold"]
    {
        list(wrong).await.problem(422, "invalid-request");
    }
    let problem = list("state=accepted").await.problem(422, "invalid-request");
    assert!(problem["detail"].as_str().unwrap().contains("/stock"), "{problem}");
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("accept", "application/json, text/csv;q=0.1")];
    assert_eq!(server.ask("GET", "/v1/sales/s/orders", &headers, None).await.json()["next_cursor"], json!(null));
    let headers = [("authorization", bearer.as_str()), ("accept", "text/csv")];
    let csv = server.ask("GET", "/v1/sales/s/orders?limit=3", &headers, None).await;
    assert_eq!((csv.status, csv.text.lines().count()), (200, 26), "{}", csv.text);
    assert!(csv.header("content-type").unwrap().starts_with("text/csv"));
    assert!(csv.text.starts_with("id,sale,customer,sku,quantity,state"));
    assert!(csv.text.contains(",'=cmd,"), "{}", csv.text);
    server.admin("GET", "/v1/sales/no/orders", None).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_exact_when_nothing_is_on_its_way() {
    let server = Server::start().await;
    server.open_sale("s", 3, json!({})).await;
    server.settled("s", "c-1", 2).await;
    let audit = server.admin("GET", "/v1/sales/s/audit", None).await;
    assert_eq!(audit.status, 200, "{}", audit.text);
    assert_json_snapshot!("audit", audit.json());
    server.admin("GET", "/v1/sales/no/audit", None).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_read_page_by_page() {
    let server = Server::start().await;
    server.open_sale("s", 3, json!({})).await;
    let order = server.settled("s", "c-1", 2).await;
    let body = Some(json!({"delta": 5, "reason": "a pallet turned up"}));
    assert_eq!(server.admin("POST", "/v1/sales/s/items/ps5/adjustments", body).await.status, 201);
    let page = async |query: &str| server.admin("GET", &format!("/v1/sales/s/journal?{query}"), None).await;
    let first = page("limit=2").await.json();
    assert_eq!(first["next_after"], 2, "{first:#}");
    let [add, hold] = [0, 1].map(|index| &first["moves"][index]);
    assert_eq!((&add["seq"], &add["kind"], &add["claim"]), (&json!(1), &json!("add"), &json!(null)));
    assert_eq!((&hold["seq"], &hold["kind"], &hold["claim"]), (&json!(2), &json!("hold"), &order["id"]));
    assert_eq!(hold["lines"], json!([{"sku": "ps5", "quantity": 2}]));
    assert_eq!((&hold["customer"], &hold["at"]), (&json!("c-1"), &order["settled_at"]));
    let last = page("after=2").await.json();
    assert_eq!((last["moves"].as_array().unwrap().len(), &last["next_after"]), (1, &json!(null)), "{last:#}");
    assert!(last["moves"][0]["claim"].as_str().unwrap().starts_with("adj_"), "{last:#}");
    for wrong in ["limit=0", "limit=1001", "after=-1", "after=x", "before=1", "after=1&after=2"] {
        page(wrong).await.problem(422, "invalid-request");
    }
    server.admin("GET", "/v1/sales/no/journal", None).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machinery_around_is_told() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez").await.status, 200);
    let metrics = server.get("/metrics").await.text;
    for name in ["sluice_broken_promises_total", "sluice_stage_duration_seconds", "sluice_hold_release_lag_seconds"] {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "no {name} before the first sale in\n{metrics}");
    }
    server.open_sale("watched", 3, json!({})).await;
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("sluice_decisions_total{sale=\"watched\",outcome=\"accepted\"} 0"), "{metrics}");
    eventually("it is ready", async || server.get("/readyz").await.status == 200).await;
    assert_eq!(server.get("/readyz").await.json(), json!({"ready": true, "missing": []}));
    server.settled("watched", "c-1", 2).await;
    server.order("watched", "c-2", 2, &[]).await.problem(409, "sold-out");
    let metrics = server.get("/metrics").await.text;
    for line in [
        "sluice_decisions_total{sale=\"watched\",outcome=\"accepted\"} 1",
        "sluice_decisions_total{sale=\"watched\",outcome=\"sold_out\"} 1",
        "sluice_broken_promises_total{sale=\"watched\"} 0",
        "sluice_units{sale=\"watched\",sku=\"ps5\",layer=\"ledger\",state=\"held\"} 2",
        "sluice_units{sale=\"watched\",sku=\"ps5\",layer=\"gate\",state=\"available\"} 1",
        "sluice_oversold_units 0",
        "sluice_conservation_error_units 0",
        "sluice_dead_letters 0",
        "sluice_queue_depth ",
        "sluice_queue_oldest_seconds ",
        "http_server_request_duration_seconds_bucket{method=\"POST\",route=\"/v1/sales/{sale}/orders\",status=\"409\"",
        "http_server_request_duration_seconds_bucket{method=\"POST\",route=\"/v1/sales\",status=\"201\"",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    assert!(!metrics.contains("c-1") && !metrics.contains("ord_"), "a label tells too much");
}
