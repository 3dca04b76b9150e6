//! The check: what the crowd was told, against what the ledger says. Pure, so that histories with a planted lie can
//! show that each lie is found.
//!
//! The invariants, the names under which a violation is reported here ([`Broken`]), and the tests in `check/tests` that
//! plant it. What the server's own audit finds besides is tested in `ledger/journal/tests.rs`.
//!
//! | | invariant | name | planted by |
//! |---|---|---|---|
//! | 1 | conservation, at every move | `conservation`, `transition` | `orders_and_stock_say_the_same`, `units_come_from_where_they_are` |
//! | 2 | rows are the fold of a journal without gaps (its hashes: audit) | `journal`, `audit` | `a_journal_with_a_gap_is_found`, `a_journal_that_comes_to_something_else_is_found` |
//! | 3 | never more out than there is, at every move | `oversold` | `oversold_for_a_moment_is_oversold` |
//! | 4 | limit per customer, at every move | `customer_limit` | `more_than_allowed_for_a_moment_is_more_than_allowed` |
//! | 5 | one order per id, one way through life | `doubled`, `transition` | `no_order_is_listed_twice`, `an_order_lives_once` |
//! | 6 | an accepted order is kept | `lost`, `broken_promise`, `taken_away` | `an_accepted_order_that_is_nowhere_is_lost`, `an_order_that_nobody_gave_back_was_taken_away` |
//! | 7 | `effect: none` left nothing | `left_behind` | `a_refusal_leaves_nothing_behind` |
//! | 8 | same key, same order; other cart, 422 | `key_split`, `wrong_order`, `forgotten`, `key_reused` | `one_key_is_one_order`, `another_cart_under_the_key_of_an_order_is_told_so` |
//! | 9 | no order without a request | `unasked` | `an_order_that_nobody_asked_for_is_found` |
//! | 10 | confirmed is sold, and was in time | `confirm_undone`, `confirmed_late` | `what_was_confirmed_is_sold`, `a_hold_that_was_over_is_not_confirmed` |
//! | 11 | gate and ledger agree once quiet | `gate_differs` | `a_gate_that_says_something_else_than_the_ledger_is_found` |
//! | 12 | the queue is drained | `undrained` | `a_queue_that_is_not_empty_is_found` |
//! | 13 | one move for each turn | `transition` | `an_order_lives_once` |
//! | 14 | no false "sold out", nothing left | `false_sold_out`, `undersold` | `sold_out_while_enough_was_available_is_false`, `a_unit_left_that_somebody_was_refused_is_undersold` |
//! | 15 | real-time order | `out_of_turn` | `an_answer_proves_how_far_the_journal_had_come`, `who_came_later_is_settled_later` |
//! | 16 | resolved within 10 s of the last fault | `unresolved` | `what_is_not_settled_in_time_is_unresolved` |
//! | 17 | everything again changes nothing | `changed_by_repeating` | `another_answer_is_a_change`, `a_move_is_a_change` |

mod again;
mod broken;
mod journal;
mod times;
mod units;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::crowd::{Crowd, Kind};
use super::facts::{Facts, OrderFact};
use super::record::{Outcome, Record};
use crate::audit::Verdict;
use crate::model::{Effect, OrderId, OrderState, Reason, same_lines};
pub use again::{Again, check_again, everything_again};
pub use broken::{Broken, Violation};
pub use times::RESOLVED_US_MAX;

/// What the check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The verdict.
    pub verdict: Verdict,
    /// Units sold or promised beyond the stock.
    pub oversold: u64,
    /// Units left over that somebody was refused.
    pub undersold: u64,
    /// Accepted orders that were refused, lost or taken away.
    pub broken_promises: u64,
    /// Whether every unit is in some place, and all counts agree.
    pub conserved: bool,
    /// The number of the last move in the ledger.
    pub watermark: u64,
    /// Orders that the crowd was promised.
    pub promised: u64,
    /// How those orders ended, and how many units of the stock are where.
    pub ended: Ended,
    /// Answers to everything that was sent again in the end; 0 if nothing was.
    pub again: u64,
    /// Everything that is wrong.
    pub violations: Vec<Violation>,
}

/// How the orders that the crowd was promised ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Ended {
    /// Held by their customers.
    pub held: u64,
    /// Sold.
    pub sold: u64,
    /// Given back.
    pub released: u64,
}

/// What a crowd did and what it was told.
#[derive(Debug, Clone)]
pub struct History {
    /// Who wanted what.
    pub crowd: Arc<Crowd>,
    /// What came of it: every sending, in the sequence of the requests.
    pub records: Vec<Record>,
    /// Whether nobody else ordered from the sale meanwhile.
    pub alone: bool,
    /// When the last fault was healed, in microseconds after the start, if there were any.
    pub healed_us: Option<u64>,
}

/// Compares a history with the facts.
pub fn check(history: &History, facts: &Facts) -> Check {
    let mut case = Case::new(history, facts);
    case.keys();
    case.other_carts();
    case.endings();
    case.turns();
    case.left_behind();
    case.listing();
    case.arithmetic();
    case.undersold();
    case.quiet();
    case.journal();
    case.times();
    case.audit();
    case.close()
}

impl Check {
    /// Adds what was found later.
    pub fn add(&mut self, violations: Vec<Violation>) {
        if !violations.is_empty() {
            self.verdict = Verdict::Violation;
        }
        self.violations.extend(violations);
    }
}

/// One check under way.
struct Case<'a> {
    history: &'a History,
    facts: &'a Facts,
    listed: HashMap<OrderId, &'a OrderFact>,
    stories: Vec<Story<'a>>,
    ended: Ended,
    oversold: u64,
    undersold: u64,
    violations: Vec<Violation>,
}

/// All that was said about one wish.
struct Story<'a> {
    wish: u32,
    records: Vec<&'a Record>,
    ids: Vec<OrderId>,
    /// When its order was first sent.
    sent_us: Option<u64>,
}

impl Story<'_> {
    fn turned(&self, crowd: &Crowd, kind: Kind) -> Option<&Record> {
        self.records.iter().copied().find(|record| crowd.requests[record.request as usize].kind == kind)
    }
}

impl<'a> Case<'a> {
    fn new(history: &'a History, facts: &'a Facts) -> Self {
        let crowd = &history.crowd;
        let wish = |record: &Record| crowd.requests[record.request as usize].wish;
        let mut records: Vec<&Record> = history.records.iter().collect();
        records.sort_by_key(|record| wish(record));
        let story = |records: &[&'a Record]| {
            let mut ids: Vec<OrderId> = records.iter().filter_map(|record| record.order).collect();
            ids.sort_unstable();
            ids.dedup();
            let orders = |record: &&&Record| crowd.requests[record.request as usize].kind.orders();
            let sent_us = records.iter().filter(orders).map(|record| record.sent_us).min();
            Story { wish: wish(records[0]), records: records.to_vec(), ids, sent_us }
        };
        Self {
            history,
            facts,
            listed: facts.orders.iter().map(|order| (order.id, order)).collect(),
            stories: records.chunk_by(|one, other| wish(one) == wish(other)).map(story).collect(),
            ended: Ended::default(),
            oversold: 0,
            undersold: 0,
            violations: Vec::new(),
        }
    }

    fn find(&mut self, broken: Broken, orders: impl Into<Vec<OrderId>>, detail: impl Into<String>) {
        self.violations.push(Violation { broken, orders: orders.into(), detail: detail.into() });
    }

    /// The same key is the same order, and an accepted order is never refused afterwards.
    fn keys(&mut self) {
        let mut found = Vec::new();
        let mut owners: HashMap<OrderId, u32> = HashMap::new();
        for story in &self.stories {
            let key = self.history.crowd.key(story.wish);
            if story.ids.len() > 1 {
                found.push((Broken::KeySplit, story.ids.clone(), format!("key {key} led to several orders")));
            }
            for id in &story.ids {
                if owners.insert(*id, story.wish).is_some_and(|other| other != story.wish) {
                    found.push((Broken::KeySplit, vec![*id], format!("key {key} led to another key's order")));
                }
            }
            let orders = |record: &&&Record| self.kind(record).orders();
            let told = |record: &&&Record| record.order.is_some();
            let known_us = story.records.iter().filter(orders).filter(told).map(|record| record.answered_us).min();
            let refused = |record: &&&Record| record.outcome.refuses() && Some(record.sent_us) > known_us;
            if let (Some(_), Some(record)) = (known_us, story.records.iter().filter(orders).find(refused)) {
                let detail = format!("key {key} was accepted, and asked again {}", record.outcome.words());
                found.push((Broken::Forgotten, story.ids.clone(), detail));
            }
        }
        for (broken, orders, detail) in found {
            self.find(broken, orders, detail);
        }
    }

    /// Another cart under the key of an order is told so.
    fn other_carts(&mut self) {
        let mut found = Vec::new();
        for record in self.history.records.iter().filter(|record| self.kind(record) == Kind::OtherCart) {
            let told = record.order.is_some() || record.outcome.refuses();
            if told && record.outcome != Outcome::KeyReused {
                let wish = self.history.crowd.requests[record.request as usize].wish;
                let orders = self.stories.iter().find(|story| story.wish == wish).map(|story| story.ids.clone());
                let (key, words) = (self.history.crowd.key(wish), record.outcome.words());
                found.push((orders.unwrap_or_default(), format!("another cart under key {key} was answered {words}")));
            }
        }
        for (orders, detail) in found {
            self.find(Broken::KeyReused, orders, detail);
        }
    }

    fn kind(&self, record: &Record) -> Kind {
        self.history.crowd.requests[record.request as usize].kind
    }

    /// Every order that somebody was promised exists, is the one that was asked for, and ended well.
    fn endings(&mut self) {
        let mut found = Vec::new();
        for story in &self.stories {
            for id in &story.ids {
                let Some(order) = self.listed.get(id) else {
                    if self.facts.settled {
                        found.push((Broken::Lost, *id, "it was accepted and is not in the ledger".to_owned()));
                    }
                    continue;
                };
                found.extend(self.ending(story, order).map(|(broken, detail)| (broken, *id, detail)));
                match order.state {
                    OrderState::Held => self.ended.held += 1,
                    OrderState::Sold => self.ended.sold += 1,
                    OrderState::Released => self.ended.released += 1,
                    OrderState::Accepted | OrderState::Refused => {}
                }
            }
        }
        for (broken, id, detail) in found {
            self.find(broken, [id], detail);
        }
    }

    fn ending(&self, story: &Story<'_>, order: &OrderFact) -> Option<(Broken, String)> {
        let crowd = &self.history.crowd;
        let wish = crowd.wishes[story.wish as usize];
        if crowd.customer_number(&order.customer) != Some(wish.customer) {
            return Some((
                Broken::WrongOrder,
                format!("it is {}'s, not {}'s", order.customer, crowd.customer(wish.customer)),
            ));
        }
        if !same_lines(crowd.lines(story.wish), &order.lines) {
            return Some((Broken::WrongOrder, "its units are not the ones that were asked for".into()));
        }
        let away = |detail: &str| Some((Broken::TakenAway, detail.to_owned()));
        match (order.state, order.reason) {
            (OrderState::Accepted | OrderState::Held | OrderState::Sold, _) => None,
            (OrderState::Refused, _) => Some((Broken::BrokenPromise, "it was accepted and then refused".into())),
            (OrderState::Released, Some(Reason::Cancelled)) => match story.turned(crowd, Kind::Cancel) {
                Some(_) => None,
                None => away("it was cancelled, and not by its customer"),
            },
            (OrderState::Released, Some(Reason::Lapsed)) => match order.expires_at {
                Some(end) if end <= self.facts.now => None,
                _ => away("it lapsed before its time"),
            },
            (OrderState::Released, _) => away("it was released, nobody knows why"),
        }
    }

    /// What was turned stays turned.
    fn turns(&mut self) {
        let mut found = Vec::new();
        for record in &self.history.records {
            let Some(order) = record.order.and_then(|id| self.listed.get(&id)) else { continue };
            let state = order.state;
            if record.outcome == Outcome::Confirmed && state != OrderState::Sold {
                found.push((Broken::ConfirmUndone, order.id, format!("it was confirmed and is {}", state.word())));
            }
            // To cancel a hold that has lapsed is a yes too: its units are back.
            if record.outcome == Outcome::Cancelled && state != OrderState::Released {
                found.push((Broken::CancelUndone, order.id, format!("it was cancelled and is {}", state.word())));
            }
        }
        for (broken, id, detail) in found {
            self.find(broken, [id], detail);
        }
    }

    /// Orders of this crowd that nobody was told of belong to answers that left it open.
    fn left_behind(&mut self) {
        let crowd = &self.history.crowd;
        let mut open: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut asked: HashMap<u32, Vec<u32>> = HashMap::new();
        for story in self.stories.iter().filter(|story| story.sent_us.is_some()) {
            let customer = crowd.wishes[story.wish as usize].customer;
            asked.entry(customer).or_default().push(story.wish);
            if maybe(story) {
                open.entry(customer).or_default().push(story.wish);
            }
        }
        let told: HashSet<OrderId> = self.stories.iter().flat_map(|story| story.ids.iter().copied()).collect();
        let mut found = Vec::new();
        for order in &self.facts.orders {
            let of_crowd = crowd.customer_number(&order.customer);
            if told.contains(&order.id) || self.facts.before.contains(&order.id) {
                continue;
            }
            let Some(customer) = of_crowd else {
                if self.history.alone {
                    found.push((Broken::Unasked, order.id, format!("{} is nobody's customer here", order.customer)));
                }
                continue;
            };
            let same = |wish: &u32| same_lines(crowd.lines(*wish), &order.lines);
            let wishes = open.entry(customer).or_default();
            if let Some(place) = wishes.iter().position(same) {
                wishes.swap_remove(place);
            } else if asked.get(&customer).is_some_and(|wishes| wishes.iter().any(same)) {
                let detail = format!("{} was told that there is no such order", order.customer);
                found.push((Broken::LeftBehind, order.id, detail));
            } else {
                found.push((Broken::Unasked, order.id, format!("{} never sent such a request", order.customer)));
            }
        }
        for (broken, id, detail) in found {
            self.find(broken, [id], detail);
        }
    }

    /// No order is listed twice, and nobody has more than allowed.
    fn listing(&mut self) {
        let mut seen = HashSet::new();
        let doubled: Vec<OrderId> =
            self.facts.orders.iter().map(|order| order.id).filter(|id| !seen.insert(*id)).collect();
        for id in doubled {
            self.find(Broken::Doubled, [id], "it is listed twice");
        }
        let Some(limit) = self.facts.per_customer_limit else { return };
        let mut used: HashMap<&str, (u64, Vec<OrderId>)> = HashMap::new();
        for order in self.facts.orders.iter().filter(|order| order.has_units()) {
            let (units, orders) = used.entry(order.customer.as_str()).or_default();
            *units += order.lines.iter().map(|line| u64::from(line.quantity.get())).sum::<u64>();
            orders.push(order.id);
        }
        for (customer, (units, orders)) in used {
            if units > u64::from(limit.get()) {
                self.find(Broken::CustomerLimit, orders, format!("{customer} has {units} units of {}", limit.get()));
            }
        }
    }

    fn audit(&mut self) {
        let facts = self.facts;
        for finding in &facts.audit.findings {
            let orders: Vec<OrderId> = finding.subject.parse().into_iter().collect();
            self.find(Broken::Audit, orders, format!("{}: {}: {}", finding.invariant, finding.subject, finding.detail));
        }
        if facts.audit.verdict == "violation" && facts.audit.findings.is_empty() {
            self.find(Broken::Audit, [], "the server's audit says that something does not add up");
        }
    }

    fn close(self) -> Check {
        let count = |wanted: &[Broken]| {
            let found = self.violations.iter().filter(|violation| wanted.contains(&violation.broken));
            found.map(|violation| violation.orders.len().max(1) as u64).sum::<u64>()
        };
        let audit = &self.facts.audit;
        let verdict = if !self.violations.is_empty() {
            Verdict::Violation
        } else if !self.facts.settled || audit.verdict != "exact" {
            Verdict::Unsettled
        } else {
            Verdict::Exact
        };
        let broken = [Broken::BrokenPromise, Broken::Lost, Broken::TakenAway, Broken::ConfirmUndone];
        Check {
            verdict,
            oversold: audit.oversold.max(self.oversold),
            undersold: audit.undersold.max(self.undersold),
            broken_promises: (audit.broken_promises + audit.lost).max(count(&broken)),
            conserved: self.facts.conserved && audit.conservation_errors == 0 && count(&[Broken::Conservation]) == 0,
            watermark: self.facts.watermark,
            promised: self.stories.iter().map(|story| story.ids.len() as u64).sum(),
            ended: self.ended,
            again: 0,
            violations: self.violations,
        }
    }
}

/// Whether a wish may have come to an order that nobody was told of.
fn maybe(story: &Story<'_>) -> bool {
    story.ids.is_empty() && story.records.iter().any(|record| record.effect == Effect::Unknown)
}

#[cfg(test)]
mod tests;
