//! One HTTP connection to a Sluice, driven by the task that uses it: a request costs no hand-over between tasks.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::model::Seq;

/// An answer longer than this makes no sense.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a question to the operator's side of the API may take.
const ASK_TIME_MAX: Duration = Duration::from_secs(30);

/// A server, as its URL names it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The URL without a path.
    pub url: String,
    /// The value of `Host`.
    host: HeaderValue,
    /// All that the name leads to; the first that answers counts.
    addresses: Arc<[SocketAddr]>,
}

impl Target {
    /// Looks up the server of a URL like `http://127.0.0.1:8080`. A crowd is an attack on whoever did not ask for it,
    /// so a server on another machine has to be `owned`.
    pub async fn find(url: &str, owned: bool) -> anyhow::Result<Self> {
        let example = "give one like http://127.0.0.1:8080";
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL: {example}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            None => bail!("`{url}` is no whole URL: put http:// in front, as in http://127.0.0.1:8080"),
            Some(_) => bail!(
                "`{url}` is not plain http://, which is all that is spoken here. Behind TLS, name the server's own address"
            ),
        }
        let authority = uri.authority().with_context(|| format!("`{url}` names no server: {example}"))?;
        let host = authority.host().trim_matches(['[', ']']);
        let found = tokio::net::lookup_host((host, authority.port_u16().unwrap_or(80))).await;
        let addresses: Vec<SocketAddr> = found.with_context(|| format!("cannot find the server `{host}`"))?.collect();
        if !owned && !addresses.iter().all(|address| address.ip().is_loopback()) {
            bail!(
                "`{url}` is on another machine, and a crowd is an attack on a server that did not ask for it: \
                 add --i-own-this-server if it is yours"
            );
        }
        let (url, host) = (format!("http://{authority}"), HeaderValue::from_str(authority.as_str())?);
        Ok(Self { url, host, addresses: addresses.into() })
    }

    /// A request to this server, with the header that every request needs.
    pub fn request(&self, method: Method, path: Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path;
        request.headers_mut().insert(HOST, self.host.clone());
        request
    }

    /// Asks the operator's side of the API, on a connection of its own.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<T> {
        let answer = self.fetch(method.clone(), path, token, body).await?;
        serde_json::from_slice(&answer.body).with_context(|| format!("the answer to {method} {path} makes no sense"))
    }

    /// Like [`Target::ask`], with the answer as it came; one that is no yes is an error.
    pub async fn fetch(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<Answer> {
        let url = &self.url;
        let asked = tokio::time::timeout(ASK_TIME_MAX, self.answer(method.clone(), path, token, None, body)).await;
        let Ok(answer) = asked else {
            bail!("{url} took longer than {} s to answer {method} {path}", ASK_TIME_MAX.as_secs())
        };
        let answer = answer?;
        if !answer.status.is_success() {
            let said = match serde_json::from_slice(&answer.body) {
                Ok(problem) => problem_in_words(&problem),
                Err(_) => format!("{url} is no Sluice"),
            };
            let hint = match answer.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    ". Set SLUICE_ADMIN_TOKEN or --admin-token to a token of this server"
                }
                _ => "",
            };
            bail!("{method} {path}: {}: {}{hint}", answer.status, said.trim_end_matches('.'));
        }
        Ok(answer)
    }

    /// Whatever this server answers, on a connection of its own; `key` is the idempotency key.
    pub async fn answer(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        key: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<Answer> {
        let text = body.map(serde_json::Value::to_string).unwrap_or_default();
        let mut request = self.request(method, path.parse().context("this cannot be sent")?, text.into());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        if let Some(key) = key {
            headers.insert("idempotency-key", HeaderValue::from_str(key).context("the key has strange characters")?);
        }
        let answered = async { Wire::open(self).await?.call(request).await }.await;
        answered.with_context(|| format!("no answer from {}: is `sluice serve` running there?", self.url))
    }
}

/// What a problem says.
pub fn problem_in_words(problem: &serde_json::Value) -> String {
    let text = |name: &str| problem[name].as_str().unwrap_or("?");
    format!("{}: {}", text("title"), text("detail"))
}

/// The header value of a token.
pub fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).context("the token has strange characters")?;
    value.set_sensitive(true);
    Ok(value)
}

/// A connection that is kept alive from request to request.
pub struct Wire {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Gone once it has ended: only then does whoever waits for an answer learn that none comes.
    connection: Option<Pin<Box<Connection>>>,
}

type Connection = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The journal's number of the order's latest move, from `Sluice-Seq`; 0 if it tells none.
    pub seq: Seq,
    /// How long to wait before asking again, from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    fn new(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.parse().ok();
        let retry_after = number(RETRY_AFTER.as_str()).map(Duration::from_secs);
        Self { status, seq: Seq(number("sluice-seq").unwrap_or(0)), retry_after, body }
    }
}

impl Wire {
    /// Connects.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&*target.addresses).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Some(Box::pin(connection)) })
    }

    /// Sends a request and reads the whole answer. Dropping the future hangs up.
    pub async fn call(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let sender = &mut self.sender;
        let mut answer = pin!(async move {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            Ok(Answer::new(head.status, &head.headers, body))
        });
        let connection = &mut self.connection;
        poll_fn(|context| {
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            if connection.as_mut().is_some_and(|open| open.as_mut().poll(context).is_ready()) {
                *connection = None;
            }
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Whether the other side has closed it, as far as is known.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Whether a request certainly never left, because the connection had been closed before.
pub fn never_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(|error| error.is_canceled() || error.is_closed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_is_none_is_refused_with_what_to_write() {
        for (url, way_out) in [
            ("localhost:18974", "put http:// in front"),
            ("127.0.0.1", "put http:// in front"),
            ("https://127.0.0.1", "plain http://"),
            ("http://", "give one like http://"),
        ] {
            let refused = Target::find(url, true).await.expect_err("it is refused").to_string();
            assert!(refused.contains(way_out), "{url}: {refused}");
        }
    }
}
