//! The desk: one sale within one transaction. It decides on claims and writes down the moves; the backend brings the rows
//! locked and carries the outcome back in set-based writes. Both ledgers decide here, so they decide alike.

use std::collections::{HashMap, HashSet};

use super::journal::Chain;
use super::{Addition, Adjustment, EpochStep, SaleMoves, Turn, Turned, Verdict};
use crate::model::{
    Body, ByItself, Claim, Customer, EpochStage, Line, Message, Move, MoveKind, Order, OrderId, OrderRecord,
    OrderState, Places, Reason, SaleId, SaleRecord, Seq, Time, Units, Verb, Withdrawal,
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

/// The messages' indexes, sale by sale, each sale's in sequence.
pub(super) fn by_sale(messages: &[Message]) -> Vec<(&SaleId, Vec<usize>)> {
    let mut sales: Vec<(&SaleId, Vec<usize>)> = Vec::new();
    let mut at = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let place = *at.entry(&message.sale).or_insert_with(|| {
            sales.push((&message.sale, Vec::new()));
            sales.len() - 1
        });
        sales[place].1.push(index);
    }
    sales
}

/// What there is to do about a turn.
pub(super) enum ToTurn {
    /// This move.
    By(MoveKind),
    /// Nothing but this answer.
    Answer(Turned),
}

/// Which move turns this order now, if any.
pub(super) fn to_turn(record: &OrderRecord, turn: Turn, now: Time) -> ToTurn {
    let due = record.expires_at.is_some_and(|due| due <= now);
    let answer = |answer: fn(OrderRecord) -> Turned| ToTurn::Answer(answer(record.clone()));
    match (turn, record.state, record.reason) {
        (Turn::Confirm, OrderState::Held, _) if due => answer(Turned::Lapsed),
        (Turn::Confirm, OrderState::Held, _) => ToTurn::By(MoveKind::Confirm),
        (Turn::Cancel, OrderState::Held, _) => ToTurn::By(MoveKind::Cancel),
        (Turn::Confirm, OrderState::Sold, _) | (Turn::Cancel, OrderState::Released, Some(Reason::Cancelled)) => {
            answer(Turned::Already)
        }
        (_, OrderState::Released, Some(Reason::Lapsed)) => answer(Turned::Lapsed),
        _ => answer(Turned::WrongState),
    }
}

/// How late a lapse is, in milliseconds.
pub(super) fn lag_ms(record: &OrderRecord, now: Time) -> u64 {
    let late = now.since(record.expires_at.unwrap_or(now));
    u64::try_from(late.as_millis()).unwrap_or(u64::MAX)
}

impl Desk {
    pub(super) fn new(record: SaleRecord, chain: Chain, now: Time) -> Self {
        let (used, moves, orders, adjustments) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { record, chain, used, moves, orders, adjustments, now }
    }

    /// The moment at which everything at this desk happens.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Decides on the sale's messages, which are those at `indexes`, in their sequence. `look_up` brings what a claim needs
    /// to the desk and answers whether it was decided in an earlier transaction.
    pub(super) fn decide_all<E>(
        &mut self,
        messages: &[Message],
        indexes: &[usize],
        verdicts: &mut [Verdict],
        mut look_up: impl FnMut(&mut Self, &Claim) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut decided = HashSet::with_capacity_and_hasher(indexes.len(), ByItself::default());
        for &index in indexes {
            let known = match &messages[index].body {
                Body::Claim(claim) => look_up(self, claim)? || decided.contains(&claim.id()),
                Body::Close | Body::Sweep(_) => false,
            };
            verdicts[index] = self.decide(&messages[index], known);
            if let (Body::Claim(claim), Verdict::Settled | Verdict::Refused(_)) =
                (&messages[index].body, verdicts[index])
            {
                decided.insert(claim.id());
            }
        }
        Ok(())
    }

    /// Decides on a message. `known` says whether its claim was decided before, in this transaction or an earlier one.
    fn decide(&mut self, message: &Message, known: bool) -> Verdict {
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

    /// Ends a hold that [`to_turn`] allows to end so; it becomes the record as it is then.
    pub(super) fn turn(&mut self, record: &OrderRecord, kind: MoveKind) -> Result<OrderRecord, NotThere> {
        let order = &record.order;
        let seq = self.note(kind, Some(order.id), Some(&order.customer), &order.lines)?;
        let (state, reason) = match kind {
            MoveKind::Confirm => (OrderState::Sold, None),
            MoveKind::Cancel => (OrderState::Released, Some(Reason::Cancelled)),
            _ => (OrderState::Released, Some(Reason::Lapsed)),
        };
        Ok(OrderRecord { state, reason, seq: Some(seq), ..record.clone() })
    }

    /// Puts the first units of each item into a new sale.
    pub(super) fn stock_up(&mut self, stock: &[Units]) -> Result<(), NotThere> {
        let lines: Vec<Line> = (self.record.sale.items.iter().zip(stock))
            .map(|(item, units)| Line { sku: item.sku.clone(), quantity: *units })
            .collect();
        lines.iter().try_for_each(|line| self.note(MoveKind::Add, None, None, std::slice::from_ref(line)).map(drop))
    }

    /// Opens, pauses, resumes or closes the sale; `None` if it is in no state for it.
    pub(super) fn steer(&mut self, verb: Verb) -> Option<()> {
        let before = self.record.sale.window;
        let window = before.steer(verb, self.now)?;
        if window != before {
            self.record.sale.window = window;
            let kind = match verb {
                Verb::Open => MoveKind::Open,
                Verb::Pause => MoveKind::Pause,
                Verb::Resume => MoveKind::Resume,
                Verb::Close => MoveKind::Close,
            };
            self.put_down(kind, None, None, &[]);
        }
        Some(())
    }

    /// Takes a step in the sale's epochs.
    pub(super) fn step_epoch(&mut self, step: EpochStep) {
        let state = &mut self.record.epoch;
        match step {
            EpochStep::Raise => {
                state.epoch.0 += 1;
                state.stage = EpochStage::Reloading;
                state.beats = 0;
            }
            EpochStep::Beat(epoch) if state.epoch == epoch && state.stage != EpochStage::Live => state.beats += 1,
            EpochStep::Live(epoch) if state.epoch == epoch && state.stage == EpochStage::Closed => {
                state.stage = EpochStage::Live;
            }
            EpochStep::Beat(_) | EpochStep::Live(_) => {}
        }
    }

    /// What the desk wrote into the journal, for the gate; `None` if nothing.
    pub(super) fn into_moves(self) -> Option<SaleMoves> {
        let moves: Vec<_> = self.moves.into_iter().map(|(step, _)| step).collect();
        let (sale, epoch) = (self.record.sale.id, self.record.epoch.epoch);
        (!moves.is_empty()).then_some(SaleMoves { sale, epoch, moves })
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
