//! The timeline of one order: what the ledger has of it, and what this process saw of its way there, step by step.

use std::sync::Arc;
use std::time::Duration;

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
use crate::way::{Stop, Way};

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
    /// `asked` is the order's `accepted_at`. `admitted`, `sealed` (its batch left), `pushed` (it is durable) and `pulled` are
    /// there for the latest thousands of orders, as far as this process took part. `settled` or `refused`, and `confirmed`,
    /// `cancelled` or `lapsed`, are the ledger's.
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

/// A step, as it was found.
struct Step {
    what: &'static str,
    at: Time,
    seq: Option<Seq>,
    /// The same time on the monotonic clock, if this process took part.
    moment: Option<Duration>,
}

/// The way to the ledger, as far as this process took part in it; then what the ledger has: at most two moves, the one that
/// settled the order, and the one that ended its hold.
async fn steps(shop: &Shop, record: &OrderRecord) -> Answer<Vec<StepJson>> {
    let way = shop.ways.of(record.order.id);
    let mut found = on_the_way(record, &way);
    if let Some((settled_at, latest)) = record.settled_at.zip(record.seq) {
        let latest = shop.ledger.journal(&record.order.sale, Seq(latest.0.saturating_sub(1)), 1).await?.pop();
        let latest = latest.filter(|step| step.claim == Some(record.order.id));
        let (settled, turned) = match latest {
            Some(step) if step.kind.settles() => (Some(step), None),
            Some(step) => (settling(shop, record, settled_at, step.seq).await?, Some(step)),
            // Rows and journal disagree: the audit says so, here stands what the row has.
            None => (None, None),
        };
        let what = settled.as_ref().map_or("settled", |step| word(step.kind));
        let seq = settled.map(|step| step.seq);
        found.push(Step { what, at: settled_at, seq, moment: way.at(Stop::Settled) });
        // The answer to a push may be heard after the worker has pulled the order, and even after it has settled it.
        if found.iter().all(|step| step.moment.is_some()) {
            found.sort_by_key(|step| step.moment);
        }
        found.extend(turned.map(|step| Step { what: word(step.kind), at: step.at, seq: Some(step.seq), moment: None }));
    }
    let mut before: Option<(Time, Option<Duration>)> = None;
    let steps = found.into_iter().map(|Step { what, at, seq, moment }| {
        let gap = before.replace((at, moment)).map(|(since, earlier)| {
            moment.zip(earlier).map_or_else(|| at.since(since), |(moment, earlier)| moment.saturating_sub(earlier))
        });
        StepJson { what, at, seq, gap_ms: gap.map(|gap| gap.as_secs_f64() * 1_000.0) }
    });
    Ok(steps.collect())
}

/// From the customer to the worker, in the sequence in which it happened.
fn on_the_way(record: &OrderRecord, way: &Way) -> Vec<Step> {
    let (accepted_at, asked) = (record.order.accepted_at, way.at(Stop::Asked));
    let mut steps = vec![Step { what: "asked", at: accepted_at, seq: None, moment: asked }];
    // The monotonic clock counts from any moment; one that is known on both clocks ties them.
    let pulled = || record.settled_at.zip(way.at(Stop::Pulled));
    let Some((time, tie)) = asked.map(|asked| (accepted_at, asked)).or_else(pulled) else { return steps };
    let stops =
        [("admitted", Stop::Admitted), ("sealed", Stop::Sealed), ("pushed", Stop::Pushed), ("pulled", Stop::Pulled)];
    for (what, stop) in stops {
        if let Some(moment) = way.at(stop) {
            let at = if moment < tie { time.before(tie - moment) } else { time.after(moment - tie) };
            steps.push(Step { what, at, seq: None, moment: Some(moment) });
        }
    }
    steps[1..].sort_by_key(|step| step.moment);
    steps
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
