//! The control: a server on the same stack that reads a POST and always answers the same bytes. It is what HTTP alone costs
//! here: hyper on tokio's runtime, one task that accepts, one task per connection, nothing else.

use std::fs;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use sluice::load::wire::Target;
use tokio::net::TcpListener;

use crate::scene::Control;

/// An answer to an order, as Sluice gave it; the control repeats it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Within the folder of the process.
const ANSWER: &str = "answer.json";

impl Answer {
    /// What this server answers to an order in this sale.
    pub(crate) async fn of(target: &Target, sale: &str, customer: &str) -> anyhow::Result<Self> {
        let body = serde_json::json!({"customer": customer, "lines": [{"sku": "ps5", "quantity": 1}]}).to_string();
        let path = format!("/v1/sales/{sale}/orders").parse()?;
        let mut request = target.request(hyper::Method::POST, path, body.into());
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        request.headers_mut().insert("idempotency-key", HeaderValue::from_str(customer)?);
        let address = target.url.trim_start_matches("http://").to_owned();
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let (response, _ended) = tokio::join!(
            async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                drop(sender);
                anyhow::Ok((head, body))
            },
            connection
        );
        let (head, body) = response?;
        // hyper sets these itself.
        let own = ["date", "content-length", "connection"];
        let headers = head.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        let headers = headers.map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())));
        Ok(Self {
            status: head.status.as_u16(),
            headers: headers.collect::<anyhow::Result<_>>()?,
            body: String::from_utf8(body.to_vec())?,
        })
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }
}

/// A running control that gives this answer.
pub(crate) fn start(answer: &Answer) -> anyhow::Result<Control> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(ANSWER), serde_json::to_string(answer)?)?;
    Control::start("the control", folder, "fixed")
}

/// Serves until it is killed.
pub(crate) async fn serve(folder: &Path, port: u16) -> anyhow::Result<()> {
    let answer: Answer = serde_json::from_str(&fs::read_to_string(folder.join(ANSWER))?)?;
    let status = StatusCode::from_u16(answer.status)?;
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| Ok((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?)));
    let headers: Vec<(HeaderName, HeaderValue)> = headers.collect::<anyhow::Result<_>>()?;
    let body = Bytes::from(answer.body);
    let answer = std::sync::Arc::new(move || {
        let mut response = Response::new(Full::new(body.clone()));
        *response.status_mut() = status;
        for (name, value) in &headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the port is taken")?;
    Control::ready(folder)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move {
                request.into_body().collect().await?;
                Ok::<_, hyper::Error>(answer())
            }
        });
        tokio::spawn(async move {
            // A client that hangs up is no concern of the control.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
