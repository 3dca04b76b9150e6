//! The last part of the check: everything is sent again, and nothing changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Broken, History, Violation};
use crate::load::crowd::{Crowd, Kind, Request};
use crate::load::facts::{Facts, MoveFact};
use crate::load::record::{Outcome, Record};
use crate::model::{MoveKind, OrderId};

/// Requests sent again per second.
const AGAIN_PER_S: u64 = 2_000;

/// A crowd that says everything once more.
#[derive(Debug, Clone)]
pub struct Again {
    /// The same people and keys; every request at most once.
    pub crowd: Arc<Crowd>,
    /// The orders that their wishes came to.
    pub known: HashMap<u32, OrderId>,
}

/// What can be sent again without any effect: every wish that came to an order, every confirm and cancel that was done, and
/// of the wishes without an order those that cannot be fulfilled, because too few units are left.
pub fn everything_again(history: &History, facts: &Facts) -> Again {
    let crowd = &history.crowd;
    let mut known: HashMap<u32, OrderId> = HashMap::new();
    let mut turned: Vec<(u32, Kind)> = Vec::new();
    let mut asked: Vec<u32> = Vec::new();
    for record in &history.records {
        let Request { wish, kind, .. } = crowd.requests[record.request as usize];
        match record.outcome {
            Outcome::Confirmed | Outcome::Cancelled => turned.push((wish, kind)),
            _ if kind.orders() => asked.push(wish),
            _ => {}
        }
        if let (Some(order), true) = (record.order, kind.orders()) {
            known.insert(wish, order);
        }
    }
    asked.sort_unstable();
    asked.dedup();
    turned.sort_unstable_by_key(|(wish, _)| *wish);
    turned.dedup();
    let out_of_reach = |wish: &u32| {
        crowd.lines(*wish).iter().any(|line| {
            let left = facts.items.iter().find(|item| item.sku == line.sku).map(|item| item.places.available);
            left.is_some_and(|left| left < line.quantity)
        })
    };
    asked.retain(|wish| known.contains_key(wish) || out_of_reach(wish));
    let orders = asked.into_iter().map(|wish| (wish, Kind::Retry));
    let requests = orders.chain(turned).zip(0_u64..);
    let requests =
        requests.map(|((wish, kind), number)| Request { due_us: number * 1_000_000 / AGAIN_PER_S, wish, kind });
    Again { crowd: Arc::new(crowd.saying(requests.collect())), known }
}

/// Compares what was answered this time with what was answered before, and what the journal gained with nothing. Holds may
/// lapse meanwhile, and then whoever was refused before may get their units.
pub fn check_again(again: &Again, records: &[Record], moves_since: &[MoveFact]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut find = |orders: Vec<OrderId>, detail: String| {
        found.push(Violation { broken: Broken::ChangedByRepeating, orders, detail });
    };
    let returned = moves_since.iter().any(|step| step.kind == MoveKind::Lapse);
    for record in records {
        let Request { wish, kind, .. } = again.crowd.requests[record.request as usize];
        let (key, words) = (again.crowd.key(wish), record.outcome.words());
        let known = again.known.get(&wish).copied();
        let told = record.order.is_some() || record.outcome.refuses();
        let same = match (kind, known) {
            (Kind::Confirm, _) => record.outcome == Outcome::Confirmed,
            (Kind::Cancel, _) => record.outcome == Outcome::Cancelled,
            (_, Some(known)) => record.outcome == Outcome::Repeat && record.order == Some(known),
            // Who was never told may have had an order all the time.
            (_, None) => record.outcome != Outcome::Accepted || returned,
        };
        if told && !same {
            let orders = known.into_iter().chain(record.order.filter(|order| Some(*order) != known)).collect();
            find(orders, format!("key {key} sent again was answered {words}"));
        }
    }
    for step in moves_since {
        let ours = step.customer.as_ref().is_some_and(|customer| again.crowd.customer_number(customer).is_some());
        if ours && step.kind != MoveKind::Lapse && !returned {
            let detail = format!("move #{}, a {}, came of sending everything again", step.seq.0, step.kind.word());
            find(step.order.into_iter().collect(), detail);
        }
    }
    found
}
