//! Numbers for Prometheus: what is counted as it happens, and what is read from the layers when somebody scrapes.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::Api;
use super::problems::Problem;
use crate::audit::{self, Stock};
use crate::clock::Clock;
use crate::model::{Result, SaleId, SaleState};
use crate::queue::Depth;

const REQUESTS: &str = "http_server_request_duration_seconds";
const STAGES: &str = "sluice_stage_duration_seconds";
const RELEASE_LAG: &str = "sluice_hold_release_lag_seconds";
const DECISIONS: &str = "sluice_decisions_total";
const BROKEN_PROMISES: &str = "sluice_broken_promises_total";

/// Upper bounds in seconds: refusals take microseconds, settled answers milliseconds, waiting ones seconds.
const BUCKETS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// How often the recorder tidies up, whether anybody scrapes or not.
const UPKEEP: Duration = Duration::from_secs(1);

/// The metrics of this process; installed by the first who asks.
pub(super) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let buckets = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS);
        let recorder = buckets.expect("there are buckets").build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder is installed: /metrics lacks what it records");
        }
        describe();
        // There before the first one is counted, so that no rate misses it.
        for stage in ["admit", "push", "settle"] {
            drop(histogram!(STAGES, "stage" => stage));
        }
        drop(histogram!(RELEASE_LAG));
        handle
    })
}

fn describe() {
    describe_histogram!(REQUESTS, "From a request's head to its answer");
    describe_histogram!(STAGES, "How long a stage of an order's way takes");
    describe_histogram!(RELEASE_LAG, "From a hold's end to its units' being available");
    describe_counter!(DECISIONS, "Answers to requests to order");
    describe_counter!("sluice_settlements_total", "What the ledger decided");
    describe_counter!(BROKEN_PROMISES, "Orders accepted and then refused; always 0");
}

/// Keeps the recorder small until the future is dropped.
pub(super) async fn upkeep(clock: &dyn Clock) {
    loop {
        clock.sleep(UPKEEP).await;
        recorder().run_upkeep();
    }
}

/// What a request to order comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    Repeated,
    SoldOut,
    Limit,
    NotOpen,
    Paused,
    Ended,
    KeyReused,
    Invalid,
    Unavailable,
}

impl Outcome {
    pub(super) const ALL: [(Outcome, &'static str); 10] = [
        (Outcome::Accepted, "accepted"),
        (Outcome::Repeated, "repeated"),
        (Outcome::SoldOut, "sold_out"),
        (Outcome::Limit, "customer_limit"),
        (Outcome::NotOpen, "not_open"),
        (Outcome::Paused, "paused"),
        (Outcome::Ended, "ended"),
        (Outcome::KeyReused, "key_reused"),
        (Outcome::Invalid, "invalid"),
        (Outcome::Unavailable, "unavailable"),
    ];
}

/// A sale's counters, one per outcome.
pub(super) struct Decisions([Counter; Outcome::ALL.len()]);

impl Decisions {
    pub(super) fn of(sale: &SaleId) -> Self {
        recorder();
        Self(Outcome::ALL.map(|(_, word)| counter!(DECISIONS, "sale" => sale.to_string(), "outcome" => word)))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].increment(1);
    }
}

/// The durations of the one route that most requests take, found without a lookup.
pub(super) struct OrderDurations(Vec<(StatusCode, Histogram)>);

impl OrderDurations {
    pub(super) const ROUTE: &'static str = "/v1/sales/{sale}/orders";

    pub(super) fn new() -> Self {
        recorder();
        let codes = [409_u16, 202, 201, 200, 410, 503, 422, 400, 404, 408, 413, 415, 500];
        let codes = codes.into_iter().filter_map(|code| StatusCode::from_u16(code).ok());
        Self(codes.map(|status| (status, duration(&Method::POST, Self::ROUTE, status))).collect())
    }

    pub(super) fn record(&self, status: StatusCode, time: Duration) {
        if let Some((_, histogram)) = self.0.iter().find(|(code, _)| *code == status) {
            histogram.record(time);
        }
    }
}

fn duration(method: &Method, route: &str, status: StatusCode) -> Histogram {
    // A method may be any word that a client makes up; a label may not.
    let method = match *method {
        _ if status == StatusCode::METHOD_NOT_ALLOWED => "other".to_string(),
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD | Method::OPTIONS => {
            method.to_string()
        }
        _ => "other".to_string(),
    };
    histogram!(REQUESTS, "method" => method, "route" => route.to_string(), "status" => status.as_str().to_string())
}

/// Measures the requests of all other routes.
pub(super) async fn measured(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let started = api.shop.clock.monotonic();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", |route| route.as_str());
    duration(&method, route, response.status()).record(api.shop.clock.monotonic().saturating_sub(started));
    response
}

/// Everything that Prometheus may know. Neither keys nor customers nor order ids stand in a label.
#[utoipa::path(
    get, path = "/metrics", tag = "machine", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub(super) async fn scrape(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let shop = &api.shop;
    let records = shop.ledger.sales().await?;
    let now = shop.clock.now();
    let mut stocks = Vec::new();
    for record in &records {
        counter!(BROKEN_PROMISES, "sale" => record.sale.id.to_string()).increment(0);
        drop(Decisions::of(&record.sale.id));
        let of_interest = is_live(record.sale.window.state(now)) || shop.gate.view(&record.sale.id).await?.is_some();
        if of_interest && let Some(stock) = audit::stock(shop, &record.sale.id).await? {
            stocks.push(stock);
        }
    }
    let depth = shop.queue.depth().await?;
    let mut text = recorder().render();
    if records.is_empty() {
        writeln!(text, "# TYPE {BROKEN_PROMISES} counter\n{BROKEN_PROMISES} 0").expect("a string takes everything");
    }
    gauges(&mut text, &stocks, &depth).expect("a string takes everything");
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn is_live(state: SaleState) -> bool {
    state != SaleState::Ended
}

fn gauges(text: &mut String, stocks: &[Stock], depth: &Depth) -> std::fmt::Result {
    head(text, "sluice_units", "Where the units are, per layer")?;
    for stock in stocks {
        for item in &stock.items {
            let mut unit = |layer, state, count: u32| {
                let (sale, sku) = (&stock.sale, &item.sku);
                let labels = format!("sale=\"{sale}\",sku=\"{sku}\",layer=\"{layer}\",state=\"{state}\"");
                writeln!(text, "sluice_units{{{labels}}} {count}")
            };
            unit("ledger", "stock", item.stock.get())?;
            unit("ledger", "available", item.available.get() + item.in_flight.get())?;
            unit("ledger", "held", item.held.get())?;
            unit("ledger", "sold", item.sold.get())?;
            if let Some(gate) = item.gate {
                unit("gate", "available", gate.available.get())?;
                unit("gate", "in_flight", item.in_flight.get())?;
            }
        }
    }
    let sum =
        |count: fn(&audit::StockItem) -> u64| -> u64 { stocks.iter().flat_map(|stock| &stock.items).map(count).sum() };
    let damaged: u64 = stocks.iter().filter(|stock| !stock.conserved).map(|_| 1).sum();
    gauge(text, "sluice_oversold_units", "Units held and sold beyond the stock; always 0", sum(oversold))?;
    let missing = sum(missing).max(damaged);
    gauge(text, "sluice_conservation_error_units", "Units that are in no place or in two; always 0", missing)?;
    gauge(text, "sluice_queue_depth", "Claims that wait for settlement", depth.waiting)?;
    gauge(text, "sluice_dead_letters", "Messages set aside for a person to look at", depth.parked)?;
    let oldest = depth.oldest.as_secs_f64();
    gauge(text, "sluice_queue_oldest_seconds", "How long the oldest claim has been waiting", oldest)
}

fn oversold(item: &audit::StockItem) -> u64 {
    let taken = u64::from(item.held.get()) + u64::from(item.sold.get());
    taken.saturating_sub(item.stock.get().into())
}

fn missing(item: &audit::StockItem) -> u64 {
    let parts = [item.available, item.held, item.sold, item.in_flight];
    let sum: u64 = parts.iter().map(|units| u64::from(units.get())).sum();
    sum.abs_diff(item.stock.get().into())
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) -> std::fmt::Result {
    head(text, name, help)?;
    writeln!(text, "{name} {value}")
}

fn head(text: &mut String, name: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")
}
