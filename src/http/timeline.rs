//! The timeline of one order: what the ledger really has of it, step by step.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::problems::Problem;
use super::request::OfOrder;
use super::shapes::OrderJson;
use super::{Api, json};
use crate::checkout;
use crate::ledger::{Move, MoveKind};
use crate::model::{OrderRecord, Result as Answer, Seq, Time, limits};
use crate::shop::Shop;

/// An order and its life so far.
#[derive(Serialize, ToSchema)]
#[schema(as = Timeline)]
pub(super) struct TimelineJson<'a> {
    order: OrderJson<'a>,
    /// In their sequence.
    steps: Vec<StepJson>,
}

/// A step in an order's life.
#[derive(Serialize, ToSchema)]
#[schema(as = TimelineStep)]
pub(super) struct StepJson {
    /// `accepted`, `settled`, `refused`, `confirmed`, `cancelled` or `lapsed`.
    what: &'static str,
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// The journal's number of the move; null for what has none.
    #[schema(value_type = Option<u64>)]
    seq: Option<Seq>,
    /// Milliseconds since the step before; null for the first.
    gap_ms: Option<f64>,
}

/// What happened to an order, and when.
#[utoipa::path(
    get, path = "/v1/orders/{id}/timeline", tag = "operator", operation_id = "get_timeline",
    params(("id" = String, Path, description = "The order's id")), security(("admin" = [])),
    responses(
        (status = 200, description = "Its life so far", body = TimelineJson),
        (status = "4XX", description = "Unknown", body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(State(api): State<Arc<Api>>, OfOrder(id): OfOrder) -> Result<Response, Problem> {
    let record = checkout::find(&api.shop, id).await?.ok_or_else(|| Problem::not_found("order"))?;
    let steps = steps(&api.shop, &record).await?;
    Ok(json(StatusCode::OK, &TimelineJson { order: OrderJson::from(&record), steps }))
}

/// An order has at most two moves: the one that settled it, and the one that ended its hold.
async fn steps(shop: &Shop, record: &OrderRecord) -> Answer<Vec<StepJson>> {
    let mut found = vec![("accepted", record.order.accepted_at, None)];
    if let Some((settled_at, latest)) = record.settled_at.zip(record.seq) {
        let latest = shop.ledger.journal(&record.order.sale, Seq(latest.0.saturating_sub(1)), 1).await?.pop();
        match latest.filter(|step| step.claim == Some(record.order.id)) {
            Some(step) if step.kind.settles() => found.push((word(step.kind), step.at, Some(step.seq))),
            Some(step) => {
                let settled = settling(shop, record, settled_at, step.seq).await?;
                found.push(("settled", settled_at, settled.map(|step| step.seq)));
                found.push((word(step.kind), step.at, Some(step.seq)));
            }
            // Rows and journal disagree: the audit says so, here stands what the row has.
            None => found.push(("settled", settled_at, None)),
        }
    }
    let mut before: Option<Time> = None;
    let steps = found.into_iter().map(|(what, at, seq)| {
        let gap_ms = before.replace(at).map(|before| at.since(before).as_secs_f64() * 1_000.0);
        StepJson { what, at, seq, gap_ms }
    });
    Ok(steps.collect())
}

fn word(kind: MoveKind) -> &'static str {
    match kind {
        MoveKind::Confirm => "confirmed",
        MoveKind::Cancel => "cancelled",
        MoveKind::Lapse => "lapsed",
        MoveKind::Refuse => "refused",
        _ => "settled",
    }
}

/// The move that settled an order, looked for by its time: the journal has no index by order, and its times only grow.
async fn settling(shop: &Shop, record: &OrderRecord, settled_at: Time, before: Seq) -> Answer<Option<Move>> {
    let (sale, id) = (&record.order.sale, record.order.id);
    // The move after `low` is the first one that is not earlier.
    let (mut low, mut high) = (0, before.0);
    while low < high {
        let middle = low + (high - low) / 2;
        let step = shop.ledger.journal(sale, Seq(middle), 1).await?.pop();
        match step {
            Some(step) if step.at < settled_at => low = middle + 1,
            _ => high = middle,
        }
    }
    let mut after = Seq(low);
    loop {
        let moves = shop.ledger.journal(sale, after, limits::JOURNAL_PAGE_MOVES_MAX).await?;
        if let Some(found) = moves.iter().find(|step| step.claim == Some(id) && step.kind.settles()) {
            return Ok(Some(found.clone()));
        }
        match moves.last().filter(|last| last.at <= settled_at && last.seq < before) {
            Some(last) => after = last.seq,
            None => return Ok(None),
        }
    }
}
