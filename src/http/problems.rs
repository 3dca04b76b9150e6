//! Turns outcomes and errors into statuses: the one table of everything that is not a plain yes (RFC 9457).
//!
//! Business outcomes have a constructor each. A failed machine becomes 503 with the effect it may have had; only damage
//! and a panic become 500, and neither shows its inside.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::Fault;
use crate::model::{Effect, Error, OrderRecord, Sku, Time, Units};

/// After so many seconds a refused client may ask again.
const RETRY_SECONDS: u32 = 1;

/// A kind of problem: what its page says.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) slug: &'static str,
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) meaning: &'static str,
    pub(super) remedy: &'static str,
}

macro_rules! kinds {
    ($($name:ident: $status:ident $slug:literal $title:literal $meaning:literal $remedy:literal)*) => {
        $(const $name: Kind = Kind {
            slug: $slug,
            status: StatusCode::$status,
            title: $title,
            meaning: $meaning,
            remedy: $remedy,
        };)*
        /// Every kind of problem.
        pub(super) const KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    SOLD_OUT: CONFLICT "sold-out" "Sold out"
        "There are too few units left for this order, and it took none."
        "If `may_return` is true, units are held by others and may come back: ask again after `Retry-After` with the same idempotency key. Otherwise only a smaller order or more stock helps."
    CUSTOMER_LIMIT: CONFLICT "customer-limit" "Limit per customer reached"
        "The customer would hold and own more units than the sale allows one customer."
        "Order at most `limit` minus `used` units, or cancel an order that is held."
    SALE_NOT_OPEN: CONFLICT "sale-not-open" "The sale has not begun"
        "The sale sells from `opens_at` on; if that is null, its operator opens it by hand."
        "Ask again at `opens_at`, with the same idempotency key."
    SALE_PAUSED: CONFLICT "sale-paused" "The sale is paused"
        "The operator has paused the sale. What is held stays held."
        "Ask again later with the same idempotency key."
    SALE_ENDED: GONE "sale-ended" "The sale is over"
        "The sale sells nothing any more."
        "Nothing will change this."
    HOLD_LAPSED: GONE "hold-lapsed" "The hold has lapsed"
        "The order was not confirmed in time, and its units are available again."
        "Place a new order under a new idempotency key."
    WRONG_STATE: CONFLICT "wrong-state" "Not in this state"
        "What the request asks for is impossible in the present `state` of the order or sale."
        "Read it again, and decide anew."
    SALE_EXISTS: CONFLICT "sale-exists" "There is such a sale"
        "A sale of this id was created before; nothing was changed."
        "Read it at `/v1/sales/{id}`, or choose another id."
    STOCK_COMMITTED: CONFLICT "stock-committed" "The stock is not free"
        "Fewer units are available than were to be withdrawn: the others are held or sold."
        "Withdraw fewer, or pause the sale and wait for holds to lapse."
    KEY_MISSING: BAD_REQUEST "idempotency-key-missing" "No idempotency key"
        "The request needs exactly one header `Idempotency-Key` of 1 to 128 printable ASCII characters."
        "Send a fresh random key, such as a UUID, and the same one with every retry."
    KEY_REUSED: UNPROCESSABLE_ENTITY "idempotency-key-reused" "Idempotency key used before"
        "Another request was made under this key, with another body."
        "A new wish needs a new key; a retry needs the same body."
    INVALID: UNPROCESSABLE_ENTITY "invalid-request" "Invalid request"
        "The request does not say what it has to: status 400 if it cannot be read as JSON, or does not name its host once, 422 if `errors` lists what is wrong and where (`pointer` is a JSON pointer into the body)."
        "Correct every entry of `errors` and send it again."
    TOO_LARGE: PAYLOAD_TOO_LARGE "body-too-large" "The body is too large"
        "A request's body has at most 64 KiB."
        "Send less."
    MEDIA_TYPE: UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "Not JSON"
        "The body has to be JSON, and the request has to say so."
        "Send `Content-Type: application/json`."
    TIMEOUT: REQUEST_TIMEOUT "request-timeout" "The body did not come in time"
        "The body was announced and did not arrive in time, so the connection is closed."
        "Send it again, with the same idempotency key."
    NOT_FOUND: NOT_FOUND "not-found" "No such thing"
        "There is nothing of this name, or not for you."
        "Check the address; `/docs` lists them all."
    METHOD: METHOD_NOT_ALLOWED "method-not-allowed" "Not with this method"
        "The address exists and does not take this method."
        "Use one of the methods in the header `Allow`."
    UNAUTHORIZED: UNAUTHORIZED "unauthorized" "Who is asking?"
        "The request needs a token, and has none or a wrong one."
        "Send `Authorization: Bearer …` with the token that the server printed at its start, or that its operator gave you."
    FORBIDDEN: FORBIDDEN "forbidden" "Not allowed"
        "The token is good and does not allow this, or the request comes from a page of another origin."
        "Use the admin token, from the server's own console or outside a browser."
    RATE_LIMITED: TOO_MANY_REQUESTS "rate-limited" "Too fast"
        "Too many requests of this sort came lately."
        "Wait for `Retry-After`."
    OVERLOADED: SERVICE_UNAVAILABLE "overloaded" "Overloaded"
        "More work is waiting than may wait. This never means sold out."
        "Ask again after `Retry-After` with the same idempotency key."
    UNAVAILABLE: SERVICE_UNAVAILABLE "unavailable" "Not available now"
        "Something this answer depends on is down, loading or stopping. This never means sold out."
        "Ask again after `Retry-After` with the same idempotency key: if the first request did something, its answer comes back, and nothing is done twice."
    INTERNAL: INTERNAL_SERVER_ERROR "internal" "A fault of the server"
        "The server met something that must not happen, and noted it in its log."
        "Ask again with the same idempotency key; if it stays so, tell the operator."
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: &'static Kind,
    status: StatusCode,
    effect: Effect,
    detail: String,
    more: Box<More>,
}

/// What only some kinds have.
#[derive(Debug, Clone, Default)]
struct More {
    members: Members,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// How a problem is written (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// `/problems/` and the slug; a page of this server.
    #[serde(rename = "type")]
    #[schema(example = "/problems/sold-out")]
    kind: String,
    title: &'a str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    detail: &'a str,
    /// `none`: nothing happened. `unknown`: ask again with the same idempotency key.
    #[schema(value_type = String, example = "none")]
    effect: Effect,
    #[serde(flatten)]
    #[schema(inline)]
    members: &'a Members,
}

/// Members that only some kinds of problems have.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
struct Members {
    /// Of which there are too few.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    sku: Option<Sku>,
    /// Whether units are held, so that some may come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    may_return: Option<bool>,
    /// Units that one customer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    limit: Option<Units>,
    /// Units that this customer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    used: Option<Units>,
    /// When the sale opens; null if its operator opens it by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Option<Time>>,
    /// When the hold lapsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    /// The present state of the order or sale.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// Everything that is wrong with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Fault>>,
}

impl Problem {
    fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, status: kind.status, effect: Effect::None, detail: detail.into(), more: Box::default() }
    }

    fn with(mut self, members: Members) -> Self {
        self.more.members = members;
        self
    }

    fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.more.headers.push((name, value.into()));
        self
    }

    fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Too few units.
    pub fn sold_out(sku: &Sku, may_return: bool) -> Self {
        let come_back = if may_return { "; some are only held and may come back" } else { "" };
        let detail = format!("Fewer units of {sku} are available than were ordered{come_back}.");
        let problem = Self::new(&SOLD_OUT, detail).with(Members {
            sku: Some(sku.clone()),
            may_return: Some(may_return),
            ..Members::default()
        });
        if may_return { problem.header(RETRY_AFTER, RETRY_SECONDS) } else { problem }
    }

    /// The customer would have too many.
    pub fn customer_limit(limit: Units, used: Units) -> Self {
        let detail = format!("One customer may have {} units in this sale; this one has {}.", limit.get(), used.get());
        Self::new(&CUSTOMER_LIMIT, detail).with(Members { limit: Some(limit), used: Some(used), ..Members::default() })
    }

    /// The sale has not begun.
    pub fn sale_not_open(opens_at: Option<Time>) -> Self {
        let detail = match opens_at {
            Some(time) => format!("The sale opens at {time}."),
            None => "The sale has no opening time yet.".into(),
        };
        Self::new(&SALE_NOT_OPEN, detail).with(Members { opens_at: Some(opens_at), ..Members::default() })
    }

    /// The sale sells nothing for now.
    pub fn sale_paused() -> Self {
        Self::new(&SALE_PAUSED, "The operator has paused the sale.")
    }

    /// The sale is over.
    pub fn sale_ended() -> Self {
        Self::new(&SALE_ENDED, "The sale is over.")
    }

    /// The hold ran out before it was confirmed.
    pub fn hold_lapsed(record: &OrderRecord) -> Self {
        let detail = "The order was not confirmed in time; its units are available again.";
        Self::new(&HOLD_LAPSED, detail).with(Members { expires_at: record.expires_at, ..Members::default() })
    }

    /// The order or sale is in no state for it.
    pub fn wrong_state(what: &str, state: &str, verb: &str) -> Self {
        let members = Members { state: Some(state.into()), ..Members::default() };
        Self::new(&WRONG_STATE, format!("The {what} is {state}: it cannot {verb}.")).with(members)
    }

    /// A sale of this id exists.
    pub fn sale_exists(id: &impl std::fmt::Display) -> Self {
        Self::new(&SALE_EXISTS, format!("There is a sale {id} already."))
    }

    /// Too few available units to withdraw.
    pub fn stock_committed(sku: &Sku) -> Self {
        Self::new(&STOCK_COMMITTED, format!("Fewer units of {sku} are available."))
            .with(Members { sku: Some(sku.clone()), ..Members::default() })
    }

    /// No usable idempotency key.
    pub fn key_missing() -> Self {
        Self::new(&KEY_MISSING, "Send one header Idempotency-Key of 1 to 128 printable ASCII characters.")
    }

    /// The key belongs to another request.
    pub fn key_reused() -> Self {
        Self::new(&KEY_REUSED, "Another request was made under this idempotency key.")
    }

    /// The body cannot be read as JSON.
    pub fn not_json(why: impl std::fmt::Display) -> Self {
        let mut problem = Self::invalid(vec![Fault::body(format!("cannot be read as JSON: {why}"))]);
        problem.status = StatusCode::BAD_REQUEST;
        problem
    }

    /// The body is no form.
    pub fn not_form(why: impl std::fmt::Display) -> Self {
        let mut problem = Self::invalid(vec![Fault::body(format!("not a form: {why}"))]);
        problem.status = StatusCode::BAD_REQUEST;
        problem
    }

    /// No host, or several.
    pub fn no_host() -> Self {
        let mut problem = Self::new(&INVALID, "A request of HTTP/1.1 has exactly one header Host.").closing();
        problem.status = StatusCode::BAD_REQUEST;
        problem
    }

    /// Everything that is wrong with the request.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [only] => only.to_string(),
            several => format!("{} things are wrong with the request, see `errors`.", several.len()),
        };
        Self::new(&INVALID, detail).with(Members { errors: Some(faults), ..Members::default() })
    }

    /// The body passes its limit.
    pub fn too_large(bytes_max: usize) -> Self {
        Self::new(&TOO_LARGE, format!("A body has at most {bytes_max} bytes."))
    }

    /// The body is announced as something else than JSON.
    pub fn media_type() -> Self {
        Self::new(&MEDIA_TYPE, "Send the body as Content-Type: application/json.")
    }

    /// The body took too long.
    pub fn timeout() -> Self {
        Self::new(&TIMEOUT, "The body did not arrive in time.").closing()
    }

    /// Nothing of this name.
    pub fn not_found(what: &str) -> Self {
        Self::new(&NOT_FOUND, format!("There is no such {what}."))
    }

    /// Not with this method; the router adds `Allow`.
    pub fn method() -> Self {
        Self::new(&METHOD, "This address does not take this method, see the header Allow.")
    }

    /// No token, or a wrong one.
    pub fn unauthorized(given: bool) -> Self {
        let (detail, challenge) = match given {
            false => ("This needs a token.", "Bearer"),
            true => ("This token is unknown.", "Bearer error=\"invalid_token\""),
        };
        Self::new(&UNAUTHORIZED, detail).header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// A good token that may not do this.
    pub fn forbidden() -> Self {
        Self::new(&FORBIDDEN, "This token does not allow it.")
    }

    /// A page of another origin asks.
    pub fn foreign_origin() -> Self {
        Self::new(&FORBIDDEN, "A page of another origin may not do this.")
    }

    /// Too many of a sort.
    pub fn rate_limited(retry_seconds: u32) -> Self {
        Self::new(&RATE_LIMITED, "Too many requests with a wrong token.").header(RETRY_AFTER, retry_seconds)
    }

    /// More is waiting than may wait.
    pub fn overloaded() -> Self {
        Self::new(&OVERLOADED, "Too much is waiting.").header(RETRY_AFTER, RETRY_SECONDS)
    }

    /// More connections are open than may be.
    pub fn too_many_connections() -> Self {
        Self::new(&OVERLOADED, "Too many connections are open.").header(RETRY_AFTER, RETRY_SECONDS).closing()
    }

    /// Not now.
    pub fn unavailable(effect: Effect) -> Self {
        let detail = match effect {
            Effect::None => "Not now; nothing happened.",
            Effect::Unknown => "What became of the request is unknown; ask again with the same idempotency key.",
        };
        Self::new(&UNAVAILABLE, detail).header(RETRY_AFTER, RETRY_SECONDS).effect(effect)
    }

    /// The server is stopping.
    pub fn stopping() -> Self {
        Self::new(&UNAVAILABLE, "This server is stopping.").header(RETRY_AFTER, RETRY_SECONDS).closing()
    }

    /// Something that must not happen.
    pub fn internal() -> Self {
        Self::new(&INTERNAL, "The server met something that must not happen.").effect(Effect::Unknown)
    }

    fn closing(self) -> Self {
        self.header(axum::http::header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Whether the server is to blame.
    pub fn is_fault(&self) -> bool {
        self.status.is_server_error()
    }

    /// The status under which it is sent.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in a sentence.
    pub fn into_detail(self) -> String {
        self.detail
    }

    /// The body, as it is sent.
    pub fn body(&self) -> Bytes {
        let (kind, status) = (format!("/problems/{}", self.kind.slug), self.status.as_u16());
        let Problem { detail, effect, more, .. } = self;
        let body =
            ProblemBody { kind, title: self.kind.title, status, detail, effect: *effect, members: &more.members };
        serde_json::to_vec(&body).expect("strings and numbers become JSON").into()
    }

    /// The response with a body that [`Problem::body`] gave before.
    pub fn respond(&self, body: Bytes) -> Response {
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &self.more.headers {
            headers.insert(name, value.clone());
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(self.body())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Unavailable { effect, .. } => {
                tracing::warn!(%error, "answered 503");
                Problem::unavailable(*effect)
            }
            Error::Overloaded(_) => Problem::overloaded(),
            Error::Damaged(..) => {
                tracing::error!(%error, "answered 500");
                Problem::internal()
            }
        }
    }
}
