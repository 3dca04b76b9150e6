//! The part of the check that folds the journal by itself, move by move: what holds in the end held at every moment.

use std::collections::{HashMap, HashSet};

use super::{Broken, Case};
use crate::load::facts::{MoveFact, OrderFact};
use crate::model::{Customer, Line, MoveKind, OrderId, OrderState, Reason, Sku};

/// Where an item's units are; below zero if somebody took what was not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    available: i64,
    held: i64,
    sold: i64,
}

/// An order as its moves made it.
struct Life<'a> {
    state: OrderState,
    reason: Option<Reason>,
    lines: &'a [Line],
}

/// A fold under way.
#[derive(Default)]
struct Fold<'a> {
    last: u64,
    items: HashMap<&'a Sku, Sum>,
    lives: HashMap<OrderId, Life<'a>>,
    adjusted: HashSet<&'a str>,
    used: HashMap<&'a Customer, i64>,
    found: Vec<(Broken, Option<OrderId>, String)>,
}

impl Case<'_> {
    /// The journal has no gap, breaks no promise at any move, and comes to what the stock and the orders say.
    pub(super) fn journal(&mut self) {
        let limit = self.facts.per_customer_limit.map(|limit| i64::from(limit.get()));
        let mut fold = Fold::default();
        for step in &self.facts.journal {
            fold.step(step, limit);
            if let Some(order) = step.order.and_then(|id| self.listed.get(&id)) {
                fold.in_time(step, order);
            }
        }
        if self.facts.one_cut {
            self.fits_stock(&mut fold);
            self.fits_orders(&mut fold);
        }
        for (broken, order, detail) in fold.found {
            self.find(broken, order.into_iter().collect::<Vec<_>>(), detail);
        }
    }

    fn fits_stock(&self, fold: &mut Fold<'_>) {
        if fold.last != self.facts.watermark {
            let (last, watermark) = (fold.last, self.facts.watermark);
            let detail = format!("the journal ends at #{last}, the stock is of #{watermark}");
            fold.found.push((Broken::Journal, None, detail));
        }
        for item in &self.facts.items {
            let [available, held, sold] =
                [item.places.available, item.places.held, item.places.sold].map(|units| i64::from(units.get()));
            let (said, sum) = (Sum { available, held, sold }, fold.items.get(&item.sku).copied().unwrap_or_default());
            if said != sum {
                let detail = format!("the journal comes to {sum:?} of {}, the stock says {said:?}", item.sku);
                fold.found.push((Broken::Journal, None, detail));
            }
        }
    }

    fn fits_orders(&self, fold: &mut Fold<'_>) {
        for order in &self.facts.orders {
            let Some(life) = fold.lives.get(&order.id) else {
                fold.found.push((Broken::Journal, Some(order.id), "it is listed and has no move".into()));
                continue;
            };
            let other_reason = order.reason.is_some() && life.reason.is_some() && order.reason != life.reason;
            if life.state != order.state || other_reason {
                let (said, moved) = (order.state.word(), life.state.word());
                let detail = format!("it is listed as {said}, its moves say {moved}");
                fold.found.push((Broken::Journal, Some(order.id), detail));
            }
        }
        let unlisted = fold.lives.keys().filter(|id| !self.listed.contains_key(*id)).copied();
        let unlisted: Vec<_> =
            unlisted.map(|id| (Broken::Journal, Some(id), "it has moves and is not listed".to_owned())).collect();
        fold.found.extend(unlisted);
    }
}

impl<'a> Fold<'a> {
    fn find(&mut self, broken: Broken, step: &MoveFact, detail: &str) {
        self.found.push((broken, step.order, format!("move #{} {detail}", step.seq.0)));
    }

    fn step(&mut self, step: &'a MoveFact, limit: Option<i64>) {
        if step.seq.0 != self.last + 1 {
            self.find(Broken::Journal, step, &format!("follows #{}", self.last));
        }
        self.last = step.seq.0;
        self.units(step);
        match (step.order, step.adjustment.as_deref()) {
            (Some(order), _) => self.live(order, step),
            (None, Some(adjustment)) if step.kind != MoveKind::Refuse => self.adjust(adjustment, step),
            (None, _) => {}
        }
        self.customer(step, limit);
    }

    fn adjust(&mut self, adjustment: &'a str, step: &'a MoveFact) {
        if !self.adjusted.insert(adjustment) {
            self.find(Broken::Doubled, step, &format!("is a second one of {adjustment}"));
        }
    }

    fn units(&mut self, step: &'a MoveFact) {
        for line in &step.lines {
            let units = i64::from(line.quantity.get());
            let sum = self.items.entry(&line.sku).or_default();
            let (available, held, sold) = match step.kind {
                MoveKind::Add => (units, 0, 0),
                MoveKind::Withdraw => (-units, 0, 0),
                MoveKind::Hold => (-units, units, 0),
                MoveKind::Sell => (-units, 0, units),
                MoveKind::Confirm => (0, -units, units),
                MoveKind::Cancel | MoveKind::Lapse => (units, -units, 0),
                MoveKind::Refuse | MoveKind::Open | MoveKind::Pause | MoveKind::Resume | MoveKind::Close => (0, 0, 0),
            };
            (sum.available, sum.held, sum.sold) = (sum.available + available, sum.held + held, sum.sold + sold);
            let sum = *sum;
            if sum.available < 0 && available < 0 {
                let detail = format!("takes {units} units of {}, {} more than there are", line.sku, -sum.available);
                self.find(Broken::Oversold, step, &detail);
            }
            if sum.held < 0 && held < 0 {
                self.find(Broken::Conservation, step, &format!("takes {units} units of {} that nobody held", line.sku));
            }
        }
    }

    fn live(&mut self, order: OrderId, step: &'a MoveFact) {
        let (state, reason) = match step.kind {
            MoveKind::Hold => (OrderState::Held, None),
            MoveKind::Sell | MoveKind::Confirm => (OrderState::Sold, None),
            MoveKind::Cancel => (OrderState::Released, Some(Reason::Cancelled)),
            MoveKind::Lapse => (OrderState::Released, Some(Reason::Lapsed)),
            MoveKind::Refuse => (OrderState::Refused, None),
            _ => return self.find(Broken::Transition, step, "is none of an order"),
        };
        match self.lives.get_mut(&order) {
            None if step.kind.settles() => drop(self.lives.insert(order, Life { state, reason, lines: &step.lines })),
            None => self.find(Broken::Transition, step, "ends a hold that never began"),
            Some(_) if step.kind.settles() => self.find(Broken::Doubled, step, "settles it a second time"),
            Some(life) if life.state != OrderState::Held || life.lines != step.lines => {
                let detail = format!("is a {} of an order that is {}", step.kind.word(), life.state.word());
                self.find(Broken::Transition, step, &detail);
            }
            Some(life) => (life.state, life.reason) = (state, reason),
        }
    }

    fn customer(&mut self, step: &'a MoveFact, limit: Option<i64>) {
        let (Some(customer), Some(limit)) = (&step.customer, limit) else { return };
        let units: i64 = step.lines.iter().map(|line| i64::from(line.quantity.get())).sum();
        let used = self.used.entry(customer).or_default();
        match step.kind {
            MoveKind::Hold | MoveKind::Sell => *used += units,
            MoveKind::Cancel | MoveKind::Lapse => *used -= units,
            _ => return,
        }
        let used = *used;
        if used > limit {
            self.find(Broken::CustomerLimit, step, &format!("gives {customer} {used} units of {limit}"));
        }
    }

    /// A hold is confirmed before its end and lapses from then on. Both times are the ledger's.
    fn in_time(&mut self, step: &MoveFact, order: &OrderFact) {
        let Some(ends) = order.expires_at else { return };
        match step.kind {
            MoveKind::Confirm if step.at >= ends => {
                self.find(
                    Broken::ConfirmedLate,
                    step,
                    &format!("confirmed it at {}, its hold ended at {ends}", step.at),
                );
            }
            MoveKind::Lapse if step.at < ends => {
                self.find(Broken::TakenAway, step, &format!("let it lapse at {}, its hold ends at {ends}", step.at));
            }
            _ => {}
        }
    }
}
