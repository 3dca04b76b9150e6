//! Journals with one planted lie each: the recount finds every one, and names its order, customer, SKU or move.

use super::*;
use crate::model::{Epoch, EpochStage, EpochState, Item, Order, Phase, Reason, Sale, Window};

const HOLD_MS: i64 = 60_000;

fn units(count: u32) -> Units {
    Units::new(count).unwrap()
}

fn id(number: u8) -> OrderId {
    OrderId([number; 16])
}

fn customer(number: u8) -> Customer {
    Customer::new(&format!("c-{number}")).unwrap()
}

fn lines(quantity: u32) -> Vec<Line> {
    vec![Line { sku: Sku::new("ps5").unwrap(), quantity: units(quantity) }]
}

/// A sale of three units, two per customer: order 1 is sold, 2 was cancelled, 3 has lapsed, 4 is held. The first moves are
/// a second apart.
struct Scene {
    record: SaleRecord,
    moves: Vec<Move>,
    orders: Vec<OrderRecord>,
    used: Vec<(Customer, Units)>,
}

impl Scene {
    fn new() -> Self {
        let item =
            Item { sku: lines(1)[0].sku.clone(), name: "Console".into(), price_cents: 1, currency: "EUR".into() };
        let sale = Sale {
            id: SaleId::new("drop").unwrap(),
            name: "Drop".into(),
            window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
            hold_seconds: u32::try_from(HOLD_MS / 1_000).unwrap(),
            per_customer_limit: Some(units(2)),
            items: vec![item],
        };
        let epoch = EpochState { epoch: Epoch(1), stage: EpochStage::Live, closed: Epoch(1), beats: 0 };
        let places = Places { stock: units(3), available: units(1), held: units(1), sold: units(1) };
        let record = SaleRecord { sale, places: vec![places], watermark: Seq(0), epoch, swept: None };
        let mut scene = Self { record, moves: Vec::new(), orders: Vec::new(), used: Vec::new() };
        scene.put(MoveKind::Add, None, 3);
        (1..=3).for_each(|order| scene.put(MoveKind::Hold, Some(order), 1));
        scene.put(MoveKind::Confirm, Some(1), 1);
        scene.put(MoveKind::Cancel, Some(2), 1);
        scene.put(MoveKind::Lapse, Some(3), 1);
        scene.moves[6].at = scene.hold_ends(3);
        scene.put(MoveKind::Hold, Some(4), 1);
        let ends = [
            (OrderState::Sold, None, 5),
            (OrderState::Released, Some(Reason::Cancelled), 6),
            (OrderState::Released, Some(Reason::Lapsed), 7),
            (OrderState::Held, None, 8),
        ];
        (1..).zip(ends).for_each(|(order, (state, reason, seq))| scene.keep(order, state, reason, seq));
        scene.used = vec![(customer(1), units(1)), (customer(4), units(1))];
        scene
    }

    /// One more move at the end of the journal.
    fn put(&mut self, kind: MoveKind, order: Option<u8>, quantity: u32) {
        let seq = Seq(self.moves.len() as u64 + 1);
        let at = Time::from_millis(i64::try_from(seq.0).unwrap() * 1_000);
        let lines = lines(quantity);
        self.moves.push(Move { seq, at, kind, claim: order.map(id), customer: order.map(customer), lines });
        self.record.watermark = seq;
    }

    fn keep(&mut self, number: u8, state: OrderState, reason: Option<Reason>, seq: u64) {
        let accepted_at = Time::from_millis(0);
        let sale = self.record.sale.id.clone();
        let order = Order { id: id(number), sale, customer: customer(number), lines: lines(1), accepted_at };
        let settled_at = self.moves.iter().find(|step| step.claim == Some(id(number))).map(|step| step.at);
        let expires_at = settled_at.and_then(|at| self.record.sale.hold_ends(at));
        self.orders.push(OrderRecord { order, state, reason, settled_at, expires_at, seq: Some(Seq(seq)) });
    }

    fn hold_ends(&self, order: u8) -> Time {
        let held = self.moves.iter().find(|step| step.claim == Some(id(order))).unwrap();
        self.record.sale.hold_ends(held.at).unwrap()
    }

    /// The recount of this journal, whose hashes fit: who edits a ledger by hand may know how they are made.
    fn recount(&self) -> Recount {
        let mut recounter = Recounter::new(&self.record);
        let mut chain = Chain::default();
        for step in &self.moves {
            chain = chain.link(&self.record.sale.id, step);
            recounter.step(step, chain);
        }
        self.orders.iter().for_each(|order| recounter.order(order));
        self.used.iter().for_each(|(customer, units)| recounter.used(customer, *units));
        recounter.finish(chain)
    }

    fn found(&self) -> Vec<(Invariant, String)> {
        self.recount().findings.into_iter().map(|finding| (finding.invariant, finding.subject)).collect()
    }

    #[track_caller]
    fn finds(&self, invariant: Invariant, subject: impl ToString) {
        let found = self.found();
        assert!(found.contains(&(invariant, subject.to_string())), "{invariant:?} is not in {found:?}");
    }
}

#[test]
fn an_honest_journal_is_exact() {
    let recount = Scene::new().recount();
    assert_eq!(recount.findings, []);
    assert_eq!((recount.watermark, recount.orders[&OrderState::Released]), (Seq(8), 2));
}

#[test]
fn a_row_that_its_journal_does_not_come_to_is_found() {
    let mut scene = Scene::new();
    scene.record.places[0] = Places { available: units(0), held: units(2), ..scene.record.places[0] };
    assert_eq!(scene.found(), [(Invariant::Conservation, "ps5".into())]);
    scene.record.places[0].held = units(1);
    assert_eq!(scene.found(), [(Invariant::Conservation, "ps5".into())]);
}

#[test]
fn units_that_a_move_takes_from_nowhere_are_found_at_that_move() {
    let mut scene = Scene::new();
    scene.moves[5].lines = lines(3);
    scene.finds(Invariant::Conservation, id(2));
    let mut scene = Scene::new();
    scene.moves[5].lines[0].sku = Sku::new("xbox").unwrap();
    scene.finds(Invariant::Conservation, "xbox");
}

#[test]
fn more_held_than_there_was_is_found_although_it_came_back() {
    let mut scene = Scene::new();
    let (cancel, hold) = (scene.moves[5].clone(), scene.moves[7].clone());
    // Order 4 takes a fourth unit of three; the cancellation that makes room comes after it.
    scene.moves[5] = Move { seq: Seq(6), ..hold };
    scene.moves[6].seq = Seq(7);
    scene.moves[7] = Move { seq: Seq(8), ..cancel };
    scene.orders[1].seq = Some(Seq(8));
    scene.finds(Invariant::Oversold, id(4));
}

#[test]
fn more_than_allowed_is_found_although_it_was_given_back() {
    let mut scene = Scene::new();
    scene.moves[3].customer = Some(customer(1));
    scene.moves[6].customer = Some(customer(1));
    assert_eq!(scene.found(), []);
    scene.record.sale.per_customer_limit = Some(units(1));
    assert_eq!(scene.found(), [(Invariant::CustomerLimit, customer(1).to_string())]);
}

#[test]
fn a_customers_row_that_the_moves_do_not_come_to_is_found() {
    let mut scene = Scene::new();
    scene.used[1].1 = units(2);
    assert_eq!(scene.found(), [(Invariant::CustomerLimit, customer(4).to_string())]);
    scene.used.pop();
    assert_eq!(scene.found(), [(Invariant::CustomerLimit, customer(4).to_string())]);
}

#[test]
fn a_missing_move_is_found_by_its_number() {
    let mut scene = Scene::new();
    scene.moves.remove(4);
    scene.finds(Invariant::Conservation, "#6");
    scene.finds(Invariant::Transition, id(1));
    let mut scene = Scene::new();
    scene.moves.pop();
    scene.finds(Invariant::Conservation, "drop");
}

#[test]
fn a_move_that_was_edited_is_found_by_its_hash() {
    let scene = Scene::new();
    for edited in 0..scene.moves.len() {
        let mut recounter = Recounter::new(&scene.record);
        let mut chain = Chain::default();
        for (number, step) in scene.moves.iter().enumerate() {
            chain = chain.link(&scene.record.sale.id, step);
            let at = if number == edited { Time::from_millis(1) } else { step.at };
            recounter.step(&Move { at, ..step.clone() }, chain);
        }
        let findings = recounter.finish(chain).findings;
        let hash = |finding: &&Finding| finding.detail.contains("hash");
        let subjects: Vec<&str> = findings.iter().filter(hash).map(|finding| finding.subject.as_str()).collect();
        assert_eq!(subjects, [format!("#{}", edited + 1)]);
    }
    let mut recounter = Recounter::new(&scene.record);
    let chain = scene.moves.iter().fold(Chain::default(), |chain, step| {
        let chain = chain.link(&scene.record.sale.id, step);
        recounter.step(step, chain);
        chain
    });
    let elsewhere = chain.link(&scene.record.sale.id, &scene.moves[0]);
    assert!(recounter.finish(elsewhere).findings.iter().any(|finding| finding.subject == "drop"));
}

#[test]
fn an_order_is_settled_once_and_ends_once() {
    for kind in [MoveKind::Hold, MoveKind::Sell, MoveKind::Refuse] {
        let mut scene = Scene::new();
        scene.put(kind, Some(1), 1);
        scene.finds(Invariant::Doubled, id(1));
    }
    // A second move for the same transition, and one terminal state after another.
    for kind in [MoveKind::Confirm, MoveKind::Cancel, MoveKind::Lapse] {
        for order in 1..=3 {
            let mut scene = Scene::new();
            scene.put(kind, Some(order), 1);
            scene.finds(Invariant::Transition, id(order));
        }
    }
    let mut scene = Scene::new();
    scene.put(MoveKind::Confirm, Some(9), 1);
    scene.finds(Invariant::Transition, id(9));
}

#[test]
fn an_adjustment_is_one_move() {
    for kind in [MoveKind::Add, MoveKind::Withdraw] {
        let mut scene = Scene::new();
        scene.put(kind, Some(9), 1);
        scene.put(kind, Some(9), 1);
        scene.moves.iter_mut().skip(8).for_each(|step| step.customer = None);
        scene.finds(Invariant::Doubled, id(9));
    }
}

#[test]
fn an_order_ends_in_time() {
    let mut scene = Scene::new();
    scene.moves[4].at = scene.hold_ends(1);
    assert_eq!(scene.found(), [(Invariant::Transition, id(1).to_string())]);
    scene.moves[4].at = Time::from_millis(scene.hold_ends(1).millis() - 1);
    assert_eq!(scene.found(), []);
    scene.moves[6].at = Time::from_millis(scene.hold_ends(3).millis() - 1);
    assert_eq!(scene.found(), [(Invariant::Transition, id(3).to_string())]);
}

#[test]
fn rows_and_moves_say_the_same_of_an_order() {
    let doctor: [fn(&mut OrderRecord); 4] = [
        |row| row.state = OrderState::Sold,
        |row| row.order.lines = lines(2),
        |row| row.seq = Some(Seq(3)),
        |row| row.expires_at = Some(Time::from_millis(1)),
    ];
    for doctored in doctor {
        let mut scene = Scene::new();
        doctored(&mut scene.orders[3]);
        assert_eq!(scene.found(), [(Invariant::Transition, id(4).to_string())]);
    }
    let mut scene = Scene::new();
    scene.orders.pop();
    assert_eq!(scene.found(), [(Invariant::Lost, id(4).to_string())]);
    // A ledger joins a move's customer from the order's row: it is gone as well.
    scene.moves.iter_mut().filter(|step| step.claim == Some(id(4))).for_each(|step| step.customer = None);
    scene.finds(Invariant::Lost, id(4));
    scene.keep(9, OrderState::Held, None, 8);
    scene.finds(Invariant::Transition, id(9));
}

#[test]
fn an_order_that_was_refused_is_a_broken_promise() {
    let mut scene = Scene::new();
    scene.put(MoveKind::Refuse, Some(5), 1);
    scene.keep(5, OrderState::Refused, Some(Reason::SoldOut), 9);
    scene.orders[4].expires_at = None;
    assert_eq!(scene.found(), [(Invariant::BrokenPromise, id(5).to_string())]);
}
