//! The figures, one after another. Subject and control take turns, so that a busy moment of the machine meets both.

use anyhow::{Context, ensure};
use sluice::clock::{Clock, RealClock};

use crate::fixed::{self, Answer};
use crate::machine::Meter;
use crate::report::Report;
use crate::results::{Bar, Series};
use crate::scene::Scene;
use crate::wrk::{self, Burst, Load};
use crate::{ceilings, crowd, growth, million, settled, watched};

/// More than any run can sell.
pub(crate) const PLENTY: u64 = 500_000_000;
/// Longer than any run.
const HOLD_SECONDS: u32 = 6 * 3600;
/// Connections of the crowd, unless a figure says otherwise.
pub(crate) const CONNECTIONS: u32 = 64;
/// Connections of the crowd that buys. An order waits for its commit, and the next one of its connection for the answer, so
/// there are more of them.
pub(crate) const BUYERS: u32 = 500;

/// All of them, in the sequence of the report.
const NAMES: [&str; 18] = [
    "sold-out-embedded",
    "sold-out-distributed",
    "accepts-embedded",
    "accepts-distributed",
    "latency-embedded",
    "latency-distributed",
    "settled",
    "drain",
    "watched-sold-out",
    "watched-accepts",
    "churn-embedded",
    "ceilings",
    "generator",
    "million",
    "growth-connections",
    "growth-sales",
    "growth-units",
    "growth-past",
];

/// How much is measured.
pub(crate) struct Effort {
    pub(crate) quick: bool,
    /// How often subject and control take turns. The machine's speed changes from second to second, so turns are short.
    pub(crate) turns: usize,
    /// Of each turn.
    pub(crate) seconds: u32,
    /// Runs of what has no control.
    pub(crate) rounds: usize,
}

/// Measures the figures whose name contains one of the filters, or all; prints and writes each as soon as it is known.
pub(crate) async fn run(filters: &[String], quick: bool, list: bool, dry: bool) -> anyhow::Result<()> {
    let wanted = |name: &&str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let names: Vec<&str> = NAMES.into_iter().filter(wanted).collect();
    ensure!(!names.is_empty(), "no figure has this name: {}", NAMES.join(" "));
    if list {
        println!("{}", names.join("\n"));
        return Ok(());
    }
    let effort = match quick {
        true => Effort { quick, turns: 5, seconds: 1, rounds: 2 },
        false => Effort { quick, turns: 15, seconds: 2, rounds: 5 },
    };
    let mut report = Report::open(quick, dry)?;
    let clock = RealClock::new();
    for name in names {
        let started = clock.monotonic();
        measure(name, &effort, &mut report).await.with_context(|| format!("the figure {name}"))?;
        eprintln!("{name} took {:.0} s", (clock.monotonic() - started).as_secs_f64());
    }
    report.end()
}

async fn measure(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    match name {
        "sold-out-embedded" => sold_out(name, false, Some(0.90), effort, report).await,
        "sold-out-distributed" => sold_out(name, true, Some(0.85), effort, report).await,
        "accepts-embedded" => accepts(name, false, 0.40, effort, report).await,
        "accepts-distributed" => accepts(name, true, 0.20, effort, report).await,
        "latency-embedded" => crowd::latency(name, false, 10.0, effort, report).await,
        "latency-distributed" => crowd::latency(name, true, 30.0, effort, report).await,
        "settled" => settled::everything_running(name, 15.0, effort, report).await,
        "drain" => settled::drain(name, 0.5, effort, report).await,
        "watched-sold-out" => watched::measure(name, true, effort, report).await,
        "watched-accepts" => watched::measure(name, false, effort, report).await,
        "churn-embedded" => sold_out(name, false, None, effort, report).await,
        "ceilings" => ceilings::measure(effort, report).await,
        "generator" => crowd::cost(name, effort, report).await,
        "million" => million::measure(effort, report).await,
        "growth-connections" => growth::connections(name, effort, report).await,
        "growth-sales" => growth::sales(name, effort, report).await,
        "growth-units" => growth::units(name, effort, report).await,
        "growth-past" => growth::past(name, effort, report).await,
        _ => anyhow::bail!("no figure is called {name}"),
    }
}

/// A Sluice with or without the three servers.
pub(crate) async fn scene(distributed: bool) -> anyhow::Result<Scene> {
    match distributed {
        true => Scene::distributed_with_worker().await,
        false => Scene::embedded().await,
    }
}

/// In the title of a figure.
pub(crate) fn deployment(distributed: bool) -> &'static str {
    if distributed { "distributed" } else { "embedded" }
}

/// Refusals of a sale whose only unit is held, against the same answer from the control; without a bar, every request opens
/// a connection of its own.
async fn sold_out(
    name: &str,
    distributed: bool,
    least: Option<f64>,
    effort: &Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let scene = scene(distributed).await?;
    let sale = sold_out_sale(&scene, 1).await?;
    let answer = Answer::of(&scene.target, &sale, "late").await?;
    ensure!(answer.status() == 409, "a sold-out sale answers {}", answer.status());
    let control = fixed::start(&answer)?;
    let churn = least.is_none();
    let what = if churn { "sold-out answers, a new connection for each" } else { "sold-out answers" };
    let mut figure = report.figure(name, &format!("{what}, {}", deployment(distributed)), "/s");
    (figure.bar, figure.control) = (least.map(Bar::RatioMin), Some(Series::new("the same 409 from the control")));
    let (their_pids, our_pids) = ([control.pid], scene.pids());
    let ask = |url, pids| wrk::run(&Load { seconds: effort.seconds, churn, ..Load::new(url, &sale, pids) });
    for turn in 0..=effort.turns {
        let theirs = ask(&control.url, &their_pids)?;
        let ours = ask(&scene.target.url, &our_pids)?;
        ensure!(ours.refused == ours.answers && theirs.refused == theirs.answers, "somebody was not refused");
        // The first turn warms everything up.
        if turn > 0 {
            figure.subject.add(ours);
            figure.control.iter_mut().for_each(|series| series.add(theirs.clone()));
        }
    }
    figure.notes.push(scene.peak_memory()?);
    scene.audit(None).await?;
    report.put(figure)
}

/// A sale whose units are all held.
pub(crate) async fn sold_out_sale(scene: &Scene, stock: u64) -> anyhow::Result<String> {
    let sale = scene.sale(stock, HOLD_SECONDS).await?;
    ensure!(scene.order(&sale, "first").await? == 202, "the first order is not accepted");
    scene.settled(&sale).await?;
    Ok(sale)
}

/// Durable accepts in a sale of one SKU, against a 202 of the same size from the control.
async fn accepts(
    name: &str,
    distributed: bool,
    least: f64,
    effort: &Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let scene = scene(distributed).await?;
    let sale = plenty(&scene).await?;
    let answer = Answer::of(&scene.target, &sale, "early").await?;
    ensure!(answer.status() == 202, "an open sale answers {}", answer.status());
    let control = fixed::start(&answer)?;
    let mut figure = report.figure(name, &format!("durable accepts of one SKU, {}", deployment(distributed)), "/s");
    (figure.bar, figure.control) = (Some(Bar::RatioMin(least)), Some(Series::new("the same 202 from the control")));
    let clock = RealClock::new();
    let mut settled_per_s = Vec::new();
    for turn in 0..=effort.turns {
        let theirs = ask(&control.url, &sale, &[control.pid], BUYERS, effort)?;
        let sale = plenty(&scene).await?;
        let (pids, started) = (scene.pids(), clock.monotonic());
        let load = Load { connections: BUYERS, seconds: effort.seconds, ..Load::new(&scene.target.url, &sale, &pids) };
        let ours = buy(&scene, &load).await?;
        let took = clock.monotonic() - started;
        if turn > 0 {
            settled_per_s.push(ours.answers as f64 / took.as_secs_f64());
            figure.subject.add(ours);
            figure.control.iter_mut().for_each(|series| series.add(theirs.clone()));
        }
    }
    let settled = crate::results::median(settled_per_s.into_iter());
    figure.notes.push(format!("from the first order to the last settlement: {settled:.0} orders a second"));
    figure.notes.push(scene.peak_memory()?);
    scene.audit(None).await?;
    report.put(figure)
}

/// A sale with more units than can be sold.
pub(crate) async fn plenty(scene: &Scene) -> anyhow::Result<String> {
    scene.sale(PLENTY, HOLD_SECONDS).await
}

/// What the crowd gets from this address in one turn.
pub(crate) fn ask(url: &str, sale: &str, pids: &[u32], connections: u32, effort: &Effort) -> anyhow::Result<Burst> {
    wrk::run(&Load { connections, seconds: effort.seconds, ..Load::new(url, sale, pids) })
}

/// Orders of the crowd that are all accepted; comes back when they are settled, and counts what that costs as well.
pub(crate) async fn buy(scene: &Scene, load: &Load<'_>) -> anyhow::Result<Burst> {
    let meter = Meter::start(load.pids)?;
    let burst = wrk::run(load)?;
    ensure!(burst.refused == 0, "{} of {} orders were not accepted", burst.refused, burst.answers);
    match load.sales {
        1 => scene.settled(load.sale).await?,
        last => scene.settled_everywhere(&format!("{}-{last:04}", load.sale)).await?,
    }
    burst.metered(&meter)
}
