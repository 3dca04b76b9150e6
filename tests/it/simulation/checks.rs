//! Whether the promises are kept: what holds after every step, and once more when all has come to rest.

use std::sync::atomic::Ordering;

use sluice::gate::GateView;
use sluice::ledger::{Books, EpochStage, Move, MoveKind, SaleRecord};
use sluice::model::{Customer, OrderId, OrderRecord, OrderState, Reason, SaleState, Seq, Time, same_lines};

use super::clocks::TOLERANCE_MS;
use super::promises::{
    ADJUSTED, BACK, CONFIRMED, CONSERVED, DRAINED, EQUAL, FOLLOWS, KEPT, LIMIT, NOTHING, ON_TIME, OVERSOLD, PENDING,
    Promises, RECOUNT, REFUSED, SAME_KEY, Tally, UNASKED, Wish,
};
use super::world::{World, at_once};

/// How long after its time a hold may still be there, once all is well.
const LAPSE_LATE_MS_MAX: i64 = 1_000;

impl World {
    /// Checks what was touched since the last check.
    pub(crate) fn check(&self) {
        let ledger = self.ledger_touched.swap(false, Ordering::Relaxed);
        let gates = self.gates_touched.swap(0, Ordering::Relaxed);
        if ledger || gates != 0 {
            self.promises.iter().for_each(|promises| promises.check(self, ledger, gates));
        }
    }
}

impl Promises {
    /// What holds at every moment. The gates are a bit each.
    fn check(&self, world: &World, ledger: bool, gates: usize) {
        let mut tally = self.tally();
        if ledger {
            world.ledger.look(&self.sale, |record, journal, orders| {
                let seen = usize::try_from(tally.watermark.0).expect("a short journal");
                if journal.len() > seen {
                    tally.watermark = record.watermark;
                    for (step, _) in &journal[seen..] {
                        tally.follow(record, step);
                        timely(world, step);
                    }
                    self.check_ledger(world, record, orders.values(), &tally);
                }
            });
        }
        let epoch = world.ledger.record(&self.sale, |record| record.epoch.epoch);
        for (index, server) in world.gates.iter().enumerate().filter(|(index, _)| gates & (1 << index) != 0) {
            let current = |view: &GateView| view.live && view.epoch == epoch;
            if let Some(view) = server.view(&self.sale).filter(current) {
                check_gate(world, index, &view, &tally);
            }
        }
    }

    fn check_ledger<'a>(
        &self,
        world: &World,
        record: &SaleRecord,
        rows: impl Iterator<Item = &'a OrderRecord>,
        tally: &Tally,
    ) {
        let mut counted = vec![(0, 0); record.sale.items.len()];
        let mut used: Vec<(&Customer, u32)> = Vec::new();
        for row in rows {
            self.check_order(world, row, tally.orders.get(&row.order.id));
            if !matches!(row.state, OrderState::Held | OrderState::Sold) {
                continue;
            }
            for line in &row.order.lines {
                let index = record.sale.items.iter().position(|item| item.sku == line.sku).expect("it was settled");
                let (held, sold) = &mut counted[index];
                *(if row.state == OrderState::Held { held } else { sold }) += line.quantity.get();
            }
            let units: u32 = row.order.lines.iter().map(|line| line.quantity.get()).sum();
            match used.iter_mut().find(|(customer, _)| **customer == row.order.customer) {
                Some((_, sum)) => *sum += units,
                None => used.push((&row.order.customer, units)),
            }
        }
        for (index, (places, counted)) in record.places.iter().zip(&counted).enumerate() {
            let available = tally.available[index].last().copied().unwrap_or(0);
            let item = &record.sale.items[index].sku;
            if *counted != (places.held.get(), places.sold.get()) || available != i64::from(places.available.get()) {
                world.sim.violated(CONSERVED, format!("{item}: {places:?}, counted {counted:?} and {available}"));
            }
            if !places.conserved() || counted.0 + counted.1 > places.stock.get() {
                world.sim.violated(OVERSOLD, format!("{item}: {places:?}"));
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
        self.check(world, true, usize::MAX);
        let record = at_once(world.ledger.sale(&self.sale)).expect("the sale is there");
        for (id, wish) in &self.tally().orders {
            self.check_wish(world, *id, wish);
        }
        for (id, delta) in &self.tally().adjusted {
            if at_once(world.ledger.adjustment(*id)).is_none_or(|adjustment| adjustment.delta != *delta) {
                world.sim.violated(ADJUSTED, format!("{id} by {delta}"));
            }
        }
        let waiting: Vec<_> = world.shards.iter().flat_map(|shard| shard.waiting()).collect();
        if !waiting.is_empty() {
            world.sim.violated(DRAINED, format!("{waiting:?}"));
        }
        let findings = at_once(world.ledger.recount(&self.sale)).expect("the sale is there").findings;
        if !findings.is_empty() {
            world.sim.violated(RECOUNT, format!("{findings:?}"));
        }
        let view = world.gates[primary].view(&self.sale);
        if record.sale.window.state(world.time.now()) != SaleState::Ended || view.is_some() {
            self.check_gate_at_rest(world, &record, view);
        }
    }

    fn check_wish(&self, world: &World, id: OrderId, wish: &Wish) {
        let row = at_once(world.ledger.order(id));
        if row.is_none() && wish.promised.is_some() {
            world.sim.violated(KEPT, format!("{id} is nowhere"));
        }
        let Some(row) = row else { return };
        if wish.unknown == 0 && wish.promised.is_none() {
            world.sim.violated(NOTHING, format!("{row:?}"));
        }
        if is_overdue(&row, world.time.now()) {
            world.sim.violated(ON_TIME, format!("{} is held at {}", id, world.time.now()));
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

/// Whether the hold should have lapsed a while ago.
pub(super) fn is_overdue(row: &OrderRecord, now: Time) -> bool {
    let overdue = row.expires_at.is_some_and(|end| end.millis() + LAPSE_LATE_MS_MAX < now.millis());
    row.state == OrderState::Held && overdue
}

impl Tally {
    fn follow(&mut self, record: &SaleRecord, step: &Move) {
        self.available.resize_with(record.sale.items.len(), || vec![0]);
        for (item, after) in record.sale.items.iter().zip(&mut self.available) {
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

/// The ledger writes down its own time, whatever the process that writes believes.
fn timely(world: &World, step: &Move) {
    let now = world.time.now().millis();
    if world.time.is_known_since(world.sim.now()) && (now - step.at.millis()).abs() > TOLERANCE_MS {
        world.sim.violated(ON_TIME, format!("{step:?} was written at {now}"));
    }
}

/// At every watermark, available and pending at the gate are what the ledger had available.
fn check_gate(world: &World, gate: usize, view: &GateView, tally: &Tally) {
    let at = usize::try_from(view.watermark.0).unwrap_or(usize::MAX);
    for (item, after) in view.items.iter().zip(&tally.available) {
        let there = after.get(at).copied();
        let here = i64::from(item.available.get()) + i64::from(item.pending.get());
        if there != Some(here) {
            let detail = format!("gate {gate}: {item:?} at #{}, the ledger had {there:?}", Seq(view.watermark.0));
            world.sim.violated(FOLLOWS, detail);
        }
    }
}
