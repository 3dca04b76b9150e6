//! Faults of the gate's server and of the ways to it.

use std::time::Duration;

use super::{Scene, Struck, UNITS, Who, cuts, lasts, units_for};
use crate::servers::frames::{Kind, Side};
use crate::servers::redis::{RedisServer, say};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back_empty() {
    let mut scene = Scene::begin(UNITS).await;
    let redis = &mut scene.servers().redis;
    redis.server.kill();
    redis.start_again();
    let live: Vec<String> = scene.site().redis_says(&["KEYS", "*"]);
    assert!(live.is_empty(), "{live:?}");
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_emptied_under_load() {
    let scene = Scene::begin(UNITS).await;
    for _ in 0..3 {
        let _emptied: String = scene.site().redis_says(&["FLUSHALL"]);
        scene.crowd.accepts(50).await;
    }
    let _emptied: String = scene.site().redis_says(&["FLUSHALL"]);
    scene.all_is_well().await;
}

/// Nobody could correct the dump meanwhile: what it says is there was promised to others.
#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_with_an_old_dump() {
    let mut scene = Scene::begin(1_200).await;
    let _saved: String = scene.site().redis_says(&["SAVE"]);
    scene.site().cluster.workers.iter().for_each(|worker| worker.serving().freeze());
    scene.crowd.accepts(500).await;
    let redis = &mut scene.servers().redis;
    redis.server.kill();
    redis.start_again();
    // The next scene starts without.
    std::fs::remove_file(redis.server.folder().join("dump.rdb")).unwrap();
    let keys: usize = scene.site().redis_says(&["DBSIZE"]);
    assert!(keys > 0, "it has not read its dump");
    let accepted = scene.crowd.accepted();
    scene.crowd.hurry(true);
    lasts(Duration::from_secs(2)).await;
    scene.crowd.hurry(false);
    assert!(scene.crowd.accepted() <= accepted + 24, "the dump was believed");
    scene.site().cluster.workers.iter().for_each(|worker| worker.serving().resume());
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_writes_takes_over() {
    let mut scene = Scene::begin(UNITS).await;
    let port = scene.servers().redis.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    let says = |command: &[&str]| say::<redis::Value>(&replica.url(), command);
    eventually("the replica has everything", async || {
        let state: String = say(&replica.url(), &["INFO", "replication"]);
        state.contains("master_link_status:up")
    })
    .await;
    scene.crowd.accepts(50).await;
    // It hears nothing more, and the primary goes on.
    replica.server.freeze();
    scene.crowd.accepts(200).await;
    scene.servers().redis.server.kill();
    replica.server.resume();
    says(&["REPLICAOF", "NO", "ONE"]);
    for proxy in scene.site().redis() {
        proxy.aim(replica.port);
    }
    scene.crowd.accepts(50).await;
    // The old one returns, empty, and takes over again.
    scene.servers().redis.start_again();
    let old = scene.servers().redis.port;
    for proxy in scene.site().redis() {
        proxy.aim(old);
        proxy.cut();
    }
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_freezes_for_one_second() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().redis.server.freeze();
    lasts(Duration::from_secs(1)).await;
    scene.servers().redis.server.resume();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_freezes_for_six_seconds() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().redis.server.freeze();
    let before = scene.refused();
    lasts(Duration::from_secs(6)).await;
    eventually("orders are refused", async || scene.refused() > before).await;
    scene.servers().redis.server.resume();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_forgets_its_scripts() {
    let scene = Scene::begin(UNITS).await;
    for _ in 0..5 {
        let _forgot: String = scene.site().redis_says(&["SCRIPT", "FLUSH"]);
        scene.crowd.accepts(50).await;
    }
    // Nobody notices: what the server did not run is sent again.
    assert_eq!((scene.crowd.not_now(), scene.crowd.unanswered()), (0, 0));
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_out_of_memory() {
    let scene = Scene::begin(UNITS).await;
    let _full: String = scene.site().redis_says(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let before = scene.crowd.not_now();
    eventually("orders are refused", async || scene.crowd.not_now() > before + 50).await;
    let _room: String = scene.site().redis_says(&["CONFIG", "SET", "maxmemory", "0"]);
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_gate_to_the_apis_are_lost_after_its_script_ran() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.apis.redis, (Side::Server, Kind::Reply), cuts()).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_gate_to_the_workers_are_lost_after_its_script_ran() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.workers.redis, (Side::Server, Kind::Reply), cuts()).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_redis_carry_nothing_one_way() {
    let scene = Scene::begin(3 * UNITS).await;
    scene
        .nothing_arrives_one_way(
            |links| &links.redis,
            |who, _| if who == Who::Apis { Struck::Orders } else { Struck::PerhapsNothing },
        )
        .await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_gate_becomes_something_else() {
    let scene = Scene::begin(UNITS).await;
    let keys: Vec<String> = scene.site().redis_says(&["KEYS", "*"]);
    let ours = format!("{{{}}}", scene.sale);
    let keys: Vec<&String> = keys.iter().filter(|key| key.contains(&ours)).collect();
    assert!(keys.len() >= 3, "{keys:?}");
    for key in keys {
        let _set: String = say(&scene.site().cluster.trio.redis.url(), &["SET", key, "by hand"]);
        scene.crowd.accepts(20).await;
    }
    scene.all_is_well().await;
}
