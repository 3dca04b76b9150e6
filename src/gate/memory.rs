//! The gate in this process: one lock per sale, and the latch in front of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use async_trait::async_trait;

use super::carry::Carried;
use super::latch::{Latch, Word};
use super::{Admission, Gate, GateItem, GateView, Refusal};
use crate::clock::Clock;
use crate::model::{
    ByItself, Claim, Customer, Epoch, Move, MoveKind, Order, OrderId, Result, Sale, SaleId, SaleState, Seq, Snapshot,
    Time, Units, Verb, Window,
};

/// Keeps every sale in memory.
pub struct MemoryGate {
    sales: RwLock<HashMap<SaleId, Arc<SaleGate>>>,
    clock: Arc<dyn Clock>,
}

impl MemoryGate {
    /// A gate that knows nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { sales: RwLock::default(), clock }
    }

    fn sale(&self, sale: &SaleId) -> Option<Arc<SaleGate>> {
        self.sales.read().expect("no holder panics").get(sale).cloned()
    }
}

#[async_trait]
impl Gate for MemoryGate {
    async fn admit(&self, claim: &Claim) -> Result<Admission> {
        let Some(gate) = self.sale(claim.sale()) else { return Ok(Admission::Unloaded) };
        let now = self.clock.now();
        if let Claim::Order(order) = claim
            && let Some(refusal) = gate.refuse_at_once(order, now)
        {
            return Ok(Admission::Refused(refusal));
        }
        Ok(gate.lock().admit(&gate, claim, now))
    }

    async fn refuse(&self, order: &Order) -> Result<Option<Refusal>> {
        let gate = self.sale(&order.sale);
        Ok(gate.and_then(|gate| gate.refuse_at_once(order, self.clock.now())))
    }

    async fn load(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        let id = &snapshot.record.sale.id;
        let mut sales = self.sales.write().expect("no holder panics");
        let carried = match sales.get(id).map(|gate| gate.lock()) {
            Some(before) if before.epoch >= epoch => return Ok(false),
            Some(mut before) => {
                // Somebody may be on the way into the old memory, and would be forgotten there.
                before.live = false;
                Carried::over(snapshot, before.pending.values().cloned())
            }
            None => Carried::over(snapshot, None),
        };
        sales.insert(id.clone(), Arc::new(SaleGate::new(snapshot, carried, epoch)));
        Ok(true)
    }

    async fn open(&self, sale: &SaleId, epoch: Epoch) -> Result<bool> {
        let Some(gate) = self.sale(sale) else { return Ok(false) };
        let mut state = gate.lock();
        if state.epoch != epoch {
            return Ok(false);
        }
        state.live = true;
        state.tell_latch(&gate, self.clock.now());
        Ok(true)
    }

    async fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Result<Option<Seq>> {
        let Some(gate) = self.sale(sale) else { return Ok(None) };
        let mut state = gate.lock();
        if state.epoch != epoch {
            return Ok(None);
        }
        for step in moves {
            if step.seq == state.watermark.next() {
                state.follow(&gate, step);
            }
        }
        state.tell_latch(&gate, self.clock.now());
        Ok(Some(state.watermark))
    }

    async fn pending(&self, sale: &SaleId) -> Result<Vec<(Claim, Epoch)>> {
        let Some(gate) = self.sale(sale) else { return Ok(Vec::new()) };
        let state = gate.lock();
        Ok(state.pending.values().map(|claim| (claim.clone(), state.epoch)).collect())
    }

    async fn find(&self, sale: &SaleId, id: OrderId) -> Result<Option<(Claim, Epoch)>> {
        let Some(gate) = self.sale(sale) else { return Ok(None) };
        let state = gate.lock();
        Ok(state.pending.get(&id).map(|claim| (claim.clone(), state.epoch)))
    }

    async fn view(&self, sale: &SaleId) -> Result<Option<GateView>> {
        Ok(self.sale(sale).map(|gate| gate.lock().view(&gate.sale)))
    }
}

/// One sale's memory, from one load to the next.
struct SaleGate {
    sale: Sale,
    latch: Latch<OrderId>,
    state: Mutex<State>,
}

struct State {
    epoch: Epoch,
    live: bool,
    window: Window,
    watermark: Seq,
    items: Vec<Counts>,
    /// Units per customer, in a sale with a limit.
    used: HashMap<Customer, Units>,
    pending: HashMap<OrderId, Claim, ByItself>,
}

#[derive(Clone, Copy)]
struct Counts {
    available: Units,
    pending: Units,
    held: Units,
}

impl SaleGate {
    fn new(snapshot: &Snapshot, carried: Carried, epoch: Epoch) -> Self {
        let record = &snapshot.record;
        let latch = Latch::new(record.sale.items.len(), snapshot.known.len());
        let carried_ids = carried.claims.iter().map(Claim::id);
        for id in snapshot.known.iter().copied().chain(carried_ids) {
            latch.know(id);
        }
        let counts = |(places, pending): (&crate::model::Places, &Units)| Counts {
            available: places.available.minus(*pending).unwrap_or_default(),
            pending: *pending,
            held: places.held,
        };
        let mut used: HashMap<Customer, Units> = snapshot.used.iter().cloned().collect();
        used.extend(carried.used);
        let state = State {
            epoch,
            live: false,
            window: record.sale.window,
            watermark: record.watermark,
            items: record.places.iter().zip(&carried.units).map(counts).collect(),
            used,
            pending: carried.claims.into_iter().map(|claim| (claim.id(), claim)).collect(),
        };
        Self { sale: record.sale.clone(), latch, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn index(&self, line: &crate::model::Line) -> Option<usize> {
        self.sale.items.iter().position(|item| item.sku == line.sku)
    }

    /// The latch's word, which holds until the sale's window ends.
    fn refuse_at_once(&self, order: &Order, now: Time) -> Option<Refusal> {
        let lines = order.lines.iter().filter_map(|line| self.index(line));
        let (sku, may_return) = self.latch.refuses(order.id, lines)?;
        let over = self.sale.window.closes_at.is_some_and(|end| now >= end);
        (!over).then(|| self.sold_out(sku, may_return))
    }

    fn sold_out(&self, index: usize, may_return: bool) -> Refusal {
        Refusal::SoldOut { sku: self.sale.items[index].sku.clone(), may_return }
    }
}

impl State {
    fn admit(&mut self, gate: &SaleGate, claim: &Claim, now: Time) -> Admission {
        if let Some(pending) = self.pending.get(&claim.id()) {
            // Whoever pushes it has to do so under an epoch that is live.
            let repeat = Admission::Repeat(Some((pending.clone(), self.epoch)));
            return if self.live { repeat } else { Admission::Unloaded };
        }
        if gate.latch.knows(claim.id()) {
            return Admission::Repeat(None);
        }
        if !self.live {
            return Admission::Unloaded;
        }
        if let Some(refusal) = self.shut(claim, now).or_else(|| self.over_limit(gate, claim)) {
            return Admission::Refused(refusal);
        }
        let mut items = self.items.clone();
        for line in claim.lines() {
            let Some(index) = gate.index(line) else { return Admission::Unloaded };
            let Some(left) = items[index].available.minus(line.quantity) else {
                return Admission::Refused(gate.sold_out(index, self.may_return(gate, index)));
            };
            items[index].available = left;
            items[index].pending = add(items[index].pending, line.quantity);
        }
        self.items = items;
        if let (Claim::Order(order), Some(_)) = (claim, gate.sale.per_customer_limit) {
            let used = self.used.entry(order.customer.clone()).or_default();
            *used = add(*used, claim.units());
        }
        self.pending.insert(claim.id(), claim.clone());
        gate.latch.know(claim.id());
        self.tell_latch(gate, now);
        Admission::Admitted(self.epoch)
    }

    /// The window's refusal. Withdrawals need no window, only a sale that is not over.
    fn shut(&self, claim: &Claim, now: Time) -> Option<Refusal> {
        match (self.window.state(now), claim) {
            (SaleState::Ended, _) => Some(Refusal::Ended),
            (SaleState::Open, _) | (_, Claim::Withdrawal(_)) => None,
            (SaleState::Paused, Claim::Order(_)) => Some(Refusal::Paused),
            (SaleState::Draft, Claim::Order(_)) => Some(Refusal::NotOpen { opens_at: None }),
            (SaleState::Scheduled, Claim::Order(_)) => Some(Refusal::NotOpen { opens_at: self.window.opens_at }),
        }
    }

    fn over_limit(&self, gate: &SaleGate, claim: &Claim) -> Option<Refusal> {
        let (Claim::Order(order), Some(limit)) = (claim, gate.sale.per_customer_limit) else { return None };
        let used = self.used.get(&order.customer).copied().unwrap_or_default();
        let fits = used.plus(claim.units()).is_some_and(|sum| sum <= limit);
        (!fits).then_some(Refusal::LimitReached { limit, used })
    }

    fn may_return(&self, gate: &SaleGate, index: usize) -> bool {
        let counts = self.items[index];
        gate.sale.hold_seconds > 0 && (counts.held > Units::ZERO || counts.pending > Units::ZERO)
    }

    /// Applies the move that comes next.
    fn follow(&mut self, gate: &SaleGate, step: &Move) {
        self.watermark = step.seq;
        let taken_before = step.kind.settles() && step.claim.is_some_and(|id| self.pending.remove(&id).is_some());
        for line in &step.lines {
            let Some(index) = gate.index(line) else { continue };
            self.items[index].follow(step.kind, line.quantity, taken_before);
        }
        match step.kind {
            MoveKind::Open => self.steer(Verb::Open, step.at),
            MoveKind::Pause => self.steer(Verb::Pause, step.at),
            MoveKind::Resume => self.steer(Verb::Resume, step.at),
            MoveKind::Close => self.steer(Verb::Close, step.at),
            // The ledger could not keep what this gate admitted, so this memory is wrong: it is loaded anew.
            MoveKind::Refuse => self.live = false,
            MoveKind::Cancel | MoveKind::Lapse => self.give_back(step),
            MoveKind::Hold | MoveKind::Sell | MoveKind::Withdraw if !taken_before => self.take_late(gate, step),
            MoveKind::Hold | MoveKind::Sell | MoveKind::Withdraw | MoveKind::Add | MoveKind::Confirm => {}
        }
    }

    fn steer(&mut self, verb: Verb, at: Time) {
        self.window = self.window.steer(verb, at).unwrap_or(self.window);
    }

    fn give_back(&mut self, step: &Move) {
        let units = step.lines.iter().fold(Units::ZERO, |sum, line| add(sum, line.quantity));
        if let Some(used) = step.customer.as_ref().and_then(|customer| self.used.get_mut(customer)) {
            *used = used.minus(units).unwrap_or_default();
        }
    }

    /// A claim that the ledger settled and this gate never admitted.
    fn take_late(&mut self, gate: &SaleGate, step: &Move) {
        if let Some(id) = step.claim {
            gate.latch.know(id);
        }
        if let (Some(customer), Some(_)) = (&step.customer, gate.sale.per_customer_limit) {
            let used = self.used.entry(customer.clone()).or_default();
            *used = step.lines.iter().fold(*used, |sum, line| add(sum, line.quantity));
        }
    }

    /// Lets the latch say what this state says.
    fn tell_latch(&self, gate: &SaleGate, now: Time) {
        let open = self.live && self.window.state(now) == SaleState::Open;
        for (index, counts) in self.items.iter().enumerate() {
            let sold_out = open && counts.available == Units::ZERO;
            let may_return = self.may_return(gate, index);
            gate.latch.say(index, if sold_out { Word::SoldOut { may_return } } else { Word::Open });
        }
    }

    fn view(&self, sale: &Sale) -> GateView {
        let item = |(item, counts): (&crate::model::Item, &Counts)| GateItem {
            sku: item.sku.clone(),
            available: counts.available,
            pending: counts.pending,
        };
        GateView {
            epoch: self.epoch,
            live: self.live,
            watermark: self.watermark,
            pending: self.pending.len() as u64,
            items: sale.items.iter().zip(&self.items).map(item).collect(),
        }
    }
}

impl Counts {
    /// What a move does to the counts; `taken` says that the units were set aside here before.
    fn follow(&mut self, kind: MoveKind, units: Units, taken: bool) {
        if kind.settles() {
            let from = if taken { &mut self.pending } else { &mut self.available };
            *from = from.minus(units).unwrap_or_default();
        }
        match kind {
            MoveKind::Add => self.available = add(self.available, units),
            MoveKind::Hold => self.held = add(self.held, units),
            MoveKind::Confirm => self.held = self.held.minus(units).unwrap_or_default(),
            MoveKind::Cancel | MoveKind::Lapse => {
                self.held = self.held.minus(units).unwrap_or_default();
                self.available = add(self.available, units);
            }
            MoveKind::Withdraw
            | MoveKind::Sell
            | MoveKind::Refuse
            | MoveKind::Open
            | MoveKind::Pause
            | MoveKind::Resume
            | MoveKind::Close => {}
        }
    }
}

/// Counts stay below the largest stock, so the sum is never cut off.
fn add(sum: Units, more: Units) -> Units {
    sum.plus(more).unwrap_or(sum)
}
