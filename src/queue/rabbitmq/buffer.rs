//! What RabbitMQ has delivered to this process and settlement has not acknowledged yet, in the sequence of its arrival.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use lapin::Channel;
use lapin::types::DeliveryTag;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::model::Message;
use crate::queue::{Delivery, Receipt};

/// A delivered parcel.
pub(super) struct Entry {
    pub(super) shard: usize,
    /// Where and under which number it was delivered: a tag means something on its own channel only.
    pub(super) channel: Arc<Channel>,
    pub(super) tag: DeliveryTag,
    /// Never empty.
    pub(super) messages: Vec<Message>,
    pub(super) pushed_ms: i64,
}

/// Positions grow as long as the process lives, so a receipt of a lost connection names nothing in the next one.
#[derive(Default)]
pub(super) struct Buffer {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<(u64, Entry)>,
    last: u64,
}

impl Buffer {
    /// Resolves after the next change, or after [`Buffer::wake`].
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Wakes everybody who waits for a change.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn put(&self, entry: Entry) {
        let mut inner = self.inner();
        inner.last += 1;
        let position = inner.last;
        inner.entries.push_back((position, entry));
        drop(inner);
        self.wake();
    }

    /// Forgets everything: its connection is lost, and RabbitMQ delivers it again.
    pub(super) fn clear(&self) {
        self.inner().entries.clear();
        self.wake();
    }

    /// The front, at least one parcel, without removing it.
    pub(super) fn front(&self, messages_max: usize) -> Option<Delivery> {
        let inner = self.inner();
        let from = inner.entries.front()?.0;
        let mut delivery = Delivery { messages: Vec::new(), receipt: Receipt { from, to: from } };
        for (position, entry) in &inner.entries {
            if !delivery.messages.is_empty() && delivery.messages.len() + entry.messages.len() > messages_max {
                break;
            }
            delivery.messages.extend_from_slice(&entry.messages);
            delivery.receipt.to = *position;
        }
        Some(delivery)
    }

    /// Takes out what was pulled and all before it.
    pub(super) fn take_through(&self, receipt: Receipt) -> Vec<Entry> {
        self.take(|position| position <= receipt.to)
    }

    /// Whether something of the receipt is still here; its messages, parcel by parcel, and when they were pushed.
    pub(super) fn of(&self, receipt: Receipt) -> Vec<(Vec<Message>, i64)> {
        let inner = self.inner();
        let within = inner.entries.iter().filter(|(position, _)| (receipt.from..=receipt.to).contains(position));
        within.map(|(_, entry)| (entry.messages.clone(), entry.pushed_ms)).collect()
    }

    /// Takes out exactly what was pulled.
    pub(super) fn take_of(&self, receipt: Receipt) -> Vec<Entry> {
        self.take(|position| (receipt.from..=receipt.to).contains(&position))
    }

    fn take(&self, is_meant: impl Fn(u64) -> bool) -> Vec<Entry> {
        let mut inner = self.inner();
        let (taken, left) =
            std::mem::take(&mut inner.entries).into_iter().partition(|(position, _)| is_meant(*position));
        inner.entries = left;
        drop(inner);
        self.wake();
        VecDeque::into_iter(taken).map(|(_, entry)| entry).collect()
    }

    /// Whether nothing of this shard is here.
    pub(super) fn is_empty_of(&self, shard: usize) -> bool {
        self.inner().entries.iter().all(|(_, entry)| entry.shard != shard)
    }

    /// Messages here, and when the first of them was pushed.
    pub(super) fn waiting(&self) -> (u64, Option<i64>) {
        let inner = self.inner();
        let messages = inner.entries.iter().map(|(_, entry)| entry.messages.len() as u64).sum();
        (messages, inner.entries.iter().map(|(_, entry)| entry.pushed_ms).min())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}
