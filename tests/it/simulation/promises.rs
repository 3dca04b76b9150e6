//! What was promised to whom. `checks` says whether it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sluice::adjustment::Adjusted;
use sluice::checkout::Placement;
use sluice::gate::Refusal;
use sluice::ledger::{Turn, Turned};
use sluice::model::{
    Claim, Effect, Line, Order, OrderId, OrderRecord, OrderState, Result, SaleId, Seq, Time, Units, same_lines,
};

use super::clocks::TOLERANCE_MS;
use super::gate::GateServer;
use super::world::World;

// The promises by name.
pub(crate) const KEPT: &str = "an accepted order is kept";
pub(crate) const REFUSED: &str = "an accepted order is never refused";
pub(crate) const RETRY: &str = "a retry gets its order";
pub(crate) const SAME_KEY: &str = "same key, same order";
pub(crate) const FALSE_NO: &str = "no false sold out";
pub(crate) const UNASKED: &str = "no order without a request";
pub(crate) const CONFIRMED: &str = "confirmed is sold";
pub(crate) const ADJUSTED: &str = "an adjustment is kept";
pub(crate) const LIMIT: &str = "the limit per customer";
pub(crate) const CONSERVED: &str = "conservation";
pub(crate) const OVERSOLD: &str = "oversold";
pub(crate) const NOTHING: &str = "effect none left nothing";
pub(crate) const DRAINED: &str = "the queue is drained";
pub(crate) const RECOUNT: &str = "the recount finds nothing";
pub(crate) const BACK: &str = "the gate comes back";
pub(crate) const PENDING: &str = "nothing is left pending";
pub(crate) const EQUAL: &str = "the gate equals the ledger";
pub(crate) const FOLLOWS: &str = "the gate follows the ledger";
pub(crate) const SELLS: &str = "all of it sells";
pub(crate) const WINDOW: &str = "nobody is turned away by a wrong clock";
pub(crate) const ON_TIME: &str = "holds lapse on the ledger's time";
pub(crate) const SOON: &str = "full service soon after the last fault";

/// Everything the checker knows of one sale.
pub(crate) struct Promises {
    pub(crate) sale: SaleId,
    pub(crate) limit: Option<Units>,
    pub(super) closes_at: Option<Time>,
    tally: Mutex<Tally>,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) orders: BTreeMap<OrderId, Wish>,
    pub(super) adjusted: BTreeMap<OrderId, i64>,
    /// Asked of a gate that others had already replaced; what such a one refuses is not the ledger's word.
    stale: BTreeSet<OrderId>,
    pub(super) watermark: Seq,
    /// Per item, what was available after each move; the first entry is before the first move.
    pub(super) available: Vec<Vec<i64>>,
}

/// One order, as its customer knows it.
#[derive(Default)]
pub(super) struct Wish {
    /// Requests that were not answered, or with "it may have happened".
    pub(super) unknown: usize,
    pub(super) promised: Option<Vec<Line>>,
    pub(super) confirmed: bool,
    pub(super) cancelled: bool,
    /// The last answer was neither yes nor no.
    open: Option<Arc<Order>>,
}

impl Promises {
    pub(crate) fn new(sale: &sluice::model::Sale) -> Self {
        let (limit, closes_at) = (sale.per_customer_limit, sale.window.closes_at);
        Self { sale: sale.id.clone(), limit, closes_at, tally: Mutex::default() }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no holder panics")
    }

    /// A customer asks.
    pub(crate) fn asked(&self, order: &Arc<Order>) {
        let mut tally = self.tally();
        let wish = tally.orders.entry(order.id).or_default();
        wish.unknown += 1;
        wish.open.get_or_insert_with(|| order.clone());
    }

    /// Orders that were accepted.
    pub(crate) fn promised(&self) -> Vec<OrderId> {
        let tally = self.tally();
        tally.orders.iter().filter(|(_, wish)| wish.promised.is_some()).map(|(id, _)| *id).collect()
    }

    /// Whether this order was accepted.
    pub(crate) fn is_promised(&self, id: OrderId) -> bool {
        self.tally().orders.get(&id).is_some_and(|wish| wish.promised.is_some())
    }

    /// Orders whose customers would ask again.
    pub(crate) fn open(&self) -> Vec<Arc<Order>> {
        self.tally().orders.values().filter_map(|wish| wish.open.clone()).collect()
    }

    /// Whether there are any.
    pub(crate) fn any_open(&self) -> bool {
        self.tally().orders.values().any(|wish| wish.open.is_some())
    }

    /// The gate's no, at the moment it is given, to what was asked at that moment of the run.
    pub(crate) fn refused(
        &self,
        world: &World,
        server: &GateServer,
        claim: &Claim,
        refusal: &Refusal,
        asked: Duration,
    ) {
        let view = server.view(&self.sale);
        if let Refusal::SoldOut { sku, .. } = refusal {
            let wanted = claim.lines().iter().find(|line| line.sku == *sku).map(|line| line.quantity);
            let item = view.as_ref().and_then(|view| view.items.iter().find(|item| item.sku == *sku));
            if item.is_none_or(|item| Some(item.available) >= wanted) {
                world.sim.violated(FALSE_NO, format!("{claim:?} was refused by {view:?}"));
            }
        }
        self.timely(world, refusal, asked);
        let epoch = world.ledger.record(&self.sale, |record| record.epoch.epoch);
        let mut tally = self.tally();
        if view.is_some_and(|view| view.epoch < epoch) {
            tally.stale.insert(claim.id());
        } else if tally.orders.get(&claim.id()).is_some_and(|wish| wish.promised.is_some()) {
            let detail = format!("the gate said {refusal:?} to {}, which was accepted", claim.id());
            world.sim.violated(RETRY, detail);
        }
    }

    /// The ledger's time decides whether a sale is open yet, or over.
    fn timely(&self, world: &World, refusal: &Refusal, asked: Duration) {
        if !world.time.is_known_since(asked) {
            return;
        }
        let now = world.time.now().millis();
        let then = now - i64::try_from((world.sim.now() - asked).as_millis()).expect("a short run");
        let right = match refusal {
            Refusal::NotOpen { opens_at: Some(opens_at) } => then - TOLERANCE_MS < opens_at.millis(),
            Refusal::Ended => self.closes_at.is_some_and(|end| end.millis() <= now + TOLERANCE_MS),
            _ => true,
        };
        if !right {
            world.sim.violated(WINDOW, format!("{refusal:?} was said at {now}"));
        }
    }

    /// The shop's answer to a customer; `promised_before` says whether the order was accepted when this was asked.
    pub(crate) fn answered(&self, world: &World, order: &Order, before: bool, answer: &Result<Placement>) {
        world.sim.note(|| format!("{:.40} to {} for {:?}", format!("{answer:?}"), order.id, quantities(&order.lines)));
        let mut tally = self.tally();
        let stale = tally.stale.contains(&order.id);
        let wish = tally.orders.get_mut(&order.id).expect("it was asked before");
        let nothing = match answer {
            Ok(Placement::Accepted(record) | Placement::Repeat(record)) => {
                self.keep(world, wish, order, record);
                false
            }
            Ok(
                Placement::Refused(Refusal::SoldOut { .. })
                | Placement::Refused(Refusal::LimitReached { .. })
                | Placement::Refused(Refusal::Ended),
            ) => {
                wish.open = None;
                if before && !stale {
                    let detail = format!("{} was accepted, then {answer:?}", order.id);
                    world.sim.violated(RETRY, detail);
                }
                true
            }
            Ok(Placement::KeyReused) => {
                wish.open = None;
                // Before the promise, another cart under the same key may have been pending, and forgotten since.
                if before && wish.promised.as_ref().is_some_and(|lines| same_lines(lines, &order.lines)) {
                    world.sim.violated(SAME_KEY, format!("{} is said to be another", order.id));
                }
                true
            }
            Ok(
                Placement::Refused(Refusal::NotOpen { .. })
                | Placement::Refused(Refusal::Paused)
                | Placement::UnknownSale,
            ) => true,
            Ok(Placement::Unavailable(effect)) => *effect == Effect::None,
            Err(error) => error.effect() == Effect::None,
        };
        wish.unknown -= usize::from(nothing);
    }

    fn keep(&self, world: &World, wish: &mut Wish, order: &Order, record: &OrderRecord) {
        wish.open = None;
        if record.order.id != order.id || !same_lines(&record.order.lines, &order.lines) {
            world.sim.violated(SAME_KEY, format!("{order:?} was answered with {record:?}"));
        }
        match &wish.promised {
            Some(lines) if !same_lines(lines, &order.lines) => {
                world.sim.violated(SAME_KEY, format!("{order:?} was {lines:?} before"));
            }
            Some(_) => {}
            None if record.state == OrderState::Refused => {}
            None => wish.promised = Some(order.lines.clone()),
        }
    }

    /// The shop's answer to a confirm or cancel.
    pub(crate) fn turned(&self, world: &World, id: OrderId, turn: Turn, answer: &Result<Turned>) {
        world.sim.note(|| format!("{turn:?} {id}: {:.40}", format!("{answer:?}")));
        let (Ok(Turned::Done(record, _)) | Ok(Turned::Already(record))) = answer else { return };
        let mut tally = self.tally();
        let wish = tally.orders.get_mut(&id).expect("only accepted orders are turned");
        let expected = match turn {
            Turn::Confirm => (std::mem::replace(&mut wish.confirmed, true), OrderState::Sold).1,
            Turn::Cancel => (std::mem::replace(&mut wish.cancelled, true), OrderState::Released).1,
        };
        if record.state != expected {
            world.sim.violated(CONFIRMED, format!("{turn:?} of {id} was answered with {record:?}"));
        }
    }

    /// The shop's answer to an operator.
    pub(crate) fn adjusted(&self, world: &World, id: OrderId, delta: i64, answer: &Result<Adjusted>) {
        world.sim.note(|| format!("adjust by {delta}: {:.40}", format!("{answer:?}")));
        if let Ok(Adjusted::Done(adjustment) | Adjusted::Repeat(adjustment)) = answer {
            if adjustment.delta != delta || adjustment.id != id {
                world.sim.violated(SAME_KEY, format!("{delta} was answered with {adjustment:?}"));
            }
            self.tally().adjusted.insert(id, delta);
        }
    }
}

fn quantities(lines: &[Line]) -> Vec<(&str, u32)> {
    lines.iter().map(|line| (line.sku.as_str(), line.quantity.get())).collect()
}
