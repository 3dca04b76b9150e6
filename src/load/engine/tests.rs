//! The engine against a server that fails in the ways that servers fail.

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::RealClock;
use crate::load::crowd::Habits;

/// What the server does about the request that comes under a key for the n-th time, from 0.
type Script = fn(usize) -> Deed;

enum Deed {
    Accept,
    /// 503, to be asked again at once.
    NotNow,
    /// Closes the connection without an answer.
    Close,
}

/// A server that follows a script.
struct Server {
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
                    let mut seen = seen.lock().unwrap();
                    let times = seen.entry(key.clone()).or_default();
                    *times += 1;
                    std::future::ready(answer(script(*times - 1), &key))
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, task }
    }

    async fn target(&self) -> Target {
        Target::find(&self.url, false).await.unwrap()
    }
}

/// An error makes hyper close the connection.
fn answer(deed: Deed, key: &str) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let number: u32 = key.rsplit('-').next().unwrap().parse().unwrap();
    let (status, body) = match deed {
        Deed::Accept => (StatusCode::ACCEPTED, format!(r#"{{"id":"ord_{number:032x}"}}"#)),
        Deed::NotNow => (StatusCode::SERVICE_UNAVAILABLE, r#"{"type":"/problems/unavailable","effect":"none"}"#.into()),
        Deed::Close => return Err(std::io::Error::other("closed on purpose")),
    };
    let response = Response::builder().status(status).header("retry-after", 0).header("sluice-seq", 7);
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

fn crowd(orders: u32) -> Arc<Crowd> {
    let habits = Habits { orders, customers: orders, rate_per_s: 10_000.0, ..Habits::plain(1) };
    Arc::new(Crowd::gather(&habits, &[Sku::new("ps5").unwrap()], None))
}

/// An engine for so many orders, and its counts.
fn engine(targets: Vec<Target>, orders: u32, insist: Duration) -> (Engine, Arc<Tally>) {
    let (sale, skus) = (SaleId::new("drop").unwrap(), vec![Sku::new("ps5").unwrap()]);
    let patience = Patience { insist, ..Patience::default() };
    let aim = Aim { targets, sale, skus, token: None, patience };
    let engine = Engine::new(crowd(orders), aim, Arc::new(RealClock::new())).unwrap();
    let tally = engine.tally();
    (engine, tally)
}

fn outcomes(records: &[Record], request: u32) -> Vec<Outcome> {
    records.iter().filter(|record| record.request == request).map(|record| record.outcome).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn who_insists_is_answered_in_the_end_and_every_sending_is_recorded() {
    let server = Server::start(|times| [Deed::NotNow, Deed::Close, Deed::Accept].into_iter().nth(times).unwrap()).await;
    let (engine, tally) = engine(vec![server.target().await], 40, LONG);
    let (_, records) = engine.run(4, std::future::pending()).await;
    for request in 0..40 {
        assert_eq!(outcomes(&records, request), [Outcome::Unavailable, Outcome::Error, Outcome::Accepted]);
    }
    assert_eq!((records.len(), tally.done(), tally.dropped()), (120, 40, 0));
    let last = records.last().unwrap();
    assert_eq!(
        (last.status, last.seq.0, last.order),
        (202, 7, Some("ord_00000000000000000000000000000027".parse().unwrap()))
    );
    assert!(records.iter().all(|record| record.sent_us <= record.answered_us));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_insist_asks_once() {
    let server = Server::start(|times| if times == 0 { Deed::NotNow } else { Deed::Accept }).await;
    let (engine, tally) = engine(vec![server.target().await], 40, Duration::ZERO);
    let (_, records) = engine.run(4, std::future::pending()).await;
    assert!(records.len() == 40 && records.iter().all(|record| record.outcome == Outcome::Unavailable));
    assert_eq!(tally.done(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_insists_for_ever() {
    let server = Server::start(|times| if times % 2 == 0 { Deed::NotNow } else { Deed::Close }).await;
    let (engine, tally) = engine(vec![server.target().await], 10, Duration::from_millis(300));
    let (_, records) = engine.run(4, std::future::pending()).await;
    assert!(records.len() > 20, "{} sendings", records.len());
    for request in 0..10 {
        let of_one: Vec<&Record> = records.iter().filter(|record| record.request == request).collect();
        assert!(of_one.iter().all(|record| record.sent_us < of_one[0].sent_us + 5_000_000), "{of_one:?}");
    }
    assert_eq!(tally.done(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_server_that_is_down_go_to_another() {
    let server = Server::start(|_| Deed::Accept).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = Target::find(&format!("http://{}", nobody.local_addr().unwrap()), false).await.unwrap();
    drop(nobody);
    let (engine, tally) = engine(vec![down, server.target().await], 200, Duration::ZERO);
    let (_, records) = engine.run(8, std::future::pending()).await;
    assert!(records.len() == 200 && records.iter().all(|record| record.outcome == Outcome::Accepted));
    assert_eq!((tally.done(), tally.dropped()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_stopped_while_everybody_waits() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = Target::find(&format!("http://{}", nobody.local_addr().unwrap()), false).await.unwrap();
    drop(nobody);
    let (engine, _) = engine(vec![down], 10, LONG);
    let (_, records) = engine.run(4, std::future::ready(())).await;
    assert_eq!(records, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_nobody_is_over_at_once() {
    let server = Server::start(|_| Deed::Accept).await;
    let (engine, _) = engine(vec![server.target().await], 0, LONG);
    assert_eq!(engine.run(4, std::future::pending()).await.1, []);
}
