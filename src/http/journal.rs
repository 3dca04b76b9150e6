//! The operator's sight of a sale's journal, page by page: with it anybody can fold the sale again.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::{self, Fault};
use super::problems::Problem;
use super::request::OfSale;
use super::shapes::LineJson;
use super::{Api, json};
use crate::ledger::Move;
use crate::model::{Customer, Invalid, Seq, Time, limits};

/// A page of a journal.
#[derive(Serialize, ToSchema)]
#[schema(as = Journal)]
pub(super) struct JournalJson<'a> {
    /// In their sequence.
    moves: Vec<MoveJson<'a>>,
    /// What `after` has to be for the next page; null on the last.
    #[schema(value_type = Option<u64>)]
    next_after: Option<Seq>,
}

/// One line of the journal.
#[derive(Serialize, ToSchema)]
#[schema(as = Move)]
pub(super) struct MoveJson<'a> {
    /// From 1, without gaps.
    #[schema(value_type = u64)]
    seq: Seq,
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// `add`, `withdraw`, `hold`, `sell`, `confirm`, `cancel`, `lapse`, `refuse`, `open`, `pause`, `resume` or `close`.
    kind: &'static str,
    /// The order or adjustment; null for the sale's own moves.
    claim: Option<String>,
    /// Whose order it is.
    #[schema(value_type = Option<String>)]
    customer: Option<&'a Customer>,
    lines: Vec<LineJson<'a>>,
}

impl<'a> From<&'a Move> for MoveJson<'a> {
    fn from(step: &'a Move) -> Self {
        let Move { seq, at, kind, claim, customer, lines } = step;
        let claim = claim.map(|id| match customer {
            Some(_) => id.to_string(),
            None => id.to_string().replacen("ord_", "adj_", 1),
        });
        let lines = lines.iter().map(LineJson::from).collect();
        Self { seq: *seq, at: *at, kind: kind.word(), claim, customer: customer.as_ref(), lines }
    }
}

/// What happened to a sale and its units, in sequence.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/journal", tag = "operator", operation_id = "read_journal",
    params(
        ("sale" = String, Path, description = "The sale's id"),
        ("after" = Option<u64>, Query, description = "Moves after this one; 0 if absent"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 if absent"),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "A page", body = JournalJson),
        (status = "4XX", description = "Unknown, or the query is wrong", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    OfSale(sale): OfSale,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    if api.shop.sale(&sale).await?.is_none() {
        return Err(Problem::not_found("sale"));
    }
    let malformed = |_| Problem::invalid(vec![Fault::query("", "the query is not well-formed")]);
    let (after, limit) = read_query(&query.map_err(malformed)?.0)?;
    let moves = api.shop.ledger.journal(&sale, after, limit).await?;
    let next_after = moves.last().filter(|_| moves.len() == limit).map(|step| step.seq);
    let moves = moves.iter().map(MoveJson::from).collect();
    Ok(json(StatusCode::OK, &JournalJson { moves, next_after }))
}

fn read_query(pairs: &[(String, String)]) -> Result<(Seq, usize), Problem> {
    let (mut after, mut limit, mut faults) = (Seq(0), limits::JOURNAL_PAGE_MOVES_MAX, Vec::new());
    for (name, value) in pairs {
        let read = match name.as_str() {
            "after" => number(value, 0..=i64::MAX).map(|number| after = Seq(number.unsigned_abs())),
            "limit" => {
                let max = i64::try_from(limits::JOURNAL_PAGE_MOVES_MAX).unwrap_or(i64::MAX);
                number(value, 1..=max).map(|number| limit = usize::try_from(number).unwrap_or(limit))
            }
            _ => Err(Invalid("is unknown; known are after, limit".into())),
        };
        if let Err(Invalid(why)) = read {
            faults.push(Fault::query(name, why));
        }
    }
    for index in fields::repeated(pairs.iter().map(|(name, _)| name)) {
        faults.push(Fault::query(&pairs[index].0, "is given twice"));
    }
    if faults.is_empty() { Ok((after, limit)) } else { Err(Problem::invalid(faults)) }
}

fn number(text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, Invalid> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| Invalid(format!("is a whole number from {} to {}", range.start(), range.end())))
}
