//! The ledger in a SQLite file.

mod books;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::desk::Desk;
use super::{
    Added, Addition, Books, Creation, EpochStage, EpochState, EpochStep, Lapses, Ledger, MoveKind, OrderFilter,
    OrderPage, Recount, SaleRecord, Settlement, Snapshot, Steered, Turn, Turned, Verdict,
};
use crate::clock::Clock;
use crate::ledger::{Adjustment, Move};
use crate::model::{
    Body, Claim, Line, Message, OrderId, OrderRecord, OrderState, Reason, Result, Sale, SaleId, Seq, Time, Units, Verb,
};
use crate::sqlite::{Failure, Store};

const LAYER: &str = "ledger";

/// Keeps the truth in the tables that `migrations/sqlite` describes.
pub struct SqliteLedger {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl SqliteLedger {
    /// A ledger in this database. Holds lapse by this clock.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// The deployment's secret, from which order ids are derived; made from `fresh` the first time.
    pub async fn secret(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        let job = move |connection: &Connection| {
            let sql = "/* make secret */ insert or ignore into secrets (name, value) values ('order ids', ?1)";
            connection.prepare_cached(sql)?.execute([fresh])?;
            let sql = "/* secret */ select value from secrets where name = 'order ids'";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        };
        self.store.write(LAYER, job).await
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection, Time) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let clock = self.clock.clone();
        self.store.write(LAYER, move |connection| job(connection, clock.now())).await
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn create(&self, sale: &Sale, stock: &[Units]) -> Result<Creation> {
        let (sale, stock) = (sale.clone(), stock.to_vec());
        self.write(move |connection, now| create(connection, &sale, &stock, now)).await
    }

    async fn steer(&self, sale: &SaleId, verb: Verb) -> Result<Steered> {
        let sale = sale.clone();
        self.write(move |connection, now| steer(connection, &sale, verb, now)).await
    }

    async fn settle(&self, messages: &[Message]) -> Result<Settlement> {
        let messages = messages.to_vec();
        self.write(move |connection, now| settle(connection, &messages, now)).await
    }

    async fn turn(&self, id: OrderId, turn: Turn) -> Result<Turned> {
        self.write(move |connection, now| turn_order(connection, id, turn, now)).await
    }

    async fn add(&self, addition: &Addition) -> Result<Added> {
        let addition = addition.clone();
        self.write(move |connection, now| add(connection, &addition, now)).await
    }

    async fn lapse(&self, orders_max: usize) -> Result<Lapses> {
        let next_due = self.store.read(LAYER, next_due).await?;
        if next_due.is_none_or(|due| due > self.clock.now()) {
            return Ok(Lapses { next_due, ..Lapses::default() });
        }
        self.write(move |connection, now| lapse(connection, orders_max, now)).await
    }

    async fn step_epoch(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>> {
        let sale = sale.clone();
        self.write(move |connection, _| step_epoch(connection, &sale, step)).await
    }
}

#[async_trait]
impl Books for SqliteLedger {
    async fn sales(&self) -> Result<Vec<SaleRecord>> {
        self.store.read(LAYER, books::sales).await
    }

    async fn sale(&self, sale: &SaleId) -> Result<Option<SaleRecord>> {
        let sale = sale.clone();
        self.store.read(LAYER, move |connection| rows::sale(connection, &sale)).await
    }

    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>> {
        self.store.read(LAYER, move |connection| rows::order(connection, id)).await
    }

    async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage> {
        let filter = filter.clone();
        self.store.read(LAYER, move |connection| books::orders(connection, &filter)).await
    }

    async fn adjustment(&self, id: OrderId) -> Result<Option<Adjustment>> {
        self.store.read(LAYER, move |connection| rows::adjustment(connection, id)).await
    }

    async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Result<Vec<Move>> {
        let sale = sale.clone();
        let read = move |connection: &Connection| books::journal(connection, &sale, after, moves_max);
        self.store.read(LAYER, read).await
    }

    async fn snapshot(&self, sale: &SaleId) -> Result<Option<Snapshot>> {
        let sale = sale.clone();
        self.store.read(LAYER, move |connection| books::snapshot(connection, &sale)).await
    }

    async fn recount(&self, sale: &SaleId) -> Result<Option<Recount>> {
        let sale = sale.clone();
        self.store.read(LAYER, move |connection| books::recount(connection, &sale)).await
    }
}

fn create(connection: &Connection, sale: &Sale, stock: &[Units], now: Time) -> Result<Creation, Failure> {
    if let Some(record) = rows::sale(connection, &sale.id)? {
        return Ok(Creation::Exists(record));
    }
    rows::insert_sale(connection, sale, now)?;
    let mut desk = rows::desk(connection, &sale.id, now)?.ok_or_else(|| nonsense("the sale was just created"))?;
    for (item, units) in sale.items.iter().zip(stock) {
        let line = Line { sku: item.sku.clone(), quantity: *units };
        desk.note(MoveKind::Add, None, None, &[line]).map_err(|_| nonsense("the stock passes its limit"))?;
    }
    rows::save(connection, &desk)?;
    Ok(Creation::Created(desk.record))
}

fn steer(connection: &Connection, sale: &SaleId, verb: Verb, now: Time) -> Result<Steered, Failure> {
    let Some(mut desk) = rows::desk(connection, sale, now)? else { return Ok(Steered::UnknownSale) };
    let before = desk.record.sale.window;
    let Some(window) = before.steer(verb, now) else { return Ok(Steered::WrongState(desk.record)) };
    if window != before {
        desk.record.sale.window = window;
        let kind = match verb {
            Verb::Open => MoveKind::Open,
            Verb::Pause => MoveKind::Pause,
            Verb::Resume => MoveKind::Resume,
            Verb::Close => MoveKind::Close,
        };
        desk.note(kind, None, None, &[]).map_err(|_| nonsense("a verb moves no units"))?;
        rows::save(connection, &desk)?;
    }
    Ok(Steered::Done(desk.record))
}

fn settle(connection: &Connection, messages: &[Message], now: Time) -> Result<Settlement, Failure> {
    let mut verdicts = vec![Verdict::Unknown; messages.len()];
    let mut moves = Vec::new();
    for (sale, indexes) in by_sale(messages) {
        let Some(mut desk) = rows::desk(connection, sale, now)? else { continue };
        let mut decided = HashSet::new();
        for index in indexes {
            let message = &messages[index];
            let known = match &message.body {
                Body::Claim(claim) => decided.contains(&claim.id()) || rows::is_decided(connection, claim)?,
                Body::Close | Body::Sweep(_) => false,
            };
            if let Body::Claim(Claim::Order(order)) = &message.body {
                rows::load_customer(connection, &mut desk, &order.customer)?;
            }
            verdicts[index] = desk.decide(message, known);
            if let (Body::Claim(claim), Verdict::Settled | Verdict::Refused(_)) = (&message.body, verdicts[index]) {
                decided.insert(claim.id());
            }
        }
        rows::save(connection, &desk)?;
        moves.extend(rows::moves_of(desk));
    }
    Ok(Settlement { verdicts, moves })
}

/// The messages' indexes, sale by sale, each sale's in sequence.
fn by_sale(messages: &[Message]) -> Vec<(&SaleId, Vec<usize>)> {
    let mut sales: Vec<(&SaleId, Vec<usize>)> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        match sales.iter_mut().rfind(|(sale, _)| **sale == message.sale) {
            Some((_, indexes)) => indexes.push(index),
            None => sales.push((&message.sale, vec![index])),
        }
    }
    sales
}

fn turn_order(connection: &Connection, id: OrderId, turn: Turn, now: Time) -> Result<Turned, Failure> {
    let Some(record) = rows::order(connection, id)? else { return Ok(Turned::Unknown) };
    let due = record.expires_at.is_some_and(|due| due <= now);
    let kind = match (turn, record.state, record.reason) {
        (Turn::Confirm, OrderState::Held, _) if due => return Ok(Turned::Lapsed(record)),
        (Turn::Confirm, OrderState::Held, _) => MoveKind::Confirm,
        (Turn::Cancel, OrderState::Held, _) => MoveKind::Cancel,
        (Turn::Confirm, OrderState::Sold, _) | (Turn::Cancel, OrderState::Released, Some(Reason::Cancelled)) => {
            return Ok(Turned::Already(record));
        }
        (_, OrderState::Released, Some(Reason::Lapsed)) => return Ok(Turned::Lapsed(record)),
        _ => return Ok(Turned::WrongState(record)),
    };
    let sale = record.order.sale.clone();
    let mut desk = rows::desk(connection, &sale, now)?.ok_or_else(|| nonsense("an order of no sale"))?;
    let record = rows::turn(connection, &mut desk, record, kind)?;
    rows::save(connection, &desk)?;
    let moves = rows::moves_of(desk).ok_or_else(|| nonsense("a turn is a move"))?;
    Ok(Turned::Done(record, moves))
}

fn add(connection: &Connection, addition: &Addition, now: Time) -> Result<Added, Failure> {
    if let Some(adjustment) = rows::adjustment(connection, addition.id)? {
        return Ok(Added::Already(adjustment));
    }
    let Some(mut desk) = rows::desk(connection, &addition.sale, now)? else { return Ok(Added::Unknown) };
    if desk.record.sale.item(&addition.line.sku).is_none() {
        return Ok(Added::Unknown);
    }
    let Some(adjustment) = desk.add(addition) else { return Ok(Added::TooMany) };
    rows::save(connection, &desk)?;
    let moves = rows::moves_of(desk).ok_or_else(|| nonsense("an addition is a move"))?;
    Ok(Added::Done(adjustment, moves))
}

fn next_due(connection: &Connection) -> Result<Option<Time>, Failure> {
    let sql = "/* next due */ select expires_at from orders where state = 'held' order by expires_at limit 1";
    let due: Option<Option<i64>> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    Ok(due.flatten().map(Time::from_millis))
}

fn lapse(connection: &Connection, orders_max: usize, now: Time) -> Result<Lapses, Failure> {
    let mut lapses = Lapses::default();
    let mut desks: Vec<Desk> = Vec::new();
    for record in rows::due(connection, orders_max, now)? {
        let sale = &record.order.sale;
        let at = match desks.iter().position(|desk| desk.record.sale.id == *sale) {
            Some(at) => at,
            None => {
                desks.push(rows::desk(connection, sale, now)?.ok_or_else(|| nonsense("an order of no sale"))?);
                desks.len() - 1
            }
        };
        let due = record.expires_at.unwrap_or(now);
        lapses.lags_ms.push(u64::try_from(now.since(due).as_millis()).unwrap_or(u64::MAX));
        rows::turn(connection, &mut desks[at], record, MoveKind::Lapse)?;
    }
    for desk in desks {
        rows::save(connection, &desk)?;
        lapses.moves.extend(rows::moves_of(desk));
    }
    lapses.next_due = next_due(connection)?;
    Ok(lapses)
}

fn step_epoch(connection: &Connection, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>, Failure> {
    let Some(mut state) = rows::sale(connection, sale)?.map(|record| record.epoch) else { return Ok(None) };
    match step {
        EpochStep::Raise => {
            state.epoch.0 += 1;
            state.stage = EpochStage::Reloading;
        }
        EpochStep::Live(epoch) if state.epoch == epoch && state.stage == EpochStage::Closed => {
            state.stage = EpochStage::Live;
        }
        EpochStep::Live(_) => {}
    }
    let sql = "/* step epoch */ update sales set epoch = ?2, stage = ?3 where id = ?1";
    connection.prepare_cached(sql)?.execute(params![sale.as_str(), state.epoch.0, state.stage.word()])?;
    Ok(Some(state))
}

fn nonsense(what: &str) -> Failure {
    Failure::Nonsense(what.to_owned())
}
