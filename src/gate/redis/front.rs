//! What stands in front of a sold-out sale: a refusal costs a share of one small question to Redis, and is never stale.
//!
//! A request for a SKU that was sold out is refused only by a probe that started after the request arrived. While one
//! probe is under way, requests gather, and the next one answers them all. It tells whether units are there again, and
//! brings the ids that were admitted since the last one, on any node: so the retry of an accepted order is never told
//! "sold out". Whatever the probe does not refuse goes to the gate itself, which knows the exact answer.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Value;
use tokio::time::timeout;

use super::lane::{Desk, Lane, gone};
use super::script::{Answer, PROBE, damaged};
use crate::batcher::{Batcher, Batches, batcher};
use crate::gate::Refusal;
use crate::gate::latch::{Latch, Word};
use crate::model::{Order, OrderId, Phase, Result, SaleState, Sku, Time, Window, limits};

/// How many pages of ids a probe reads before it lets its requests go on.
const PAGES_MAX: usize = 4;
/// A probe that so many share is followed by one that waits for [`SHARED_BY`].
const CROWD: usize = 2;
/// How many share a probe, while a crowd asks: more would make it hardly cheaper for each.
const SHARED_BY: usize = 32;
/// How long a probe waits for them at most.
const SHARING_TIME_MAX: Duration = Duration::from_millis(1);

/// Which SKUs, a bit each.
type Skus = u64;
const _: () = assert!(limits::SALE_ITEMS_MAX <= Skus::BITS as usize, "a bit for each item");

/// The front of one sale, as long as the gate keeps this memory of it.
pub(super) struct Front {
    stamp: String,
    skus: Arc<[Sku]>,
    index: HashMap<Sku, usize>,
    latch: Arc<Latch<OrderId>>,
    probes: Batcher<Question, Result<Option<SoldOut>>>,
}

/// The side that asks.
struct Prober {
    desk: Desk,
    lane: Weak<Lane>,
    stamp: String,
    skus: Arc<[Sku]>,
    latch: Arc<Latch<OrderId>>,
    /// How many of the sale's ids the latch knows.
    position: u64,
    /// The last whole answer.
    last: Option<Last>,
}

/// What a probe was told, and what shows whether that still holds.
struct Last {
    signs: Vec<u8>,
    asked: Skus,
    live: bool,
    window: Window,
    none_left: Found,
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
        let skus: Arc<[Sku]> = skus.split('\n').filter_map(|sku| Sku::new(sku).ok()).collect();
        let index = skus.iter().cloned().zip(0..).collect();
        let latch = Arc::new(Latch::new(skus.len()));
        let (probes, batches) = batcher(limits::LATCH_WAITING_MAX);
        let stamp = stamp.to_owned();
        let prober = Prober {
            desk: desk.clone(),
            lane,
            stamp: stamp.clone(),
            skus: skus.clone(),
            latch: latch.clone(),
            position: 0,
            last: None,
        };
        tokio::spawn(prober.run(batches));
        Arc::new(Front { stamp, skus, index, latch, probes })
    }

    /// Whether it belongs to this load of the gate.
    pub(super) fn is_of(&self, stamp: &str) -> bool {
        self.stamp == stamp
    }

    /// Requests for this SKU ask here from now on.
    pub(super) fn shut(&self, sku: usize, may_return: bool) {
        if sku < self.skus.len() {
            self.latch.say(sku, Word::SoldOut { may_return });
        }
    }

    /// The order's SKUs, if one of them was sold out a moment ago and the order is not known.
    pub(super) fn refuses(&self, order: &Order) -> Option<Skus> {
        let mut asked = 0;
        for line in &order.lines {
            asked |= 1 << self.index.get(&line.sku)?;
        }
        self.latch.refuses(order.id, bits(asked))?;
        Some(asked)
    }

    /// The refusal of a probe that starts after this question; `None` if the gate itself must be asked.
    pub(super) async fn ask(&self, id: OrderId, asked: Skus) -> Result<Option<Refusal>> {
        let found = self.probes.call(Question { id, asked }).await.map_err(gone)??;
        Ok(found.map(|SoldOut { sku, may_return }| Refusal::SoldOut { sku: self.skus[sku].clone(), may_return }))
    }
}

impl Prober {
    async fn run(mut self, mut batches: Batches<Question, Result<Option<SoldOut>>>) {
        let mut crowded = false;
        loop {
            if crowded {
                batches.gathered(1).await;
                // Whoever waits longer than that is asked for with those who are there.
                let _ = timeout(SHARING_TIME_MAX, batches.gathered(SHARED_BY)).await;
            }
            let Some(waiting) = batches.next(limits::LATCH_WAITING_MAX).await else { return };
            crowded = waiting.len() >= CROWD;
            let asked = waiting.iter().fold(0, |all, waiting| all | waiting.item.asked);
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
        (!self.latch.knows(question.id)).then_some(SoldOut { sku, may_return })
    }

    /// Asks until the latch knows every id that the gate knows; the last answer counts. A latch that has much to learn
    /// refuses nobody meanwhile: these requests go to the gate itself.
    async fn probe(&mut self, asked: Skus) -> Result<Found> {
        for _page in 0..PAGES_MAX {
            // Whoever was asked for before is asked for again, so that the last answer holds for all that come.
            let before = self.last.take();
            let asked = asked | before.as_ref().map_or(0, |last| last.asked);
            let last = before.filter(|last| last.asked == asked);
            let mut call = PROBE.over(self.desk.keys.all());
            call.push(last.as_ref().map_or(&[][..], |last| &last.signs));
            call.push(&self.stamp);
            call.push(self.position);
            call.push(limits::GATE_PROBE_IDS_MAX);
            bits(asked).for_each(|sku| call.push(self.skus[sku].as_str()));
            let now = self.desk.clock.now();
            let answer = match self.desk.link.run(&call).await? {
                Value::Int(_) => last.map(|last| (last, true)),
                answer => self.read(asked, answer)?,
            };
            let Some((last, whole)) = answer else {
                self.forget();
                return Ok(Found::default());
            };
            if !whole {
                continue;
            }
            let found = self.tell_latch(asked, &last, last.window.state(now));
            self.last = Some(last);
            return Ok(found);
        }
        Ok(Found::default())
    }

    /// What the script tells, and whether the latch now knows every id; `None` if it does not know this load of the gate.
    fn read(&mut self, asked: Skus, answer: Value) -> Result<Option<(Last, bool)>> {
        let Ok(mut answer) = Answer::read(answer)? else { return Ok(None) };
        let (signs, live, window) = (answer.bytes()?, answer.flag()?, read_window(&mut answer)?);
        let all: u64 = answer.number()?;
        let ids = answer.bytes()?;
        self.learn(&ids);
        let mut none_left = Found::default();
        for sku in bits(asked) {
            let (available, may_return) = (answer.units()?, answer.flag()?);
            none_left.sold_out |= u64::from(available.get() == 0) << sku;
            none_left.may_return |= u64::from(may_return) << sku;
        }
        let whole = self.position >= all || ids.is_empty();
        Ok(Some((Last { signs, asked, live, window, none_left }, whole)))
    }

    /// Lets the latch say what was found: whatever is open goes past it.
    fn tell_latch(&self, asked: Skus, last: &Last, state: SaleState) -> Found {
        if state == SaleState::Ended {
            self.forget();
        }
        let open = last.live && state == SaleState::Open;
        let mut found = Found::default();
        for sku in bits(asked) {
            let is_in = |skus: Skus| skus & (1 << sku) != 0;
            if open && is_in(last.none_left.sold_out) {
                let may_return = is_in(last.none_left.may_return);
                found.sold_out |= 1 << sku;
                found.may_return |= u64::from(may_return) << sku;
                self.latch.say(sku, Word::SoldOut { may_return });
            } else {
                self.latch.say(sku, Word::Open);
            }
        }
        found
    }

    fn learn(&mut self, ids: &[u8]) {
        for id in ids.as_chunks().0 {
            self.latch.know(OrderId(*id));
            self.position += 1;
        }
    }

    /// The gate was loaded anew, or nobody needs the latch any more.
    fn forget(&self) {
        if let Some(lane) = self.lane.upgrade() {
            lane.forget_front(&self.stamp);
        }
    }
}

fn read_window(answer: &mut Answer) -> Result<Window> {
    let phase = answer.text()?;
    let phase = Phase::from_word(&phase).ok_or_else(|| damaged(&format!("a sale is said to be {phase}")))?;
    let mut moment = || match answer.next() {
        Some(Value::Int(millis)) => Ok(Some(Time::from_millis(millis))),
        Some(Value::BulkString(none)) if none.is_empty() => Ok(None),
        other => Err(damaged(&format!("a script answered {other:?} in place of a moment"))),
    };
    Ok(Window { phase, opens_at: moment()?, closes_at: moment()? })
}

/// The numbers of the bits that are set.
fn bits(mut set: Skus) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}
