//! What one client may do to a server: not much.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sluice::http::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ADMIN, Server, pause};

const LATE: Duration = Duration::from_secs(20);

fn impatient() -> Limits {
    let short = Duration::from_millis(400);
    Limits { head_time_max: short, body_time_max: short, write_stall_max: short, ..Limits::default() }
}

/// Opens a connection, lets `drip` do something every 50 ms, and waits until the server closes it.
async fn closed(server: &Server, first: &[u8], drip: &[u8]) -> String {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(first).await.unwrap();
    let drip = drip.to_owned();
    let dripping = tokio::spawn(async move {
        while !drip.is_empty() && writer.write_all(&drip).await.is_ok() {
            pause(Duration::from_millis(50)).await;
        }
        // Dropping the writer would end the connection from this side.
        std::future::pending::<()>().await;
        drop(writer);
    });
    let mut answer = Vec::new();
    let end = tokio::time::timeout(LATE, reader.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "the connection is still open");
    dripping.abort();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_dripping_connections_are_closed() {
    let server = Server::with(impatient()).await;
    let head = b"POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\ncontent-length: 100\r\n";
    let body = [head.as_slice(), b"\r\n"].concat();
    server.open_sale("s", 1, json!({})).await;
    let silent = join_all((0..150).map(|_| closed(&server, b"", b"")));
    let dripping_heads = join_all((0..150).map(|_| closed(&server, head, b"x-drip: 1\r\n")));
    let dripping_bodies = join_all((0..150).map(|_| closed(&server, &body, b"x")));
    let healthy = async {
        for _ in 0..60 {
            assert_eq!(server.get("/livez").await.status, 200);
            pause(Duration::from_millis(10)).await;
        }
    };
    let (_, _, bodies, ()) = tokio::join!(silent, dripping_heads, dripping_bodies, healthy);
    for answer in bodies {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("/problems/request-timeout"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_answer() {
    let server = Server::with(impatient()).await;
    let answer = closed(&server, b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n", b"").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answer_is_closed() {
    let server = Server::with(impatient()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: h\r\n\r\n";
    let flooding = async { while stream.write_all(request).await.is_ok() {} };
    let closed = tokio::time::timeout(LATE, flooding).await;
    assert_eq!(closed, Ok(()), "the connection is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_have_64_kib() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let path = "/v1/sales/s/orders";
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let blank = |length: usize| " ".repeat(length);
    let fits = server.client().await.ask("POST", path, &headers, blank(64 * 1024)).await;
    fits.problem(422, "invalid-request");
    let announced = server.client().await.ask("POST", path, &headers, blank(64 * 1024 + 1)).await;
    announced.problem(413, "body-too-large");
    let head =
        "POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("10001\r\n{}\r\n0\r\n\r\n", blank(0x10001));
    let chunked = server.raw(format!("{head}{chunk}").as_bytes(), Duration::from_secs(3)).await;
    assert!(chunked.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&chunked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_its_limits() {
    let server = Server::start().await;
    let many: String = (0..100).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    for headers in [many, long] {
        let request = format!("GET /livez HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        let answer = server.raw(request.as_bytes(), Duration::from_secs(3)).await;
        assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }
    let http2 = server.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Duration::from_secs(3)).await;
    assert!(!http2.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&http2));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told() {
    let server = Server::with(Limits { connections_max: 2, ..Limits::default() }).await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask("GET", "/livez", &[], "").await.status, 200);
    }
    let ask = async || {
        let answer = server.raw(b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", LATE).await;
        String::from_utf8(answer).unwrap()
    };
    let third = ask().await;
    assert!(third.starts_with("HTTP/1.1 503") && third.contains("retry-after: 1"), "{third}");
    let (head, body) = third.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json") && head.contains("connection: close"), "{third}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{third}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["type"], &problem["effect"]), (&json!("/problems/overloaded"), &json!("none")), "{third}");
    drop(first);
    crate::support::eventually("there is room again", async || ask().await.starts_with("HTTP/1.1 200")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_once_for_which_host_it_is() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let body = r#"{"customer":"c-1","lines":[{"sku":"ps5","quantity":1}]}"#;
    let order = |version: &str, hosts: &str| {
        let length = body.len();
        let text = format!(
            "POST /v1/sales/s/orders {version}\r\n{hosts}idempotency-key: k\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let server = &server;
        async move { String::from_utf8(server.raw(text.as_bytes(), LATE).await).unwrap() }
    };
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nHost: a\r\n"] {
        let answer = order("HTTP/1.1", hosts).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("/problems/invalid-request"),
            "{hosts}: {answer}"
        );
        assert!(answer.contains("\"effect\":\"none\""), "{answer}");
    }
    let old = order("HTTP/1.0", "").await;
    assert!(old.starts_with("HTTP/1.0 202"), "{old}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_last_order_is_the_connection_s_last() {
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let order = |key: &str, connection: &str| {
        let body = format!(r#"{{"customer":"{key}","lines":[{{"sku":"ps5","quantity":1}}]}}"#);
        let length = body.len();
        format!(
            "POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nidempotency-key: {key}\r\nconnection: {connection}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let answers = async |orders: [String; 3]| {
        let answers = String::from_utf8(server.raw(orders.concat().as_bytes(), LATE).await).unwrap();
        assert_eq!(answers.matches("connection: close\r\n").count(), 1, "{answers}");
        assert!(answers.rfind("HTTP/1.1") < answers.find("connection: close"), "{answers}");
        answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect::<Vec<_>>()
    };
    let [first, second] = ["a", "b"].map(|key| order(key, "keep-alive"));
    assert_eq!(answers([first.clone(), order("b", "close"), first.clone()]).await, ["202", "409"]);
    assert_eq!(answers([second.clone(), order("a", "close"), second]).await, ["409", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_shows_nothing_of_the_inside() {
    let server = Server::start().await;
    let bearer = format!("Bearer {ADMIN}");
    for path in ["/v1/sales/s/stock", "/v1/sales/'; drop table sales; --/stock", "/v1/orders/../../etc/passwd"] {
        let reply = server.ask("GET", &path.replace(' ', "%20"), &[("authorization", &bearer)], None).await;
        let text = reply.problem(404, "not-found").to_string().to_lowercase();
        for inside in ["sqlite", "select", "panicked", ".rs", "passwd", "drop"] {
            assert!(!text.contains(inside), "{text}");
        }
    }
}
