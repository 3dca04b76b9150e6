//! The part of the check that goes by time: what the crowd saw on its own clock, before and after what.

use std::collections::{HashMap, HashSet};

use super::{Broken, Case, maybe};
use crate::load::facts::MoveFact;
use crate::load::record::{Outcome, Record};
use crate::model::{MoveKind, OrderId, OrderState, Seq, Sku, Time};

/// How long after the last fault something may still be on its way.
pub const RESOLVED_US_MAX: u64 = 10_000_000;

impl Case<'_> {
    pub(super) fn times(&mut self) {
        let mut found = self.false_sold_out();
        found.extend(self.out_of_turn());
        for (broken, orders, detail) in found {
            self.find(broken, orders, detail);
        }
        self.unresolved();
    }

    /// Nobody is refused while enough units are available from the moment of asking to the moment of the answer.
    ///
    /// The gate sets units aside before the journal says so, so the units that *may* have been set aside at some moment of
    /// that time are counted from the crowd's own record, as many as can be: those of every order from when it was first
    /// sent, even if nobody knows whether it got there, until it is known to be given back everywhere; those of strangers,
    /// and of orders that were there before, all the time. The stock counts as the least that it was since the crowd came.
    /// What is left after that was certainly available. Not seen: a withdrawal that came to nothing while the crowd was there;
    /// and what faults did to the orders of strangers, so with both, faults and strangers, nothing is said.
    fn false_sold_out(&self) -> Vec<(Broken, Vec<OrderId>, String)> {
        let faults = self.history.healed_us.is_some();
        if !self.facts.settled || (faults && !self.history.alone) {
            return Vec::new();
        }
        let back = self.given_back();
        let mut found = Vec::new();
        for (number, item) in self.facts.items.iter().enumerate() {
            let least = least_stock(&self.facts.journal, &item.sku, self.facts.watermark_before);
            let (mut taken, mut given) = (Vec::new(), Vec::new());
            for (sent_us, units, order) in self.takes(&item.sku) {
                taken.push((sent_us, units));
                given.extend(order.and_then(|order| back.get(&order)).map(|back_us| (self.known_us(*back_us), units)));
            }
            let (taken, given) = (Steps::new(taken), Steps::new(given));
            let number = u8::try_from(number).ok();
            for record in self.history.records.iter().filter(|record| record.sold_out.is_some()) {
                let wanted = self.wanted(record, &item.sku);
                if record.sold_out != number || wanted == 0 {
                    continue;
                }
                let aside = taken.until(record.answered_us).saturating_sub(given.before(record.sent_us));
                let free = least.saturating_sub(aside);
                if free >= wanted {
                    let key = self.history.crowd.key(self.wish(record));
                    let detail = format!(
                        "key {key} was refused {wanted} units of {} between {} and {} us, while {free} were available",
                        item.sku, record.sent_us, record.answered_us
                    );
                    found.push((Broken::FalseSoldOut, Vec::new(), detail));
                }
            }
        }
        found
    }

    fn wish(&self, record: &Record) -> u32 {
        self.history.crowd.requests[record.request as usize].wish
    }

    fn wanted(&self, record: &Record, sku: &Sku) -> u64 {
        self.units_of(self.wish(record), sku)
    }

    fn units_of(&self, wish: u32, sku: &Sku) -> u64 {
        let lines = self.history.crowd.lines(wish).iter().filter(|line| line.sku == *sku);
        lines.map(|line| u64::from(line.quantity.get())).sum()
    }

    /// Whatever may have taken units of an item: from when on, how many, and which order it came to.
    fn takes(&self, sku: &Sku) -> Vec<(u64, u64, Option<OrderId>)> {
        let mut takes = Vec::new();
        let mut told = HashSet::new();
        for story in &self.stories {
            let (units, sent_us) = (self.units_of(story.wish, sku), story.sent_us.unwrap_or(0));
            for id in &story.ids {
                told.insert(*id);
                let before = self.facts.before.contains(id);
                takes.push((if before { 0 } else { sent_us }, units, Some(*id)));
            }
            if maybe(story) {
                takes.push((sent_us, units, None));
            }
        }
        let others = self.facts.orders.iter().filter(|order| !told.contains(&order.id));
        takes.extend(others.map(|order| (0, order.units(sku), Some(order.id))));
        takes
    }

    /// By when, at the latest, orders had been given back in the ledger, on the crowd's clock.
    fn given_back(&self) -> HashMap<OrderId, u64> {
        let mut back: HashMap<OrderId, u64> = HashMap::new();
        let ahead_us = self.server_ahead_us();
        for step in self.facts.journal.iter().filter(|step| matches!(step.kind, MoveKind::Cancel | MoveKind::Lapse)) {
            let (Some(order), Some(ahead_us)) = (step.order, ahead_us) else { continue };
            // The end of the millisecond that the journal names.
            let at_us = after_ms(step.at).saturating_sub(ahead_us);
            back.insert(order, u64::try_from(at_us).unwrap_or(0));
        }
        for record in self.history.records.iter().filter(|record| record.outcome == Outcome::Cancelled) {
            let Some(order) = record.order else { continue };
            let back_us = back.entry(order).or_insert(record.answered_us);
            *back_us = record.answered_us.min(*back_us);
        }
        back
    }

    /// By how much, at least, the server's time of day is ahead of the crowd's clock: it stamps an order after the order was
    /// sent and before it is answered. `None` if one of the clocks was set meanwhile.
    fn server_ahead_us(&self) -> Option<i64> {
        let (mut least, mut most) = (i64::MIN, i64::MAX);
        let us = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        for story in &self.stories {
            let accepted = |record: &&&Record| record.outcome == Outcome::Accepted;
            let answered_us = story.records.iter().filter(accepted).map(|record| record.answered_us).min();
            let order = story.ids.first().and_then(|id| self.listed.get(id));
            let (Some(answered_us), Some(sent_us), Some(order)) = (answered_us, story.sent_us, order) else { continue };
            if self.facts.before.contains(&order.id) {
                continue;
            }
            least = least.max(order.accepted_at.millis().saturating_mul(1_000) - us(answered_us));
            most = most.min(after_ms(order.accepted_at) - us(sent_us));
        }
        (i64::MIN < least && least <= most).then_some(least)
    }

    /// An answer that names a move proves that the journal had come so far. So whoever first asks afterwards is settled
    /// behind that move, and whoever asks afterwards is told of everything up to it.
    ///
    /// That, and no more, is promised about the sequence of settling. Who gets the units is decided at the gate; two accepted
    /// orders are settled in the sequence in which they were pushed unless a fault is rolled forward in between, and nobody
    /// gains or loses by it. An answer without a number proves nothing: a gate that is a moment behind says "accepted".
    fn out_of_turn(&self) -> Vec<(Broken, Vec<OrderId>, String)> {
        let mut moves: HashMap<OrderId, Vec<u64>> = HashMap::new();
        for step in &self.facts.journal {
            if let Some(order) = step.order {
                moves.entry(order).or_default().push(step.seq.0);
            }
        }
        let proofs = Proofs::new(&self.history.records);
        let mut found = Vec::new();
        let mut find = |order: OrderId, detail: String| found.push((Broken::OutOfTurn, vec![order], detail));
        for record in &self.history.records {
            let (Some(order), seq) = (record.order, record.seq.0) else { continue };
            if seq == 0 {
                continue;
            }
            let of_order = moves.get(&order).map_or(&[][..], Vec::as_slice);
            if !of_order.contains(&seq) {
                find(order, format!("its answer names move #{seq}, which is none of its own"));
            }
            let proven = proofs.before(record.sent_us);
            if let Some(missed) = of_order.iter().find(|step| seq < **step && **step <= proven) {
                find(
                    order,
                    format!("it was told as of #{seq} although #{proven} was known and it had moved at #{missed}"),
                );
            }
        }
        for story in &self.stories {
            let (Some(sent_us), Some(id)) = (story.sent_us, story.ids.first()) else { continue };
            let proven = proofs.before(sent_us);
            let settled = moves.get(id).and_then(|moves| moves.first()).copied();
            if let Some(settled) = settled.filter(|settled| *settled <= proven && !self.facts.before.contains(id)) {
                find(*id, format!("it was first sent when #{proven} was known, and is settled at #{settled}"));
            }
        }
        found
    }

    /// Soon after the last fault, or after the crowd if that stayed longer, everything is settled.
    fn unresolved(&mut self) {
        let Some(healed_us) = self.history.healed_us else { return };
        let last_us = self.history.records.iter().map(|record| record.answered_us).max().unwrap_or(0);
        let took_us = self.facts.seen_us.saturating_sub(healed_us.max(last_us));
        if took_us <= RESOLVED_US_MAX {
            return;
        }
        let open = |id: &OrderId| self.listed.get(id).is_none_or(|order| order.state == OrderState::Accepted);
        let orders: Vec<OrderId> =
            self.stories.iter().flat_map(|story| story.ids.iter().copied()).filter(open).collect();
        let word = if self.facts.settled { "only then was everything" } else { "not everything is" };
        self.find(Broken::Unresolved, orders, format!("{} ms after the last fault {word} settled", took_us / 1_000));
    }
}

/// The first microsecond after this millisecond.
fn after_ms(at: Time) -> i64 {
    at.millis().saturating_add(1).saturating_mul(1_000)
}

/// The least stock of an item since this move.
fn least_stock(journal: &[MoveFact], sku: &Sku, since: Seq) -> u64 {
    let (mut stock, mut least) = (0_u64, u64::MAX);
    for step in journal {
        if step.seq > since {
            least = least.min(stock);
        }
        let lines = step.lines.iter().filter(|line| line.sku == *sku);
        let units: u64 = lines.map(|line| u64::from(line.quantity.get())).sum();
        match step.kind {
            MoveKind::Add => stock += units,
            MoveKind::Withdraw => stock = stock.saturating_sub(units),
            _ => {}
        }
    }
    least.min(stock)
}

/// A sum that grows with time.
struct Steps {
    at_us: Vec<u64>,
    sums: Vec<u64>,
}

impl Steps {
    fn new(mut steps: Vec<(u64, u64)>) -> Self {
        steps.sort_unstable();
        let mut sum = 0;
        let sums = steps.iter().map(|(_, units)| {
            sum += units;
            sum
        });
        Self { sums: sums.collect(), at_us: steps.iter().map(|(at_us, _)| *at_us).collect() }
    }

    fn sum(&self, steps: usize) -> u64 {
        steps.checked_sub(1).map_or(0, |last| self.sums[last])
    }

    fn until(&self, at_us: u64) -> u64 {
        self.sum(self.at_us.partition_point(|step| *step <= at_us))
    }

    fn before(&self, at_us: u64) -> u64 {
        self.sum(self.at_us.partition_point(|step| *step < at_us))
    }
}

/// How far the journal was known to have come, by time.
struct Proofs(Vec<(u64, u64)>);

impl Proofs {
    fn new(records: &[Record]) -> Self {
        let numbered = records.iter().filter(|record| record.seq.0 > 0);
        let mut proofs: Vec<(u64, u64)> = numbered.map(|record| (record.answered_us, record.seq.0)).collect();
        proofs.sort_unstable();
        let mut most = 0;
        for (_, seq) in &mut proofs {
            most = most.max(*seq);
            *seq = most;
        }
        Self(proofs)
    }

    /// The highest number that somebody had been told before this moment.
    fn before(&self, at_us: u64) -> u64 {
        let known = self.0.partition_point(|(answered_us, _)| *answered_us < at_us);
        known.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
