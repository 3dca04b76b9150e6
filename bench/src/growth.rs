//! How the cost of one order grows: with connections, with sales, with units sold, with past orders. Cost is the server's
//! processor time per order, which other processes on the machine change less than a rate.

use anyhow::ensure;

use crate::figures::{Effort, plenty, sold_out_sale};
use crate::million::sell_out;
use crate::report::Report;
use crate::results::{GrowthLine, Point, median};
use crate::scene::Scene;
use crate::wrk::{self, Burst, Load};

const HOLD_SECONDS: u32 = 6 * 3600;

/// What is measured at every point.
struct Ask<'a> {
    scene: &'a Scene,
    effort: &'a Effort,
}

impl Ask<'_> {
    /// The median cost of several runs over this sale or these sales. A first one warms up.
    fn point(&self, x: f64, sale: &str, sales: u32, connections: u32, refused: bool) -> anyhow::Result<Point> {
        let pids = self.scene.pids();
        let mut bursts: Vec<Burst> = Vec::new();
        for _round in 0..=self.effort.rounds {
            let load = Load {
                url: &self.scene.target.url,
                sale,
                sales,
                connections,
                seconds: self.seconds(connections),
                pids: &pids,
            };
            let burst = wrk::run(&load)?;
            let right = if refused { burst.refused == burst.answers } else { burst.refused == 0 };
            ensure!(right, "{} of {} orders were refused", burst.refused, burst.answers);
            bursts.push(burst);
        }
        let rest = bursts.split_off(1);
        Ok(Point {
            x,
            server_us: median(rest.iter().map(|burst| burst.server_us)),
            per_s: median(rest.iter().map(|burst| burst.per_s)),
        })
    }

    /// Ten thousand connections take a moment to open, which is not what is measured.
    fn seconds(&self, connections: u32) -> u32 {
        let seconds = if self.effort.quick { 1 } else { 3 };
        if connections >= 10_000 { seconds + 7 } else { seconds }
    }
}

fn line(name: &str) -> GrowthLine {
    GrowthLine { name: name.to_owned(), points: Vec::new() }
}

/// From one connection to ten thousand.
pub(crate) async fn connections(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let ask = Ask { scene: &scene, effort };
    let (closed, open) = (sold_out_sale(&scene, 1).await?, plenty(&scene).await?);
    let (mut refusals, mut accepts) = (line("refusals"), line("accepts"));
    for connections in [1, 10, 100, 1_000, 10_000] {
        refusals.points.push(ask.point(f64::from(connections), &closed, 1, connections, true)?);
        accepts.points.push(ask.point(f64::from(connections), &open, 1, connections, false)?);
        scene.settled(&open).await?;
    }
    let mut growth = report.growth(name, "Processor time per order, embedded, by connections", "connections");
    growth.lines = vec![refusals, accepts];
    scene.audit(None).await?;
    report.put_growth(growth)
}

/// From one sale to a thousand that are ordered from in turns.
pub(crate) async fn sales(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let (mut refusals, mut accepts) = (line("refusals"), line("accepts"));
    for sales in [1, 10, 100, 1_000] {
        let scene = Scene::embedded().await?;
        let ask = Ask { scene: &scene, effort };
        let id = |kind: &str, number: u32| if sales == 1 { kind.to_owned() } else { format!("{kind}-{number:04}") };
        for number in 1..=sales {
            scene.create(&id("open", number), 500_000_000, HOLD_SECONDS).await?;
            scene.create(&id("closed", number), 1, HOLD_SECONDS).await?;
            ensure!(scene.order(&id("closed", number), "first").await? == 202, "the first order is not accepted");
        }
        refusals.points.push(ask.point(f64::from(sales), "closed", sales, 64, true)?);
        accepts.points.push(ask.point(f64::from(sales), "open", sales, 64, false)?);
        scene.audit(None).await?;
    }
    let mut growth = report.growth(name, "Processor time per order, embedded, by live sales", "sales");
    growth.lines = vec![refusals, accepts];
    report.put_growth(growth)
}

/// Refusals of a sale that has sold from ten units to a million, one by one.
pub(crate) async fn units(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut refusals = line("refusals");
    let most = if effort.quick { 100_000 } else { 1_000_000 };
    let scene = Scene::embedded().await?;
    let ask = Ask { scene: &scene, effort };
    for units in [10, 1_000, 100_000, 1_000_000].into_iter().filter(|&units| units <= most) {
        let sale = scene.sale(units, HOLD_SECONDS).await?;
        sell_out(&scene, &sale, units).await?;
        scene.settled(&sale).await?;
        refusals.points.push(ask.point(units as f64, &sale, 1, 64, true)?);
    }
    let mut growth = report.growth(name, "Processor time per refusal, embedded, by units sold before", "units");
    growth.lines = vec![refusals];
    scene.audit(None).await?;
    report.put_growth(growth)
}

/// Accepts in a ledger that holds from nothing to ten million past orders.
pub(crate) async fn past(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut accepts = line("accepts");
    let most = if effort.quick { 300_000 } else { 10_000_000 };
    let scene = Scene::embedded().await?;
    let ask = Ask { scene: &scene, effort };
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
        accepts.points.push(point);
    }
    let mut growth = report.growth(name, "Processor time per accepted order, embedded, by past orders", "past orders");
    growth.lines = vec![accepts];
    scene.audit(None).await?;
    report.put_growth(growth)
}
