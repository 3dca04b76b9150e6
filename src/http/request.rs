//! What handlers take from a request besides its body's members: whose path it is, the idempotency key, how long to wait,
//! the bytes of the body.

use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::Api;
use super::problems::Problem;
use crate::model::{OrderId, SaleId, Sku, limits};

/// The sale in the path. A malformed id is as unknown as any other.
pub(super) struct OfSale(pub(super) SaleId);

/// The order in the path.
pub(super) struct OfOrder(pub(super) OrderId);

/// The sale and the SKU in the path.
pub(super) struct OfItem(pub(super) SaleId, pub(super) Sku);

/// The header `Idempotency-Key`.
pub(super) struct Key(pub(super) String);

/// The header `Prefer: wait=N` (RFC 7240).
#[derive(Clone, Copy)]
pub(super) struct Patience(pub(super) Option<u64>);

/// The whole body, which is JSON or empty.
pub(super) struct JsonBytes(pub(super) Bytes);

impl FromRequestParts<Arc<Api>> for OfSale {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        known(path, "sale", |text| SaleId::from_str(text)).map(OfSale)
    }
}

impl FromRequestParts<Arc<Api>> for OfOrder {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        known(path, "order", |text| OrderId::from_str(text)).map(OfOrder)
    }
}

impl FromRequestParts<Arc<Api>> for OfItem {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, api).await;
        known(path, "item", |(sale, sku)| Ok((sale.parse()?, sku.parse()?))).map(|(sale, sku)| OfItem(sale, sku))
    }
}

fn known<T, U>(
    path: Result<Path<T>, PathRejection>,
    what: &str,
    parse: impl FnOnce(&T) -> Result<U, crate::model::Invalid>,
) -> Result<U, Problem> {
    let unknown = || Problem::not_found(what);
    let Path(text) = path.map_err(|_| unknown())?;
    parse(&text).map_err(|_| unknown())
}

impl Key {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut keys = headers.get_all("idempotency-key").iter();
        let (Some(key), None) = (keys.next(), keys.next()) else { return Err(Problem::key_missing()) };
        Key::read(key.as_bytes()).map(|key| Key(key.to_owned())).ok_or_else(Problem::key_missing)
    }

    /// The key in a header's value, if it is one.
    pub(super) fn read(value: &[u8]) -> Option<&str> {
        let printable = |byte: &u8| (b' '..=b'~').contains(byte);
        let good = (1..=limits::TEXT_BYTES_MAX).contains(&value.len()) && value.iter().all(printable);
        std::str::from_utf8(value).ok().filter(|_| good)
    }
}

impl FromRequestParts<Arc<Api>> for Key {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _api: &Arc<Api>) -> Result<Self, Problem> {
        Key::of(&parts.headers)
    }
}

impl Patience {
    /// What a client prefers that nobody understands is passed over, as the RFC has it.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let mut preferences = values.flat_map(|value| value.split([',', ';']));
        let seconds = preferences.find_map(|preference| {
            let (name, value) = preference.split_once('=')?;
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("wait") { value.parse::<u64>().ok() } else { None }
        });
        Patience(seconds.map(|seconds| seconds.min(limits::WAIT_SECONDS_MAX)))
    }

    /// How long to wait at most.
    pub(super) fn time(self) -> Option<Duration> {
        self.0.map(Duration::from_secs)
    }

    /// The header `Preference-Applied`.
    pub(super) fn applied(self) -> Option<HeaderValue> {
        self.0.and_then(|seconds| format!("wait={seconds}").parse().ok())
    }
}

impl FromRequestParts<Arc<Api>> for Patience {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _api: &Arc<Api>) -> Result<Self, Self::Rejection> {
        Ok(Patience::of(&parts.headers))
    }
}

impl JsonBytes {
    /// Reads the body within its limits of length and time.
    pub(super) async fn read(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, rest) = request.into_parts();
        let bytes = body(&parts.headers, rest, api).await?;
        if !bytes.is_empty() && !says_json(&parts.headers) {
            return Err(Problem::media_type());
        }
        Ok(JsonBytes(bytes))
    }
}

impl FromRequest<Arc<Api>> for JsonBytes {
    type Rejection = Problem;
    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        JsonBytes::read(request, api).await
    }
}

/// The bytes of a body, within the limits of length and time. A server that stops waits for none.
pub(super) async fn body(headers: &HeaderMap, body: Body, api: &Api) -> Result<Bytes, Problem> {
    let bytes_max = api.limits.body_bytes_max;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(Problem::too_large(bytes_max));
    }
    let body = pin!(tokio::time::timeout(api.limits.body_time_max, Limited::new(body, bytes_max).collect()));
    let read = match select(body, pin!(api.drained())).await {
        Either::Left((Ok(read), _)) => read,
        Either::Left((Err(_), _)) => return Err(Problem::timeout()),
        Either::Right(((), _)) => return Err(Problem::stopping()),
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large(bytes_max)),
        Err(error) => Err(Problem::not_json(format!("the body broke off ({error})"))),
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes()))
}

/// Whether a content type is JSON's, whatever its parameters.
pub(super) fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(prefer: &str) -> Option<u64> {
        let headers = HeaderMap::from_iter([("prefer".parse().expect("a name"), prefer.parse().expect("a value"))]);
        Patience::of(&headers).0
    }

    #[test]
    fn a_preference_to_wait_is_found_among_others() {
        assert_eq!(wait("wait=5"), Some(5));
        assert_eq!(wait("respond-async, Wait = \"7\""), Some(7));
        assert_eq!(wait("wait=4000"), Some(limits::WAIT_SECONDS_MAX));
        assert_eq!(wait("wait"), None);
        assert_eq!(wait("wait=-1, return=minimal"), None);
    }
}
