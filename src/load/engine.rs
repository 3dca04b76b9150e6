//! The engine: sends a crowd's requests when they are due, whether or not earlier ones were answered.
//!
//! One thread keeps the time and lets requests go as they fall due; one task per connection takes the next one that
//! was let go. When all connections are busy a request waits, and its latency counts from when it was due.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use tokio::sync::Semaphore;

use super::answer::{self, Reading};
use super::crowd::{Crowd, Kind, Request};
use super::record::{Outcome, Record};
use super::wire::{self, Answer, Target, Wire};
use crate::clock::Clock;
use crate::model::{Effect, OrderId, SaleId, Sku};

/// A request that left later than this after it was due counts as late.
pub const LATE_MS: u64 = 10;
/// A request that could not leave within this time is dropped: its customer has gone.
pub const DROPPED_AFTER_MS: u64 = 5_000;
/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// The time-keeper sleeps at least this long, so that it leaves the processor to the others.
const PACE_MIN: Duration = Duration::from_micros(100);
/// The first pause before a broken connection is opened again; it doubles from try to try.
const RECONNECT_MIN: Duration = Duration::from_millis(10);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the crowd does it to.
pub struct Aim {
    /// The servers; connections are spread over them.
    pub targets: Vec<Target>,
    /// The sale.
    pub sale: SaleId,
    /// Its items, in its sequence.
    pub skus: Vec<Sku>,
    /// For confirming.
    pub token: Option<String>,
}

/// Live counts, for whoever watches.
#[derive(Debug, Default)]
pub struct Tally {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    dropped: AtomicU64,
    unneeded: AtomicU64,
}

impl Tally {
    /// Requests with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// Requests dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Confirms and cancels that had no order to turn.
    pub fn unneeded(&self) -> u64 {
        self.unneeded.load(Ordering::Relaxed)
    }

    /// Requests that are over, one way or another.
    pub fn done(&self) -> u64 {
        let answered: u64 = Outcome::ALL.into_iter().map(|outcome| self.count(outcome)).sum();
        answered + self.dropped() + self.unneeded()
    }
}

/// Sends one crowd, once.
pub struct Engine {
    crowd: Arc<Crowd>,
    aim: Aim,
    path: Uri,
    bearer: Option<HeaderValue>,
    clock: Arc<dyn Clock>,
    start: Duration,
    tally: Arc<Tally>,
    due: Semaphore,
    next: AtomicUsize,
    stopped: AtomicBool,
    known: Mutex<HashMap<u32, OrderId>>,
}

impl Engine {
    /// An engine that starts when it [runs](Engine::run).
    pub fn new(crowd: Arc<Crowd>, aim: Aim, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        anyhow::ensure!(!aim.targets.is_empty(), "there is no server to send anything to");
        let path = format!("/v1/sales/{}/orders", aim.sale).parse().context("the sale's id does not fit a URL")?;
        let bearer = aim.token.as_deref().map(wire::bearer).transpose()?;
        let start = clock.monotonic();
        Ok(Self {
            crowd,
            aim,
            path,
            bearer,
            clock,
            start,
            tally: Arc::default(),
            due: Semaphore::new(0),
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            known: Mutex::default(),
        })
    }

    /// The live counts.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Sends everything, or all that is due before `stop`, over so many connections. The records come in the sequence
    /// of their requests.
    pub async fn run(mut self, connections: usize, stop: impl Future<Output = ()>) -> Vec<Record> {
        self.start = self.clock.monotonic();
        let engine = Arc::new(self);
        let (end, ended) = channel();
        let lines: Vec<_> = (0..connections).map(|number| tokio::spawn(engine.clone().line(number))).collect();
        let pace = tokio::task::spawn_blocking({
            let engine = engine.clone();
            move || engine.pace(connections, &ended)
        });
        let mut lines = std::pin::pin!(join_all(lines));
        let records = tokio::select! {
            records = &mut lines => records,
            () = stop => {
                engine.stop(&end);
                lines.await
            }
        };
        pace.await.expect("the time-keeper does not panic");
        let mut records: Vec<Record> = records.into_iter().flat_map(|line| line.expect("no line panics")).collect();
        records.sort_unstable_by_key(|record| record.request);
        records
    }

    fn stop(&self, end: &Sender<()>) {
        self.stopped.store(true, Ordering::Relaxed);
        let _over_already = end.send(());
    }

    /// Lets requests go as they fall due. It runs on a thread of its own, because the runtime's timers are whole
    /// milliseconds.
    fn pace(&self, connections: usize, end: &Receiver<()>) {
        let requests = &self.crowd.requests;
        let mut gone = 0;
        while gone < requests.len() {
            let now_us = self.now_us();
            let more = requests[gone..].partition_point(|request| request.due_us <= now_us);
            self.due.add_permits(more);
            gone += more;
            let Some(next) = requests.get(gone) else { break };
            let wait = Duration::from_micros(next.due_us.saturating_sub(now_us)).max(PACE_MIN);
            if end.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        // Every line takes one more, finds nothing, and ends.
        self.due.add_permits(connections);
    }

    /// The number of the next request that is due; `None` once all are gone.
    async fn next(&self) -> Option<usize> {
        self.due.acquire().await.expect("nobody closes it").forget();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.crowd.requests.len() && !self.stopped.load(Ordering::Relaxed)).then_some(number)
    }

    fn now_us(&self) -> u64 {
        let since = self.clock.monotonic().saturating_sub(self.start);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// One connection's life.
    async fn line(self: Arc<Self>, number: usize) -> Vec<Record> {
        let target = self.aim.targets[number % self.aim.targets.len()].clone();
        let mut line = Line { engine: &self, target, wire: None, records: Vec::new() };
        while let Some(number) = self.next().await {
            line.go(number).await;
        }
        line.records
    }

    /// The order that a wish came to, as far as is known.
    fn order(&self, wish: u32) -> Option<OrderId> {
        self.known.lock().expect("no holder panics").get(&wish).copied()
    }

    /// The HTTP request; `None` if there is nothing to turn.
    fn prepare(&self, target: &Target, request: Request) -> Option<hyper::Request<Full<bytes::Bytes>>> {
        let verb = match request.kind {
            Kind::Confirm => "confirm",
            Kind::Cancel => "cancel",
            Kind::First | Kind::Duplicate | Kind::HangUp(_) | Kind::Retry => {
                let mut made = target.request(Method::POST, self.path.clone(), self.crowd.body(request.wish));
                let headers = made.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let key = self.crowd.key(request.wish).try_into().expect("keys are plain text");
                headers.insert(&IDEMPOTENCY_KEY, key);
                return Some(made);
            }
        };
        let path = format!("/v1/orders/{}/{verb}", self.order(request.wish)?);
        let path = path.parse().expect("ids are plain text");
        let mut made = target.request(Method::POST, path, bytes::Bytes::new());
        if let (Kind::Confirm, Some(bearer)) = (request.kind, &self.bearer) {
            made.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        Some(made)
    }
}

/// One connection, and the records of what went over it.
struct Line<'a> {
    engine: &'a Engine,
    target: Target,
    wire: Option<Wire>,
    records: Vec<Record>,
}

impl Line<'_> {
    /// Sends one request and records what it came to.
    async fn go(&mut self, number: usize) {
        let request = self.engine.crowd.requests[number];
        let tally = &self.engine.tally;
        let Some(made) = self.engine.prepare(&self.target, request) else {
            tally.unneeded.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some((sent_us, answer)) = self.send(made, request).await else {
            tally.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let answered_us = self.engine.now_us();
        let reading = self.read(request.kind, &answer);
        if answer.is_err() {
            self.wire = None;
        }
        if let (Some(order), true) = (reading.order, request.kind.orders()) {
            self.engine.known.lock().expect("no holder panics").insert(request.wish, order);
        }
        tally.outcomes[reading.outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.records.push(Record {
            request: u32::try_from(number).unwrap_or(u32::MAX),
            status: answer.as_ref().map_or(0, |answer| answer.status.as_u16()),
            outcome: reading.outcome,
            effect: reading.effect,
            sold_out: reading.sold_out,
            sent_us,
            answered_us,
            order: reading.order,
        });
    }

    /// When it was sent, and the answer or why there is none; `None` if it could not leave in time.
    async fn send(
        &mut self,
        made: hyper::Request<Full<bytes::Bytes>>,
        request: Request,
    ) -> Option<(u64, Result<Answer, NoAnswer>)> {
        let gone_us = request.due_us + DROPPED_AFTER_MS * 1_000;
        let time_max = match request.kind {
            Kind::HangUp(after_us) => Duration::from_micros(after_us.into()),
            _ => ANSWER_TIME_MAX,
        };
        loop {
            let engine = self.engine;
            let wire = self.wire(gone_us).await?;
            let sent_us = engine.now_us();
            let answered = tokio::time::timeout(time_max, wire.call(made.clone())).await;
            let answer = match answered {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) if wire::never_left(&error) => {
                    self.wire = None;
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection broke");
                    Err(NoAnswer::Broken)
                }
                Err(_) if matches!(request.kind, Kind::HangUp(_)) => Err(NoAnswer::HungUp),
                Err(_) => Err(NoAnswer::Broken),
            };
            return Some((sent_us, answer));
        }
    }

    /// The connection, opened again with growing pauses if it is broken; `None` when the customer has gone.
    async fn wire(&mut self, gone_us: u64) -> Option<&mut Wire> {
        let mut pause = RECONNECT_MIN;
        if self.wire.as_ref().is_some_and(Wire::is_closed) {
            self.wire = None;
        }
        while self.engine.now_us() < gone_us {
            if self.wire.is_some() {
                return self.wire.as_mut();
            }
            match Wire::open(&self.target).await {
                Ok(wire) => self.wire = Some(wire),
                Err(error) => {
                    tracing::debug!(%error, "cannot connect");
                    let jitter = pause.mul_f64(fastrand::f64());
                    self.engine.clock.sleep(pause / 2 + jitter / 2).await;
                    pause = RECONNECT_MAX.min(pause * 2);
                }
            }
        }
        None
    }

    fn read(&self, kind: Kind, answer: &Result<Answer, NoAnswer>) -> Reading {
        let nothing = |outcome| Reading { outcome, effect: Effect::Unknown, sold_out: None, order: None };
        match answer {
            Ok(answer) => answer::read(kind, answer, &self.engine.aim.skus),
            Err(NoAnswer::HungUp) => nothing(Outcome::HungUp),
            Err(NoAnswer::Broken) => nothing(Outcome::Error),
        }
    }
}

/// Why there is no answer.
enum NoAnswer {
    /// The customer did not wait for it.
    HungUp,
    /// The connection broke, or it took too long.
    Broken,
}
