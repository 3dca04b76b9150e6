//! What an operator sees and changes of a sale's units: stock, adjustments, the audit.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use utoipa::ToSchema;

use super::fields::{self, Fault, Fields};
use super::problems::Problem;
use super::request::{JsonBytes, Key, OfItem, OfSale};
use super::shapes::AdjustmentJson;
use super::{Api, json};
use crate::adjustment::{self, Adjusted};
use crate::audit::{self, Audit, Stock};
use crate::ledger::{Addition, Adjustment};
use crate::model::{Line, Units, Withdrawal, limits};

/// More or less stock of an item.
#[derive(ToSchema)]
#[schema(as = NewAdjustment)]
pub(super) struct NewAdjustment {
    /// Units to add, or to withdraw if negative; not 0.
    #[schema(value_type = i64, example = 50)]
    delta: Delta,
    #[schema(min_length = 1, max_length = 200, example = "a pallet turned up")]
    reason: String,
}

struct Delta {
    units: Units,
    adds: bool,
}

/// Add or withdraw stock. The same request under the same key does it once.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/items/{sku}/adjustments", tag = "operator", operation_id = "adjust_stock",
    params(
        ("sale" = String, Path, description = "The sale's id"),
        ("sku" = String, Path, description = "The item"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 printable characters, fresh for every adjustment"),
    ),
    request_body = NewAdjustment, security(("admin" = [])),
    responses(
        (status = 201, description = "It is so now, in the ledger and at the gate", body = AdjustmentJson),
        (status = 200, description = "A retry: the adjustment as it was done", body = AdjustmentJson,
            headers(("Idempotent-Replayed" = bool, description = "`true`"))),
        (status = "4XX", description = "Too few units are available, or the request is wrong", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn adjust(
    State(api): State<Arc<Api>>,
    OfItem(sale, sku): OfItem,
    Key(key): Key,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let known = api.shop.sale(&sale).await?.is_some_and(|sale| sale.item(&sku).is_some());
    if !known {
        return Err(Problem::not_found("item"));
    }
    let NewAdjustment { delta, reason } = fields::parse(&body, NewAdjustment::read)?;
    let id = api.shop.mint.id("adjustment", &sale, sku.as_str(), &key);
    let line = Line { sku, quantity: delta.units };
    let shop = api.shop.clone();
    let adjusted = api.detached(async move {
        if delta.adds {
            adjustment::add(&shop, &Addition { id, sale, line, reason }).await
        } else {
            adjustment::withdraw(&shop, Arc::new(Withdrawal { id, sale, line, reason })).await
        }
    });
    answer(adjusted.await?)
}

fn answer(adjusted: Adjusted) -> Result<Response, Problem> {
    let done = |status, adjustment: &Adjustment| json(status, &AdjustmentJson::from(adjustment));
    match adjusted {
        Adjusted::Done(adjustment) => Ok(done(StatusCode::CREATED, &adjustment)),
        Adjusted::Repeat(adjustment) => {
            let mut response = done(StatusCode::OK, &adjustment);
            response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
            Ok(response)
        }
        Adjusted::KeyReused => Err(Problem::key_reused()),
        Adjusted::TooFew(sku) => Err(Problem::stock_committed(&sku)),
        Adjusted::TooMany => {
            let max = limits::STOCK_UNITS_MAX;
            Err(Problem::invalid(vec![Fault::at("/delta", format!("the stock would pass {max} units"))]))
        }
        Adjusted::Ended => Err(Problem::sale_ended()),
        Adjusted::Unknown => Err(Problem::not_found("item")),
        Adjusted::Unavailable(effect) => Err(Problem::unavailable(effect)),
    }
}

impl NewAdjustment {
    fn read(adjustment: &mut Fields<'_>) -> Option<Self> {
        let max = i64::from(limits::STOCK_UNITS_MAX);
        let delta = adjustment.required("delta").and_then(|node| node.whole(-max..=max));
        let reason = adjustment.required("reason").and_then(|node| node.prose());
        let Some((units, adds)) = adjustment::direction(delta?) else {
            adjustment.fault("delta", "must not be 0");
            return None;
        };
        Some(Self { delta: Delta { units, adds }, reason: reason? })
    }
}

/// Where a sale's units are, all layers at one watermark.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/stock", tag = "operator", operation_id = "get_stock",
    params(("sale" = String, Path, description = "The sale's id")), security(("admin" = [])),
    responses(
        (status = 200, description = "All layers at one watermark", body = Stock),
        (status = "4XX", description = "Unknown", body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(State(api): State<Arc<Api>>, OfSale(sale): OfSale) -> Result<Response, Problem> {
    let stock = audit::stock(&api.shop, &sale).await?.ok_or_else(|| Problem::not_found("sale"))?;
    Ok(json(StatusCode::OK, &stock))
}

/// Recount a sale from its journal and compare all layers.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/audit", tag = "operator", operation_id = "audit_sale",
    params(("sale" = String, Path, description = "The sale's id")), security(("admin" = [])),
    responses(
        (status = 200, description = "The recount, whatever its verdict", body = Audit),
        (status = "4XX", description = "Unknown", body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn audit(State(api): State<Arc<Api>>, OfSale(sale): OfSale) -> Result<Response, Problem> {
    let audit = audit::audit(&api.shop, &sale).await?.ok_or_else(|| Problem::not_found("sale"))?;
    Ok(json(StatusCode::OK, &audit))
}
