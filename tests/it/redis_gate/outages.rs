//! A server that is gone, frozen, full, or read-only: an answer within the time limit, with what may have happened; and
//! the gate recovers by itself.

use std::time::Duration;

use futures_util::future::join_all;
use sluice::clock::{Clock, RealClock};
use sluice::gate::{Admission, Gate, RedisGate};
use sluice::model::{Effect, Epoch, Error, limits};

use super::{gate, one, open, repeat, say, sold_out};
use crate::servers::redis::RedisServer;
use crate::support::eventually;
use crate::words::{sale, sale_id};

/// Above the limit of one call: the machine that tests may be busy.
const SOON: Duration = limits::GATE_CALL_TIME_MAX.saturating_mul(3);

/// The effect of a failure, and that it came soon.
async fn fails(gate: &RedisGate, number: u128) -> Effect {
    let clock = RealClock::new();
    let error = gate.admit(&one(number)).await.expect_err("nobody is there to answer");
    assert!(clock.monotonic() < SOON, "it took {:?}: {error}", clock.monotonic());
    match error {
        Error::Unavailable { layer: "gate", effect, .. } => effect,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_unavailable_in_time_and_found_again() {
    let server = RedisServer::start(&[]);
    let gate = gate(&server.url()).await;
    open(&gate, &sale("s", &["a"]), 2, 1).await;
    gate.admit(&one(1)).await.unwrap();
    server.server.freeze();
    assert_eq!(fails(&gate, 2).await, Effect::Unknown, "it was sent");
    assert_eq!(fails(&gate, 3).await, Effect::None, "it could not be sent any more");
    server.server.resume();
    eventually("the gate answers again", || async { gate.view(&sale_id("s")).await.is_ok() }).await;
    // The frozen server had the second order in its socket: it may have admitted it, once.
    let second = gate.admit(&one(2)).await.unwrap();
    assert!([Admission::Admitted(Epoch(1)), repeat(&one(2), 1)].contains(&second), "{second:?}");
    assert_eq!(gate.admit(&one(3)).await.unwrap(), sold_out(true));
    assert_eq!(gate.admit(&one(1)).await.unwrap(), repeat(&one(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_unavailable_at_once_and_found_again() {
    let mut server = RedisServer::start(&["--appendonly", "yes"]);
    let gate = gate(&server.url()).await;
    open(&gate, &sale("s", &["a"]), 1_000, 1).await;
    let claims: Vec<_> = (0..1_000).map(one).collect();
    let crowd = join_all(claims.iter().map(|claim| gate.admit(claim)));
    let (answers, ()) = tokio::join!(crowd, async { server.server.kill() });
    for answer in answers {
        let fair = matches!(answer, Ok(Admission::Admitted(_)) | Err(Error::Unavailable { .. }));
        assert!(fair, "{answer:?}");
    }
    eventually("the loss is noticed", || async {
        matches!(gate.view(&sale_id("s")).await, Err(Error::Unavailable { effect: Effect::None, .. }))
    })
    .await;
    assert_eq!(fails(&gate, 1).await, Effect::None);
    server.start_again();
    eventually("the gate answers again", || async { gate.view(&sale_id("s")).await.is_ok() }).await;
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Unloaded, "another process, whatever its file holds");
    open(&gate, &sale("s", &["a"]), 1, 2).await;
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_the_scripts_is_told_again() {
    let server = RedisServer::start(&[]);
    let url = server.url();
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 100, 1).await;
    let claims: Vec<_> = (0..300).map(one).collect();
    let mut admitted = 0;
    for crowd in claims.chunks(20) {
        let forget = async { say::<String>(&url, &["SCRIPT", "FLUSH"]) };
        let (answers, _done) = tokio::join!(join_all(crowd.iter().map(|claim| gate.admit(claim))), forget);
        for answer in answers {
            match answer.unwrap() {
                Admission::Admitted(_) => admitted += 1,
                refused => assert_eq!(refused, sold_out(true)),
            }
        }
    }
    assert_eq!(admitted, 100);
    assert_eq!(gate.pending(&sale_id("s")).await.unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_server_changes_nothing_and_says_so() {
    let server = RedisServer::start(&[]);
    let url = server.url();
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 2, 1).await;
    let keys_before: Vec<String> = say(&url, &["KEYS", "*"]);
    let _set: String = say(&url, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(fails(&gate, 1).await, Effect::None);
    let _set: String = say(&url, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(1)));
    assert!(!keys_before.is_empty());

    let _done: String = say(&url, &["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(fails(&gate, 2).await, Effect::None);
    let _done: String = say(&url, &["REPLICAOF", "NO", "ONE"]);
    eventually("the gate is connected again", || async { gate.view(&sale_id("s")).await.is_ok() }).await;
    // It was a replica meanwhile, of whomever: its memory is not trusted any more.
    assert_eq!(gate.admit(&one(2)).await.unwrap(), Admission::Unloaded);
}
