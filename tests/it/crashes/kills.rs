//! Random kills, one after the other, of random processes and servers, while a crowd buys: `SLUICE_KILLS=200 ./test
//! random_kills -- --nocapture` makes as many as one likes, and `SLUICE_SEED` repeats their sequence.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use sluice::clock::{Clock, RealClock};

use super::account;
use super::probe::{self, BACK_TIME_MAX};
use crate::buyers::{Buyers, Habit};
use crate::cluster::Cluster;

/// Kills of one run, unless `SLUICE_KILLS` says otherwise.
const KILLS: usize = 24;
/// Units for each kill, so that the sale outlives them all.
const UNITS_PER_KILL: usize = 500;
/// Buyers, and how long each looks around between two orders, until the last kill is over.
const BUYERS: usize = 8;
const STROLL: Duration = Duration::from_millis(25);
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

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_break_no_promise() {
    let kills = number("SLUICE_KILLS").unwrap_or(KILLS);
    let mut random = Rng::with_seed(number("SLUICE_SEED").unwrap_or(1) as u64);
    let mut cluster = Cluster::start();
    let targets = cluster.targets().await;
    probe::prepare(&targets[0]).await;
    probe::create(&targets[0], "drop", kills * UNITS_PER_KILL, 600).await;
    let buyers = Buyers::come(&targets, "drop", "c", BUYERS, Habit::Stroll(STROLL));
    let (mut longest, mut killed) = (Duration::ZERO, BTreeMap::new());
    for kill in 0..kills {
        // One time in eight, two at once.
        let two = random.u32(0..8) == 0;
        let mut victims = vec![Victim::choose(&mut random), Victim::choose(&mut random)];
        victims.truncate(if two { 2 } else { 1 });
        victims.dedup();
        victims.iter().for_each(|victim| victim.kill(&mut cluster));
        RealClock::new().sleep(Duration::from_millis(random.u64(0..DEAD_MS_MAX))).await;
        victims.iter().for_each(|victim| victim.start_again(&mut cluster));
        let back = RealClock::new();
        join_all(targets.iter().enumerate().map(async |(at, target)| {
            probe::serves(target, &format!("p-{kill}-{at}")).await;
        }))
        .await;
        let took = back.monotonic();
        assert!(took < BACK_TIME_MAX, "kill {kill}, {victims:?}: no full service after {took:?}: {}", cluster.said());
        longest = longest.max(took);
        victims.iter().for_each(|victim| *killed.entry(victim.name()).or_insert(0) += 1);
    }
    buyers.hurry();
    let promised = buyers.gone().await;
    let taken = account::hold(&targets[0], "drop", &promised).await;
    assert_eq!(taken, kills * UNITS_PER_KILL);
    println!("{kills} times {killed:?} were killed; {taken} units sold exactly; full service within {longest:?}");
}
