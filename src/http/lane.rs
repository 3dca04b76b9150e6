//! The crowd's lane: an order that has arrived whole is read and answered right here, many times a connection. The refusing
//! path is what a flash sale is made of, and this is the part of HTTP that it needs; measured in docs/BENCHMARKS.md.
//!
//! What counts as an order is narrow on purpose. With the first request that is anything else, or that anybody could read
//! in another way (no length, two lengths, transfer codings, expectations), the connection goes to hyper with all that was
//! read so far, and stays there.

use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;

use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use httparse::{EMPTY_HEADER, Header, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval_at;

use super::orders::{Asked, Caller};
use super::problems::Problem;
use super::request::{Key, Patience, is_json};
use super::server::Closing;
use super::stall::StallGuard;
use super::{Api, Site, crowd};
use crate::model::Time;

/// Room for what a client sends at once. An order takes a few hundred bytes.
const READ_BYTES: usize = 4 * 1024;
/// Answers to pipelined orders are sent after so many bytes at the latest.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Headers that an order may have here; hyper takes more.
const HEADERS_MAX: usize = 32;

/// A problem that was written down before anybody had it.
pub(super) struct Ready {
    problem: Problem,
    body: Bytes,
    status: StatusCode,
    /// The response's head, but for the date.
    head: Vec<u8>,
}

/// What an order is answered.
pub(super) enum Answer {
    /// As it is sent.
    Ready(Arc<Ready>),
    /// Made for this order alone.
    Made(Response),
}

impl Ready {
    /// Writes it down.
    pub(super) fn of(problem: &Problem) -> Arc<Self> {
        let (problem, body, mut head) = (problem.clone(), problem.body(), Vec::new());
        let response = problem.respond(body.clone());
        write_head(&mut head, response.status(), response.headers(), body.len());
        Arc::new(Self { problem, body, status: response.status(), head })
    }

    fn response(&self) -> Response {
        self.problem.respond(self.body.clone())
    }
}

impl Answer {
    /// For whoever needs more than bytes.
    pub(super) fn response(self) -> Response {
        match self {
            Answer::Ready(ready) => ready.response(),
            Answer::Made(response) => response,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Answer::Ready(ready) => ready.status,
            Answer::Made(response) => response.status(),
        }
    }
}

/// Answers the orders of a connection until it ends, or until it has to go to hyper: then it comes back with what was read.
pub(super) async fn run(
    mut stream: StallGuard<TcpStream>,
    site: &Site,
    api: &Arc<Api>,
    closing: &mut Closing,
) -> io::Result<Option<StallGuard<TcpStream>>> {
    let silence_max = site.limits.head_time_max;
    let mut silence = interval_at(tokio::time::Instant::now() + silence_max, silence_max);
    let mut heard = site.clock.monotonic();
    let mut closing = pin!(closing.wait());
    let (mut read, mut written, mut date) = (BytesMut::new(), Vec::new(), Date::default());
    loop {
        while let Some(order) = Order::read(&read, site.limits.body_bytes_max) {
            let answer = site.order(api, order.sale, &order.asked).await;
            let (length, is_last) = (order.length, order.is_last);
            read.advance(length);
            let is_last = write(&mut written, answer, is_last, date.at(site.clock.now())).await?;
            if is_last {
                stream.write_all(&written).await?;
                return stream.shutdown().await.map(|()| None);
            }
            if written.len() >= WRITE_BYTES_MAX {
                break;
            }
        }
        let full = written.len() >= WRITE_BYTES_MAX;
        if !written.is_empty() {
            stream.write_all(&written).await?;
            written.clear();
        }
        if full {
            continue;
        }
        if !read.is_empty() {
            stream.put_back(read.freeze());
            return Ok(Some(stream));
        }
        read.reserve(READ_BYTES);
        loop {
            tokio::select! {
                biased;
                count = stream.read_buf(&mut read) => match count? {
                    0 => return Ok(None),
                    _ => break,
                },
                () = &mut closing => return Ok(None),
                _ = silence.tick() => {
                    let silent = site.clock.monotonic().saturating_sub(heard);
                    if silent >= silence_max {
                        return Ok(None);
                    }
                    silence.reset_after(silence_max - silent);
                }
            }
        }
        heard = site.clock.monotonic();
    }
}

/// An order as it stands in what was read.
struct Order<'a> {
    sale: &'a str,
    asked: Asked<'a>,
    /// Bytes of the whole request.
    length: usize,
    /// Whether its client takes no answer after it.
    is_last: bool,
}

impl<'a> Order<'a> {
    /// The order at the front; `None` if it is anything else, or not there as a whole.
    fn read(bytes: &'a [u8], body_bytes_max: usize) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(Status::Complete(head)) = request.parse(bytes) else { return None };
        let sale = crowd(request.method?, request.path?).filter(|_| request.version == Some(1))?;
        let Fields { key, body_bytes, is_last } = Fields::read(request.headers)?;
        let length = head + Some(body_bytes).filter(|bytes| *bytes <= body_bytes_max)?;
        let body = bytes.get(head..length)?;
        let asked = Asked { caller: Caller::Stays, key, patience: Patience(None), body };
        Some(Self { sale, asked, length, is_last })
    }
}

/// What the headers of an order say.
struct Fields<'a> {
    key: &'a str,
    body_bytes: usize,
    is_last: bool,
}

impl<'a> Fields<'a> {
    /// `None` if anything is missing, said twice, or for hyper to judge.
    fn read(headers: &[Header<'a>]) -> Option<Self> {
        let (mut host, mut length, mut content, mut key, mut connection) = (None, None, None, None, None);
        for Header { name, value } in headers {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let place = if is("host") {
                &mut host
            } else if is("content-length") {
                &mut length
            } else if is("content-type") {
                &mut content
            } else if is("idempotency-key") {
                &mut key
            } else if is("connection") {
                &mut connection
            } else if ["expect", "prefer", "transfer-encoding", "upgrade"].into_iter().any(is) {
                return None;
            } else {
                continue;
            };
            if place.replace(*value).is_some() {
                return None;
            }
        }
        let (_host, digits) = (host?, length?);
        if !is_json(content?) || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let is_last = match connection.unwrap_or(b"keep-alive") {
            close if close.eq_ignore_ascii_case(b"close") => true,
            keep_alive if keep_alive.eq_ignore_ascii_case(b"keep-alive") => false,
            _ => return None,
        };
        Some(Self { key: Key::read(key?)?, body_bytes: std::str::from_utf8(digits).ok()?.parse().ok()?, is_last })
    }
}

/// Writes an answer down, as the connection's last if it has to be or says so itself; true if it is.
async fn write(to: &mut Vec<u8>, answer: Answer, is_last: bool, date: &str) -> io::Result<bool> {
    let (body, says_so) = match answer {
        Answer::Ready(ready) => {
            to.extend_from_slice(&ready.head);
            (ready.body.clone(), false)
        }
        Answer::Made(response) => {
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            write_head(to, parts.status, &parts.headers, body.len());
            (body, parts.headers.get(CONNECTION) == Some(&HeaderValue::from_static("close")))
        }
    };
    if is_last && !says_so {
        to.extend_from_slice(b"connection: close\r\n");
    }
    to.extend_from_slice(b"date: ");
    to.extend_from_slice(date.as_bytes());
    to.extend_from_slice(b"\r\n\r\n");
    to.extend_from_slice(&body);
    Ok(is_last || says_so)
}

/// Everything before the date.
fn write_head(to: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, body_bytes: usize) {
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        to.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers.iter().filter(|(name, _)| *name != CONTENT_LENGTH) {
        to.extend_from_slice(name.as_str().as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
    write!(to, "content-length: {body_bytes}\r\n").expect("memory takes it");
}

/// The header `Date`, made anew every second.
#[derive(Default)]
struct Date {
    second: Option<i64>,
    text: String,
}

impl Date {
    fn at(&mut self, now: Time) -> &str {
        let second = now.millis().div_euclid(1_000);
        if self.second != Some(second) {
            let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
            let moment = jiff::Timestamp::from_second(second).unwrap_or_default();
            self.text = printer.timestamp_to_rfc9110_string(&moment).unwrap_or_default();
            self.second = Some(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "POST /v1/sales/s/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                        Content-Length: 2\r\nIdempotency-Key: k 1\r\nAccept: */*\r\n\r\n{}";

    fn read(text: &str) -> Option<(String, String, Vec<u8>, usize, bool)> {
        let Order { sale, asked, length, is_last } = Order::read(text.as_bytes(), 10)?;
        Some((sale.into(), asked.key.into(), asked.body.into(), length, is_last))
    }

    #[test]
    fn an_order_is_read_and_what_follows_is_left() {
        let order = |text: &str, is_last| Some(("s".into(), "k 1".into(), b"{}".to_vec(), text.len(), is_last));
        assert_eq!(read(GOOD), order(GOOD, false));
        assert_eq!(read(&format!("{GOOD}POST /v1")), order(GOOD, false));
        let kept = GOOD.replace("Accept: */*", "connection: Keep-Alive");
        assert_eq!(read(&kept), order(&kept, false));
        let last = GOOD.replace("Accept: */*", "connection: Close");
        assert_eq!(read(&last), order(&last, true));
    }

    #[test]
    fn whatever_is_not_plainly_an_order_is_left_to_hyper() {
        for (from, to) in [
            ("POST", "GET"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("/s/orders", "/s/orders?a=b"),
            ("/s/orders", "/s%2e/orders"),
            ("/s/orders", "/s/t/orders"),
            ("/v1", "http://a/v1"),
            ("Host: a\r\n", ""),
            ("Host: a", "Host: a\r\nHost: b"),
            ("Content-Length: 2\r\n", ""),
            ("Content-Length: 2", "Content-Length: 2\r\nContent-Length: 2"),
            ("Content-Length: 2", "Content-Length: +2"),
            ("Content-Length: 2", "Content-Length: 2, 2"),
            ("Content-Length: 2", "Content-Length: 3"),
            ("Content-Length: 2", "Content-Length: 99999999999999999999"),
            ("application/json", "text/plain"),
            ("Accept: */*", "Transfer-Encoding: chunked"),
            ("Accept: */*", "Expect: 100-continue"),
            ("Accept: */*", "Connection: close, te"),
            ("Accept: */*", "Connection: close\r\nConnection: close"),
            ("Accept: */*", "Connection: upgrade"),
            ("Accept: */*", "Prefer: wait=1"),
            ("Accept: */*", "Idempotency-Key: other"),
            ("Idempotency-Key: k 1", "Idempotency-Key: "),
            ("Idempotency-Key: k 1", "Idempotency-Key: \u{e9}"),
            ("Accept: */*", "Accept : */*"),
            ("{}", "{"),
        ] {
            assert_eq!(read(&GOOD.replacen(from, to, 1)), None, "{from:?} -> {to:?}");
        }
        assert_eq!(
            read(&GOOD.replace("Content-Length: 2", "Content-Length: 11").replace("{}", "{\"a\":\"bcd\"}")),
            None
        );
    }

    #[test]
    fn the_date_is_that_of_the_rfc() {
        let mut date = Date::default();
        assert_eq!(date.at(Time::from_millis(784_111_777_999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(Time::from_millis(784_111_778_000)), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
