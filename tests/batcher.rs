//! The batcher under every schedule: the file is compiled once more, with locks that let the explorer decide who goes on.

#[path = "../src/batcher.rs"]
#[expect(unreachable_pub, reason = "it is a library's file")]
mod batcher;

mod sync {
    pub(crate) use shuttle::sync::Mutex;
}

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use batcher::{Batcher, Gone, batcher};
use shuttle::sync::Mutex;
use shuttle::{check_dfs, check_pct, check_random, future, thread};

/// Explores a scenario at random, by priorities, and one schedule after the other.
fn explore(scenario: fn()) {
    check_random(scenario, 3_000);
    check_pct(scenario, 3_000, 3);
    check_dfs(scenario, Some(20_000));
}

/// Answers every item with its double, and keeps what it saw, until the callers are gone.
fn doubler(mut batches: batcher::Batches<u32, u32>, items_max: usize) -> thread::JoinHandle<Vec<u32>> {
    thread::spawn(move || {
        let mut seen = Vec::new();
        while let Some(batch) = future::block_on(batches.next(items_max)) {
            assert!((1..=items_max).contains(&batch.len()), "a batch of {}", batch.len());
            for waiting in batch {
                seen.push(waiting.item);
                let double = waiting.item * 2;
                waiting.answer(double);
            }
        }
        seen
    })
}

#[test]
fn every_item_is_taken_once_and_answered() {
    explore(|| {
        let (calls, batches) = batcher(10);
        let calls = Arc::new(calls);
        let taker = doubler(batches, 2);
        let callers: Vec<_> = (1..=3)
            .map(|item| {
                let calls = calls.clone();
                thread::spawn(move || assert_eq!(future::block_on(calls.call(item)), Ok(item * 2)))
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        drop(calls);
        let mut seen = taker.join().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
    });
}

#[test]
fn one_callers_items_keep_their_sequence() {
    explore(|| {
        let (calls, batches) = batcher(10);
        let taker = doubler(batches, 2);
        let other = Arc::new(calls);
        let caller = other.clone();
        let beside = thread::spawn(move || assert_eq!(future::block_on(caller.call(9)), Ok(18)));
        for item in [1, 2, 3] {
            assert_eq!(future::block_on(other.call(item)), Ok(item * 2));
        }
        beside.join().unwrap();
        drop(other);
        let seen = taker.join().unwrap();
        let own: Vec<u32> = seen.into_iter().filter(|item| *item != 9).collect();
        assert_eq!(own, [1, 2, 3]);
    });
}

/// Polls once and stops waiting.
fn call_and_leave(calls: &Batcher<u32, u32>, item: u32) -> Option<Result<u32, Gone>> {
    let mut call = Box::pin(calls.call(item));
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[test]
fn a_caller_that_leaves_does_not_take_its_item_along() {
    explore(|| {
        let (calls, batches) = batcher(10);
        let calls = Arc::new(calls);
        let taker = doubler(batches, 10);
        let leaver = {
            let calls = calls.clone();
            thread::spawn(move || assert!(matches!(call_and_leave(&calls, 1), None | Some(Ok(2)))))
        };
        assert_eq!(future::block_on(calls.call(2)), Ok(4));
        leaver.join().unwrap();
        drop(calls);
        let mut seen = taker.join().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

#[test]
fn callers_hear_that_the_taker_is_gone() {
    explore(|| {
        let (calls, mut batches) = batcher::<u32, u32>(10);
        let calls = Arc::new(calls);
        let callers: Vec<_> = [1, 2]
            .into_iter()
            .map(|item| {
                let calls = calls.clone();
                thread::spawn(move || future::block_on(calls.call(item)))
            })
            .collect();
        let taken = future::block_on(batches.next(1)).expect("the callers are there");
        drop(batches);
        drop(taken);
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Err(Gone::Dropped));
        }
        assert_eq!(future::block_on(calls.call(3)), Err(Gone::Dropped));
    });
}

#[test]
fn no_more_wait_than_may_wait() {
    explore(|| {
        let (calls, batches) = batcher(1);
        let calls = Arc::new(calls);
        let full = Arc::new(Mutex::new(0));
        let callers: Vec<_> = [1, 2]
            .into_iter()
            .map(|item| {
                let (calls, full) = (calls.clone(), full.clone());
                thread::spawn(move || match future::block_on(calls.call(item)) {
                    Ok(double) => assert_eq!(double, item * 2),
                    Err(gone) => {
                        assert_eq!(gone, Gone::Full);
                        *full.lock().unwrap() += 1;
                    }
                })
            })
            .collect();
        let taker = doubler(batches, 10);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        drop(calls);
        assert_eq!(taker.join().unwrap().len() + *full.lock().unwrap(), 2);
    });
}

#[test]
fn a_split_item_still_finds_its_way_back() {
    explore(|| {
        let (calls, mut batches) = batcher(10);
        let taker = thread::spawn(move || {
            let batch = future::block_on(batches.next(10)).expect("one caller");
            for (item, answer) in batch.into_iter().map(batcher::Waiting::split) {
                answer(item + 1);
            }
        });
        assert_eq!(future::block_on(calls.call(1)), Ok(2));
        taker.join().unwrap();
    });
}

/// The explorer itself is tested: a taker that looks, and only then says that it waits, must be found to sleep forever.
#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_up_is_found() {
    check_random(
        || {
            let (items, asleep) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None::<Waker>)));
            let (pushed, sleeper) = (items.clone(), asleep.clone());
            thread::spawn(move || {
                pushed.lock().unwrap().push(1);
                let taker = sleeper.lock().unwrap().take();
                taker.into_iter().for_each(Waker::wake);
            });
            future::block_on(std::future::poll_fn(|context| {
                if items.lock().unwrap().pop().is_some() {
                    return Poll::Ready(());
                }
                *asleep.lock().unwrap() = Some(context.waker().clone());
                Poll::Pending
            }));
        },
        3_000,
    );
}
