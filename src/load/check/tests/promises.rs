//! Promises to customers that were not kept.

use super::*;

#[test]
fn an_exact_sale_is_exact() {
    let mut scene = Scene::new();
    scene.again(0, Kind::Retry, Outcome::Repeat);
    scene.again(4, Kind::Retry, Outcome::SoldOut);
    let check = scene.check();
    assert_eq!(check.violations, []);
    assert_eq!((check.verdict, check.promised, check.ended.held), (Verdict::Exact, 3, 3));
    assert_eq!((check.oversold, check.undersold, check.broken_promises, check.conserved), (0, 0, 0, true));
}

#[test]
fn a_sale_with_orders_on_their_way_is_unsettled() {
    let mut scene = Scene::new();
    scene.facts.settled = false;
    scene.facts.one_cut = false;
    scene.facts.orders.pop();
    assert_eq!(scene.check().verdict, Verdict::Unsettled);
}

#[test]
fn an_accepted_order_that_is_nowhere_is_lost() {
    let mut scene = Scene::new();
    scene.facts.orders.remove(1);
    scene.facts.one_cut = false;
    assert_eq!(scene.found(), [(Broken::Lost, vec![id(1)])]);
    assert_eq!(scene.check().broken_promises, 1);
}

#[test]
fn an_accepted_order_that_was_refused_is_a_broken_promise() {
    let mut scene = Scene::new();
    scene.facts.orders[1].state = OrderState::Refused;
    scene.place(1, 2, 0);
    assert_eq!(scene.found(), [(Broken::BrokenPromise, vec![id(1)])]);
    assert_eq!(scene.check().broken_promises, 1);
}

#[test]
fn an_order_that_nobody_gave_back_was_taken_away() {
    for reason in [Some(Reason::Cancelled), Some(Reason::Lapsed), None] {
        let mut scene = Scene::new();
        scene.release(reason);
        assert_eq!(scene.found(), [(Broken::TakenAway, vec![id(1)])], "{reason:?}");
    }
}

#[test]
fn an_order_may_be_given_back_by_its_holder_and_by_time() {
    let mut scene = Scene::new();
    scene.release(Some(Reason::Lapsed));
    scene.facts.orders[1].expires_at = Some(NOW);
    assert_eq!(scene.found(), []);
    let mut scene = Scene::new();
    scene.release(Some(Reason::Cancelled));
    scene.again(1, Kind::Cancel, Outcome::Cancelled);
    assert_eq!(scene.found(), []);
}

#[test]
fn another_customers_order_is_the_wrong_one() {
    let mut scene = Scene::new();
    scene.facts.orders[1].customer = Customer::new(&scene.crowd.customer(5)).unwrap();
    assert_eq!(scene.found(), [(Broken::WrongOrder, vec![id(1)])]);
}

#[test]
fn other_units_are_the_wrong_ones() {
    let mut scene = Scene::new();
    scene.facts.orders[1].lines[0].quantity = units(2);
    scene.facts.one_cut = false;
    scene.finds(Broken::WrongOrder, &[id(1)]);
}

#[test]
fn one_key_is_one_order() {
    let mut scene = Scene::new();
    scene.again(1, Kind::Retry, Outcome::Repeat);
    scene.records.last_mut().unwrap().order = Some(id(9));
    scene.list(1, id(9));
    scene.facts.one_cut = false;
    let found = scene.found();
    assert_eq!(found[0], (Broken::KeySplit, vec![id(1), id(9)]));
    assert!(found.iter().any(|(broken, _)| *broken == Broken::Oversold), "{found:?}");
}

#[test]
fn one_order_is_one_key() {
    let mut scene = Scene::new();
    scene.records[2].order = Some(id(1));
    let found = scene.found();
    assert!(found.contains(&(Broken::KeySplit, vec![id(1)])), "{found:?}");
}

#[test]
fn an_accepted_order_is_not_forgotten() {
    let mut scene = Scene::new();
    scene.again(1, Kind::Retry, Outcome::SoldOut);
    assert_eq!(scene.found(), [(Broken::Forgotten, vec![id(1)])]);
    let retry = scene.records.last_mut().unwrap();
    retry.sent_us = 1_200;
    assert_eq!(scene.found(), [], "a refusal at the same moment is one from before");
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let mut scene = Scene::new();
    scene.facts.orders.pop();
    scene.records.remove(2);
    scene.list(4, id(9));
    assert_eq!(scene.found(), [(Broken::LeftBehind, vec![id(9)])]);
    scene.records[3].effect = Effect::Unknown;
    assert_eq!(scene.found(), [], "an answer that left it open may have left an order");
    scene.records[3].effect = Effect::None;
    scene.facts.before.insert(id(9));
    assert_eq!(scene.found(), [], "it was there before");
}

#[test]
fn strangers_are_no_concern() {
    let mut scene = Scene::new();
    scene.alone = false;
    scene.facts.orders[1].customer = Customer::new("somebody").unwrap();
    scene.records.remove(1);
    assert_eq!(scene.found(), []);
}

#[test]
fn an_order_that_nobody_asked_for_is_found() {
    let mut scene = Scene::new();
    scene.facts.orders[1].customer = Customer::new("somebody").unwrap();
    scene.records.remove(1);
    assert_eq!(scene.found(), [(Broken::Unasked, vec![id(1)])]);
    let mut scene = Scene::new();
    scene.records.remove(1);
    assert_eq!(scene.found(), [(Broken::Unasked, vec![id(1)])], "the request was never sent");
}

#[test]
fn what_was_confirmed_is_sold() {
    let mut scene = Scene::new();
    scene.again(1, Kind::Confirm, Outcome::Confirmed);
    assert_eq!(scene.found(), [(Broken::ConfirmUndone, vec![id(1)])]);
    scene.facts.orders[1].state = OrderState::Sold;
    scene.place(0, 2, 1);
    assert_eq!(scene.found(), []);
}

#[test]
fn what_was_cancelled_is_released() {
    let mut scene = Scene::new();
    scene.again(1, Kind::Cancel, Outcome::Cancelled);
    assert_eq!(scene.found(), [(Broken::CancelUndone, vec![id(1)])]);
    scene.release(Some(Reason::Lapsed));
    scene.facts.orders[1].expires_at = Some(NOW);
    assert_eq!(scene.found(), [], "who cancels what has lapsed is told yes");
}

#[test]
fn another_cart_under_the_key_of_an_order_is_told_so() {
    let mut scene = Scene::new();
    scene.again(1, Kind::OtherCart, Outcome::KeyReused);
    assert_eq!(scene.found(), []);
    scene.again(1, Kind::OtherCart, Outcome::Unavailable);
    scene.records.last_mut().unwrap().order = None;
    assert_eq!(scene.found(), [], "who is told nothing is told nothing wrong");
    for outcome in [Outcome::Repeat, Outcome::Accepted, Outcome::SoldOut, Outcome::Refused] {
        let mut scene = Scene::new();
        scene.again(1, Kind::OtherCart, outcome);
        scene.finds(Broken::KeyReused, &[id(1)]);
    }
}

#[test]
fn a_gate_that_says_something_else_than_the_ledger_is_found() {
    let mut scene = Scene::new();
    scene.facts.items[0].gate = Some(units(1));
    assert_eq!(scene.found(), [(Broken::GateDiffers, vec![])]);
    scene.facts.items[0].gate = None;
    assert_eq!(scene.found(), [], "a sale that is over needs no gate");
}

#[test]
fn a_queue_that_is_not_empty_is_found() {
    let mut scene = Scene::new();
    scene.facts.waiting = Some(1);
    assert_eq!(scene.found(), [(Broken::Undrained, vec![])]);
    scene.alone = false;
    assert_eq!(scene.found(), [], "it may be somebody else's");
}

#[test]
fn no_order_is_listed_twice() {
    let mut scene = Scene::new();
    scene.list(1, id(1));
    scene.facts.one_cut = false;
    assert_eq!(scene.found(), [(Broken::Doubled, vec![id(1)])]);
}

#[test]
fn nobody_has_more_than_allowed() {
    let mut scene = Scene::new();
    scene.facts.per_customer_limit = Some(units(1));
    assert_eq!(scene.found(), []);
    for wish in [0, 1] {
        scene.crowd.wishes[wish].customer = 0;
        scene.facts.orders[wish].customer = Customer::new(&scene.crowd.customer(0)).unwrap();
    }
    scene.finds(Broken::CustomerLimit, &[id(0), id(1)]);
}

#[test]
fn more_promises_than_units_are_oversold() {
    let mut scene = Scene::new();
    scene.records[3] = Record { outcome: Outcome::Accepted, order: Some(id(3)), sold_out: None, ..scene.records[3] };
    scene.list(3, id(3));
    scene.facts.one_cut = false;
    scene.finds(Broken::Oversold, &[id(0), id(1), id(2), id(3)]);
    assert_eq!(scene.check().oversold, 1);
}

#[test]
fn more_units_out_than_in_are_oversold() {
    let mut scene = Scene::new();
    scene.place(0, 3, 1);
    scene.facts.one_cut = false;
    assert_eq!(scene.found(), [(Broken::Oversold, vec![])]);
}

#[test]
fn orders_and_stock_say_the_same() {
    let mut scene = Scene::new();
    scene.place(1, 2, 0);
    let found = scene.found();
    assert!(found.contains(&(Broken::Conservation, vec![])), "{found:?}");
    assert!(!scene.check().conserved);
}

#[test]
fn a_server_that_does_not_add_up_is_believed() {
    let mut scene = Scene::new();
    scene.facts.conserved = false;
    assert_eq!(scene.found(), [(Broken::Conservation, vec![])]);
}

#[test]
fn a_unit_left_that_somebody_was_refused_is_undersold() {
    let mut scene = Scene::new();
    scene.facts.orders.pop();
    scene.records.remove(2);
    scene.place(1, 2, 0);
    scene.finds(Broken::Undersold, &[]);
    assert_eq!(scene.check().undersold, 1);
}

#[test]
fn a_unit_that_came_back_after_the_refusal_may_be_left() {
    let mut scene = Scene::new();
    scene.again(1, Kind::Cancel, Outcome::Cancelled);
    scene.release(Some(Reason::Cancelled));
    assert_eq!(scene.found(), []);
    scene.again(4, Kind::Retry, Outcome::SoldOut);
    scene.records.last_mut().unwrap().sent_us += RETURN_KNOWN_US + 10_000;
    scene.finds(Broken::Undersold, &[]);
    let retry = scene.records.last_mut().unwrap();
    retry.sent_us -= 20_000;
    assert_eq!(scene.found(), [], "it had come back only just before this refusal");
}

#[test]
fn a_unit_that_was_added_or_set_aside_for_nobody_may_be_left() {
    let mut scene = Scene::new();
    scene.facts.orders.pop();
    scene.records.remove(2);
    scene.place(1, 2, 0);
    scene.facts.items[0].added = 1;
    scene.facts.watermark_before = Seq(0);
    assert_eq!(scene.found(), []);
    scene.facts.items[0].added = 0;
    scene.records[2].effect = Effect::Unknown;
    assert_eq!(scene.found(), []);
}

#[test]
fn what_the_servers_audit_found_is_passed_on() {
    let mut scene = Scene::new();
    scene.facts.audit.verdict = "violation".into();
    assert_eq!(scene.found(), [(Broken::Audit, vec![])]);
    let finding = FindingFact { invariant: "doubled".into(), subject: id(1).to_string(), detail: "twice".into() };
    scene.facts.audit.findings.push(finding);
    assert_eq!(scene.found(), [(Broken::Audit, vec![id(1)])]);
}
