//! The gate in Redis or Valkey: one script call per batch of claims, and every process sees the same units.
//!
//! Redis is believed only what it can prove to remember. When a sale is loaded, the server's replication id is
//! noted beside it; every script compares it before it answers. After a restart with an old dump, or on a replica that
//! took over and may have missed writes, it differs, and the gate knows nothing: [`Admission::Unloaded`], never "sold
//! out", until the sale is loaded from the ledger. The same holds if a key is missing or of a wrong type.
//!
//! Of a sale it keeps five keys in one slot of a cluster, see `prelude.lua`. An order takes about 100 bytes there, and
//! its lines as long as it is pending.

mod front;
mod inspect;
mod lane;
mod link;
mod load;
mod script;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::lane::{Lane, read_claim};
use self::link::Link;
use self::script::{Answer, Call, FIND, FOLLOW, Keys, OPEN, PENDING, VIEW, damaged};
use super::{Admission, Gate, GateItem, GateView, Refusal};
use crate::clock::Clock;
use crate::model::{Claim, Effect, Epoch, Error, Move, Order, OrderId, Result, SaleId, Seq, Sku, Snapshot, limits};
use crate::remote::Unusable;

/// How often a reading of the pending claims begins again because the gate was loaded meanwhile.
const READINGS_MAX: usize = 3;

/// Keeps every sale in Redis.
pub struct RedisGate {
    link: Arc<Link>,
    clock: Arc<dyn Clock>,
    /// How long an answer of "sold out" may be repeated without a question.
    lease: Duration,
    lanes: RwLock<HashMap<SaleId, Arc<Lane>>>,
    /// Loads of this process, so that no two share their keys.
    loads: AtomicU64,
}

impl RedisGate {
    /// Connects to the Redis or Valkey of this URL (`redis://`, `rediss://`, `valkey://`, `redis+unix://`), a single server
    /// or any node of a cluster, and looks whether it is fit: version 7 or later, and no eviction. It must run within a
    /// tokio runtime, in which it stays. A connection that is lost later is replaced by itself; meanwhile answers are
    /// [`Error::Unavailable`].
    ///
    /// What the server called sold out may be called so for the time of the lease without asking it, and meanwhile the server
    /// admits nothing of that SKU; a lease of zero asks about every request. All processes at one server need the same one,
    /// in whole milliseconds: [`limits::GATE_LEASE`].
    pub async fn connect(url: &str, clock: Arc<dyn Clock>, lease: Duration) -> Result<RedisGate, Unusable> {
        let link = Link::connect(url, clock.clone()).await?;
        Ok(RedisGate { link, clock, lease, lanes: RwLock::default(), loads: AtomicU64::new(0) })
    }

    /// Where the server is, for people; never the password.
    pub fn name(&self) -> String {
        self.link.name()
    }

    fn lane(&self, sale: &SaleId) -> Arc<Lane> {
        if let Some(lane) = self.lanes.read().expect("no holder panics").get(sale) {
            return lane.clone();
        }
        let mut lanes = self.lanes.write().expect("no holder panics");
        let lane = lanes.entry(sale.clone());
        lane.or_insert_with(|| Lane::new(sale, self.link.clone(), self.clock.clone(), self.lease)).clone()
    }

    /// Nothing is kept of a sale that the gate does not know: the last one to leave its lane closes it.
    fn leave(&self, sale: &SaleId, lane: &Arc<Lane>) {
        // The map's and ours: whoever takes another one must get it from the map, which is locked.
        let last = || Arc::strong_count(lane) <= 2;
        if last() {
            let mut lanes = self.lanes.write().expect("no holder panics");
            if last() && lanes.get(sale).is_some_and(|there| Arc::ptr_eq(there, lane)) {
                lanes.remove(sale);
            }
        }
    }

    /// Runs a script; the word why it knows nothing in place of an answer is for nobody but a debugger.
    async fn ask(&self, call: Call) -> Result<Option<Answer>> {
        Ok(Answer::read(self.link.run(&call).await?)?.ok())
    }
}

#[async_trait]
impl Gate for RedisGate {
    async fn admit(&self, claim: &Claim) -> Result<Admission> {
        let lane = self.lane(claim.sale());
        let admission = lane.admit(claim).await;
        if let Ok(Admission::Unloaded) = admission {
            self.leave(claim.sale(), &lane);
        }
        admission
    }

    async fn refuse(&self, order: &Order) -> Result<Option<Refusal>> {
        let lane = self.lanes.read().expect("no holder panics").get(&order.sale).cloned();
        match lane {
            Some(lane) => lane.refuse(order).await,
            None => Ok(None),
        }
    }

    async fn load(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        self.load_snapshot(snapshot, epoch).await
    }

    async fn open(&self, sale: &SaleId, epoch: Epoch) -> Result<bool> {
        let call = OPEN.over(Keys::new(sale).all()).arg(epoch.0);
        Ok(self.ask(call).await?.is_some())
    }

    async fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Result<Option<Seq>> {
        let keys = Keys::new(sale);
        let (first, later) = moves.split_at(moves.len().min(limits::JOURNAL_PAGE_MOVES_MAX));
        let mut applied = None;
        for page in std::iter::once(first).chain(later.chunks(limits::JOURNAL_PAGE_MOVES_MAX)) {
            let mut call = FOLLOW.over(keys.all()).arg(epoch.0);
            page.iter().for_each(|step| push_move(&mut call, step));
            let Some(mut answer) = self.ask(call).await? else { return Ok(None) };
            applied = Some(Seq(answer.number()?));
        }
        Ok(applied)
    }

    async fn pending(&self, sale: &SaleId) -> Result<Vec<(Claim, Epoch)>> {
        let keys = Keys::new(sale);
        for _reading in 0..READINGS_MAX {
            if let Some(Pending { claims, epoch, .. }) = self.read_pending(&keys).await? {
                return Ok(claims.into_values().map(|claim| (claim, epoch)).collect());
            }
        }
        Err(restless())
    }

    async fn find(&self, sale: &SaleId, id: OrderId) -> Result<Option<(Claim, Epoch)>> {
        let call = FIND.over(Keys::new(sale).all()).arg(&id.0[..]);
        let Some(mut answer) = self.ask(call).await? else { return Ok(None) };
        let epoch = Epoch(answer.number()?);
        if answer.is_empty() {
            return Ok(None);
        }
        Ok(Some((read_claim(&answer.bytes()?)?, epoch)))
    }

    async fn view(&self, sale: &SaleId) -> Result<Option<GateView>> {
        let call = VIEW.over(Keys::new(sale).all());
        let Some(mut answer) = self.ask(call).await? else { return Ok(None) };
        let (epoch, live) = (Epoch(answer.number()?), answer.flag()?);
        let (watermark, pending, skus) = (Seq(answer.number()?), answer.number()?, answer.text()?);
        let mut items = Vec::new();
        for sku in skus.split('\n') {
            let sku = Sku::new(sku).map_err(|invalid| damaged(&invalid.0))?;
            items.push(GateItem { sku, available: answer.units()?, pending: answer.units()? });
        }
        Ok(Some(GateView { epoch, live, watermark, pending, items }))
    }
}

impl RedisGate {
    /// All pending claims, page by page; `None` if the gate was loaded between two pages.
    async fn read_pending(&self, keys: &Keys) -> Result<Option<Pending>> {
        let mut pending = Pending::default();
        let mut cursor = "0".to_owned();
        loop {
            let call = PENDING.over(keys.all()).arg(&cursor).arg(limits::GATE_PENDING_PAGE_CLAIMS);
            let Some(mut answer) = self.ask(call).await? else { return Ok(Some(Pending::default())) };
            let (epoch, stamp) = (Epoch(answer.number()?), answer.text()?);
            cursor = answer.text()?;
            if !pending.stamp.is_empty() && pending.stamp != stamp {
                return Ok(None);
            }
            (pending.epoch, pending.stamp) = (epoch, stamp);
            while !answer.is_empty() {
                let claim = read_claim(&answer.bytes()?)?;
                pending.claims.insert(claim.id(), claim);
            }
            if cursor == "0" {
                return Ok(Some(pending));
            }
        }
    }
}

/// What was pending in one memory of a sale.
#[derive(Default)]
struct Pending {
    claims: HashMap<OrderId, Claim>,
    epoch: Epoch,
    /// Which memory; empty if there is none that can be trusted.
    stamp: String,
}

fn restless() -> Error {
    let why = "it is loaded again and again".to_owned();
    Error::Unavailable { layer: "gate", why, effect: Effect::None }
}

fn push_move(call: &mut Call, step: &Move) {
    call.push(step.seq.0);
    call.push(step.kind.word());
    call.push(step.at.millis());
    call.push(step.claim.as_ref().map_or(&[][..], |id| &id.0));
    call.push(step.customer.as_ref().map_or("", |customer| customer.as_str()));
    call.push(step.lines.len());
    for line in &step.lines {
        call.push(line.sku.as_str());
        call.push(line.quantity.get());
    }
}
