//! Histories that lie about what was before what.

use super::*;

impl Scene {
    /// The last order is gone, so that one unit is left.
    fn one_left() -> Self {
        let mut scene = Self::new();
        scene.facts.orders.pop();
        scene.records.remove(2);
        scene.place(1, 2, 0);
        // Somebody cancelled it at the very end, so the unit that is left in the end accuses nobody.
        scene.facts.items[0].added = 1;
        scene
    }

    fn last(&mut self) -> &mut Record {
        self.records.last_mut().unwrap()
    }
}

#[test]
fn sold_out_while_enough_was_available_is_false() {
    let scene = Scene::one_left();
    assert_eq!(
        scene.found(),
        [(Broken::FalseSoldOut, vec![]), (Broken::FalseSoldOut, vec![]), (Broken::FalseSoldOut, vec![])]
    );
    assert!(scene.check().violations[0].detail.contains(&scene.crowd.key(3)));
}

#[test]
fn a_unit_may_be_set_aside_before_the_journal_says_so() {
    // Order 2 was sent while the others were being refused, and is accepted long after.
    let mut scene = Scene::new();
    scene.records[2].answered_us = 1_000_000;
    assert_eq!(scene.found(), []);
    // Sent after all refusals, it excuses none of them.
    scene.records[2].sent_us = 500_000;
    let found = scene.found();
    assert_eq!(found.iter().filter(|(broken, _)| *broken == Broken::FalseSoldOut).count(), 3, "{found:?}");
}

#[test]
fn what_nobody_knows_about_may_have_taken_a_unit() {
    let mut scene = Scene::one_left();
    scene.again(5, Kind::First, Outcome::Error);
    let unknown = scene.records.pop().unwrap();
    scene.records.insert(0, Record { order: None, effect: Effect::Unknown, sent_us: 0, answered_us: 1, ..unknown });
    assert_eq!(scene.found(), []);
    // Strangers may have been there all the time, but for what faults did to them nobody can speak.
    let mut scene = Scene::one_left();
    scene.alone = false;
    assert_eq!(scene.found().len(), 3);
    scene.healed_us = Some(0);
    assert_eq!(scene.found(), []);
}

#[test]
fn units_that_came_back_are_available_again() {
    let mut scene = Scene::new();
    scene.release(Some(Reason::Lapsed));
    scene.facts.orders[1].expires_at = Some(Time::from_millis(START_MS + 20));
    scene.again(5, Kind::Retry, Outcome::SoldOut);
    assert_eq!(scene.found(), [], "it lapsed after this refusal");
    let back_us = 21_000 + 500 + RETURN_KNOWN_US;
    (scene.last().sent_us, scene.last().answered_us) = (back_us, back_us + 1);
    assert_eq!(scene.found(), [], "it came back just before this refusal, and a latch may not know it yet");
    (scene.last().sent_us, scene.last().answered_us) = (back_us + 2, back_us + 3);
    assert_eq!(scene.found(), [(Broken::FalseSoldOut, vec![])]);
    scene.healed_us = Some(1);
    assert_eq!(scene.found(), [], "a gate may know it only after the fault");
    (scene.healed_us, scene.facts.orders[0].accepted_at) = (None, Time::from_millis(START_MS - 1_000));
    assert_eq!(scene.found(), [], "a clock was set, so nobody knows when it lapsed");
}

#[test]
fn a_withdrawal_excuses_a_refusal() {
    let mut scene = Scene::one_left();
    let mut journal = scene.honest_journal();
    let adjustment = Some("adj_1".to_owned());
    journal.push(MoveFact { kind: MoveKind::Withdraw, adjustment, ..journal[0].clone() });
    journal[3].lines[0].quantity = units(1);
    journal.push(MoveFact { adjustment: Some("adj_2".into()), lines: journal[3].lines.clone(), ..journal[0].clone() });
    scene.journal = Some(numbered(journal));
    assert_eq!(scene.found(), []);
}

#[test]
fn an_answer_proves_how_far_the_journal_had_come() {
    let mut scene = Scene::new();
    // Order 1 is sold by move #5. After somebody was told of it, order 1 is told as of #3.
    scene.facts.orders[1].state = OrderState::Sold;
    scene.place(0, 2, 1);
    scene.again(1, Kind::Retry, Outcome::Repeat);
    scene.last().seq = Seq(5);
    scene.again(1, Kind::Retry, Outcome::Repeat);
    scene.last().seq = Seq(5);
    assert_eq!(scene.found(), []);
    scene.last().seq = Seq(3);
    assert_eq!(scene.found(), [(Broken::OutOfTurn, vec![id(1)])]);
    scene.last().sent_us = 6_500;
    assert_eq!(scene.found(), [], "it was asked at the moment of the first answer");
    scene.last().seq = Seq(4);
    assert_eq!(scene.found(), [(Broken::OutOfTurn, vec![id(1)])], "move #4 is another order's");
}

#[test]
fn who_came_later_is_settled_later() {
    let mut scene = Scene::new();
    scene.records[0].seq = Seq(2);
    assert_eq!(scene.found(), []);
    // Order 0 was known to be settled, by a number above that of orders sent only then.
    let mut journal = scene.honest_journal();
    journal[1..].rotate_left(1);
    scene.journal = Some(numbered(journal));
    scene.records[0].seq = Seq(4);
    assert_eq!(scene.found(), [(Broken::OutOfTurn, vec![id(1)]), (Broken::OutOfTurn, vec![id(2)])]);
    scene.facts.before.insert(id(1));
    assert_eq!(scene.found(), [(Broken::OutOfTurn, vec![id(2)])], "it was there before");
}

#[test]
fn what_is_not_settled_in_time_is_unresolved() {
    let mut scene = Scene::new();
    (scene.healed_us, scene.facts.seen_us) = (Some(1_000_000), 1_000_000 + RESOLVED_US_MAX);
    assert_eq!(scene.found(), []);
    scene.facts.seen_us += 1;
    assert_eq!(scene.found(), [(Broken::Unresolved, vec![])]);
    scene.facts.settled = false;
    scene.facts.one_cut = false;
    scene.facts.orders.pop();
    assert_eq!(scene.found(), [(Broken::Unresolved, vec![id(2)])]);
    scene.healed_us = None;
    assert_eq!(scene.check().verdict, Verdict::Unsettled, "without a fault it is not settled yet");
}
