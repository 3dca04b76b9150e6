//! The HTTP API, version 1. [`problems`] holds the table of everything that is not a plain yes; [`server`] the limits of
//! a connection; the other files one subject each.

mod auth;
mod buyer;
mod demo;
mod export;
mod fields;
mod health;
mod journal;
mod lane;
mod live;
mod metrics;
mod orders;
mod pages;
pub mod problems;
mod request;
mod sales;
mod server;
mod shapes;
mod stall;
mod stock;
mod timeline;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

pub use auth::Tokens;
pub use pages::report_file;
pub use server::{Limits, serve};

use crate::clock::Clock;
use crate::demo::Demo;
use crate::model::{self, Effect, Error};
use crate::shop::Shop;
use lane::Answer;
use metrics::OrderDurations;
use orders::{Asked, Placed};
use problems::{Problem, ProblemBody};

/// What runs each layer, in a word that everybody may read: no address.
#[derive(Debug, Clone, Copy)]
pub struct RunBy {
    /// Of the gate.
    pub gate: &'static str,
    /// Of the queue.
    pub queue: &'static str,
    /// Of the ledger.
    pub ledger: &'static str,
}

/// What every handler shares.
pub struct Api {
    shop: Arc<Shop>,
    run_by: RunBy,
    tokens: Tokens,
    limits: Limits,
    /// Whether only this machine can reach the server.
    loopback: bool,
    draining: AtomicBool,
    drained: tokio::sync::Notify,
    stalls: orders::Stalls,
    readings: sales::Readings,
    order_durations: OrderDurations,
    /// When this API began, on the clock's monotonic time.
    started: Duration,
    feeds: live::Feeds,
    /// What the event logs of live streams are told besides the journal.
    notes: live::Notes,
    watchers: Arc<Semaphore>,
    /// What only a demonstration may do.
    demo: Option<Arc<Demo>>,
}

impl Api {
    /// An API of this shop, whose layers are run by these servers.
    pub fn new(shop: Arc<Shop>, run_by: RunBy, tokens: Tokens, limits: Limits, loopback: bool) -> Arc<Self> {
        Self::with_demo(shop, run_by, tokens, limits, loopback, None)
    }

    /// The same, for a demonstration: with a crowd and with chaos.
    pub fn with_demo(
        shop: Arc<Shop>,
        run_by: RunBy,
        tokens: Tokens,
        limits: Limits,
        loopback: bool,
        demo: Option<Arc<Demo>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            started: shop.clock.monotonic(),
            feeds: live::Feeds::default(),
            notes: live::Notes::default(),
            watchers: live::places(),
            demo,
            shop,
            run_by,
            tokens,
            limits,
            loopback,
            draining: AtomicBool::new(false),
            drained: tokio::sync::Notify::new(),
            stalls: orders::Stalls::default(),
            readings: sales::Readings::default(),
            order_durations: OrderDurations::new(),
        })
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Not ready from now on; takes no more orders, and nobody waits any longer.
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.drained.notify_waiters();
    }

    /// Resolves once the server is stopping.
    async fn drained(&self) {
        let told = self.drained.notified();
        if !self.is_draining() {
            told.await;
        }
    }

    /// Runs what must not be torn: a client that hangs up changes nothing. What is done at once, as most refusals are,
    /// costs no task.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = model::Result<T>> + Send + 'static,
    ) -> Result<T, Problem> {
        let mut work = Box::pin(work);
        let first = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        let done = match first {
            Poll::Ready(done) => done,
            Poll::Pending => match tokio::spawn(work).await {
                Ok(done) => done,
                Err(_) => return Err(Problem::internal()),
            },
        };
        done.map_err(|error: Error| error.into())
    }
}

/// Everything that answers at one address, as one function from request to response.
pub struct Site {
    router: Router,
    /// Drained when the site closes.
    api: Option<Arc<Api>>,
    /// Takes the crowd's orders before the router looks at them.
    crowd: Option<Arc<Api>>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl Site {
    /// The whole API.
    pub fn whole(api: Arc<Api>) -> Self {
        let router = finished(router(&api), &api);
        Self {
            router,
            crowd: Some(api.clone()),
            clock: api.shop.clock.clone(),
            limits: api.limits.clone(),
            api: Some(api),
        }
    }

    /// What a worker answers: whether it lives, whether it is ready, and its metrics.
    pub fn machine(api: Arc<Api>) -> Self {
        let (routes, _) = machine_routes().split_for_parts();
        let router = finished(routes, &api);
        Self { router, crowd: None, clock: api.shop.clock.clone(), limits: api.limits.clone(), api: Some(api) }
    }

    /// What a process answers while it waits for its servers: it lives, it is not ready and says why, and everything else
    /// has to be asked again later.
    pub fn waiting(
        missing: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Self {
        let readyz = move || std::future::ready(health::not_ready(missing()));
        let router = Router::new()
            .route("/livez", routing::get(health::livez))
            .route("/readyz", routing::get(readyz))
            .route("/problems/{slug}", routing::get(pages::problem))
            .fallback(async || Problem::unavailable(Effect::None));
        Self { router, api: None, crowd: None, clock, limits }
    }

    /// Answers a request. A panic becomes a problem that shows nothing of the inside.
    pub async fn answer(&self, request: Request) -> Response {
        whatever_happens(self.route(request)).await
    }

    /// The crowd's orders go first and straight; everything else through the router.
    async fn route(&self, request: Request) -> Response {
        let sale = crowd(request.method().as_str(), request.uri().path());
        let Some((api, sale)) = self.crowd.as_ref().zip(sale) else {
            let Ok(response) = self.router.clone().oneshot(request).await;
            return response;
        };
        let started = self.clock.monotonic();
        let sale = sale.to_owned();
        let placed = orders::place_in(api, &sale, request).await;
        self.measured(api, placed, started).response()
    }

    /// Answers an order that the lane has read.
    async fn order(&self, api: &Arc<Api>, sale: &str, asked: &Asked<'_>) -> Answer {
        let started = self.clock.monotonic();
        let placed = AssertUnwindSafe(orders::place_asked(api, sale, asked)).catch_unwind().await;
        let placed = placed.unwrap_or_else(|_| Problem::internal().into());
        self.measured(api, placed, started)
    }

    /// The answer, counted with the time that it took.
    fn measured(&self, api: &Api, placed: Placed, started: Duration) -> Answer {
        let now = self.clock.monotonic();
        let time = now.saturating_sub(started);
        api.order_durations.record(placed.answer.status(), time);
        placed.count(now, time)
    }
}

async fn whatever_happens(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| Problem::internal().into_response())
}

/// The sale's id, if this is an order.
fn crowd<'a>(method: &str, path: &'a str) -> Option<&'a str> {
    let sale = path.strip_prefix("/v1/sales/")?.strip_suffix("/orders")?;
    (method == "POST" && !sale.contains(['/', '%', '?'])).then_some(sale)
}

fn router(api: &Arc<Api>) -> Router<Arc<Api>> {
    let (routes, openapi) = routes(Some(api)).split_for_parts();
    routes
        .merge(docs(openapi))
        .merge(pages::routes())
        .merge(buyer::routes())
        .merge(demo::routes(api))
        .route("/problems/{slug}", routing::get(pages::problem))
}

/// With an answer for everything else, and measured.
fn finished(routes: Router<Arc<Api>>, api: &Arc<Api>) -> Router {
    routes
        .method_not_allowed_fallback(async || Problem::method())
        .fallback(async || Problem::not_found("address"))
        .layer(from_fn_with_state(api.clone(), metrics::measured))
        .with_state(api.clone())
}

/// Swagger UI, whose missing files are problems as well.
fn docs(openapi: utoipa::openapi::OpenApi) -> Router<Arc<Api>> {
    let files: Router<Arc<Api>> = SwaggerUi::new("/docs").url("/openapi.json", openapi).into();
    files.layer(map_response(async |response: Response| match response.status() {
        StatusCode::NOT_FOUND => Problem::not_found("page").into_response(),
        _ => response,
    }))
}

/// The API's description, made from its code.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes(None).into_openapi()
}

/// All routes. Those of the operator and of the shop stand behind a guard by standing in its list; without an API, for
/// the description alone, nothing is guarded and nothing runs.
fn routes(api: Option<&Arc<Api>>) -> OpenApiRouter<Arc<Api>> {
    let open = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sales::list))
        .routes(routes!(sales::show))
        .routes(routes!(orders::place))
        .routes(routes!(orders::show))
        .routes(routes!(orders::cancel))
        .merge(machine_routes());
    let shop = OpenApiRouter::new().routes(routes!(orders::confirm));
    let admin = OpenApiRouter::new()
        .routes(routes!(sales::create))
        .routes(routes!(sales::open))
        .routes(routes!(sales::pause))
        .routes(routes!(sales::resume))
        .routes(routes!(sales::close))
        .routes(routes!(stock::adjust))
        .routes(routes!(stock::show))
        .routes(routes!(stock::audit))
        .routes(routes!(live::watch))
        .routes(routes!(timeline::show))
        .routes(routes!(journal::read))
        .routes(routes!(export::list));
    match api {
        None => open.merge(shop).merge(admin),
        Some(api) => open
            .merge(shop.route_layer(from_fn_with_state(api.clone(), auth::admin_or_shop)))
            .merge(admin.route_layer(from_fn_with_state(api.clone(), auth::admin_only))),
    }
}

fn machine_routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(health::livez)).routes(routes!(health::readyz)).routes(routes!(metrics::scrape))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sluice",
        description = "Sells exactly the stock there is. JSON in snake_case, RFC 3339 times in UTC, RFC 9457 problems.",
    ),
    tags(
        (name = "sales", description = "Read by everyone"),
        (name = "orders", description = "Placed by customers' shops"),
        (name = "operator", description = "With the admin token"),
        (name = "machine", description = "For the machinery around"),
    ),
    modifiers(&TokenSchemes),
)]
struct Description;

struct TokenSchemes;

impl Modify for TokenSchemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = |text: &str| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text));
            SecurityScheme::Http(scheme.build())
        };
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("admin", bearer("The operator's token"));
        components.add_security_scheme("shop", bearer("The shop's token: may confirm orders"));
    }
}

/// A JSON response.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("strings and numbers become JSON");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_that_shows_nothing() {
        let response = whatever_happens(async { panic!("the inside") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("/problems/internal"), "{text}");
        assert!(!text.contains("the inside") && text.contains("\"effect\":\"unknown\""), "{text}");
    }
}
