//! The real program as whoever shows it to others meets it: streams that end before the process does, a crowd that is called,
//! faults at the press of a button, and a report that anybody can open.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::{Answer, Target};

use crate::cluster::TOKEN;
use crate::process::{Env, Serving, run, said, sluice};
use crate::support::eventually;
use crate::watcher::Watcher;

fn env() -> Env {
    vec![("SLUICE_ADMIN_TOKEN", TOKEN.to_owned())]
}

async fn start(data: &std::path::Path, more: &[&str]) -> (Serving, Target) {
    let serving = Serving::spawn(data, &[&["serve", "--listen", "127.0.0.1:0"], more].concat(), &env());
    let target = Target::find(&format!("http://{}", serving.address()), false).await.unwrap();
    (serving, target)
}

async fn ask(target: &Target, method: Method, path: &str, body: &Value) -> Answer {
    target.answer(method, path, Some(TOKEN), None, Some(body)).await.unwrap()
}

async fn read(target: &Target, path: &str) -> Value {
    target.ask(Method::GET, path, Some(TOKEN), None).await.unwrap()
}

async fn create(target: &Target, stock: u32) {
    let sale = json!({
        "id": "drop", "name": "Drop", "opens_at": "2020-01-01T00:00:00Z", "items": [{"sku": "ps5", "stock": stock}],
    });
    assert_eq!(ask(target, Method::POST, "/v1/sales", &sale).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the time that passes for an operator is measured")]
async fn a_signal_ends_the_streams_first_and_the_process_within_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (serving, target) = start(folder.path(), &[]).await;
    create(&target, 5).await;
    let address = serving.address();
    let mut watchers = Vec::new();
    for _ in 0..7 {
        let mut watcher = Watcher::open(&address, "drop", TOKEN).await;
        assert_eq!(watcher.next().await.unwrap().name, "snapshot");
        watchers.push(watcher);
    }
    // The seventh connection of a browser is not the last one that is served.
    assert_eq!(read(&target, "/v1/sales/drop").await["state"], "open");
    let started = Instant::now();
    let stopping = tokio::task::spawn_blocking(move || serving.stop());
    for mut watcher in watchers {
        let bye = watcher.until(|event| event.name == "bye").await;
        assert_eq!(bye.data, json!({"reason": "shutting_down"}));
    }
    let (code, log, _) = stopping.await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}: {log}", started.elapsed());
}

/// What watching costs the server, in its own processor time, while something changes at every tick. `--nocapture` prints it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_watchers_cost_little_more_than_one() {
    let folder = tempfile::tempdir().unwrap();
    let (serving, target) = start(folder.path(), &[]).await;
    create(&target, 100_000).await;
    let (address, clock) = (serving.address(), RealClock::new());
    let mut shares = Vec::new();
    for (count, held) in [(1, 40), (100, 80)] {
        let mut watcher = Watcher::open(&address, "drop", TOKEN).await;
        let mut others = Vec::new();
        for _ in 1..count {
            let mut other = Watcher::open(&address, "drop", TOKEN).await;
            others.push(tokio::spawn(async move { while other.next().await.is_some() {} }));
        }
        let first = watcher.until(|event| event.name == "tick").await.data["process"].take();
        for number in 0..40 {
            let order = json!({"customer": format!("{count}-{number}"), "lines": [{"sku": "ps5", "quantity": 1}]});
            let path = "/v1/sales/drop/orders";
            assert_eq!(target.answer(Method::POST, path, None, Some("k"), Some(&order)).await.unwrap().status, 202);
            clock.sleep(Duration::from_millis(100)).await;
        }
        let last = watcher.until(|event| event.data["funnel"]["held"] == held).await.data["process"].take();
        let passed = |name: &str| last[name].as_f64().unwrap() - first[name].as_f64().unwrap();
        shares.push(passed("cpu_seconds") / passed("uptime_seconds"));
        others.iter().for_each(tokio::task::JoinHandle::abort);
    }
    println!("of one processor: {:.3} with 1 watcher, {:.3} with 100", shares[0], shares[1]);
    // This build is not optimised; what is measured here is that a tick is not made again for everybody who watches.
    assert!(shares[1] - shares[0] < 0.3, "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_broken_on_purpose_the_sale_comes_out_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (serving, target) = start(folder.path(), &["--demo"]).await;
    create(&target, 1_000).await;
    let mut watcher = Watcher::open(&serving.address(), "drop", TOKEN).await;
    assert_eq!(watcher.next().await.unwrap().data["demo"], true);
    let crowd = json!({"sale": "drop", "customers": 4_000, "seconds": 4, "retries": true, "seed": 7});
    assert_eq!(ask(&target, Method::POST, "/v1/demo/crowd", &crowd).await.status, 202);
    assert_eq!(ask(&target, Method::POST, "/v1/demo/crowd", &crowd).await.status, 409, "one at a time");
    let clock = RealClock::new();
    for fault in ["deliver-twice", "kill-worker", "freeze-gate"] {
        clock.sleep(Duration::from_millis(200)).await;
        let struck = ask(&target, Method::POST, &format!("/v1/demo/chaos/{fault}"), &json!({})).await;
        assert_eq!(struck.status, 202, "{struck:?}");
        let told = watcher.until(|event| event.name == "log" && event.data["kind"] == "demo").await;
        assert!(told.data["text"].is_string(), "{told:?}");
    }
    assert_eq!(ask(&target, Method::POST, "/v1/demo/chaos/no-such", &json!({})).await.status, 404);
    eventually("the crowd has gone", async || read(&target, "/v1/demo").await["crowd"]["done"] == true).await;
    let crowd = read(&target, "/v1/demo").await["crowd"].take();
    // Some hang up before they hear that they were accepted.
    assert!((900..=1_000).contains(&crowd["accepted"].as_u64().unwrap()), "{crowd}");
    assert!(crowd["refused"].as_u64().unwrap() > 2_000 && crowd["offered"].as_u64().unwrap() >= 4_000, "{crowd}");
    eventually("all is settled", async || read(&target, "/v1/sales/drop/audit").await["verdict"] != "unsettled").await;
    let audit = read(&target, "/v1/sales/drop/audit").await;
    assert_eq!((&audit["verdict"], &audit["orders"]), (&json!("exact"), &json!({"held": 1_000})), "{audit}");
    let end = watcher.until(|event| event.name == "tick" && event.data["funnel"]["held"] == 1_000).await.data;
    assert_eq!(end["conserved"], true, "{end}");
    let log = serving.said();
    assert!(log.contains("delivered twice") && log.contains("the worker was killed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_can_be_sent_home() {
    let folder = tempfile::tempdir().unwrap();
    let (_serving, target) = start(folder.path(), &["--demo"]).await;
    create(&target, 10).await;
    let crowd = json!({"sale": "drop", "customers": 1_000, "rate_per_second": 100, "seconds": 60});
    assert_eq!(ask(&target, Method::POST, "/v1/demo/crowd", &crowd).await.status, 202);
    assert_eq!(ask(&target, Method::DELETE, "/v1/demo/crowd", &json!({})).await.status, 200);
    eventually("it has gone", async || read(&target, "/v1/demo").await["crowd"]["done"] == true).await;
    let wrong = json!({"sale": "drop", "customers": 0, "seconds": 1_000, "people": 3});
    let refused = ask(&target, Method::POST, "/v1/demo/crowd", &wrong).await;
    assert_eq!(refused.status, 422);
    let faults: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(faults["errors"].as_array().unwrap().len(), 3, "{faults}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_shows_what_oversells_and_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (_serving, target) = start(folder.path(), &["--demo"]).await;
    assert_eq!(read(&target, "/v1/demo/race").await["state"], "idle");
    let race = json!({"seeds": 5, "units": 50, "customers": 400});
    assert_eq!(ask(&target, Method::POST, "/v1/demo/race", &race).await.status, 202);
    assert_eq!(ask(&target, Method::POST, "/v1/demo/race", &race).await.status, 409);
    eventually("it is over", async || read(&target, "/v1/demo/race").await["state"] == "done").await;
    let board = read(&target, "/v1/demo/race").await;
    let lanes = board["lanes"].as_array().unwrap();
    for lane in lanes {
        assert_eq!((lane["seeds"].as_array().unwrap().len(), &lane["stock"]), (5, &json!(50)), "{board}");
        if lane["guarded"] == true {
            let made = [&lane["sold"], &lane["oversold"], &lane["lost"], &lane["phantom"]];
            assert_eq!(made, [&json!(50), &json!(0), &json!(0), &json!(0)], "{lane}");
        }
        if lane["oversold"].as_u64() > Some(0) {
            assert_eq!(lane["first_wrong"].as_array().map(Vec::len), Some(4), "{lane}");
        }
    }
    // Real concurrency owes nobody a failure, but a counter that nobody counts up again cannot come out right.
    let counter = lanes.iter().find(|lane| lane["id"] == "count-down").unwrap();
    assert!(counter["phantom"].as_u64() > Some(0), "{counter}");
}

#[test]
fn every_naive_way_oversells_in_one_of_20_seeds_and_no_guarded_one_ever() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = crate::servers::postgres::shared();
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    let mut race = sluice(folder.path(), &["race", "--seeds", "20", "--units", "120", "--customers", "240", "--json"]);
    let output = race.env("DATABASE_URL", &url).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let board: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lanes = board["lanes"].as_array().unwrap();
    assert_eq!((lanes.len(), &board["error"]), (10, &Value::Null), "{board}");
    for lane in lanes {
        let seeds = lane["seeds"].as_array().unwrap();
        assert_eq!(seeds.len(), 20, "{lane}");
        let wrong = |kind: &str| seeds.iter().filter(|seed| seed[kind].as_u64() > Some(0)).count();
        match (lane["guarded"] == true, lane["id"] == "count-down") {
            (true, _) => {
                assert!(seeds.iter().all(|seed| seed["sold"] == 120), "{lane}");
                assert_eq!([wrong("oversold"), wrong("lost"), wrong("phantom")], [0; 3], "{lane}");
            }
            // A counter cannot oversell: what it loses track of, nobody has.
            (false, true) => assert!(wrong("oversold") == 0 && wrong("phantom") > 0, "{lane}"),
            (false, false) => {
                assert!(wrong("oversold") > 0, "{lane}");
                assert_eq!(lane["first_wrong"].as_array().map(Vec::len), Some(4), "{lane}");
            }
        }
    }
    let schemas = "select count(*) from information_schema.schemata where schema_name like 'sluice_race%'";
    assert_eq!(postgres.psql(database, schemas), "0");
}

#[test]
fn a_demonstration_does_not_leave_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let mut public = sluice(folder.path(), &["serve", "--demo", "--listen", "0.0.0.0:0"]);
    let refused = public.env("SLUICE_ADMIN_TOKEN", TOKEN).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--demo"), "{}", said(&refused));
}

#[test]
fn a_demo_ends_with_a_report_that_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["demo", "--exit", "--units", "50", "--customers", "1000", "--report", "report.html"];
    let printed = run(folder.path(), &args, 0);
    assert!(printed.contains("/#token=") && printed.ends_with("CONSERVED\n"), "{printed}");
    let report = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(report.len() < 500_000, "{} bytes", report.len());
    assert!(report.contains("OVERSOLD 0 · UNDERSOLD 0"), "the verdict is not in it");
    let token = printed.split("/#token=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    assert!(!report.contains(token), "the token is in the report");
    for elsewhere in ["src=\"", "href=\"", "@import", "url(\"http"] {
        assert!(!report.contains(elsewhere), "it asks for something else: {elsewhere}");
    }
    let data = report.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["snapshot"]["items"][0]["held"], &data["audit"]["verdict"]), (&json!(50), &json!("exact")));
    assert_eq!(data["crowd"]["crowd"]["customers"], 1_000);
}
