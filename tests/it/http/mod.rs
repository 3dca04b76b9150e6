//! The HTTP API as its clients meet it: a real server on a free port over a real data folder.

mod description;
mod fuzz;
mod limits;
mod live;
mod operator;
mod outcomes;
mod stopping;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::http::{Api, Limits, RunBy, Site, Tokens, serve};
use sluice::shop::Shop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Running, start};

const ADMIN: &str = "admin-token-of-the-tests";
const SHOP: &str = "shop-token-of-the-tests";

/// A server and the folder it serves.
struct Server {
    address: SocketAddr,
    running: Running,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
    data: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let running = start(data.path()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tokens = Tokens::new([ADMIN].into_iter(), [SHOP].into_iter());
        let run_by = RunBy { gate: "this process", queue: "SQLite", ledger: "SQLite" };
        let api = Api::new(running.deployment.shop.clone(), run_by, tokens, limits, true);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, Site::whole(api), async move { drop(stopped.await) }));
        Self { address, running, stop: Some(stop), serving, data }
    }

    fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    fn shop(&self) -> &Arc<Shop> {
        &self.running.deployment.shop
    }

    /// A sale of some `ps5` that sells from now on.
    async fn open_sale(&self, id: &str, stock: u32, more: Value) {
        let mut body = json!({
            "id": id, "name": id, "opens_at": "2020-01-01T00:00:00Z", "items": [{"sku": "ps5", "stock": stock}],
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let created = self.admin("POST", "/v1/sales", Some(body)).await;
        assert_eq!(created.status, 201, "{}", created.text);
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], None).await
    }

    async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let bearer = format!("Bearer {ADMIN}");
        self.ask(method, path, &[("authorization", &bearer), ("idempotency-key", "k")], body).await
    }

    /// An order of so many `ps5`.
    async fn order(&self, sale: &str, customer: &str, quantity: u32, headers: &[(&str, &str)]) -> Reply {
        let body = json!({ "customer": customer, "lines": [{ "sku": "ps5", "quantity": quantity }] });
        let headers = [&[("idempotency-key", "k-1")], headers].concat();
        self.ask("POST", &format!("/v1/sales/{sale}/orders"), &headers, Some(body)).await
    }

    /// An order that is settled when this returns.
    async fn settled(&self, sale: &str, customer: &str, quantity: u32) -> Value {
        let reply = self.order(sale, customer, quantity, &[("prefer", "wait=20")]).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Reply {
        let mut client = self.client().await;
        let json = [("content-type", "application/json")];
        let headers = if body.is_some() { [&json, headers].concat() } else { headers.to_vec() };
        client.ask(method, path, &headers, body.map(|body| body.to_string()).unwrap_or_default()).await
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender, host: self.address.to_string() }
    }

    /// Sends bytes as they are and reads until the server closes, or this time is over.
    async fn raw(&self, bytes: &[u8], time_max: Duration) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut answer = Vec::new();
        // A server that has seen enough may close before it has read everything.
        let _early = stream.write_all(bytes).await;
        let _late = tokio::time::timeout(time_max, stream.read_to_end(&mut answer)).await;
        answer
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let stopped = tokio::time::timeout(Duration::from_secs(30), &mut self.serving).await;
        assert!(stopped.is_ok(), "the server does not stop");
        self.running.kill().await;
    }
}

/// Lets some time pass.
async fn pause(time: Duration) {
    RealClock::new().sleep(time).await;
}

/// One connection.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.into()).unwrap();
        Reply { status: parts.status.as_u16(), headers: parts.headers, text }
    }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that it is this problem, and hands it over.
    #[track_caller]
    fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{}", self.text);
        assert_eq!(problem["status"], status, "{}", self.text);
        for member in ["title", "detail", "effect"] {
            assert!(problem[member].is_string(), "no {member}: {}", self.text);
        }
        problem
    }
}

/// The same JSON, with what differs from run to run replaced.
fn redacted(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) if text.starts_with("ord_") => *text = "[order]".into(),
        Value::String(text) if text.parse::<sluice::model::Time>().is_ok() && !text.starts_with("2020") => {
            *text = "[time]".into();
        }
        Value::Array(list) => list.iter_mut().for_each(|value| *value = redacted(value.take())),
        Value::Object(map) => map.values_mut().for_each(|value| *value = redacted(value.take())),
        _ => {}
    }
    value
}
