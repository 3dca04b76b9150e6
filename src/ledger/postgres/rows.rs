//! Rows and what they mean: reading them, bringing them to the desk, and carrying its decisions back.

use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use uuid::Uuid;

use crate::ledger::desk::Desk;
use crate::ledger::journal::Chain;
use crate::ledger::{Adjustment, EpochStage, EpochState, Move, MoveKind, SaleRecord};
use crate::model::{
    Customer, Epoch, Invalid, Item, Line, Order, OrderId, OrderRecord, OrderState, Phase, Places, Reason, Sale, SaleId,
    Seq, Sku, Time, Units, Window,
};
use crate::postgres::{Failure, Write};

/// A sale with its items, one row per item.
macro_rules! sale_sql {
    ($name:literal, $rest:literal) => {
        concat!(
            "/* ",
            $name,
            " */ select s.id, s.name, s.phase, s.opens_at, s.closes_at, s.hold_seconds, ",
            "s.per_customer_limit, s.seq, s.epoch, s.stage, s.closed_epoch, s.swept, s.hash, s.beats, i.sku, i.name, ",
            "i.price_cents, i.currency, i.stock, i.available, i.held, i.sold ",
            "from sales s join items i on i.sale = s.id ",
            $rest
        )
    };
}

/// Orders with their lines, which are those of an order's first move, one row per order. The lines are looked up order by order, whatever the planner believes: as a
/// join they are read once per order for the whole sale, if its statistics are older than the sale.
macro_rules! order_sql {
    ($name:literal, $rest:literal) => {
        concat!(
            "/* ",
            $name,
            " */ select o.id, o.sale, o.customer, o.state, o.reason, o.accepted_at, o.settled_at, ",
            "o.expires_at, o.seq, o.settled_seq, l.skus, l.quantities from orders o cross join lateral ",
            "(select array_agg(sku order by line) as skus, array_agg(units order by line) as quantities ",
            "from moves where sale = o.sale and seq = o.settled_seq) l ",
            $rest
        )
    };
}
pub(super) use {order_sql, sale_sql};

/// A moment in a row: `timestamptz` counts microseconds since 2000.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp(pub(super) Time);

/// From 1970 to 2000.
const BEFORE_2000: Duration = Duration::from_secs(946_684_800);

impl ToSql for Stamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let before = i64::try_from(BEFORE_2000.as_millis())?;
        let micros = self.0.millis().checked_sub(before).and_then(|millis| millis.checked_mul(1_000));
        micros.ok_or("a time that no calendar has")?.to_sql(&Type::INT8, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl FromSql<'_> for Stamp {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let millis = i64::from_sql(&Type::INT8, raw)?.div_euclid(1_000);
        Ok(Stamp(Time::from_millis(millis).after(BEFORE_2000)))
    }

    accepts!(TIMESTAMPTZ);
}

/// A column's value.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(|error| nonsense(format!("column {column}: {error}")))
}

/// A column's value as what it stands for; what it cannot stand for is damage.
fn read<'a, S: FromSql<'a>, T, E: std::fmt::Display>(
    row: &'a Row,
    column: usize,
    meant: impl Fn(S) -> Result<T, E>,
) -> Result<T, Failure> {
    meant(get(row, column)?).map_err(|error| nonsense(format!("column {column}: {error}")))
}

fn read_option<'a, S: FromSql<'a>, T, E: std::fmt::Display>(
    row: &'a Row,
    column: usize,
    meant: impl Fn(S) -> Result<T, E>,
) -> Result<Option<T>, Failure> {
    let value: Option<S> = get(row, column)?;
    value.map(meant).transpose().map_err(|error| nonsense(format!("column {column}: {error}")))
}

fn word<'a, T>(read: impl Fn(&str) -> Option<T>) -> impl Fn(&'a str) -> Result<T, String> {
    move |text| read(text).ok_or_else(|| format!("unknown word {text:?}"))
}

fn time(row: &Row, column: usize) -> Result<Option<Time>, Failure> {
    Ok(get::<Option<Stamp>>(row, column)?.map(|stamp| stamp.0))
}

fn count(row: &Row, column: usize) -> Result<u64, Failure> {
    read(row, column, |number: i64| u64::try_from(number))
}

fn counted(number: i32) -> Result<Units, Invalid> {
    Units::new(u32::try_from(number).map_err(|_| Invalid(format!("{number} units")))?)
}

pub(super) fn units(row: &Row, column: usize) -> Result<Units, Failure> {
    read(row, column, counted)
}

pub(super) fn customer(row: &Row, column: usize) -> Result<Customer, Failure> {
    read(row, column, Customer::new)
}

pub(super) fn sale_id(row: &Row, column: usize) -> Result<SaleId, Failure> {
    read(row, column, SaleId::new)
}

pub(super) fn order_id(row: &Row, column: usize) -> Result<OrderId, Failure> {
    Ok(OrderId(get::<Uuid>(row, column)?.into_bytes()))
}

pub(super) fn uuid(id: OrderId) -> Uuid {
    Uuid::from_bytes(id.0)
}

/// A move's line; none if the move has no units.
fn line(row: &Row) -> Result<Option<Line>, Failure> {
    if get::<&str>(row, 3)?.is_empty() {
        return Ok(None);
    }
    Ok(Some(Line { sku: read(row, 3, Sku::new)?, quantity: units(row, 4)? }))
}

/// The sales whose rows these are, each with the hash of its journal.
pub(super) fn sales(rows: &[Row]) -> Result<Vec<(SaleRecord, Chain)>, Failure> {
    let same =
        |one: &Row, other: &Row| matches!((get::<&str>(one, 0), get::<&str>(other, 0)), (Ok(a), Ok(b)) if a == b);
    rows.chunk_by(same).map(sale).collect()
}

fn sale(rows: &[Row]) -> Result<(SaleRecord, Chain), Failure> {
    let row = &rows[0];
    let mut sale = Sale {
        id: sale_id(row, 0)?,
        name: get(row, 1)?,
        window: Window {
            phase: read(row, 2, word(Phase::from_word))?,
            opens_at: time(row, 3)?,
            closes_at: time(row, 4)?,
        },
        hold_seconds: read(row, 5, |number: i32| u32::try_from(number))?,
        per_customer_limit: match get::<Option<i32>>(row, 6)? {
            Some(_) => Some(units(row, 6)?),
            None => None,
        },
        items: Vec::with_capacity(rows.len()),
    };
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        sale.items.push(Item {
            sku: read(row, 14, Sku::new)?,
            name: get(row, 15)?,
            price_cents: count(row, 16)?,
            currency: get(row, 17)?,
        });
        places.push(Places {
            stock: units(row, 18)?,
            available: units(row, 19)?,
            held: units(row, 20)?,
            sold: units(row, 21)?,
        });
    }
    let epoch = EpochState {
        epoch: Epoch(count(row, 8)?),
        stage: read(row, 9, word(EpochStage::from_word))?,
        closed: Epoch(count(row, 10)?),
        beats: count(row, 13)?,
    };
    let swept = read_option(row, 11, |number: i64| u64::try_from(number))?;
    let record = SaleRecord { sale, places, watermark: Seq(count(row, 7)?), epoch, swept };
    Ok((record, chain(row, 12)?))
}

fn chain(row: &Row, column: usize) -> Result<Chain, Failure> {
    read(row, column, |hash: &[u8]| hash.try_into().map(Chain))
}

/// The order whose row this is.
pub(super) fn order(row: &Row) -> Result<OrderRecord, Failure> {
    let skus: Option<Vec<&str>> = get(row, 10)?;
    let quantities: Option<Vec<i32>> = get(row, 11)?;
    let lines = skus.unwrap_or_default().into_iter().zip(quantities.unwrap_or_default());
    let line = |(sku, quantity)| Ok(Line { sku: Sku::new(sku)?, quantity: counted(quantity)? });
    let order = Order {
        id: order_id(row, 0)?,
        sale: sale_id(row, 1)?,
        customer: customer(row, 2)?,
        lines: lines.map(line).collect::<Result<_, Invalid>>().map_err(|error| nonsense(error.to_string()))?,
        accepted_at: get::<Stamp>(row, 5)?.0,
    };
    Ok(OrderRecord {
        order,
        state: read(row, 3, word(OrderState::from_word))?,
        reason: read_option(row, 4, word(Reason::from_word))?,
        settled_at: time(row, 6)?,
        expires_at: time(row, 7)?,
        seq: Some(Seq(count(row, 8)?)),
    })
}

/// The number under which an order was settled.
pub(super) fn settled_seq(row: &Row) -> Result<Seq, Failure> {
    count(row, 9).map(Seq)
}

/// The move whose rows these are: seq, kind, claim, sku, units, at, hash, customer.
pub(super) fn step(rows: &[Row]) -> Result<(Move, Chain), Failure> {
    let row = &rows[0];
    let step = Move {
        seq: Seq(count(row, 0)?),
        at: get::<Stamp>(row, 5)?.0,
        kind: read(row, 1, word(MoveKind::from_word))?,
        claim: get::<Option<Uuid>>(row, 2)?.map(|id| OrderId(id.into_bytes())),
        customer: read_option(row, 7, Customer::new)?,
        lines: rows.iter().filter_map(|row| line(row).transpose()).collect::<Result<_, _>>()?,
    };
    Ok((step, chain(row, 6)?))
}

pub(super) fn adjustment(row: &Row) -> Result<Adjustment, Failure> {
    Ok(Adjustment {
        id: order_id(row, 0)?,
        sale: sale_id(row, 1)?,
        sku: read(row, 2, Sku::new)?,
        delta: get(row, 3)?,
        reason: get(row, 4)?,
        at: get::<Stamp>(row, 5)?.0,
        seq: Seq(count(row, 6)?),
        stock: units(row, 7)?,
    })
}

/// A number as the database counts.
pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn int(units: Units) -> i32 {
    i32::try_from(units.get()).unwrap_or(i32::MAX)
}

/// Everything that was decided at the desks, in one statement per table.
pub(super) fn save(desks: &[Desk]) -> Vec<Write<'_>> {
    let mut writes = vec![save_sales(desks), save_items(desks)];
    writes.extend(save_orders(desks));
    writes.extend(save_moves(desks));
    writes.extend(save_customers(desks));
    writes.extend(save_adjustments(desks));
    writes
}

/// One column per expression, over the same things.
macro_rules! columns {
    ($things:expr, $thing:ident => $($column:expr),+ $(,)?) => {
        vec![$(Box::new($things.map(|$thing| $column).collect::<Vec<_>>()) as _),+]
    };
}

fn save_sales(desks: &[Desk]) -> Write<'_> {
    let sql = "/* save sales */ update sales s set phase = v.phase, opens_at = v.opens_at, seq = v.seq, hash = v.hash, \
               epoch = v.epoch, stage = v.stage, closed_epoch = v.closed_epoch, swept = v.swept, beats = v.beats \
               from unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bytea[], $6::bigint[], \
               $7::text[], $8::bigint[], $9::bigint[], $10::bigint[]) \
               as v (id, phase, opens_at, seq, hash, epoch, stage, closed_epoch, swept, beats) where s.id = v.id";
    let values = columns![desks.iter(), desk =>
        desk.record.sale.id.as_str(),
        desk.record.sale.window.phase.word(),
        desk.record.sale.window.opens_at.map(Stamp),
        big(desk.record.watermark.0),
        &desk.chain.0[..],
        big(desk.record.epoch.epoch.0),
        desk.record.epoch.stage.word(),
        big(desk.record.epoch.closed.0),
        desk.record.swept.map(big),
        big(desk.record.epoch.beats),
    ];
    Write { sql, values }
}

struct ItemRow<'a> {
    sale: &'a SaleId,
    sku: &'a Sku,
    at: &'a Places,
}

fn save_items(desks: &[Desk]) -> Write<'_> {
    let sql = "/* save items */ update items i set stock = v.stock, available = v.available, held = v.held, sold = v.sold \
               from unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::integer[], $6::integer[]) \
               as v (sale, sku, stock, available, held, sold) where i.sale = v.sale and i.sku = v.sku";
    let rows = || {
        desks.iter().flat_map(|Desk { record, .. }| {
            let items = record.sale.items.iter().zip(&record.places);
            items.map(|(item, at)| ItemRow { sale: &record.sale.id, sku: &item.sku, at })
        })
    };
    let values = columns![rows(), row =>
        row.sale.as_str(),
        row.sku.as_str(),
        int(row.at.stock),
        int(row.at.available),
        int(row.at.held),
        int(row.at.sold),
    ];
    Write { sql, values }
}

fn save_orders(desks: &[Desk]) -> Option<Write<'_>> {
    let orders = || desks.iter().flat_map(|desk| &desk.orders);
    orders().next()?;
    let sql = "/* insert orders */ insert into orders (sale, settled_seq, id, customer, state, reason, accepted_at, \
               settled_at, expires_at, seq) \
               select sale, seq, id, customer, state, reason, accepted_at, settled_at, expires_at, seq \
               from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], \
               $7::timestamptz[], $8::timestamptz[], $9::timestamptz[]) \
               as v (sale, seq, id, customer, state, reason, accepted_at, settled_at, expires_at)";
    let values = columns![orders(), record =>
        record.order.sale.as_str(),
        record.seq.map_or(0, |seq| big(seq.0)),
        uuid(record.order.id),
        record.order.customer.as_str(),
        record.state.word(),
        record.reason.map(Reason::word),
        Stamp(record.order.accepted_at),
        record.settled_at.map(Stamp),
        record.expires_at.map(Stamp),
    ];
    Some(Write { sql, values })
}

#[derive(Clone, Copy)]
struct MoveRow<'a> {
    sale: &'a SaleId,
    step: &'a Move,
    chain: &'a Chain,
    number: i32,
    sku: &'a str,
    units: i32,
}

fn save_moves(desks: &[Desk]) -> Option<Write<'_>> {
    let sql = "/* insert moves */ insert into moves (sale, seq, line, kind, claim, sku, units, at, hash) \
               select * from unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::uuid[], $6::text[], \
               $7::integer[], $8::timestamptz[], $9::bytea[])";
    let mut rows = Vec::new();
    for desk in desks {
        for (step, chain) in &desk.moves {
            let row = MoveRow { sale: &desk.record.sale.id, step, chain, number: 0, sku: "", units: 0 };
            let lines = (0_i32..).zip(&step.lines);
            rows.extend(step.lines.is_empty().then_some(row));
            rows.extend(lines.map(|(number, line)| MoveRow {
                number,
                sku: line.sku.as_str(),
                units: int(line.quantity),
                ..row
            }));
        }
    }
    if rows.is_empty() {
        return None;
    }
    let values = columns![rows.iter(), row =>
        row.sale.as_str(),
        big(row.step.seq.0),
        row.number,
        row.step.kind.word(),
        row.step.claim.map(uuid),
        row.sku,
        row.units,
        Stamp(row.step.at),
        &row.chain.0[..],
    ];
    Some(Write { sql, values })
}

fn save_customers(desks: &[Desk]) -> Option<Write<'_>> {
    let sql = "/* save customers */ insert into customers (sale, customer, units) \
               select * from unnest($1::text[], $2::text[], $3::integer[]) \
               on conflict (sale, customer) do update set units = excluded.units";
    let used = || desks.iter().flat_map(|desk| desk.used.iter().map(|(who, units)| (&desk.record.sale.id, who, units)));
    used().next()?;
    let values = columns![used(), row => row.0.as_str(), row.1.as_str(), int(*row.2)];
    Some(Write { sql, values })
}

fn save_adjustments(desks: &[Desk]) -> Option<Write<'_>> {
    let sql = "/* insert adjustments */ insert into adjustments (id, sale, sku, delta, reason, at, seq, stock) \
               select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], \
               $7::bigint[], $8::integer[])";
    let all = || desks.iter().flat_map(|desk| &desk.adjustments);
    all().next()?;
    let values = columns![all(), a =>
        uuid(a.id), a.sale.as_str(), a.sku.as_str(), a.delta, a.reason.as_str(), Stamp(a.at), big(a.seq.0), int(a.stock),
    ];
    Some(Write { sql, values })
}

/// The orders as they were turned.
pub(super) fn save_turned(turned: &[OrderRecord]) -> Write<'_> {
    let sql = "/* turn orders */ update orders o set state = v.state, reason = v.reason, seq = v.seq \
               from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as v (id, state, reason, seq) \
               where o.id = v.id and o.state = 'held'";
    let values = columns![turned.iter(), record =>
        uuid(record.order.id),
        record.state.word(),
        record.reason.map(Reason::word),
        record.seq.map_or(0, |seq| big(seq.0)),
    ];
    Write { sql, values }
}

/// A new sale, with no units yet.
pub(super) fn new_sale(sale: &Sale, now: Time) -> [Write<'_>; 2] {
    let sql = "/* insert sale */ insert into sales (id, name, phase, opens_at, closes_at, hold_seconds, \
               per_customer_limit, created_at, hash) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing";
    let values = vec![
        Box::new(sale.id.as_str()) as _,
        Box::new(sale.name.as_str()) as _,
        Box::new(sale.window.phase.word()) as _,
        Box::new(sale.window.opens_at.map(Stamp)) as _,
        Box::new(sale.window.closes_at.map(Stamp)) as _,
        Box::new(i32::try_from(sale.hold_seconds).unwrap_or(i32::MAX)) as _,
        Box::new(sale.per_customer_limit.map(int)) as _,
        Box::new(Stamp(now)) as _,
        Box::new(Chain::default().0.to_vec()) as _,
    ];
    let items_sql = "/* insert items */ insert into items (sale, position, sku, name, price_cents, currency, stock, \
                     available, held, sold) select $1, v.*, 0, 0, 0, 0 \
                     from unnest($2::integer[], $3::text[], $4::text[], $5::bigint[], $6::text[]) as v";
    let mut item_values: Vec<Box<dyn ToSql + Sync + Send>> = columns![(0_i32..).zip(&sale.items), row =>
        row.0,
        row.1.sku.as_str(),
        row.1.name.as_str(),
        big(row.1.price_cents),
        row.1.currency.as_str(),
    ];
    item_values.insert(0, Box::new(sale.id.as_str()));
    [Write { sql, values }, Write { sql: items_sql, values: item_values }]
}

pub(super) fn nonsense(what: impl Into<String>) -> Failure {
    Failure::Damaged(what.into())
}
