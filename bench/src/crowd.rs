//! The open model: `sluice load`, whose requests leave when they are due, whether or not earlier ones were answered. It
//! checks every answer in the end.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::figures::{Effort, deployment, plenty, scene, sold_out_sale};
use crate::machine;
use crate::report::Report;
use crate::results::{Bar, Series};
use crate::scene::Scene;
use crate::wrk::Burst;

/// Orders a second, at which latencies are measured.
const RATE: u32 = 2_000;
/// Offered to see how much the crowd can send: more than it can.
const RATE_TOO_HIGH: u32 = 200_000;

/// One visit of the crowd.
struct Visit {
    summary: Value,
    burst: Burst,
}

/// The 99th percentile of durable accepts, from the moment that an order was due.
pub(crate) async fn latency(
    name: &str,
    distributed: bool,
    most_ms: f64,
    effort: &Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let scene = scene(distributed).await?;
    let title = format!("p99 of accepts at {RATE}/s, {}", deployment(distributed));
    let mut figure = report.figure(name, &title, "ms");
    figure.bar = Some(Bar::Max(most_ms));
    let (mut p50, mut p999, mut late) = (Vec::new(), Vec::new(), 0);
    for round in 0..=effort.rounds {
        let sale = plenty(&scene).await?;
        let seconds = if effort.quick { 4 } else { 10 };
        let visit = visit(&scene, &sale, RATE, seconds, true)?;
        let accepted = visit.outcome("accepted").context("nothing was accepted")?;
        ensure!(accepted["count"] == visit.summary["requests"]["offered"], "not all were accepted: {}", visit.summary);
        if round > 0 {
            let of = |name: &str| accepted[name].as_f64().context("no latency");
            figure.subject.values.push(of("p99_ms")?);
            p50.push(of("p50_ms")?);
            p999.push(of("p999_ms")?);
            late += visit.summary["requests"]["late"].as_u64().unwrap_or(0);
        }
    }
    let [p50, p999] = [p50, p999].map(|values| crate::results::median(values.into_iter()));
    figure
        .notes
        .push(format!("p50 {p50:.2} ms, p99.9 {p999:.1} ms; {late} requests left more than 10 ms after they were due"));
    scene.audit(None).await?;
    report.put(figure)
}

/// What the two generators cost, and how much `sluice load` can send: refusals, so that the server is not the limit.
pub(crate) async fn cost(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let sale = sold_out_sale(&scene, 1).await?;
    let mut figure = report.figure(name, "sluice load: requests sent, all refused", "/s");
    figure.control = Some(Series::new("wrk, against the same server"));
    for turn in 0..=effort.turns {
        let visit = visit(&scene, &sale, RATE_TOO_HIGH, effort.seconds, false)?;
        let pids = scene.pids();
        let load =
            crate::wrk::Load { seconds: effort.seconds, ..crate::wrk::Load::new(&scene.target.url, &sale, &pids) };
        let wrk = crate::wrk::run(&load)?;
        if turn > 0 {
            figure.subject.add(visit.burst);
            figure.control.iter_mut().for_each(|series| series.add(wrk.clone()));
        }
    }
    let theirs = figure.control.as_ref().and_then(|control| control.of(|burst| burst.generator_us)).unwrap_or(0.0);
    let ours = figure.subject.of(|burst| burst.generator_us).unwrap_or(0.0);
    figure.notes.push(format!("a request costs sluice load {ours:.1} µs of processor time, wrk {theirs:.1} µs"));
    scene.audit(None).await?;
    report.put(figure)
}

/// Sends a crowd; its check, if it is asked for, has to be exact.
fn visit(scene: &Scene, sale: &str, rate: u32, seconds: u32, check: bool) -> anyhow::Result<Visit> {
    let (rate, duration, pids) = (rate.to_string(), format!("{seconds}s"), scene.pids());
    let mut command = scene.command(&["load", "--url", &scene.target.url, "--sale", sale, "--json"]);
    command.args(["--rate", &rate, "--duration", &duration, "--customers", "10000000"]);
    command.args((!check).then_some("--no-audit"));
    let before = (machine::cpu_us(&pids)?, machine::children_cpu_us()?, machine::busy_us()?);
    let output = command.output()?;
    let after = (machine::cpu_us(&pids)?, machine::children_cpu_us()?, machine::busy_us()?);
    ensure!(output.status.success(), "sluice load failed: {}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).context("sluice load prints no JSON")?;
    let number = |value: &Value| value.as_f64().with_context(|| format!("a number is missing: {summary}"));
    let (elapsed_s, per_s) = (number(&summary["elapsed_s"])?, number(&summary["answers_per_s"])?);
    let answers = (elapsed_s * per_s).max(1.0);
    let burst = Burst {
        per_s,
        answers: answers as u64,
        seconds: elapsed_s,
        server_us: (after.0 - before.0) / answers,
        generator_us: (after.1 - before.1) / answers,
        machine_us: (after.2 - before.2) / answers,
        ..Burst::default()
    };
    Ok(Visit { burst, summary })
}

impl Visit {
    fn outcome(&self, name: &str) -> Option<&Value> {
        self.summary["outcomes"].as_array()?.iter().find(|outcome| outcome["outcome"] == name)
    }
}
