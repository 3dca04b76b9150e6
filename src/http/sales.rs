//! Sales: read by everyone, created and steered by the operator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use utoipa::ToSchema;

use super::fields::{self, Fields};
use super::live::Entry;
use super::problems::Problem;
use super::request::{JsonBytes, OfSale};
use super::shapes::{SaleJson, SaleListJson};
use super::{Api, json};
use crate::gate::GateView;
use crate::ledger::{Creation, MoveKind, SaleRecord, Steered};
use crate::model::{Item, Phase, Result, Sale, SaleId, SaleState, Seq, Sku, Time, Units, Verb, Window, limits};
use crate::reconcile;
use crate::shop::Shop;

/// How old a sale may be when the crowd reads it.
const READING_AGE_MAX: Duration = Duration::from_millis(100);
/// How far back the latest hold is looked for.
const LATEST_MOVES: usize = 200;

/// A sale as the crowd reads it.
pub(super) struct Sight {
    pub(super) record: SaleRecord,
    /// The gate's memory of it, if it has one.
    pub(super) view: Option<GateView>,
    /// When the last hold ends, if nothing is available and the latest hold is among the latest moves.
    pub(super) holds_end: Option<Time>,
}

/// All sales, newest first.
#[utoipa::path(
    get, path = "/v1/sales", tag = "sales", operation_id = "list_sales",
    responses(
        (status = 200, description = "All sales, newest first", body = SaleListJson),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let sights = api.readings.sights(&api.shop, None).await?;
    let now = api.shop.clock.now();
    let sales = sights.iter().map(|Sight { record, view, .. }| SaleJson::new(record, view.as_ref(), now)).collect();
    Ok(json(StatusCode::OK, &SaleListJson { sales }))
}

/// One sale as it is now.
#[utoipa::path(
    get, path = "/v1/sales/{sale}", tag = "sales", operation_id = "get_sale",
    params(("sale" = String, Path, description = "The sale's id")),
    responses(
        (status = 200, description = "The sale as it is now, up to 0.1 s old; `server_time` is exact", body = SaleJson),
        (status = "4XX", description = "Unknown", body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(State(api): State<Arc<Api>>, OfSale(id): OfSale) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("sale");
    // Only what exists is remembered, or else anybody could fill the memory.
    api.shop.sale(&id).await?.ok_or_else(unknown)?;
    let sights = api.readings.sights(&api.shop, Some(&id)).await?;
    let Sight { record, view, .. } = sights.first().ok_or_else(unknown)?;
    Ok(json(StatusCode::OK, &SaleJson::new(record, view.as_ref(), api.shop.clock.now())))
}

/// Create a sale. When this answers, the gate is loaded.
#[utoipa::path(
    post, path = "/v1/sales", tag = "operator", operation_id = "create_sale",
    request_body = NewSale, security(("admin" = [])),
    responses(
        (status = 201, description = "Created", body = SaleJson,
            headers(("Location" = String, description = "Where the sale is"))),
        (status = "4XX", description = "There is such a sale, or the request is wrong", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(State(api): State<Arc<Api>>, JsonBytes(body): JsonBytes) -> Result<Response, Problem> {
    let now = api.shop.clock.now();
    let new = fields::parse(&body, |sale| NewSale::read(sale, now))?;
    let stock: Vec<Units> = new.items.iter().map(|item| item.stock).collect();
    let chance = api.shop.clock.chance();
    let sale = new.into_sale(|| format!("sal_{chance:016x}"))?;
    let shop = api.shop.clone();
    let creation = api.detached(async move { create_and_load(&shop, &sale, &stock).await }).await?;
    let record = match creation {
        Creation::Created(record) => record,
        Creation::Exists(record) => return Err(Problem::sale_exists(&record.sale.id)),
    };
    api.readings.forget(&record.sale.id);
    let mut response = shown(&api, &record).await?;
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::try_from(format!("/v1/sales/{}", record.sale.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn create_and_load(shop: &Shop, sale: &Sale, stock: &[Units]) -> Result<Creation> {
    let creation = shop.ledger.create(sale, stock).await?;
    if matches!(creation, Creation::Created(_)) {
        // The sale exists: whatever fails from here on, the gate is loaded later.
        if let Err(error) = reconcile::ensure_loaded(shop, &sale.id).await {
            tracing::warn!(%error, sale = %sale.id, "the gate of a new sale is not loaded yet");
        }
    }
    Ok(creation)
}

/// Open a sale now, whatever `opens_at` said.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/open", tag = "operator", operation_id = "open_sale",
    params(("sale" = String, Path, description = "The sale's id")), security(("admin" = [])),
    request_body = Option<Steering>,
    responses(
        (status = 200, description = "It is so now", body = SaleJson),
        (status = "4XX", description = "Unknown, or in no state for it", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn open(api: State<Arc<Api>>, sale: OfSale, body: JsonBytes) -> Result<Response, Problem> {
    steer(api, sale, body, Verb::Open).await
}

/// Sell nothing until resumed. What is held stays held.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/pause", tag = "operator", operation_id = "pause_sale",
    params(("sale" = String, Path, description = "The sale's id")), security(("admin" = [])),
    request_body = Option<Steering>,
    responses(
        (status = 200, description = "It is so now", body = SaleJson),
        (status = "4XX", description = "Unknown, or in no state for it", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pause(api: State<Arc<Api>>, sale: OfSale, body: JsonBytes) -> Result<Response, Problem> {
    steer(api, sale, body, Verb::Pause).await
}

/// Sell again, within the window.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/resume", tag = "operator", operation_id = "resume_sale",
    params(("sale" = String, Path, description = "The sale's id")), security(("admin" = [])),
    request_body = Option<Steering>,
    responses(
        (status = 200, description = "It is so now", body = SaleJson),
        (status = "4XX", description = "Unknown, or in no state for it", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn resume(api: State<Arc<Api>>, sale: OfSale, body: JsonBytes) -> Result<Response, Problem> {
    steer(api, sale, body, Verb::Resume).await
}

/// End a sale for good. What is held may still be confirmed.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/close", tag = "operator", operation_id = "close_sale",
    params(("sale" = String, Path, description = "The sale's id")), security(("admin" = [])),
    request_body = Option<Steering>,
    responses(
        (status = 200, description = "It is so now", body = SaleJson),
        (status = "4XX", description = "Unknown", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn close(api: State<Arc<Api>>, sale: OfSale, body: JsonBytes) -> Result<Response, Problem> {
    steer(api, sale, body, Verb::Close).await
}

/// Why a sale is steered. An empty body is as good.
#[derive(ToSchema)]
#[schema(as = Steering)]
pub(super) struct Steering {
    /// Stands in the server's log.
    #[schema(min_length = 1, max_length = 200, example = "the lights went out")]
    reason: Option<String>,
}

/// Steers the sale; when this answers, the gate obeys.
async fn steer(
    State(api): State<Arc<Api>>,
    OfSale(sale): OfSale,
    JsonBytes(body): JsonBytes,
    verb: Verb,
) -> Result<Response, Problem> {
    let Steering { reason } = fields::parse(&body, |steering| {
        Some(Steering { reason: steering.optional("reason").and_then(|node| node.prose()) })
    })?;
    let (shop, id) = (api.shop.clone(), sale.clone());
    let steered = api.detached(async move {
        let steered = shop.ledger.steer(&id, verb).await?;
        if matches!(steered, Steered::Done(_)) {
            reconcile::catch_up(&shop, &id).await?;
        }
        Ok(steered)
    });
    let steered = steered.await?;
    api.readings.forget(&sale);
    if matches!(steered, Steered::Done(_)) {
        tracing::info!(%sale, verb = verb.word(), reason = reason.as_deref().unwrap_or("none given"), "steered");
        if let Some(reason) = reason {
            let entry = Entry::note(api.shop.clock.now(), steered_word(verb), format!("why: {reason}"));
            api.notes.add(Some(sale.clone()), entry);
        }
    }
    match steered {
        Steered::Done(record) => shown(&api, &record).await,
        Steered::WrongState(record) => {
            let state = state_word(record.sale.window.state(api.shop.clock.now()));
            Err(Problem::wrong_state("sale", state, verb.word()))
        }
        Steered::UnknownSale => Err(Problem::not_found("sale")),
    }
}

async fn shown(api: &Api, record: &SaleRecord) -> Result<Response, Problem> {
    let view = api.shop.gate.view(&record.sale.id).await?;
    Ok(json(StatusCode::OK, &SaleJson::new(record, view.as_ref(), api.shop.clock.now())))
}

fn steered_word(verb: Verb) -> &'static str {
    match verb {
        Verb::Open => "opened",
        Verb::Pause => "paused",
        Verb::Resume => "resumed",
        Verb::Close => "closed",
    }
}

fn state_word(state: SaleState) -> &'static str {
    match state {
        SaleState::Draft => "draft",
        SaleState::Scheduled => "scheduled",
        SaleState::Open => "open",
        SaleState::Paused => "paused",
        SaleState::Ended => "ended",
    }
}

/// A sale, as its operator asks for it.
#[derive(ToSchema)]
#[schema(as = NewSale)]
pub(super) struct NewSale {
    /// Chosen by the server if absent.
    #[schema(value_type = Option<String>, max_length = 64)]
    id: Option<SaleId>,
    #[schema(min_length = 1, max_length = 200, example = "Console launch")]
    name: String,
    /// Without it the sale is a draft until it is opened by hand; in the past, the sale is open at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    closes_at: Option<Time>,
    /// How long an order is held for its customer; 0 sells at once.
    #[schema(value_type = Option<u32>, default = 600, maximum = 2_592_000)]
    hold_seconds: u32,
    /// Units one customer may hold and own together; no limit if absent.
    #[schema(value_type = Option<u32>, minimum = 1)]
    per_customer_limit: Option<Units>,
    #[schema(min_items = 1, max_items = 64)]
    items: Vec<NewItem>,
}

/// An item of a new sale.
#[derive(ToSchema)]
#[schema(as = NewItem)]
pub(super) struct NewItem {
    #[schema(value_type = String, max_length = 64, example = "ps5")]
    sku: Sku,
    /// The SKU itself if absent.
    #[schema(value_type = Option<String>, max_length = 200)]
    name: String,
    /// Per unit, in the smallest unit of the currency.
    #[schema(value_type = Option<u64>, default = 0, maximum = 1_000_000_000_000_u64)]
    price_cents: u64,
    /// ISO 4217, three letters.
    #[schema(value_type = Option<String>, default = "USD", pattern = "^[A-Z]{3}$")]
    currency: String,
    #[schema(value_type = u32, maximum = 1_000_000_000, example = 1000)]
    stock: Units,
}

impl NewSale {
    fn read(sale: &mut Fields<'_>, now: Time) -> Option<Self> {
        let id = sale.optional("id").map(|node| node.text());
        let name = sale.required("name").and_then(|node| node.prose());
        let opens_at = sale.optional("opens_at").and_then(|node| node.text::<Time>());
        let closes_at = sale.optional("closes_at").and_then(|node| node.text::<Time>());
        if closes_at.is_some_and(|closes| closes <= opens_at.map_or(now, |opens| opens.max(now))) {
            sale.fault("closes_at", "must be later than opens_at, and not in the past");
        }
        let hold_seconds = sale.optional("hold_seconds").map(|node| node.count(0..=limits::HOLD_SECONDS_MAX));
        let limit = sale.optional("per_customer_limit").map(|node| node.count(1..=limits::STOCK_UNITS_MAX));
        let items = sale.required("items").and_then(|node| node.list(1..=limits::SALE_ITEMS_MAX))?;
        let items: Vec<_> = items.into_iter().map(|item| item.object(NewItem::read).unwrap_or_default()).collect();
        for index in fields::repeated(items.iter().map(|(sku, _)| sku)) {
            if items[index].0.is_some() {
                sale.fault(&format!("items/{index}/sku"), "stands in an earlier item already");
            }
        }
        Some(Self {
            id: id.unwrap_or(None),
            name: name?,
            opens_at,
            closes_at,
            hold_seconds: hold_seconds.unwrap_or(Some(600))?,
            per_customer_limit: limit.flatten().and_then(|count| Units::new(count).ok()),
            items: items.into_iter().map(|(_, item)| item).collect::<Option<_>>()?,
        })
    }

    fn into_sale(self, new_id: impl FnOnce() -> String) -> Result<Sale, Problem> {
        let id = match self.id {
            Some(id) => id,
            None => SaleId::new(&new_id()).map_err(|_| Problem::internal())?,
        };
        let phase = if self.opens_at.is_some() { Phase::Armed } else { Phase::Draft };
        let item = |NewItem { sku, name, price_cents, currency, .. }| Item { sku, name, price_cents, currency };
        Ok(Sale {
            id,
            name: self.name,
            window: Window { phase, opens_at: self.opens_at, closes_at: self.closes_at },
            hold_seconds: self.hold_seconds,
            per_customer_limit: self.per_customer_limit,
            items: self.items.into_iter().map(item).collect(),
        })
    }
}

impl NewItem {
    /// The item, and its SKU even if something else is wrong with it.
    fn read(item: &mut Fields<'_>) -> (Option<Sku>, Option<Self>) {
        let sku = item.required("sku").and_then(|node| node.text::<Sku>());
        let name = item.optional("name").map(|node| node.prose());
        let price_max = i64::try_from(limits::PRICE_CENTS_MAX).unwrap_or(i64::MAX);
        let price = item.optional("price_cents").map(|node| node.whole(0..=price_max));
        let currency = item.optional("currency").map(|node| node.text::<Currency>());
        let stock = item.required("stock").and_then(|node| node.count(0..=limits::STOCK_UNITS_MAX));
        let whole = || {
            let sku = sku.clone()?;
            Some(Self {
                name: name.unwrap_or_else(|| Some(sku.to_string()))?,
                price_cents: u64::try_from(price.unwrap_or(Some(0))?).ok()?,
                currency: currency.unwrap_or_else(|| Some(Currency("USD".into())))?.0,
                stock: Units::new(stock?).ok()?,
                sku,
            })
        };
        let new = whole();
        (sku, new)
    }
}

struct Currency(String);

impl std::str::FromStr for Currency {
    type Err = crate::model::Invalid;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 3 && text.chars().all(|c| c.is_ascii_uppercase()) {
            return Ok(Currency(text.into()));
        }
        Err(crate::model::Invalid("a currency has three capital letters (ISO 4217)".into()))
    }
}

/// Sales as the crowd reads them: one reading of the ledger and the gate serves everyone who asks in its short life.
#[derive(Default)]
pub(super) struct Readings(Mutex<HashMap<Option<SaleId>, Reading>>);

struct Reading {
    since: Duration,
    sights: Shared<BoxFuture<'static, Result<Arc<Vec<Sight>>>>>,
}

impl Reading {
    fn is_fresh(&self, now: Duration) -> bool {
        let under_way = self.sights.peek().is_none();
        under_way || now.saturating_sub(self.since) < READING_AGE_MAX
    }
}

impl Readings {
    /// One sale, or all of them.
    pub(super) async fn sights(&self, shop: &Arc<Shop>, sale: Option<&SaleId>) -> Result<Arc<Vec<Sight>>> {
        let now = shop.clock.monotonic();
        let sights = {
            let mut readings = self.0.lock().expect("no holder panics");
            let begin = || Reading { since: now, sights: sight(shop.clone(), sale.cloned()).boxed().shared() };
            let reading = readings.entry(sale.cloned()).or_insert_with(begin);
            if !reading.is_fresh(now) {
                *reading = begin();
            }
            reading.sights.clone()
        };
        sights.await
    }

    /// Reads this sale anew from now on.
    fn forget(&self, sale: &SaleId) {
        let mut readings = self.0.lock().expect("no holder panics");
        readings.remove(&None);
        readings.remove(&Some(sale.clone()));
    }
}

async fn sight(shop: Arc<Shop>, sale: Option<SaleId>) -> Result<Arc<Vec<Sight>>> {
    let one = sale.is_some();
    let records = match sale {
        Some(sale) => shop.ledger.sale(&sale).await?.into_iter().collect(),
        None => shop.ledger.sales().await?,
    };
    let mut sights = Vec::with_capacity(records.len());
    for record in records {
        let view = shop.gate.view(&record.sale.id).await?;
        let holds_end = if one { holds_end(&shop, &record).await } else { None };
        sights.push(Sight { record, view, holds_end });
    }
    Ok(Arc::new(sights))
}

/// When the last hold ends, if somebody waits for that: all last equally long, so the latest to begin is the last to end.
async fn holds_end(shop: &Shop, record: &SaleRecord) -> Option<Time> {
    if !record.places.iter().any(|places| places.available == Units::ZERO && places.held > Units::ZERO) {
        return None;
    }
    let after = Seq(record.watermark.0.saturating_sub(LATEST_MOVES as u64));
    let latest = shop.ledger.journal(&record.sale.id, after, LATEST_MOVES).await.ok()?;
    let began = latest.iter().rev().find(|step| matches!(step.kind, MoveKind::Hold))?;
    record.sale.hold_ends(began.at)
}
