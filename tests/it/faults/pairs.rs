//! Two faults at once.

use std::time::Duration;

use super::{Scene, Site, UNITS, lasts};
use crate::servers::frames::Side;
use crate::servers::proxy::Proxy;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_emptied_while_rabbitmq_starts_again() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().rabbit.kill();
    let _emptied: String = scene.site().redis_says(&["FLUSHALL"]);
    scene.servers().rabbit.start_again();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_starts_again_while_redis_stands_still() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().redis.server.freeze();
    scene.servers().postgres.kill();
    lasts(Duration::from_secs(2)).await;
    scene.servers().postgres.start_again();
    scene.servers().redis.server.resume();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_killed_while_redis_is_emptied() {
    let mut scene = Scene::begin(UNITS).await;
    let _emptied: String = scene.site().redis_says(&["FLUSHALL"]);
    scene.servers().postgres.kill();
    scene.servers().postgres.start_again();
    scene.all_is_well().await;
}

/// Orders that were admitted before reach RabbitMQ after the fence, and soon enough to be promised if it took them.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_arrive_after_the_gate_is_emptied_and_the_queue_fenced() {
    let scene = Scene::begin(UNITS).await;
    let site = scene.site();
    let epoch = || site.cluster.trio.psql(&format!("select epoch from sales where id = '{}'", scene.sale));
    for _ in 0..3 {
        scene.crowd.accepts(50).await;
        let before = epoch();
        site.apis.rabbit.stall(Side::Client);
        lasts(Duration::from_millis(50)).await;
        let _emptied: String = site.redis_says(&["FLUSHALL"]);
        eventually("a loader raises the epoch", async || epoch() != before).await;
        lasts(Duration::from_millis(100)).await;
        site.apis.rabbit.heal();
    }
    scene.all_is_well().await;
}

fn ways(site: &Site) -> [&Proxy; 6] {
    let (apis, workers) = (&site.apis, &site.workers);
    [&apis.redis, &apis.rabbit, &apis.postgres, &workers.redis, &workers.rabbit, &workers.postgres]
}

/// Nobody can reach anything for a while, and then everybody wants to at once.
#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_lost_at_the_same_moment() {
    let scene = Scene::begin(UNITS).await;
    for _ in 0..3 {
        for way in ways(scene.site()) {
            way.refuse();
            way.cut();
        }
        lasts(Duration::from_secs(1)).await;
        ways(scene.site()).iter().for_each(|way| way.heal());
        scene.crowd.accepts(20).await;
    }
    scene.all_is_well().await;
}
