//! A sale's lane to Redis: the claims that come at the same time go there together, and the crowd that comes too late
//! stays at the front.

use std::future::{Future, poll_fn};
use std::sync::{Arc, RwLock, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::front::Front;
use super::link::Link;
use super::script::{ADMIT, Answer, Keys, damaged};
use crate::batcher::{Batcher, Batches, Gone, Waiting, batcher};
use crate::clock::Clock;
use crate::gate::{Admission, Refusal};
use crate::model::{Claim, Effect, Epoch, Error, Order, Result, SaleId, Time, limits};

/// One sale, as this process asks for it.
pub(super) struct Lane {
    claims: Batcher<Asked, Result<Decision>>,
    /// There once a SKU was sold out.
    front: RwLock<Option<Arc<Front>>>,
    desk: Desk,
}

/// What asking Redis about one sale takes.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) link: Arc<Link>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) keys: Arc<Keys>,
    pub(super) lease: Duration,
}

/// A claim, and how it is written down while it is pending.
struct Asked {
    claim: Claim,
    body: Vec<u8>,
}

/// What the server made of a claim.
enum Decision {
    Done(Admission),
    /// Units are there again, and somebody may still say "sold out" so long: ask again then.
    Leased(Duration),
}

impl Lane {
    /// A lane whose batches leave until nobody holds it any more.
    pub(super) fn new(sale: &SaleId, link: Arc<Link>, clock: Arc<dyn Clock>, lease: Duration) -> Arc<Lane> {
        let (claims, batches) = batcher(limits::GATE_WAITING_MAX);
        let desk = Desk { link, clock, keys: Arc::new(Keys::new(sale)), lease };
        let lane = Arc::new(Lane { claims, front: RwLock::default(), desk: desk.clone() });
        tokio::spawn(send_batches(batches, desk, Arc::downgrade(&lane)));
        lane
    }

    /// What the front says of an order, if something is sold out.
    pub(super) async fn refuse(&self, order: &Order) -> Result<Option<Refusal>> {
        let Some(front) = self.front() else { return Ok(None) };
        front.refuse(order).await
    }

    pub(super) async fn admit(&self, claim: &Claim) -> Result<Admission> {
        if let Claim::Order(order) = claim
            && let Some(refusal) = self.refuse(order).await?
        {
            return Ok(Admission::Refused(refusal));
        }
        loop {
            let asked = Asked { claim: claim.clone(), body: write_claim(claim)? };
            match self.claims.call(asked).await.map_err(gone)?? {
                Decision::Done(admission) => return Ok(admission),
                Decision::Leased(time) => self.desk.clock.sleep(time).await,
            }
        }
    }

    fn front(&self) -> Option<Arc<Front>> {
        self.front.read().expect("no holder panics").clone()
    }

    /// Something is sold out: from now on, requests for it ask the front.
    fn shut(self: &Arc<Self>, stamp: &str, skus: &str, sold_out: impl Iterator<Item = (usize, bool)>) {
        let mut front = self.front.write().expect("no holder panics");
        let same = front.take().filter(|front| front.is_of(stamp));
        let there = same.unwrap_or_else(|| Front::new(&self.desk, stamp, skus, Arc::downgrade(self)));
        sold_out.for_each(|(sku, may_return)| there.shut(sku, may_return));
        *front = Some(there);
    }

    /// The front of this load has become wrong or useless.
    pub(super) fn forget_front(&self, stamp: &str) {
        let mut front = self.front.write().expect("no holder panics");
        if front.as_ref().is_some_and(|front| front.is_of(stamp)) {
            *front = None;
        }
    }
}

/// Why a batcher gave no answer.
pub(super) fn gone(gone: Gone) -> Error {
    match gone {
        Gone::Full => Error::Overloaded("the gate"),
        Gone::Dropped => {
            Error::Unavailable { layer: "gate", why: "this process is stopping".to_owned(), effect: Effect::Unknown }
        }
    }
}

async fn send_batches(mut batches: Batches<Asked, Result<Decision>>, desk: Desk, lane: Weak<Lane>) {
    let slots = Arc::new(Semaphore::new(limits::GATE_BATCHES_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("it is never closed");
        let Some(waiting) = batches.next(limits::GATE_BATCH_CLAIMS_MAX).await else { return };
        let (desk, lane) = (desk.clone(), lane.clone());
        let mut batch = Box::pin(async move {
            answer_batch(waiting, &desk, &lane).await;
            drop(slot);
        });
        // It goes to the wire here, so that batches leave in the sequence of their claims; its answer is awaited elsewhere.
        if poll_fn(|context| Poll::Ready(batch.as_mut().poll(context))).await.is_pending() {
            tokio::spawn(batch);
        }
    }
}

async fn answer_batch(waiting: Vec<Waiting<Asked, Result<Decision>>>, desk: &Desk, lane: &Weak<Lane>) {
    match decide(&waiting, desk, lane).await {
        Ok(decisions) => {
            for (asked, decision) in waiting.into_iter().zip(decisions) {
                asked.answer(Ok(decision));
            }
        }
        Err(error) => waiting.into_iter().for_each(|asked| asked.answer(Err(error.clone()))),
    }
}

async fn decide(waiting: &[Waiting<Asked, Result<Decision>>], desk: &Desk, lane: &Weak<Lane>) -> Result<Vec<Decision>> {
    let mut call = ADMIT.over(desk.keys.all()).arg(desk.clock.now().millis());
    for Waiting { item: Asked { claim, body }, .. } in waiting {
        let customer = match claim {
            Claim::Order(order) => order.customer.as_str(),
            Claim::Withdrawal(_) => "",
        };
        call.push(&claim.id().0[..]);
        call.push(customer);
        call.push(&body[..]);
        call.push(claim.lines().len());
        for line in claim.lines() {
            call.push(line.sku.as_str());
            call.push(line.quantity.get());
        }
    }
    let Ok(mut answer) = Answer::read(desk.link.run(&call).await?)? else {
        return Ok(waiting.iter().map(|_| Decision::Done(Admission::Unloaded)).collect());
    };
    let (epoch, stamp, skus) = (Epoch(answer.number()?), answer.text()?, answer.text()?);
    let mut decisions = Vec::with_capacity(waiting.len());
    let mut sold_out = Vec::new();
    for asked in waiting {
        let claim = &asked.item.claim;
        let Some(word) = answer.next() else { return Err(damaged("a script left claims unanswered")) };
        decisions.push(read_decision(word, claim, epoch, &mut sold_out)?);
    }
    if !sold_out.is_empty()
        && let Some(lane) = lane.upgrade()
    {
        let index = |name: &str| skus.split('\n').position(|sku| sku == name);
        let indices = sold_out.iter().filter_map(|(sku, may_return)| Some((index(sku.as_str())?, *may_return)));
        lane.shut(&stamp, &skus, indices);
    }
    Ok(decisions)
}

/// Reads one answer, and notes a SKU of which nothing is left.
fn read_decision(
    word: redis::Value,
    claim: &Claim,
    epoch: Epoch,
    sold_out: &mut Vec<(crate::model::Sku, bool)>,
) -> Result<Decision> {
    let (code, mut rest) = match word {
        redis::Value::Int(code) => (code, Answer::default()),
        word => {
            let Ok(mut list) = Answer::read(word)? else { return Err(damaged("a script answered a word for a claim")) };
            (list.number()?, list)
        }
    };
    Ok(Decision::Done(match code {
        0 => Admission::Unloaded,
        1 => Admission::Admitted(epoch),
        2 => Admission::Repeat(match rest.is_empty() {
            true => None,
            false => Some((read_claim(&rest.bytes()?)?, epoch)),
        }),
        3 => {
            let line = rest.number::<usize>()?.checked_sub(1).and_then(|line| claim.lines().get(line));
            let sku = line.ok_or_else(|| damaged("a script named a line that does not exist"))?.sku.clone();
            let (may_return, left) = (rest.flag()?, rest.units()?);
            if left.get() == 0 {
                sold_out.push((sku.clone(), may_return));
            }
            Admission::Refused(Refusal::SoldOut { sku, may_return })
        }
        4 => Admission::Refused(Refusal::LimitReached { limit: rest.units()?, used: rest.units()? }),
        5 => {
            let opens_at = if rest.is_empty() { None } else { Some(Time::from_millis(rest.number()?)) };
            Admission::Refused(Refusal::NotOpen { opens_at })
        }
        6 => Admission::Refused(Refusal::Paused),
        7 => Admission::Refused(Refusal::Ended),
        8 => return Ok(Decision::Leased(Duration::from_millis(rest.number()?))),
        other => return Err(damaged(&format!("a script answered {other} for a claim"))),
    }))
}

/// A claim as it is written down while it is pending.
pub(super) fn write_claim(claim: &Claim) -> Result<Vec<u8>> {
    serde_json::to_vec(claim).map_err(|error| damaged(&error.to_string()))
}

/// The same, read again.
pub(super) fn read_claim(body: &[u8]) -> Result<Claim> {
    serde_json::from_slice(body).map_err(|error| damaged(&format!("a pending claim is unreadable: {error}")))
}
