//! The controls of a demonstration: call a crowd, let a fault happen. Without `--demo` there are no such addresses.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::{Router, routing};
use serde::Serialize;

use super::fields::{self, Fields};
use super::live::Entry;
use super::problems::Problem;
use super::request::JsonBytes;
use super::{Api, auth, json};
use crate::demo::{Call, Demo, Fault, Progress};
use crate::model::{SaleId, Time};
use crate::race::Setting;

/// People of one crowd.
const CUSTOMERS_MAX: u32 = 200_000;
/// How long a crowd may keep coming.
const SECONDS_MAX: u32 = 120;
/// New orders per second.
const RATE_MAX: u32 = 50_000;
/// Orders of one crowd.
const ORDERS_MAX: u32 = 1_000_000;

/// Seeds, units and people of one race.
const SEEDS_MAX: u32 = 100;
const RACE_UNITS_MAX: u32 = 10_000;
const RACERS_MAX: u32 = 100_000;

/// What can be done, and what is going on.
#[derive(Serialize)]
struct DemoJson {
    crowd: Option<Progress>,
    chaos: [&'static str; Fault::ALL.len()],
}

/// A fault that happens.
#[derive(Serialize)]
struct StruckJson {
    what: &'static str,
    until: Time,
}

/// The addresses; none unless this is a demonstration.
pub(super) fn routes(api: &Arc<Api>) -> Router<Arc<Api>> {
    if api.demo.is_none() {
        return Router::new();
    }
    Router::new()
        .route("/v1/demo", routing::get(show))
        .route("/v1/demo/crowd", routing::post(call).delete(dismiss))
        .route("/v1/demo/chaos/{fault}", routing::post(strike))
        .route("/v1/demo/race", routing::get(board).post(race))
        .route_layer(from_fn_with_state(api.clone(), auth::admin_only))
}

fn demo(api: &Api) -> Result<&Arc<Demo>, Problem> {
    api.demo.as_ref().ok_or_else(|| Problem::not_found("address"))
}

async fn show(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let crowd = demo(&api)?.progress();
    Ok(json(StatusCode::OK, &DemoJson { crowd, chaos: Fault::ALL.map(Fault::word) }))
}

async fn call(State(api): State<Arc<Api>>, JsonBytes(body): JsonBytes) -> Result<Response, Problem> {
    let demo = demo(&api)?;
    let call = fields::parse(&body, read)?;
    api.shop.sale(&call.sale).await?.ok_or_else(|| Problem::not_found("sale"))?;
    let came = demo.call(&call).await.map_err(|error| {
        tracing::error!(%error, "a crowd could not be called");
        Problem::internal()
    })?;
    if !came {
        return Err(Problem::wrong_state("crowd", "still here", "come again"));
    }
    let text = format!("a crowd of {} comes, for {} s", call.customers, call.seconds);
    api.notes.add(Some(call.sale), Entry::note(api.shop.clock.now(), "demo", text));
    let crowd = demo.progress();
    Ok(json(StatusCode::ACCEPTED, &DemoJson { crowd, chaos: Fault::ALL.map(Fault::word) }))
}

async fn dismiss(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let demo = demo(&api)?;
    demo.dismiss();
    let crowd = demo.progress();
    Ok(json(StatusCode::OK, &DemoJson { crowd, chaos: Fault::ALL.map(Fault::word) }))
}

async fn strike(State(api): State<Arc<Api>>, fault: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let demo = demo(&api)?;
    let fault = fault.ok().and_then(|Path(word)| Fault::ALL.into_iter().find(|fault| fault.word() == word));
    let fault = fault.ok_or_else(|| Problem::not_found("fault"))?;
    demo.chaos.strike(fault);
    let now = api.shop.clock.now();
    api.notes.add(None, Entry::note(now, "demo", fault.meaning()));
    Ok(json(StatusCode::ACCEPTED, &StruckJson { what: fault.word(), until: now.after(fault.time()) }))
}

async fn board(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &demo(&api)?.board()))
}

async fn race(State(api): State<Arc<Api>>, JsonBytes(body): JsonBytes) -> Result<Response, Problem> {
    let demo = demo(&api)?;
    let setting = fields::parse(&body, |race| {
        let mut count = |name, max| race.required(name).and_then(|node| node.count(1..=max));
        let (seeds, units, customers) =
            (count("seeds", SEEDS_MAX), count("units", RACE_UNITS_MAX), count("customers", RACERS_MAX));
        Some(Setting { seeds: seeds?, units: units?, customers: customers? })
    })?;
    if !demo.race(setting) {
        return Err(Problem::wrong_state("race", "running", "begin again"));
    }
    Ok(json(StatusCode::ACCEPTED, &demo.board()))
}

fn read(crowd: &mut Fields<'_>) -> Option<Call> {
    let sale = crowd.required("sale").and_then(|node| node.text::<SaleId>());
    let customers = crowd.required("customers").and_then(|node| node.count(1..=CUSTOMERS_MAX));
    let rate = crowd.optional("rate_per_second").and_then(|node| node.count(1..=RATE_MAX));
    let seconds = crowd.optional("seconds").map(|node| node.count(1..=SECONDS_MAX));
    let retries = crowd.optional("retries").map(|node| node.flag());
    let seed = crowd.optional("seed").map(|node| node.whole(0..=i64::MAX));
    let seconds = seconds.unwrap_or(Some(4))?;
    if rate.is_some_and(|rate| rate.saturating_mul(seconds) > ORDERS_MAX) {
        crowd.fault("rate_per_second", format!("comes to more than {ORDERS_MAX} orders"));
        return None;
    }
    Some(Call {
        sale: sale?,
        customers: customers?,
        rate_per_second: rate,
        seconds,
        retries: retries.unwrap_or(Some(true))?,
        seed: seed.unwrap_or(Some(1))?.unsigned_abs(),
    })
}
