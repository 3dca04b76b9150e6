//! The journal: an append-only list of what happened to a sale and its units. Each move has a number without gaps and
//! carries the hash of everything before it, so a row edited or removed by hand shows.
//!
//! [`Recounter`] folds a journal from its first move and compares the outcome with the ledger's rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use crate::model::{
    Customer, Line, Move, MoveKind, OrderId, OrderRecord, OrderState, Places, SaleId, SaleRecord, Seq, Sku, Time,
    Units, same_lines,
};

/// The hash of a journal up to a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// The hash up to and with this move.
    pub fn link(self, sale: &SaleId, step: &Move) -> Chain {
        let mut text = Vec::with_capacity(256);
        let mut put = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            text.extend_from_slice(bytes);
        };
        put(&self.0);
        put(sale.as_str().as_bytes());
        put(&step.seq.0.to_le_bytes());
        put(&step.at.millis().to_le_bytes());
        put(step.kind.word().as_bytes());
        put(step.claim.as_ref().map_or(&[], |id| &id.0));
        for line in &step.lines {
            put(line.sku.as_str().as_bytes());
            put(&line.quantity.get().to_le_bytes());
        }
        Chain(*blake3::hash(&text).as_bytes())
    }
}

/// What a recount found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recount {
    /// The number of the last move.
    pub watermark: Seq,
    /// Per item: what its row says, and what its journal comes to.
    pub items: Vec<RecountItem>,
    /// Orders per state.
    pub orders: HashMap<OrderState, u64>,
    /// Everything that does not add up; empty in an exact sale.
    pub findings: Vec<Finding>,
}

/// An item's two counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecountItem {
    /// Which.
    pub sku: Sku,
    /// What the row says.
    pub row: Places,
    /// What the journal comes to.
    pub journal: Places,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Finding {
    /// Which invariant it breaks.
    pub invariant: Invariant,
    /// The order, adjustment, SKU, customer or move concerned.
    pub subject: String,
    /// What was found, in words.
    pub detail: String,
}

/// The invariants of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// Never more held and sold than stock.
    Oversold,
    /// No unit unsold that somebody was refused.
    Undersold,
    /// Every unit is in some place, and every layer agrees which.
    Leaked,
    /// Every accepted order is in the ledger.
    Lost,
    /// No order takes units twice.
    Doubled,
    /// No accepted order is refused.
    BrokenPromise,
    /// The rows equal the fold of the journal, which has no gap and whose hashes verify.
    Conservation,
    /// An order's life goes one way.
    Transition,
    /// No customer has more units than allowed.
    CustomerLimit,
}

/// Folds a journal. Feed it every move, then every order and every customer's units, then [`Recounter::finish`].
pub struct Recounter<'a> {
    record: &'a SaleRecord,
    places: Vec<Places>,
    chain: Chain,
    last: Seq,
    /// In a tree: a table would take up to three times the memory while it grows.
    lives: BTreeMap<OrderId, Life>,
    /// Each cart once: most orders of a sale ask for the same.
    carts: Vec<Arc<[Line]>>,
    /// Its number.
    numbers: HashMap<Arc<[Line]>, u32>,
    adjusted: HashSet<OrderId>,
    used: HashMap<Customer, i64>,
    recount: Recount,
}

/// An order's. There are as many as orders, and nothing else of a recount is: small, so that an audit is.
struct Life {
    state: OrderState,
    /// The number of its latest move.
    seq: Seq,
    /// When its hold ends.
    ends: Option<Time>,
    /// The number of its cart.
    cart: u32,
    order: bool,
    seen: bool,
}

impl<'a> Recounter<'a> {
    /// A recount of this sale.
    pub fn new(record: &'a SaleRecord) -> Self {
        Self {
            record,
            places: vec![Places::default(); record.sale.items.len()],
            chain: Chain::default(),
            last: Seq(0),
            lives: BTreeMap::new(),
            carts: Vec::new(),
            numbers: HashMap::new(),
            adjusted: HashSet::new(),
            used: HashMap::new(),
            recount: Recount { watermark: record.watermark, ..Recount::default() },
        }
    }

    fn find(&mut self, invariant: Invariant, subject: impl ToString, detail: impl Into<String>) {
        self.recount.findings.push(Finding { invariant, subject: subject.to_string(), detail: detail.into() });
    }

    /// The next move, and the hash stored with it.
    pub fn step(&mut self, step: &Move, stored: Chain) {
        if step.seq != self.last.next() {
            let expected = self.last.next();
            self.find(
                Invariant::Conservation,
                format!("#{}", step.seq),
                format!("the journal should go on at #{expected}"),
            );
        }
        self.last = step.seq;
        self.chain = self.chain.link(&self.record.sale.id, step);
        if self.chain != stored {
            self.find(Invariant::Conservation, format!("#{}", step.seq), "the hash does not fit: a move was changed");
            self.chain = stored;
        }
        self.move_units(step);
        if let Some(id) = step.claim {
            self.live(id, step);
        }
    }

    fn move_units(&mut self, step: &Move) {
        for line in &step.lines {
            let Some(index) = self.record.sale.items.iter().position(|item| item.sku == line.sku) else {
                self.find(Invariant::Conservation, &line.sku, format!("move #{} names an unknown SKU", step.seq));
                continue;
            };
            match step.kind.apply(self.places[index], line.quantity) {
                Some(places) => self.places[index] = places,
                None => {
                    let taking = matches!(step.kind, MoveKind::Hold | MoveKind::Sell);
                    let invariant = if taking { Invariant::Oversold } else { Invariant::Conservation };
                    let subject = step.claim.map_or_else(|| line.sku.to_string(), |id| id.to_string());
                    let (seq, kind, sku) = (step.seq, step.kind.word(), &line.sku);
                    self.find(invariant, subject, format!("move #{seq}: there were too few units of {sku} to {kind}"));
                }
            }
        }
    }

    fn live(&mut self, id: OrderId, step: &Move) {
        let state = match step.kind {
            MoveKind::Hold => OrderState::Held,
            MoveKind::Sell | MoveKind::Confirm => OrderState::Sold,
            MoveKind::Cancel | MoveKind::Lapse => OrderState::Released,
            MoveKind::Refuse => OrderState::Refused,
            MoveKind::Add | MoveKind::Withdraw => return self.adjust(id, step),
            MoveKind::Open | MoveKind::Pause | MoveKind::Resume | MoveKind::Close => return,
        };
        let seq = step.seq;
        match self.lives.get_mut(&id) {
            None if step.kind.settles() => {
                let ends = self.record.sale.hold_ends(step.at).filter(|_| step.kind == MoveKind::Hold);
                // A row that is gone took its customer along; but whatever holds or buys is an order.
                let order = step.kind != MoveKind::Refuse || step.customer.is_some();
                let cart = self.cart(&step.lines);
                self.lives.insert(id, Life { state, seq, ends, cart, order, seen: false });
            }
            None => self.find(Invariant::Transition, id, format!("move #{seq} of an order that was never settled")),
            Some(_) if step.kind.settles() => {
                self.find(Invariant::Doubled, id, format!("move #{seq} settles it a second time"));
            }
            Some(life) if life.state != OrderState::Held || *self.carts[life.cart as usize] != *step.lines => {
                self.find(Invariant::Transition, id, format!("move #{seq} does not follow from its life before"));
            }
            Some(life) => {
                (life.state, life.seq) = (state, seq);
                let ends = life.ends;
                self.in_time(id, step, ends);
            }
        }
        if step.kind == MoveKind::Refuse && step.customer.is_some() {
            self.find(Invariant::BrokenPromise, id, format!("the gate admitted it and move #{seq} refused it"));
        }
        self.use_up(step);
    }

    /// The number of the cart with these lines.
    fn cart(&mut self, lines: &[Line]) -> u32 {
        if let Some(number) = self.numbers.get(lines) {
            return *number;
        }
        let (cart, number) = (Arc::from(lines), u32::try_from(self.carts.len()).expect("there are fewer orders"));
        self.carts.push(Arc::clone(&cart));
        self.numbers.insert(cart, number);
        number
    }

    /// A hold is confirmed before its end, and lapses from then on.
    fn in_time(&mut self, id: OrderId, step: &Move, ends: Option<Time>) {
        let over = ends.is_some_and(|end| step.at >= end);
        let seq = step.seq;
        match step.kind {
            MoveKind::Confirm if over => {
                self.find(Invariant::Transition, id, format!("move #{seq} confirmed it after its hold had ended"));
            }
            MoveKind::Lapse if !over => {
                self.find(Invariant::Transition, id, format!("move #{seq} let it lapse before its hold had ended"));
            }
            _ => {}
        }
    }

    /// An adjustment is one move.
    fn adjust(&mut self, id: OrderId, step: &Move) {
        if !self.adjusted.insert(id) {
            self.find(Invariant::Doubled, id, format!("move #{} adjusts the stock a second time", step.seq));
        }
    }

    fn use_up(&mut self, step: &Move) {
        let (Some(limit), Some(customer)) = (self.record.sale.per_customer_limit, &step.customer) else { return };
        let units: i64 = step.lines.iter().map(|line| i64::from(line.quantity.get())).sum();
        let used = self.used.entry(customer.clone()).or_default();
        match step.kind {
            MoveKind::Hold | MoveKind::Sell => *used += units,
            MoveKind::Cancel | MoveKind::Lapse => *used -= units,
            _ => return,
        }
        if *used > i64::from(limit.get()) {
            let detail = format!("move #{}: {used} units, the limit is {}", step.seq, limit.get());
            self.find(Invariant::CustomerLimit, customer, detail);
        }
    }

    /// An order's row.
    pub fn order(&mut self, row: &OrderRecord) {
        *self.recount.orders.entry(row.state).or_default() += 1;
        let id = row.order.id;
        match self.lives.get_mut(&id) {
            None => self.find(Invariant::Transition, id, "it has a row and no move"),
            Some(life) => {
                life.seen = true;
                if life.state != row.state {
                    let (row, journal) = (row.state.word(), life.state.word());
                    self.find(Invariant::Transition, id, format!("its row says {row}, its moves say {journal}"));
                } else if !same_lines(&self.carts[life.cart as usize], &row.order.lines) {
                    self.find(Invariant::Transition, id, "its row and its moves name different units");
                } else if row.seq != Some(life.seq) || (row.state == OrderState::Held && row.expires_at != life.ends) {
                    self.find(Invariant::Transition, id, "its row is not as its latest move left it");
                }
            }
        }
    }

    /// A customer's units, as the row says.
    pub fn used(&mut self, customer: &Customer, units: Units) {
        let counted = self.used.remove(customer).unwrap_or(0);
        if counted != i64::from(units.get()) {
            let detail = format!("the row says {} units, the moves say {counted}", units.get());
            self.find(Invariant::CustomerLimit, customer, detail);
        }
    }

    /// Compares with the rows. `head` is the hash that the sale's row holds.
    pub fn finish(mut self, head: Chain) -> Recount {
        if self.last != self.record.watermark || self.chain != head {
            let detail = format!("the journal ends at #{}, the sale says #{}", self.last, self.record.watermark);
            self.find(Invariant::Conservation, &self.record.sale.id, detail);
        }
        let missing: Vec<OrderId> =
            self.lives.iter().filter(|(_, life)| life.order && !life.seen).map(|(id, _)| *id).collect();
        for id in missing {
            self.find(Invariant::Lost, id, "it has moves and no row");
        }
        let left: Vec<(Customer, i64)> = self.used.drain().filter(|(_, units)| *units != 0).collect();
        for (customer, units) in left {
            self.find(Invariant::CustomerLimit, customer, format!("no row, the moves say {units} units"));
        }
        for (index, item) in self.record.sale.items.iter().enumerate() {
            let (row, journal) = (self.record.places[index], self.places[index]);
            if u64::from(row.held.get()) + u64::from(row.sold.get()) > u64::from(row.stock.get()) {
                self.find(Invariant::Oversold, &item.sku, "more is held and sold than there is");
            }
            if row != journal || !row.conserved() {
                let detail = format!("the row says {}; the journal says {}", words(row), words(journal));
                self.find(Invariant::Conservation, &item.sku, detail);
            }
            self.recount.items.push(RecountItem { sku: item.sku.clone(), row, journal });
        }
        self.recount
    }
}

fn words(at: Places) -> String {
    let [stock, available, held, sold] = [at.stock, at.available, at.held, at.sold].map(Units::get);
    format!("{stock} in stock = {available} available + {held} held + {sold} sold")
}

#[cfg(test)]
mod tests;
