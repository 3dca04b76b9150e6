//! Who is asking: tokens, hashed in memory and compared in constant time, and the guards in front of what they protect.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::Api;
use super::problems::Problem;

/// Requests with a wrong token that are let through to a 401 in one window; a guess is as good at any speed, but the
/// log is not.
const WRONG_TOKENS_MAX: u64 = 500;
/// The window.
const WRONG_TOKENS_WINDOW: Duration = Duration::from_secs(10);

/// The tokens that are good. Several of a kind may live at once, so that one can be replaced without a gap.
#[derive(Default)]
pub struct Tokens {
    admin: Vec<blake3::Hash>,
    shop: Vec<blake3::Hash>,
    wrong: WrongTokens,
}

/// Who shows a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// No token.
    Nobody,
    /// An unknown token.
    Stranger,
    /// The shop in front of Sluice: may confirm orders.
    Shop,
    /// May do everything.
    Admin,
}

impl Tokens {
    /// These are good.
    pub fn new<'a>(admin: impl Iterator<Item = &'a str>, shop: impl Iterator<Item = &'a str>) -> Self {
        let hash = |token: &str| blake3::hash(token.as_bytes());
        Self { admin: admin.map(hash).collect(), shop: shop.map(hash).collect(), wrong: WrongTokens::default() }
    }

    /// Who shows this.
    fn who(&self, headers: &HeaderMap) -> Who {
        let Some(shown) = headers.get(AUTHORIZATION) else { return Who::Nobody };
        let Some(token) = bearer(shown.as_bytes()) else { return Who::Stranger };
        let shown = blake3::hash(token);
        let among = |good: &[blake3::Hash]| {
            good.iter().fold(subtle::Choice::from(0), |found, hash| found | hash.as_bytes().ct_eq(shown.as_bytes()))
        };
        let (admin, shop) = (among(&self.admin), among(&self.shop));
        match (bool::from(admin), bool::from(shop)) {
            (true, _) => Who::Admin,
            (false, true) => Who::Shop,
            (false, false) => Who::Stranger,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii()).filter(|token| !token.is_empty())
}

/// Lets only the admin token through.
pub(super) async fn admin_only(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(&api, request, next, &[Who::Admin]).await
}

/// Lets the admin token and the shop's token through.
pub(super) async fn admin_or_shop(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(&api, request, next, &[Who::Admin, Who::Shop]).await
}

async fn guard(api: &Api, request: Request, next: Next, allowed: &[Who]) -> Response {
    let problem = match api.tokens.who(request.headers()) {
        who if allowed.contains(&who) => {
            if request.method().is_safe() || own_origin(&request, api.loopback) {
                return next.run(request).await;
            }
            Problem::foreign_origin()
        }
        Who::Nobody => Problem::unauthorized(false),
        Who::Stranger if api.tokens.wrong.too_many(api.shop.clock.monotonic()) => {
            let window = u32::try_from(WRONG_TOKENS_WINDOW.as_secs()).unwrap_or(1);
            Problem::rate_limited(window)
        }
        Who::Stranger => Problem::unauthorized(true),
        Who::Shop | Who::Admin => Problem::forbidden(),
    };
    problem.into_response()
}

/// Whether a browser sends this from the server's own page. A program sends no `Origin`. On a loopback address the page
/// has to be a loopback one as well, or else a foreign name that was rebound to this address would do.
pub(super) fn own_origin(request: &Request, loopback: bool) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    let Some(origin) = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok()) else { return false };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let same = origin.authority().map(|own| own.as_str()) == host;
    same && (!loopback || origin.host().is_some_and(is_loopback))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Counts wrong tokens per window.
#[derive(Default)]
struct WrongTokens {
    window: AtomicU64,
    count: AtomicU64,
}

impl WrongTokens {
    fn too_many(&self, now: Duration) -> bool {
        let window = now.as_secs() / WRONG_TOKENS_WINDOW.as_secs();
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) >= WRONG_TOKENS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().expect("a header"))])
    }

    #[test]
    fn two_tokens_of_a_kind_live_at_once() {
        let tokens = Tokens::new(["old", "new"].into_iter(), ["till"].into_iter());
        assert_eq!(tokens.who(&headers("Bearer old")), Who::Admin);
        assert_eq!(tokens.who(&headers("bearer new")), Who::Admin);
        assert_eq!(tokens.who(&headers("Bearer till")), Who::Shop);
        for stranger in ["Bearer", "Bearer ", "Bearer ol", "Basic old", "old", "é"] {
            assert_eq!(tokens.who(&headers(stranger)), Who::Stranger, "{stranger}");
        }
        assert_eq!(tokens.who(&HeaderMap::new()), Who::Nobody);
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let from = |origin: &str, host: &str| {
            let request = Request::builder().header(ORIGIN, origin).header(HOST, host);
            request.body(axum::body::Body::empty()).expect("a request")
        };
        assert!(own_origin(&from("http://localhost:8080", "localhost:8080"), true));
        assert!(own_origin(&from("http://[::1]:8080", "[::1]:8080"), true));
        assert!(!own_origin(&from("http://evil.example", "127.0.0.1:8080"), true));
        assert!(!own_origin(&from("http://rebound.example:8080", "rebound.example:8080"), true));
        assert!(own_origin(&from("https://shop.example", "shop.example"), false));
        assert!(!own_origin(&from("null", "shop.example"), false));
    }
}
