//! The ledger as one would explain it on a napkin: a list of sales, changed by plain loops under one lock. The contract
//! suite says that it is a ledger; the simulation and the order-life test then take its word for what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::ledger::journal::{Chain, Recounter};
use sluice::ledger::{
    Added, Addition, Adjustment, Books, Creation, EpochStage, EpochState, EpochStep, Lapses, Ledger, Move, MoveKind,
    OrderFilter, OrderPage, Recount, SaleMoves, SaleRecord, Settlement, Snapshot, Steered, Turn, Turned, Verdict,
};
use sluice::model::{
    Claim, Customer, Epoch, Line, Order, OrderId, OrderRecord, OrderState, Places, Reason, Result, Sale, SaleId, Seq,
    Sku, Time, Units, Verb, Withdrawal, limits,
};
use sluice::queue::{Body, Message};

/// Keeps every sale in memory, and never loses it.
pub(crate) struct ModelLedger {
    clock: Arc<dyn Clock>,
    books: Mutex<Vec<Book>>,
}

/// One sale: its row, its orders, its adjustments, its journal.
struct Book {
    record: SaleRecord,
    orders: BTreeMap<OrderId, OrderRecord>,
    /// The orders in the sequence of their settling.
    settled: BTreeMap<Seq, OrderId>,
    decided: BTreeSet<OrderId>,
    adjustments: BTreeMap<OrderId, Adjustment>,
    used: BTreeMap<Customer, u32>,
    journal: Vec<(Move, Chain)>,
}

/// Where a unit is.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    Available,
    Held,
    Sold,
}

impl ModelLedger {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, books: Mutex::default() }
    }

    /// Shows a sale, its journal and its orders, for the checker.
    pub(crate) fn look<T>(
        &self,
        sale: &SaleId,
        look: impl FnOnce(&SaleRecord, &[(Move, Chain)], &BTreeMap<OrderId, OrderRecord>) -> T,
    ) -> T {
        self.read(sale, |book| look(&book.record, &book.journal, &book.orders)).expect("the sale is there")
    }

    /// Shows a sale alone.
    pub(crate) fn record<T>(&self, sale: &SaleId, look: impl FnOnce(&SaleRecord) -> T) -> T {
        self.look(sale, |record, _, _| look(record))
    }

    fn books(&self) -> MutexGuard<'_, Vec<Book>> {
        self.books.lock().expect("no holder panics")
    }

    fn read<T>(&self, sale: &SaleId, read: impl FnOnce(&Book) -> T) -> Option<T> {
        self.books().iter().find(|book| book.record.sale.id == *sale).map(read)
    }
}

fn find<'a>(books: &'a mut [Book], sale: &SaleId) -> Option<&'a mut Book> {
    books.iter_mut().find(|book| book.record.sale.id == *sale)
}

/// Adds a move to its sale's list.
fn note(moves: &mut Vec<SaleMoves>, book: &Book, step: Move) {
    let (sale, epoch) = (&book.record.sale.id, book.record.epoch.epoch);
    match moves.iter_mut().find(|list| list.sale == *sale) {
        Some(list) => list.moves.push(step),
        None => moves.push(SaleMoves { sale: sale.clone(), epoch, moves: vec![step] }),
    }
}

#[async_trait]
impl Ledger for ModelLedger {
    async fn create(&self, sale: &Sale, stock: &[Units]) -> Result<Creation> {
        let mut books = self.books();
        if let Some(book) = find(&mut books, &sale.id) {
            return Ok(Creation::Exists(book.record.clone()));
        }
        let mut book = Book::new(sale);
        for (item, units) in sale.items.iter().zip(stock) {
            let line = Line { sku: item.sku.clone(), quantity: *units };
            book.write(MoveKind::Add, self.clock.now(), None, None, &[line]);
        }
        books.push(book);
        Ok(Creation::Created(books[books.len() - 1].record.clone()))
    }

    async fn steer(&self, sale: &SaleId, verb: Verb) -> Result<Steered> {
        let mut books = self.books();
        let Some(book) = find(&mut books, sale) else { return Ok(Steered::UnknownSale) };
        let now = self.clock.now();
        let Some(window) = book.record.sale.window.steer(verb, now) else {
            return Ok(Steered::WrongState(book.record.clone()));
        };
        if window != book.record.sale.window {
            let kind = match verb {
                Verb::Open => MoveKind::Open,
                Verb::Pause => MoveKind::Pause,
                Verb::Resume => MoveKind::Resume,
                Verb::Close => MoveKind::Close,
            };
            book.record.sale.window = window;
            book.write(kind, now, None, None, &[]);
        }
        Ok(Steered::Done(book.record.clone()))
    }

    async fn settle(&self, messages: &[Message]) -> Result<Settlement> {
        let mut books = self.books();
        let now = self.clock.now();
        let mut settlement = Settlement::default();
        for message in messages {
            let verdict = match find(&mut books, &message.sale) {
                None => Verdict::Unknown,
                Some(book) => {
                    let before = book.journal.len();
                    let verdict = book.settle(message, now);
                    for (step, _) in &book.journal[before..] {
                        note(&mut settlement.moves, book, step.clone());
                    }
                    verdict
                }
            };
            settlement.verdicts.push(verdict);
        }
        Ok(settlement)
    }

    async fn turn(&self, id: OrderId, turn: Turn) -> Result<Turned> {
        let mut books = self.books();
        let now = self.clock.now();
        let Some(book) = books.iter_mut().find(|book| book.orders.contains_key(&id)) else {
            return Ok(Turned::Unknown);
        };
        let record = book.orders[&id].clone();
        let due = record.expires_at.is_some_and(|end| end <= now);
        match (turn, record.state, record.reason) {
            (Turn::Confirm, OrderState::Held, _) if due => Ok(Turned::Lapsed(record)),
            (_, OrderState::Released, Some(Reason::Lapsed)) => Ok(Turned::Lapsed(record)),
            (Turn::Confirm, OrderState::Sold, _) | (Turn::Cancel, OrderState::Released, _) => {
                Ok(Turned::Already(record))
            }
            (turn, OrderState::Held, _) => {
                let step = match turn {
                    Turn::Confirm => book.end_hold(id, MoveKind::Confirm, now),
                    Turn::Cancel => book.end_hold(id, MoveKind::Cancel, now),
                };
                let mut moves = Vec::new();
                note(&mut moves, book, step);
                Ok(Turned::Done(book.orders[&id].clone(), moves.remove(0)))
            }
            _ => Ok(Turned::WrongState(record)),
        }
    }

    async fn add(&self, addition: &Addition) -> Result<Added> {
        let mut books = self.books();
        let Some(book) = find(&mut books, &addition.sale) else { return Ok(Added::Unknown) };
        if let Some(adjustment) = book.adjustments.get(&addition.id) {
            return Ok(Added::Already(adjustment.clone()));
        }
        let Some(places) = book.places(&addition.line.sku) else { return Ok(Added::Unknown) };
        if places.stock.get() + addition.line.quantity.get() > limits::STOCK_UNITS_MAX {
            return Ok(Added::TooMany);
        }
        let line = &addition.line;
        let step = book.write(MoveKind::Add, self.clock.now(), Some(addition.id), None, std::slice::from_ref(line));
        let adjustment =
            book.adjust(addition.id, line, i64::from(line.quantity.get()), &addition.reason, step.at, step.seq);
        let mut moves = Vec::new();
        note(&mut moves, book, step);
        Ok(Added::Done(adjustment, moves.remove(0)))
    }

    async fn lapse(&self, orders_max: usize) -> Result<Lapses> {
        let mut books = self.books();
        let now = self.clock.now();
        let mut held = Vec::new();
        for (index, book) in books.iter().enumerate() {
            for record in book.orders.values().filter(|record| record.state == OrderState::Held) {
                held.push((record.expires_at.expect("a hold ends"), record.seq, index, record.order.id));
            }
        }
        held.sort();
        let mut lapses = Lapses::default();
        for (due, _, index, id) in held {
            if due > now || lapses.lags_ms.len() == orders_max {
                lapses.next_due = Some(due);
                break;
            }
            let step = books[index].end_hold(id, MoveKind::Lapse, now);
            note(&mut lapses.moves, &books[index], step);
            lapses.lags_ms.push(u64::try_from(now.since(due).as_millis()).unwrap_or(u64::MAX));
        }
        Ok(lapses)
    }

    async fn step_epoch(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>> {
        let mut books = self.books();
        let Some(book) = find(&mut books, sale) else { return Ok(None) };
        let state = &mut book.record.epoch;
        match step {
            EpochStep::Raise => {
                state.epoch = Epoch(state.epoch.0 + 1);
                state.stage = EpochStage::Reloading;
                state.beats = 0;
            }
            EpochStep::Beat(epoch) if state.epoch == epoch && state.stage != EpochStage::Live => state.beats += 1,
            EpochStep::Live(epoch) if state.epoch == epoch && state.stage == EpochStage::Closed => {
                state.stage = EpochStage::Live;
            }
            EpochStep::Beat(_) | EpochStep::Live(_) => {}
        }
        Ok(Some(*state))
    }
}

impl Book {
    fn new(sale: &Sale) -> Self {
        let record = SaleRecord {
            sale: sale.clone(),
            places: vec![Places::default(); sale.items.len()],
            watermark: Seq(0),
            epoch: EpochState { epoch: Epoch(0), stage: EpochStage::Closed, closed: Epoch(0), beats: 0 },
            swept: None,
        };
        Self {
            record,
            orders: BTreeMap::new(),
            settled: BTreeMap::new(),
            decided: BTreeSet::new(),
            adjustments: BTreeMap::new(),
            used: BTreeMap::new(),
            journal: Vec::new(),
        }
    }

    fn places(&mut self, sku: &Sku) -> Option<&mut Places> {
        let index = self.record.sale.items.iter().position(|item| item.sku == *sku)?;
        Some(&mut self.record.places[index])
    }

    fn settle(&mut self, message: &Message, now: Time) -> Verdict {
        let epoch = &mut self.record.epoch;
        match &message.body {
            Body::Close => {
                if epoch.epoch == message.epoch && epoch.stage == EpochStage::Reloading {
                    epoch.stage = EpochStage::Closed;
                    epoch.closed = epoch.epoch;
                }
                Verdict::Marker
            }
            Body::Sweep(number) => {
                self.record.swept = self.record.swept.max(Some(*number));
                Verdict::Marker
            }
            Body::Claim(claim) => {
                if self.decided.contains(&claim.id()) {
                    return Verdict::Known;
                }
                if message.epoch < epoch.closed {
                    return Verdict::Late;
                }
                if claim.lines().iter().any(|line| self.places(&line.sku).is_none()) {
                    return Verdict::Unknown;
                }
                match claim {
                    Claim::Order(order) => self.settle_order(order, now),
                    Claim::Withdrawal(withdrawal) => self.settle_withdrawal(withdrawal, now),
                }
            }
        }
    }

    fn settle_order(&mut self, order: &Order, now: Time) -> Verdict {
        let units: u32 = order.lines.iter().map(|line| line.quantity.get()).sum();
        let used = self.used.get(&order.customer).copied().unwrap_or(0);
        let refused = if self.record.sale.per_customer_limit.is_some_and(|limit| used + units > limit.get()) {
            Some(Reason::CustomerLimit)
        } else if order.lines.iter().any(|line| self.too_few(line)) {
            Some(Reason::SoldOut)
        } else {
            None
        };
        let expires_at = self.record.sale.hold_ends(now);
        let (kind, state, expires_at) = match (refused, expires_at) {
            (Some(_), _) => (MoveKind::Refuse, OrderState::Refused, None),
            (None, None) => (MoveKind::Sell, OrderState::Sold, None),
            (None, Some(end)) => (MoveKind::Hold, OrderState::Held, Some(end)),
        };
        self.decided.insert(order.id);
        let step = self.write(kind, now, Some(order.id), Some(&order.customer), &order.lines);
        let record = OrderRecord {
            order: order.clone(),
            state,
            reason: refused,
            settled_at: Some(now),
            expires_at,
            seq: Some(step.seq),
        };
        self.orders.insert(order.id, record);
        self.settled.insert(step.seq, order.id);
        refused.map_or(Verdict::Settled, Verdict::Refused)
    }

    fn settle_withdrawal(&mut self, withdrawal: &Withdrawal, now: Time) -> Verdict {
        let Withdrawal { id, line, reason, .. } = withdrawal;
        self.decided.insert(*id);
        if self.too_few(line) {
            self.write(MoveKind::Refuse, now, Some(*id), None, std::slice::from_ref(line));
            return Verdict::Refused(Reason::SoldOut);
        }
        let step = self.write(MoveKind::Withdraw, now, Some(*id), None, std::slice::from_ref(line));
        self.adjust(*id, line, -i64::from(line.quantity.get()), reason, now, step.seq);
        Verdict::Settled
    }

    fn too_few(&mut self, line: &Line) -> bool {
        self.places(&line.sku).is_none_or(|places| places.available < line.quantity)
    }

    fn adjust(&mut self, id: OrderId, line: &Line, delta: i64, reason: &str, at: Time, seq: Seq) -> Adjustment {
        let adjustment = Adjustment {
            id,
            sale: self.record.sale.id.clone(),
            sku: line.sku.clone(),
            delta,
            reason: reason.to_owned(),
            at,
            seq,
            stock: self.places(&line.sku).expect("the SKU was looked up before").stock,
        };
        self.adjustments.insert(id, adjustment.clone());
        adjustment
    }

    fn end_hold(&mut self, id: OrderId, kind: MoveKind, now: Time) -> Move {
        let order = self.orders[&id].order.clone();
        let step = self.write(kind, now, Some(id), Some(&order.customer), &order.lines);
        let record = self.orders.get_mut(&id).expect("it was there above");
        (record.state, record.reason) = match kind {
            MoveKind::Confirm => (OrderState::Sold, None),
            MoveKind::Cancel => (OrderState::Released, Some(Reason::Cancelled)),
            _ => (OrderState::Released, Some(Reason::Lapsed)),
        };
        record.seq = Some(step.seq);
        step
    }

    /// Writes a move into the journal and does what it says.
    fn write(&mut self, kind: MoveKind, at: Time, id: Option<OrderId>, who: Option<&Customer>, lines: &[Line]) -> Move {
        let (from, to) = match kind {
            MoveKind::Add => (Place::Outside, Place::Available),
            MoveKind::Withdraw => (Place::Available, Place::Outside),
            MoveKind::Hold => (Place::Available, Place::Held),
            MoveKind::Sell => (Place::Available, Place::Sold),
            MoveKind::Confirm => (Place::Held, Place::Sold),
            MoveKind::Cancel | MoveKind::Lapse => (Place::Held, Place::Available),
            _ => (Place::Outside, Place::Outside),
        };
        for line in lines {
            let units = line.quantity.get();
            let places = self.places(&line.sku).expect("the SKU was looked up before");
            shift(places, from, |there| there.checked_sub(units).expect("they were counted before"));
            shift(places, to, |there| there + units);
        }
        let units: u32 = lines.iter().map(|line| line.quantity.get()).sum();
        if let Some(who) = who.filter(|_| self.record.sale.per_customer_limit.is_some()) {
            let used = self.used.entry(who.clone()).or_default();
            match kind {
                MoveKind::Hold | MoveKind::Sell => *used += units,
                MoveKind::Cancel | MoveKind::Lapse => *used -= units,
                _ => {}
            }
        }
        let step = Move {
            seq: self.record.watermark.next(),
            at,
            kind,
            claim: id,
            customer: who.cloned(),
            lines: lines.into(),
        };
        let before = self.journal.last().map_or(Chain::default(), |(_, chain)| *chain);
        self.journal.push((step.clone(), before.link(&self.record.sale.id, &step)));
        self.record.watermark = step.seq;
        step
    }

    fn used(&self) -> Vec<(Customer, Units)> {
        let units = |(who, units): (&Customer, &u32)| (who.clone(), Units::new(*units).expect("below the stock"));
        self.used.iter().filter(|(_, units)| **units > 0).map(units).collect()
    }
}

/// Changes how many units are in a place. The stock is everything that is not outside.
fn shift(places: &mut Places, place: Place, change: impl Fn(u32) -> u32) {
    let there = match place {
        Place::Outside => return,
        Place::Available => &mut places.available,
        Place::Held => &mut places.held,
        Place::Sold => &mut places.sold,
    };
    *there = Units::new(change(there.get())).expect("below the stock");
    let sum = places.available.get() + places.held.get() + places.sold.get();
    places.stock = Units::new(sum).expect("below the limit");
}

#[async_trait]
impl Books for ModelLedger {
    async fn sales(&self) -> Result<Vec<SaleRecord>> {
        Ok(self.books().iter().rev().map(|book| book.record.clone()).collect())
    }

    async fn sale(&self, sale: &SaleId) -> Result<Option<SaleRecord>> {
        Ok(self.read(sale, |book| book.record.clone()))
    }

    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>> {
        Ok(self.books().iter().find_map(|book| book.orders.get(&id).cloned()))
    }

    async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage> {
        let mut page = OrderPage::default();
        let all = self.read(&filter.sale, |book| {
            let record = |(seq, id): (&Seq, &OrderId)| (*seq, book.orders[id].clone());
            book.settled.iter().map(record).collect::<Vec<_>>()
        });
        let mut last = filter.after;
        for (seq, record) in all.into_iter().flatten().filter(|(seq, _)| *seq > filter.after) {
            if filter.state.is_some_and(|state| state != record.state)
                || filter.customer.as_ref().is_some_and(|who| *who != record.order.customer)
            {
                continue;
            }
            if page.orders.len() == filter.limit {
                page.next = Some(last);
                break;
            }
            last = seq;
            page.orders.push(record);
        }
        Ok(page)
    }

    async fn adjustment(&self, id: OrderId) -> Result<Option<Adjustment>> {
        Ok(self.books().iter().find_map(|book| book.adjustments.get(&id).cloned()))
    }

    async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Result<Vec<Move>> {
        let moves = self.read(sale, |book| {
            let later = book.journal.iter().filter(|(step, _)| step.seq > after);
            later.take(moves_max).map(|(step, _)| step.clone()).collect()
        });
        Ok(moves.unwrap_or_default())
    }

    async fn snapshot(&self, sale: &SaleId) -> Result<Option<Snapshot>> {
        Ok(self.read(sale, |book| Snapshot {
            record: book.record.clone(),
            used: book.used(),
            known: book.decided.iter().copied().collect(),
        }))
    }

    async fn recount(&self, sale: &SaleId) -> Result<Option<Recount>> {
        Ok(self.read(sale, |book| {
            let mut recounter = Recounter::new(&book.record);
            for (step, chain) in &book.journal {
                recounter.step(step, *chain);
            }
            for record in book.orders.values() {
                recounter.order(record);
            }
            for (who, units) in book.used() {
                recounter.used(&who, units);
            }
            recounter.finish(book.journal.last().map_or(Chain::default(), |(_, chain)| *chain))
        }))
    }
}
