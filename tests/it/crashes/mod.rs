//! Crashes between any two steps of the real program: each moment of `src/fault.rs` times each strike of `scene.rs`, on both
//! deployments. `SLUICE_SCENES=all ./test crashes -- --nocapture` plays every scene, and `SLUICE_SCENES=killed@pulled` those
//! of that name; without it, those with killed servers are a choice.

mod account;
mod kills;
mod probe;
mod scene;
mod shards;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::join_all;
use sluice::fault::Moment;

use crate::process::Env;
use crate::servers::trio::Trio;
use crate::servers::turn;
use probe::BACK_TIME_MAX;
use scene::{Servers, Stage, Strike};

/// Stages that share their servers.
const STAGES: usize = 3;
/// Of the scenes with killed servers, one in so many is played each time.
const CHOICE: usize = 6;
/// Where a worker has pulled claims that RabbitMQ can give to another one.
const PULLED: [Moment; 3] = [Moment::Pulled, Moment::BeforeCommit, Moment::Committed];

/// How many scenes of each strike were played, and the longest time to full service.
#[derive(Default)]
struct Tally(BTreeMap<Strike, (usize, Duration)>);

impl Tally {
    fn add(&mut self, strike: Strike, scenes: usize, took: Duration) {
        let (count, longest) = self.0.entry(strike).or_default();
        *count += scenes;
        *longest = (*longest).max(took);
    }

    fn show(&self, deployment: &str) {
        for (strike, (count, longest)) in &self.0 {
            println!(
                "{deployment}: {} at {count} moments, full service within {} ms",
                strike.name(),
                longest.as_millis()
            );
        }
    }
}

/// The moments of a process, in the sequence of an order's way.
fn moments() -> impl Iterator<Item = Moment> {
    Moment::value_variants().iter().copied()
}

/// Whether a scene is played.
fn is_wanted(moment: Moment, strike: Strike, is_choice: bool) -> bool {
    match std::env::var("SLUICE_SCENES") {
        Ok(all) if all == "all" => true,
        Ok(name) => read(&name) == (strike, moment),
        Err(_) => is_choice,
    }
}

/// Which scene has this name. One that is none would pass every test, with no scene played.
fn read(name: &str) -> (Strike, Moment) {
    let scene = name.split_once('@').and_then(|(strike, moment)| {
        Some((Strike::from_str(strike, false).ok()?, Moment::from_str(moment, false).ok()?))
    });
    scene.filter(|(strike, moment)| *strike != Strike::Silent || PULLED.contains(moment)).unwrap_or_else(|| {
        let strikes: Vec<String> = Strike::value_variants().iter().map(|strike| strike.name()).collect();
        let moments: Vec<String> = moments().map(Moment::name).collect();
        let (strikes, moments) = (strikes.join(" "), moments.join(" "));
        panic!(
            "SLUICE_SCENES={name}: no such scene. Write all, or STRIKE@MOMENT like killed@pulled\n\
             strikes: {strikes}\nmoments: {moments}\nsilent strikes only those that have pulled: pulled to committed"
        )
    })
}

#[test]
#[should_panic(expected = "STRIKE@MOMENT like killed@pulled")]
fn a_scene_that_does_not_exist_is_no_name() {
    read("killed@puled");
}

async fn play(stage: &mut Stage<'_>, tally: &mut Tally, moment: Moment, strike: Strike) {
    let took = stage.play(moment, strike).await;
    println!("{}@{}: {} ms", strike.name(), moment.name(), took.as_millis());
    assert!(took < BACK_TIME_MAX, "{}@{}: no full service after {took:?}", strike.name(), moment.name());
    tally.add(strike, 1, took);
}

/// An embedded gate forgets with its process, so nothing is ever left over for a sweep there.
#[tokio::test(flavor = "multi_thread")]
async fn one_process_that_dies_or_stands_still_anywhere_keeps_every_promise() {
    let _turn = turn().await;
    let strikes = [Strike::Killed, Strike::Frozen];
    let moments = moments().filter(|moment| *moment != Moment::Swept);
    let scenes = moments.flat_map(|moment| strikes.map(|strike| (moment, strike)));
    side_by_side(scenes, async |_| Stage::embedded().await).await.show("embedded");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_die_or_stand_still_anywhere_keep_every_promise() {
    let _turn = turn().await;
    let trio = Trio::start();
    let strikes = [Strike::Killed, Strike::Frozen, Strike::GateEmptied, Strike::SessionsEnded];
    let scenes = moments().flat_map(|moment| strikes.map(|strike| (moment, strike)));
    let stage = async |number| Stage::distributed(Servers::Shared(&trio, part_of(&trio, number))).await;
    side_by_side(scenes, stage).await.show("distributed");
}

/// Plays the scenes on several stages at once: most of them wait most of the time.
async fn side_by_side<'a>(
    scenes: impl Iterator<Item = (Moment, Strike)>,
    stage: impl AsyncFn(usize) -> Stage<'a>,
) -> Tally {
    let mut shares: Vec<Vec<(Moment, Strike)>> = vec![Vec::new(); STAGES];
    let wanted = scenes.filter(|(moment, strike)| is_wanted(*moment, *strike, true));
    wanted.enumerate().for_each(|(number, scene)| shares[number % STAGES].push(scene));
    let played = shares.into_iter().enumerate().map(async |(number, scenes)| {
        let (mut stage, mut tally) = (stage(number).await, Tally::default());
        for (moment, strike) in scenes {
            play(&mut stage, &mut tally, moment, strike).await;
        }
        tally
    });
    let mut sum = Tally::default();
    for tally in join_all(played).await {
        tally.0.into_iter().for_each(|(strike, (count, took))| sum.add(strike, count, took));
    }
    sum
}

/// The variables that lead to a stage's own part of shared servers.
fn part_of(trio: &Trio, number: usize) -> Env {
    let own = |(name, url): &(&'static str, String)| match *name {
        "DATABASE_URL" => (*name, trio.postgres.database()),
        "REDIS_URL" => (*name, format!("{url}/{number}")),
        _ => (*name, trio.rabbit.own_url()),
    };
    trio.env().iter().map(own).collect()
}

/// RabbitMQ gives up a process that it has not heard of twice as long as its heartbeat, and its shards go to the other one.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_wake_up_after_another_has_settled_for_them_settle_nothing_twice() {
    let _turn = turn().await;
    let (trio, mut tally) = (Trio::start(), Tally::default());
    let mut env = trio.env();
    env.iter_mut().filter(|(name, _)| *name == "RABBITMQ_URL").for_each(|(_, url)| url.push_str("?heartbeat=2"));
    let mut stage = Stage::distributed(Servers::Shared(&trio, env)).await;
    for moment in PULLED.into_iter().filter(|moment| is_wanted(*moment, Strike::Silent, true)) {
        play(&mut stage, &mut tally, moment, Strike::Silent).await;
    }
    tally.show("distributed");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_die_while_a_process_is_anywhere_break_no_promise() {
    let _turn = turn().await;
    let (mut trio, mut tally) = (Trio::start(), Tally::default());
    let mut stage = Stage::distributed(Servers::Own(&mut trio)).await;
    let strikes = [Strike::GateKilled, Strike::LedgerKilled, Strike::QueueKilled];
    let all = strikes.into_iter().enumerate().flat_map(|(shift, strike)| {
        moments().enumerate().map(move |(number, moment)| (number + 2 * shift, moment, strike))
    });
    for (_, moment, strike) in all.filter(|(n, moment, strike)| is_wanted(*moment, *strike, n % CHOICE == 0)) {
        play(&mut stage, &mut tally, moment, strike).await;
    }
    tally.show("distributed");
}
