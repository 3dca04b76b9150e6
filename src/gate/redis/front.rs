//! What stands in front of a gate that has sold out: refusals that cost no network at all.
//!
//! A probe asks the gate's server whether units are there again, and brings the ids that were admitted since the last one,
//! on any node. If a SKU is sold out it is leased: for [`limits::GATE_LEASE`] the server admits nothing of it, so that every
//! process that was told may say "sold out" without asking, and the retry of an accepted order is never told so. As long as
//! requests come, a lease is renewed before it ends. Requests that find none gather, and are answered by the first probe that
//! starts after they came. Whatever is not refused goes to the gate itself, which knows the exact answer. The idea of the
//! lease is Gray and Cheriton's (*Leases*, SOSP 1989).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::lane::{Desk, Lane, gone};
use super::script::{Answer, PROBE};
use crate::batcher::{Batcher, Batches, batcher};
use crate::clock::Clock;
use crate::gate::Refusal;
use crate::gate::latch::{Latch, Word};
use crate::model::{Order, OrderId, Result, Sku, limits};

/// How many pages of ids a probe reads before it lets its requests go on.
const PAGES_MAX: usize = 4;
/// A lease is renewed in this last part of its time.
const RENEWED_IN_LAST: u32 = 4;

/// Which SKUs, a bit each.
type Skus = u64;
const _: () = assert!(limits::SALE_ITEMS_MAX <= Skus::BITS as usize, "a bit for each item");

/// The front of one sale, as long as the gate keeps this memory of it.
pub(super) struct Front {
    board: Arc<Board>,
    index: HashMap<Sku, usize>,
    probes: Batcher<Question, Result<Option<SoldOut>>>,
}

/// What those who refuse read, and the prober writes.
struct Board {
    stamp: String,
    skus: Box<[Sku]>,
    latch: Latch<OrderId>,
    /// Per SKU, until when it is leased, in nanoseconds of the monotonic clock. The ids are learnt before a lease is written:
    /// release and acquire carry them along.
    leased_until: Box<[AtomicU64]>,
    /// Told by requests that find a lease near its end.
    ends_soon: Notify,
    lease: Duration,
    clock: Arc<dyn Clock>,
}

/// The side that asks.
struct Prober {
    board: Arc<Board>,
    desk: Desk,
    lane: Weak<Lane>,
    /// How many of the sale's ids the latch knows.
    position: u64,
}

/// Which order, and what it wants.
#[derive(Clone, Copy)]
struct Question {
    id: OrderId,
    asked: Skus,
}

/// A refusal on its way to the order that it concerns.
struct SoldOut {
    sku: usize,
    may_return: bool,
}

/// What a probe found.
#[derive(Clone, Copy, Default)]
struct Found {
    sold_out: Skus,
    may_return: Skus,
}

impl Front {
    /// A front that knows nothing yet; its first probe brings it all.
    pub(super) fn new(desk: &Desk, stamp: &str, skus: &str, lane: Weak<Lane>) -> Arc<Front> {
        let skus: Box<[Sku]> = skus.split('\n').filter_map(|sku| Sku::new(sku).ok()).collect();
        let index = skus.iter().cloned().zip(0..).collect();
        let board = Arc::new(Board {
            stamp: stamp.to_owned(),
            latch: Latch::new(skus.len(), 0),
            leased_until: skus.iter().map(|_| AtomicU64::new(0)).collect(),
            skus,
            ends_soon: Notify::new(),
            lease: desk.lease,
            clock: desk.clock.clone(),
        });
        let (probes, batches) = batcher(limits::LATCH_WAITING_MAX);
        tokio::spawn(Prober { board: board.clone(), desk: desk.clone(), lane, position: 0 }.run(batches));
        Arc::new(Front { board, index, probes })
    }

    /// Whether it belongs to this load of the gate.
    pub(super) fn is_of(&self, stamp: &str) -> bool {
        self.board.stamp == stamp
    }

    /// Requests for this SKU ask here from now on.
    pub(super) fn shut(&self, sku: usize, may_return: bool) {
        if sku < self.board.skus.len() {
            self.board.latch.say(sku, Word::SoldOut { may_return });
        }
    }

    /// The refusal of a lease, or else of a probe that starts after this question; `None` if the gate itself must be asked.
    pub(super) async fn refuse(&self, order: &Order) -> Result<Option<Refusal>> {
        let mut asked = 0;
        for line in &order.lines {
            let Some(sku) = self.index.get(&line.sku) else { return Ok(None) };
            asked |= 1 << sku;
        }
        let question = Question { id: order.id, asked };
        let found = match self.board.leased(question) {
            Some(sold_out) => Some(sold_out),
            None if self.board.latch.refuses(question.id, bits(asked)).is_none() => None,
            None => self.probes.call(question).await.map_err(gone)??,
        };
        Ok(found.map(|SoldOut { sku, may_return }| Refusal::SoldOut { sku: self.board.skus[sku].clone(), may_return }))
    }
}

impl Board {
    /// What may be said without asking.
    fn leased(&self, question: Question) -> Option<SoldOut> {
        let now = nanos(self.clock.monotonic());
        let leased =
            |sku: usize| self.leased_until[sku].load(Ordering::Acquire).checked_sub(now).filter(|left| *left > 0);
        let (sku, left) = bits(question.asked).find_map(|sku| Some((sku, leased(sku)?)))?;
        if left < nanos(self.lease / RENEWED_IN_LAST) {
            self.ends_soon.notify_one();
        }
        let (sku, may_return) = self.latch.refuses(question.id, [sku])?;
        Some(SoldOut { sku, may_return })
    }

    /// Whether one of these is leased for a last moment: not any more, if it was renewed since somebody told.
    fn is_due(&self, asked: Skus) -> bool {
        let soon = nanos(self.clock.monotonic() + self.lease / RENEWED_IN_LAST);
        bits(asked).any(|sku| (1..soon).contains(&self.leased_until[sku].load(Ordering::Relaxed)))
    }
}

impl Prober {
    async fn run(mut self, mut batches: Batches<Question, Result<Option<SoldOut>>>) {
        // Whoever was asked for before is asked for again, so that one probe renews all leases.
        let mut asked = 0;
        loop {
            let batch = tokio::select! {
                batch = batches.next(limits::LATCH_WAITING_MAX) => batch,
                () = self.board.ends_soon.notified() => Some(Vec::new()),
            };
            let Some(batch) = batch else { return };
            let renew = batch.is_empty() && self.board.is_due(asked);
            let mut waiting = Vec::with_capacity(batch.len());
            for one in batch {
                // The last probe was under way when it came, and may have brought a lease.
                match self.board.leased(one.item) {
                    Some(sold_out) => one.answer(Ok(Some(sold_out))),
                    None => waiting.push(one),
                }
            }
            if waiting.is_empty() && !renew {
                continue;
            }
            asked = waiting.iter().fold(asked, |all, waiting| all | waiting.item.asked);
            let found = self.probe(asked).await;
            for waiting in waiting {
                let question = waiting.item;
                waiting.answer(found.clone().map(|found| self.refusal(found, question)));
            }
        }
    }

    /// It is refused what is not there, unless it was admitted before.
    fn refusal(&self, found: Found, question: Question) -> Option<SoldOut> {
        let sku = bits(question.asked & found.sold_out).next()?;
        let may_return = found.may_return & (1 << sku) != 0;
        (!self.board.latch.knows(question.id)).then_some(SoldOut { sku, may_return })
    }

    /// Asks until the latch knows every id that the gate knows; the last answer counts. A latch that has much to learn
    /// refuses nobody meanwhile: these requests go to the gate itself.
    async fn probe(&mut self, asked: Skus) -> Result<Found> {
        for _page in 0..PAGES_MAX {
            let mut call = PROBE.over(self.desk.keys.all());
            call.push(&self.board.stamp);
            call.push(self.position);
            call.push(limits::GATE_PROBE_IDS_MAX);
            call.push(self.desk.clock.now().millis());
            call.push(u64::try_from(self.desk.lease.as_millis()).unwrap_or(u64::MAX));
            bits(asked).for_each(|sku| call.push(self.board.skus[sku].as_str()));
            let sent = self.desk.clock.monotonic();
            let Ok(mut answer) = Answer::read(self.desk.link.run(&call).await?)? else {
                self.forget();
                return Ok(Found::default());
            };
            let (ended, all) = (answer.flag()?, answer.number::<u64>()?);
            let ids = answer.bytes()?;
            self.learn(&ids);
            if ended {
                self.forget();
            }
            if self.position >= all || ids.is_empty() {
                let lease = Duration::from_millis(answer.number()?);
                return self.tell_latch(asked, sent + lease, &mut answer);
            }
        }
        Ok(Found::default())
    }

    /// Lets the latch say what was found, and how long it may.
    fn tell_latch(&self, asked: Skus, until: Duration, answer: &mut Answer) -> Result<Found> {
        let mut found = Found::default();
        for sku in bits(asked) {
            let word = answer.number::<u8>()?;
            if word == 0 {
                self.board.latch.say(sku, Word::Open);
                self.board.leased_until[sku].store(0, Ordering::Release);
                continue;
            }
            let may_return = word == 2;
            found.sold_out |= 1 << sku;
            found.may_return |= u64::from(may_return) << sku;
            self.board.latch.say(sku, Word::SoldOut { may_return });
            self.board.leased_until[sku].store(nanos(until), Ordering::Release);
        }
        Ok(found)
    }

    fn learn(&mut self, ids: &[u8]) {
        for id in ids.as_chunks().0 {
            self.board.latch.know(OrderId(*id));
            self.position += 1;
        }
    }

    /// The gate was loaded anew, or nobody needs the latch any more.
    fn forget(&self) {
        if let Some(lane) = self.lane.upgrade() {
            lane.forget_front(&self.board.stamp);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The numbers of the bits that are set.
fn bits(mut set: Skus) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}
