//! Faults of the queue's server and of the ways to it.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use sluice::load::wire::{Target, Wire};

use super::{Scene, Struck, UNITS, Who, cuts, lasts, units_for};
use crate::servers::frames::{Kind, Side};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_killed_and_starts_again() {
    let mut scene = Scene::begin(UNITS).await;
    let rabbit = &mut scene.servers().rabbit;
    rabbit.kill();
    rabbit.start_again();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_cut_off_before_rabbitmq_confirms_them() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.apis.rabbit, (Side::Server, Kind::Ack), cuts()).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_cut_off_before_rabbitmq_has_them() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.apis.rabbit, (Side::Client, Kind::Publish), cuts()).await;
    scene.all_is_well().await;
}

/// What was settled is delivered again, to this worker or to another.
#[tokio::test(flavor = "multi_thread")]
async fn workers_are_cut_off_before_they_acknowledge() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.workers.rabbit, (Side::Client, Kind::Ack), cuts()).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_full() {
    let mut scene = Scene::begin(2 * UNITS).await;
    let small = ["set_policy", "-p", "v0", "few", r"^sluice\.claims\.", r#"{"max-length":5}"#, "--apply-to", "queues"];
    scene.servers().rabbit.control(&small);
    let workers = &scene.site().cluster.workers;
    workers.iter().for_each(|worker| worker.serving().freeze());
    let before = scene.crowd.not_now();
    // The crowd's patience ends with a push that waits; a full queue refuses at once.
    eventually("orders are refused", async || scene.crowd.not_now() > before + 100).await;
    workers.iter().for_each(|worker| worker.serving().resume());
    scene.servers().rabbit.control(&["clear_policy", "-p", "v0", "few"]);
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_rabbitmq_blocks_all_pushes() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().rabbit.control(&["set_vm_memory_high_watermark", "0.000001"]);
    let before = scene.crowd.not_now();
    eventually("orders are refused", async || scene.crowd.not_now() > before + 100).await;
    scene.servers().rabbit.control(&["set_vm_memory_high_watermark", "0.6"]);
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_closes_all_connections_of_rabbitmq() {
    let mut scene = Scene::begin(UNITS).await;
    let lost = |scene: &Scene| scene.said().matches("lost RabbitMQ").count();
    let before = lost(&scene);
    scene.servers().rabbit.control(&["close_all_connections", "--global", "by hand"]);
    let all = scene.site().cluster.members().count();
    eventually("every process has lost it", async || lost(&scene) >= before + all).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_freezes_for_four_seconds() {
    let mut scene = Scene::begin(UNITS).await;
    let before = scene.refused();
    scene.servers().rabbit.freeze();
    lasts(Duration::from_secs(4)).await;
    eventually("orders are refused", async || scene.refused() > before).await;
    scene.servers().rabbit.resume();
    scene.all_is_well().await;
}

/// Pushes arrive and their confirms do not, or the other way round, and nobody says that the connection is dead.
#[tokio::test(flavor = "multi_thread")]
async fn links_to_rabbitmq_carry_nothing_one_way() {
    let scene = Scene::begin(3 * UNITS).await;
    let struck = |who, side| match (who, side) {
        (Who::Apis, _) => Struck::Orders,
        (Who::Workers, Side::Server) => Struck::Settling,
        // What is not acknowledged is delivered all the same, up to a limit.
        (Who::Workers, Side::Client) => Struck::PerhapsNothing,
    };
    scene.nothing_arrives_one_way(|links| &links.rabbit, struck).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_read_is_parked_and_holds_nothing_up() {
    let scene = Scene::begin(UNITS).await;
    let url = scene.site().cluster.trio.rabbit.url("v0");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for shard in 0..4 {
        let (queue, options) = (format!("sluice.claims.{shard}"), BasicPublishOptions::default());
        let poison = channel.basic_publish("".into(), queue.into(), options, b"{\"sale\":", BasicProperties::default());
        assert_eq!(poison.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    }
    let worker = format!("http://{}", scene.site().cluster.workers[0].address);
    let worker = Target::find(&worker, false).await.unwrap();
    eventually("all four are counted", async || {
        let request = worker.request(Method::GET, "/metrics".parse().unwrap(), Bytes::new());
        let metrics = Wire::open(&worker).await.unwrap().call(request).await.unwrap().body;
        let metrics = String::from_utf8_lossy(&metrics);
        metrics.lines().any(|line| line == "sluice_dead_letters 4")
    })
    .await;
    assert_eq!((scene.crowd.not_now(), scene.crowd.unanswered()), (0, 0));
    scene.all_is_well().await;
}
