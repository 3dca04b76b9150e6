//! Settlement in PostgreSQL: with everything running against the plain architecture, and a worker alone that empties a full
//! queue against what raw SQL in batches can do.

use std::time::Duration;

use anyhow::{Context, ensure};
use sluice::clock::{Clock, RealClock};
use tokio_postgres::{Client, NoTls};

use crate::ceilings::SetBased;
use crate::figures::{BUYERS, Effort, plenty};
use crate::machine::{self, Meter};
use crate::plain::Plain;
use crate::report::Report;
use crate::results::{Bar, Series, median};
use crate::scene::Scene;
use crate::servers::trio::Trio;
use crate::wrk::{self, Burst, Load};

/// How long the plain worker is watched after the load has ended, as no load stands in its way then.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Reads counts from a database.
pub(crate) struct Counter(Client);

impl Counter {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(Self(client))
    }

    pub(crate) async fn count(&self, sql: &str) -> anyhow::Result<f64> {
        let count: i64 = self.0.query_one(sql, &[]).await?.get(0);
        Ok(count as f64)
    }
}

/// The address of the trio's database.
pub(crate) fn database(trio: &Trio) -> anyhow::Result<String> {
    let env = trio.env();
    let url = env.iter().find(|(name, _)| *name == "DATABASE_URL").context("no database")?;
    Ok(url.1.clone())
}

/// Of the load, in each turn.
const SECONDS: u32 = 3;

/// Numbers of workers that are tried for the plain architecture.
const WORKERS: [usize; 4] = [1, 2, 4, 8];

const OURS: &str = "select coalesce(sum(held + sold), 0)::bigint from items";
const THEIRS: &str = "select (stock - available)::bigint from items";

/// One SKU, the crowd at the API, the worker beside it, both architectures in turns.
pub(crate) async fn everything_running(
    name: &str,
    least: f64,
    effort: &Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let scene = Scene::distributed_with_worker().await?;
    let ours = Counter::connect(&database(scene.trio.as_ref().context("it is distributed")?)?).await?;
    let trio = Trio::start();
    let mut plain = Plain::start(&trio.env()).await?;
    let theirs = Counter::connect(&database(&trio)?).await?;
    let mut figure = report.figure(name, "settled while the crowd orders, one SKU", "/s");
    (figure.bar, figure.control) = (Some(Bar::RatioMin(least)), Some(Series::new("the plain architecture")));
    let (workers, trials) = tried(&mut plain, &theirs).await?;
    let (mut accepted, mut their_accepted) = (Vec::new(), Vec::new());
    let (mut alone, mut whole) = (Vec::new(), Vec::new());
    for turn in 0..=effort.turns.min(5) {
        plain.start_worker(workers)?;
        let (settled, burst) = under_load(&plain.api.url, "plain", &plain.pids(), &theirs, THEIRS).await?;
        let their_rate = burst.per_s;
        let their_burst = Burst { per_s: settled, ..burst };
        let their_rest = afterwards(&theirs).await?;
        plain.stop_worker().await?;

        let (sale, pids) = (plenty(&scene).await?, scene.pids());
        let (clock, meter) = (RealClock::new(), Meter::start(&pids)?);
        let (settled, burst) = under_load(&scene.target.url, &sale, &pids, &ours, OURS).await?;
        scene.settled(&sale).await?;
        let (rate, burst) = (burst.answers as f64 / clock.monotonic().as_secs_f64(), burst.metered(&meter)?);
        if turn > 0 {
            accepted.push(burst.per_s);
            their_accepted.push(their_rate);
            alone.push(their_rest);
            whole.push(rate);
            figure.subject.add(Burst { per_s: settled, ..burst });
            figure.control.iter_mut().for_each(|series| series.add(their_burst.clone()));
        }
    }
    let counts = "select count(*) from orders";
    ensure!(
        theirs.count(counts).await? == theirs.count(THEIRS).await?,
        "the plain architecture sold what nobody ordered"
    );
    let rates = [whole, alone, accepted, their_accepted];
    let [whole, alone, accepted, their_accepted] = rates.map(|rates| median(rates.into_iter()));
    figure.notes.push(format!("Sluice, from the first order to the last settlement: {whole:.0} orders a second"));
    figure.notes.push(format!("the plain worker once the crowd has gone: {alone:.0} orders a second"));
    figure
        .notes
        .push(format!("accepted meanwhile: Sluice {accepted:.0}, the plain architecture {their_accepted:.0} a second"));
    figure.notes.push(trials);
    figure.notes.push(scene.peak_memory()?);
    scene.audit(None).await?;
    report.put(figure)
}

/// How many workers settle most for the plain architecture while the crowd orders, and what each number of them reached, in
/// words. More of them settle more until they wait for each other: all need the lock on the one row.
async fn tried(plain: &mut Plain, counter: &Counter) -> anyhow::Result<(usize, String)> {
    let mut rates = Vec::new();
    // The first trial only warms up.
    for workers in std::iter::once(WORKERS[0]).chain(WORKERS) {
        plain.start_worker(workers)?;
        let (settled, _) = under_load(&plain.api.url, "plain", &plain.pids(), counter, THEIRS).await?;
        plain.stop_worker().await?;
        rates.push((workers, settled));
    }
    rates.remove(0);
    let (fastest, _) = rates.iter().max_by(|one, other| one.1.total_cmp(&other.1)).context("there are trials")?;
    let said: Vec<String> = rates.iter().map(|(workers, rate)| format!("{workers}: {rate:.0}/s")).collect();
    let words = format!(
        "the plain architecture settles with the fastest of these numbers of workers, {fastest} ({})",
        said.join(", ")
    );
    Ok((*fastest, words))
}

/// Settled orders a second while the crowd orders.
async fn under_load(url: &str, sale: &str, pids: &[u32], counter: &Counter, sql: &str) -> anyhow::Result<(f64, Burst)> {
    let clock = RealClock::new();
    let before = counter.count(sql).await?;
    let load = Load { connections: BUYERS, seconds: SECONDS, ..Load::new(url, sale, pids) };
    let burst = wrk::run(&load)?;
    let settled = counter.count(sql).await? - before;
    ensure!(burst.refused == 0, "{} of {} orders were not accepted", burst.refused, burst.answers);
    Ok((settled / clock.monotonic().as_secs_f64(), burst))
}

async fn afterwards(counter: &Counter) -> anyhow::Result<f64> {
    let clock = RealClock::new();
    let before = counter.count(THEIRS).await?;
    clock.sleep(AFTERWARDS).await;
    Ok((counter.count(THEIRS).await? - before) / clock.monotonic().as_secs_f64())
}

/// A worker that has a full queue and the machine to itself, against raw SQL.
pub(crate) async fn drain(name: &str, least: f64, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut scene = Scene::distributed().await?;
    let trio = scene.trio.as_ref().context("it is distributed")?;
    let counter = Counter::connect(&database(trio)?).await?;
    let mut ceiling = SetBased::start(&scene).await?;
    let mut figure = report.figure(name, "settled by a worker alone, from a full queue", "/s");
    (figure.bar, figure.control) = (Some(Bar::RatioMin(least)), Some(Series::new("raw SQL, 1,000 orders a batch")));
    let (orders, rounds) = if effort.quick { (60_000.0, 1) } else { (300_000.0, effort.rounds.max(5)) };
    let mut memory = String::new();
    for _round in 0..rounds {
        // A sale opens once a worker has settled its first marker.
        scene.add_worker();
        let sale = plenty(&scene).await?;
        ensure!(scene.order(&sale, "first").await? == 202, "the first order is not accepted");
        scene.settled(&sale).await?;
        scene.stop_worker()?;
        let mut queued = 0.0;
        while queued < orders {
            let burst = wrk::run(&Load { seconds: 3, ..Load::new(&scene.target.url, &sale, &[]) })?;
            ensure!(burst.refused == 0, "{} of {} orders were not accepted", burst.refused, burst.answers);
            queued += burst.answers as f64;
        }
        let theirs = ceiling.run((orders / 1_000.0) as usize).await?;
        let sql = format!("select (held + sold)::bigint from items where sale = '{sale}'");
        let ours = emptied(&mut scene, &counter, &sql).await?;
        figure.subject.add(ours);
        figure.control.iter_mut().for_each(|series| series.values.push(theirs));
        scene.settled(&sale).await?;
        memory = scene.peak_memory()?;
        scene.stop_worker()?;
    }
    figure.notes.push(format!("{memory}, in the last round"));
    scene.audit(None).await?;
    report.put(figure)
}

/// Starts a worker, and watches from its first settlement until nothing is left to settle.
async fn emptied(scene: &mut Scene, counter: &Counter, sql: &str) -> anyhow::Result<Burst> {
    let clock = RealClock::new();
    scene.add_worker();
    let worker = *scene.pids().last().context("it runs")?;
    let before = counter.count(sql).await?;
    let mut first = None;
    let mut last = (before, Duration::ZERO);
    loop {
        let settled = counter.count(sql).await?;
        let now = clock.monotonic();
        if settled > before && first.is_none() {
            first = Some((settled, now, machine::cpu_us(&[worker])?, machine::busy_us()?));
        }
        if settled > last.0 {
            last = (settled, now);
        }
        ensure!(now < Duration::from_secs(300), "the worker settles nothing");
        let idle = now.saturating_sub(last.1);
        if let Some((begun, since, cpu, busy)) = first.filter(|_| idle > Duration::from_millis(500)) {
            let (orders, time) = (last.0 - begun, (last.1 - since).as_secs_f64());
            ensure!(orders > 0.0, "everything was settled at once: queue more");
            return Ok(Burst {
                per_s: orders / time,
                answers: orders as u64,
                seconds: time,
                server_us: (machine::cpu_us(&[worker])? - cpu) / orders,
                machine_us: (machine::busy_us()? - busy) / orders,
                ..Burst::default()
            });
        }
        clock.sleep(Duration::from_millis(10)).await;
    }
}
