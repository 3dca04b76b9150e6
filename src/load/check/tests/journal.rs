//! Journals that lie.

use super::*;

impl Scene {
    /// The honest journal, doctored and numbered again.
    fn doctored(doctor: impl FnOnce(&mut Vec<MoveFact>)) -> Self {
        let mut scene = Self::new();
        scene.doctor(doctor);
        scene
    }

    fn doctor(&mut self, doctor: impl FnOnce(&mut Vec<MoveFact>)) {
        let mut journal = self.honest_journal();
        doctor(&mut journal);
        self.journal = Some(numbered(journal));
    }
}

#[test]
fn a_journal_with_a_gap_is_found() {
    let mut scene = Scene::new();
    let mut journal = scene.honest_journal();
    journal[3].seq = Seq(5);
    scene.journal = Some(journal);
    assert_eq!(scene.found(), [(Broken::Journal, vec![id(2)])]);
}

#[test]
fn a_journal_that_comes_to_something_else_is_found() {
    let scene = Scene::doctored(|journal| drop(journal.pop()));
    scene.finds(Broken::Journal, &[]);
    scene.finds(Broken::Journal, &[id(2)]);
    let mut scene = Scene::new();
    scene.facts.orders[1].state = OrderState::Sold;
    scene.facts.items[0].places = Places { held: units(2), sold: units(1), ..scene.facts.items[0].places };
    let honest = Scene::new().honest_journal();
    scene.journal = Some(honest);
    scene.finds(Broken::Journal, &[id(1)]);
    scene.facts.one_cut = false;
    assert_eq!(scene.found(), [], "what was read at different moments may differ");
}

#[test]
fn oversold_for_a_moment_is_oversold() {
    // Order 9 takes a fourth unit of three, and gives it back.
    let scene = Scene::doctored(|journal| {
        let hold = journal[3].clone();
        journal.push(MoveFact { order: Some(id(9)), ..hold.clone() });
        journal.push(MoveFact { order: Some(id(9)), kind: MoveKind::Cancel, ..hold });
    });
    scene.finds(Broken::Oversold, &[id(9)]);
}

#[test]
fn units_come_from_where_they_are() {
    let scene = Scene::doctored(|journal| {
        let confirm = MoveFact { kind: MoveKind::Confirm, ..journal[1].clone() };
        journal.insert(1, confirm);
    });
    scene.finds(Broken::Conservation, &[id(0)]);
    scene.finds(Broken::Transition, &[id(0)]);
}

#[test]
fn more_than_allowed_for_a_moment_is_more_than_allowed() {
    let mut scene = Scene::new();
    scene.facts.per_customer_limit = Some(units(1));
    assert_eq!(scene.found(), []);
    scene.doctor(|journal| {
        let hold = MoveFact { order: Some(id(9)), ..journal[1].clone() };
        journal.push(hold.clone());
        journal.push(MoveFact { kind: MoveKind::Cancel, ..hold });
    });
    scene.finds(Broken::CustomerLimit, &[id(9)]);
}

#[test]
fn an_order_lives_once() {
    let scene = Scene::doctored(|journal| journal.push(journal[1].clone()));
    scene.finds(Broken::Doubled, &[id(0)]);
    // Confirmed twice, and given back after it was sold.
    for kind in [MoveKind::Confirm, MoveKind::Cancel, MoveKind::Lapse] {
        let scene = Scene::doctored(|journal| {
            let confirm = MoveFact { kind: MoveKind::Confirm, ..journal[1].clone() };
            let ends = Time::from_millis(NOW.millis() + 1);
            journal.push(confirm.clone());
            journal.push(MoveFact { kind, at: ends, ..confirm });
        });
        scene.finds(Broken::Transition, &[id(0)]);
    }
    let scene = Scene::doctored(|journal| journal[1].kind = MoveKind::Add);
    scene.finds(Broken::Transition, &[id(0)]);
}

#[test]
fn an_adjustment_counts_once() {
    let add = |journal: &mut Vec<MoveFact>| {
        journal.push(MoveFact { adjustment: Some("adj_1".into()), ..journal[0].clone() });
    };
    let mut scene = Scene::new();
    scene.facts.one_cut = false;
    scene.doctor(add);
    let once = scene.found();
    assert!(!once.contains(&(Broken::Doubled, vec![])), "{once:?}");
    scene.doctor(|journal| {
        add(journal);
        journal.push(journal[4].clone());
    });
    scene.finds(Broken::Doubled, &[]);
}

#[test]
fn a_hold_that_was_over_is_not_confirmed() {
    let mut scene = Scene::new();
    scene.again(1, Kind::Confirm, Outcome::Confirmed);
    scene.facts.orders[1].state = OrderState::Sold;
    scene.place(0, 2, 1);
    assert_eq!(scene.found(), []);
    let ends = scene.facts.orders[1].expires_at.unwrap();
    scene.doctor(|journal| journal[4].at = ends);
    assert_eq!(scene.found(), [(Broken::ConfirmedLate, vec![id(1)])]);
    scene.doctor(|journal| journal[4].at = Time::from_millis(ends.millis() - 1));
    assert_eq!(scene.found(), []);
}

#[test]
fn a_hold_does_not_lapse_before_its_end() {
    let mut scene = Scene::new();
    scene.release(Some(Reason::Lapsed));
    scene.facts.orders[1].expires_at = Some(NOW);
    assert_eq!(scene.found(), []);
    scene.doctor(|journal| journal[4].at = Time::from_millis(NOW.millis() - 1));
    assert_eq!(scene.found(), [(Broken::TakenAway, vec![id(1)])]);
}
