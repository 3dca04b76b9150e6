//! Accepts connections and serves them within limits. A connection that is silent, drips, or does not take its answer is
//! closed; HTTP/1.1 only.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::stall::StallGuard;
use super::{Site, lane, metrics};
use crate::model::limits;

/// After a failed accept, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How long a connection beyond the limit may take its answer.
const TURN_AWAY_MAX: Duration = Duration::from_secs(1);
/// Sent to a connection beyond the limit.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What one server lets its clients do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open at the same time.
    pub connections_max: usize,
    /// From the moment a client owes us a request to the end of its head.
    pub head_time_max: Duration,
    /// From the end of the head to the end of the body.
    pub body_time_max: Duration,
    /// How long a client may take no byte of an answer that waits for it.
    pub write_stall_max: Duration,
    /// Request line and headers.
    pub head_bytes_max: usize,
    /// Headers.
    pub headers_max: usize,
    /// Body.
    pub body_bytes_max: usize,
    /// From the shutdown to the end of the last request.
    pub shutdown_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            head_time_max: limits::HEAD_TIME_MAX,
            body_time_max: limits::BODY_TIME_MAX,
            write_stall_max: limits::WRITE_STALL_MAX,
            head_bytes_max: limits::HEAD_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
            body_bytes_max: limits::BODY_BYTES_MAX,
            shutdown_time_max: limits::SHUTDOWN_TIME_MAX,
        }
    }
}

/// Serves until `shutdown` resolves, then takes no more connections and no more orders, and lets what is in flight
/// finish, within its limit.
pub async fn serve(listener: TcpListener, site: Site, shutdown: impl Future<Output = ()>) {
    let site = Arc::new(site);
    let (close, closing) = watch::channel(false);
    {
        let accepting = pin!(accept(listener, site.clone(), Closing(closing)));
        let upkeep = pin!(metrics::upkeep(&*site.clock));
        let shutdown = pin!(shutdown);
        select(shutdown, select(accepting, upkeep)).await;
    }
    if let Some(api) = &site.api {
        api.drain();
    }
    close.send_replace(true);
    // Every connection has a receiver.
    let finished = pin!(close.closed());
    let late = site.clock.sleep(site.limits.shutdown_time_max);
    if let Either::Right(_) = select(finished, late).await {
        tracing::warn!("some requests did not finish in time");
    }
}

/// A connection's ear for the end of the server.
#[derive(Clone)]
pub(super) struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Comes back when the connection has to end after what it is at.
    pub(super) async fn wait(&mut self) {
        // Without a sender the server is gone, and the connection has to end as well.
        let _told = self.0.wait_for(|closing| *closing).await;
    }
}

async fn accept(listener: TcpListener, site: Arc<Site>, closing: Closing) {
    let builder = Arc::new(builder(&site.limits));
    let free = Arc::new(Semaphore::new(site.limits.connections_max));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                site.clock.sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
        }
        match free.clone().try_acquire_owned() {
            Ok(permit) => {
                let (site, builder, closing) = (site.clone(), builder.clone(), closing.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &builder, site, closing).await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    drop(permit);
                });
            }
            Err(_) => drop(tokio::spawn(turn_away(stream))),
        }
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max);
    builder
}

/// The crowd's lane first, and hyper for whatever does not fit into it.
async fn connection(
    stream: TcpStream,
    builder: &http1::Builder,
    site: Arc<Site>,
    mut closing: Closing,
) -> anyhow::Result<()> {
    let mut stream = StallGuard::new(stream, site.limits.write_stall_max);
    if let Some(api) = &site.crowd {
        match lane::run(stream, &site, api, &mut closing).await? {
            Some(back) => stream = back,
            None => return Ok(()),
        }
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request.map(Body::new)).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        served = connection.as_mut() => return Ok(served?),
        () = closing.wait() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Everyone gets an answer, even one too many. What the client sends meanwhile is read, or else it would lose the answer.
async fn turn_away(mut stream: TcpStream) {
    let answer = async {
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let told = tokio::time::timeout(TURN_AWAY_MAX, answer).await;
    tracing::debug!(?told, "turned a connection away");
}
