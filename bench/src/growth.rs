//! How the cost of one order grows: with connections, with sales, with units sold, with past orders. Cost is the server's
//! processor time per order, for accepts until they are settled, beside that of a control's answer in the same second: the
//! machine's speed cancels out.

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::figures::{BUYERS, CONNECTIONS, Effort, PLENTY, buy, plenty, sold_out_sale};
use crate::fixed::{self, Answer};
use crate::million::sell_out;
use crate::report::Report;
use crate::results::{CONTROL_LINE, GrowthLine, Point, median};
use crate::scene::{Control, Scene};
use crate::wrk::{self, Burst, Load};

const HOLD_SECONDS: u32 = 6 * 3600;
/// Sales that are opened at the same time.
const TOGETHER: usize = 50;
/// Pasts so small that the orders of the runs themselves are a large part of them.
const SMALL_PASTS: [u64; 3] = [0, 100_000, 300_000];
const LARGE_PASTS: [u64; 3] = [1_000_000, 3_000_000, 10_000_000];
/// Orders that fill a ledger at once: it is filled faster than it settles, and what waits shall not become much.
const PORTION: u64 = 1_000_000;
/// Runs where what is accepted is added to what is counted.
const FEW_TURNS: usize = 3;

/// What is measured at every point.
struct Ask<'a> {
    scene: &'a Scene,
    control: &'a Control,
    effort: &'a Effort,
}

/// Who orders at a point, and how often.
struct Crowd<'a> {
    sale: &'a str,
    /// As in [`Load::sales`].
    sales: u32,
    connections: u32,
    /// Of each run.
    seconds: u32,
    /// Runs that count for nothing, before those that do.
    warm_ups: usize,
    turns: usize,
}

impl<'a> Crowd<'a> {
    /// Buys from one sale, in so few and short runs that it remains nearly what it was.
    fn brief(sale: &'a str, turns: usize) -> Self {
        Self { sale, sales: 1, connections: BUYERS, seconds: 1, warm_ups: 0, turns }
    }

    fn load(&self, url: &'a str, pids: &'a [u32]) -> Load<'a> {
        let Self { sale, sales, connections, seconds, .. } = *self;
        Load { sales, connections, seconds, ..Load::new(url, sale, pids) }
    }
}

impl Ask<'_> {
    fn crowd<'a>(&self, sale: &'a str, sales: u32, connections: u32) -> Crowd<'a> {
        let seconds = if self.effort.quick { 1 } else { 3 };
        // Ten thousand connections take a moment to open, which is not what is measured.
        let seconds = if connections >= 10_000 { seconds + 7 } else { seconds };
        Crowd { sale, sales, connections, seconds, warm_ups: 1, turns: self.effort.rounds + 1 }
    }

    /// The cost of refusals.
    fn refusals(&self, x: f64, crowd: &Crowd<'_>) -> anyhow::Result<Cost> {
        self.answers(x, &crowd.load(&self.scene.target.url, &self.scene.pids()), crowd)
    }

    /// The cost of the control's own answers to the same crowd.
    fn control_answers(&self, x: f64, crowd: &Crowd<'_>) -> anyhow::Result<Cost> {
        self.answers(x, &crowd.load(&self.control.url, &[self.control.pid]), crowd)
    }

    fn answers(&self, x: f64, load: &Load<'_>, crowd: &Crowd<'_>) -> anyhow::Result<Cost> {
        let mut runs = Vec::new();
        for _turn in 0..crowd.warm_ups + crowd.turns {
            let burst = wrk::run(load)?;
            ensure!(burst.refused == burst.answers, "{} of {} orders were refused", burst.refused, burst.answers);
            runs.push((burst, self.beside()?));
        }
        Ok(Cost::of(x, &runs[crowd.warm_ups..]))
    }

    /// The cost of accepted orders until they are settled.
    async fn accepts(&self, x: f64, crowd: &Crowd<'_>) -> anyhow::Result<Cost> {
        let (pids, mut runs) = (self.scene.pids(), Vec::new());
        for _turn in 0..crowd.warm_ups + crowd.turns {
            let burst = buy(self.scene, &crowd.load(&self.scene.target.url, &pids)).await?;
            runs.push((burst, self.beside()?));
        }
        Ok(Cost::of(x, &runs[crowd.warm_ups..]))
    }

    /// The control's answers to the usual crowd, beside every run.
    fn beside(&self) -> anyhow::Result<Burst> {
        wrk::run(&Load::new(&self.control.url, "closed", &[self.control.pid]))
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

impl Cost {
    /// The median of several runs, each with the control's beside it.
    fn of(x: f64, runs: &[(Burst, Burst)]) -> Self {
        let of = |what: fn(&(Burst, Burst)) -> f64| median(runs.iter().map(what));
        Self {
            x,
            times: of(|(ours, theirs)| ours.server_us / theirs.server_us),
            measured_us: of(|(ours, _)| ours.server_us),
            per_s: of(|(ours, _)| ours.per_s),
            control_us: of(|(_, theirs)| theirs.server_us),
        }
    }
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
    let (mut refusals, mut accepts, mut stack) = (Vec::new(), Vec::new(), Vec::new());
    for connections in [1, 10, 100, 1_000, 10_000] {
        let (x, crowd) = (f64::from(connections), ask.crowd(&closed, 1, connections));
        refusals.push(ask.refusals(x, &crowd)?);
        stack.push(ask.control_answers(x, &crowd)?);
        accepts.push(ask.accepts(x, &ask.crowd(&open, 1, connections)).await?);
    }
    let mut growth = report.growth(name, "Processor time per order, embedded, by connections", "connections");
    growth.lines = lines([("refusals", refusals), ("accepts", accepts), (CONTROL_LINE, stack)]);
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
        open(&scene, sales).await?;
        let x = f64::from(sales);
        refusals.push(ask.refusals(x, &ask.crowd("closed", sales, CONNECTIONS))?);
        accepts.push(ask.accepts(x, &ask.crowd("open", sales, BUYERS)).await?);
        scene.audit(None).await?;
    }
    let title = format!("Processor time per order, embedded, by live sales ({})", crowds());
    let mut growth = report.growth(name, &title, "sales");
    growth.lines = lines([("refusals", refusals), ("accepts", accepts)]);
    report.put_growth(growth)
}

/// In the title of a chart.
fn crowds() -> String {
    format!("{CONNECTIONS} connections, for accepts {BUYERS}")
}

/// So many sales called `open` that sell, and as many called `closed` that are sold out.
async fn open(scene: &Scene, sales: u32) -> anyhow::Result<()> {
    let id = |kind: &str, number: u32| if sales == 1 { kind.to_owned() } else { format!("{kind}-{number:04}") };
    let numbers: Vec<u32> = (1..=sales).collect();
    for some in numbers.chunks(TOGETHER) {
        let id = &id;
        try_join_all(some.iter().map(|&number| async move {
            scene.create(&id("open", number), PLENTY, HOLD_SECONDS).await?;
            scene.create(&id("closed", number), 1, HOLD_SECONDS).await?;
            let status = scene.order(&id("closed", number), "first").await?;
            ensure!(status == 202, "the first order is answered {status}");
            anyhow::Ok(())
        }))
        .await?;
    }
    Ok(())
}

/// Orders from a sale that has sold from ten units to a million, one by one: refusals, and accepts once there are more.
pub(crate) async fn units(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let (mut refusals, mut accepts) = (Vec::new(), Vec::new());
    let most = if effort.quick { 100_000 } else { 1_000_000 };
    for units in [10, 1_000, 100_000, 1_000_000].into_iter().filter(|&units| units <= most) {
        let scene = Scene::embedded().await?;
        let control = control(&scene).await?;
        let ask = Ask { scene: &scene, control: &control, effort };
        let sale = scene.sale(units, HOLD_SECONDS).await?;
        sell_out(&scene, &sale, units, BUYERS).await?;
        scene.settled(&sale).await?;
        refusals.push(ask.refusals(units as f64, &ask.crowd(&sale, 1, CONNECTIONS))?);
        // Among the orders that are accepted within a second, ten and a thousand are the same.
        if units != 1_000 {
            scene.restock(&sale, PLENTY).await?;
            let mut cost = ask.accepts(0.0, &Crowd::brief(&sale, FEW_TURNS)).await?;
            cost.x = f64::midpoint(units as f64, scene.held(&sale).await? as f64);
            accepts.push(cost);
        }
        scene.audit(None).await?;
    }
    let title = format!("Processor time per order, embedded, by units sold before ({})", crowds());
    let mut growth = report.growth(name, &title, "units");
    growth.lines = lines([("refusals", refusals), ("accepts", accepts)]);
    report.put_growth(growth)
}

/// Accepts in a ledger that holds from next to nothing to ten million past orders.
pub(crate) async fn past(name: &str, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let mut accepts = Vec::new();
    for past in SMALL_PASTS {
        let mut ledger = Ledger::start().await?;
        accepts.push(ledger.accepts(past, FEW_TURNS, effort).await?);
        ledger.scene.audit(None).await?;
    }
    if !effort.quick {
        let mut ledger = Ledger::start().await?;
        for past in LARGE_PASTS {
            accepts.push(ledger.accepts(past, effort.rounds + 1, effort).await?);
        }
        ledger.scene.audit(None).await?;
    }
    let title = format!("Processor time per accepted order, embedded, by past orders ({BUYERS} connections)");
    let mut growth = report.growth(name, &title, "past orders, in the middle of the runs");
    growth.lines = lines([("accepts", accepts)]);
    report.put_growth(growth)
}

/// A ledger that fills.
struct Ledger {
    scene: Scene,
    control: Control,
    /// Orders that it holds.
    known: u64,
}

impl Ledger {
    /// An empty one, in a process that a second of refusals has warmed up: accepts would fill it.
    async fn start() -> anyhow::Result<Self> {
        let scene = Scene::embedded().await?;
        let control = control(&scene).await?;
        let sale = sold_out_sale(&scene, 1).await?;
        wrk::run(&Load { connections: BUYERS, ..Load::new(&scene.target.url, &sale, &[]) })?;
        Ok(Self { scene, control, known: 0 })
    }

    /// Fills it until it holds so many orders, and goes on; the point stands where the middle of these runs is.
    async fn accepts(&mut self, past: u64, turns: usize, effort: &Effort) -> anyhow::Result<Cost> {
        while self.known < past {
            let stock = (past - self.known).min(PORTION);
            let sale = self.scene.sale(stock, HOLD_SECONDS).await?;
            sell_out(&self.scene, &sale, stock, BUYERS).await?;
            self.scene.settled(&sale).await?;
            self.known += stock;
        }
        let sale = plenty(&self.scene).await?;
        let ask = Ask { scene: &self.scene, control: &self.control, effort };
        let mut cost = ask.accepts(0.0, &Crowd::brief(&sale, turns)).await?;
        let sold = self.scene.held(&sale).await?;
        cost.x = (self.known + sold / 2) as f64;
        self.known += sold;
        Ok(cost)
    }
}
