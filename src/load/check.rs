//! The check: what the crowd was told, against what the ledger says. Pure, so that histories with a planted lie can
//! show that each lie is found.

mod units;

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::crowd::{Crowd, Kind};
use super::facts::{Facts, OrderFact};
use super::record::{Outcome, Record};
use crate::audit::Verdict;
use crate::model::{Effect, OrderId, OrderState, Reason, same_lines};

/// Orders that a violation shows to people.
const ORDERS_SHOWN_MAX: usize = 5;

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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which promise it breaks.
    pub broken: Broken,
    /// The orders concerned.
    pub orders: Vec<OrderId>,
    /// What was found, in words.
    pub detail: String,
}

/// The promises to the crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// Never more units than there are.
    Oversold,
    /// Nobody is refused a unit that is left at the end.
    Undersold,
    /// No accepted order is refused.
    BrokenPromise,
    /// Every accepted order is in the ledger.
    Lost,
    /// Only its holder and time release an order.
    TakenAway,
    /// The order is the one that was asked for.
    WrongOrder,
    /// The same key is the same order, on every retry; and no order is two customers'.
    KeySplit,
    /// A retry of an accepted order is not refused.
    Forgotten,
    /// An error with `effect: none`, or a refusal, leaves no order.
    LeftBehind,
    /// A confirmed order is sold.
    ConfirmUndone,
    /// A cancelled order is released.
    CancelUndone,
    /// No order counts twice.
    Doubled,
    /// No customer has more units than allowed.
    CustomerLimit,
    /// Every unit is in some place, and all counts agree.
    Conservation,
    /// What the server's own audit found.
    Audit,
}

impl Broken {
    /// The word for it, as it stands in the JSON.
    pub fn word(self) -> &'static str {
        match self {
            Broken::Oversold => "oversold",
            Broken::Undersold => "undersold",
            Broken::BrokenPromise => "broken_promise",
            Broken::Lost => "lost",
            Broken::TakenAway => "taken_away",
            Broken::WrongOrder => "wrong_order",
            Broken::KeySplit => "key_split",
            Broken::Forgotten => "forgotten",
            Broken::LeftBehind => "left_behind",
            Broken::ConfirmUndone => "confirm_undone",
            Broken::CancelUndone => "cancel_undone",
            Broken::Doubled => "doubled",
            Broken::CustomerLimit => "customer_limit",
            Broken::Conservation => "conservation",
            Broken::Audit => "audit",
        }
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.broken.word())?;
        for order in self.orders.iter().take(ORDERS_SHOWN_MAX) {
            write!(f, " {order}")?;
        }
        match self.orders.len().saturating_sub(ORDERS_SHOWN_MAX) {
            0 => write!(f, ": {}", self.detail),
            more => write!(f, " and {more} more orders: {}", self.detail),
        }
    }
}

/// What a crowd did and what it was told.
#[derive(Clone, Copy)]
pub struct History<'a> {
    /// Who wanted what.
    pub crowd: &'a Crowd,
    /// What came of it.
    pub records: &'a [Record],
}

/// Compares a history with the facts.
pub fn check(history: History<'_>, facts: &Facts) -> Check {
    let mut case = Case::new(history, facts);
    case.keys();
    case.endings();
    case.turns();
    case.left_behind();
    case.listing();
    case.arithmetic();
    case.undersold();
    case.audit();
    case.close()
}

/// One check under way.
struct Case<'a> {
    history: History<'a>,
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
}

impl Story<'_> {
    fn turned(&self, crowd: &Crowd, kind: Kind) -> Option<&Record> {
        self.records.iter().copied().find(|record| crowd.requests[record.request as usize].kind == kind)
    }
}

impl<'a> Case<'a> {
    fn new(history: History<'a>, facts: &'a Facts) -> Self {
        let crowd = history.crowd;
        let wish = |record: &Record| crowd.requests[record.request as usize].wish;
        let mut records: Vec<&Record> = history.records.iter().collect();
        records.sort_by_key(|record| wish(record));
        let story = |records: &[&'a Record]| {
            let mut ids: Vec<OrderId> = records.iter().filter_map(|record| record.order).collect();
            ids.sort_unstable();
            ids.dedup();
            Story { wish: wish(records[0]), records: records.to_vec(), ids }
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
        let crowd = self.history.crowd;
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
        for record in self.history.records {
            let Some(order) = record.order.and_then(|id| self.listed.get(&id)) else { continue };
            let state = order.state;
            if record.outcome == Outcome::Confirmed && state != OrderState::Sold {
                found.push((Broken::ConfirmUndone, order.id, format!("it was confirmed and is {}", state.word())));
            }
            let cancelled = (state, order.reason) == (OrderState::Released, Some(Reason::Cancelled));
            if record.outcome == Outcome::Cancelled && !cancelled {
                found.push((Broken::CancelUndone, order.id, format!("it was cancelled and is {}", state.word())));
            }
        }
        for (broken, id, detail) in found {
            self.find(broken, [id], detail);
        }
    }

    /// Orders of this crowd that nobody was told of belong to answers that left it open.
    fn left_behind(&mut self) {
        let mut open: HashMap<u32, Vec<u32>> = HashMap::new();
        for story in self.stories.iter().filter(|story| maybe(story)) {
            let customer = self.history.crowd.wishes[story.wish as usize].customer;
            open.entry(customer).or_default().push(story.wish);
        }
        let told: HashSet<OrderId> = self.stories.iter().flat_map(|story| story.ids.iter().copied()).collect();
        let mut found = Vec::new();
        for order in &self.facts.orders {
            let Some(customer) = self.history.crowd.customer_number(&order.customer) else { continue };
            if told.contains(&order.id) || self.facts.before.contains(&order.id) {
                continue;
            }
            let wishes = open.entry(customer).or_default();
            let same = |wish: &u32| same_lines(self.history.crowd.lines(*wish), &order.lines);
            match wishes.iter().position(same) {
                Some(place) => drop(wishes.swap_remove(place)),
                None => found.push((order.id, format!("{} was told that there is no such order", order.customer))),
            }
        }
        for (id, detail) in found {
            self.find(Broken::LeftBehind, [id], detail);
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
