//! The ledger in a SQLite file.

mod books;
mod rows;

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::desk::{Desk, ToTurn, by_sale, lag_ms, to_turn};
use super::{
    Added, Addition, Books, Creation, EpochState, EpochStep, Lapses, Ledger, MoveKind, OrderFilter, OrderPage, Recount,
    SaleRecord, Settlement, Snapshot, Steered, Turn, Turned, Verdict,
};
use crate::clock::Clock;
use crate::fault::{self, Moment};
use crate::ledger::{Adjustment, Move};
use crate::model::{Claim, Message, OrderId, OrderRecord, Result, Sale, SaleId, Seq, Time, Units, Verb};
use crate::sqlite::{Failure, Store};

const LAYER: &str = "ledger";

/// Keeps the truth in the tables that `migrations/sqlite/ledger` describes.
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
        self.write(move |connection, now| step_epoch(connection, &sale, step, now)).await
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
    desk.stock_up(stock).map_err(|_| nonsense("the stock passes its limit"))?;
    rows::save(connection, &desk)?;
    Ok(Creation::Created(desk.record))
}

fn steer(connection: &Connection, sale: &SaleId, verb: Verb, now: Time) -> Result<Steered, Failure> {
    let Some(mut desk) = rows::desk(connection, sale, now)? else { return Ok(Steered::UnknownSale) };
    if desk.steer(verb).is_none() {
        return Ok(Steered::WrongState(desk.record));
    }
    rows::save(connection, &desk)?;
    Ok(Steered::Done(desk.record))
}

fn settle(connection: &Connection, messages: &[Message], now: Time) -> Result<Settlement, Failure> {
    let mut verdicts = vec![Verdict::Unknown; messages.len()];
    let mut moves = Vec::new();
    for (sale, indexes) in by_sale(messages) {
        let Some(mut desk) = rows::desk(connection, sale, now)? else { continue };
        desk.decide_all(messages, &indexes, &mut verdicts, |desk, claim| {
            if let Claim::Order(order) = claim {
                rows::load_customer(connection, desk, &order.customer)?;
            }
            rows::is_decided(connection, claim)
        })?;
        rows::save(connection, &desk)?;
        moves.extend(desk.into_moves());
    }
    fault::at(Moment::BeforeCommit);
    Ok(Settlement { verdicts, moves })
}

fn turn_order(connection: &Connection, id: OrderId, turn: Turn, now: Time) -> Result<Turned, Failure> {
    let Some(record) = rows::order(connection, id)? else { return Ok(Turned::Unknown) };
    let kind = match to_turn(&record, turn, now) {
        ToTurn::By(kind) => kind,
        ToTurn::Answer(answer) => return Ok(answer),
    };
    let sale = &record.order.sale;
    let mut desk = rows::desk(connection, sale, now)?.ok_or_else(|| nonsense("an order of no sale"))?;
    let record = rows::turn(connection, &mut desk, &record, kind)?;
    rows::save(connection, &desk)?;
    let moves = desk.into_moves().ok_or_else(|| nonsense("a turn is a move"))?;
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
    let moves = desk.into_moves().ok_or_else(|| nonsense("an addition is a move"))?;
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
        lapses.lags_ms.push(lag_ms(&record, now));
        rows::turn(connection, &mut desks[at], &record, MoveKind::Lapse)?;
    }
    for desk in desks {
        rows::save(connection, &desk)?;
        lapses.moves.extend(desk.into_moves());
    }
    lapses.next_due = next_due(connection)?;
    Ok(lapses)
}

fn step_epoch(
    connection: &Connection,
    sale: &SaleId,
    step: EpochStep,
    now: Time,
) -> Result<Option<EpochState>, Failure> {
    let Some(mut desk) = rows::desk(connection, sale, now)? else { return Ok(None) };
    desk.step_epoch(step);
    rows::save(connection, &desk)?;
    Ok(Some(desk.record.epoch))
}

fn nonsense(what: &str) -> Failure {
    Failure::Nonsense(what.to_owned())
}
