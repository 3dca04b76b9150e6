//! The gate believes only a memory that lacks nothing: old dumps, replicas, foreign hands.

use sluice::gate::{Admission, Gate, RedisGate};
use sluice::model::{Epoch, Move, MoveKind, Phase, Seq, Time, Verb, Window};

use super::{HEAD, gate, info, one, open, repeat, say, snapshot, sold_out};
use crate::servers::redis::{RedisServer, fresh_database};
use crate::support::eventually;
use crate::words::{id, sale, sale_id};

/// It answers as if it had never heard of the sale.
async fn knows_nothing(gate: &RedisGate) {
    let here = sale_id("s");
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Unloaded);
    assert_eq!(gate.view(&here).await.unwrap(), None);
    assert_eq!(gate.pending(&here).await.unwrap(), []);
    assert_eq!(gate.find(&here, sluice::model::OrderId(1_u128.to_be_bytes())).await.unwrap(), None);
    let pause = Move {
        seq: Seq(2),
        at: Time::from_millis(1_800_000_000_000),
        kind: MoveKind::Pause,
        claim: None,
        customer: None,
        lines: Vec::new(),
    };
    for epoch in [Epoch(5), Epoch(3)] {
        assert_eq!(gate.follow(&here, epoch, std::slice::from_ref(&pause)).await.unwrap(), None);
        assert!(!gate.open(&here, epoch).await.unwrap());
    }
}

/// It is loaded over whatever is there, under whatever epoch, and sells again.
async fn loads_and_sells(gate: &RedisGate, epoch: u64) {
    open(gate, &sale("s", &["a"]), 2, epoch).await;
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(epoch)));
    assert_eq!(gate.admit(&one(1)).await.unwrap(), repeat(&one(1), epoch));
    assert_eq!(gate.admit(&one(2)).await.unwrap(), Admission::Admitted(Epoch(epoch)));
    assert_eq!(gate.admit(&one(3)).await.unwrap(), sold_out(true));
    assert_eq!(gate.view(&sale_id("s")).await.unwrap().unwrap().pending, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_everything_is_unloaded() {
    let mut server = RedisServer::start(&[]);
    let gate = gate(&server.url()).await;
    loads_and_sells(&gate, 5).await;
    server.server.kill();
    server.start_again();
    eventually("the gate is connected again", || async { gate.view(&sale_id("s")).await.is_ok() }).await;
    knows_nothing(&gate).await;
    loads_and_sells(&gate, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_old_dump_is_unloaded() {
    let mut server = RedisServer::start(&[]);
    let before = gate(&server.url()).await;
    open(&before, &sale("s", &["a"]), 2, 5).await;
    before.admit(&one(7)).await.unwrap();
    let _saved: String = say(&server.url(), &["SAVE"]);
    assert_eq!(before.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(5)));
    server.server.kill();
    server.start_again();
    assert_eq!(say::<u32>(&server.url(), &["HLEN", "sluice:{s}:pending"]), 1, "the dump brings back an old state");
    assert_eq!(say::<u32>(&server.url(), &["HGET", HEAD, "epoch"]), 5);
    eventually("the gate is connected again", || async { before.view(&sale_id("s")).await.is_ok() }).await;
    for gate in [&before, &gate(&server.url()).await] {
        knows_nothing(gate).await;
    }
    loads_and_sells(&before, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_took_over_is_unloaded_and_so_is_its_primary_when_it_comes_back() {
    let soon = &["--repl-diskless-sync-delay", "0"];
    let (primary, replica) = (RedisServer::start(soon), RedisServer::start(soon));
    let follow = |follower: &RedisServer, leader: &RedisServer| {
        let _done: String = say(&follower.url(), &["REPLICAOF", "127.0.0.1", &leader.port.to_string()]);
        let url = follower.url();
        async move { eventually("the replica follows", || async { info(&url, "master_link_status") == "up" }).await }
    };
    let pending = |server: &RedisServer| say::<u32>(&server.url(), &["HLEN", "sluice:{s}:pending"]);
    let beside = gate(&replica.url()).await;
    follow(&replica, &primary).await;
    let first = gate(&primary.url()).await;
    open(&first, &sale("s", &["a"]), 2, 5).await;
    assert_eq!(first.admit(&one(7)).await.unwrap(), Admission::Admitted(Epoch(5)));
    eventually("the replica has it all", || async { pending(&replica) == 1 }).await;
    assert!(beside.view(&sale_id("s")).await.is_err(), "a replica that only follows is believed");

    let loaded_by = info(&primary.url(), "run_id");
    let _promoted: String = say(&replica.url(), &["REPLICAOF", "NO", "ONE"]);
    let second = gate(&replica.url()).await;
    assert_eq!(say::<u32>(&replica.url(), &["HGET", HEAD, "epoch"]), 5);
    knows_nothing(&second).await;

    // What the primary admitted alone is lost when it comes back, with the sale that it loaded itself.
    assert_eq!(first.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(5)));
    follow(&primary, &replica).await;
    let _promoted: String = say(&primary.url(), &["REPLICAOF", "NO", "ONE"]);
    assert_eq!(info(&primary.url(), "run_id"), loaded_by, "it is the process that loaded the sale");
    assert_eq!(pending(&primary), 1);
    eventually("the gate is connected", || async { first.view(&sale_id("s")).await.is_ok() }).await;
    knows_nothing(&first).await;
    loads_and_sells(&second, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_hands_in_the_memory_are_noticed_and_healed_by_loading() {
    let url = fresh_database();
    let gate = gate(&url).await;
    let damages: &[&[&str]] = &[
        &["DEL", "sluice:{s}:known"],
        &["DEL", "sluice:{s}:ids"],
        &["DEL", "sluice:{s}:pending"],
        &["DEL", "sluice:{s}:used"],
        &["DEL", HEAD],
        &["SET", "sluice:{s}:known", "a text"],
        &["SET", "sluice:{s}:pending", "a text"],
        &["SET", "sluice:{s}:used", "a text"],
        &["SET", HEAD, "a text"],
        &["SADD", "sluice:{s}:known", "a stranger"],
        &["HSET", HEAD, "epoch", "five"],
        &["HSET", HEAD, "format", "0"],
        &["HDEL", HEAD, "phase"],
    ];
    for damage in damages {
        let limited = sluice::model::Sale { per_customer_limit: Some(crate::words::units(3)), ..sale("s", &["a"]) };
        open(&gate, &limited, 2, 5).await;
        assert_eq!(gate.admit(&one(7)).await.unwrap(), Admission::Admitted(Epoch(5)));
        let _changed: redis::Value = say(&url, damage);
        let keys = || -> Vec<String> { say(&url, &["KEYS", "*"]) };
        let before = keys().len();
        knows_nothing(&gate).await;
        assert_eq!(keys().len(), before, "nothing was written over {damage:?}");
        // Loaded again in the next round, under the same epoch.
    }
}

/// An item is read when somebody asks for it; the view, which the loader goes by, reads them all.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_item_is_never_sold_out() {
    let url = fresh_database();
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 2, 5).await;
    let _changed: u32 = say(&url, &["HSET", HEAD, "sku:a", "many"]);
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Unloaded);
    assert_eq!(gate.view(&sale_id("s")).await.unwrap(), None);
    loads_and_sells(&gate, 6).await;
}

/// The window in Lua and the window in Rust are one.
#[test]
fn both_windows_take_the_same_steps() {
    let url = fresh_database();
    let prelude = include_str!("../../../src/gate/prelude.lua");
    let script = format!(
        "{prelude}
        local window = {{ phase = ARGV[1], opens_at = tonumber(ARGV[2]), closes_at = tonumber(ARGV[3]) }}
        local before = state(window, tonumber(ARGV[5]))
        steer(window, ARGV[4], tonumber(ARGV[5]))
        return {{ before, window.phase, tostring(window.opens_at or ''), tostring(window.closes_at or '') }}"
    );
    let now = 1_800_000_000_000;
    let moments = [None, Some(now - 1), Some(now), Some(now + 1)];
    let text = |moment: Option<i64>| moment.map(|millis| millis.to_string()).unwrap_or_default();
    for phase in [Phase::Draft, Phase::Armed, Phase::Paused, Phase::Closed] {
        for (opens, closes) in moments.iter().flat_map(|opens| moments.map(|closes| (*opens, closes))) {
            for verb in [Verb::Open, Verb::Pause, Verb::Resume, Verb::Close] {
                let [opens_at, closes_at] = [opens, closes].map(|moment| moment.map(Time::from_millis));
                let window = Window { phase, opens_at, closes_at };
                let at = Time::from_millis(now);
                let after = window.steer(verb, at).unwrap_or(window);
                let state = format!("{:?}", window.state(at)).to_lowercase();
                let expected =
                    [state, after.phase.word().to_owned(), text(after.opens_at.map(Time::millis)), text(closes)];
                let words = [phase.word(), &text(opens), &text(closes), verb.word(), &text(Some(now))];
                let told: Vec<String> = say(&url, &[&["EVAL", &script, "0"], &words[..]].concat());
                assert_eq!(told, expected, "{window:?} {verb:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_loaders_of_one_epoch_one_loads() {
    let url = fresh_database();
    let gates = [gate(&url).await, gate(&url).await];
    let snapshot = snapshot(&sale("s", &["a"]), 2).await;
    for epoch in 1..20 {
        let loaders = (0..8).map(|loader| gates[loader % 2].load(&snapshot, Epoch(epoch)));
        let loaded = futures_util::future::join_all(loaders).await;
        assert_eq!(loaded.into_iter().filter(|loaded| *loaded.as_ref().unwrap()).count(), 1, "of epoch {epoch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_in_many_parts_arrives_whole() {
    let url = fresh_database();
    let gate = gate(&url).await;
    let limited = sluice::model::Sale { per_customer_limit: Some(crate::words::units(1)), ..sale("s", &["a"]) };
    let mut loaded = snapshot(&limited, 9).await;
    let count = 2 * sluice::model::limits::GATE_LOAD_PART_MAX as u128 + 17;
    loaded.known = (0..count).map(|number| sluice::model::OrderId(number.to_be_bytes())).collect();
    // Once is enough: in the same part, and in another one.
    loaded.known.push(loaded.known[3]);
    loaded.known.push(loaded.known[3]);
    loaded.known.insert(1, loaded.known[0]);
    let customer = |number| sluice::model::Customer::new(&format!("customer {number}")).unwrap();
    loaded.used = (0..count).map(|number| (customer(number), crate::words::units(1))).collect();
    assert!(gate.load(&loaded, Epoch(1)).await.unwrap());
    assert!(gate.open(&sale_id("s"), Epoch(1)).await.unwrap());
    for number in [0, count / 2, count - 1] {
        assert_eq!(gate.admit(&one(number)).await.unwrap(), Admission::Repeat(None));
        let sluice::model::Claim::Order(mut order) = one(number) else { panic!("an order") };
        std::sync::Arc::make_mut(&mut order).id = id(255);
        let refused = gate.admit(&sluice::model::Claim::Order(order)).await.unwrap();
        assert!(matches!(refused, Admission::Refused(sluice::gate::Refusal::LimitReached { .. })), "{refused:?}");
    }
    assert_eq!(gate.admit(&one(count)).await.unwrap(), Admission::Admitted(Epoch(1)));
    let keys: Vec<String> = say(&url, &["KEYS", "*"]);
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in keys {
        assert_eq!(say::<i64>(&url, &["PTTL", &key]), -1, "{key} must stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_carried_over_in_many_parts_arrives_whole() {
    let url = fresh_database();
    let gate = gate(&url).await;
    let count = 2 * sluice::model::limits::GATE_LOAD_PART_MAX as u128 + 17;
    let limited = sluice::model::Sale { per_customer_limit: Some(crate::words::units(1)), ..sale("s", &["a"]) };
    open(&gate, &limited, 5_000, 1).await;
    let claims: Vec<_> = (0..count).map(one).collect();
    let admitted = futures_util::future::join_all(claims.iter().map(|claim| gate.admit(claim))).await;
    assert!(admitted.iter().all(|admitted| matches!(admitted, Ok(Admission::Admitted(Epoch(1))))));
    open(&gate, &limited, 5_000, 2).await;
    let view = gate.view(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!(u128::from(view.pending), count);
    assert_eq!(u128::from(view.items[0].available.get()), 5_000 - count);
    assert_eq!(gate.pending(&sale_id("s")).await.unwrap().len() as u128, count);
    for number in [0, count / 2, count - 1] {
        assert_eq!(gate.admit(&one(number)).await.unwrap(), repeat(&one(number), 2));
    }
    let keys: Vec<String> = say(&url, &["KEYS", "*"]);
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in keys {
        assert_eq!(say::<i64>(&url, &["PTTL", &key]), -1, "{key} must stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_pending_claim_does_not_keep_the_gate_from_being_loaded() {
    let url = fresh_database();
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 2, 5).await;
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(5)));
    let script = "local id = redis.call('HKEYS', KEYS[1])[1] return redis.call('HSET', KEYS[1], id, '{')";
    let _changed: u32 = say(&url, &["EVAL", script, "1", "sluice:{s}:pending"]);
    loads_and_sells(&gate, 6).await;
}
