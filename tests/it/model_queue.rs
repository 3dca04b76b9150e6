//! The queue as one would explain it on a napkin: a line of messages, a set of bindings, one consumer at a time.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::model::{Epoch, Result, SaleId};
use sluice::queue::{Body, Delivery, Depth, Message, Push, Queue, Receipt};

/// One process's connection to the line. Connections share the line; the first one to pull is served alone until it
/// leaves.
pub(crate) struct ModelQueue {
    line: Arc<Mutex<Line>>,
    clock: Arc<dyn Clock>,
    consumer: u64,
    push_timeout: Option<Duration>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Entry>,
    parked: Vec<(Message, String)>,
    bound: BTreeSet<(SaleId, Epoch)>,
    /// What was bound before each change, and when it changed.
    history: Vec<(Duration, BTreeSet<(SaleId, Epoch)>)>,
    consumers: u64,
    active: Option<u64>,
    tags: u64,
    pullers: Vec<Waker>,
}

struct Entry {
    message: Message,
    pushed: Duration,
    /// The number under which it was pulled last; a later pull gives it another.
    tag: Option<u64>,
    pulled_before: bool,
}

impl ModelQueue {
    pub(crate) fn new(clock: Arc<dyn Clock>, push_timeout: Option<Duration>) -> Self {
        Self { line: Arc::default(), clock, consumer: 0, push_timeout }
    }

    /// One more connection to the same line.
    pub(crate) fn connect(&self) -> Self {
        let mut line = self.line();
        line.consumers += 1;
        let consumer = line.consumers;
        Self { line: self.line.clone(), clock: self.clock.clone(), consumer, push_timeout: self.push_timeout }
    }

    /// The connection breaks: what it pulled and did not acknowledge is pulled again, in a sequence that `pick` chooses
    /// among so many. A marker that was pulled before says nothing about what may now come after it, so it is dropped.
    pub(crate) fn leave(&self, markers_kept: bool, mut pick: impl FnMut(usize) -> usize) {
        let mut line = self.line();
        if line.active != Some(self.consumer) {
            return;
        }
        line.active = None;
        let pulled = line.waiting.iter().take_while(|entry| entry.pulled_before).count();
        let mut again: Vec<Entry> = line.waiting.drain(..pulled).collect();
        again.retain(|entry| markers_kept || matches!(entry.message.body, Body::Claim(_)));
        let mut place = 0;
        while !again.is_empty() {
            let entry = again.remove(pick(again.len()));
            line.waiting.insert(place, Entry { tag: None, ..entry });
            place += 1;
        }
        line.wake();
    }

    /// Whether the message would get in at this moment.
    pub(crate) fn routes(&self, message: &Message) -> bool {
        let bound = self.line().bound.contains(&(message.sale.clone(), message.epoch));
        bound || !matches!(message.body, Body::Claim(_))
    }

    /// The message got in a moment ago, and stands in the line now.
    pub(crate) fn append(&self, message: Message) {
        let mut line = self.line();
        line.waiting.push_back(Entry { message, pushed: self.clock.monotonic(), tag: None, pulled_before: false });
        line.wake();
    }

    /// It loses everything that it has.
    pub(crate) fn wipe(&self) {
        let mut line = self.line();
        line.waiting.clear();
        line.bound.clear();
        line.history.clear();
        line.active = None;
    }

    /// It forgets what became of its bindings since this moment.
    pub(crate) fn undo_bindings_since(&self, moment: Duration) {
        let mut line = self.line();
        let Some(first) = line.history.iter().position(|(at, _)| *at >= moment) else { return };
        let (_, before) = line.history.swap_remove(first);
        line.history.truncate(first);
        line.bound = before;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.line().waiting.is_empty()
    }

    /// Every message that waits, for the checker.
    pub(crate) fn waiting(&self) -> Vec<Message> {
        self.line().waiting.iter().map(|entry| entry.message.clone()).collect()
    }

    fn rebind(&self, change: impl FnOnce(&mut BTreeSet<(SaleId, Epoch)>)) {
        let now = self.clock.monotonic();
        let mut line = self.line();
        let before = line.bound.clone();
        line.history.push((now, before));
        change(&mut line.bound);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("no holder panics")
    }

    fn poll_pull(&self, messages_max: usize, context: &mut Context<'_>) -> Poll<Delivery> {
        let mut line = self.line();
        let line = &mut *line;
        if line.waiting.is_empty() || line.active.is_some_and(|active| active != self.consumer) {
            line.pullers.push(context.waker().clone());
            return Poll::Pending;
        }
        line.active = Some(self.consumer);
        let from = line.tags + 1;
        let mut messages = Vec::new();
        for entry in line.waiting.iter_mut().take(messages_max) {
            line.tags += 1;
            (entry.tag, entry.pulled_before) = (Some(line.tags), true);
            messages.push(entry.message.clone());
        }
        Poll::Ready(Delivery { messages, receipt: Receipt { from, to: line.tags } })
    }

    fn take(&self, receipt: Receipt) -> Vec<Message> {
        let mut line = self.line();
        let pulled = |entry: &Entry| entry.tag.is_some_and(|tag| (receipt.from..=receipt.to).contains(&tag));
        let (taken, left) = line.waiting.drain(..).partition(pulled);
        line.waiting = left;
        VecDeque::into_iter(taken).map(|entry| entry.message).collect()
    }
}

impl Line {
    fn wake(&mut self) {
        self.pullers.drain(..).for_each(Waker::wake);
    }
}

#[async_trait]
impl Queue for ModelQueue {
    async fn push(&self, message: Message) -> Result<Push> {
        if !self.routes(&message) {
            return Ok(Push::Fenced);
        }
        self.append(message);
        Ok(Push::Durable)
    }

    async fn pull(&self, messages_max: usize) -> Result<Delivery> {
        Ok(poll_fn(|context| self.poll_pull(messages_max, context)).await)
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<()> {
        self.take(receipt);
        Ok(())
    }

    async fn park(&self, receipt: Receipt, why: &str) -> Result<()> {
        let bad = self.take(receipt);
        self.line().parked.extend(bad.into_iter().map(|message| (message, why.to_owned())));
        Ok(())
    }

    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()> {
        self.rebind(|bound| bound.retain(|(whose, epoch)| whose != sale || *epoch >= below));
        Ok(())
    }

    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()> {
        let key = (sale.clone(), epoch);
        self.rebind(|bound| {
            let _changed = if open { bound.insert(key) } else { bound.remove(&key) };
        });
        Ok(())
    }

    async fn depth(&self) -> Result<Depth> {
        let line = self.line();
        let since = line.waiting.iter().map(|entry| entry.pushed).min();
        let oldest = since.map_or(Duration::ZERO, |since| self.clock.monotonic().saturating_sub(since));
        Ok(Depth { waiting: line.waiting.len() as u64, oldest, parked: line.parked.len() as u64 })
    }

    fn push_timeout(&self) -> Option<Duration> {
        self.push_timeout
    }
}
