//! Whatever a client sends, the answer is its own fault, never the server's.

use serde_json::json;

use super::{ADMIN, Client, Server};
use crate::support::eventually;

/// A small generator of chance that repeats from its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

const METHODS: &[&str] = &["GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"];
const PATHS: &[&str] = &[
    "/v1/sales",
    "/v1/sales/s",
    "/v1/sales/s/orders",
    "/v1/sales/s/orders?limit=99999999999999999999&cursor=c0000000000000000&x=%FF&state",
    "/v1/sales/s/orders?customer=%00%FF&limit=1",
    "/v1/sales/s/open",
    "/v1/sales/s/pause",
    "/v1/sales/s/resume",
    "/v1/sales/s/items/ps5/adjustments",
    "/v1/sales/s/items/%00/adjustments",
    "/v1/sales/s/stock",
    "/v1/sales/s/audit",
    "/v1/sales/%FF%FE/orders",
    "/v1/orders/ord_00000000000000000000000000000000",
    "/v1/orders/ord_00000000000000000000000000000000/confirm",
    "/v1/orders/%F0%9F%92%A9/cancel",
    "/problems/%2e%2e",
    "/docs/../../x",
    "/metrics",
    "/readyz",
];
const SCRAPS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"customer\"",
    "\"c\"",
    "\"lines\"",
    "\"sku\"",
    "\"ps5\"",
    "\"quantity\"",
    "1",
    "0",
    "-1",
    "1.5",
    "1e400",
    "99999999999999999999999",
    "18446744073709551616",
    "-9223372036854775809",
    "null",
    "true",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\u{7f}",
    "é",
    "\"name\"",
    "\"items\"",
    "\"stock\"",
    "\"opens_at\"",
    "\"+999999-12-31T23:59:59Z\"",
    "\"hold_seconds\"",
    "4294967296",
    "\"delta\"",
    "\"reason\"",
    "\"r\"",
    "\"id\"",
    "\"..\"",
    "\"closes_at\"",
    " ",
    "\n",
];
const WHOLES: &[&str] = &[
    r#"{"customer":"c","lines":[{"sku":"ps5","quantity":1}]}"#,
    r#"{"customer":"c","lines":[{"sku":"ps5","quantity":4294967295}]}"#,
    r#"{"name":"n","items":[{"sku":"x","stock":1000000000,"price_cents":1000000000000}],"hold_seconds":2592000}"#,
    r#"{"name":"n","opens_at":"9999-12-30T22:00:00Z","items":[{"sku":"x","stock":1}]}"#,
    r#"{"name":"n","opens_at":"-009999-01-02T01:59:59Z","closes_at":"9999-12-30T22:00:00Z","items":[{"sku":"x","stock":1}]}"#,
    r#"{"delta":1000000000,"reason":"r"}"#,
    r#"{"delta":-9223372036854775808,"reason":"r"}"#,
    r#"{"delta":-1,"reason":"r"}"#,
    "{}",
    "",
];

fn body(chance: &mut Chance) -> Vec<u8> {
    let mut body = match chance.below(3) {
        0 => (0..chance.below(40)).map(|_| *chance.pick(SCRAPS)).collect::<String>().into_bytes(),
        _ => chance.pick(WHOLES).as_bytes().to_vec(),
    };
    for _ in 0..chance.below(3) {
        let at = chance.below(body.len() + 1);
        match chance.below(3) {
            0 => body.insert(at, u8::try_from(chance.below(256)).unwrap()),
            1 => body.truncate(at),
            _ => body.extend(b"[".repeat(chance.below(300))),
        }
    }
    body
}

async fn throw(client: &mut Client, chance: &mut Chance) {
    let (method, path, body) = (*chance.pick(METHODS), *chance.pick(PATHS), body(chance));
    let admin = format!("Bearer {ADMIN}");
    let long = "k".repeat(128);
    let key = format!("k-{}", chance.below(20));
    let headers = [
        ("idempotency-key", *chance.pick(&["k", &key, &long, "", "é", "\t"])),
        ("authorization", *chance.pick(&[admin.as_str(), &admin, "Bearer", "Basic eDp5", "é"])),
        ("content-type", *chance.pick(&["application/json", "application/json", "text/plain", "é", ""])),
        ("prefer", *chance.pick(&["wait=0", "wait=99999999999999999999999", "wait=-1", "wait", "é"])),
        ("accept", *chance.pick(&["*/*", "text/csv", "é"])),
        ("origin", *chance.pick(&["null", "http://127.0.0.1", "é"])),
    ];
    let headers: Vec<_> = headers.into_iter().filter(|_| chance.below(5) > 0).collect();
    let shown = String::from_utf8_lossy(&body).into_owned();
    let reply = client.ask(method, path, &headers, body).await;
    let stands = reply.status < 500 || (reply.status == 503 && reply.text.contains("unavailable"));
    assert!(stands, "{} to {method} {path} {headers:?} {shown}: {}", reply.status, reply.text);
    if reply.status >= 400 && method != "HEAD" {
        assert!(reply.text.starts_with('{'), "{} to {method} {path} {headers:?} {shown}: {}", reply.status, reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_sent_is_the_servers_fault() {
    let server = Server::start().await;
    server.open_sale("s", 1_000_000, json!({})).await;
    let seed = 0x5eed_0000_0000_0001;
    println!("seed {seed:#x}");
    let mut chance = Chance(seed);
    let mut client = server.client().await;
    for _ in 0..2_500 {
        if client.sender.ready().await.is_err() {
            client = server.client().await;
        }
        throw(&mut client, &mut chance).await;
    }
    let garbage: [&[u8]; 6] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: h\r\n\r\n",
        b"POST /v1/sales/s/orders HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/sales/s/orders HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /v1/sales/s/orders HTTP/1.1\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ];
    for bytes in garbage {
        let answer = server.raw(bytes, std::time::Duration::from_millis(500)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&answer));
    }
    eventually("the audit is exact", async || {
        server.admin("GET", "/v1/sales/s/audit", None).await.json()["verdict"] == "exact"
    })
    .await;
}
