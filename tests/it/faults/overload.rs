//! More orders than the queue takes in: what cannot be accepted in time is refused at once, and the rest goes on as if the
//! others had not come.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::crowd::Habits;
use sluice::load::engine::Patience;
use sluice::load::progress::Watch;
use sluice::load::record::Outcome;
use sluice::load::summary::Summary;
use sluice::load::wire::{Target, Wire};
use sluice::load::{Plan, run};
use sluice::model::SaleId;

use super::crowd::ask;
use super::{Lease, lasts};
use crate::cluster::TOKEN;

/// What the way to the queue carries per second: some hundred orders, so that the processor is not what is scarce.
const BYTES_PER_SECOND: u32 = 250_000;
/// How long each load lasts.
const SECONDS: u32 = 8;
/// Buyers of the closed loop: each orders again as soon as it has an answer.
const BUYERS: usize = 200;
/// Connections of the open load: more than may wait.
const CONNECTIONS: usize = 3_000;
/// Those who look at single answers meanwhile.
const ASKERS: u32 = 80;
/// Nine in ten refusals take at most this long. The crowd and other tests have the same processors, so the figures that
/// are printed say more on an idle machine.
const REFUSED_TIME_MAX_MS: f64 = 50.0;
/// What a process may grow by.
const GROWTH_MAX_KB: u64 = 150_000;

/// How much memory a process has had at most.
fn memory_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Orders per second that so many buyers get accepted, one after the other.
async fn capacity(target: &Target, sale: &str) -> f64 {
    let (clock, accepted) = (RealClock::new(), AtomicUsize::new(0));
    let buyers = (0..BUYERS).map(|buyer| {
        let (clock, accepted) = (&clock, &accepted);
        async move {
            let mut wire = Wire::open(target).await.unwrap();
            for order in 0.. {
                let answer = ask(&mut wire, target, sale, &format!("b-{buyer}-{order}"), None).await.unwrap();
                assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
                accepted.fetch_add(1, Ordering::Relaxed);
                if clock.monotonic() > Duration::from_secs(SECONDS.into()) {
                    break;
                }
            }
        }
    });
    join_all(buyers).await;
    accepted.load(Ordering::Relaxed) as f64 / clock.monotonic().as_secs_f64()
}

/// An open load: it comes at this rate, whatever is answered.
async fn load(target: &Target, sale: &str, seed: u64, rate_per_s: f64) -> Summary {
    let orders = (rate_per_s * f64::from(SECONDS)).round();
    let count = format!("{orders}").parse().unwrap();
    let plan = Plan {
        targets: vec![target.clone()],
        sale: SaleId::new(sale).unwrap(),
        token: Some(TOKEN.to_owned()),
        habits: Habits { customers: count, orders: count, rate_per_s, ..Habits::plain(seed) },
        patience: Patience::default(),
        connections: CONNECTIONS,
        alone: false,
        check: true,
        twice: false,
        settle_time_max: Duration::from_secs(30),
        watch: Watch::Silent,
    };
    run(plan, Arc::new(RealClock::new()), std::future::pending()).await.unwrap()
}

/// Whether each "not now" tells when to ask again. Those who ask come at times of their own while a load is under way: whoever
/// asks as soon as the answer before is there comes when the queue has just made room.
async fn asks_when_to_come_again(target: &Target, sale: &str) {
    let every = Duration::from_secs(SECONDS.into()) / ASKERS;
    let askers = (0..ASKERS).map(async |number| {
        RealClock::new().sleep(every * number).await;
        let mut wire = Wire::open(target).await.unwrap();
        let answer =
            ask(&mut wire, target, sale, &format!("again-{number}-{}", fastrand::u64(..)), None).await.unwrap();
        let refused = answer.status == 503;
        assert!(!refused || answer.retry_after.is_some(), "{}", String::from_utf8_lossy(&answer.body));
        refused
    });
    assert!(join_all(askers).await.contains(&true), "nobody was refused");
}

fn told(summary: &Summary, what: &str) -> (f64, f64) {
    let goodput = summary.count(Outcome::Accepted) as f64 / f64::from(SECONDS);
    let refused = summary.outcomes.iter().find(|latencies| latencies.outcome == Outcome::Unavailable);
    let (count, p50, p90, p99) = refused.map_or((0, 0.0, 0.0, 0.0), |it| (it.count, it.p50_ms, it.p90_ms, it.p99_ms));
    println!(
        "{what}: {:.0} orders/s offered, {goodput:.0} accepted; {count} refused, half within {p50} ms, 90 % within {p90} ms, 99 % within {p99} ms\n{}",
        summary.requests.offered_per_s,
        summary.table()
    );
    assert_eq!(summary.requests.dropped, 0, "the crowd could not keep up");
    let check = summary.check.as_ref().unwrap();
    assert!(check.violations.is_empty(), "{:?}", check.violations);
    (goodput, p90)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_what_the_queue_takes_costs_the_accepted_orders_nothing() {
    let mut lease = Lease::take().await;
    let site = lease.site();
    let target = site.cluster.targets().await.swap_remove(0);
    let sale = format!("overload-{}", site.sales);
    let body = json!({ "id": sale, "name": sale, "opens_at": "2020-01-01T00:00:00Z",
        "items": [{ "sku": "a", "stock": 1_000_000 }] });
    let _created: Value = target.ask(Method::POST, "/v1/sales", Some(TOKEN), Some(&body)).await.unwrap();
    let pids = [&site.cluster.apis[0], &site.cluster.workers[0], &site.cluster.workers[1]].map(|it| it.serving().pid());

    site.apis.rabbit.throttle(BYTES_PER_SECOND);
    let capacity = capacity(&target, &sale).await;
    let before = pids.map(memory_kb);
    let (summary, ()) = tokio::join!(load(&target, &sale, 1, 3.0 * capacity), asks_when_to_come_again(&target, &sale));
    let (goodput, refused_ms) = told(&summary, "a narrow way to the queue");
    println!("{capacity:.0} orders/s of {BUYERS} buyers");
    assert!(goodput >= 0.85 * capacity, "{goodput} of {capacity} orders/s");
    assert!(refused_ms <= REFUSED_TIME_MAX_MS, "refusals took {refused_ms} ms");

    // Every push takes half a second, whatever it carries, and up to a second with the one before it.
    site.apis.rabbit.heal();
    site.apis.rabbit.delay(Duration::from_millis(250));
    let (goodput, refused_ms) = told(&load(&target, &sale, 2, 3_000.0).await, "a slow queue");
    assert!(goodput >= 500.0, "{goodput} orders/s");
    assert!(refused_ms <= REFUSED_TIME_MAX_MS, "refusals took {refused_ms} ms");
    site.apis.rabbit.heal();

    // The gate is asked in batches, one after the other: each takes half a second.
    site.apis.redis.delay(Duration::from_millis(250));
    let (_, refused_ms) = told(&load(&target, &sale, 3, 3_000.0).await, "a slow gate");
    assert!(refused_ms <= REFUSED_TIME_MAX_MS, "refusals took {refused_ms} ms");
    site.apis.redis.heal();

    let after = pids.map(memory_kb);
    println!("memory of the API and the workers: {before:?} kB before, {after:?} kB at most");
    let grown = before.iter().zip(after).all(|(before, after)| after - before <= GROWTH_MAX_KB);
    assert!(grown, "memory grew from {before:?} to {after:?} kB");
    lasts(Duration::from_millis(100)).await;
    let close = format!("/v1/sales/{sale}/close");
    let _closed: Value = target.ask(Method::POST, &close, Some(TOKEN), None).await.unwrap();
}
