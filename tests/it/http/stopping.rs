//! Clients that hang up, and a server that stops.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Server, pause};
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
async fn a_stopping_server_finishes_what_it_began() {
    let mut server = Server::start().await;
    server.open_sale("s", 5, json!({})).await;
    let address = server.address;
    let path = "/v1/orders/ord_00000000000000000000000000000000";
    server.get(path).await.problem(404, "not-found");
    let held = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = held.into_split();
    let body = r#"{"customer":"c-1","lines":[{"sku":"ps5","quantity":1}]}"#;
    let head = format!(
        "POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: k-1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes()).await.unwrap();
    pause(Duration::from_millis(100)).await;
    drop(server.stop.take());
    eventually("it accepts nobody", async || TcpStream::connect(address).await.is_err()).await;
    writer.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    server.stop().await;
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
    eventually("it accepts nobody", async || TcpStream::connect(server.address).await.is_err()).await;
    let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    writer.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("\"effect\":\"none\""), "{answer}");
    server.stop().await;
}
