//! Rows and what they mean: reading them, and carrying a desk's decisions back.

use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef::{self, Integer};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::nonsense;
use crate::ledger::desk::Desk;
use crate::ledger::journal::Chain;
use crate::ledger::{Adjustment, EpochStage, EpochState, MoveKind, SaleRecord};
use crate::model::{
    Claim, Customer, Epoch, Item, Line, Order, OrderId, OrderRecord, OrderState, Phase, Places, Reason, Sale, SaleId,
    Seq, Sku, Time, Units, Window,
};
use crate::sqlite::Failure;

pub(super) const SALE: &str = "select id, name, phase, opens_at, closes_at, hold_seconds, per_customer_limit, seq, \
                               epoch, stage, closed_epoch, swept, hash, beats from sales";
pub(super) const ORDER: &str = "select id, sale, customer, state, reason, accepted_at, settled_at, expires_at, seq, \
                                settled_seq from orders";

/// Rows that one statement inserts.
const ROWS: usize = 16;

pub(super) fn sale(connection: &Connection, id: &SaleId) -> Result<Option<SaleRecord>, Failure> {
    Ok(sale_and_chain(connection, id)?.map(|(record, _)| record))
}

pub(super) fn sale_and_chain(connection: &Connection, id: &SaleId) -> Result<Option<(SaleRecord, Chain)>, Failure> {
    let mut statement = connection.prepare_cached(&format!("/* sale */ {SALE} where id = ?1"))?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map(|row| sale_row(connection, row)).transpose()
}

pub(super) fn sale_row(connection: &Connection, row: &Row<'_>) -> Result<(SaleRecord, Chain), Failure> {
    let id = sale_id(row.get(0)?)?;
    let (items, places) = items(connection, &id)?;
    let window = Window {
        phase: word(&row.get::<_, String>(2)?, Phase::from_word)?,
        opens_at: row.get::<_, Option<i64>>(3)?.map(Time::from_millis),
        closes_at: row.get::<_, Option<i64>>(4)?.map(Time::from_millis),
    };
    let sale = Sale {
        id,
        name: row.get(1)?,
        window,
        hold_seconds: row.get(5)?,
        per_customer_limit: row.get::<_, Option<u32>>(6)?.map(units).transpose()?,
        items,
    };
    let epoch = EpochState {
        epoch: Epoch(row.get(8)?),
        stage: word(&row.get::<_, String>(9)?, EpochStage::from_word)?,
        closed: Epoch(row.get(10)?),
        beats: row.get(13)?,
    };
    let record = SaleRecord { sale, places, watermark: Seq(row.get(7)?), epoch, swept: row.get(11)? };
    Ok((record, Chain(row.get(12)?)))
}

fn items(connection: &Connection, sale: &SaleId) -> Result<(Vec<Item>, Vec<Places>), Failure> {
    let sql = "/* items */ select sku, name, price_cents, currency, stock, available, held, sold from items \
               where sale = ?1 order by position";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([sale.as_str()])?;
    let (mut items, mut places) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        items.push(Item { sku: sku(row.get(0)?)?, name: row.get(1)?, price_cents: row.get(2)?, currency: row.get(3)? });
        places.push(Places {
            stock: units(row.get(4)?)?,
            available: units(row.get(5)?)?,
            held: units(row.get(6)?)?,
            sold: units(row.get(7)?)?,
        });
    }
    Ok((items, places))
}

pub(super) fn order(connection: &Connection, id: OrderId) -> Result<Option<OrderRecord>, Failure> {
    let mut statement = connection.prepare_cached(&format!("/* order */ {ORDER} where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(|row| order_row(connection, row)).transpose()
}

/// The holds that are due, oldest first.
pub(super) fn due(connection: &Connection, orders_max: usize, now: Time) -> Result<Vec<OrderRecord>, Failure> {
    let sql = format!("/* due holds */ {ORDER} where state = 'held' and expires_at <= ?1 order by expires_at limit ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![now.millis(), orders_max])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push(order_row(connection, row)?);
    }
    Ok(due)
}

pub(super) fn order_row(connection: &Connection, row: &Row<'_>) -> Result<OrderRecord, Failure> {
    let sale = sale_id(row.get(1)?)?;
    let order = Order {
        id: OrderId(row.get(0)?),
        customer: customer(row.get(2)?)?,
        lines: lines(connection, &sale, row.get(9)?)?,
        sale,
        accepted_at: Time::from_millis(row.get(5)?),
    };
    Ok(OrderRecord {
        order,
        state: word(&row.get::<_, String>(3)?, OrderState::from_word)?,
        reason: row.get::<_, Option<String>>(4)?.map(|text| word(&text, Reason::from_word)).transpose()?,
        settled_at: row.get::<_, Option<i64>>(6)?.map(Time::from_millis),
        expires_at: row.get::<_, Option<i64>>(7)?.map(Time::from_millis),
        seq: row.get::<_, Option<u64>>(8)?.map(Seq),
    })
}

/// An order's lines are those of its first move.
fn lines(connection: &Connection, sale: &SaleId, settled_seq: u64) -> Result<Vec<Line>, Failure> {
    let sql = "/* order lines */ select sku, units from moves where sale = ?1 and seq = ?2 order by line";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![sale.as_str(), settled_seq])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        lines.push(Line { sku: sku(row.get(0)?)?, quantity: units(row.get(1)?)? });
    }
    Ok(lines)
}

pub(super) fn adjustment(connection: &Connection, id: OrderId) -> Result<Option<Adjustment>, Failure> {
    let sql = "/* adjustment */ select sale, sku, delta, reason, at, seq, stock from adjustments where id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Adjustment {
        id,
        sale: sale_id(row.get(0)?)?,
        sku: sku(row.get(1)?)?,
        delta: row.get(2)?,
        reason: row.get(3)?,
        at: Time::from_millis(row.get(4)?),
        seq: Seq(row.get(5)?),
        stock: units(row.get(6)?)?,
    }))
}

/// Whether the ledger decided on this claim in an earlier transaction.
pub(super) fn is_decided(connection: &Connection, claim: &Claim) -> Result<bool, Failure> {
    let sql = match claim {
        Claim::Order(_) => "/* is decided */ select 1 from orders where id = ?1",
        Claim::Withdrawal(_) => {
            "/* is decided, withdrawal */ select 1 from adjustments where id = ?1 \
             union all select 1 from moves where claim = ?1 and kind = 'refuse'"
        }
    };
    Ok(connection.prepare_cached(sql)?.query_row([claim.id().0], |_| Ok(())).optional()?.is_some())
}

/// The sale's desk for one transaction; there is one writer, so its rows are as good as locked.
pub(super) fn desk(connection: &Connection, sale: &SaleId, now: Time) -> Result<Option<Desk>, Failure> {
    Ok(sale_and_chain(connection, sale)?.map(|(record, chain)| Desk::new(record, chain, now)))
}

/// Brings a customer's units to the desk, in a sale with a limit.
pub(super) fn load_customer(connection: &Connection, desk: &mut Desk, customer: &Customer) -> Result<(), Failure> {
    if desk.record.sale.per_customer_limit.is_none() || desk.used.contains_key(customer) {
        return Ok(());
    }
    let sql = "/* customer */ select units from customers where sale = ?1 and customer = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let keys = [desk.record.sale.id.as_str(), customer.as_str()];
    let used: Option<u32> = statement.query_row(keys, |row| row.get(0)).optional()?;
    desk.used.insert(customer.clone(), units(used.unwrap_or(0))?);
    Ok(())
}

/// Ends a hold: confirmed, cancelled or lapsed.
pub(super) fn turn(
    connection: &Connection,
    desk: &mut Desk,
    record: &OrderRecord,
    kind: MoveKind,
) -> Result<OrderRecord, Failure> {
    load_customer(connection, desk, &record.order.customer)?;
    let record = desk.turn(record, kind).map_err(|_| nonsense("a hold without held units"))?;
    let sql = "/* turn order */ update orders set state = ?2, reason = ?3, seq = ?4 where id = ?1 and state = 'held'";
    let (reason, seq) = (record.reason.map(Reason::word), record.seq.map(|seq| seq.0));
    connection.prepare_cached(sql)?.execute(params![record.order.id.0, record.state.word(), reason, seq])?;
    Ok(record)
}

/// A new sale, with no units yet.
pub(super) fn insert_sale(connection: &Connection, sale: &Sale, now: Time) -> Result<(), Failure> {
    let sql = "/* insert sale */ insert into sales (id, name, phase, opens_at, closes_at, hold_seconds, \
               per_customer_limit, created_at, hash) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.prepare_cached(sql)?.execute(params![
        sale.id.as_str(),
        sale.name,
        sale.window.phase.word(),
        sale.window.opens_at.map(Time::millis),
        sale.window.closes_at.map(Time::millis),
        sale.hold_seconds,
        sale.per_customer_limit.map(Units::get),
        now.millis(),
        Chain::default().0,
    ])?;
    let sql = "/* insert item */ insert into items (sale, sku, position, name, price_cents, currency, stock, \
               available, held, sold) values (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0, 0)";
    let mut statement = connection.prepare_cached(sql)?;
    for (position, item) in sale.items.iter().enumerate() {
        statement.execute(params![
            sale.id.as_str(),
            item.sku.as_str(),
            position,
            item.name,
            item.price_cents,
            item.currency
        ])?;
    }
    Ok(())
}

/// Carries everything back that was decided at the desk.
pub(super) fn save(connection: &Connection, desk: &Desk) -> Result<(), Failure> {
    save_sale(connection, desk)?;
    save_orders(connection, desk)?;
    save_moves(connection, desk)?;
    let sale = desk.record.sale.id.as_str();
    let sql = "/* save customer */ insert into customers (sale, customer, units) values (?1, ?2, ?3) \
               on conflict (sale, customer) do update set units = excluded.units";
    let mut statement = connection.prepare_cached(sql)?;
    for (customer, units) in &desk.used {
        statement.execute(params![sale, customer.as_str(), units.get()])?;
    }
    let sql = "/* insert adjustment */ insert into adjustments (id, sale, sku, delta, reason, at, seq, stock) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let mut statement = connection.prepare_cached(sql)?;
    for a in &desk.adjustments {
        let stock = a.stock.get();
        statement.execute(params![a.id.0, sale, a.sku.as_str(), a.delta, a.reason, a.at.millis(), a.seq.0, stock])?;
    }
    Ok(())
}

fn save_sale(connection: &Connection, desk: &Desk) -> Result<(), Failure> {
    let SaleRecord { sale, places, watermark, epoch, swept } = &desk.record;
    let sql = "/* save sale */ update sales set phase = ?2, opens_at = ?3, seq = ?4, hash = ?5, epoch = ?6, \
               stage = ?7, closed_epoch = ?8, swept = ?9, beats = ?10 where id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        sale.id.as_str(),
        sale.window.phase.word(),
        sale.window.opens_at.map(Time::millis),
        watermark.0,
        desk.chain.0,
        epoch.epoch.0,
        epoch.stage.word(),
        epoch.closed.0,
        swept,
        epoch.beats,
    ])?;
    let sql = "/* save item */ update items set stock = ?3, available = ?4, held = ?5, sold = ?6 \
               where sale = ?1 and sku = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    for (item, at) in sale.items.iter().zip(places) {
        let counts = (at.stock.get(), at.available.get(), at.held.get(), at.sold.get());
        statement.execute(params![sale.id.as_str(), item.sku.as_str(), counts.0, counts.1, counts.2, counts.3])?;
    }
    Ok(())
}

fn save_orders(connection: &Connection, desk: &Desk) -> Result<(), Failure> {
    let columns = "orders (id, sale, customer, state, reason, accepted_at, settled_at, expires_at, settled_seq, seq)";
    let rows = desk.orders.iter().map(|record| {
        let order = &record.order;
        let seq = record.seq.map_or(Ok(NULL), |seq| count(seq.0))?;
        Ok([
            blob(&order.id.0),
            text(order.sale.as_str()),
            text(order.customer.as_str()),
            text(record.state.word()),
            record.reason.map_or(NULL, |reason| text(reason.word())),
            Integer(order.accepted_at.millis()),
            record.settled_at.map_or(NULL, |at| Integer(at.millis())),
            record.expires_at.map_or(NULL, |at| Integer(at.millis())),
            seq,
            seq,
        ])
    });
    insert_all(connection, columns, rows)
}

fn save_moves(connection: &Connection, desk: &Desk) -> Result<(), Failure> {
    let columns = "moves (sale, seq, line, kind, claim, sku, units, at, hash)";
    let sale = desk.record.sale.id.as_str();
    let rows = desk.moves.iter().flat_map(|(step, chain)| {
        let nothing = step.lines.is_empty().then_some(("", 0));
        let lines = step.lines.iter().map(|line| (line.sku.as_str(), line.quantity.get()));
        nothing.into_iter().chain(lines).enumerate().map(move |(number, (sku, units))| {
            Ok([
                text(sale),
                count(step.seq.0)?,
                count(number)?,
                text(step.kind.word()),
                step.claim.as_ref().map_or(NULL, |claim| blob(&claim.0)),
                text(sku),
                Integer(units.into()),
                Integer(step.at.millis()),
                blob(&chain.0),
            ])
        })
    });
    insert_all(connection, columns, rows)
}

/// Inserts rows, many with a statement where they are many. Whatever fails undoes the whole transaction anyway, so `or fail`:
/// otherwise SQLite would keep a copy of each page, to undo the statement.
fn insert_all<'a, const COLUMNS: usize>(
    connection: &Connection,
    columns: &str,
    rows: impl Iterator<Item = Result<[ValueRef<'a>; COLUMNS], Failure>>,
) -> Result<(), Failure> {
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let row = format!("({})", ["?"; COLUMNS].join(", "));
    let sql =
        |count| format!("/* insert */ insert or fail into {columns} values {}", vec![row.as_str(); count].join(", "));
    let (many, few) = rows.as_chunks::<ROWS>();
    let insert = |sql: &str, rows: &[[ValueRef<'a>; COLUMNS]]| {
        let mut statement = connection.prepare_cached(sql)?;
        for (index, value) in rows.as_flattened().iter().enumerate() {
            statement.raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(*value))?;
        }
        statement.raw_execute().map(|_| ())
    };
    if !many.is_empty() {
        let sql = sql(ROWS);
        many.iter().try_for_each(|rows| insert(&sql, rows))?;
    }
    if !few.is_empty() {
        let sql = sql(1);
        few.iter().try_for_each(|row| insert(&sql, std::slice::from_ref(row)))?;
    }
    Ok(())
}

const NULL: ValueRef<'static> = ValueRef::Null;

fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

fn blob(bytes: &[u8]) -> ValueRef<'_> {
    ValueRef::Blob(bytes)
}

fn count(count: impl TryInto<i64>) -> Result<ValueRef<'static>, Failure> {
    count.try_into().map(Integer).map_err(|_| nonsense("a count passes its limit"))
}

pub(super) fn units(count: u32) -> Result<Units, Failure> {
    Units::new(count).map_err(|error| Failure::Nonsense(error.to_string()))
}

pub(super) fn sku(text: String) -> Result<Sku, Failure> {
    Sku::try_from(text).map_err(|error| Failure::Nonsense(error.to_string()))
}

pub(super) fn sale_id(text: String) -> Result<SaleId, Failure> {
    SaleId::try_from(text).map_err(|error| Failure::Nonsense(error.to_string()))
}

pub(super) fn customer(text: String) -> Result<Customer, Failure> {
    Customer::try_from(text).map_err(|error| Failure::Nonsense(error.to_string()))
}

/// Reads a word that stands for something.
pub(super) fn word<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    read(text).ok_or_else(|| Failure::Nonsense(format!("unknown word {text:?}")))
}
