//! Clients that hang up, and a server that stops.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{ADMIN, Server, pause};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_changes_nothing() {
    let server = Server::start().await;
    server.open_sale("s", 200, json!({})).await;
    for number in 0..200_u64 {
        let body = format!(r#"{{"customer":"c-{number}","lines":[{{"sku":"ps5","quantity":1}}]}}"#);
        let request = format!(
            "POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: k-1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        pause(Duration::from_micros(number * 20)).await;
        drop(stream);
    }
    eventually("what was admitted is settled", async || {
        let stock = server.admin("GET", "/v1/sales/s/stock", None).await.json();
        stock["in_flight"] == 0 && stock["conserved"] == true
    })
    .await;
    for number in 0..200 {
        let retry = server.order("s", &format!("c-{number}"), 1, &[("prefer", "wait=20")]).await;
        assert!([200, 201].contains(&retry.status), "{}", retry.text);
    }
    let audit = server.admin("GET", "/v1/sales/s/audit", None).await.json();
    assert_eq!((&audit["verdict"], &audit["orders"]), (&json!("exact"), &json!({"held": 200})), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_finishes_what_it_began_and_tells_whoever_comes_to_come_again() {
    let mut server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let id = server.settled("s", "c-1", 1).await["id"].as_str().unwrap().to_owned();
    // Whoever writes to the ledger waits for this.
    let ledger = rusqlite::Connection::open(server.data().join("ledger.db")).unwrap();
    ledger.busy_timeout(Duration::from_secs(5)).unwrap();
    ledger.execute_batch("begin immediate").unwrap();
    let mut shop = server.client().await;
    let begun = tokio::spawn(async move {
        let bearer = format!("Bearer {ADMIN}");
        shop.ask("POST", &format!("/v1/orders/{id}/confirm"), &[("authorization", &bearer)], "").await
    });
    pause(Duration::from_millis(200)).await;
    drop(server.stop.take());
    eventually("it is not ready", async || server.get("/readyz").await.status == 503).await;
    let missing = server.get("/readyz").await.json()["missing"].clone();
    assert!(missing.as_array().unwrap().contains(&json!("the server is stopping")), "{missing}");
    for reply in [server.order("s", "c-2", 1, &[]).await, server.get("/v1/sales/s").await] {
        assert_eq!(reply.problem(503, "unavailable")["effect"], "none");
        assert_eq!((reply.header("retry-after"), reply.header("connection")), (Some("1"), Some("close")));
    }
    assert!(!begun.is_finished(), "nothing was in flight");
    ledger.execute_batch("rollback").unwrap();
    let confirmed = begun.await.unwrap();
    assert_eq!((confirmed.status, &confirmed.json()["state"]), (200, &json!("sold")), "{}", confirmed.text);
    eventually("it accepts nobody", async || TcpStream::connect(server.address).await.is_err()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_waits_for_no_body() {
    let mut server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: k-1\r\ncontent-type: application/json\r\n\
                content-length: 60\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    pause(Duration::from_millis(100)).await;
    drop(server.stop.take());
    let mut answer = String::new();
    let told = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer);
    tokio::time::timeout(Duration::from_secs(2), told).await.expect("it is told at once").unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("\"effect\":\"none\""), "{answer}");
    let stopped = tokio::time::timeout(Duration::from_secs(2), &mut server.serving).await;
    assert!(stopped.is_ok(), "a client without a body keeps the server from stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_server() {
    let mut server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    server.settled("s", "c-1", 1).await;
    let mut idle = server.client().await;
    assert_eq!(idle.ask("GET", "/livez", &[], "").await.status, 200);
    drop(server.stop.take());
    eventually("idle connections are closed", async || idle.sender.is_closed()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_takes_no_new_order() {
    let mut server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let (mut reader, mut writer) = TcpStream::connect(server.address).await.unwrap().into_split();
    let body = r#"{"customer":"c-1","lines":[{"sku":"ps5","quantity":1}]}"#;
    writer.write_all(b"POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: k-1\r\n").await.unwrap();
    pause(Duration::from_millis(100)).await;
    drop(server.stop.take());
    eventually("it is not ready", async || server.get("/readyz").await.status == 503).await;
    let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    writer.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("\"effect\":\"none\""), "{answer}");
    server.stop().await;
}
