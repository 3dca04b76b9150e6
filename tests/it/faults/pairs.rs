//! Two faults at once.

use std::time::Duration;

use super::{Scene, Site, UNITS, lasts};
use crate::servers::proxy::Proxy;

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
