//! What an answer says, as far as the crowd needs to know.

use std::borrow::Cow;

use serde::Deserialize;

use super::crowd::Kind;
use super::record::Outcome;
use super::wire::Answer;
use crate::model::{Effect, OrderId, Seq, Sku};

/// What was read from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What the request came to.
    pub outcome: Outcome,
    /// What may have happened all the same.
    pub effect: Effect,
    /// The item that was sold out, by its place in the sale.
    pub sold_out: Option<u8>,
    /// The order's id.
    pub order: Option<OrderId>,
    /// The journal's number of the order's latest move; 0 if it was not told.
    pub seq: Seq,
}

#[derive(Deserialize)]
struct Named {
    id: OrderId,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem<'a> {
    #[serde(borrow, rename = "type")]
    slug: Cow<'a, str>,
    #[serde(borrow)]
    effect: Cow<'a, str>,
    #[serde(borrow)]
    sku: Cow<'a, str>,
}

/// Reads the answer to a request of this kind in a sale of these items.
pub fn read(kind: Kind, answer: &Answer, skus: &[Sku]) -> Reading {
    match (kind, answer.status.as_u16()) {
        (Kind::Confirm, 200) => named(Outcome::Confirmed, answer),
        (Kind::Cancel, 200) => named(Outcome::Cancelled, answer),
        (Kind::Confirm | Kind::Cancel, 201 | 202) => named(Outcome::Error, answer),
        (_, 201 | 202) => named(Outcome::Accepted, answer),
        (_, 200) => named(Outcome::Repeat, answer),
        (_, status) => refused(status, answer, skus),
    }
}

/// An answer about an order; one that does not name it makes no sense.
fn named(outcome: Outcome, answer: &Answer) -> Reading {
    let order = serde_json::from_slice::<Named>(&answer.body).ok().map(|named| named.id);
    let outcome = if order.is_some() { outcome } else { Outcome::Error };
    Reading { outcome, effect: Effect::Unknown, sold_out: None, order, seq: answer.seq }
}

fn refused(status: u16, answer: &Answer, skus: &[Sku]) -> Reading {
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    let outcome = match (status, problem.slug.strip_prefix("/problems/")) {
        (429 | 503, Some(_)) => Outcome::Unavailable,
        (409, Some("sold-out")) => Outcome::SoldOut,
        (409, Some("customer-limit")) => Outcome::CustomerLimit,
        (422, Some("idempotency-key-reused")) => Outcome::KeyReused,
        (400..=499, Some(_)) => Outcome::Refused,
        _ => Outcome::Error,
    };
    let effect = if problem.effect == "none" { Effect::None } else { Effect::Unknown };
    let place = skus.iter().position(|sku| sku.as_str() == problem.sku);
    let sold_out = place.filter(|_| outcome == Outcome::SoldOut).and_then(|place| u8::try_from(place).ok());
    Reading { outcome, effect, sold_out, order: None, seq: Seq(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, status: u16, body: &'static str) -> Reading {
        let skus = ["xbox", "ps5"].map(|sku| Sku::new(sku).unwrap());
        let status = hyper::StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, seq: Seq(7), retry_after: None, body: body.into() };
        read(kind, &answer, &skus)
    }

    #[test]
    fn an_accepted_order_is_known_by_its_id() {
        let body = r#"{"id":"ord_000000000000000000000000000000ff","sale":"s","state":"accepted"}"#;
        let reading = told(Kind::First, 202, body);
        assert_eq!((reading.outcome, reading.order.is_some(), reading.seq), (Outcome::Accepted, true, Seq(7)));
        assert_eq!(told(Kind::Retry, 200, body).outcome, Outcome::Repeat);
        assert_eq!(told(Kind::Confirm, 200, body).outcome, Outcome::Confirmed);
        assert_eq!(told(Kind::Cancel, 200, body).outcome, Outcome::Cancelled);
        assert_eq!(told(Kind::First, 202, "{}").outcome, Outcome::Error);
    }

    #[test]
    fn a_refusal_is_known_by_its_slug_and_its_effect() {
        let sold_out = r#"{"type":"/problems/sold-out","effect":"none","sku":"ps5","may_return":true}"#;
        let reading = told(Kind::First, 409, sold_out);
        assert_eq!(
            reading,
            Reading { outcome: Outcome::SoldOut, effect: Effect::None, sold_out: Some(1), order: None, seq: Seq(0) }
        );
        let limit = r#"{"type":"/problems/customer-limit","effect":"none"}"#;
        assert_eq!(told(Kind::First, 409, limit).outcome, Outcome::CustomerLimit);
        let reused = r#"{"type":"/problems/idempotency-key-reused","effect":"none"}"#;
        assert_eq!(told(Kind::OtherCart, 422, reused).outcome, Outcome::KeyReused);
        let paused = r#"{"type":"/problems/sale-paused","effect":"none"}"#;
        assert_eq!(told(Kind::First, 409, paused).outcome, Outcome::Refused);
        let unavailable = r#"{"type":"/problems/unavailable","effect":"unknown"}"#;
        let reading = told(Kind::First, 503, unavailable);
        assert_eq!((reading.outcome, reading.effect), (Outcome::Unavailable, Effect::Unknown));
    }

    #[test]
    fn an_answer_that_is_not_sluices_is_an_error() {
        assert_eq!(told(Kind::First, 502, "<html>").outcome, Outcome::Error);
        assert_eq!(told(Kind::First, 404, "").outcome, Outcome::Error);
        assert_eq!(told(Kind::First, 500, r#"{"type":"/problems/oops"}"#).outcome, Outcome::Error);
    }
}
