//! Ending holds: confirmed, cancelled or lapsed. A shop confirms each order by itself, so what comes in while one
//! transaction is on its way gathers for the next; lookups of orders do the same.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::rows::{self, get, order_sql, uuid};
use super::{BEGIN, Core, LAYER, LOCK_ITEMS, LOCK_SALES, desks};
use crate::batcher::{Batches, Waiting};
use crate::ledger::desk::{Desk, ToTurn, lag_ms, to_turn};
use crate::ledger::{Lapses, MoveKind, SaleMoves, Turn, Turned};
use crate::model::{Error, OrderId, OrderRecord, Result, SaleId, Time, limits};
use crate::postgres::{Failure, Lane, Session, attempts, trip};

pub(super) type Lookups = Batches<OrderId, Result<Option<OrderRecord>>>;
pub(super) type Turns = Batches<(OrderId, Turn), Result<Turned>>;

/// Answers lookups until nobody can ask any more.
pub(super) async fn look_up(core: Arc<Core>, mut lookups: Lookups) {
    while let Some(waiting) = lookups.next(limits::LEDGER_BATCH_ORDERS_MAX).await {
        let ids: Vec<OrderId> = waiting.iter().map(|waiting| waiting.item).collect();
        match attempts(LAYER, &*core.clock, || core.find(&ids)).await {
            Ok(mut found) => waiting.into_iter().for_each(|waiting| {
                let record = match found.get_mut(&waiting.item) {
                    None => Ok(None),
                    Some(Ok(record)) => Ok(Some(record.clone())),
                    Some(Err(why)) => Err(Error::Damaged(LAYER, why.clone())),
                };
                waiting.answer(record);
            }),
            Err(error) => waiting.into_iter().for_each(|waiting| waiting.answer(Err(error.clone()))),
        }
    }
}

/// Turns orders until nobody can ask any more.
pub(super) async fn turn(core: Arc<Core>, mut turns: Turns) {
    while let Some(waiting) = turns.next(limits::LEDGER_BATCH_ORDERS_MAX).await {
        let (asked, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(Waiting::split).unzip();
        let turned = core.turn_all(&asked).await;
        answers.into_iter().zip(turned).for_each(|(answer, turned)| answer(turned));
    }
}

/// Sales and orders, their rows locked.
struct Held {
    desks: Vec<Desk>,
    orders: HashMap<OrderId, Result<OrderRecord, String>>,
}

impl Held {
    fn desk(&mut self, sale: &SaleId) -> Option<&mut Desk> {
        self.desks.iter_mut().find(|desk| desk.record.sale.id == *sale)
    }
}

/// By id; an order that cannot be read says why, and keeps no other from being read.
fn by_id(rows: &[Row]) -> Result<HashMap<OrderId, Result<OrderRecord, String>>, Failure> {
    let why = |failure: Failure| failure.named(LAYER).to_string();
    rows.iter().map(|row| Ok((rows::order_id(row, 0)?, rows::order(row).map_err(why)))).collect()
}

impl Core {
    async fn find(&self, ids: &[OrderId]) -> Result<HashMap<OrderId, Result<OrderRecord, String>>, Failure> {
        let ids: Vec<Uuid> = ids.iter().copied().map(uuid).collect();
        let session = self.database.session(Lane::Read).await?;
        let sql = order_sql!("orders by id", "where o.id = any($1)");
        let [statement] = session.prepare([sql]).await?;
        let found = trip(session.query(&statement, &[&ids])).await?;
        session.done();
        by_id(&found)
    }

    /// One answer per item. An item that damages the batch is found by turning each alone.
    async fn turn_all(&self, asked: &[(OrderId, Turn)]) -> Vec<Result<Turned>> {
        let error = match attempts(LAYER, &*self.clock, || self.turn_once(asked)).await {
            Ok(turned) => return turned,
            Err(error) => error,
        };
        if !matches!(error, Error::Damaged(..)) || asked.len() == 1 {
            return asked.iter().map(|_| Err(error.clone())).collect();
        }
        let mut turned = Vec::with_capacity(asked.len());
        for item in asked {
            let alone = attempts(LAYER, &*self.clock, || self.turn_once(std::slice::from_ref(item))).await;
            turned.push(alone.and_then(|mut answers| answers.remove(0)));
        }
        turned
    }

    async fn turn_once(&self, asked: &[(OrderId, Turn)]) -> Result<Vec<Result<Turned>>, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let ids: Vec<Uuid> = asked.iter().map(|(id, _)| uuid(*id)).collect();
        let [sales] =
            session.prepare(["/* sales of orders */ select distinct sale from orders where id = any($1)"]).await?;
        let sales = trip(session.query(&sales, &[&ids])).await?;
        let sales: Vec<SaleId> = sales.iter().map(|row| rows::sale_id(row, 0)).collect::<Result<_, _>>()?;
        let mut held = self.lock(&session, &sales, &ids).await?;
        let mut turned = Vec::new();
        let answers: Vec<Result<Turned>> = asked.iter().map(|(id, turn)| held.turn(*id, *turn, &mut turned)).collect();
        self.finish(session, &held.desks, &turned).await?;
        Ok(answers)
    }

    /// Locks these sales, then these orders of theirs, in one round trip.
    async fn lock(&self, session: &Session, sales: &[SaleId], ids: &[Uuid]) -> Result<Held, Failure> {
        let names: Vec<&str> = sales.iter().map(SaleId::as_str).collect();
        let lock_orders = order_sql!(
            "lock orders",
            "where o.id = any($1) and o.sale = any($2) order by o.sale, o.settled_seq for update of o"
        );
        let customers_sql = "/* customers of orders */ select distinct c.sale, c.customer, c.units from orders o \
                             join customers c on c.sale = o.sale and c.customer = o.customer where o.id = any($1)";
        let by_sale: &[&(dyn ToSql + Sync)] = &[&names];
        let queries: [(&'static str, &[&(dyn ToSql + Sync)]); 4] =
            [(LOCK_SALES, by_sale), (LOCK_ITEMS, by_sale), (lock_orders, &[&ids, &names]), (customers_sql, &[&ids])];
        let [_, items, orders, used] = session.begin(BEGIN, queries).await?;
        let desks = desks(&items, &used, self.clock.now())?;
        Ok(Held { desks, orders: by_id(&orders)? })
    }

    async fn finish(&self, session: Session, desks: &[Desk], turned: &[OrderRecord]) -> Result<(), Failure> {
        if turned.is_empty() {
            trip(session.batch_execute("/* nothing to turn */ rollback")).await?;
        } else {
            let mut writes = rows::save(desks);
            writes.push(rows::save_turned(turned));
            session.commit(&writes).await?;
        }
        session.done();
        Ok(())
    }

    pub(super) async fn next_due(&self) -> Result<Option<Time>, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let sql = "/* next due */ select expires_at from orders where state = 'held' order by expires_at limit 1";
        let [statement] = session.prepare([sql]).await?;
        let row = trip(session.query_opt(&statement, &[])).await?;
        session.done();
        let due: Option<Option<rows::Stamp>> = row.map(|row| get(&row, 0)).transpose()?;
        Ok(due.flatten().map(|stamp| stamp.0))
    }

    pub(super) async fn lapse_once(&self, orders_max: usize) -> Result<Lapses, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let sql = "/* due holds */ select id, sale from orders where state = 'held' and expires_at <= $1 \
                   order by expires_at, sale, settled_seq limit $2";
        let [due] = session.prepare([sql]).await?;
        let limit = i64::try_from(orders_max).unwrap_or(i64::MAX);
        let due = trip(session.query(&due, &[&rows::Stamp(self.clock.now()), &limit])).await?;
        let ids: Vec<OrderId> = due.iter().map(|row| rows::order_id(row, 0)).collect::<Result<_, _>>()?;
        let mut sales: Vec<SaleId> = due.iter().map(|row| rows::sale_id(row, 1)).collect::<Result<_, _>>()?;
        sales.sort();
        sales.dedup();
        if ids.is_empty() {
            session.done();
            return Ok(Lapses::default());
        }
        let uuids: Vec<Uuid> = ids.iter().copied().map(uuid).collect();
        let mut held = self.lock(&session, &sales, &uuids).await?;
        let (mut lapses, mut turned, mut damaged) = (Lapses::default(), Vec::new(), None);
        for id in ids {
            match held.lapse(id, &mut turned) {
                Ok(lag_ms) => lapses.lags_ms.extend(lag_ms),
                Err(failure) => damaged = Some(failure),
            }
        }
        // What cannot be given back keeps nothing else from it, and is told when nothing else is left.
        if let Some(failure) = damaged.filter(|_| turned.is_empty()) {
            return Err(failure);
        }
        self.finish(session, &held.desks, &turned).await?;
        lapses.moves = held.desks.into_iter().filter_map(Desk::into_moves).collect();
        Ok(lapses)
    }
}

impl Held {
    /// Turns one order at its desk; the answer carries its own move only.
    fn turn(&mut self, id: OrderId, turn: Turn, turned: &mut Vec<OrderRecord>) -> Result<Turned> {
        let damaged = |why: &str| Error::Damaged(LAYER, why.to_owned());
        let record = match self.orders.get(&id) {
            None => return Ok(Turned::Unknown),
            Some(Err(why)) => return Err(damaged(why)),
            Some(Ok(record)) => record.clone(),
        };
        let desk = self.desk(&record.order.sale).ok_or_else(|| damaged("an order of no sale"))?;
        // One moment for the decision and for its move: a move never shows a time at which it was not allowed.
        let kind = match to_turn(&record, turn, desk.now()) {
            ToTurn::By(kind) => kind,
            ToTurn::Answer(answer) => return Ok(answer),
        };
        let record = desk.turn(&record, kind).map_err(|_| damaged("a hold without held units"))?;
        let moves = desk.moves.last().map(|(step, _)| step.clone()).into_iter().collect();
        let moves = SaleMoves { sale: record.order.sale.clone(), epoch: desk.record.epoch.epoch, moves };
        self.orders.insert(id, Ok(record.clone()));
        turned.push(record.clone());
        Ok(Turned::Done(record, moves))
    }

    /// Gives a due hold back, if nobody else did meanwhile; answers how late.
    fn lapse(&mut self, id: OrderId, turned: &mut Vec<OrderRecord>) -> Result<Option<u64>, Failure> {
        let record = match self.orders.get(&id) {
            Some(Ok(record)) if record.state == crate::model::OrderState::Held => record.clone(),
            Some(Err(why)) => return Err(Failure::Damaged(why.clone())),
            _ => return Ok(None),
        };
        let desk = self.desk(&record.order.sale).ok_or_else(|| rows::nonsense("an order of no sale"))?;
        let now = desk.now();
        if record.expires_at.is_none_or(|due| due > now) {
            return Ok(None);
        }
        turned.push(desk.turn(&record, MoveKind::Lapse).map_err(|_| rows::nonsense("a hold without held units"))?);
        Ok(Some(lag_ms(&record, now)))
    }
}
