//! The engine: sends a crowd's requests when they are due, whether or not earlier ones were answered.
//!
//! One thread keeps the time and lets requests go as they fall due; one task per connection takes the next one that
//! was let go. When all connections are busy a request waits, and its latency counts from when it was due.
//!
//! A customer may [insist](Patience): what heard nothing, or "not now", is sent again under the same key after a pause, over
//! whichever connection is free then, and so perhaps to another server. Every sending has a record of its own. A
//! connection that cannot be opened hands its request to the others and takes no more until it can.

mod line;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::sync::Semaphore;

use super::crowd::Crowd;
use super::record::{Outcome, Record};
use super::wire::{self, Target};
use crate::clock::Clock;
use crate::model::{OrderId, SaleId, Sku};
use line::Line;

/// A request that left later than this after it was due counts as late.
pub const LATE_MS: u64 = 10;
/// A request that could not leave within this time is dropped: its customer has gone.
pub const DROPPED_AFTER_MS: u64 = 5_000;
/// The time-keeper sleeps at least this long, so that it leaves the processor to the others.
const PACE_MIN: Duration = Duration::from_micros(100);
/// The first pause of who insists; it doubles from time to time. A server that names a pause is heeded instead.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(20);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

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
    /// How long customers wait and insist.
    pub patience: Patience,
}

/// How long customers wait and insist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long an answer may take.
    pub answer: Duration,
    /// How long after it was first sent a request is sent again, when it hears nothing or "not now"; zero sends it once.
    pub insist: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), insist: Duration::ZERO }
    }
}

/// Live counts, for whoever watches.
#[derive(Debug, Default)]
pub struct Tally {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    sent: AtomicU64,
    late: AtomicU64,
    dropped: AtomicU64,
    unneeded: AtomicU64,
    done: AtomicU64,
}

impl Tally {
    /// Answers with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// Requests that left, each time that they were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Requests that left late for the first time.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Requests dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Requests about an order that there was not.
    pub fn unneeded(&self) -> u64 {
        self.unneeded.load(Ordering::Relaxed)
    }

    /// Requests that are over, one way or another.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// One request, the next time that it is sent.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// The request's number in its crowd.
    request: u32,
    /// How often it was sent before.
    again: u32,
    /// When its customer has gone.
    gone_us: u64,
}

/// Sends one crowd, once.
pub struct Engine {
    crowd: Arc<Crowd>,
    aim: Aim,
    path: Uri,
    bearer: Option<HeaderValue>,
    clock: Arc<dyn Clock>,
    start: Duration,
    connections: usize,
    tally: Arc<Tally>,
    /// A permit per request that may leave now.
    due: Semaphore,
    next: AtomicUsize,
    /// Requests that may leave now although they are not the next: they are sent again, or over another connection.
    ready: Mutex<VecDeque<Attempt>>,
    /// Requests that are not over.
    open: AtomicUsize,
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
            aim,
            path,
            bearer,
            clock,
            start,
            connections: 0,
            tally: Arc::default(),
            due: Semaphore::new(0),
            next: AtomicUsize::new(0),
            ready: Mutex::default(),
            open: AtomicUsize::new(crowd.requests.len()),
            stopped: AtomicBool::new(false),
            known: Mutex::default(),
            crowd,
        })
    }

    /// With orders that wishes came to before.
    #[must_use]
    pub fn knowing(mut self, known: HashMap<u32, OrderId>) -> Self {
        self.known = Mutex::new(known);
        self
    }

    /// The live counts.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Sends everything, or all that is due before `stop`, over so many connections. Answers with when it started, on the
    /// clock's monotonic time, and the records in the sequence of their requests and sendings.
    pub async fn run(mut self, connections: usize, stop: impl Future<Output = ()>) -> (Duration, Vec<Record>) {
        (self.start, self.connections) = (self.clock.monotonic(), connections);
        let start = self.start;
        let engine = Arc::new(self);
        let (end, ended) = channel();
        let lines: Vec<_> = (0..connections).map(|number| tokio::spawn(engine.clone().line(number))).collect();
        let pace = tokio::task::spawn_blocking({
            let engine = engine.clone();
            move || engine.pace(&ended)
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
        records.sort_unstable_by_key(|record| (record.request, record.sent_us));
        (start, records)
    }

    fn stop(&self, end: &Sender<()>) {
        self.stopped.store(true, Ordering::Relaxed);
        let _over_already = end.send(());
        self.due.add_permits(self.connections);
    }

    /// Lets requests go as they fall due. It runs on a thread of its own, because the runtime's timers are whole
    /// milliseconds.
    fn pace(&self, end: &Receiver<()>) {
        let requests = &self.crowd.requests;
        if requests.is_empty() {
            self.due.add_permits(self.connections);
        }
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
    }

    /// What may leave now; waits for it. `None` once nothing is left.
    async fn next(&self) -> Option<Attempt> {
        self.due.acquire().await.expect("nobody closes it").forget();
        if self.is_stopped() {
            return None;
        }
        // What is ready was put there before its permit, so every permit finds something, but for the last ones.
        if let Some(attempt) = self.ready.lock().expect("no holder panics").pop_front() {
            return Some(attempt);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = self.crowd.requests.get(number)?;
        let gone_us = request.due_us.saturating_add(DROPPED_AFTER_MS * 1_000);
        Some(Attempt { request: u32::try_from(number).unwrap_or(u32::MAX), again: 0, gone_us })
    }

    /// Lets a request leave that is not the next.
    fn let_go(&self, attempt: Attempt) {
        self.ready.lock().expect("no holder panics").push_back(attempt);
        self.due.add_permits(1);
    }

    /// A request was sent for the last time. After the last one every line takes one more permit, finds nothing, and ends.
    fn over(&self) {
        self.tally.done.fetch_add(1, Ordering::Relaxed);
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.due.add_permits(self.connections);
        }
    }

    /// Sends a request again after a pause; false if its customer insists no longer.
    fn again(self: &Arc<Self>, attempt: Attempt, sent_us: u64, retry_after: Option<Duration>) -> bool {
        let insist_us = u64::try_from(self.aim.patience.insist.as_micros()).unwrap_or(u64::MAX);
        let gone_us = if attempt.again == 0 { sent_us.saturating_add(insist_us) } else { attempt.gone_us };
        let own = AGAIN_AFTER_MAX.min(AGAIN_AFTER_MIN * 2_u32.saturating_pow(attempt.again));
        let least = retry_after.unwrap_or(own / 2);
        let pause = least + least.mul_f64(fastrand::f64());
        let then_us = self.now_us().saturating_add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        if insist_us == 0 || then_us >= gone_us {
            return false;
        }
        let (engine, attempt) = (self.clone(), Attempt { again: attempt.again + 1, gone_us, ..attempt });
        tokio::spawn(async move {
            engine.clock.sleep(pause).await;
            engine.let_go(attempt);
        });
        true
    }

    /// Whether there is nothing left that a connection would be needed for.
    fn is_over(&self) -> bool {
        let last_us = self.crowd.requests.last().map_or(0, |last| last.due_us);
        let insist_us = u64::try_from(self.aim.patience.insist.as_micros()).unwrap_or(u64::MAX);
        let gone_us = last_us.saturating_add(DROPPED_AFTER_MS * 1_000).saturating_add(insist_us);
        self.is_stopped() || self.open.load(Ordering::Relaxed) == 0 || self.now_us() > gone_us
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn now_us(&self) -> u64 {
        let since = self.clock.monotonic().saturating_sub(self.start);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// One connection's life.
    async fn line(self: Arc<Self>, number: usize) -> Vec<Record> {
        let target = self.aim.targets[number % self.aim.targets.len()].clone();
        let mut line = Line::new(self.clone(), target);
        while let Some(attempt) = self.next().await {
            line.go(attempt).await;
        }
        line.records
    }

    /// The order that a wish came to, as far as is known.
    fn order(&self, wish: u32) -> Option<OrderId> {
        self.known.lock().expect("no holder panics").get(&wish).copied()
    }
}

#[cfg(test)]
mod tests;
