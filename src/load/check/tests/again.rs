//! Everything sent again, to servers that lie.

use super::*;

type Doctor = fn(&mut Record);

/// Order 1 was confirmed, and everything is answered as before.
fn said_again() -> (Scene, Again, Vec<Record>) {
    let mut scene = Scene::new();
    scene.again(1, Kind::Confirm, Outcome::Confirmed);
    let again = everything_again(&scene.history(), &scene.facts());
    let answer = |(number, request): (u32, &Request)| {
        let known = again.known.get(&request.wish).copied();
        let outcome = match (request.kind, known) {
            (Kind::Confirm, _) => Outcome::Confirmed,
            (_, Some(_)) => Outcome::Repeat,
            (_, None) => Outcome::SoldOut,
        };
        Record { request: number, outcome, order: known, ..scene.records[0] }
    };
    let records = (0..).zip(&again.crowd.requests).map(answer).collect();
    (scene, again, records)
}

#[test]
fn everything_means_every_wish_and_every_turn() {
    let (mut scene, again, records) = said_again();
    let said: Vec<(u32, Kind)> = again.crowd.requests.iter().map(|request| (request.wish, request.kind)).collect();
    let wishes = (0..6).map(|wish| (wish, Kind::Retry));
    assert_eq!(said, wishes.chain([(1, Kind::Confirm)]).collect::<Vec<_>>());
    assert_eq!(check_again(&again, &records, &[]), []);
    // With units left, who was refused would get one now.
    scene.place(1, 2, 0);
    assert_eq!(everything_again(&scene.history(), &scene.facts()).crowd.requests.len(), 4);
}

#[test]
fn another_answer_is_a_change() {
    let doctor: [(usize, Doctor); 6] = [
        (0, |record| record.order = Some(id(9))),
        (0, |record| record.outcome = Outcome::Accepted),
        (0, |record| (record.outcome, record.order) = (Outcome::SoldOut, None)),
        (3, |record| (record.outcome, record.order) = (Outcome::Accepted, Some(id(9)))),
        (6, |record| record.outcome = Outcome::Refused),
        (6, |record| record.outcome = Outcome::KeyReused),
    ];
    for (number, doctored) in doctor {
        let (_, again, mut records) = said_again();
        doctored(&mut records[number]);
        let found = check_again(&again, &records, &[]);
        assert_eq!(found.len(), 1, "{number}: {found:?}");
        assert_eq!(found[0].broken, Broken::ChangedByRepeating);
    }
    let (_, again, mut records) = said_again();
    (records[0].outcome, records[0].order) = (Outcome::Unavailable, None);
    assert_eq!(check_again(&again, &records, &[]), [], "who is told nothing is told nothing else");
}

#[test]
fn a_move_is_a_change() {
    let (scene, again, records) = said_again();
    let hold = scene.honest_journal()[1].clone();
    let found = check_again(&again, &records, std::slice::from_ref(&hold));
    assert_eq!(found.iter().map(|found| found.orders.clone()).collect::<Vec<_>>(), [[id(0)]]);
    let stranger = MoveFact { customer: Customer::new("somebody").ok(), ..hold.clone() };
    assert_eq!(check_again(&again, &records, &[stranger]), []);
    let lapse = MoveFact { kind: MoveKind::Lapse, ..hold.clone() };
    assert_eq!(check_again(&again, &records, &[lapse, hold]), [], "a unit came back, and somebody got it");
}
