//! How the cost of one order grows: with connections, with sales, with units sold, with past orders. Cost is the server's
//! processor time per order, beside that of a control's answer in the same second: the machine's speed cancels out.

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::figures::{Effort, plenty, sold_out_sale};
use crate::fixed::{self, Answer};
use crate::million::sell_out;
use crate::report::Report;
use crate::results::{GrowthLine, Point, median};
use crate::scene::{Control, Scene};
use crate::wrk::{self, Burst, Load};

const HOLD_SECONDS: u32 = 6 * 3600;
/// Sales that are opened at the same time.
const TOGETHER: usize = 50;

/// What is measured at every point.
struct Ask<'a> {
    scene: &'a Scene,
    control: &'a Control,
    effort: &'a Effort,
}

impl Ask<'_> {
    /// The median cost of several runs over this sale or these sales, each beside a run of the control. A first run
    /// warms up.
    fn point(&self, x: f64, sale: &str, sales: u32, connections: u32, refused: bool) -> anyhow::Result<Cost> {
        let (pids, mut bursts) = (self.scene.pids(), Vec::new());
        for turn in 0..=self.effort.rounds + 1 {
            let load = Load {
                url: &self.scene.target.url,
                sale,
                sales,
                connections,
                seconds: self.seconds(connections),
                pids: &pids,
            };
            let ours = wrk::run(&load)?;
            let right = if refused { ours.refused == ours.answers } else { ours.refused == 0 };
            ensure!(right, "{} of {} orders were refused", ours.refused, ours.answers);
            let pids = [self.control.pid];
            let theirs =
                wrk::run(&Load { url: &self.control.url, connections: 64, seconds: 1, pids: &pids, ..load.clone() })?;
            if turn > 0 {
                bursts.push((ours, theirs));
            }
        }
        let of = |what: fn(&(Burst, Burst)) -> f64| median(bursts.iter().map(what));
        Ok(Cost {
            x,
            times: of(|(ours, theirs)| ours.server_us / theirs.server_us),
            measured_us: of(|(ours, _)| ours.server_us),
            per_s: of(|(ours, _)| ours.per_s),
            control_us: of(|(_, theirs)| theirs.server_us),
        })
    }

    /// Ten thousand connections take a moment to open, which is not what is measured.
    fn seconds(&self, connections: u32) -> u32 {
        let seconds = if self.effort.quick { 1 } else { 3 };
        if connections >= 10_000 { seconds + 7 } else { seconds }
    }
}

/// What an order costs at one point, beside an answer of the control.
struct Cost {
    x: f64,
    /// So many times an answer of the control.
    times: f64,
    measured_us: f64,
    per_s: f64,
    control_us: f64,
}

/// Lines of points. The control's cost is the same everywhere, were it not for the machine: its median is the measure.
fn lines<const N: usize>(lines: [(&str, Vec<Cost>); N]) -> Vec<GrowthLine> {
    let control_us = median(lines.iter().flat_map(|(_, costs)| costs).map(|cost| cost.control_us));
    let line = |(name, costs): (&str, Vec<Cost>)| GrowthLine {
        name: name.to_owned(),
        points: costs
            .into_iter()
            .map(|Cost { x, times, measured_us, per_s, .. }| Point {
                x,
                server_us: times * control_us,
                measured_us,
                per_s,
            })
            .collect(),
    };
    lines.map(line).into()
}

/// A control that refuses like a sold-out sale of this scene.
async fn control(scene: &Scene) -> anyhow::Result<Control> {
    let sale = sold_out_sale(scene, 1).await?;
    fixed::start(&Answer::of(&scene.target, &sale, "late").await?)
}

/// From one connection to ten thousand.
pub(crate) async fn connections(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let control = control(&scene).await?;
    let ask = Ask { scene: &scene, control: &control, effort };
    let (closed, open) = (sold_out_sale(&scene, 1).await?, plenty(&scene).await?);
    let (mut refusals, mut accepts) = (Vec::new(), Vec::new());
    for connections in [1, 10, 100, 1_000, 10_000] {
        refusals.push(ask.point(f64::from(connections), &closed, 1, connections, true)?);
        accepts.push(ask.point(f64::from(connections), &open, 1, connections, false)?);
        scene.settled(&open).await?;
    }
    let mut growth = report.growth(name, "Processor time per order, embedded, by connections", "connections");
    growth.lines = lines([("refusals", refusals), ("accepts", accepts)]);
    scene.audit(None).await?;
    report.put_growth(growth)
}

/// From one sale to a thousand that are ordered from in turns.
pub(crate) async fn sales(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let (mut refusals, mut accepts) = (Vec::new(), Vec::new());
    for sales in [1, 10, 100, 1_000] {
        let scene = Scene::embedded().await?;
        let control = control(&scene).await?;
        let ask = Ask { scene: &scene, control: &control, effort };
        let id = |kind: &str, number: u32| if sales == 1 { kind.to_owned() } else { format!("{kind}-{number:04}") };
        let numbers: Vec<u32> = (1..=sales).collect();
        for some in numbers.chunks(TOGETHER) {
            let (scene, id) = (&scene, &id);
            try_join_all(some.iter().map(|&number| async move {
                scene.create(&id("open", number), 500_000_000, HOLD_SECONDS).await?;
                scene.create(&id("closed", number), 1, HOLD_SECONDS).await?;
                let status = scene.order(&id("closed", number), "first").await?;
                ensure!(status == 202, "the first order is answered {status}");
                anyhow::Ok(())
            }))
            .await?;
        }
        refusals.push(ask.point(f64::from(sales), "closed", sales, 64, true)?);
        accepts.push(ask.point(f64::from(sales), "open", sales, 64, false)?);
        scene.audit(None).await?;
    }
    let mut growth = report.growth(name, "Processor time per order, embedded, by live sales", "sales");
    growth.lines = lines([("refusals", refusals), ("accepts", accepts)]);
    report.put_growth(growth)
}

/// Refusals of a sale that has sold from ten units to a million, one by one.
pub(crate) async fn units(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut refusals = Vec::new();
    let most = if effort.quick { 100_000 } else { 1_000_000 };
    let scene = Scene::embedded().await?;
    let control = control(&scene).await?;
    let ask = Ask { scene: &scene, control: &control, effort };
    for units in [10, 1_000, 100_000, 1_000_000].into_iter().filter(|&units| units <= most) {
        let sale = scene.sale(units, HOLD_SECONDS).await?;
        sell_out(&scene, &sale, units).await?;
        scene.settled(&sale).await?;
        refusals.push(ask.point(units as f64, &sale, 1, 64, true)?);
    }
    let mut growth = report.growth(name, "Processor time per refusal, embedded, by units sold before", "units");
    growth.lines = lines([("refusals", refusals)]);
    scene.audit(None).await?;
    report.put_growth(growth)
}

/// Accepts in a ledger that holds from nothing to ten million past orders.
pub(crate) async fn past(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut accepts = Vec::new();
    let most = if effort.quick { 300_000 } else { 10_000_000 };
    let scene = Scene::embedded().await?;
    let control = control(&scene).await?;
    let ask = Ask { scene: &scene, control: &control, effort };
    let mut known = 0;
    for past in [0, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000].into_iter().filter(|&past| past <= most) {
        if past > known {
            let sale = scene.sale(past - known, HOLD_SECONDS).await?;
            sell_out(&scene, &sale, past - known).await?;
            scene.settled(&sale).await?;
            known = past;
        }
        let sale = plenty(&scene).await?;
        // The runs of the points before left orders as well.
        let point = ask.point(known as f64, &sale, 1, 64, false)?;
        scene.settled(&sale).await?;
        known += scene.stock(&sale).await?["items"][0]["held"].as_u64().unwrap_or(0);
        accepts.push(point);
    }
    let mut growth = report.growth(name, "Processor time per accepted order, embedded, by past orders", "past orders");
    growth.lines = lines([("accepts", accepts)]);
    scene.audit(None).await?;
    report.put_growth(growth)
}
