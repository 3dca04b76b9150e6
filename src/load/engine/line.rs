//! One connection of the crowd: opened when it is needed, opened again when it breaks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};

use super::{Attempt, Engine, LATE_MS};
use crate::load::answer::{self, Reading};
use crate::load::crowd::{Kind, Request};
use crate::load::record::{Outcome, Record};
use crate::load::wire::{self, Answer, Target, Wire};
use crate::model::{Effect, Seq};

/// The first pause before a connection that could not be opened is tried again; it doubles from try to try.
const RECONNECT_MIN: Duration = Duration::from_millis(10);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// How long a server may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

type Prepared = hyper::Request<Full<Bytes>>;

/// One connection, and the records of what went over it.
pub(super) struct Line {
    engine: Arc<Engine>,
    target: Target,
    wire: Option<Wire>,
    pub(super) records: Vec<Record>,
}

/// What became of a sending.
enum Sent {
    /// When it was sent, and the answer or why there is none.
    At(u64, Result<Answer, NoAnswer>),
    /// It certainly never left.
    Never,
}

/// Why there is no answer.
enum NoAnswer {
    /// The customer did not wait for it.
    HungUp,
    /// The connection broke, or it took too long.
    Broken,
}

impl Line {
    pub(super) fn new(engine: Arc<Engine>, target: Target) -> Self {
        Self { engine, target, wire: None, records: Vec::new() }
    }

    /// Sends one request and records what it came to.
    pub(super) async fn go(&mut self, attempt: Attempt) {
        let request = self.engine.crowd.requests[attempt.request as usize];
        let Some(prepared) = self.prepare(request) else {
            self.engine.tally.unneeded.fetch_add(1, Ordering::Relaxed);
            return self.engine.over();
        };
        if self.engine.now_us() >= attempt.gone_us {
            if attempt.again == 0 {
                self.engine.tally.dropped.fetch_add(1, Ordering::Relaxed);
            }
            return self.engine.over();
        }
        match self.send(prepared, request.kind).await {
            Sent::At(sent_us, answer) => {
                if attempt.again == 0 && sent_us > request.due_us.saturating_add(LATE_MS * 1_000) {
                    self.engine.tally.late.fetch_add(1, Ordering::Relaxed);
                }
                self.note(attempt, request, sent_us, &answer);
            }
            Sent::Never => {
                self.engine.let_go(attempt);
                self.reconnect().await;
            }
        }
    }

    /// The HTTP request; `None` if it is about an order that there is not.
    fn prepare(&self, request: Request) -> Option<Prepared> {
        let (crowd, wish) = (&self.engine.crowd, request.wish);
        let (verb, order) = match request.kind {
            Kind::Confirm => ("confirm", self.engine.order(wish)?),
            Kind::Cancel => ("cancel", self.engine.order(wish)?),
            Kind::OtherCart => {
                self.engine.order(wish)?;
                return Some(self.placing(wish, crowd.other_body(wish)?));
            }
            Kind::First | Kind::Duplicate | Kind::HangUp(_) | Kind::Retry => {
                return Some(self.placing(wish, crowd.body(wish)));
            }
        };
        let path = format!("/v1/orders/{order}/{verb}").parse().expect("ids are plain text");
        let mut prepared = self.target.request(Method::POST, path, Bytes::new());
        if let (Kind::Confirm, Some(bearer)) = (request.kind, &self.engine.bearer) {
            prepared.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        Some(prepared)
    }

    fn placing(&self, wish: u32, body: Bytes) -> Prepared {
        let mut prepared = self.target.request(Method::POST, self.engine.path.clone(), body);
        let headers = prepared.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = self.engine.crowd.key(wish).try_into().expect("keys are plain text");
        headers.insert(&IDEMPOTENCY_KEY, key);
        prepared
    }

    async fn send(&mut self, prepared: Prepared, kind: Kind) -> Sent {
        if !self.connect().await {
            return Sent::Never;
        }
        let Some(wire) = &mut self.wire else { return Sent::Never };
        let time_max = match kind {
            Kind::HangUp(after_us) => Duration::from_micros(after_us.into()),
            _ => self.engine.aim.patience.answer,
        };
        let sent_us = self.engine.now_us();
        self.engine.tally.sent.fetch_add(1, Ordering::Relaxed);
        let answer = match tokio::time::timeout(time_max, wire.call(prepared)).await {
            Ok(Ok(answer)) => return Sent::At(sent_us, Ok(answer)),
            Ok(Err(error)) if wire::never_left(&error) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection broke");
                Some(NoAnswer::Broken)
            }
            Err(_) if matches!(kind, Kind::HangUp(_)) => Some(NoAnswer::HungUp),
            Err(_) => Some(NoAnswer::Broken),
        };
        self.wire = None;
        answer.map_or(Sent::Never, |why| Sent::At(sent_us, Err(why)))
    }

    /// Whether there is a connection, opened now if there was none.
    async fn connect(&mut self) -> bool {
        if self.wire.as_ref().is_some_and(Wire::is_closed) {
            self.wire = None;
        }
        if self.wire.is_none() {
            match tokio::time::timeout(CONNECT_TIME_MAX, Wire::open(&self.target)).await {
                Ok(Ok(wire)) => self.wire = Some(wire),
                Ok(Err(error)) => tracing::debug!(%error, "cannot connect"),
                Err(_) => tracing::debug!("cannot connect in time"),
            }
        }
        self.wire.is_some()
    }

    /// Comes back with a connection, or when none is needed any more. Meanwhile others take the requests.
    async fn reconnect(&mut self) {
        let mut pause = RECONNECT_MIN;
        while !self.connect().await && !self.engine.is_over() {
            let jitter = pause.mul_f64(fastrand::f64());
            self.engine.clock.sleep(pause / 2 + jitter / 2).await;
            pause = RECONNECT_MAX.min(pause * 2);
        }
    }

    fn note(&mut self, attempt: Attempt, request: Request, sent_us: u64, answer: &Result<Answer, NoAnswer>) {
        let answered_us = self.engine.now_us();
        let reading = self.read(request.kind, answer);
        if let (Some(order), true) = (reading.order, request.kind.orders()) {
            self.engine.known.lock().expect("no holder panics").insert(request.wish, order);
        }
        self.engine.tally.outcomes[reading.outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.records.push(Record {
            request: attempt.request,
            status: answer.as_ref().map_or(0, |answer| answer.status.as_u16()),
            outcome: reading.outcome,
            effect: reading.effect,
            sold_out: reading.sold_out,
            sent_us,
            answered_us,
            order: reading.order,
            seq: reading.seq,
        });
        let retry_after = answer.as_ref().ok().and_then(|answer| answer.retry_after);
        if !(reading.outcome.asks_again() && self.engine.again(attempt, sent_us, retry_after)) {
            self.engine.over();
        }
    }

    fn read(&self, kind: Kind, answer: &Result<Answer, NoAnswer>) -> Reading {
        let nothing = |outcome| Reading { outcome, effect: Effect::Unknown, sold_out: None, order: None, seq: Seq(0) };
        match answer {
            Ok(answer) => answer::read(kind, answer, &self.engine.aim.skus),
            Err(NoAnswer::HungUp) => nothing(Outcome::HungUp),
            Err(NoAnswer::Broken) => nothing(Outcome::Error),
        }
    }
}
