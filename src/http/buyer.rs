//! The buyer's page: plain HTML that works without JavaScript. A form orders, and the answer leads to the order's own page;
//! what is decided is decided by the same path as everything else.

mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::{Form, Router, routing};
use serde::Deserialize;
use serde_json::json;

use super::problems::Problem;
use super::request::{Key, OfSale, body};
use super::sales::Sight;
use super::{Api, auth, orders};
use crate::checkout::{self, Placement};
use crate::ledger::Turn;
use crate::model::{OrderId, OrderRecord, OrderState, SaleId};
use words::{Notice, Wish};

/// How long a buyer's order is waited for before its page is shown; the page asks again by itself.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// More than any problem says.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;
/// Everything a page needs comes from its own origin. Unlike other pages it tells its own origin where a form came from:
/// without that a browser calls the form's origin `null`, and it could not be told from a stranger's.
const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

/// The addresses of the page and of its forms.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/s/{sale}", routing::get(show))
        .route("/s/{sale}/orders", routing::post(place).get(see_sale))
        .route("/s/{sale}/orders/{id}", routing::get(show_order))
        .route("/s/{sale}/orders/{id}/cancel", routing::post(cancel))
        .layer(from_fn(readable))
}

/// A problem is a page for who reads pages, and what it is everywhere else for the rest.
async fn readable(request: Request, next: Next) -> Response {
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let pages = accepted.is_some_and(|accepted| accepted.contains("text/html"));
    let response = next.run(request).await;
    if !pages || response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/problem+json") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, PROBLEM_BYTES_MAX).await.unwrap_or_default();
    let Told { title, detail } = serde_json::from_slice(&body).unwrap_or_default();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    (parts.status, parts.headers, page_headers(), Html(words::problem(&title, &detail))).into_response()
}

/// A problem's own words.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Told {
    title: String,
    detail: String,
}

/// What the form says. Everything is text: what is wrong with it is found where every order is read.
#[derive(Deserialize)]
struct Filled {
    key: String,
    customer: String,
    sku: String,
    quantity: String,
}

/// Where a form was sent is no page: who asks for it again is shown the sale.
async fn see_sale(OfSale(sale): OfSale) -> Response {
    see_other(&format!("/s/{sale}"))
}

async fn show(State(api): State<Arc<Api>>, OfSale(sale): OfSale) -> Result<Response, Problem> {
    sale_page(&api, &sale, StatusCode::OK, None, None).await
}

/// The sale's page, with what there is to say and what was filled in before.
async fn sale_page(
    api: &Arc<Api>,
    id: &SaleId,
    status: StatusCode,
    notice: Option<Notice>,
    filled: Option<Filled>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("sale");
    api.shop.sale(id).await?.ok_or_else(unknown)?;
    let sights = api.readings.sights(&api.shop, Some(id)).await?;
    let Sight { record, view, holds_end } = sights.first().ok_or_else(unknown)?;
    let fresh = || format!("{:016x}{:016x}", api.shop.clock.chance(), api.shop.clock.chance());
    let wish = match filled {
        // That wish has its order; what is sent from here on is another one.
        Some(Filled { customer, sku, quantity, .. }) if matches!(notice, Some(Notice::OrderedOtherwise(_))) => {
            Wish { key: fresh(), another: true, customer, sku, quantity }
        }
        Some(Filled { key, customer, sku, quantity }) => Wish { key, another: false, customer, sku, quantity },
        None => {
            Wish { key: fresh(), another: false, customer: String::new(), sku: String::new(), quantity: "1".into() }
        }
    };
    let now = api.shop.clock.now();
    Ok(page(status, words::sale(record, view.as_ref(), *holds_end, now, notice.as_ref(), &wish)))
}

/// Orders, and leads to the order's page. The same form sent twice leads to the same order.
async fn place(State(api): State<Arc<Api>>, OfSale(sale): OfSale, request: Request) -> Result<Response, Problem> {
    if api.is_draining() {
        return Err(Problem::stopping());
    }
    let filled = filled(&api, request).await?;
    let stall = api.stall(sale.as_str()).await?;
    let started = api.shop.clock.monotonic();
    let quantity = filled.quantity.trim().parse::<u32>().unwrap_or(0);
    let lines = json!([{"sku": filled.sku, "quantity": quantity}]);
    let body = json!({"customer": filled.customer.trim(), "lines": lines}).to_string();
    let placed = match Key::read(filled.key.as_bytes()) {
        _ if api.is_draining() => Err(Problem::stopping()),
        Some(key) => orders::ordered(&api, &stall, key, body.as_bytes(), orders::Caller::MayGo).await,
        None => Err(Problem::key_missing()),
    };
    let now = api.shop.clock.monotonic();
    stall.count(&placed, now, now.saturating_sub(started));
    let (status, notice) = match placed {
        Ok(Placement::Accepted(record) | Placement::Repeat(record)) => {
            let id = record.order.id;
            // Most orders are settled before the buyer sees the page; the others' page asks again.
            drop(checkout::find_settled(&api.shop, id, SETTLE_PATIENCE).await);
            return Ok(see_order(&sale, id));
        }
        Ok(Placement::KeyReused) => {
            let first = api.shop.mint.id("order", &sale, filled.customer.trim(), &filled.key);
            (StatusCode::UNPROCESSABLE_ENTITY, Notice::OrderedOtherwise(first))
        }
        Ok(Placement::Refused(refusal)) => (words::status_of(&refusal), Notice::Refused(refusal)),
        Ok(Placement::UnknownSale) => return Err(Problem::not_found("sale")),
        Ok(Placement::Unavailable(_)) => (StatusCode::SERVICE_UNAVAILABLE, Notice::NotNow),
        Err(problem) if problem.is_fault() => (problem.status(), Notice::NotNow),
        Err(problem) => (problem.status(), Notice::Wrong(problem.into_detail())),
    };
    sale_page(&api, &sale, status, Some(notice), Some(filled)).await
}

/// Reads a form of this origin within the limits of every body.
async fn filled(api: &Arc<Api>, request: Request) -> Result<Filled, Problem> {
    guard(api, &request)?;
    let (parts, rest) = request.into_parts();
    let bytes = body(&parts.headers, rest, api).await?;
    let request = Request::from_parts(parts, bytes.into());
    match <Form<Filled> as axum::extract::FromRequest<()>>::from_request(request, &()).await {
        Ok(Form(filled)) => Ok(filled),
        Err(rejected) => Err(Problem::not_form(rejected.body_text())),
    }
}

/// A page of another origin fills in no form here.
fn guard(api: &Api, request: &Request) -> Result<(), Problem> {
    if auth::own_origin(request, api.loopback) { Ok(()) } else { Err(Problem::foreign_origin()) }
}

fn see_order(sale: &SaleId, id: OrderId) -> Response {
    see_other(&format!("/s/{sale}/orders/{id}"))
}

fn see_other(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let location = HeaderValue::from_str(path);
    response.headers_mut().insert(LOCATION, location.expect("ids are printable"));
    response
}

async fn show_order(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Problem> {
    let record = order_at(&api, path).await?;
    let sale = api.shop.sale(&record.order.sale).await?.ok_or_else(|| Problem::not_found("sale"))?;
    Ok(page(StatusCode::OK, words::order(&sale, &record, api.shop.clock.now())))
}

/// Gives a hold back; whatever it came to, the order's page says it.
async fn cancel(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    guard(&api, &request)?;
    let record = order_at(&api, path).await?;
    if record.state == OrderState::Held || record.state == OrderState::Accepted {
        orders::turned(&api, record.order.id, Turn::Cancel).await?;
    }
    Ok(see_order(&record.order.sale, record.order.id))
}

/// The order in the path, if it is of the sale in the path.
async fn order_at(
    api: &Api,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<OrderRecord, Problem> {
    let unknown = || Problem::not_found("order");
    let Path((sale, id)) = path.map_err(|_| unknown())?;
    let id: OrderId = id.parse().map_err(|_| unknown())?;
    let found = checkout::find(&api.shop, id).await?;
    found.filter(|record| record.order.sale.as_str() == sale).ok_or_else(unknown)
}

fn page(status: StatusCode, html: String) -> Response {
    (status, page_headers(), Html(html)).into_response()
}

fn page_headers() -> [(HeaderName, HeaderValue); 4] {
    HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)))
}
