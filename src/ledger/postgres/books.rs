//! Reading: each answer is one consistent cut, either one statement or one repeatable-read transaction. What may be long
//! is streamed.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::rows::{self, order_sql, sale_sql};
use super::{Core, LAYER};
use crate::batcher::Batches;
use crate::ledger::journal::{Chain, Recounter};
use crate::ledger::{Adjustment, Move, OrderFilter, OrderPage, Recount, SaleRecord, Snapshot};
use crate::model::{OrderId, Result as Answer, SaleId, Seq, limits};
use crate::postgres::{Failure, Lane, Session, attempts, trip, trip_within};

/// A cut for several statements, which may take longer than others.
const BEGIN_CUT: &str = "/* begin */ begin isolation level repeatable read read only; set local statement_timeout = 0";
const END_CUT: &str = "/* end */ commit";

const SALE: &str = sale_sql!("sale", "where s.id = $1 order by i.position");
const SALES_BY_ID: &str = sale_sql!("sales by id", "where s.id = any($1) order by s.id, i.position");
const MOVES: &str = "/* journal */ select m.seq, m.kind, m.claim, m.sku, m.units, m.at, m.hash, o.customer \
                     from moves m left join orders o on o.id = m.claim \
                     where m.sale = $1 and m.seq > $2 and m.seq <= $3 order by m.seq, m.line";
const CUSTOMERS: &str = "/* customers */ select customer, units from customers where sale = $1 and units > 0";
pub(super) const ADJUSTMENT: &str =
    "/* adjustment */ select id, sale, sku, delta, reason, at, seq, stock from adjustments where id = $1";

/// Answers lookups of sales until nobody can ask any more. What comes in while one question is on its way gathers for the
/// next: while a gate is loaded, every retry of its crowd asks.
pub(super) async fn look_up_sales(core: Arc<Core>, mut lookups: Batches<SaleId, Answer<Option<SaleRecord>>>) {
    while let Some(waiting) = lookups.next(limits::LEDGER_BATCH_ORDERS_MAX).await {
        let mut ids: Vec<SaleId> = waiting.iter().map(|waiting| waiting.item.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let found = core.sales_by_id(&ids).await;
        for waiting in waiting {
            let record = found.as_ref().map(|found| found.get(&waiting.item).cloned()).map_err(Clone::clone);
            waiting.answer(record);
        }
    }
}

impl Core {
    /// One statement, one answer.
    async fn read<T>(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
        meant: impl Fn(&[Row]) -> Result<T, Failure>,
    ) -> Answer<T> {
        attempts(LAYER, &*self.clock, || async {
            let session = self.database.session(Lane::Read).await?;
            let [statement] = session.prepare([sql]).await?;
            let found = trip(session.query(&statement, values)).await?;
            session.done();
            meant(&found)
        })
        .await
    }

    pub(super) async fn sales(&self) -> Answer<Vec<SaleRecord>> {
        let sql = sale_sql!("sales", "order by s.created_at desc, s.id, i.position");
        self.read(sql, &[], |found| Ok(rows::sales(found)?.into_iter().map(|(record, _)| record).collect())).await
    }

    async fn sales_by_id(&self, ids: &[SaleId]) -> Answer<HashMap<SaleId, SaleRecord>> {
        let ids: Vec<&str> = ids.iter().map(SaleId::as_str).collect();
        self.read(SALES_BY_ID, &[&ids], |found| {
            Ok(rows::sales(found)?.into_iter().map(|(record, _)| (record.sale.id.clone(), record)).collect())
        })
        .await
    }

    pub(super) async fn orders(&self, filter: &OrderFilter) -> Answer<OrderPage> {
        let sql = order_sql!(
            "orders",
            "where o.sale = $1 and o.settled_seq > $2 and ($3::text is null or o.state = $3) \
             and ($4::text is null or o.customer = $4) order by o.settled_seq limit $5"
        );
        let state = filter.state.map(|state| state.word());
        let customer = filter.customer.as_ref().map(|customer| customer.as_str());
        let limit = i64::try_from(filter.limit.saturating_add(1)).unwrap_or(i64::MAX);
        let after = rows::big(filter.after.0);
        self.read(sql, &[&filter.sale.as_str(), &after, &state, &customer, &limit], |found| {
            let (shown, more) = found.split_at(filter.limit.min(found.len()));
            let orders = shown.iter().map(rows::order).collect::<Result<_, _>>()?;
            let next = shown.last().filter(|_| !more.is_empty()).map(rows::settled_seq).transpose()?;
            Ok(OrderPage { orders, next })
        })
        .await
    }

    pub(super) async fn adjustment(&self, id: OrderId) -> Answer<Option<Adjustment>> {
        self.read(ADJUSTMENT, &[&rows::uuid(id)], |found| found.first().map(rows::adjustment).transpose()).await
    }

    pub(super) async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Answer<Vec<Move>> {
        let last = after.0.saturating_add(u64::try_from(moves_max).unwrap_or(u64::MAX));
        let (after, last) = (rows::big(after.0), rows::big(last));
        self.read(MOVES, &[&sale.as_str(), &after, &last], |found| {
            found.chunk_by(same_move).map(|rows| rows::step(rows).map(|(step, _)| step)).collect()
        })
        .await
    }

    pub(super) async fn snapshot(&self, sale: &SaleId) -> Answer<Option<Snapshot>> {
        let limit = limits::LEDGER_RECOUNT_TIME_MAX;
        attempts(LAYER, &*self.clock, || trip_within(limit, self.snapshot_once(sale))).await
    }

    pub(super) async fn recount(&self, sale: &SaleId) -> Answer<Option<Recount>> {
        let limit = limits::LEDGER_RECOUNT_TIME_MAX;
        attempts(LAYER, &*self.clock, || trip_within(limit, self.recount_once(sale))).await
    }

    async fn snapshot_once(&self, sale: &SaleId) -> Result<Option<Snapshot>, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let sql = "/* known ids */ select id from orders where sale = $1 \
                   union all select id from adjustments where sale = $1 \
                   union all select m.claim from moves m where m.sale = $1 and m.kind = 'refuse' \
                       and not exists (select from orders o where o.id = m.claim)";
        let [customers, known] = session.prepare([CUSTOMERS, sql]).await?;
        let Some((record, _)) = begin_cut(&session, sale).await? else { return end_cut(session, None).await };
        let (mut used, mut ids) = (Vec::new(), Vec::new());
        each(&session, &customers, &[&sale.as_str()], |row| {
            used.push((rows::customer(&row, 0)?, rows::units(&row, 1)?));
            Ok(())
        })
        .await?;
        each(&session, &known, &[&sale.as_str()], |row| {
            ids.push(rows::order_id(&row, 0)?);
            Ok(())
        })
        .await?;
        end_cut(session, Some(Snapshot { record, used, known: ids })).await
    }

    async fn recount_once(&self, sale: &SaleId) -> Result<Option<Recount>, Failure> {
        let session = self.database.session(Lane::Recount).await?;
        let sql = order_sql!("recount orders", "where o.sale = $1 order by o.settled_seq");
        let [moves, orders, customers] = session.prepare([MOVES, sql, CUSTOMERS]).await?;
        let Some((record, head)) = begin_cut(&session, sale).await? else { return end_cut(session, None).await };
        let mut recounter = Recounter::new(&record);
        let name = sale.as_str();
        each_move(&session, &moves, &[&name, &0_i64, &i64::MAX], |step, chain| recounter.step(step, chain)).await?;
        each(&session, &orders, &[&name], |row| {
            recounter.order(&rows::order(&row)?);
            Ok(())
        })
        .await?;
        each(&session, &customers, &[&name], |row| {
            recounter.used(&rows::customer(&row, 0)?, rows::units(&row, 1)?);
            Ok(())
        })
        .await?;
        let recount = recounter.finish(head);
        end_cut(session, Some(recount)).await
    }
}

async fn begin_cut(session: &Session, sale: &SaleId) -> Result<Option<(SaleRecord, Chain)>, Failure> {
    let [found] = session.begin(BEGIN_CUT, [(SALE, &[&sale.as_str()])]).await?;
    Ok(rows::sales(&found)?.pop())
}

async fn end_cut<T>(session: Session, found: T) -> Result<T, Failure> {
    trip(session.batch_execute(END_CUT)).await?;
    session.done();
    Ok(found)
}

fn same_move(one: &Row, other: &Row) -> bool {
    matches!((rows::get::<i64>(one, 0), rows::get::<i64>(other, 0)), (Ok(one), Ok(other)) if one == other)
}

/// Hands over one row after the other; the server sends them no faster than they are taken. The caller limits the time.
async fn each(
    session: &Session,
    statement: &Statement,
    values: &[&(dyn ToSql + Sync)],
    mut take: impl FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let values = values.iter().copied();
    let mut stream = pin!(session.query_raw(statement, values).await?);
    while let Some(row) = stream.try_next().await? {
        take(row)?;
    }
    Ok(())
}

/// The same for moves, which have a row per line.
async fn each_move(
    session: &Session,
    statement: &Statement,
    values: &[&(dyn ToSql + Sync)],
    mut take: impl FnMut(&Move, Chain),
) -> Result<(), Failure> {
    let mut rows: Vec<Row> = Vec::new();
    let mut end = |rows: &[Row]| rows::step(rows).map(|(step, chain)| take(&step, chain));
    each(session, statement, values, |row| {
        if rows.first().is_some_and(|first| !same_move(first, &row)) {
            end(&rows)?;
            rows.clear();
        }
        rows.push(row);
        Ok(())
    })
    .await?;
    if rows.is_empty() { Ok(()) } else { end(&rows) }
}
