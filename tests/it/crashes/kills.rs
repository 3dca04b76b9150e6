//! Random kills, one after the other, of random processes and servers, while a crowd buys: `SLUICE_KILLS=200 ./test
//! random_kills -- --nocapture` makes as many as one likes, and `SLUICE_SEED` repeats their sequence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use futures_util::future::join_all;
use sluice::audit::Verdict;
use sluice::clock::{Clock, RealClock};
use sluice::load::crowd::Habits;
use sluice::load::wire::Target;
use sluice::load::{Plan, Visit};
use sluice::model::SaleId;
use tokio::sync::oneshot;

use super::account;
use super::probe::{self, BACK_TIME_MAX};
use crate::buyers::{Buyers, Habit, Operator};
use crate::cluster::{Cluster, TOKEN};
use crate::servers::turn;

/// Kills of one run, unless `SLUICE_KILLS` says otherwise.
const KILLS: usize = 24;
/// Longer than any run: what lapses is another test's.
const HOLD_SECONDS: u32 = 24 * 3_600;
/// Units for each kill, so that the sale outlives them all.
const UNITS_PER_KILL: usize = 300;
/// Orders of the crowd for each kill, at another sale.
const ORDERS_PER_KILL: usize = 900;
/// Buyers, and how long each looks around between two orders, until the last kill is over.
const BUYERS: usize = 8;
const STROLL: Duration = Duration::from_millis(25);
/// Between two adjustments of the stock.
const ADJUSTS_EVERY: Duration = Duration::from_millis(50);
/// How long something stays dead, at most.
const DEAD_MS_MAX: u64 = 400;

/// What may be killed, with its share in a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Api(usize),
    Worker(usize),
    Redis,
    PostgreSql,
    RabbitMq,
}

impl Victim {
    fn choose(random: &mut Rng) -> Self {
        match random.u32(0..100) {
            0..35 => Victim::Api(random.usize(0..2)),
            35..70 => Victim::Worker(random.usize(0..2)),
            70..83 => Victim::Redis,
            83..95 => Victim::PostgreSql,
            _ => Victim::RabbitMq,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Victim::Api(_) => "API",
            Victim::Worker(_) => "worker",
            Victim::Redis => "Redis",
            Victim::PostgreSql => "PostgreSQL",
            Victim::RabbitMq => "RabbitMQ",
        }
    }

    fn kill(self, cluster: &mut Cluster) {
        match self {
            Victim::Api(number) => cluster.apis[number].kill(),
            Victim::Worker(number) => cluster.workers[number].kill(),
            Victim::Redis => cluster.trio.redis.server.kill(),
            Victim::PostgreSql => cluster.trio.postgres.kill(),
            Victim::RabbitMq => cluster.trio.rabbit.kill(),
        }
    }

    fn start_again(self, cluster: &mut Cluster) {
        match self {
            Victim::Api(number) => cluster.apis[number].spawn(&[]),
            Victim::Worker(number) => cluster.workers[number].spawn(&[]),
            Victim::Redis => cluster.trio.redis.start_again(),
            Victim::PostgreSql => cluster.trio.postgres.start_again(),
            Victim::RabbitMq => cluster.trio.rabbit.start_again(),
        }
    }
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Everything that a crowd does, at a pace that leaves room for kills.
fn habits(kills: usize) -> Habits {
    let orders = u32::try_from(kills * ORDERS_PER_KILL).unwrap();
    Habits {
        customers: orders / 2,
        orders,
        rate_per_s: 100.0,
        again: 0.1,
        retries: 0.1,
        duplicates: 0.1,
        impatience: 0.1,
        mistakes: 0.05,
        confirm: 0.3,
        cancel: 0.2,
        ..Habits::plain(7)
    }
}

/// Kills, and what they came to.
#[derive(Default)]
struct Toll {
    longest: Duration,
    killed: BTreeMap<&'static str, usize>,
}

/// One time in eight, two die at once.
async fn kill_and_start_again(
    cluster: &mut Cluster,
    targets: &[Target],
    random: &mut Rng,
    kill: usize,
    toll: &mut Toll,
) {
    let mut victims = vec![Victim::choose(random), Victim::choose(random)];
    victims.truncate(if random.u32(0..8) == 0 { 2 } else { 1 });
    victims.dedup();
    victims.iter().for_each(|victim| victim.kill(cluster));
    RealClock::new().sleep(Duration::from_millis(random.u64(0..DEAD_MS_MAX))).await;
    victims.iter().for_each(|victim| victim.start_again(cluster));
    let back = RealClock::new();
    let probes = targets.iter().enumerate().map(async |(at, target)| {
        probe::serves(target, &format!("p-{kill}-{at}")).await;
    });
    join_all(probes).await;
    let took = back.monotonic();
    assert!(took < BACK_TIME_MAX, "kill {kill}, {victims:?}: no full service after {took:?}: {}", cluster.said());
    toll.longest = toll.longest.max(took);
    victims.iter().for_each(|victim| *toll.killed.entry(victim.name()).or_insert(0) += 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_break_no_promise() {
    let _turn = turn().await;
    let kills = number("SLUICE_KILLS").unwrap_or(KILLS);
    let mut random = Rng::with_seed(number("SLUICE_SEED").unwrap_or(1) as u64);
    let (mut cluster, clock) = (Cluster::start(), Arc::new(RealClock::new()));
    let targets = cluster.targets().await;
    probe::prepare(&targets[0]).await;
    probe::create(&targets[0], "drop", kills * UNITS_PER_KILL, HOLD_SECONDS).await;
    probe::create(&targets[0], "crowd", kills * ORDERS_PER_KILL / 3, HOLD_SECONDS).await;
    let buyers = Buyers::come(&targets, "drop", "c", BUYERS, Habit::Stroll(STROLL));
    let operator = Operator::come(&targets, "drop", ADJUSTS_EVERY);
    let plan = Plan::insistent(targets.clone(), SaleId::new("crowd").unwrap(), TOKEN, habits(kills));
    let mut visit = Visit::begin(plan, clock.clone()).await.unwrap();
    let (tell, over) = oneshot::channel();
    let killing = async {
        let mut toll = Toll::default();
        for kill in 0..kills {
            kill_and_start_again(&mut cluster, &targets, &mut random, kill, &mut toll).await;
        }
        tell.send(()).unwrap();
        (toll, clock.monotonic())
    };
    let (history, (toll, healed)) = tokio::join!(visit.send(over.map(drop)), killing);
    let mut history = history.unwrap();
    history.healed_us = Some(visit.moment_us(healed));
    let (mut check, facts) = visit.check(&history).await.unwrap();
    visit.twice(&history, &mut check, &facts).await.unwrap();
    assert_eq!((check.verdict, &check.violations), (Verdict::Exact, &Vec::new()));
    let more = operator.gone().await;
    let units = kills * UNITS_PER_KILL + more;
    buyers.hurry();
    let promised = buyers.gone().await;
    let taken = account::hold(&targets[0], "drop", units, &promised).await;
    assert_eq!(taken, units);
    println!("{kills} times, {:?} were killed; full service within {:?}", toll.killed, toll.longest);
    println!(
        "{taken} units of one sale sold exactly, {more} of them added meanwhile; {} answers of the crowd at another one checked",
        history.records.len()
    );
}
