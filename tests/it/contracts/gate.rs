//! The gate's promise, sentence by sentence. What a gate is loaded with and follows comes from the model ledger.

use std::sync::Arc;

use sluice::gate::{Admission, Gate, Refusal};
use sluice::ledger::{Books, Creation, Ledger, Turn, Turned};
use sluice::model::{Claim, Epoch, Move, OrderId, Phase, Sale, Seq, Snapshot, Time, Units, Verb};

use crate::model_ledger::ModelLedger;
use crate::words::{
    HOLD_MS, HandClock, addition, claim, id, message, order, order_by, sale, sale_id, sku, units, withdrawal,
};

macro_rules! gate_contract {
    ($name:ident) => {
        mod $name {
            crate::contracts::sentences! { (|| super::Hall::new(crate::contracts::$name));
                an_unknown_sale_is_unloaded_and_never_sold_out
                a_loaded_sale_is_closed_until_it_is_opened
                opening_concerns_one_epoch_and_may_be_repeated
                an_admitted_order_sets_its_units_aside
                a_retry_takes_no_second_unit
                a_retry_with_another_body_gets_the_first_one
                an_order_is_admitted_whole_or_not_at_all
                sold_out_names_the_sku_and_says_whether_it_may_return
                what_sells_at_once_does_not_return
                a_retry_is_never_sold_out
                what_is_refused_beforehand_is_refused_and_nothing_is_taken
                the_limit_counts_all_units_of_a_customer
                what_lapses_counts_no_more_for_the_limit
                the_window_decides_when_orders_are_admitted
                an_ended_sale_admits_nobody
                a_withdrawal_needs_no_window_and_no_limit
                a_withdrawal_takes_no_more_than_there_is
                loading_carries_over_what_is_pending_and_not_in_the_ledger
                loading_forgets_what_the_ledger_has_no_room_for
                what_was_carried_over_is_settled_like_any_other
                an_epoch_is_loaded_once
                a_settled_order_is_known_after_loading
                following_applies_each_move_once
                moves_behind_a_gap_change_nothing
                moves_of_another_epoch_change_nothing
                a_settled_order_is_no_longer_pending
                what_comes_back_is_admitted_again
                additions_and_withdrawals_arrive
                the_sales_verbs_arrive
                an_order_that_others_admitted_is_followed
                a_refused_order_closes_the_gate
                pending_claims_are_listed_with_their_epoch
                two_sales_do_not_touch
                at_every_watermark_available_and_pending_are_the_ledgers_available
            }
        }
    };
}

gate_contract!(memory_gate);
gate_contract!(redis_gate);

/// A gate, and the ledger it follows.
struct Hall {
    gate: Arc<dyn Gate>,
    ledger: ModelLedger,
    clock: Arc<HandClock>,
}

const ONE: Epoch = Epoch(1);

impl Hall {
    fn new(gate: impl FnOnce(Arc<HandClock>) -> Arc<dyn Gate>) -> Self {
        let clock = Arc::new(HandClock::default());
        Self { gate: gate(clock.clone()), ledger: ModelLedger::new(clock.clone()), clock }
    }

    async fn create(&self, sale: &Sale, stock: &[u32]) -> Snapshot {
        let stock: Vec<Units> = stock.iter().map(|count| units(*count)).collect();
        assert!(matches!(self.ledger.create(sale, &stock).await.unwrap(), Creation::Created(_)));
        self.ledger.snapshot(&sale.id).await.unwrap().unwrap()
    }

    /// Creates the sale, loads it under epoch 1 and opens it.
    async fn open(&self, sale: &Sale, stock: &[u32]) {
        let snapshot = self.create(sale, stock).await;
        assert!(self.gate.load(&snapshot, ONE).await.unwrap());
        assert!(self.gate.open(&sale.id, ONE).await.unwrap());
    }

    /// Loads what the ledger knows now.
    async fn load(&self, epoch: Epoch) {
        let snapshot = self.ledger.snapshot(&sale_id("s")).await.unwrap().unwrap();
        assert!(self.gate.load(&snapshot, epoch).await.unwrap());
    }

    async fn admit(&self, claim: &Claim) -> Admission {
        self.gate.admit(claim).await.unwrap()
    }

    /// The pending claims, by their ids.
    async fn pending(&self) -> Vec<(Claim, Epoch)> {
        let mut pending = self.gate.pending(&sale_id("s")).await.unwrap();
        pending.sort_by_key(|(claim, _)| claim.id());
        pending
    }

    /// Available and pending, per SKU.
    async fn counts(&self) -> Vec<(u32, u32)> {
        let view = self.gate.view(&sale_id("s")).await.unwrap().unwrap();
        view.items.iter().map(|item| (item.available.get(), item.pending.get())).collect()
    }

    async fn settle(&self, claims: &[&Claim]) -> Vec<Move> {
        let messages: Vec<_> = claims.iter().map(|claim| message((*claim).clone(), 1)).collect();
        self.ledger.settle(&messages).await.unwrap().moves.into_iter().flat_map(|list| list.moves).collect()
    }

    async fn follow(&self, moves: &[Move]) -> Option<Seq> {
        self.gate.follow(&sale_id("s"), ONE, moves).await.unwrap()
    }

    async fn turn(&self, id: OrderId, turn: Turn) -> Vec<Move> {
        match self.ledger.turn(id, turn).await.unwrap() {
            Turned::Done(_, moves) => moves.moves,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that is in the journal and not yet at the gate.
    async fn catch_up(&self) {
        let view = self.gate.view(&sale_id("s")).await.unwrap().unwrap();
        let moves = self.ledger.journal(&sale_id("s"), view.watermark, 100).await.unwrap();
        self.gate.follow(&sale_id("s"), view.epoch, &moves).await.unwrap();
    }
}

fn one(number: u8) -> Claim {
    claim(order(number, &[("a", 1)]))
}

fn repeat(claim: &Claim) -> Admission {
    Admission::Repeat(Some((claim.clone(), ONE)))
}

fn sold_out(name: &str, may_return: bool) -> Admission {
    Admission::Refused(Refusal::SoldOut { sku: sku(name), may_return })
}

async fn an_unknown_sale_is_unloaded_and_never_sold_out(hall: Hall) {
    assert_eq!(hall.admit(&one(1)).await, Admission::Unloaded);
    assert_eq!(hall.gate.view(&sale_id("s")).await.unwrap(), None);
    assert_eq!(hall.gate.pending(&sale_id("s")).await.unwrap(), []);
    assert_eq!(hall.gate.find(&sale_id("s"), id(1)).await.unwrap(), None);
    assert_eq!(hall.follow(&[]).await, None);
    assert!(!hall.gate.open(&sale_id("s"), ONE).await.unwrap());
}

async fn a_loaded_sale_is_closed_until_it_is_opened(hall: Hall) {
    let snapshot = hall.create(&sale("s", &["a"]), &[0]).await;
    assert!(hall.gate.load(&snapshot, ONE).await.unwrap());
    assert_eq!(hall.admit(&one(1)).await, Admission::Unloaded);
    let view = hall.gate.view(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!((view.epoch, view.live, view.watermark, view.pending), (ONE, false, Seq(1), 0));
}

async fn opening_concerns_one_epoch_and_may_be_repeated(hall: Hall) {
    let snapshot = hall.create(&sale("s", &["a"]), &[1]).await;
    hall.gate.load(&snapshot, Epoch(2)).await.unwrap();
    for wrong in [Epoch(1), Epoch(3)] {
        assert!(!hall.gate.open(&sale_id("s"), wrong).await.unwrap());
    }
    assert_eq!(hall.admit(&one(1)).await, Admission::Unloaded);
    for _second_time in 0..2 {
        assert!(hall.gate.open(&sale_id("s"), Epoch(2)).await.unwrap());
    }
    assert_eq!(hall.admit(&one(1)).await, Admission::Admitted(Epoch(2)));
    assert!(hall.gate.open(&sale_id("s"), Epoch(2)).await.unwrap());
    assert_eq!(hall.counts().await, [(0, 1)]);
}

async fn an_admitted_order_sets_its_units_aside(hall: Hall) {
    hall.open(&sale("s", &["a", "b"]), &[5, 5]).await;
    assert_eq!(hall.admit(&claim(order(1, &[("b", 2), ("a", 1)]))).await, Admission::Admitted(ONE));
    assert_eq!(hall.counts().await, [(4, 1), (3, 2)]);
}

async fn a_retry_takes_no_second_unit(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[2]).await;
    assert_eq!(hall.admit(&one(1)).await, Admission::Admitted(ONE));
    assert_eq!(hall.admit(&one(1)).await, repeat(&one(1)));
    assert_eq!(hall.counts().await, [(1, 1)]);
}

async fn a_retry_with_another_body_gets_the_first_one(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[5]).await;
    hall.admit(&one(1)).await;
    assert_eq!(hall.admit(&claim(order(1, &[("a", 3)]))).await, repeat(&one(1)));
    assert_eq!(hall.counts().await, [(4, 1)]);
}

async fn an_order_is_admitted_whole_or_not_at_all(hall: Hall) {
    hall.open(&sale("s", &["a", "b"]), &[5, 1]).await;
    assert_eq!(hall.admit(&claim(order(1, &[("a", 1), ("b", 2)]))).await, sold_out("b", false));
    assert_eq!(hall.counts().await, [(5, 0), (1, 0)]);
    assert_eq!(hall.admit(&claim(order(1, &[("a", 1), ("b", 1)]))).await, Admission::Admitted(ONE));
}

async fn sold_out_names_the_sku_and_says_whether_it_may_return(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[1]).await;
    hall.admit(&one(1)).await;
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", true), "while it is pending");
    hall.follow(&hall.settle(&[&one(1)]).await).await;
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", true), "while it is held");
    hall.follow(&hall.turn(id(1), Turn::Confirm).await).await;
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", false), "once it is sold");
}

async fn what_sells_at_once_does_not_return(hall: Hall) {
    hall.open(&Sale { hold_seconds: 0, ..sale("s", &["a"]) }, &[1]).await;
    hall.admit(&one(1)).await;
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", false));
}

async fn a_retry_is_never_sold_out(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[1]).await;
    hall.admit(&one(1)).await;
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", true));
    assert_eq!(hall.admit(&one(1)).await, repeat(&one(1)));
    hall.follow(&hall.settle(&[&one(1)]).await).await;
    assert_eq!(hall.admit(&one(1)).await, Admission::Repeat(None));
}

async fn what_is_refused_beforehand_is_refused_and_nothing_is_taken(hall: Hall) {
    let beforehand = async |claim: &Claim| {
        let Claim::Order(order) = claim else { unreachable!("an order") };
        hall.gate.refuse(order).await.unwrap()
    };
    assert_eq!(beforehand(&one(1)).await, None, "of an unknown sale nothing is known");
    hall.open(&sale("s", &["a"]), &[1]).await;
    assert_eq!(beforehand(&one(1)).await, None);
    assert_eq!(hall.admit(&one(1)).await, Admission::Admitted(ONE), "asking took nothing");
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", true));
    let refused = beforehand(&one(2)).await.map(Admission::Refused);
    assert_eq!(refused, Some(sold_out("a", true)), "what was sold out a moment ago is told without taking");
    assert_eq!(beforehand(&one(1)).await, None, "a retry is never sold out");
    assert_eq!(hall.counts().await, [(0, 1)]);
}

async fn the_limit_counts_all_units_of_a_customer(hall: Hall) {
    let limit = units(3);
    hall.open(&Sale { per_customer_limit: Some(limit), ..sale("s", &["a", "b"]) }, &[9, 9]).await;
    assert_eq!(hall.admit(&claim(order_by("one", 1, &[("a", 1), ("b", 1)]))).await, Admission::Admitted(ONE));
    let refused = Admission::Refused(Refusal::LimitReached { limit, used: units(2) });
    assert_eq!(hall.admit(&claim(order_by("one", 2, &[("a", 2)]))).await, refused);
    assert_eq!(hall.admit(&claim(order_by("one", 3, &[("a", 1)]))).await, Admission::Admitted(ONE));
    assert_eq!(hall.admit(&claim(order_by("other", 4, &[("a", 3)]))).await, Admission::Admitted(ONE));
    assert_eq!(hall.counts().await, [(4, 5), (8, 1)]);
}

async fn what_lapses_counts_no_more_for_the_limit(hall: Hall) {
    hall.open(&Sale { per_customer_limit: Some(units(1)), ..sale("s", &["a"]) }, &[9]).await;
    let first = claim(order_by("one", 1, &[("a", 1)]));
    hall.admit(&first).await;
    hall.follow(&hall.settle(&[&first]).await).await;
    hall.clock.pass(HOLD_MS);
    hall.ledger.lapse(10).await.unwrap();
    hall.catch_up().await;
    assert_eq!(hall.admit(&claim(order_by("one", 2, &[("a", 1)]))).await, Admission::Admitted(ONE));
}

async fn the_window_decides_when_orders_are_admitted(hall: Hall) {
    let mut scheduled = sale("s", &["a"]);
    let opens_at = Some(Time::from_millis(1_800_000_001_000));
    scheduled.window.opens_at = opens_at;
    hall.open(&scheduled, &[9]).await;
    assert_eq!(hall.admit(&one(1)).await, Admission::Refused(Refusal::NotOpen { opens_at }));
    hall.clock.pass(999);
    assert_eq!(hall.admit(&one(1)).await, Admission::Refused(Refusal::NotOpen { opens_at }));
    hall.clock.pass(1);
    assert_eq!(hall.admit(&one(1)).await, Admission::Admitted(ONE));
}

async fn an_ended_sale_admits_nobody(hall: Hall) {
    let mut short = sale("s", &["a"]);
    short.window.closes_at = Some(Time::from_millis(1_800_000_001_000));
    hall.open(&short, &[1]).await;
    hall.clock.pass(999);
    assert_eq!(hall.admit(&one(1)).await, Admission::Admitted(ONE));
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", true));
    hall.clock.pass(1);
    assert_eq!(hall.admit(&one(2)).await, Admission::Refused(Refusal::Ended));
    assert_eq!(hall.admit(&one(1)).await, repeat(&one(1)));
}

async fn a_withdrawal_needs_no_window_and_no_limit(hall: Hall) {
    let mut draft = Sale { per_customer_limit: Some(units(1)), ..sale("s", &["a"]) };
    draft.window.phase = Phase::Draft;
    hall.open(&draft, &[9]).await;
    assert_eq!(hall.admit(&one(1)).await, Admission::Refused(Refusal::NotOpen { opens_at: None }));
    assert_eq!(hall.admit(&withdrawal(2, "a", 4)).await, Admission::Admitted(ONE));
    assert_eq!(hall.admit(&withdrawal(2, "a", 4)).await, repeat(&withdrawal(2, "a", 4)));
    assert_eq!(hall.counts().await, [(5, 4)]);
}

async fn a_withdrawal_takes_no_more_than_there_is(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[3]).await;
    assert!(matches!(hall.admit(&withdrawal(1, "a", 4)).await, Admission::Refused(Refusal::SoldOut { .. })));
    assert_eq!(hall.counts().await, [(3, 0)]);
}

async fn loading_carries_over_what_is_pending_and_not_in_the_ledger(hall: Hall) {
    hall.open(&Sale { per_customer_limit: Some(units(2)), ..sale("s", &["a", "b"]) }, &[6, 1]).await;
    let (mine, settled) = (claim(order_by("me", 1, &[("a", 1)])), claim(order_by("me", 2, &[("b", 1)])));
    for claim in [&mine, &settled, &withdrawal(3, "a", 2)] {
        assert_eq!(hall.admit(claim).await, Admission::Admitted(ONE));
    }
    hall.settle(&[&settled]).await;
    // What was admitted in time is carried over, whatever became of the window.
    hall.ledger.steer(&sale_id("s"), Verb::Pause).await.unwrap();
    hall.load(Epoch(2)).await;
    assert_eq!(hall.pending().await, [(mine.clone(), Epoch(2)), (withdrawal(3, "a", 2), Epoch(2))]);
    assert_eq!(hall.counts().await, [(3, 3), (0, 0)]);
    // A claim may be pushed under an epoch that is live, and under no other.
    assert_eq!(hall.admit(&mine).await, Admission::Unloaded);
    assert_eq!(hall.admit(&settled).await, Admission::Repeat(None));
    assert_eq!(hall.gate.find(&sale_id("s"), id(1)).await.unwrap(), Some((mine.clone(), Epoch(2))));
    assert!(hall.gate.open(&sale_id("s"), Epoch(2)).await.unwrap());
    assert_eq!(hall.admit(&mine).await, Admission::Repeat(Some((mine, Epoch(2)))));
    hall.ledger.steer(&sale_id("s"), Verb::Resume).await.unwrap();
    hall.catch_up().await;
    let refused = Admission::Refused(Refusal::LimitReached { limit: units(2), used: units(2) });
    assert_eq!(hall.admit(&claim(order_by("me", 4, &[("a", 1)]))).await, refused);
    assert_eq!(hall.admit(&claim(order(5, &[("a", 2)]))).await, Admission::Admitted(Epoch(2)));
    assert_eq!(hall.counts().await, [(1, 5), (0, 0)]);
}

async fn loading_forgets_what_the_ledger_has_no_room_for(hall: Hall) {
    hall.open(&Sale { per_customer_limit: Some(units(2)), ..sale("s", &["a", "b"]) }, &[3, 9]).await;
    for claim in [claim(order(1, &[("a", 1), ("b", 1)])), claim(order_by("me", 2, &[("b", 1)])), one(3)] {
        assert_eq!(hall.admit(&claim).await, Admission::Admitted(ONE));
    }
    // Another gate admitted these; one unit is left for the two that want one, and nothing more for this customer.
    hall.settle(&[&claim(order_by("me", 8, &[("b", 2)])), &claim(order(9, &[("a", 2)]))]).await;
    hall.load(Epoch(2)).await;
    let pending = hall.pending().await;
    assert_eq!(pending.len(), 1, "{pending:?}");
    let units_of_b = u32::from(pending[0].0.id() == id(1));
    assert_eq!(hall.counts().await, [(0, 1), (7 - units_of_b, units_of_b)]);
    hall.gate.open(&sale_id("s"), Epoch(2)).await.unwrap();
    let refused = Admission::Refused(Refusal::LimitReached { limit: units(2), used: units(2) });
    assert_eq!(hall.admit(&claim(order_by("me", 2, &[("b", 1)]))).await, refused);
}

async fn what_was_carried_over_is_settled_like_any_other(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[2]).await;
    hall.admit(&one(1)).await;
    // Also from a gate that was loaded and never opened.
    for epoch in [2, 3] {
        hall.load(Epoch(epoch)).await;
    }
    hall.gate.open(&sale_id("s"), Epoch(3)).await.unwrap();
    hall.settle(&[&one(1)]).await;
    hall.catch_up().await;
    assert_eq!((hall.counts().await, hall.pending().await), (vec![(1, 0)], vec![]));
    hall.load(Epoch(4)).await;
    assert_eq!((hall.counts().await, hall.pending().await), (vec![(1, 0)], vec![]));
}

async fn an_epoch_is_loaded_once(hall: Hall) {
    let snapshot = hall.create(&sale("s", &["a"]), &[2]).await;
    hall.gate.load(&snapshot, Epoch(2)).await.unwrap();
    hall.gate.open(&sale_id("s"), Epoch(2)).await.unwrap();
    hall.admit(&one(1)).await;
    for epoch in [Epoch(1), Epoch(2)] {
        assert!(!hall.gate.load(&snapshot, epoch).await.unwrap());
    }
    let view = hall.gate.view(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!((view.epoch, view.live, view.pending), (Epoch(2), true, 1));
}

async fn a_settled_order_is_known_after_loading(hall: Hall) {
    hall.create(&Sale { per_customer_limit: Some(units(1)), ..sale("s", &["a"]) }, &[2]).await;
    hall.settle(&[&claim(order_by("one", 1, &[("a", 1)]))]).await;
    let snapshot = hall.ledger.snapshot(&sale_id("s")).await.unwrap().unwrap();
    hall.gate.load(&snapshot, ONE).await.unwrap();
    hall.gate.open(&sale_id("s"), ONE).await.unwrap();
    assert_eq!(hall.admit(&claim(order_by("one", 1, &[("a", 1)]))).await, Admission::Repeat(None));
    let refused = Admission::Refused(Refusal::LimitReached { limit: units(1), used: units(1) });
    assert_eq!(hall.admit(&claim(order_by("one", 2, &[("a", 1)]))).await, refused);
    assert_eq!(hall.counts().await, [(1, 0)]);
}

async fn following_applies_each_move_once(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[3]).await;
    hall.admit(&one(1)).await;
    let moves = [hall.settle(&[&one(1)]).await, hall.turn(id(1), Turn::Cancel).await].concat();
    assert_eq!(hall.follow(&moves[..1]).await, Some(Seq(2)));
    for _second_time in 0..3 {
        assert_eq!(hall.follow(&moves).await, Some(Seq(3)));
        assert_eq!(hall.counts().await, [(3, 0)]);
    }
    assert_eq!(hall.follow(&moves[..1]).await, Some(Seq(3)));
    assert_eq!(hall.counts().await, [(3, 0)]);
}

async fn moves_behind_a_gap_change_nothing(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[3]).await;
    hall.admit(&one(1)).await;
    hall.settle(&[&one(1)]).await;
    let later = hall.turn(id(1), Turn::Cancel).await;
    assert_eq!(hall.follow(&later).await, Some(Seq(1)));
    assert_eq!(hall.counts().await, [(2, 1)]);
}

async fn moves_of_another_epoch_change_nothing(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[3]).await;
    hall.admit(&one(1)).await;
    let moves = hall.settle(&[&one(1)]).await;
    for wrong in [Epoch(0), Epoch(2)] {
        assert_eq!(hall.gate.follow(&sale_id("s"), wrong, &moves).await.unwrap(), None);
    }
    assert_eq!(hall.counts().await, [(2, 1)]);
}

async fn a_settled_order_is_no_longer_pending(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[3]).await;
    hall.admit(&one(1)).await;
    hall.follow(&hall.settle(&[&one(1)]).await).await;
    assert_eq!(hall.counts().await, [(2, 0)]);
    assert_eq!(hall.gate.find(&sale_id("s"), id(1)).await.unwrap(), None);
    assert_eq!(hall.admit(&one(1)).await, Admission::Repeat(None));
}

async fn what_comes_back_is_admitted_again(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[1]).await;
    for number in [1, 2] {
        assert_eq!(hall.admit(&one(number)).await, Admission::Admitted(ONE));
        assert_eq!(hall.admit(&one(9)).await, sold_out("a", true));
        hall.follow(&hall.settle(&[&one(number)]).await).await;
        hall.follow(&hall.turn(id(number), Turn::Cancel).await).await;
    }
    hall.admit(&one(3)).await;
    hall.follow(&hall.settle(&[&one(3)]).await).await;
    hall.clock.pass(HOLD_MS);
    hall.ledger.lapse(10).await.unwrap();
    hall.catch_up().await;
    assert_eq!(hall.admit(&one(4)).await, Admission::Admitted(ONE));
}

async fn additions_and_withdrawals_arrive(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[1]).await;
    hall.admit(&one(1)).await;
    assert_eq!(hall.admit(&one(2)).await, sold_out("a", true));
    hall.ledger.add(&addition(10, "a", 2)).await.unwrap();
    hall.catch_up().await;
    assert_eq!(hall.counts().await, [(2, 1)]);
    assert_eq!(hall.admit(&withdrawal(11, "a", 1)).await, Admission::Admitted(ONE));
    hall.settle(&[&withdrawal(11, "a", 1)]).await;
    hall.catch_up().await;
    assert_eq!(hall.counts().await, [(1, 1)]);
    assert_eq!(hall.admit(&withdrawal(11, "a", 1)).await, Admission::Repeat(None));
}

async fn the_sales_verbs_arrive(hall: Hall) {
    let mut draft = sale("s", &["a"]);
    draft.window.phase = Phase::Draft;
    hall.open(&draft, &[9]).await;
    let verbs = [
        (Verb::Open, Admission::Admitted(ONE)),
        (Verb::Pause, Admission::Refused(Refusal::Paused)),
        (Verb::Resume, Admission::Admitted(ONE)),
        (Verb::Close, Admission::Refused(Refusal::Ended)),
    ];
    for (number, (verb, admission)) in (1..).zip(verbs) {
        hall.ledger.steer(&sale_id("s"), verb).await.unwrap();
        hall.catch_up().await;
        assert_eq!(hall.admit(&one(number)).await, admission, "{verb:?}");
    }
}

async fn an_order_that_others_admitted_is_followed(hall: Hall) {
    hall.open(&Sale { per_customer_limit: Some(units(1)), ..sale("s", &["a"]) }, &[2]).await;
    let others = claim(order_by("one", 1, &[("a", 1)]));
    hall.follow(&hall.settle(&[&others]).await).await;
    assert_eq!(hall.counts().await, [(1, 0)]);
    assert_eq!(hall.admit(&others).await, Admission::Repeat(None));
    let refused = Admission::Refused(Refusal::LimitReached { limit: units(1), used: units(1) });
    assert_eq!(hall.admit(&claim(order_by("one", 2, &[("a", 1)]))).await, refused);
}

/// The ledger contradicts what the gate believed, so the gate must be loaded anew.
async fn a_refused_order_closes_the_gate(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[1]).await;
    hall.admit(&one(1)).await;
    let moves = hall.settle(&[&one(2), &one(1)]).await;
    hall.follow(&moves).await;
    assert!(!hall.gate.view(&sale_id("s")).await.unwrap().unwrap().live);
    assert_eq!(hall.admit(&one(3)).await, Admission::Unloaded);
}

async fn pending_claims_are_listed_with_their_epoch(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[3]).await;
    hall.admit(&one(1)).await;
    hall.admit(&withdrawal(2, "a", 1)).await;
    assert_eq!(hall.pending().await, [(one(1), ONE), (withdrawal(2, "a", 1), ONE)]);
    assert_eq!(hall.gate.find(&sale_id("s"), id(1)).await.unwrap(), Some((one(1), ONE)));
    assert_eq!(hall.gate.find(&sale_id("s"), id(9)).await.unwrap(), None);
    assert_eq!(hall.gate.view(&sale_id("s")).await.unwrap().unwrap().pending, 2);
}

async fn two_sales_do_not_touch(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[1]).await;
    hall.open(&sale("other", &["a"]), &[5]).await;
    hall.admit(&one(1)).await;
    let other = hall.gate.view(&sale_id("other")).await.unwrap().unwrap();
    assert_eq!((other.items[0].available, other.pending), (units(5), 0));
}

async fn at_every_watermark_available_and_pending_are_the_ledgers_available(hall: Hall) {
    hall.open(&sale("s", &["a"]), &[5]).await;
    for number in 1..=4 {
        hall.admit(&one(number)).await;
    }
    hall.settle(&[&one(1), &one(2)]).await;
    hall.turn(id(1), Turn::Cancel).await;
    hall.ledger.add(&addition(10, "a", 3)).await.unwrap();
    let moves = hall.ledger.journal(&sale_id("s"), Seq(1), 100).await.unwrap();
    for (step, available) in moves.iter().zip([4, 3, 4, 7]) {
        hall.follow(std::slice::from_ref(step)).await;
        let [(here, pending)] = hall.counts().await[..] else { panic!("one SKU") };
        assert_eq!(here + pending, available, "at #{}", step.seq);
    }
}
