//! Histories with one planted lie each: whatever can be wrong is found, and named with its order.

mod again;
mod journal;
mod promises;
mod times;

use super::units::RETURN_KNOWN_US;
use super::*;
use crate::load::crowd::{Habits, Request};
use crate::load::facts::{AuditFact, FindingFact, ItemFact, MoveFact};
use crate::model::{Customer, Line, MoveKind, Places, Seq, Sku, Time, Units};

const NOW: Time = Time::from_millis(1_000_000);
/// The server's time when the crowd started.
const START_MS: i64 = 900_000;

/// Six customers and three units: the first three got one each, the others were refused.
struct Scene {
    crowd: Crowd,
    records: Vec<Record>,
    facts: Facts,
    alone: bool,
    healed_us: Option<u64>,
    /// The journal, if it is another than the orders come to.
    journal: Option<Vec<MoveFact>>,
}

fn units(count: u32) -> Units {
    Units::new(count).unwrap()
}

fn id(number: u8) -> OrderId {
    OrderId([number; 16])
}

impl Scene {
    fn new() -> Self {
        let sku = Sku::new("ps5").unwrap();
        let habits = Habits { customers: 6, orders: 6, rate_per_s: 100.0, ..Habits::plain(1) };
        let crowd = Crowd::gather(&habits, std::slice::from_ref(&sku), None);
        let facts = Facts {
            settled: true,
            seen_us: 0,
            one_cut: true,
            per_customer_limit: None,
            before: HashSet::new(),
            before_released: HashSet::new(),
            watermark_before: Seq(1),
            orders: Vec::new(),
            journal: Vec::new(),
            watermark: 0,
            conserved: true,
            items: vec![ItemFact { sku, places: Places::fresh(units(3)), gate: None, added: 0 }],
            waiting: Some(0),
            now: NOW,
            audit: AuditFact { verdict: "exact".into(), ..AuditFact::default() },
        };
        let (records, journal, alone, healed_us) = (Vec::new(), None, true, None);
        let mut scene = Self { crowd, records, facts, alone, healed_us, journal };
        for wish in 0..6 {
            scene.answer(wish, if wish < 3 { Outcome::Accepted } else { Outcome::SoldOut });
        }
        (0..3).for_each(|number| scene.list(number.into(), id(number)));
        scene.place(0, 3, 0);
        scene
    }

    /// The answer to the wish's first request, a millisecond after the one before.
    fn answer(&mut self, wish: u8, outcome: Outcome) {
        let order = (!outcome.refuses()).then(|| id(wish));
        let sold_out = (outcome == Outcome::SoldOut).then_some(0);
        let sent_us = self.records.len() as u64 * 1_000;
        let (request, effect) = (wish.into(), Effect::None);
        let answered_us = sent_us + 500;
        let (status, seq) = (0, Seq(0));
        self.records.push(Record { request, status, outcome, effect, sold_out, sent_us, answered_us, order, seq });
    }

    /// The answer to one more request of the wish.
    fn again(&mut self, wish: u8, kind: Kind, outcome: Outcome) {
        self.crowd.requests.push(Request { due_us: 1_000_000, wish: wish.into(), kind });
        self.answer(wish, outcome);
        self.records.last_mut().unwrap().request = u32::try_from(self.crowd.requests.len()).unwrap() - 1;
    }

    /// An order of this customer in the ledger.
    fn list(&mut self, customer: u32, id: OrderId) {
        self.facts.orders.push(OrderFact {
            id,
            customer: Customer::new(&self.crowd.customer(customer)).unwrap(),
            lines: self.crowd.lines(customer).to_vec(),
            state: OrderState::Held,
            reason: None,
            accepted_at: Time::from_millis(START_MS + i64::from(customer)),
            expires_at: Some(Time::from_millis(NOW.millis() + 1)),
        });
    }

    /// The journal that the orders come to: all are held one after the other, then those that ended end.
    fn honest_journal(&self) -> Vec<MoveFact> {
        let item = &self.facts.items[0];
        let stock = Line { sku: item.sku.clone(), quantity: item.places.stock };
        let start = Time::from_millis(START_MS);
        let mut moves = vec![step(MoveKind::Add, start, None, vec![stock])];
        let mut seen = HashSet::new();
        let orders: Vec<&OrderFact> = self.facts.orders.iter().filter(|order| seen.insert(order.id)).collect();
        for order in &orders {
            let kind = if order.state == OrderState::Refused { MoveKind::Refuse } else { MoveKind::Hold };
            moves.push(step(kind, order.accepted_at, Some(order), order.lines.clone()));
        }
        for order in &orders {
            let (kind, at) = match (order.state, order.reason) {
                (OrderState::Sold, _) => (MoveKind::Confirm, start),
                (OrderState::Released, Some(Reason::Lapsed)) => (MoveKind::Lapse, order.expires_at.unwrap_or(NOW)),
                (OrderState::Released, _) => (MoveKind::Cancel, Time::from_millis(START_MS + 10)),
                _ => continue,
            };
            moves.push(step(kind, at, Some(order), order.lines.clone()));
        }
        numbered(moves)
    }

    fn history(&self) -> History {
        let (crowd, records) = (Arc::new(self.crowd.clone()), self.records.clone());
        History { crowd, records, alone: self.alone, healed_us: self.healed_us }
    }

    fn facts(&self) -> Facts {
        let journal = self.journal.clone().unwrap_or_else(|| self.honest_journal());
        let watermark = journal.last().map_or(0, |step| step.seq.0);
        Facts { journal, watermark, ..self.facts.clone() }
    }

    fn place(&mut self, available: u32, held: u32, sold: u32) {
        let [available, held, sold] = [available, held, sold].map(units);
        let item = &mut self.facts.items[0];
        (item.places, item.gate) = (Places { available, held, sold, ..item.places }, Some(available));
    }

    /// The second order was released.
    fn release(&mut self, reason: Option<Reason>) {
        self.facts.orders[1].state = OrderState::Released;
        self.facts.orders[1].reason = reason;
        self.place(1, 2, 0);
    }

    fn check(&self) -> Check {
        check(&self.history(), &self.facts())
    }

    fn found(&self) -> Vec<(Broken, Vec<OrderId>)> {
        let check = self.check();
        let expected = if check.violations.is_empty() { Verdict::Exact } else { Verdict::Violation };
        assert_eq!(check.verdict, expected);
        check.violations.into_iter().map(|violation| (violation.broken, violation.orders)).collect()
    }

    /// Checks that this is among what is found.
    #[track_caller]
    fn finds(&self, broken: Broken, orders: &[OrderId]) {
        let found = self.found();
        assert!(found.contains(&(broken, orders.to_vec())), "{broken:?} of {orders:?} is not in {found:?}");
    }
}

fn step(kind: MoveKind, at: Time, order: Option<&OrderFact>, lines: Vec<Line>) -> MoveFact {
    let customer = order.map(|order| order.customer.clone());
    MoveFact { seq: Seq(0), at, kind, order: order.map(|order| order.id), adjustment: None, customer, lines }
}

fn numbered(mut moves: Vec<MoveFact>) -> Vec<MoveFact> {
    (1..).zip(&mut moves).for_each(|(number, step)| step.seq = Seq(number));
    moves
}
