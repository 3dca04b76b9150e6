//! A watcher of a live stream, as a browser is one.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long an event may take.
const EVENT_TIME_MAX: Duration = Duration::from_secs(20);

/// One open stream.
pub(crate) struct Watcher {
    pub(crate) status: u16,
    body: Incoming,
    read: String,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

impl Watcher {
    pub(crate) async fn open(address: &str, sale: &str, token: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("/v1/sales/{sale}/live"))
            .header("host", address)
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        // The connection ends with its sender, and goes on as long as its body is read.
        Self { status: response.status().as_u16(), body: response.into_body(), read: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((whole, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (parse(whole), rest.to_owned());
                self.read = rest;
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let frame = tokio::time::timeout(EVENT_TIME_MAX, self.body.frame()).await.expect("the stream goes on")?;
            let bytes = frame.ok()?.into_data().ok()?;
            self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next event that is like this.
    pub(crate) async fn until(&mut self, like: impl Fn(&Event) -> bool) -> Event {
        let mut passed = Vec::new();
        while let Some(event) = self.next().await {
            if like(&event) {
                return event;
            }
            passed.push(format!("{} {}", event.name, event.data));
            assert!(passed.len() < 500, "it does not come; the last one was {:?}", passed.last());
        }
        panic!("the stream ended after {:?}", passed.last());
    }
}

/// The event of these lines; `None` if they are none, such as `retry`.
fn parse(lines: &str) -> Option<Event> {
    let field = |name: &str| lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = serde_json::from_str(field("data")?).unwrap();
    Some(Event { name: field("event")?.to_owned(), id: field("id").map(|id| id.parse().unwrap()), data })
}
