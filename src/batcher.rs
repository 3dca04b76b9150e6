//! Batches that form by themselves: while one batch is in flight the next one gathers, and leaves when the first
//! returns. No timer: an idle batcher sends a lone item at once, and a busy one sends many together.
//! The idea is group commit (Gray and Reuter, *Transaction Processing*, 1992).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures_channel::oneshot;

use crate::sync::Mutex;

/// The side that hands in items, one at a time, from anywhere.
pub struct Batcher<T, R> {
    shared: Arc<Shared<T, R>>,
    waiting_max: usize,
}

/// The side that takes out batches, in one task.
pub struct Batches<T, R> {
    shared: Arc<Shared<T, R>>,
}

/// An item and where its answer goes. Dropped without an answer, the item's caller hears [`Gone::Dropped`].
pub struct Waiting<T, R> {
    /// What was handed in.
    pub item: T,
    answer: oneshot::Sender<R>,
}

/// Why an item has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Too many are waiting; it was not taken in.
    Full,
    /// The batches' side ended, perhaps after it did something with the item.
    Dropped,
}

struct Shared<T, R> {
    state: Mutex<State<T, R>>,
}

struct State<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    taker: Option<Waker>,
    callers_gone: bool,
    taker_gone: bool,
}

/// Both sides of a batcher that lets at most so many items wait.
pub fn batcher<T, R>(waiting_max: usize) -> (Batcher<T, R>, Batches<T, R>) {
    let state = State { waiting: VecDeque::new(), taker: None, callers_gone: false, taker_gone: false };
    let shared = Arc::new(Shared { state: Mutex::new(state) });
    (Batcher { shared: shared.clone(), waiting_max }, Batches { shared })
}

impl<T, R> Batcher<T, R> {
    /// Hands in an item and waits for its answer. If the caller stops waiting, the item goes its way all the same.
    pub async fn call(&self, item: T) -> Result<R, Gone> {
        let (answer, answered) = oneshot::channel();
        let taker = {
            let mut state = self.shared.lock();
            if state.taker_gone {
                return Err(Gone::Dropped);
            }
            if state.waiting.len() >= self.waiting_max {
                return Err(Gone::Full);
            }
            state.waiting.push_back(Waiting { item, answer });
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.wake();
        }
        answered.await.map_err(|_| Gone::Dropped)
    }
}

impl<T, R> Batches<T, R> {
    /// Waits for at least one item and takes up to so many, in the sequence of their handing in; `None` once the other
    /// side is gone and everything is taken.
    pub async fn next(&mut self, items_max: usize) -> Option<Vec<Waiting<T, R>>> {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if state.waiting.is_empty() {
                if state.callers_gone {
                    return Poll::Ready(None);
                }
                state.taker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = state.waiting.len().min(items_max);
            Poll::Ready(Some(state.waiting.drain(..count).collect()))
        })
        .await
    }
}

impl<T, R> Waiting<T, R> {
    /// Answers the item's caller; nothing happens if nobody waits any more.
    pub fn answer(self, answer: R) {
        drop(self.answer.send(answer));
    }

    /// Parts the item from the way back to its caller.
    pub fn split(self) -> (T, impl FnOnce(R)) {
        let answer = self.answer;
        (self.item, move |value| drop(answer.send(value)))
    }
}

impl<T, R> Drop for Batcher<T, R> {
    fn drop(&mut self) {
        let taker = {
            let mut state = self.shared.lock();
            state.callers_gone = true;
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.wake();
        }
    }
}

impl<T, R> Drop for Batches<T, R> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.lock();
            state.taker_gone = true;
            std::mem::take(&mut state.waiting)
        };
        drop(left);
    }
}

impl<T, R> Shared<T, R> {
    fn lock(&self) -> impl std::ops::DerefMut<Target = State<T, R>> + '_ {
        self.state.lock().expect("no holder of this lock panics")
    }
}
