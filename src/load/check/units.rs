//! The part of the check that counts units: never more than there are, and none left that somebody was refused.

use std::collections::{HashMap, HashSet};

use super::{Broken, Case, RESOLVED_US_MAX, maybe};
use crate::load::record::Outcome;
use crate::model::{OrderId, OrderState, Sku};

/// A unit that came back this long before a refusal should have been sold instead. It covers the latches of all
/// processes, and a gate that missed a move and catches up at the next tick.
pub(super) const RETURN_KNOWN_US: u64 = 1_000_000;

impl Case<'_> {
    /// The orders come to exactly the stock's counts, and promises to no more than the stock.
    pub(super) fn arithmetic(&mut self) {
        if !self.facts.conserved {
            self.find(Broken::Conservation, [], "the server says that its layers do not add up");
        }
        for item in &self.facts.items {
            let (sku, places) = (&item.sku, item.places);
            let stock = u64::from(places.stock.get());
            let out = u64::from(places.held.get()) + u64::from(places.sold.get());
            if out > stock {
                self.find(Broken::Oversold, [], format!("more of {sku} is held and sold than there is"));
            }
            for (state, said) in [(OrderState::Held, places.held), (OrderState::Sold, places.sold)] {
                let orders = self.facts.orders.iter().filter(|order| order.state == state);
                let counted: u64 = orders.map(|order| order.units(sku)).sum();
                if self.facts.one_cut && counted != u64::from(said.get()) {
                    let (state, said) = (state.word(), said.get());
                    let detail = format!("the orders come to {counted} units of {sku} {state}, the stock says {said}");
                    self.find(Broken::Conservation, [], detail);
                }
            }
            let (promised, orders) = self.promised(sku);
            if promised > stock {
                self.find(
                    Broken::Oversold,
                    orders,
                    format!("{promised} units of {sku} are promised, there are {stock}"),
                );
            }
            self.oversold += out.max(promised).saturating_sub(stock);
        }
    }

    /// Once nothing is on its way, the gate has caught up and the queue is empty.
    pub(super) fn quiet(&mut self) {
        if !(self.facts.settled && self.facts.one_cut) {
            return;
        }
        for item in &self.facts.items {
            let (sku, ledger) = (&item.sku, item.places.available);
            if let Some(gate) = item.gate.filter(|gate| *gate != ledger) {
                let detail = format!("the gate has {} units of {sku}, the ledger {}", gate.get(), ledger.get());
                self.find(Broken::GateDiffers, [], detail);
            }
        }
        let waiting = self.facts.waiting.filter(|waiting| self.history.alone && *waiting > 0);
        if let Some(waiting) = waiting {
            self.find(Broken::Undrained, [], format!("{waiting} messages wait in the queue although all is settled"));
        }
    }

    /// Units of an item that the crowd was promised and that were not given back, and the orders they are in.
    fn promised(&self, sku: &Sku) -> (u64, Vec<OrderId>) {
        let mut promised = (0, Vec::new());
        for story in &self.stories {
            let lines = self.history.crowd.lines(story.wish).iter().filter(|line| line.sku == *sku);
            let units: u64 = lines.map(|line| u64::from(line.quantity.get())).sum();
            for id in &story.ids {
                let released = self.listed.get(id).is_some_and(|order| order.state == OrderState::Released);
                if units > 0 && !released {
                    promised.0 += units;
                    promised.1.push(*id);
                }
            }
        }
        promised
    }

    /// Nobody was refused units that are left and cannot have come back since.
    pub(super) fn undersold(&mut self) {
        if !self.facts.settled {
            return;
        }
        // Of all refusals of so many units of an item the latest has the fewest excuses.
        let mut latest: HashMap<(u8, u64), u64> = HashMap::new();
        for record in &self.history.records {
            let Some(item) = record.sold_out else { continue };
            let sku = &self.facts.items[usize::from(item)].sku;
            let wish = self.history.crowd.requests[record.request as usize].wish;
            let lines = self.history.crowd.lines(wish).iter().filter(|line| line.sku == *sku);
            let wanted = lines.map(|line| u64::from(line.quantity.get())).sum();
            let sent_us = latest.entry((item, wanted)).or_default();
            *sent_us = record.sent_us.max(*sent_us);
        }
        let mut left: HashMap<u8, (u64, u64)> = HashMap::new();
        for ((item, wanted), sent_us) in latest {
            let available = u64::from(self.facts.items[usize::from(item)].places.available.get());
            let stayed = available.saturating_sub(self.came_back(item, sent_us));
            if wanted > 0 && stayed >= wanted && left.get(&item).is_none_or(|(most, _)| stayed > *most) {
                left.insert(item, (stayed, wanted));
            }
        }
        for (item, (stayed, wanted)) in left {
            let sku = &self.facts.items[usize::from(item)].sku;
            let detail =
                format!("somebody was refused {wanted} units of {sku} while {stayed} were available to the end");
            self.undersold += stayed;
            self.find(Broken::Undersold, [], detail);
        }
    }

    /// By when every gate knows of units that came back at this moment. During a fault a gate may miss it for as long as the
    /// fault lasts.
    pub(super) fn known_us(&self, back_us: u64) -> u64 {
        let calm_us = self.history.healed_us.map_or(0, |healed_us| healed_us.saturating_add(RESOLVED_US_MAX));
        back_us.saturating_add(RETURN_KNOWN_US).max(calm_us)
    }

    /// Units of an item that may have become available after this moment.
    fn came_back(&self, item: u8, after_us: u64) -> u64 {
        let item = &self.facts.items[usize::from(item)];
        let early: HashSet<OrderId> = (self.history.records.iter())
            .filter(|record| record.outcome == Outcome::Cancelled && self.known_us(record.answered_us) < after_us)
            .filter_map(|record| record.order)
            .collect();
        let released = (self.facts.orders.iter())
            .filter(|order| matches!(order.state, OrderState::Released | OrderState::Refused))
            .filter(|order| !self.facts.before_released.contains(&order.id) && !early.contains(&order.id))
            .map(|order| order.units(&item.sku));
        // What an unanswered request set aside for a while may have come back without a trace.
        let unanswered = self.stories.iter().filter(|story| maybe(story)).flat_map(|story| {
            let lines = self.history.crowd.lines(story.wish).iter().filter(|line| line.sku == item.sku);
            lines.map(|line| u64::from(line.quantity.get()))
        });
        released.sum::<u64>() + unanswered.sum::<u64>() + item.added
    }
}
