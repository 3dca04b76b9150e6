//! Reading: each function runs within one consistent cut.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::rows;
use crate::ledger::journal::{Chain, Recounter};
use crate::ledger::{Move, MoveKind, OrderFilter, OrderPage, Recount, SaleRecord, Snapshot};
use crate::model::{Customer, Line, OrderId, SaleId, Seq, Time, Units};
use crate::sqlite::Failure;

pub(super) fn sales(connection: &Connection) -> Result<Vec<SaleRecord>, Failure> {
    let sql = format!("/* sales */ {} order by created_at desc, id", rows::SALE);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut sales = Vec::new();
    while let Some(row) = found.next()? {
        sales.push(rows::sale_row(connection, row)?.0);
    }
    Ok(sales)
}

pub(super) fn orders(connection: &Connection, filter: &OrderFilter) -> Result<OrderPage, Failure> {
    let mut sql = format!("/* orders */ {} where sale = ? and settled_seq > ?", rows::ORDER);
    let after = i64::try_from(filter.after.0).unwrap_or(i64::MAX);
    let mut values: Vec<Value> = vec![filter.sale.as_str().to_owned().into(), after.into()];
    if let Some(state) = filter.state {
        sql.push_str(" and state = ?");
        values.push(state.word().to_owned().into());
    }
    if let Some(customer) = &filter.customer {
        sql.push_str(" and customer = ?");
        values.push(customer.as_str().to_owned().into());
    }
    sql.push_str(" order by settled_seq limit ?");
    values.push(i64::try_from(filter.limit.saturating_add(1)).unwrap_or(i64::MAX).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut page = OrderPage::default();
    let mut last = None;
    while let Some(row) = found.next()? {
        if page.orders.len() == filter.limit {
            page.next = last;
            break;
        }
        page.orders.push(rows::order_row(connection, row)?);
        last = Some(Seq(row.get(9)?));
    }
    Ok(page)
}

pub(super) fn journal(
    connection: &Connection,
    sale: &SaleId,
    after: Seq,
    moves_max: usize,
) -> Result<Vec<Move>, Failure> {
    let mut moves = Vec::new();
    let last = after.0.saturating_add(u64::try_from(moves_max).unwrap_or(u64::MAX));
    each_move(connection, sale, after, Seq(last.min(i64::MAX.unsigned_abs())), |step, _| moves.push(step))?;
    Ok(moves)
}

/// Hands over the moves after one and up to another, each with the hash stored with it.
fn each_move(
    connection: &Connection,
    sale: &SaleId,
    after: Seq,
    last: Seq,
    mut take: impl FnMut(Move, Chain),
) -> Result<(), Failure> {
    // Most moves are the first one of their order, whose row then stands beside them: no look by its id, which is anywhere.
    let sql = "/* journal */ select m.seq, m.kind, m.claim, m.sku, m.units, m.at, m.hash, \
                   case when o.id = m.claim then o.customer \
                       else (select customer from orders where id = m.claim) end \
               from moves m left join orders o on o.sale = m.sale and o.settled_seq = m.seq \
               where m.sale = ?1 and m.seq > ?2 and m.seq <= ?3 order by m.seq, m.line";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![sale.as_str(), after.0, last.0])?;
    let mut open: Option<(Move, Chain)> = None;
    while let Some(row) = found.next()? {
        let seq = Seq(row.get(0)?);
        if open.as_ref().is_some_and(|(step, _)| step.seq != seq)
            && let Some((step, chain)) = open.take()
        {
            take(step, chain);
        }
        if open.is_none() {
            let step = Move {
                seq,
                at: Time::from_millis(row.get(5)?),
                kind: rows::word(&row.get::<_, String>(1)?, MoveKind::from_word)?,
                claim: row.get::<_, Option<[u8; 16]>>(2)?.map(OrderId),
                customer: row.get::<_, Option<String>>(7)?.map(rows::customer).transpose()?,
                lines: Vec::new(),
            };
            open = Some((step, Chain(row.get(6)?)));
        }
        let sku: String = row.get(3)?;
        if let Some((step, _)) = open.as_mut().filter(|_| !sku.is_empty()) {
            step.lines.push(Line { sku: rows::sku(sku)?, quantity: rows::units(row.get(4)?)? });
        }
    }
    if let Some((step, chain)) = open {
        take(step, chain);
    }
    Ok(())
}

pub(super) fn snapshot(connection: &Connection, sale: &SaleId) -> Result<Option<Snapshot>, Failure> {
    let Some(record) = rows::sale(connection, sale)? else { return Ok(None) };
    let mut used = Vec::new();
    each_customer(connection, sale, |customer, units| used.push((customer, units)))?;
    let sql = "/* known ids */ select id from orders where sale = ?1 \
               union all select id from adjustments where sale = ?1 \
               union all select claim from moves where sale = ?1 and kind = 'refuse' \
                   and claim not in (select id from orders)";
    let mut statement = connection.prepare_cached(sql)?;
    let known = statement.query_map([sale.as_str()], |row| row.get(0).map(OrderId))?;
    let known = known.collect::<rusqlite::Result<_>>()?;
    Ok(Some(Snapshot { record, used, known }))
}

fn each_customer(connection: &Connection, sale: &SaleId, mut take: impl FnMut(Customer, Units)) -> Result<(), Failure> {
    let sql = "/* customers */ select customer, units from customers where sale = ?1 and units > 0";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([sale.as_str()])?;
    while let Some(row) = found.next()? {
        take(rows::customer(row.get(0)?)?, rows::units(row.get(1)?)?);
    }
    Ok(())
}

pub(super) fn recount(connection: &Connection, sale: &SaleId) -> Result<Option<Recount>, Failure> {
    let Some((record, head)) = rows::sale_and_chain(connection, sale)? else { return Ok(None) };
    let mut recounter = Recounter::new(&record);
    each_move(connection, sale, Seq(0), Seq(i64::MAX.unsigned_abs()), |step, chain| recounter.step(&step, chain))?;
    let sql = format!("/* recount orders */ {} where sale = ?1 order by settled_seq", rows::ORDER);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query([sale.as_str()])?;
    while let Some(row) = found.next()? {
        recounter.order(&rows::order_row(connection, row)?);
    }
    each_customer(connection, sale, |customer, units| recounter.used(&customer, units))?;
    Ok(Some(recounter.finish(head)))
}
