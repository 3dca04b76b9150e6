//! The live stream of a sale: server-sent events for the operator's console. [`produce`] makes the ticks, [`feed`] shares them,
//! and here each watcher gets its own: first a snapshot, then what comes, and a `bye` before the server ends the stream.

mod curve;
mod feed;
mod judge;
mod produce;
mod story;
mod tally;
mod tick;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use feed::{Feeds, Notes};
pub(super) use story::Entry;
pub(super) use tally::Tally;

use super::Api;
use super::problems::Problem;
use super::request::OfSale;
use crate::model::{Effect, SaleId, limits};
use feed::{Feed, Sent, data, event};
use tick::Bye;

/// How soon a browser asks again after a stream has ended.
const RETRY: &[u8] = b"retry: 500\n\n";
/// How often it is looked whether somebody watches.
const WATCHED_PAUSE: Duration = Duration::from_millis(100);
/// How long a single snapshot may take.
const ONCE_TIME_MAX: Duration = Duration::from_secs(5);

/// Places for watchers, in this process.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits::WATCHERS_MAX))
}

/// Watch a sale: `snapshot`, then `tick` about five times a second, `log` for what happened, and `bye` in the
/// end. Who accepts only JSON gets the snapshot alone.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/live", tag = "operator", operation_id = "watch_sale",
    params(
        ("sale" = String, Path, description = "The sale's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "Accepted, and answered with a new snapshot"),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "Server-sent events; or, with `Accept: application/json`, one snapshot",
            content((String = "text/event-stream"), (Object = "application/json"))),
        (status = "4XX", description = "Unknown", body = super::ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = super::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    OfSale(id): OfSale,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if api.is_draining() {
        return Err(Problem::stopping());
    }
    let sale = api.shop.sale(&id).await?.ok_or_else(|| Problem::not_found("sale"))?;
    let place = api.watchers.clone().try_acquire_owned().map_err(|_| Problem::unavailable(Effect::None))?;
    let feed = api.feeds.of(&sale);
    let (events, begin) = feed.join();
    if begin {
        tokio::spawn(produce::produce(api.clone(), sale, feed.clone()));
    }
    let mut watcher = Watcher { api, sale: id, feed, events, stage: Stage::First, _place: place };
    if headers.get(ACCEPT).is_some_and(|accepted| accepted.as_bytes() == b"application/json") {
        return watcher.once().await;
    }
    watcher.stage = Stage::Hello;
    let frames = stream::unfold(watcher, async |mut watcher| {
        let frame = watcher.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), watcher))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A proxy that gathers answers would show yesterday's sale.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Api {
    /// Waits until somebody watches a sale, at most this long; whether somebody does.
    pub async fn watched(&self, time_max: Duration) -> bool {
        let clock = &self.shop.clock;
        let deadline = clock.monotonic() + time_max;
        while self.watchers.available_permits() == limits::WATCHERS_MAX {
            if clock.monotonic() >= deadline {
                return false;
            }
            clock.sleep(WATCHED_PAUSE).await;
        }
        true
    }
}

/// One open stream.
struct Watcher {
    api: Arc<Api>,
    sale: SaleId,
    feed: Arc<Feed>,
    events: Receiver<Sent>,
    stage: Stage,
    _place: OwnedSemaphorePermit,
}

/// How far a stream is.
enum Stage {
    Hello,
    First,
    /// All events up to this one are part of what was sent.
    After(u64),
    Over,
}

impl Watcher {
    /// What is sent next; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Hello => {
                self.stage = Stage::First;
                Some(Bytes::from_static(RETRY))
            }
            Stage::First => Some(self.first().await),
            Stage::After(number) => Some(self.later(number).await),
            Stage::Over => None,
        }
    }

    /// The snapshot alone.
    async fn once(&mut self) -> Result<Response, Problem> {
        let event = tokio::time::timeout(ONCE_TIME_MAX, self.first()).await.unwrap_or_default();
        match (&self.stage, data(&event)) {
            (Stage::After(_), Some(data)) => {
                let mut response = Response::new(Body::from(data));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(response)
            }
            _ => Err(Problem::unavailable(Effect::None)),
        }
    }

    async fn first(&mut self) -> Bytes {
        loop {
            if let Some((number, bytes)) = self.feed.snapshot(self.api.tally(&self.sale).as_deref()) {
                self.stage = Stage::After(number);
                return bytes;
            }
            match self.event().await {
                Ok(Sent { last: true, bytes, .. }) => return self.end(bytes),
                Ok(_) => {}
                Err(bye) => return self.bye(bye),
            }
        }
    }

    async fn later(&mut self, number: u64) -> Bytes {
        loop {
            match self.event().await {
                Ok(Sent { last: true, bytes, .. }) => return self.end(bytes),
                Ok(sent) if sent.number > number => {
                    self.stage = Stage::After(sent.number);
                    return sent.bytes;
                }
                Ok(_) => {}
                Err(bye) => return self.bye(bye),
            }
        }
    }

    /// The next event of the feed, or why there is none.
    async fn event(&mut self) -> Result<Sent, Bye> {
        tokio::select! {
            biased;
            () = self.api.drained() => Err(Bye::ShuttingDown),
            event = self.events.recv() => event.map_err(|error| match error {
                RecvError::Lagged(_) => Bye::TooSlow,
                RecvError::Closed => Bye::ShuttingDown,
            }),
        }
    }

    fn bye(&mut self, bye: Bye) -> Bytes {
        self.end(event("bye", None, &bye))
    }

    fn end(&mut self, bytes: Bytes) -> Bytes {
        self.stage = Stage::Over;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use http_body_util::BodyExt;

    use super::*;
    use crate::clock::RealClock;
    use crate::deployment::embedded;
    use crate::http::{Limits, RunBy, Tokens};
    use crate::model::{Item, Phase, Sale, Sku, Units, Window};

    fn sale() -> Sale {
        let item = Item { sku: Sku::new("x").unwrap(), name: "X".into(), price_cents: 1, currency: "EUR".into() };
        Sale {
            id: SaleId::new("s").unwrap(),
            name: "S".into(),
            window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
            hold_seconds: 600,
            per_customer_limit: None,
            items: vec![item],
        }
    }

    /// What a watcher hears of a feed that tells so many things before it reads on.
    async fn heard(told: usize) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let deployment = embedded(folder.path(), Arc::new(RealClock::new())).await.unwrap();
        let sale = sale();
        deployment.shop.ledger.create(&sale, &[Units::new(1).unwrap()]).await.unwrap();
        let run_by = RunBy { gate: "", queue: "", ledger: "" };
        let tokens = Tokens::new(["t"].into_iter(), std::iter::empty());
        let api = Api::new(deployment.shop.clone(), run_by, tokens, Limits::default(), true);
        let site = crate::http::Site::whole(api.clone());
        let request = Request::get("/v1/sales/s/live").header("authorization", "Bearer t").body(Body::empty()).unwrap();
        let mut body = site.answer(request).await.into_body();
        let mut next = async || {
            let frame = body.frame().await?.unwrap().into_data().unwrap();
            Some(String::from_utf8(frame.to_vec()).unwrap())
        };
        let mut heard = vec![next().await.unwrap(), next().await.unwrap()];
        let feed = api.feeds.of(&sale);
        for number in 0..told {
            feed.tell(vec![Entry::note(api.shop.clock.now(), "demo", number.to_string())]);
        }
        let mut stop = Some(api);
        while let Some(event) = next().await {
            heard.push(event);
            if heard.len() == told + 2
                && let Some(api) = stop.take()
            {
                api.drain();
            }
        }
        heard
    }

    #[tokio::test]
    async fn who_reads_in_time_hears_everything() {
        let heard = heard(20).await;
        assert!(heard[0] == "retry: 500\n\n" && heard[1].starts_with("event: snapshot\nid: 1\ndata: {"), "{heard:?}");
        assert_eq!(heard.iter().filter(|event| event.starts_with("event: log\n")).count(), 20);
        assert!(heard.last().unwrap().contains("shutting_down"), "{heard:?}");
    }

    #[tokio::test]
    async fn who_does_not_is_told_goodbye() {
        let heard = heard(100).await;
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert_eq!(heard[2], "event: bye\ndata: {\"reason\":\"too_slow\"}\n\n");
    }
}
