//! The ledger in PostgreSQL. Whoever writes to a sale first locks its row, then its items, then its orders, so nobody waits
//! in a circle; sales are locked in the sequence of their ids.
//!
//! A transaction is two round trips: one that begins, locks and reads, and one that writes and commits. Statements are
//! about all rows of a table at once: a loop of single inserts is about 28 times slower.

mod books;
mod rows;
mod turns;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::desk::{Desk, by_sale};
use super::{
    Added, Addition, Adjustment, Books, Creation, EpochState, EpochStep, Lapses, Ledger, Move, OrderFilter, OrderPage,
    Recount, SaleRecord, Settlement, Snapshot, Steered, Turn, Turned, Verdict,
};
use crate::batcher::{Batcher, Gone, batcher};
use crate::clock::Clock;
use crate::fault::{self, Moment};
use crate::model::{
    Body, Claim, Customer, Effect, Error, Message, OrderId, OrderRecord, Result, Sale, SaleId, Seq, Time, Units, Verb,
    limits,
};
use crate::postgres::{Database, Failure, Lane, Session, attempts, trip};
use rows::{nonsense, sale_sql, uuid};

const LAYER: &str = "ledger";

/// What was decided has to be seen as it is once the locks are had, not as it was before.
const BEGIN: &str = "/* begin */ begin isolation level read committed";
const LOCK_SALES: &str = "/* lock sales */ select id from sales where id = any($1) order by id for update";
const LOCK_ITEMS: &str = sale_sql!("lock items", "where s.id = any($1) order by s.id, i.position for update of i");

/// Keeps the truth in the tables that `migrations/postgres` describes.
pub struct PostgresLedger {
    core: Arc<Core>,
    lookups: Batcher<OrderId, Result<Option<OrderRecord>>>,
    sale_lookups: Batcher<SaleId, Result<Option<SaleRecord>>>,
    turns: Batcher<(OrderId, Turn), Result<Turned>>,
}

/// What the ledger and its batches share.
struct Core {
    database: Database,
    clock: Arc<dyn Clock>,
}

impl PostgresLedger {
    /// A ledger in this database, which has the current schema. Holds lapse by this clock. It needs a tokio runtime, in
    /// which the batches form.
    pub fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        let core = Arc::new(Core { database, clock });
        let (lookups, looked_up) = batcher(limits::LEDGER_WAITING_MAX);
        let (sale_lookups, sales_looked_up) = batcher(limits::LEDGER_WAITING_MAX);
        let (turns, turned) = batcher(limits::LEDGER_WAITING_MAX);
        tokio::spawn(turns::look_up(core.clone(), looked_up));
        tokio::spawn(books::look_up_sales(core.clone(), sales_looked_up));
        tokio::spawn(turns::turn(core.clone(), turned));
        Self { core, lookups, sale_lookups, turns }
    }

    /// The deployment's secret, from which order ids are derived; made from `fresh` the first time.
    pub async fn secret(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        attempts(LAYER, &*self.core.clock, || self.core.secret_once(fresh)).await
    }

    async fn tried<T, F>(&self, work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        attempts(LAYER, &*self.core.clock, work).await
    }
}

fn gone(gone: Gone) -> Error {
    match gone {
        Gone::Full => Error::Overloaded(LAYER),
        Gone::Dropped => Error::Unavailable { layer: LAYER, why: "shutting down".into(), effect: Effect::Unknown },
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn create(&self, sale: &Sale, stock: &[Units]) -> Result<Creation> {
        self.tried(|| self.core.create_once(sale, stock)).await
    }

    async fn steer(&self, sale: &SaleId, verb: Verb) -> Result<Steered> {
        self.tried(|| self.core.steer_once(sale, verb)).await
    }

    async fn settle(&self, messages: &[Message]) -> Result<Settlement> {
        self.tried(|| self.core.settle_once(messages)).await
    }

    async fn turn(&self, id: OrderId, turn: Turn) -> Result<Turned> {
        self.turns.call((id, turn)).await.map_err(gone)?
    }

    async fn add(&self, addition: &Addition) -> Result<Added> {
        self.tried(|| self.core.add_once(addition)).await
    }

    async fn lapse(&self, orders_max: usize) -> Result<Lapses> {
        let next_due = self.tried(|| self.core.next_due()).await?;
        if next_due.is_none_or(|due| due > self.core.clock.now()) {
            return Ok(Lapses { next_due, ..Lapses::default() });
        }
        let lapses = self.tried(|| self.core.lapse_once(orders_max)).await?;
        // What was given back is told even if this fails; the next call looks again.
        let next_due = self.tried(|| self.core.next_due()).await.unwrap_or(next_due);
        Ok(Lapses { next_due, ..lapses })
    }

    async fn step_epoch(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>> {
        self.tried(|| self.core.step_epoch_once(sale, step)).await
    }
}

#[async_trait]
impl Books for PostgresLedger {
    async fn sales(&self) -> Result<Vec<SaleRecord>> {
        self.core.sales().await
    }

    async fn sale(&self, sale: &SaleId) -> Result<Option<SaleRecord>> {
        self.sale_lookups.call(sale.clone()).await.map_err(gone)?
    }

    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>> {
        self.lookups.call(id).await.map_err(gone)?
    }

    async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage> {
        self.core.orders(filter).await
    }

    async fn adjustment(&self, id: OrderId) -> Result<Option<Adjustment>> {
        self.core.adjustment(id).await
    }

    async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Result<Vec<Move>> {
        self.core.journal(sale, after, moves_max).await
    }

    async fn snapshot(&self, sale: &SaleId) -> Result<Option<Snapshot>> {
        self.core.snapshot(sale).await
    }

    async fn recount(&self, sale: &SaleId) -> Result<Option<Recount>> {
        self.core.recount(sale).await
    }
}

/// The sales whose locked rows these are, with the units of these customers.
fn desks(items: &[Row], customers: &[Row], now: Time) -> Result<Vec<Desk>, Failure> {
    let mut used: HashMap<SaleId, HashMap<Customer, Units>> = HashMap::new();
    for row in customers {
        let units = rows::units(row, 2)?;
        used.entry(rows::sale_id(row, 0)?).or_default().insert(rows::customer(row, 1)?, units);
    }
    let sales = rows::sales(items)?.into_iter();
    Ok(sales
        .map(|(record, chain)| {
            let mut desk = Desk::new(record, chain, now);
            desk.used = used.remove(&desk.record.sale.id).unwrap_or_default();
            desk
        })
        .collect())
}

/// The claims of a batch, as the database asks for them.
#[derive(Default)]
struct Claims<'a> {
    sales: Vec<&'a str>,
    orders: Vec<Uuid>,
    withdrawals: Vec<Uuid>,
    customers: Vec<(&'a str, &'a str)>,
}

impl<'a> Claims<'a> {
    fn of(messages: &'a [Message]) -> Self {
        let mut claims = Self::default();
        for message in messages {
            claims.sales.push(message.sale.as_str());
            match &message.body {
                Body::Claim(Claim::Order(order)) => {
                    claims.orders.push(uuid(order.id));
                    claims.customers.push((order.sale.as_str(), order.customer.as_str()));
                }
                Body::Claim(Claim::Withdrawal(withdrawal)) => claims.withdrawals.push(uuid(withdrawal.id)),
                Body::Close | Body::Sweep(_) => {}
            }
        }
        claims.sales.sort_unstable();
        claims.sales.dedup();
        claims
    }
}

impl Core {
    async fn secret_once(&self, fresh: [u8; 32]) -> Result<[u8; 32], Failure> {
        let session = self.database.session(Lane::Write).await?;
        let make =
            "/* make secret */ insert into secrets (name, value) values ('order ids', $1) on conflict do nothing";
        let read = "/* secret */ select value from secrets where name = 'order ids'";
        let [make, read] = session.prepare([make, read]).await?;
        trip(session.execute(&make, &[&&fresh[..]])).await?;
        let row = trip(session.query_one(&read, &[])).await?;
        session.done();
        let secret: &[u8] = rows::get(&row, 0)?;
        secret.try_into().map_err(|_| nonsense("the secret has the wrong length"))
    }

    /// Begins a transaction that holds this sale; `None` if there is no such sale.
    async fn open(&self, session: &Session, sale: &SaleId) -> Result<Option<Desk>, Failure> {
        let names = [sale.as_str()];
        let sales: &[&(dyn ToSql + Sync)] = &[&&names[..]];
        let [_, items] = session.begin(BEGIN, [(LOCK_SALES, sales), (LOCK_ITEMS, sales)]).await?;
        Ok(desks(&items, &[], self.clock.now())?.pop())
    }

    /// Ends a transaction that changed nothing.
    async fn leave<T>(&self, session: Session, answer: T) -> Result<T, Failure> {
        trip(session.batch_execute("/* nothing to do */ rollback")).await?;
        session.done();
        Ok(answer)
    }

    async fn save(&self, session: Session, desks: &[Desk]) -> Result<(), Failure> {
        session.commit(&rows::save(desks)).await?;
        session.done();
        Ok(())
    }

    async fn create_once(&self, sale: &Sale, stock: &[Units]) -> Result<Creation, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let [insert_sale, insert_items] = rows::new_sale(sale, self.clock.now());
        let [sale_statement, items_statement] = session.prepare([insert_sale.sql, insert_items.sql]).await?;
        trip(session.batch_execute(BEGIN)).await?;
        if trip(session.execute(&sale_statement, &insert_sale.parameters())).await? == 0 {
            let there = self.open_again(&session, &sale.id).await?;
            return self.leave(session, Creation::Exists(there.record)).await;
        }
        trip(session.execute(&items_statement, &insert_items.parameters())).await?;
        let mut desk = self.open_again(&session, &sale.id).await?;
        desk.stock_up(stock).map_err(|_| nonsense("the stock passes its limit"))?;
        self.save(session, std::slice::from_ref(&desk)).await?;
        Ok(Creation::Created(desk.record))
    }

    /// The sale that was just created, by this transaction or by another one.
    async fn open_again(&self, session: &Session, sale: &SaleId) -> Result<Desk, Failure> {
        let [lock_items] = session.prepare([LOCK_ITEMS]).await?;
        let items = trip(session.query(&lock_items, &[&[sale.as_str()].as_slice()])).await?;
        desks(&items, &[], self.clock.now())?.pop().ok_or_else(|| nonsense("a sale without items"))
    }

    async fn steer_once(&self, sale: &SaleId, verb: Verb) -> Result<Steered, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let Some(mut desk) = self.open(&session, sale).await? else {
            return self.leave(session, Steered::UnknownSale).await;
        };
        if desk.steer(verb).is_none() {
            return self.leave(session, Steered::WrongState(desk.record)).await;
        }
        self.save(session, std::slice::from_ref(&desk)).await?;
        Ok(Steered::Done(desk.record))
    }

    async fn settle_once(&self, messages: &[Message]) -> Result<Settlement, Failure> {
        let session = self.database.session(Lane::Settle).await?;
        let claims = Claims::of(messages);
        let (mut desks, known) = self.bring(&session, &claims).await?;
        let mut verdicts = vec![Verdict::Unknown; messages.len()];
        for (sale, indexes) in by_sale(messages) {
            let Some(desk) = desks.iter_mut().find(|desk| desk.record.sale.id == *sale) else { continue };
            desk.decide_all(messages, &indexes, &mut verdicts, |_, claim| {
                Ok::<_, Failure>(known.contains(&claim.id()))
            })?;
        }
        fault::at(Moment::BeforeCommit);
        self.save(session, &desks).await?;
        Ok(Settlement { verdicts, moves: desks.into_iter().filter_map(Desk::into_moves).collect() })
    }

    /// Brings the sales of these claims to their desks, and says which of the claims were decided before. What was decided
    /// is read after the locks are had, so nothing is decided between the two.
    async fn bring(&self, session: &Session, claims: &Claims<'_>) -> Result<(Vec<Desk>, HashSet<OrderId>), Failure> {
        let known_sql = "/* known orders */ select id from orders where id = any($1)";
        let withdrawn_sql = "/* known withdrawals */ select id from adjustments where id = any($1) \
                             union all select claim from moves where claim = any($1) and kind = 'refuse'";
        let customers_sql = "/* units of customers */ select c.sale, c.customer, c.units from customers c \
                             where (c.sale, c.customer) in (select v.sale, v.customer \
                             from unnest($1::text[], $2::text[]) as v (sale, customer) \
                             join sales s on s.id = v.sale and s.per_customer_limit is not null)";
        let (places, names): (Vec<&str>, Vec<&str>) = claims.customers.iter().copied().unzip();
        let sales: &[&(dyn ToSql + Sync)] = &[&claims.sales];
        let queries: [(&'static str, &[&(dyn ToSql + Sync)]); 5] = [
            (LOCK_SALES, sales),
            (LOCK_ITEMS, sales),
            (known_sql, &[&claims.orders]),
            (withdrawn_sql, &[&claims.withdrawals]),
            (customers_sql, &[&places, &names]),
        ];
        let [_, items, mut decided, withdrawn, used] = session.begin(BEGIN, queries).await?;
        decided.extend(withdrawn);
        let known = decided.iter().map(|row| rows::order_id(row, 0)).collect::<Result<_, _>>()?;
        Ok((desks(&items, &used, self.clock.now())?, known))
    }

    async fn add_once(&self, addition: &Addition) -> Result<Added, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let Some(mut desk) = self.open(&session, &addition.sale).await? else {
            return self.leave(session, Added::Unknown).await;
        };
        let [statement] = session.prepare([books::ADJUSTMENT]).await?;
        if let Some(row) = trip(session.query_opt(&statement, &[&uuid(addition.id)])).await? {
            return self.leave(session, Added::Already(rows::adjustment(&row)?)).await;
        }
        if desk.record.sale.item(&addition.line.sku).is_none() {
            return self.leave(session, Added::Unknown).await;
        }
        let Some(adjustment) = desk.add(addition) else { return self.leave(session, Added::TooMany).await };
        self.save(session, std::slice::from_ref(&desk)).await?;
        let moves = desk.into_moves().ok_or_else(|| nonsense("an addition is a move"))?;
        Ok(Added::Done(adjustment, moves))
    }

    async fn step_epoch_once(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>, Failure> {
        let session = self.database.session(Lane::Write).await?;
        let Some(mut desk) = self.open(&session, sale).await? else { return self.leave(session, None).await };
        desk.step_epoch(step);
        self.save(session, std::slice::from_ref(&desk)).await?;
        Ok(Some(desk.record.epoch))
    }
}
