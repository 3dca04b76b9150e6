//! What was promised to whom, and whether it is kept: checked after every step, and once more when all has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use sluice::adjustment::Adjusted;
use sluice::checkout::Placement;
use sluice::gate::{Admission, GateView, Refusal};
use sluice::ledger::{Books, EpochStage, Move, MoveKind, SaleRecord, Turn, Turned};
use sluice::model::{
    Claim, Customer, Effect, Line, Order, OrderId, OrderRecord, OrderState, Reason, Result, SaleId, SaleState, Seq,
    Sku, Units, same_lines,
};

use super::faults::{World, at_once};

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

/// Everything the checker knows.
pub(crate) struct Promises {
    sale: SaleId,
    limit: Option<Units>,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    orders: BTreeMap<OrderId, Wish>,
    adjusted: BTreeMap<OrderId, i64>,
    /// Asked of a gate that others had already replaced; what such a one refuses is not the ledger's word.
    stale: BTreeSet<OrderId>,
    watermark: Seq,
    /// Per SKU, what was available after each move; the first entry is before the first move.
    available: BTreeMap<Sku, Vec<i64>>,
}

/// One order, as its customer knows it.
#[derive(Default)]
struct Wish {
    /// Requests that were not answered, or with "it may have happened".
    unknown: usize,
    promised: Option<Vec<Line>>,
    confirmed: bool,
    cancelled: bool,
    /// The last answer was neither yes nor no.
    open: Option<Arc<Order>>,
}

impl Promises {
    pub(crate) fn new(sale: SaleId, limit: Option<Units>) -> Self {
        Self { sale, limit, tally: Mutex::default() }
    }

    pub(crate) fn limit(&self) -> Option<Units> {
        self.limit
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
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

    /// Orders whose customers would ask again.
    pub(crate) fn open(&self) -> Vec<Arc<Order>> {
        self.tally().orders.values().filter_map(|wish| wish.open.clone()).collect()
    }

    /// The gate's answer, at the moment it is given.
    pub(crate) fn admission(&self, world: &World, view: Option<GateView>, claim: &Claim, admission: &Admission) {
        let no = match admission {
            Admission::Admitted(_) | Admission::Repeat(_) | Admission::Unloaded => return,
            Admission::Refused(Refusal::SoldOut { sku, .. }) => {
                let wanted = claim.lines().iter().find(|line| line.sku == *sku).map(|line| line.quantity);
                let item = view.as_ref().and_then(|view| view.items.iter().find(|item| item.sku == *sku));
                if item.is_none_or(|item| Some(item.available) >= wanted) {
                    world.sim.violated(FALSE_NO, format!("{claim:?} was refused by {view:?}"));
                }
                "sold out"
            }
            _ => "no",
        };
        let record = at_once(world.ledger.sale(&self.sale)).expect("the sale is there");
        let mut tally = self.tally();
        if view.is_some_and(|view| view.epoch < record.epoch.epoch) {
            tally.stale.insert(claim.id());
        } else if tally.orders.get(&claim.id()).is_some_and(|wish| wish.promised.is_some()) {
            let detail = format!("the gate said {no} to {}, which was accepted", claim.id());
            world.sim.violated(RETRY, detail);
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
                if wish.promised.as_ref().is_some_and(|lines| same_lines(lines, &order.lines)) {
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

    /// What holds at every moment.
    pub(crate) fn check(&self, world: &World) {
        let record = at_once(world.ledger.sale(&self.sale)).expect("the sale is there");
        let mut tally = self.tally();
        let news = at_once(world.ledger.journal(&self.sale, tally.watermark, usize::MAX));
        if !news.is_empty() {
            tally.watermark = record.watermark;
            news.iter().for_each(|step| tally.follow(&record, step));
            self.check_ledger(world, &record, &tally);
        }
        for server in &world.gates {
            let current = |view: &GateView| view.live && view.epoch == record.epoch.epoch;
            if let Some(view) = server.view(&self.sale).filter(current) {
                check_gate(world, &view, &tally);
            }
        }
    }

    fn check_ledger(&self, world: &World, record: &SaleRecord, tally: &Tally) {
        let mut held: BTreeMap<&Sku, u32> = BTreeMap::new();
        let mut sold: BTreeMap<&Sku, u32> = BTreeMap::new();
        let mut used: BTreeMap<Customer, u32> = BTreeMap::new();
        world.ledger.for_each_order(&self.sale, |row| {
            let wish = tally.orders.get(&row.order.id);
            self.check_order(world, row, wish);
            let places = match row.state {
                OrderState::Held => &mut held,
                OrderState::Sold => &mut sold,
                _ => return,
            };
            for line in &row.order.lines {
                let sku = &record.sale.item(&line.sku).expect("it was settled").sku;
                *places.entry(sku).or_default() += line.quantity.get();
                *used.entry(row.order.customer.clone()).or_default() += line.quantity.get();
            }
        });
        for (item, places) in record.sale.items.iter().zip(&record.places) {
            let counted = (held.get(&item.sku).copied().unwrap_or(0), sold.get(&item.sku).copied().unwrap_or(0));
            let available = tally.available[&item.sku].last().copied().unwrap_or(0);
            if counted != (places.held.get(), places.sold.get()) || available != i64::from(places.available.get()) {
                let detail = format!("{}: {places:?}, counted {counted:?} and {available}", item.sku);
                world.sim.violated(CONSERVED, detail);
            }
            if !places.conserved() || counted.0 + counted.1 > places.stock.get() {
                world.sim.violated(OVERSOLD, format!("{}: {places:?}", item.sku));
            }
        }
        for (customer, units) in used {
            if self.limit.is_some_and(|limit| units > limit.get()) {
                world.sim.violated(LIMIT, format!("{customer} has {units} units"));
            }
        }
    }

    fn check_order(&self, world: &World, row: &OrderRecord, wish: Option<&Wish>) {
        let id = row.order.id;
        let Some(wish) = wish else {
            world.sim.violated(UNASKED, format!("{row:?}"));
            return;
        };
        if row.state == OrderState::Refused && wish.promised.is_some() {
            world.sim.violated(REFUSED, format!("{id} for {:?}", row.reason));
        }
        if wish.promised.as_ref().is_some_and(|lines| !same_lines(lines, &row.order.lines)) {
            world.sim.violated(SAME_KEY, format!("{:?} was promised, {row:?} is kept", wish.promised));
        }
        if (wish.confirmed && row.state != OrderState::Sold) || (wish.cancelled && row.state != OrderState::Released) {
            world.sim.violated(CONFIRMED, format!("{row:?}"));
        }
        if row.reason == Some(Reason::Cancelled) && wish.promised.is_none() {
            world.sim.violated(UNASKED, format!("{id} was cancelled, and nobody knew it"));
        }
    }

    /// What holds once nothing goes wrong any more and everything has been done.
    pub(crate) fn check_at_rest(&self, world: &World, primary: usize) {
        self.check(world);
        let record = at_once(world.ledger.sale(&self.sale)).expect("the sale is there");
        for (id, wish) in &self.tally().orders {
            let row = at_once(world.ledger.order(*id));
            if row.is_none() && wish.promised.is_some() {
                world.sim.violated(KEPT, format!("{id} is nowhere"));
            }
            if row.is_some() && wish.unknown == 0 && wish.promised.is_none() {
                world.sim.violated(NOTHING, format!("{row:?}"));
            }
        }
        for (id, delta) in &self.tally().adjusted {
            if at_once(world.ledger.adjustment(*id)).is_none_or(|adjustment| adjustment.delta != *delta) {
                world.sim.violated(ADJUSTED, format!("{id} by {delta}"));
            }
        }
        let waiting = world.line.waiting();
        if !waiting.is_empty() {
            world.sim.violated(DRAINED, format!("{waiting:?}"));
        }
        let findings = at_once(world.ledger.recount(&self.sale)).expect("the sale is there").findings;
        if !findings.is_empty() {
            world.sim.violated(RECOUNT, format!("{findings:?}"));
        }
        let view = world.gates[primary].view(&self.sale);
        if record.sale.window.state(sluice::clock::Clock::now(&*world.sim)) != SaleState::Ended || view.is_some() {
            self.check_gate_at_rest(world, &record, view);
        }
    }

    fn check_gate_at_rest(&self, world: &World, record: &SaleRecord, view: Option<GateView>) {
        let Some(view) = view.filter(|view| view.live && record.epoch.stage == EpochStage::Live) else {
            let detail = format!("the ledger is at {:?}", record.epoch);
            return world.sim.violated(BACK, detail);
        };
        if view.epoch != record.epoch.epoch {
            world.sim.violated(BACK, format!("{view:?}, {:?}", record.epoch));
        }
        if view.pending > 0 {
            world.sim.violated(PENDING, format!("{view:?}"));
        }
        for (item, places) in view.items.iter().zip(&record.places) {
            if item.available != places.available {
                world.sim.violated(EQUAL, format!("{item:?}, {places:?}"));
            }
        }
    }
}

impl Tally {
    fn follow(&mut self, record: &SaleRecord, step: &Move) {
        for item in &record.sale.items {
            let after = self.available.entry(item.sku.clone()).or_insert_with(|| vec![0]);
            let units =
                step.lines.iter().filter(|line| line.sku == item.sku).map(|line| i64::from(line.quantity.get()));
            let units: i64 = units.sum();
            let change = match step.kind {
                MoveKind::Add | MoveKind::Cancel | MoveKind::Lapse => units,
                MoveKind::Withdraw | MoveKind::Hold | MoveKind::Sell => -units,
                _ => 0,
            };
            let last = after[after.len() - 1];
            after.push(last + change);
        }
    }
}

/// At every watermark, available and pending at the gate are what the ledger had available.
fn check_gate(world: &World, view: &GateView, tally: &Tally) {
    for item in &view.items {
        let at = usize::try_from(view.watermark.0).unwrap_or(usize::MAX);
        let there = tally.available.get(&item.sku).and_then(|after| after.get(at)).copied();
        let here = i64::from(item.available.get()) + i64::from(item.pending.get());
        if there != Some(here) {
            let detail = format!("{item:?} at #{}, the ledger had {there:?}", view.watermark);
            world.sim.violated(FOLLOWS, detail);
        }
    }
}

fn quantities(lines: &[Line]) -> Vec<(&str, u32)> {
    lines.iter().map(|line| (line.sku.as_str(), line.quantity.get())).collect()
}
