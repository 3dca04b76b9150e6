//! Whether the process lives, and whether it can take a correct decision.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use serde_json::json as value;

use super::shapes::ReadinessJson;
use super::{Api, json};
use crate::model::{Result, SaleState};

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
    let missing = missing(&api).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "not ready");
        vec!["a layer does not answer".into()]
    });
    if missing.is_empty() {
        return json(StatusCode::OK, &ReadinessJson { ready: true, missing });
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &ReadinessJson { ready: false, missing });
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}

async fn missing(api: &Api) -> Result<Vec<String>> {
    let shop = &api.shop;
    let mut missing = Vec::new();
    if api.is_draining() {
        missing.push("the server is stopping".into());
    }
    if shop.queue_down.load(std::sync::atomic::Ordering::Relaxed) {
        missing.push("the queue is down".into());
    }
    let now = shop.clock.now();
    for record in shop.ledger.sales().await? {
        if record.sale.window.state(now) == SaleState::Ended {
            continue;
        }
        let view = shop.gate.view(&record.sale.id).await?;
        if !view.is_some_and(|view| view.live && view.epoch >= record.epoch.epoch) {
            missing.push(format!("the gate is loading sale {}", record.sale.id));
        }
    }
    Ok(missing)
}
