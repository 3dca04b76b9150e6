//! Orders: placed by the crowd, read and cancelled by whoever shows their id, confirmed by the shop.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, select};
use serde::Deserialize;
use utoipa::ToSchema;

use super::fields::{self, Fields, Node};
use super::lane::{Answer, Ready};
use super::live::Tally;
use super::metrics::{Decisions, Outcome};
use super::problems::Problem;
use super::request::{JsonBytes, Key, OfOrder, OfSale, Patience};
use super::shapes::OrderJson;
use super::{Api, json};
use crate::checkout::{self, Placement};
use crate::clock::Clock;
use crate::gate::Refusal;
use crate::ledger::{Turn, Turned};
use crate::model::{
    Customer, Effect, Line, Order, OrderId, OrderRecord, OrderState, Reason, Sale, SaleId, Sku, Units, limits,
};

/// How long a confirmation or cancellation waits for an order that is still on its way.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);

static SLUICE_SEQ: HeaderName = HeaderName::from_static("sluice-seq");
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A customer's wish.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOrder)]
pub(super) struct NewOrder<'a> {
    /// Who orders, in the shop's own words.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 128, example = "c-1")]
    customer: Cow<'a, str>,
    /// No SKU twice; all or nothing.
    #[serde(borrow)]
    #[schema(min_items = 1, max_items = 16)]
    lines: Vec<NewLine<'a>>,
}

/// Units of one SKU.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewLine)]
pub(super) struct NewLine<'a> {
    #[serde(borrow)]
    #[schema(value_type = String, example = "ps5")]
    sku: Cow<'a, str>,
    #[schema(minimum = 1, maximum = 10_000)]
    quantity: u32,
}

/// Place an order. The same request under the same key leads to the same order.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/orders", tag = "orders", operation_id = "place_order",
    params(
        ("sale" = String, Path, description = "The sale's id"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 printable characters, fresh for every wish"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when settled, after at most N (30) seconds"),
    ),
    request_body = NewOrder,
    responses(
        (status = 202, description = "Accepted: it will be held or sold, whatever crashes", body = OrderJson,
            headers(("Location" = String, description = "Where the order is"))),
        (status = 201, description = "Settled (with `Prefer: wait`)", body = OrderJson, headers(
            ("Location" = String, description = "Where the order is"),
            ("Sluice-Seq" = u64, description = "The journal's number of its latest move"))),
        (status = 200, description = "A retry: the order as it is now", body = OrderJson,
            headers(("Idempotent-Replayed" = bool, description = "`true`"))),
        (status = "4XX", description = "Sold out, limit reached, not open, ended; or the request is wrong",
            body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now: ask again with the same key",
            body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn place(State(api): State<Arc<Api>>, OfSale(sale): OfSale, request: Request) -> Response {
    let started = api.shop.clock.monotonic();
    let answered = place_in(&api, sale.as_str(), request).await;
    let now = api.shop.clock.monotonic();
    answered.count(now, now.saturating_sub(started)).response()
}

/// The same for whoever has read no more than the head.
pub(super) async fn place_in(api: &Arc<Api>, sale: &str, request: Request) -> Placed {
    let read = async {
        let (key, patience) = (Key::of(request.headers())?, Patience::of(request.headers()));
        Ok((key, patience, JsonBytes::read(request, api).await?))
    };
    match api.stall(sale).await {
        Err(problem) => problem.into(),
        Ok(stall) if api.is_draining() => Placed::turned_down(stall, Problem::stopping()),
        Ok(stall) => match read.await {
            // It may have taken its time.
            Ok(_) if api.is_draining() => Placed::turned_down(stall, Problem::stopping()),
            Ok((Key(key), patience, JsonBytes(body))) => {
                let asked = Asked { caller: Caller::MayGo, key: &key, patience, body: &body };
                place_at(api, stall, &asked).await
            }
            Err(problem) => Placed::turned_down(stall, problem),
        },
    }
}

/// Whether somebody may stop waiting for an answer before it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The request is dropped when its client hangs up, as hyper does.
    MayGo,
    /// A connection of the crowd's lane sees every request through.
    Stays,
}

/// A request to order that has been read.
pub(super) struct Asked<'a> {
    pub(super) caller: Caller,
    pub(super) key: &'a str,
    pub(super) patience: Patience,
    pub(super) body: &'a [u8],
}

/// The way of most requests there are, which is why it has no layers around it.
pub(super) async fn place_asked(api: &Arc<Api>, sale: &str, asked: &Asked<'_>) -> Placed {
    match api.stall(sale).await {
        Err(problem) => problem.into(),
        Ok(stall) if api.is_draining() => Placed::turned_down(stall, Problem::stopping()),
        Ok(stall) => place_at(api, stall, asked).await,
    }
}

async fn place_at(api: &Arc<Api>, stall: Arc<Stall>, asked: &Asked<'_>) -> Placed {
    match decide(api, &stall, asked).await {
        Ok((outcome, answer)) => Placed { answer, by: Some((stall, outcome)) },
        Err(problem) => Placed::turned_down(stall, problem),
    }
}

/// An answer to a request to order, and by which stall it is to be counted as what.
pub(super) struct Placed {
    pub(super) answer: Answer,
    by: Option<(Arc<Stall>, Outcome)>,
}

impl Placed {
    fn turned_down(stall: Arc<Stall>, problem: Problem) -> Self {
        let outcome = outcome_of(&problem);
        Self { answer: Answer::Made(problem.into_response()), by: Some((stall, outcome)) }
    }

    /// Counts the answer, which was ready at this moment and took so long, and hands it over.
    pub(super) fn count(self, now: Duration, took: Duration) -> Answer {
        if let Some((stall, outcome)) = self.by {
            stall.record(outcome, now, took);
        }
        self.answer
    }
}

/// An answer of no sale.
impl From<Problem> for Placed {
    fn from(problem: Problem) -> Self {
        Self { answer: Answer::Made(problem.into_response()), by: None }
    }
}

async fn decide(api: &Arc<Api>, stall: &Stall, asked: &Asked<'_>) -> Result<(Outcome, Answer), Problem> {
    let placement = ordered(api, stall, asked.key, asked.body, asked.caller).await?;
    answer(api, stall, placement, asked.patience).await
}

/// Places what this body wishes, under this key.
pub(super) async fn ordered(
    api: &Arc<Api>,
    stall: &Stall,
    key: &str,
    body: &[u8],
    caller: Caller,
) -> Result<Placement, Problem> {
    let sale = &stall.sale;
    let (customer, lines) = wish(sale, body)?;
    let id = api.shop.mint.id("order", &sale.id, customer.as_str(), key);
    let order = Order { id, sale: sale.id.clone(), customer, lines, accepted_at: api.shop.clock.now() };
    if let Some(refusal) = checkout::refuse(&api.shop, &order).await? {
        return Ok(Placement::Refused(refusal));
    }
    let shop = api.shop.clone();
    let place = async move { checkout::place(&shop, Arc::new(order)).await };
    match caller {
        Caller::MayGo => api.detached(place).await,
        Caller::Stays => Ok(Box::pin(place).await?),
    }
}

fn outcome_of(problem: &Problem) -> Outcome {
    if problem.is_fault() { Outcome::Unavailable } else { Outcome::Invalid }
}

async fn answer(
    api: &Api,
    stall: &Stall,
    placement: Placement,
    patience: Patience,
) -> Result<(Outcome, Answer), Problem> {
    let made = Answer::Made;
    Ok(match placement {
        Placement::Accepted(record) => (Outcome::Accepted, made(accepted(api, record, patience).await)),
        Placement::Repeat(record) => (Outcome::Repeated, made(repeated(api, record, patience).await)),
        Placement::KeyReused => (Outcome::KeyReused, made(Problem::key_reused().into_response())),
        Placement::Refused(refusal) => refused(stall, refusal),
        Placement::UnknownSale => return Err(Problem::not_found("sale")),
        Placement::Unavailable(effect) => return Err(Problem::unavailable(effect)),
    })
}

fn refused(stall: &Stall, refusal: Refusal) -> (Outcome, Answer) {
    let (outcome, problem) = match refusal {
        Refusal::SoldOut { sku, may_return } => return (Outcome::SoldOut, stall.sold_out(&sku, may_return)),
        Refusal::LimitReached { limit, used } => (Outcome::Limit, Problem::customer_limit(limit, used)),
        Refusal::NotOpen { opens_at } => (Outcome::NotOpen, Problem::sale_not_open(opens_at)),
        Refusal::Paused => (Outcome::Paused, Problem::sale_paused()),
        Refusal::Ended => (Outcome::Ended, Problem::sale_ended()),
    };
    (outcome, Answer::Made(problem.into_response()))
}

/// An accepted order, or what was decided on it while its client waited. Whatever fails in the meantime, it is accepted.
async fn accepted(api: &Api, record: OrderRecord, patience: Patience) -> Response {
    let record = waited(api, record, patience).await;
    let mut response = match (record.state, record.reason) {
        (OrderState::Accepted, _) => order(StatusCode::ACCEPTED, &record, patience),
        (OrderState::Refused, Some(Reason::CustomerLimit)) => {
            let limit = api.shop.sale(&record.order.sale).await.ok().flatten().and_then(|sale| sale.per_customer_limit);
            let limit = limit.unwrap_or(Units::ZERO);
            return Problem::customer_limit(limit, limit).into_response();
        }
        (OrderState::Refused, _) => return Problem::sold_out(&record.order.lines[0].sku, false).into_response(),
        (OrderState::Held | OrderState::Sold | OrderState::Released, _) => {
            order(StatusCode::CREATED, &record, patience)
        }
    };
    if let Ok(location) = format!("/v1/orders/{}", record.order.id).parse() {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn repeated(api: &Api, record: OrderRecord, patience: Patience) -> Response {
    let record = waited(api, record, patience).await;
    let mut response = order(StatusCode::OK, &record, patience);
    response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The order once it is settled, or as it is when its client, or this server, waits no longer.
async fn waited(api: &Api, record: OrderRecord, patience: Patience) -> OrderRecord {
    let Some(time) = patience.time().filter(|_| record.state == OrderState::Accepted) else { return record };
    match find_settled(api, record.order.id, time).await {
        Ok(Some(settled)) => settled,
        Ok(None) | Err(_) => record,
    }
}

async fn find_settled(api: &Api, id: OrderId, time: Duration) -> Result<Option<OrderRecord>, Problem> {
    let settled = std::pin::pin!(checkout::find_settled(&api.shop, id, time));
    let draining = std::pin::pin!(api.drained());
    match select(settled, draining).await {
        Either::Left((found, _)) => Ok(found?),
        Either::Right(_) => Ok(checkout::find(&api.shop, id).await?),
    }
}

/// The order, with the journal's number once it is settled.
fn order(status: StatusCode, record: &OrderRecord, patience: Patience) -> Response {
    let mut response = json(status, &OrderJson::from(record));
    let headers = response.headers_mut();
    if let Some(seq) = record.seq {
        headers.insert(&SLUICE_SEQ, seq.0.into());
    }
    if let Some(applied) = patience.applied() {
        headers.insert(&APPLIED, applied);
    }
    response
}

/// Reads an order whose sale is known. The strict reading is cheap; only what fails it is read again field by field, to
/// name everything that is wrong.
fn wish(sale: &Sale, body: &[u8]) -> Result<(Customer, Vec<Line>), Problem> {
    match serde_json::from_slice::<NewOrder<'_>>(body).ok().and_then(|wish| strict(sale, &wish)) {
        Some(wish) => Ok(wish),
        None => fields::parse(body, |order| careful(sale, order)),
    }
}

fn strict(sale: &Sale, wish: &NewOrder<'_>) -> Option<(Customer, Vec<Line>)> {
    let customer = Customer::new(&wish.customer).ok()?;
    let mut lines: Vec<Line> = Vec::with_capacity(wish.lines.len().min(limits::ORDER_LINES_MAX));
    if !(1..=limits::ORDER_LINES_MAX).contains(&wish.lines.len()) {
        return None;
    }
    for NewLine { sku, quantity } in &wish.lines {
        let item = sale.items.iter().find(|item| item.sku.as_str() == sku)?;
        let repeated = lines.iter().any(|line| line.sku == item.sku);
        if repeated || !(1..=line_units_max(sale)).contains(quantity) {
            return None;
        }
        lines.push(Line { sku: item.sku.clone(), quantity: Units::new(*quantity).ok()? });
    }
    Some((customer, lines))
}

/// More than this of one SKU no customer could ever have.
fn line_units_max(sale: &Sale) -> u32 {
    let limit = sale.per_customer_limit.map_or(limits::LINE_UNITS_MAX, Units::get);
    limit.min(limits::LINE_UNITS_MAX)
}

fn careful(sale: &Sale, order: &mut Fields<'_>) -> Option<(Customer, Vec<Line>)> {
    let customer = order.required("customer").and_then(|node| node.text());
    let lines = order.required("lines").and_then(|node| node.list(1..=limits::ORDER_LINES_MAX))?;
    let read = |line: Node<'_>| line.object(|line| careful_line(sale, line)).unwrap_or_default();
    let lines: Vec<(Option<Sku>, Option<Units>)> = lines.into_iter().map(read).collect();
    for index in fields::repeated(lines.iter().map(|(sku, _)| sku)) {
        if lines[index].0.is_some() {
            order.fault(&format!("lines/{index}/sku"), "stands in an earlier line already");
        }
    }
    let lines = lines.into_iter().map(|(sku, quantity)| Some(Line { sku: sku?, quantity: quantity? }));
    Some((customer?, lines.collect::<Option<_>>()?))
}

fn careful_line(sale: &Sale, line: &mut Fields<'_>) -> (Option<Sku>, Option<Units>) {
    let sku = line.required("sku").and_then(|node| node.text::<Sku>());
    if sku.as_ref().is_some_and(|sku| sale.item(sku).is_none()) {
        line.fault("sku", "is not in this sale");
    }
    let quantity = line.required("quantity").and_then(|node| node.count(1..=line_units_max(sale)));
    (sku, quantity.and_then(|count| Units::new(count).ok()))
}

/// What orders of one sale need again and again: its items, its counters, its refusals as they are sent.
pub(super) struct Stall {
    sale: Arc<Sale>,
    decisions: Decisions,
    tally: Arc<Tally>,
    sold_out: Vec<[Arc<Ready>; 2]>,
}

/// The stalls of all sales that somebody ordered from.
#[derive(Default)]
pub(super) struct Stalls(RwLock<HashMap<SaleId, Arc<Stall>>>);

impl Stall {
    fn new(sale: Arc<Sale>, clock: &dyn Clock) -> Self {
        let both = |sku| [false, true].map(|may_return| Ready::of(&Problem::sold_out(sku, may_return)));
        let sold_out = sale.items.iter().map(|item| both(&item.sku)).collect();
        let tally = Arc::new(Tally::new(clock.monotonic(), clock.now()));
        Self { decisions: Decisions::of(&sale.id), tally, sold_out, sale }
    }

    fn record(&self, outcome: Outcome, now: Duration, took: Duration) {
        self.decisions.count(outcome);
        self.tally.record(outcome, now, took);
    }

    /// Counts what a request came to that is answered by a page; decided at this moment, after so long.
    pub(super) fn count(&self, placed: &Result<Placement, Problem>, now: Duration, took: Duration) {
        let outcome = match placed {
            Ok(Placement::Accepted(_)) => Outcome::Accepted,
            Ok(Placement::Repeat(_)) => Outcome::Repeated,
            Ok(Placement::KeyReused) => Outcome::KeyReused,
            Ok(Placement::Refused(Refusal::SoldOut { .. })) => Outcome::SoldOut,
            Ok(Placement::Refused(Refusal::LimitReached { .. })) => Outcome::Limit,
            Ok(Placement::Refused(Refusal::NotOpen { .. })) => Outcome::NotOpen,
            Ok(Placement::Refused(Refusal::Paused)) => Outcome::Paused,
            Ok(Placement::Refused(Refusal::Ended)) => Outcome::Ended,
            Ok(Placement::UnknownSale) => Outcome::Invalid,
            Ok(Placement::Unavailable(_)) => Outcome::Unavailable,
            Err(problem) => outcome_of(problem),
        };
        self.record(outcome, now, took);
    }

    fn sold_out(&self, sku: &Sku, may_return: bool) -> Answer {
        match self.sale.items.iter().position(|item| item.sku == *sku) {
            Some(index) => Answer::Ready(self.sold_out[index][usize::from(may_return)].clone()),
            None => Answer::Made(Problem::sold_out(sku, may_return).into_response()),
        }
    }
}

impl Api {
    pub(super) async fn stall(&self, sale: &str) -> Result<Arc<Stall>, Problem> {
        if let Some(stall) = self.stalls.0.read().expect("no holder panics").get(sale) {
            return Ok(stall.clone());
        }
        let unknown = || Problem::not_found("sale");
        let id = SaleId::new(sale).map_err(|_| unknown())?;
        let stall = Arc::new(Stall::new(self.shop.sale(&id).await?.ok_or_else(unknown)?, &*self.shop.clock));
        // Two that come first at the same moment count in the same stall.
        Ok(self.stalls.0.write().expect("no holder panics").entry(id).or_insert(stall).clone())
    }

    /// What this process answered to the orders of a sale; `None` if nobody ordered here.
    pub(super) fn tally(&self, sale: &SaleId) -> Option<Arc<Tally>> {
        self.stalls.0.read().expect("no holder panics").get(sale.as_str()).map(|stall| stall.tally.clone())
    }
}

/// Read an order. Its id is all one needs.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "orders", operation_id = "get_order",
    params(
        ("id" = String, Path, description = "The order's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when settled, after at most N (30) seconds"),
    ),
    responses(
        (status = 200, description = "The order as it is now", body = OrderJson,
            headers(("Sluice-Seq" = u64, description = "The journal's number of its latest move, once it is settled"))),
        (status = "4XX", description = "Unknown", body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    OfOrder(id): OfOrder,
    patience: Patience,
) -> Result<Response, Problem> {
    let found = match patience.time() {
        Some(time) => find_settled(&api, id, time).await?,
        None => checkout::find(&api.shop, id).await?,
    };
    let record = found.ok_or_else(|| Problem::not_found("order"))?;
    Ok(order(StatusCode::OK, &record, patience))
}

/// Turn a hold into a sale. Repeating it changes nothing.
#[utoipa::path(
    post, path = "/v1/orders/{id}/confirm", tag = "orders", operation_id = "confirm_order",
    params(("id" = String, Path, description = "The order's id")),
    security(("admin" = []), ("shop" = [])),
    responses(
        (status = 200, description = "Sold", body = OrderJson),
        (status = "4XX", description = "The hold has lapsed, or the order was cancelled or is unknown",
            body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn confirm(
    State(api): State<Arc<Api>>,
    OfOrder(id): OfOrder,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    turn(&api, id, Turn::Confirm, &body).await
}

/// Give a hold back. Repeating it changes nothing.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", tag = "orders", operation_id = "cancel_order",
    params(("id" = String, Path, description = "The order's id")),
    responses(
        (status = 200, description = "Released", body = OrderJson),
        (status = "4XX", description = "The order is sold or unknown", body = super::ProblemBody,
            content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    OfOrder(id): OfOrder,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    turn(&api, id, Turn::Cancel, &body).await
}

async fn turn(api: &Arc<Api>, id: OrderId, turn: Turn, body: &[u8]) -> Result<Response, Problem> {
    fields::parse(body, |_| Some(()))?;
    let turned = turned(api, id, turn).await?;
    let ok = |record: &OrderRecord| Ok(order(StatusCode::OK, record, Patience(None)));
    match (turned, turn) {
        (Turned::Done(record, _) | Turned::Already(record), _) => ok(&record),
        // Its units are back, which is what the holder wants.
        (Turned::Lapsed(record), Turn::Cancel) => ok(&record),
        (Turned::Lapsed(record), Turn::Confirm) => Err(Problem::hold_lapsed(&record)),
        (Turned::WrongState(record), Turn::Confirm) => Err(wrong_state(&record, "be confirmed")),
        (Turned::WrongState(record), Turn::Cancel) => Err(wrong_state(&record, "be cancelled")),
        (Turned::Unknown, _) => match checkout::find(&api.shop, id).await? {
            Some(_) => Err(Problem::unavailable(Effect::None)),
            None => Err(Problem::not_found("order")),
        },
    }
}

/// Confirms or cancels an order; one that is still on its way is waited for.
pub(super) async fn turned(api: &Arc<Api>, id: OrderId, turn: Turn) -> Result<Turned, Problem> {
    let shop = api.shop.clone();
    api.detached(async move { checkout::turn(&shop, id, turn, TURN_TIME_MAX).await }).await
}

fn wrong_state(record: &OrderRecord, verb: &str) -> Problem {
    Problem::wrong_state("order", record.state.word(), verb)
}
