//! Faults of the processes themselves, and of the clients.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join;
use hyper::Method;
use serde_json::{Value, json};
use sluice::fault::{Moment, VARIABLE};
use sluice::load::wire::{Target, Wire};
use sluice::model::limits;

use super::crowd::ask;
use super::{FULL_SWING, Scene, UNITS, lasts};
use crate::cluster::{Cluster, TOKEN};
use crate::servers::frames::{Kind, Protocol, Side};
use crate::servers::proxy::{Proxy, Strike};
use crate::servers::turn;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn an_api_stands_still_for_four_seconds() {
    let scene = Scene::begin(UNITS).await;
    let before = scene.crowd.unanswered();
    scene.site().cluster.apis[0].serving().freeze();
    lasts(Duration::from_secs(4)).await;
    eventually("it does not answer", async || scene.crowd.unanswered() > before).await;
    scene.site().cluster.apis[0].serving().resume();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_stands_still_for_four_seconds() {
    let scene = Scene::begin(2 * UNITS).await;
    let mut waited = false;
    for worker in &scene.site().cluster.workers {
        worker.serving().freeze();
        lasts(Duration::from_secs(4)).await;
        waited |= scene.waiting() >= FULL_SWING;
        worker.serving().resume();
    }
    assert!(waited, "neither of them settles this sale");
    scene.all_is_well().await;
}

/// Its rows stay locked until PostgreSQL ends its session; what it comes back with is a commit that is too late.
#[tokio::test(flavor = "multi_thread")]
async fn workers_stand_still_between_their_writes_and_the_commit() {
    let scene = Scene::begin(2 * UNITS).await;
    let site = scene.site();
    // Earlier scenes have struck here as well.
    let before = site.workers.postgres.struck();
    site.workers.postgres.trap(Side::Client, Kind::Commit, Strike::Stall, 1);
    eventually("a commit is held back", async || site.workers.postgres.struck() > before).await;
    let workers = &site.cluster.workers;
    workers.iter().for_each(|worker| worker.serving().freeze());
    let idle = "select count(*) from pg_stat_activity where state = 'idle in transaction'";
    // What stands before the commit is on its way to PostgreSQL, and is done there a moment later.
    eventually("a transaction holds its rows", async || site.cluster.trio.psql(idle) != "0").await;
    eventually("PostgreSQL gives the rows back", async || site.cluster.trio.psql(idle) == "0").await;
    site.workers.postgres.heal();
    workers.iter().for_each(|worker| worker.serving().resume());
    scene.all_is_well().await;
}

/// The one that holds the rows dies; whoever is left takes over.
#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_killed_and_starts_again() {
    let mut scene = Scene::begin(2 * UNITS).await;
    let crowd = scene.crowd.clone();
    let count = scene.cluster().members().count();
    for at in 0..count {
        crowd.accepts(100).await;
        let member = scene.cluster().members_mut().nth(at).unwrap();
        member.kill();
        member.spawn(&[]);
        member.is_up();
    }
    scene.all_is_well().await;
}

/// What RabbitMQ says to an order that slept before its push may come after a fence, so it promises nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_slept_between_gate_and_queue_is_not_promised() {
    let _turn = turn().await;
    let mut cluster = Cluster::of(1, 1);
    cluster.create(json!([{ "sku": "a", "stock": 5 }]), json!({})).await;
    let target = cluster.targets().await.remove(0);
    let order = async || ask(&mut Wire::open(&target).await.unwrap(), &target, "drop", "c", None).await.unwrap();
    let api = &mut cluster.apis[0];
    api.kill();
    api.spawn(&[(VARIABLE, format!("{}:freeze", Moment::Admitted.name()))]);
    api.is_up();
    let slept = async {
        eventually("it stands still", async || api.is_struck()).await;
        lasts(limits::PUSH_TIME_MAX + Duration::from_millis(100)).await;
        api.go_on();
    };
    let (answer, ()) = join(order(), slept).await;
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status.as_u16(), &problem["effect"]), (503, &json!("unknown")), "{problem}");
    let again = order().await;
    assert_eq!(again.status.as_u16(), 200, "{:?}", again.body);
    assert_eq!(cluster.settled_audit().await["verdict"], "exact");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_is_heard_as_not_now_at_most() {
    let mut scene = Scene::begin(2 * UNITS).await;
    let crowd = scene.crowd.clone();
    let count = scene.cluster().members().count();
    for at in 0..count {
        crowd.accepts(100).await;
        let member = scene.cluster().members_mut().nth(at).unwrap();
        let (code, said, _) = member.stop();
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("did not finish in time"), "{said}");
        member.spawn(&[]);
        member.is_up();
    }
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_hang_up_at_any_moment() {
    let scene = Scene::begin(2 * UNITS).await;
    scene.crowd.be_hasty(true);
    eventually("many have hung up", async || scene.crowd.unanswered() > 500).await;
    scene.crowd.be_hasty(false);
    scene.all_is_well().await;
}

/// The order is accepted, and its client never hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_apis_are_lost() {
    let mut doors = Vec::new();
    let ways = |urls: Vec<String>| {
        let mut led = Vec::new();
        for url in urls {
            let door = Proxy::start(Protocol::Http, url.rsplit(':').next().unwrap().parse().unwrap());
            led.push(door.lead(&url));
            doors.push(door);
        }
        led
    };
    let scene = Scene::at(UNITS, ways).await;
    for door in &doors {
        door.trap(Side::Server, Kind::Answer, Strike::Cut, 100);
    }
    eventually("all are lost", async || doors.iter().all(|door| door.struck() == 100)).await;
    eventually("all are missed", async || scene.crowd.unanswered() >= 200).await;
    scene.all_is_well().await;
}

/// Files and connections that this process has open.
fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn limit_files(pid: u32, most: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={most}:")]);
    assert!(prlimit.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_has_no_file_descriptors_left() {
    let scene = Scene::begin(UNITS).await;
    let api = &scene.site().cluster.apis[0];
    let pid = api.serving().pid();
    limit_files(pid, &(files(pid) + 4).to_string());
    let crowd: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(&api.address).unwrap()).collect();
    api.serving().wait_for("could not accept a connection");
    // Whoever is in keeps ordering; what the API has lost it cannot replace yet.
    scene.site().apis.redis.cut();
    scene.crowd.accepts(100).await;
    drop(crowd);
    limit_files(pid, "1024");
    scene.all_is_well().await;
}

/// Where Debian's `faketime` has its library.
fn wrong_clock(hours: &str) -> Vec<(&'static str, String)> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];
    let libraries = folders.map(|folder| format!("{folder}/libfaketime.so.1"));
    let library = libraries.into_iter().find(|library| fs::exists(library).unwrap());
    let library =
        library.expect("libfaketime is missing: on Debian or Ubuntu, apt-get install faketime; ./test does it");
    vec![("LD_PRELOAD", library), ("FAKETIME", format!("{hours}h")), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into())]
}

/// The database's clock decides: nothing lapses, opens or ends because a machine is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_the_machines_are_an_hour_off() {
    let mut scene = Scene::begin(4 * UNITS).await;
    let crowd = scene.crowd.clone();
    for (at, hours) in ["+1", "-1", "+1", "-1"].into_iter().enumerate() {
        let member = scene.cluster().members_mut().nth(at).unwrap();
        member.stop();
        member.spawn(&wrong_clock(hours));
        member.is_up();
        let environment = fs::read_to_string(format!("/proc/{}/maps", member.serving().pid())).unwrap();
        assert!(environment.contains("libfaketime"), "its clock is right");
    }
    crowd.accepts(200).await;
    let moves = format!("select count(*) from moves where sale = '{}' and kind <> 'hold'", scene.sale);
    let before = scene.cluster().trio.psql(&moves);
    crowd.accepts(200).await;
    assert_eq!(scene.cluster().trio.psql(&moves), before, "something lapsed, or worse");
    opens_and_ends_in_time(&scene).await;
    for at in 0..4 {
        let member = scene.cluster().members_mut().nth(at).unwrap();
        member.stop();
        member.spawn(&[]);
        member.is_up();
    }
    scene.all_is_well().await;
}

/// A sale of two seconds, as the database counts them; both APIs, whose clocks are wrong, keep to it.
async fn opens_and_ends_in_time(scene: &Scene) {
    let trio = &scene.site().cluster.trio;
    let sale = format!("short-{}", scene.sale);
    let soon = |seconds: u32| {
        let format = r#"YYYY-MM-DD"T"HH24:MI:SS.MS"Z""#;
        trio.psql(&format!("select to_char(now() at time zone 'utc' + interval '{seconds} seconds', '{format}')"))
    };
    let (opens_at, closes_at) = (soon(2), soon(4));
    let body = json!({ "id": sale, "name": sale, "opens_at": opens_at, "closes_at": closes_at,
        "items": [{ "sku": "a", "stock": 1_000_000 }] });
    let targets = scene.site().cluster.targets().await;
    let _created: Value = targets[0].ask(Method::POST, "/v1/sales", Some(TOKEN), Some(&body)).await.unwrap();
    for slug in ["sale-not-open", "", "sale-ended"] {
        for target in &targets {
            eventually(&format!("it says {slug:?}"), async || slug_of(target, &sale).await == slug).await;
        }
    }
    let orders = format!(
        "select count(*) > 0, min(accepted_at) >= '{opens_at}', max(accepted_at) < '{closes_at}' from orders \
         where sale = '{sale}'"
    );
    eventually("its orders are settled, and within its window", async || trio.psql(&orders) == "t|t|t").await;
}

/// What an order of somebody new is told; nothing if it is accepted.
async fn slug_of(target: &Target, sale: &str) -> String {
    let customer = format!("c-{}", fastrand::u64(..));
    let answer = ask(&mut Wire::open(target).await.unwrap(), target, sale, &customer, None).await.unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
}
