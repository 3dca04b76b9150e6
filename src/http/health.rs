//! Whether the process lives, and whether it can take a correct decision.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use futures_util::future::join;
use serde_json::json as value;

use super::shapes::ReadinessJson;
use super::{Api, json};
use crate::model::SaleState;

/// Whether the process lives. It asks nobody else.
#[utoipa::path(
    get, path = "/livez", tag = "machine", operation_id = "livez",
    responses((status = 200, description = "It does"))
)]
pub(super) async fn livez() -> Response {
    json(StatusCode::OK, &value!({ "alive": true }))
}

/// Whether the server can take a correct decision: every sale loaded at the gate, every layer answering, not stopping.
#[utoipa::path(
    get, path = "/readyz", tag = "machine", operation_id = "readyz",
    responses(
        (status = 200, description = "It can", body = ReadinessJson),
        (status = 503, description = "Not now; `missing` says why", body = ReadinessJson),
    )
)]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let missing = missing(&api).await;
    if missing.is_empty() { json(StatusCode::OK, &ReadinessJson { ready: true, missing }) } else { not_ready(missing) }
}

/// For the machinery that sends traffic: not now, and why.
pub(super) fn not_ready(missing: Vec<String>) -> Response {
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &ReadinessJson { ready: false, missing });
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}

/// What is not as it has to be. Every layer is asked, so that a reader sees at once which server is missing.
async fn missing(api: &Api) -> Vec<String> {
    let (shop, run_by) = (&api.shop, api.run_by);
    let mut missing = Vec::new();
    if api.is_draining() {
        missing.push("the server is stopping".into());
    }
    let (depth, records) = join(shop.queue.depth(), shop.ledger.sales()).await;
    if depth.is_err() || shop.queue_down.load(Ordering::Relaxed) {
        missing.push(format!("the queue ({}) is down", run_by.queue));
    }
    let records = records.unwrap_or_else(|error| {
        tracing::warn!(%error, "not ready");
        missing.push(format!("the ledger ({}) is down", run_by.ledger));
        Vec::new()
    });
    let now = shop.clock.now();
    for record in records.iter().filter(|record| record.sale.window.state(now) != SaleState::Ended) {
        match shop.gate.view(&record.sale.id).await {
            Ok(Some(view)) if view.live && view.epoch >= record.epoch.epoch => {}
            Ok(_) => missing.push(format!("the gate is loading sale {}", record.sale.id)),
            Err(error) => {
                tracing::warn!(%error, "not ready");
                missing.push(format!("the gate ({}) is down", run_by.gate));
                break;
            }
        }
    }
    missing
}
