//! The operator's list of a sale's orders: page by page as JSON, or all of it as CSV.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use super::fields::Fault;
use super::problems::Problem;
use super::request::OfSale;
use super::shapes::{OrderJson, OrderListJson};
use super::{Api, json};
use crate::ledger::{OrderFilter, OrderPage};
use crate::model::{Customer, Invalid, OrderRecord, OrderState, SaleId, Seq, limits};
use crate::shop::Shop;

/// Names and values of a query, as they come.
type Pairs = Vec<(String, String)>;

/// A sale's orders, in the sequence of their settling.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/orders", tag = "operator", operation_id = "list_orders",
    params(
        ("sale" = String, Path, description = "The sale's id"),
        ("state" = Option<String>, Query, description = "Only `held`, `sold`, `released` or `refused` ones"),
        ("customer" = Option<String>, Query, description = "Only this customer's"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 if absent"),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "A page as JSON; or, with `Accept: text/csv`, all pages as CSV, a row per line",
            content((OrderListJson = "application/json"), (String = "text/csv"))),
        (status = "4XX", description = "Unknown, or the query is wrong", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    OfSale(sale): OfSale,
    query: Result<Query<Pairs>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if api.shop.sale(&sale).await?.is_none() {
        return Err(Problem::not_found("sale"));
    }
    let malformed = |_| Problem::invalid(vec![Fault::query("", "the query is not well-formed")]);
    let filter = read_query(sale, &query.map_err(malformed)?.0)?;
    if wants_csv(&headers) {
        return Ok(csv_of_all(api.shop.clone(), filter));
    }
    let page = api.shop.ledger.orders(&filter).await?;
    let orders = page.orders.iter().map(OrderJson::from).collect();
    Ok(json(StatusCode::OK, &OrderListJson { orders, next_cursor: page.next.map(cursor) }))
}

/// Whether CSV is named, and liked no less than JSON (RFC 9110, 12.5.1).
fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let ranges: Vec<(&str, f32)> = accepted.flat_map(|accept| accept.split(',')).map(weighed).collect();
    let weight =
        |name: &str| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, weight)| *weight);
    let csv = weight("text/csv").unwrap_or(0.0);
    let json = ["application/json", "application/*", "*/*"].into_iter().find_map(weight).unwrap_or(0.0);
    csv > 0.0 && csv >= json
}

/// A media range and its `q`.
fn weighed(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        if key.trim().eq_ignore_ascii_case("q") { value.trim().parse().ok() } else { None }
    });
    (name, weight.unwrap_or(1.0))
}

fn read_query(sale: SaleId, pairs: &Pairs) -> Result<OrderFilter, Problem> {
    let limit = limits::PAGE_ORDERS_DEFAULT;
    let mut filter = OrderFilter { sale, state: None, customer: None, after: Seq(0), limit };
    let mut faults = Vec::new();
    for (name, value) in pairs {
        if let Err(Invalid(why)) = read_parameter(&mut filter, name, value) {
            faults.push(Fault::query(name, why));
        }
    }
    for index in super::fields::repeated(pairs.iter().map(|(name, _)| name)) {
        faults.push(Fault::query(&pairs[index].0, "is given twice"));
    }
    if faults.is_empty() { Ok(filter) } else { Err(Problem::invalid(faults)) }
}

fn read_parameter(filter: &mut OrderFilter, name: &str, value: &str) -> Result<(), Invalid> {
    match name {
        "state" => {
            filter.state = match OrderState::from_word(value) {
                Some(OrderState::Accepted) => {
                    let why = "is held, sold, released or refused: orders in flight are counted at /stock, and listed once \
                               they are settled";
                    return Err(Invalid(why.into()));
                }
                None => return Err(Invalid("is held, sold, released or refused".into())),
                settled => settled,
            };
        }
        "customer" => filter.customer = Some(Customer::new(value)?),
        "cursor" => filter.after = seq(value).ok_or_else(|| Invalid("is no cursor of this list".into()))?,
        "limit" => {
            let max = limits::PAGE_ORDERS_MAX;
            let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
            filter.limit = limit.ok_or_else(|| Invalid(format!("is a whole number from 1 to {max}")))?;
        }
        _ => return Err(Invalid("is unknown; known are state, customer, cursor, limit".into())),
    }
    Ok(())
}

fn cursor(after: Seq) -> String {
    format!("c{:016x}", after.0)
}

fn seq(text: &str) -> Option<Seq> {
    let seq = Seq(u64::from_str_radix(text.strip_prefix('c')?, 16).ok()?);
    // The ledger counts with signed numbers.
    (i64::try_from(seq.0).is_ok() && cursor(seq) == text).then_some(seq)
}

/// All pages, one in memory at a time.
fn csv_of_all(shop: Arc<Shop>, mut filter: OrderFilter) -> Response {
    filter.limit = limits::PAGE_ORDERS_MAX;
    let pages = stream::try_unfold(Some((filter, true)), move |turn| {
        let shop = shop.clone();
        async move {
            let Some((mut filter, first)) = turn else { return Ok(None) };
            let OrderPage { orders, next } = shop.ledger.orders(&filter).await.map_err(std::io::Error::other)?;
            let page = csv_page(&orders, first)?;
            let turn = next.map(|after| {
                filter.after = after;
                (filter, false)
            });
            Ok::<_, std::io::Error>(Some((page, turn)))
        }
    });
    let mut response = Response::new(Body::from_stream(pages));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"orders.csv\""));
    response
}

const COLUMNS: [&str; 10] =
    ["id", "sale", "customer", "sku", "quantity", "state", "reason", "accepted_at", "settled_at", "expires_at"];

/// A row per order line.
fn csv_page(orders: &[OrderRecord], first: bool) -> std::io::Result<Bytes> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if first {
        writer.write_record(COLUMNS)?;
    }
    for record in orders {
        let time = |time: Option<crate::model::Time>| time.map(|time| time.to_string()).unwrap_or_default();
        for line in &record.order.lines {
            writer.write_record([
                record.order.id.to_string().as_str(),
                record.order.sale.as_str(),
                &no_formula(record.order.customer.as_str()),
                line.sku.as_str(),
                &line.quantity.get().to_string(),
                record.state.word(),
                record.reason.map(|reason| reason.word()).unwrap_or_default(),
                &time(Some(record.order.accepted_at)),
                &time(record.settled_at),
                &time(record.expires_at),
            ])?;
        }
    }
    writer.into_inner().map(Bytes::from).map_err(|error| error.into_error())
}

/// A spreadsheet takes a cell that begins like this for a formula, and customers choose their own names.
fn no_formula(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        assert_eq!(seq(&cursor(Seq(48_213))), Some(Seq(48_213)));
        for wrong in ["", "c", "48213", "cffffffffffffffff", "c00000000000000g0", "c+000000000000001"] {
            assert_eq!(seq(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn csv_is_for_whoever_likes_it_no_less_than_json() {
        let wants =
            |accept: &'static str| wants_csv(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
        for accept in
            ["text/csv", "Text/CSV; q=0.1", "application/json;q=0.5, text/csv", "text/csv, */*;q=0.8", "text/csv,*/*"]
        {
            assert!(wants(accept), "{accept}");
        }
        for accept in ["", "*/*", "text/csv;q=0", "application/json, text/csv;q=0.1", "text/csv;q=0.2, */*;q=0.3"] {
            assert!(!wants(accept), "{accept}");
        }
    }

    #[test]
    fn a_customer_is_no_formula() {
        assert_eq!(no_formula("=1+1"), "'=1+1");
        assert_eq!(no_formula("c-1"), "c-1");
    }
}
