//! The sold-out latch under every schedule and every reordering that the memory model allows: the file is compiled once
//! more, with loom's locks and atomics.

#[path = "../src/gate/latch.rs"]
#[expect(unreachable_pub, reason = "it is a library's file")]
mod latch;

mod model {
    pub(crate) use sluice::model::ByItself;
}

mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
}

use latch::{Latch, Word};
use loom::sync::Arc;
use loom::thread;

const SHUT: Word = Word::SoldOut { may_return: false };
const SHUT_MAY_RETURN: Word = Word::SoldOut { may_return: true };

/// loom follows few locks; the latch has sixteen per sale, and a word per SKU.
fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.check(scenario);
}

#[test]
fn who_finds_it_shut_finds_the_last_order_too() {
    explore(|| {
        let latch = Arc::new(Latch::<u32>::new(1, 0));
        let gate = latch.clone();
        let last = thread::spawn(move || {
            gate.know(7);
            gate.say(0, SHUT);
        });
        assert_eq!(latch.refuses(7, [0]), None, "the retry of the order that took the last unit");
        let stranger = latch.refuses(8, [0]);
        assert!(matches!(stranger, None | Some((0, false))));
        last.join().unwrap();
        assert_eq!(latch.refuses(7, [0]), None);
        assert_eq!(latch.refuses(8, [0]), Some((0, false)));
    });
}

#[test]
fn two_last_orders_of_two_skus_are_both_found() {
    explore(|| {
        let latch = Arc::new(Latch::<u32>::new(2, 0));
        let sellers: Vec<_> = [(0, 7), (1, 8)]
            .into_iter()
            .map(|(sku, id)| {
                let gate = latch.clone();
                thread::spawn(move || {
                    gate.know(id);
                    gate.say(sku, SHUT_MAY_RETURN);
                })
            })
            .collect();
        assert_eq!(latch.refuses(7, [0]), None);
        assert_eq!(latch.refuses(8, [1]), None);
        sellers.into_iter().for_each(|seller| seller.join().unwrap());
        assert_eq!(latch.refuses(9, [0, 1]), Some((0, true)));
    });
}

#[test]
fn an_order_is_known_once() {
    explore(|| {
        let latch = Arc::new(Latch::<u32>::new(1, 0));
        let other = latch.clone();
        let there = thread::spawn(move || other.know(7));
        let here = latch.know(7);
        assert!(here != there.join().unwrap(), "exactly one of the two was first");
        assert!(latch.knows(7));
    });
}

#[test]
fn it_opens_again() {
    explore(|| {
        let latch = Arc::new(Latch::<u32>::new(1, 0));
        latch.say(0, SHUT);
        let gate = latch.clone();
        let returned = thread::spawn(move || gate.say(0, Word::Open));
        assert!(matches!(latch.refuses(8, [0]), None | Some((0, false))));
        returned.join().unwrap();
        assert_eq!(latch.refuses(8, [0]), None);
    });
}

/// The explorer itself is tested: shut first and known later must be found.
#[test]
#[should_panic(expected = "the retry of the order that took the last unit")]
fn shutting_before_knowing_is_found() {
    explore(|| {
        let latch = Arc::new(Latch::<u32>::new(1, 0));
        let gate = latch.clone();
        let last = thread::spawn(move || {
            gate.say(0, SHUT);
            gate.know(7);
        });
        assert_eq!(latch.refuses(7, [0]), None, "the retry of the order that took the last unit");
        last.join().unwrap();
    });
}
