//! Several processes at one Redis: together they admit exactly what is there, and none refuses the retry of an order that
//! another one admitted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sluice::clock::{Clock, RealClock};
use sluice::gate::{Admission, Gate, Refusal};
use sluice::ledger::{Added, Addition, Books, Ledger};
use sluice::model::{Epoch, MoveKind, OrderId, Sale, limits};
use tokio::task::JoinSet;

use super::{HEAD, gate, leasing, one, open, repeat, say, snapshot, sold_out};
use crate::model_ledger::ModelLedger;
use crate::servers::redis::{RedisServer, fresh_database};
use crate::words::{line, sale, sale_id, units};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_admit_exactly_the_stock_and_know_each_others_orders() {
    let server = RedisServer::start(&[]);
    let url = server.url();
    let gates = [Arc::new(gate(&url).await), Arc::new(gate(&url).await)];
    open(&*gates[0], &sale("s", &["a"]), 100, 1).await;
    let mut crowd = JoinSet::new();
    for request in 0..4_000_u128 {
        // Each order comes to both processes, and twice to each.
        let (gate, number) = (gates[usize::from(request % 2 == 0)].clone(), request / 4);
        crowd.spawn(async move { (number, gate.admit(&one(number)).await.unwrap()) });
    }
    let mut admitted: HashMap<u128, u32> = HashMap::new();
    let mut repeated = Vec::new();
    while let Some(answer) = crowd.join_next().await {
        match answer.unwrap() {
            (number, Admission::Admitted(Epoch(1))) => *admitted.entry(number).or_default() += 1,
            (number, again @ Admission::Repeat(_)) => {
                assert_eq!(again, repeat(&one(number), 1));
                repeated.push(number);
            }
            (_, refused) => assert_eq!(refused, sold_out(true)),
        }
    }
    assert_eq!(admitted.len(), 100);
    assert!(admitted.values().all(|times| *times == 1), "{admitted:?}");
    assert!(repeated.iter().all(|number| admitted.contains_key(number)));
    for gate in &gates {
        for number in 0..1_000 {
            let expected = if admitted.contains_key(&number) { repeat(&one(number), 1) } else { sold_out(true) };
            assert_eq!(gate.admit(&one(number)).await.unwrap(), expected);
        }
    }
    assert_eq!(gates[0].pending(&sale_id("s")).await.unwrap().len(), 100);
}

/// A unit comes back, is taken on the other node, and the customer's retry lands here.
#[tokio::test(flavor = "multi_thread")]
async fn behind_the_latch_the_order_of_another_node_is_known_at_once() {
    for lease in [Duration::ZERO, Duration::from_millis(5)] {
        another_nodes_orders_are_known_at_once(lease).await;
    }
}

async fn another_nodes_orders_are_known_at_once(lease: Duration) {
    let url = fresh_database();
    let (here, there) = (Arc::new(leasing(&url, lease).await), leasing(&url, lease).await);
    let ledger = ModelLedger::new(Arc::new(RealClock::new()));
    ledger.create(&sale("s", &["a"]), &[units(1)]).await.unwrap();
    let snapshot = ledger.snapshot(&sale_id("s")).await.unwrap().unwrap();
    assert!(here.load(&snapshot, Epoch(1)).await.unwrap());
    assert!(here.open(&sale_id("s"), Epoch(1)).await.unwrap());
    here.admit(&one(0)).await.unwrap();
    for round in 1..=300_u128 {
        assert_eq!(here.admit(&one(10_000 + round)).await.unwrap(), sold_out(true));
        let addition = Addition {
            id: OrderId((1_000_000 + round).to_be_bytes()),
            sale: sale_id("s"),
            line: line("a", 1),
            reason: "more".to_owned(),
        };
        let Added::Done(_, moves) = ledger.add(&addition).await.unwrap() else { panic!("it is new") };
        there.follow(&sale_id("s"), Epoch(1), &moves.moves).await.unwrap();
        // Others keep a probe under way all the time.
        let crowd: Vec<_> = (0..8)
            .map(|other| {
                let here = here.clone();
                tokio::spawn(async move { here.admit(&one(1_000 * round + 20_000 + other)).await.unwrap() })
            })
            .collect();
        let admitted = there.admit(&one(round)).await.unwrap();
        let retried = here.admit(&one(round)).await.unwrap();
        match admitted {
            Admission::Admitted(_) => assert_eq!(retried, repeat(&one(round), 1), "in round {round}"),
            refused => assert_eq!(refused, sold_out(true), "one of the others was faster"),
        }
        join_all(crowd).await;
    }
}

/// How often the server looked for claims in a batch: only a call to admit does.
fn batches(url: &str) -> u64 {
    let stats: String = say(url, &["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_smismember:calls="));
    calls.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// How often the server was asked to run a script.
fn scripts(url: &str) -> u64 {
    let stats: String = say(url, &["INFO", "commandstats"]);
    let calls = stats.lines().filter(|line| line.starts_with("cmdstat_eval"));
    calls.map(|line| line.split(['=', ',']).nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latch_refuses_without_the_gate_until_units_come_back() {
    let server = RedisServer::start(&[]);
    let url = server.url();
    let gate = gate(&url).await;
    let ledger = ModelLedger::new(Arc::new(RealClock::new()));
    ledger.create(&sale("s", &["a"]), &[units(1)]).await.unwrap();
    let snapshot = ledger.snapshot(&sale_id("s")).await.unwrap().unwrap();
    gate.load(&snapshot, Epoch(1)).await.unwrap();
    gate.open(&sale_id("s"), Epoch(1)).await.unwrap();
    gate.admit(&one(0)).await.unwrap();
    assert_eq!(gate.admit(&one(1)).await.unwrap(), sold_out(true));
    let before = batches(&url);
    for number in 2..200 {
        assert_eq!(gate.admit(&one(number)).await.unwrap(), sold_out(true));
    }
    assert_eq!(batches(&url), before, "refusals do not reach the gate itself");
    let addition = Addition { id: OrderId([9; 16]), sale: sale_id("s"), line: line("a", 1), reason: "more".to_owned() };
    let Added::Done(_, moves) = ledger.add(&addition).await.unwrap() else { panic!("it is new") };
    assert_eq!(moves.moves[0].kind, MoveKind::Add);
    gate.follow(&sale_id("s"), Epoch(1), &moves.moves).await.unwrap();
    assert_eq!(gate.admit(&one(2)).await.unwrap(), Admission::Admitted(Epoch(1)));
    assert_eq!(gate.admit(&one(3)).await.unwrap(), sold_out(true));
}

/// While a lease lasts nobody asks the server, and it admits nothing of that SKU: what has come back waits, and is sold then.
#[tokio::test(flavor = "multi_thread")]
async fn a_leased_refusal_asks_nobody_and_units_that_come_back_wait_for_its_end() {
    const LEASE: Duration = Duration::from_secs(1);
    let server = RedisServer::start(&[]);
    let url = server.url();
    let (here, there) = (leasing(&url, LEASE).await, leasing(&url, LEASE).await);
    let ledger = ModelLedger::new(Arc::new(RealClock::new()));
    ledger.create(&sale("s", &["a", "b"]), &[units(1), units(1)]).await.unwrap();
    let snapshot = ledger.snapshot(&sale_id("s")).await.unwrap().unwrap();
    here.load(&snapshot, Epoch(1)).await.unwrap();
    here.open(&sale_id("s"), Epoch(1)).await.unwrap();
    here.admit(&one(0)).await.unwrap();
    // The gate says it, then a probe, which brings the lease.
    for number in 1..3 {
        assert_eq!(here.admit(&one(number)).await.unwrap(), sold_out(true));
    }
    let clock = RealClock::new();
    let asked = scripts(&url);
    for number in 3..200 {
        assert_eq!(here.admit(&one(number)).await.unwrap(), sold_out(true));
    }
    assert_eq!(here.admit(&one(0)).await.unwrap(), repeat(&one(0), 1), "an order that the latch knows");
    assert_eq!(scripts(&url), asked + 1, "the repeat alone is asked about");
    let addition = Addition { id: OrderId([9; 16]), sale: sale_id("s"), line: line("a", 1), reason: "more".to_owned() };
    let Added::Done(_, moves) = ledger.add(&addition).await.unwrap() else { panic!("it is new") };
    there.follow(&sale_id("s"), Epoch(1), &moves.moves).await.unwrap();
    assert_eq!(there.admit(&one(200)).await.unwrap(), Admission::Admitted(Epoch(1)));
    assert!(clock.monotonic() >= LEASE * 9 / 10, "admitted after {:?}, before the lease ended", clock.monotonic());
    assert_eq!(here.admit(&one(200)).await.unwrap(), repeat(&one(200), 1));
}

/// The server forgets a lease with everything else; the load that follows waits for whatever lease there may have been.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_a_load() {
    const LEASE: Duration = Duration::from_secs(1);
    let url = fresh_database();
    let (here, there) = (leasing(&url, LEASE).await, leasing(&url, LEASE).await);
    let a_sale = sale("s", &["a", "b"]);
    open(&here, &a_sale, 1, 1).await;
    here.admit(&one(0)).await.unwrap();
    for number in 1..3 {
        assert_eq!(here.admit(&one(number)).await.unwrap(), sold_out(true));
    }
    let _forgotten: u32 = say(&url, &["DEL", HEAD]);
    open(&there, &a_sale, 1, 2).await;
    assert_eq!(there.admit(&one(3)).await.unwrap(), Admission::Admitted(Epoch(2)));
    assert_eq!(here.admit(&one(3)).await.unwrap(), repeat(&one(3), 2), "an accepted order is told sold out");
}

/// Nobody may hear "sold out" from a gate that is shut for a load, or from a server that has begun another history.
#[tokio::test(flavor = "multi_thread")]
async fn the_latch_hears_of_a_shut_gate_and_of_another_history() {
    let server = RedisServer::start(&[]);
    let url = server.url();
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 1, 1).await;
    gate.admit(&one(0)).await.unwrap();
    for number in 1..4 {
        assert_eq!(gate.admit(&one(number)).await.unwrap(), sold_out(true));
    }
    let _shut: i64 = say(&url, &["HSET", HEAD, "live", "0"]);
    assert_eq!(gate.admit(&one(4)).await.unwrap(), Admission::Unloaded);
    let _live: i64 = say(&url, &["HSET", HEAD, "live", "1"]);
    for number in 5..8 {
        assert_eq!(gate.admit(&one(number)).await.unwrap(), sold_out(true));
    }
    for primary in [["127.0.0.1", "1"], ["NO", "ONE"]] {
        let _done: String = say(&url, &["REPLICAOF", primary[0], primary[1]]);
    }
    assert_eq!(gate.admit(&one(8)).await.unwrap(), Admission::Unloaded);
}

/// The latch learns the ids of a sale page by page, and says nothing before it knows them all: not after one page, and
/// not after as many as one probe reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_process_learns_all_orders_before_it_refuses_any() {
    let server = RedisServer::start(&[]);
    for pages in [2, 9] {
        let url = format!("{}/{pages}", server.url());
        let gate = gate(&url).await;
        let mut loaded = snapshot(&sale("s", &["a"]), 0).await;
        let count = pages * limits::GATE_PROBE_IDS_MAX as u128 + 5;
        loaded.known = (0..count).map(|number| OrderId(number.to_be_bytes())).collect();
        gate.load(&loaded, Epoch(1)).await.unwrap();
        gate.open(&sale_id("s"), Epoch(1)).await.unwrap();
        assert_eq!(gate.admit(&one(count)).await.unwrap(), sold_out(false), "the latch shuts");
        for number in [count - 1, 0, count / 2, count - 2, count - 3] {
            assert_eq!(gate.admit(&one(number)).await.unwrap(), Admission::Repeat(None), "order {number} of {count}");
            assert_eq!(gate.admit(&one(count)).await.unwrap(), sold_out(false));
        }
    }
}

/// Another life of the sale: what the latch knew of the last one is worth nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_latch_begins_anew_when_the_gate_is_loaded_anew() {
    let url = fresh_database();
    let (here, there) = (gate(&url).await, gate(&url).await);
    let sold_at_once = Sale { hold_seconds: 0, ..sale("s", &["a", "b"]) };
    open(&here, &sold_at_once, 1, 1).await;
    here.admit(&one(1)).await.unwrap();
    for _twice in 0..2 {
        assert_eq!(here.admit(&one(2)).await.unwrap(), sold_out(false));
    }
    // The server forgets, so that nothing is carried over.
    let _forgotten: u32 = say(&url, &["DEL", "sluice:{s}:head"]);
    open(&there, &sold_at_once, 1, 2).await;
    // Order 1 was known to the latch: now it is an order like any other.
    assert_eq!(there.admit(&one(2)).await.unwrap(), Admission::Admitted(Epoch(2)));
    assert_eq!(here.admit(&one(2)).await.unwrap(), repeat(&one(2), 2));
    for _twice in 0..2 {
        let refused = here.admit(&one(1)).await.unwrap();
        assert!(matches!(refused, Admission::Refused(Refusal::SoldOut { .. })), "{refused:?}");
    }
}
