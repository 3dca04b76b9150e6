//! The desk: one sale within one transaction. It decides on claims and writes down the moves; the backend brings the rows
//! locked and carries the outcome back in set-based writes. Both ledgers decide here, so they decide alike.

use std::collections::HashMap;

use super::journal::Chain;
use super::{Addition, Adjustment, Verdict};
use crate::model::{
    Body, Claim, Customer, EpochStage, Line, Message, Move, MoveKind, Order, OrderId, OrderRecord, OrderState, Places,
    Reason, SaleRecord, Seq, Time, Units, Withdrawal,
};

/// One sale, its rows locked.
pub(super) struct Desk {
    /// The sale's rows as they are to be written.
    pub(super) record: SaleRecord,
    /// The hash of the journal so far.
    pub(super) chain: Chain,
    /// Units per customer, of those concerned, in a sale with a limit.
    pub(super) used: HashMap<Customer, Units>,
    /// New moves, each with the hash up to it.
    pub(super) moves: Vec<(Move, Chain)>,
    /// New orders.
    pub(super) orders: Vec<OrderRecord>,
    /// New adjustments.
    pub(super) adjustments: Vec<Adjustment>,
    now: Time,
}

/// Too few units, or no such SKU: nothing was moved.
#[derive(Debug)]
pub(super) struct NotThere;

impl Desk {
    pub(super) fn new(record: SaleRecord, chain: Chain, now: Time) -> Self {
        let (used, moves, orders, adjustments) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { record, chain, used, moves, orders, adjustments, now }
    }

    /// Decides on a message. `known` says whether its claim was decided before, in this transaction or an earlier one.
    pub(super) fn decide(&mut self, message: &Message, known: bool) -> Verdict {
        match &message.body {
            Body::Close => self.close(message),
            Body::Sweep(number) => {
                self.record.swept = self.record.swept.max(Some(*number));
                Verdict::Marker
            }
            Body::Claim(_) if known => Verdict::Known,
            Body::Claim(_) if message.epoch < self.record.epoch.closed => Verdict::Late,
            Body::Claim(Claim::Order(order)) => self.settle(order),
            Body::Claim(Claim::Withdrawal(withdrawal)) => self.withdraw(withdrawal),
        }
    }

    fn close(&mut self, message: &Message) -> Verdict {
        let epoch = &mut self.record.epoch;
        if epoch.epoch == message.epoch && epoch.stage == EpochStage::Reloading {
            epoch.stage = EpochStage::Closed;
            epoch.closed = message.epoch;
        }
        Verdict::Marker
    }

    fn settle(&mut self, order: &Order) -> Verdict {
        let hold_ends = self.record.sale.hold_ends(self.now);
        let (kind, state) = match hold_ends {
            Some(_) => (MoveKind::Hold, OrderState::Held),
            None => (MoveKind::Sell, OrderState::Sold),
        };
        if order.lines.iter().any(|line| self.record.sale.item(&line.sku).is_none()) {
            return Verdict::Unknown;
        }
        if self.over_limit(order) {
            return self.refuse(order, Reason::CustomerLimit);
        }
        let Ok(seq) = self.note(kind, Some(order.id), Some(&order.customer), &order.lines) else {
            return self.refuse(order, Reason::SoldOut);
        };
        self.keep(order, state, None, hold_ends, seq);
        Verdict::Settled
    }

    fn over_limit(&self, order: &Order) -> bool {
        let Some(limit) = self.record.sale.per_customer_limit else { return false };
        let used = self.used.get(&order.customer).copied().unwrap_or_default();
        let sum = order.lines.iter().try_fold(used, |sum, line| sum.plus(line.quantity));
        sum.is_none_or(|sum| sum > limit)
    }

    fn refuse(&mut self, order: &Order, reason: Reason) -> Verdict {
        let seq = self.put_down(MoveKind::Refuse, Some(order.id), Some(&order.customer), &order.lines);
        self.keep(order, OrderState::Refused, Some(reason), None, seq);
        Verdict::Refused(reason)
    }

    fn keep(&mut self, order: &Order, state: OrderState, reason: Option<Reason>, expires_at: Option<Time>, seq: Seq) {
        let settled_at = Some(self.now);
        let record = OrderRecord { order: order.clone(), state, reason, settled_at, expires_at, seq: Some(seq) };
        self.orders.push(record);
    }

    fn withdraw(&mut self, withdrawal: &Withdrawal) -> Verdict {
        let line = &withdrawal.line;
        if self.index(line).is_none() {
            return Verdict::Unknown;
        }
        match self.note(MoveKind::Withdraw, Some(withdrawal.id), None, std::slice::from_ref(line)) {
            Ok(seq) => {
                let delta = -i64::from(line.quantity.get());
                self.adjusted(withdrawal.id, line, delta, &withdrawal.reason, seq);
                Verdict::Settled
            }
            Err(NotThere) => {
                self.put_down(MoveKind::Refuse, Some(withdrawal.id), None, std::slice::from_ref(line));
                Verdict::Refused(Reason::SoldOut)
            }
        }
    }

    /// Puts units into the sale.
    pub(super) fn add(&mut self, addition: &Addition) -> Option<Adjustment> {
        let line = &addition.line;
        let seq = self.note(MoveKind::Add, Some(addition.id), None, std::slice::from_ref(line)).ok()?;
        let delta = i64::from(line.quantity.get());
        Some(self.adjusted(addition.id, line, delta, &addition.reason, seq))
    }

    fn adjusted(&mut self, id: OrderId, line: &Line, delta: i64, reason: &str, seq: Seq) -> Adjustment {
        let index = self.index(line).expect("the move found its item");
        let adjustment = Adjustment {
            id,
            sale: self.record.sale.id.clone(),
            sku: line.sku.clone(),
            delta,
            reason: reason.to_owned(),
            at: self.now,
            seq,
            stock: self.record.places[index].stock,
        };
        self.adjustments.push(adjustment.clone());
        adjustment
    }

    /// Moves the units of all lines or of none, and writes it down.
    pub(super) fn note(
        &mut self,
        kind: MoveKind,
        claim: Option<OrderId>,
        customer: Option<&Customer>,
        lines: &[Line],
    ) -> Result<Seq, NotThere> {
        let mut places: Vec<Places> = self.record.places.clone();
        for line in lines {
            let index = self.index(line).ok_or(NotThere)?;
            places[index] = kind.apply(places[index], line.quantity).ok_or(NotThere)?;
        }
        self.record.places = places;
        self.count_customer(kind, customer, lines);
        Ok(self.put_down(kind, claim, customer, lines))
    }

    fn count_customer(&mut self, kind: MoveKind, customer: Option<&Customer>, lines: &[Line]) {
        let (Some(customer), Some(_)) = (customer, self.record.sale.per_customer_limit) else { return };
        let used = self.used.entry(customer.clone()).or_default();
        for line in lines {
            *used = match kind {
                MoveKind::Hold | MoveKind::Sell => used.plus(line.quantity).unwrap_or(*used),
                MoveKind::Cancel | MoveKind::Lapse => used.minus(line.quantity).unwrap_or_default(),
                _ => *used,
            };
        }
    }

    fn put_down(&mut self, kind: MoveKind, claim: Option<OrderId>, customer: Option<&Customer>, lines: &[Line]) -> Seq {
        let seq = self.record.watermark.next();
        let step = Move { seq, at: self.now, kind, claim, customer: customer.cloned(), lines: lines.to_vec() };
        self.chain = self.chain.link(&self.record.sale.id, &step);
        self.record.watermark = seq;
        self.moves.push((step, self.chain));
        seq
    }

    fn index(&self, line: &Line) -> Option<usize> {
        self.record.sale.items.iter().position(|item| item.sku == line.sku)
    }
}
