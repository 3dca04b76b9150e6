//! Accepts connections and serves them within limits. A connection that is silent, drips, or does not take its answer is
//! closed; HTTP/1.1 only.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Version;
use axum::http::header::HOST;
use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::problems::Problem;
use super::stall::StallGuard;
use super::{Site, lane, metrics};
use crate::model::limits;

/// After a failed accept, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How long a connection beyond the limit may take its answer.
const TURN_AWAY_MAX: Duration = Duration::from_secs(1);
/// How long the answers to those who came to a stopping server may hold up its end.
const LATE_TIME_MAX: Duration = Duration::from_millis(100);
/// What a stopping server still says of itself to whoever comes.
const SAID_TO_THE_END: [&str; 3] = ["/livez", "/readyz", "/metrics"];

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

/// Serves until `shutdown` resolves, then takes no more orders and lets what is in flight finish, within its limit. Whoever
/// comes meanwhile is told to come again.
pub async fn serve(listener: TcpListener, site: Site, shutdown: impl Future<Output = ()>) {
    let site = Arc::new(site);
    let door = Door { listener, free: Arc::new(Semaphore::new(site.limits.connections_max)), site: site.clone() };
    let (close, closing) = watch::channel(false);
    {
        let accepting = pin!(door.accept(Guest::InTime(Closing(closing))));
        let upkeep = pin!(metrics::upkeep(&*site.clock));
        let shutdown = pin!(shutdown);
        select(shutdown, select(accepting, upkeep)).await;
    }
    if let Some(api) = &site.api {
        api.drain();
    }
    close.send_replace(true);
    let (later, late) = watch::channel(());
    {
        // Every connection has a receiver.
        let finished = pin!(close.closed());
        let time_max = site.clock.sleep(site.limits.shutdown_time_max);
        let accepting = pin!(door.accept(Guest::Late(late)));
        if let Either::Right((Either::Left(_), _)) = select(finished, select(time_max, accepting)).await {
            tracing::warn!("some requests did not finish in time");
        }
    }
    drop(door);
    select(pin!(later.closed()), site.clock.sleep(LATE_TIME_MAX)).await;
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

/// Who comes to a server.
#[derive(Clone)]
enum Guest {
    /// While it serves.
    InTime(Closing),
    /// While it stops, which waits a little for whoever has a receiver.
    Late(watch::Receiver<()>),
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    free: Arc<Semaphore>,
    site: Arc<Site>,
}

impl Door {
    async fn accept(&self, guest: Guest) {
        let (site, builder) = (&self.site, Arc::new(builder(&self.site.limits)));
        let too_many: Arc<[u8]> = too_many().into();
        loop {
            let stream = match self.listener.accept().await {
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
            let Ok(permit) = self.free.clone().try_acquire_owned() else {
                tokio::spawn(turn_away(stream, too_many.clone()));
                continue;
            };
            let (site, builder, guest) = (site.clone(), builder.clone(), guest.clone());
            tokio::spawn(async move {
                let served = match guest {
                    Guest::InTime(closing) => connection(stream, &builder, site, closing).await,
                    Guest::Late(_late) => late_connection(stream, &builder, site).await,
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(permit);
            });
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
        async move { Ok::<_, Infallible>(answer(&site, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        served = connection.as_mut() => return Ok(served?),
        () = closing.wait() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// One answer for whoever comes to a stopping server.
async fn late_connection(stream: TcpStream, builder: &http1::Builder, site: Arc<Site>) -> anyhow::Result<()> {
    let stream = StallGuard::new(stream, site.limits.write_stall_max);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let site = site.clone();
        async move {
            Ok::<_, Infallible>(match request.uri().path() {
                path if SAID_TO_THE_END.contains(&path) => answer(&site, request).await,
                _ => Problem::stopping().into_response(),
            })
        }
    });
    Ok(builder.clone().keep_alive(false).serve_connection(TokioIo::new(stream), service).await?)
}

/// RFC 9112, 3.2: what does not say once for which host it is, is not understood the same by everybody on its way.
async fn answer(site: &Site, request: hyper::Request<Incoming>) -> Response {
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
        return Problem::no_host().into_response();
    }
    site.answer(request.map(Body::new)).await
}

/// What a connection beyond the limit is told.
fn too_many() -> Vec<u8> {
    let problem = Problem::too_many_connections();
    let body = problem.body();
    let response = problem.respond(body.clone());
    let mut answer = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", response.status(), body.len()).into_bytes();
    for (name, value) in response.headers() {
        answer.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    [answer.as_slice(), b"\r\n", &body].concat()
}

/// Everyone gets an answer, even one too many. What the client sends meanwhile is read, or else it would lose the answer.
async fn turn_away(mut stream: TcpStream, too_many: Arc<[u8]>) {
    let answer = async {
        stream.write_all(&too_many).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let told = tokio::time::timeout(TURN_AWAY_MAX, answer).await;
    tracing::debug!(?told, "turned a connection away");
}
