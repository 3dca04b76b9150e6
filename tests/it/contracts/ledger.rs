//! The ledger's promise, sentence by sentence.

use std::time::Duration;

use sluice::ledger::{
    Added, Creation, EpochStage, EpochState, EpochStep, Lapses, Ledger, Move, MoveKind, OrderFilter, SaleRecord,
    Settlement, Steered, Turn, Turned, Verdict,
};
use sluice::model::{Claim, Customer, Epoch, Order, OrderState, Phase, Places, Reason, Sale, Seq, Units, Verb, limits};
use sluice::queue::{Body, Message};

use super::Bench;
use crate::words::{
    HOLD_MS, addition, claim, id, line, marker, message, order, order_by, sale, sale_id, sku, units, withdrawal,
};

macro_rules! ledger_contract {
    ($name:ident) => {
        mod $name {
            crate::contracts::sentences! { crate::contracts::$name;
                a_new_sale_has_all_units_available
                creating_twice_changes_nothing
                sales_are_listed_newest_first
                a_verb_is_written_down_once
                a_verb_in_the_wrong_state_changes_nothing
                an_accepted_order_is_held_for_its_time
                a_sale_without_holds_sells_at_once
                a_claim_is_settled_once
                an_order_is_settled_whole_or_refused
                the_limit_counts_what_is_held_and_sold
                an_order_is_settled_whatever_the_window_says
                messages_are_decided_in_their_sequence
                what_nobody_knows_is_unknown
                a_claim_of_a_closed_epoch_is_late_and_its_id_stays_free
                a_marker_closes_only_the_epoch_that_is_reloading
                a_sweep_is_noted_and_never_goes_back
                epochs_go_up_one_by_one
                a_loader_shows_that_it_is_alive
                only_a_closed_epoch_becomes_live
                a_withdrawal_takes_what_is_available
                an_addition_is_done_once
                the_stock_has_a_limit
                a_hold_is_confirmed_once
                a_hold_is_cancelled_once
                what_is_sold_is_not_cancelled_and_what_is_cancelled_is_not_sold
                a_hold_that_ran_out_is_not_confirmed
                an_unknown_order_is_not_turned
                due_holds_lapse_oldest_first
                what_lapsed_counts_no_more_for_the_limit
                the_journal_has_every_move_without_gaps
                orders_are_listed_page_by_page
                a_snapshot_is_everything_a_gate_needs
                a_recount_of_an_honest_sale_finds_nothing
                nobody_knows_anything_of_an_unknown_sale
            }
        }
    };
}

ledger_contract!(model_ledger);
ledger_contract!(sqlite_ledger);
ledger_contract!(postgres_ledger);

type Tested = Bench<dyn Ledger>;

impl Bench<dyn Ledger> {
    async fn sale_with(&self, sale: &Sale, stock: &[u32]) -> SaleRecord {
        let stock: Vec<Units> = stock.iter().map(|count| units(*count)).collect();
        match self.create(sale, &stock).await.unwrap() {
            Creation::Created(record) => record,
            Creation::Exists(record) => panic!("{record:?}"),
        }
    }

    async fn record(&self) -> SaleRecord {
        self.sale(&sale_id("s")).await.unwrap().unwrap()
    }

    /// Stock, available, held and sold of the first item.
    async fn places(&self) -> [u32; 4] {
        let Places { stock, available, held, sold } = self.record().await.places[0];
        [stock, available, held, sold].map(Units::get)
    }

    async fn settled(&self, claims: &[Claim]) -> Settlement {
        let messages: Vec<Message> = claims.iter().map(|claim| message(claim.clone(), 1)).collect();
        self.settle(&messages).await.unwrap()
    }

    async fn kinds(&self) -> Vec<MoveKind> {
        let moves = self.journal(&sale_id("s"), Seq(0), 100).await.unwrap();
        moves.iter().map(|step| step.kind).collect()
    }

    async fn turned(&self, number: u8, turn: Turn) -> Turned {
        Ledger::turn(&*self.tested, id(number), turn).await.unwrap()
    }
}

fn one(number: u8) -> Claim {
    claim(order(number, &[("a", 1)]))
}

fn by(who: &str, number: u8) -> Claim {
    claim(order_by(who, number, &[("a", 1)]))
}

async fn a_new_sale_has_all_units_available(ledger: Tested) {
    let record = ledger.sale_with(&sale("s", &["a", "b"]), &[5, 0]).await;
    assert_eq!(record.places, [Places::fresh(units(5)), Places::fresh(units(0))]);
    assert_eq!((record.watermark, record.swept), (Seq(2), None));
    assert_eq!(record.epoch, EpochState { epoch: Epoch(0), stage: EpochStage::Closed, closed: Epoch(0), beats: 0 });
    assert_eq!(record, ledger.record().await);
    let moves = ledger.journal(&sale_id("s"), Seq(0), 10).await.unwrap();
    let lines: Vec<_> = moves.iter().map(|step| (step.kind, step.claim, step.lines.clone())).collect();
    let added = |name, count| (MoveKind::Add, None, vec![line(name, count)]);
    assert_eq!(lines, [added("a", 5), added("b", 0)]);
}

async fn creating_twice_changes_nothing(ledger: Tested) {
    let record = ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let again = ledger.create(&sale("s", &["b", "c"]), &[units(9), units(9)]).await.unwrap();
    assert_eq!(again, Creation::Exists(record.clone()));
    assert_eq!(ledger.record().await, record);
}

async fn sales_are_listed_newest_first(ledger: Tested) {
    assert_eq!(ledger.sales().await.unwrap(), []);
    for name in ["s", "t", "r"] {
        ledger.sale_with(&sale(name, &["a"]), &[1]).await;
        ledger.clock.pass(1);
    }
    let sales = ledger.sales().await.unwrap();
    let names: Vec<&str> = sales.iter().map(|record| record.sale.id.as_str()).collect();
    assert_eq!(names, ["r", "t", "s"]);
}

async fn a_verb_is_written_down_once(ledger: Tested) {
    let mut draft = sale("s", &["a"]);
    draft.window.phase = Phase::Draft;
    ledger.sale_with(&draft, &[1]).await;
    for verb in [Verb::Open, Verb::Pause, Verb::Resume, Verb::Close] {
        for _second_time in 0..2 {
            ledger.clock.pass(10);
            let Steered::Done(record) = ledger.steer(&sale_id("s"), verb).await.unwrap() else { panic!("{verb:?}") };
            assert_eq!(record, ledger.record().await);
        }
    }
    let kinds = [MoveKind::Add, MoveKind::Open, MoveKind::Pause, MoveKind::Resume, MoveKind::Close];
    assert_eq!(ledger.kinds().await, kinds);
    assert_eq!(ledger.places().await, [1, 1, 0, 0]);
}

async fn a_verb_in_the_wrong_state_changes_nothing(ledger: Tested) {
    let record = ledger.sale_with(&sale("s", &["a"]), &[1]).await;
    ledger.steer(&sale_id("s"), Verb::Close).await.unwrap();
    for verb in [Verb::Open, Verb::Pause, Verb::Resume] {
        assert!(matches!(ledger.steer(&sale_id("s"), verb).await.unwrap(), Steered::WrongState(_)));
    }
    assert_eq!(ledger.record().await.watermark, record.watermark.next());
    assert_eq!(ledger.steer(&sale_id("other"), Verb::Open).await.unwrap(), Steered::UnknownSale);
}

async fn an_accepted_order_is_held_for_its_time(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a", "b"]), &[5, 5]).await;
    ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
    let lines = [("b", 2), ("a", 1)];
    let settlement = ledger.settled(&[claim(order(1, &lines))]).await;
    assert_eq!(settlement.verdicts, [Verdict::Settled]);
    let now = sluice::clock::Clock::now(&*ledger.clock);
    let step = Move {
        seq: Seq(3),
        at: now,
        kind: MoveKind::Hold,
        claim: Some(id(1)),
        customer: Some(Customer::new("customer 1").unwrap()),
        lines: vec![line("b", 2), line("a", 1)],
    };
    assert_eq!(settlement.moves.len(), 1);
    assert_eq!((&settlement.moves[0].sale, settlement.moves[0].epoch), (&sale_id("s"), Epoch(1)));
    assert_eq!(settlement.moves[0].moves, [step]);
    let record = ledger.order(id(1)).await.unwrap().unwrap();
    assert_eq!(record.order, order(1, &lines));
    assert_eq!((record.state, record.reason, record.settled_at), (OrderState::Held, None, Some(now)));
    assert_eq!((record.expires_at, record.seq), (Some(now.after(Duration::from_millis(HOLD_MS))), Some(Seq(3))));
    assert_eq!(ledger.places().await, [5, 4, 1, 0]);
}

async fn a_sale_without_holds_sells_at_once(ledger: Tested) {
    ledger.sale_with(&Sale { hold_seconds: 0, ..sale("s", &["a"]) }, &[5]).await;
    ledger.settled(&[one(1)]).await;
    let record = ledger.order(id(1)).await.unwrap().unwrap();
    assert_eq!((record.state, record.expires_at), (OrderState::Sold, None));
    assert_eq!(ledger.places().await, [5, 4, 0, 1]);
    assert_eq!(ledger.kinds().await, [MoveKind::Add, MoveKind::Sell]);
}

async fn a_claim_is_settled_once(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let settlement = ledger.settled(&[one(1), one(1)]).await;
    assert_eq!(settlement.verdicts, [Verdict::Settled, Verdict::Known]);
    let again = ledger.settled(&[one(1), claim(order(1, &[("a", 3)]))]).await;
    assert_eq!(again, Settlement { verdicts: vec![Verdict::Known, Verdict::Known], moves: vec![] });
    assert_eq!(ledger.places().await, [5, 4, 1, 0]);
}

async fn an_order_is_settled_whole_or_refused(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a", "b"]), &[5, 1]).await;
    let too_much = claim(order(1, &[("a", 1), ("b", 2)]));
    let settlement = ledger.settled(std::slice::from_ref(&too_much)).await;
    assert_eq!(settlement.verdicts, [Verdict::Refused(Reason::SoldOut)]);
    let record = ledger.order(id(1)).await.unwrap().unwrap();
    assert_eq!((record.state, record.reason), (OrderState::Refused, Some(Reason::SoldOut)));
    assert_eq!((record.expires_at, record.seq), (None, Some(Seq(3))));
    assert_eq!(ledger.places().await, [5, 5, 0, 0]);
    assert_eq!(ledger.settled(&[too_much]).await.verdicts, [Verdict::Known]);
    assert_eq!(ledger.kinds().await, [MoveKind::Add, MoveKind::Add, MoveKind::Refuse]);
}

async fn the_limit_counts_what_is_held_and_sold(ledger: Tested) {
    ledger.sale_with(&Sale { per_customer_limit: Some(units(2)), ..sale("s", &["a"]) }, &[9]).await;
    ledger.settled(&[by("one", 1), by("one", 2)]).await;
    ledger.turned(1, Turn::Confirm).await;
    let settlement = ledger.settled(&[by("one", 3), by("other", 4)]).await;
    assert_eq!(settlement.verdicts, [Verdict::Refused(Reason::CustomerLimit), Verdict::Settled]);
    ledger.turned(2, Turn::Cancel).await;
    assert_eq!(
        ledger.settled(&[by("one", 5), by("one", 6)]).await.verdicts,
        [Verdict::Settled, Verdict::Refused(Reason::CustomerLimit)]
    );
}

async fn an_order_is_settled_whatever_the_window_says(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    ledger.steer(&sale_id("s"), Verb::Pause).await.unwrap();
    assert_eq!(ledger.settled(&[one(1)]).await.verdicts, [Verdict::Settled]);
    ledger.steer(&sale_id("s"), Verb::Close).await.unwrap();
    assert_eq!(ledger.settled(&[one(2)]).await.verdicts, [Verdict::Settled]);
}

async fn messages_are_decided_in_their_sequence(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[1]).await;
    ledger.sale_with(&sale("t", &["a"]), &[1]).await;
    let elsewhere = |number| claim(Order { sale: sale_id("t"), ..order(number, &[("a", 1)]) });
    let settlement = ledger.settled(&[one(1), elsewhere(11), one(2), elsewhere(12)]).await;
    let refused = Verdict::Refused(Reason::SoldOut);
    assert_eq!(settlement.verdicts, [Verdict::Settled, Verdict::Settled, refused, refused]);
    for list in &settlement.moves {
        let kinds: Vec<MoveKind> = list.moves.iter().map(|step| step.kind).collect();
        assert_eq!(kinds, [MoveKind::Hold, MoveKind::Refuse], "{}", list.sale);
    }
    assert_eq!(settlement.moves.len(), 2);
}

async fn what_nobody_knows_is_unknown(ledger: Tested) {
    assert_eq!(ledger.settled(&[one(1)]).await.verdicts, [Verdict::Unknown]);
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let elsewhere = claim(order(2, &[("a", 1), ("b", 1)]));
    assert_eq!(ledger.settled(&[elsewhere, withdrawal(3, "b", 1)]).await.verdicts, [Verdict::Unknown; 2]);
    assert_eq!(ledger.order(id(2)).await.unwrap(), None);
    assert_eq!(ledger.places().await, [5, 5, 0, 0]);
    assert_eq!(ledger.settled(&[claim(order(2, &[("a", 1)]))]).await.verdicts, [Verdict::Settled]);
}

async fn closed_at_two(ledger: &Tested) {
    for _ in 0..2 {
        ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
    }
    assert_eq!(ledger.settle(&[marker(Body::Close, 2)]).await.unwrap().verdicts, [Verdict::Marker]);
}

async fn a_claim_of_a_closed_epoch_is_late_and_its_id_stays_free(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    ledger.settled(&[one(1)]).await;
    closed_at_two(&ledger).await;
    assert_eq!(ledger.settled(&[one(1), one(2)]).await.verdicts, [Verdict::Known, Verdict::Late]);
    assert_eq!(ledger.order(id(2)).await.unwrap(), None);
    ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
    assert_eq!(ledger.settled(&[one(2)]).await.verdicts, [Verdict::Late], "during a later reload, too");
    assert_eq!(ledger.settle(&[message(one(2), 2)]).await.unwrap().verdicts, [Verdict::Settled]);
    assert_eq!(ledger.places().await, [5, 3, 2, 0]);
}

async fn a_marker_closes_only_the_epoch_that_is_reloading(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let state = |epoch, stage, closed| EpochState { epoch: Epoch(epoch), stage, closed: Epoch(closed), beats: 0 };
    for _ in 0..2 {
        ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
    }
    ledger.settle(&[marker(Body::Close, 1), marker(Body::Close, 3)]).await.unwrap();
    assert_eq!(ledger.record().await.epoch, state(2, EpochStage::Reloading, 0));
    for _second_time in 0..2 {
        ledger.settle(&[marker(Body::Close, 2)]).await.unwrap();
        assert_eq!(ledger.record().await.epoch, state(2, EpochStage::Closed, 2));
    }
    ledger.step_epoch(&sale_id("s"), EpochStep::Live(Epoch(2))).await.unwrap();
    ledger.settle(&[marker(Body::Close, 2)]).await.unwrap();
    assert_eq!(ledger.record().await.epoch, state(2, EpochStage::Live, 2));
    assert_eq!(ledger.record().await.watermark, Seq(1));
}

async fn a_sweep_is_noted_and_never_goes_back(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    for (number, swept) in [(3, 3), (3, 3), (2, 3), (7, 7)] {
        let settlement = ledger.settle(&[marker(Body::Sweep(number), 1)]).await.unwrap();
        assert_eq!(settlement, Settlement { verdicts: vec![Verdict::Marker], moves: vec![] });
        assert_eq!(ledger.record().await.swept, Some(swept));
    }
}

async fn epochs_go_up_one_by_one(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    for epoch in 1..4 {
        let state = ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
        let raised = EpochState { epoch: Epoch(epoch), stage: EpochStage::Reloading, closed: Epoch(0), beats: 0 };
        assert_eq!(state, Some(raised));
        assert_eq!(ledger.record().await.epoch, raised);
    }
}

async fn a_loader_shows_that_it_is_alive(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let here = sale_id("s");
    let beat = async |epoch| ledger.step_epoch(&here, EpochStep::Beat(Epoch(epoch))).await.unwrap().unwrap().beats;
    ledger.step_epoch(&here, EpochStep::Raise).await.unwrap();
    assert_eq!([beat(1).await, beat(2).await, beat(1).await], [1, 1, 2]);
    ledger.settle(&[marker(Body::Close, 1)]).await.unwrap();
    assert_eq!((beat(1).await, ledger.record().await.epoch.beats), (3, 3));
    ledger.step_epoch(&here, EpochStep::Live(Epoch(1))).await.unwrap();
    assert_eq!(beat(1).await, 3);
    ledger.step_epoch(&here, EpochStep::Raise).await.unwrap();
    assert_eq!([beat(1).await, beat(2).await], [0, 1]);
}

async fn only_a_closed_epoch_becomes_live(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
    let here = sale_id("s");
    let live = |epoch| ledger.step_epoch(&here, EpochStep::Live(Epoch(epoch)));
    assert_eq!(live(1).await.unwrap().unwrap().stage, EpochStage::Reloading);
    ledger.settle(&[marker(Body::Close, 1)]).await.unwrap();
    assert_eq!(live(2).await.unwrap().unwrap().stage, EpochStage::Closed);
    for _second_time in 0..2 {
        assert_eq!(live(1).await.unwrap().unwrap().stage, EpochStage::Live);
    }
    ledger.step_epoch(&sale_id("s"), EpochStep::Raise).await.unwrap();
    assert_eq!(live(1).await.unwrap().unwrap().stage, EpochStage::Reloading);
}

async fn a_withdrawal_takes_what_is_available(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    ledger.settled(&[one(1)]).await;
    let settlement = ledger.settled(&[withdrawal(10, "a", 3), withdrawal(10, "a", 3)]).await;
    assert_eq!(settlement.verdicts, [Verdict::Settled, Verdict::Known]);
    assert_eq!(ledger.places().await, [2, 1, 1, 0]);
    let adjustment = ledger.adjustment(id(10)).await.unwrap().unwrap();
    assert_eq!((adjustment.delta, adjustment.sku, adjustment.stock), (-3, sku("a"), units(2)));
    assert_eq!((adjustment.seq, adjustment.reason.as_str()), (Seq(3), "a reason"));
    let refused = ledger.settled(&[withdrawal(11, "a", 2)]).await.verdicts;
    assert_eq!(refused, [Verdict::Refused(Reason::SoldOut)]);
    assert_eq!(ledger.adjustment(id(11)).await.unwrap(), None);
    ledger.add(&addition(12, "a", 5)).await.unwrap();
    assert_eq!(ledger.settled(&[withdrawal(11, "a", 2)]).await.verdicts, [Verdict::Known], "refused is decided");
    assert_eq!(ledger.places().await, [7, 6, 1, 0]);
    assert_eq!(ledger.recount(&sale_id("s")).await.unwrap().unwrap().findings, []);
}

async fn an_addition_is_done_once(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let Added::Done(adjustment, moves) = ledger.add(&addition(10, "a", 2)).await.unwrap() else { panic!("not done") };
    assert_eq!((adjustment.delta, adjustment.stock, adjustment.seq), (2, units(7), Seq(2)));
    assert_eq!((moves.moves[0].kind, moves.moves[0].claim), (MoveKind::Add, Some(id(10))));
    assert_eq!(ledger.add(&addition(10, "a", 9)).await.unwrap(), Added::Already(adjustment.clone()));
    assert_eq!(ledger.adjustment(id(10)).await.unwrap(), Some(adjustment));
    assert_eq!(ledger.places().await, [7, 7, 0, 0]);
    assert_eq!(ledger.add(&addition(11, "b", 1)).await.unwrap(), Added::Unknown);
}

async fn the_stock_has_a_limit(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[limits::STOCK_UNITS_MAX - 1]).await;
    assert_eq!(ledger.add(&addition(10, "a", 2)).await.unwrap(), Added::TooMany);
    assert!(matches!(ledger.add(&addition(10, "a", 1)).await.unwrap(), Added::Done(..)));
}

async fn a_hold_is_confirmed_once(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    ledger.settled(&[one(1)]).await;
    let Turned::Done(record, moves) = ledger.turned(1, Turn::Confirm).await else { panic!("not done") };
    assert_eq!((record.state, record.reason, record.seq), (OrderState::Sold, None, Some(Seq(3))));
    assert_eq!((moves.moves.len(), moves.moves[0].kind), (1, MoveKind::Confirm));
    assert_eq!(ledger.turned(1, Turn::Confirm).await, Turned::Already(record.clone()));
    assert_eq!(ledger.order(id(1)).await.unwrap(), Some(record));
    assert_eq!(ledger.places().await, [5, 4, 0, 1]);
}

async fn a_hold_is_cancelled_once(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    ledger.settled(&[one(1)]).await;
    let Turned::Done(record, moves) = ledger.turned(1, Turn::Cancel).await else { panic!("not done") };
    assert_eq!((record.state, record.reason), (OrderState::Released, Some(Reason::Cancelled)));
    assert_eq!(moves.moves[0].kind, MoveKind::Cancel);
    assert_eq!(ledger.turned(1, Turn::Cancel).await, Turned::Already(record));
    assert_eq!(ledger.places().await, [5, 5, 0, 0]);
}

async fn what_is_sold_is_not_cancelled_and_what_is_cancelled_is_not_sold(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[2]).await;
    ledger.settled(&[one(1), one(2), one(3)]).await;
    for (number, first, second) in [(1, Turn::Confirm, Turn::Cancel), (2, Turn::Cancel, Turn::Confirm)] {
        ledger.turned(number, first).await;
        assert!(matches!(ledger.turned(number, second).await, Turned::WrongState(_)));
    }
    for turn in [Turn::Confirm, Turn::Cancel] {
        assert!(matches!(ledger.turned(3, turn).await, Turned::WrongState(_)), "it was refused");
    }
    assert_eq!(ledger.places().await, [2, 1, 0, 1]);
}

async fn a_hold_that_ran_out_is_not_confirmed(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[2]).await;
    ledger.settled(&[one(1), one(2)]).await;
    ledger.clock.pass(HOLD_MS - 1);
    assert!(matches!(ledger.turned(2, Turn::Confirm).await, Turned::Done(..)));
    ledger.clock.pass(1);
    assert!(matches!(ledger.turned(1, Turn::Confirm).await, Turned::Lapsed(_)), "before it was given back");
    ledger.lapse(10).await.unwrap();
    for turn in [Turn::Confirm, Turn::Cancel] {
        assert!(matches!(ledger.turned(1, turn).await, Turned::Lapsed(_)), "after it was given back");
    }
    assert_eq!(ledger.places().await, [2, 1, 0, 1]);
}

async fn an_unknown_order_is_not_turned(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[2]).await;
    assert_eq!(ledger.turned(1, Turn::Confirm).await, Turned::Unknown);
    assert_eq!(ledger.turned(1, Turn::Cancel).await, Turned::Unknown);
}

async fn due_holds_lapse_oldest_first(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[9]).await;
    assert_eq!(ledger.lapse(10).await.unwrap(), Lapses::default());
    for number in [3, 1, 2] {
        ledger.settled(&[one(number)]).await;
        ledger.clock.pass(1_000);
    }
    let due = |number| {
        let ledger = &ledger;
        async move { ledger.order(id(number)).await.unwrap().unwrap().expires_at }
    };
    assert_eq!(ledger.lapse(10).await.unwrap(), Lapses { next_due: due(3).await, ..Lapses::default() });
    ledger.clock.pass(HOLD_MS - 1_500);
    let lapses = ledger.lapse(1).await.unwrap();
    assert_eq!((lapses.lags_ms, lapses.next_due), (vec![1_500], due(1).await));
    assert_eq!((lapses.moves[0].moves[0].kind, lapses.moves[0].moves[0].claim), (MoveKind::Lapse, Some(id(3))));
    let lapses = ledger.lapse(10).await.unwrap();
    assert_eq!((lapses.lags_ms, lapses.next_due), (vec![500], due(2).await));
    let record = ledger.order(id(1)).await.unwrap().unwrap();
    assert_eq!((record.state, record.reason), (OrderState::Released, Some(Reason::Lapsed)));
    assert_eq!(ledger.places().await, [9, 8, 1, 0]);
}

async fn what_lapsed_counts_no_more_for_the_limit(ledger: Tested) {
    ledger.sale_with(&Sale { per_customer_limit: Some(units(1)), ..sale("s", &["a"]) }, &[9]).await;
    ledger.settled(&[by("one", 1)]).await;
    ledger.clock.pass(HOLD_MS);
    ledger.lapse(10).await.unwrap();
    assert_eq!(ledger.settled(&[by("one", 2)]).await.verdicts, [Verdict::Settled]);
}

async fn the_journal_has_every_move_without_gaps(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[5]).await;
    let settled = ledger.settled(&[one(1), one(2)]).await.moves.remove(0).moves;
    let Turned::Done(_, turned) = ledger.turned(1, Turn::Cancel).await else { panic!("not done") };
    let Added::Done(_, added) = ledger.add(&addition(10, "a", 2)).await.unwrap() else { panic!("not done") };
    let all = [settled, turned.moves, added.moves].concat();
    assert_eq!(ledger.journal(&sale_id("s"), Seq(1), 100).await.unwrap(), all);
    assert_eq!(ledger.journal(&sale_id("s"), Seq(2), 2).await.unwrap(), all[1..3]);
    assert_eq!(ledger.journal(&sale_id("s"), Seq(5), 100).await.unwrap(), []);
    let numbers: Vec<u64> = all.iter().map(|step| step.seq.0).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert_eq!(ledger.record().await.watermark, Seq(5));
}

async fn orders_are_listed_page_by_page(ledger: Tested) {
    ledger.sale_with(&sale("s", &["a"]), &[3]).await;
    ledger.settled(&[by("one", 5), by("other", 4), by("one", 3), by("one", 2)]).await;
    ledger.turned(5, Turn::Confirm).await;
    let all = OrderFilter { sale: sale_id("s"), state: None, customer: None, after: Seq(0), limit: 10 };
    let list = |filter: OrderFilter| {
        let ledger = &ledger;
        async move {
            let page = ledger.orders(&filter).await.unwrap();
            (page.orders.iter().map(|record| record.order.id.0[0]).collect::<Vec<u8>>(), page.next)
        }
    };
    assert_eq!(list(all.clone()).await, (vec![5, 4, 3, 2], None));
    assert_eq!(list(OrderFilter { state: Some(OrderState::Held), ..all.clone() }).await.0, [4, 3]);
    let customer = Some(Customer::new("one").unwrap());
    assert_eq!(list(OrderFilter { customer: customer.clone(), ..all.clone() }).await.0, [5, 3, 2]);
    let refused = OrderFilter { customer, state: Some(OrderState::Refused), ..all.clone() };
    assert_eq!(list(refused).await.0, [2]);
    let (first, next) = list(OrderFilter { limit: 3, ..all.clone() }).await;
    assert_eq!(first, [5, 4, 3]);
    let rest = OrderFilter { after: next.expect("there is more"), limit: 1, ..all.clone() };
    assert_eq!(list(rest).await, (vec![2], None));
    let page = ledger.orders(&OrderFilter { limit: 1, ..all }).await.unwrap();
    assert_eq!(Some(page.orders[0].clone()), ledger.order(id(5)).await.unwrap());
}

async fn a_snapshot_is_everything_a_gate_needs(ledger: Tested) {
    ledger.sale_with(&Sale { per_customer_limit: Some(units(2)), ..sale("s", &["a"]) }, &[5]).await;
    ledger.settled(&[by("one", 1), by("one", 2), by("one", 3), by("other", 4), withdrawal(5, "a", 1)]).await;
    ledger.turned(4, Turn::Cancel).await;
    let mut snapshot = ledger.snapshot(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!(snapshot.record, ledger.record().await);
    assert_eq!(snapshot.used, [(Customer::new("one").unwrap(), units(2))]);
    snapshot.known.sort();
    assert_eq!(snapshot.known, [id(1), id(2), id(3), id(4), id(5)]);
}

async fn a_recount_of_an_honest_sale_finds_nothing(ledger: Tested) {
    ledger.sale_with(&Sale { per_customer_limit: Some(units(3)), ..sale("s", &["a", "b"]) }, &[5, 5]).await;
    ledger.settled(&[one(1), claim(order(2, &[("b", 1), ("a", 2)])), withdrawal(3, "b", 1), one(4)]).await;
    ledger.add(&addition(10, "a", 2)).await.unwrap();
    ledger.turned(1, Turn::Confirm).await;
    ledger.turned(2, Turn::Cancel).await;
    ledger.steer(&sale_id("s"), Verb::Pause).await.unwrap();
    ledger.clock.pass(HOLD_MS);
    ledger.lapse(10).await.unwrap();
    let recount = ledger.recount(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!(recount.findings, []);
    let record = ledger.record().await;
    assert_eq!(recount.watermark, record.watermark);
    for (item, places) in recount.items.iter().zip(&record.places) {
        assert_eq!((item.row, item.journal), (*places, *places));
    }
    let orders = [(OrderState::Sold, 1), (OrderState::Released, 2)];
    assert_eq!(recount.orders, orders.into_iter().collect());
}

async fn nobody_knows_anything_of_an_unknown_sale(ledger: Tested) {
    let nowhere = sale_id("s");
    assert_eq!(ledger.sale(&nowhere).await.unwrap(), None);
    assert_eq!(ledger.order(id(1)).await.unwrap(), None);
    assert_eq!(ledger.adjustment(id(1)).await.unwrap(), None);
    assert_eq!(ledger.journal(&nowhere, Seq(0), 10).await.unwrap(), []);
    assert_eq!(ledger.snapshot(&nowhere).await.unwrap(), None);
    assert_eq!(ledger.recount(&nowhere).await.unwrap(), None);
    assert_eq!(ledger.step_epoch(&nowhere, EpochStep::Raise).await.unwrap(), None);
    assert_eq!(ledger.add(&addition(1, "a", 1)).await.unwrap(), Added::Unknown);
    let all = OrderFilter { sale: nowhere, state: None, customer: None, after: Seq(0), limit: 10 };
    assert_eq!(ledger.orders(&all).await.unwrap(), sluice::ledger::OrderPage::default());
}
