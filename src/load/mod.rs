//! The crowd: an open-model load against any running Sluice that remembers every answer, and in the end holds the ledger
//! to it.
//!
//! [`crowd`] decides from a seed who wants what and when; [`engine`] sends it; [`record`] is what is kept of an answer;
//! [`books`] asks for the [`facts`]; [`check`] compares; [`summary`] tells. [`run`] is all of it; who places faults meanwhile takes
//! the steps of a [`Visit`] one by one.

pub mod answer;
pub mod books;
pub mod check;
pub mod crowd;
pub mod engine;
pub mod facts;
pub mod progress;
pub mod record;
pub mod summary;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::clock::Clock;
use crate::model::{SaleId, Seq, limits};
use books::{Before, Books};
use check::{Check, History};
use crowd::{Crowd, Habits};
use engine::{Aim, Engine, Patience, Tally};
use facts::{Facts, SaleFact};
use progress::Watch;
use record::Outcome;
use summary::Summary;
use wire::Target;

/// What is going to happen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The servers; connections are spread over them.
    pub targets: Vec<Target>,
    /// The sale.
    pub sale: SaleId,
    /// The operator's token: for the check, and for confirming.
    pub token: Option<String>,
    /// How the crowd behaves.
    pub habits: Habits,
    /// How long customers wait and insist.
    pub patience: Patience,
    /// Connections that the crowd shares.
    pub connections: usize,
    /// Whether nobody else orders from the sale meanwhile: then every order has to have a request.
    pub alone: bool,
    /// Whether the answers are checked in the end.
    pub check: bool,
    /// Whether everything is sent once more after the check, which has to change nothing.
    pub twice: bool,
    /// How long the check waits for orders on their way.
    pub settle_time_max: Duration,
    /// Who watches.
    pub watch: Watch,
}

impl Plan {
    /// A crowd that has the sale to itself, insists on every answer for half a minute and is watched by nobody; all that it
    /// is told is checked.
    pub fn insistent(targets: Vec<Target>, sale: SaleId, token: &str, habits: Habits) -> Self {
        Self {
            targets,
            sale,
            token: Some(token.to_owned()),
            habits,
            patience: Patience { insist: Duration::from_secs(30), ..Patience::default() },
            connections: 64,
            alone: true,
            check: true,
            twice: true,
            settle_time_max: Duration::from_secs(30),
            watch: Watch::Silent,
        }
    }
}

/// A crowd's visit to a sale, step by step: [begin](Visit::begin), [send](Visit::send), [check](Visit::check), and
/// [everything again](Visit::twice).
pub struct Visit {
    plan: Plan,
    clock: Arc<dyn Clock>,
    fact: SaleFact,
    before: Option<Before>,
    crowd: Arc<Crowd>,
    tally: Arc<Tally>,
    start: Duration,
}

impl Visit {
    /// Gathers the crowd, and reads what the sale is before it comes.
    pub async fn begin(plan: Plan, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let target = plan.targets.first().context("there is no server to send anything to")?;
        let fact = books::sale(target, &plan.sale).await?;
        let before = match books(&plan).filter(|_| plan.check) {
            Some(books) => Some(books.before(&fact).await?),
            None => None,
        };
        let crowd = Arc::new(Crowd::gather(&plan.habits, &fact.skus(), fact.per_customer_limit));
        let (total, max) = (crowd.requests.len(), limits::CROWD_REQUESTS_MAX);
        ensure!(
            total <= max,
            "{total} requests are too many to remember, at most {max}: take a lower --rate or --duration"
        );
        Ok(Self { plan, clock, fact, before, crowd, tally: Arc::default(), start: Duration::ZERO })
    }

    /// Sends the crowd, or the part of it that is due before `stop`, and remembers what it was told.
    pub async fn send(&mut self, stop: impl Future<Output = ()>) -> anyhow::Result<History> {
        let engine = Engine::new(self.crowd.clone(), self.aim(), self.clock.clone())?;
        self.tally = engine.tally();
        let total = self.crowd.requests.len() as u64;
        let (start, records) = tokio::select! {
            told = engine.run(self.plan.connections, stop) => told,
            () = progress::show(self.plan.watch, &self.tally, total, &*self.clock) => (Duration::ZERO, Vec::new()),
        };
        self.start = start;
        Ok(History { crowd: self.crowd.clone(), records, alone: self.plan.alone, healed_us: None })
    }

    fn aim(&self) -> Aim {
        let Plan { targets, sale, token, patience, .. } = self.plan.clone();
        Aim { targets, sale, skus: self.fact.skus(), token, patience }
    }

    /// A moment of the clock's monotonic time, as the records count: in microseconds after the start. For
    /// [`History::healed_us`].
    pub fn moment_us(&self, monotonic: Duration) -> u64 {
        u64::try_from(monotonic.saturating_sub(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Waits until nothing is on its way, reads what the ledger says, and compares.
    pub async fn check(&self, history: &History) -> anyhow::Result<(Check, Facts)> {
        let books = books(&self.plan).context("the check needs the operator's token")?;
        let before = self.before.as_ref().context("the plan did not ask for a check")?;
        let settled = books.settled(&*self.clock, self.plan.settle_time_max).await?;
        let seen_us = self.moment_us(self.clock.monotonic());
        let waiting = match settled && self.plan.alone {
            true => Some(books.drained(&*self.clock, self.plan.settle_time_max).await?),
            false => None,
        };
        let facts = Facts { seen_us, waiting, ..books.facts(before, settled).await? };
        Ok((check::check(history, &facts), facts))
    }

    /// Sends everything once more, and adds to the check whatever that changed.
    pub async fn twice(&self, history: &History, check: &mut Check, facts: &Facts) -> anyhow::Result<()> {
        let books = books(&self.plan).context("the check needs the operator's token")?;
        let again = check::everything_again(history, facts);
        let engine = Engine::new(again.crowd.clone(), self.aim(), self.clock.clone())?.knowing(again.known.clone());
        let (_, records) = engine.run(self.plan.connections, std::future::pending()).await;
        books.settled(&*self.clock, self.plan.settle_time_max).await?;
        let moves = books.journal(Seq(facts.watermark)).await?;
        check.add(check::check_again(&again, &records, &moves));
        let answers = records.iter().filter(|record| !record.outcome.asks_again() && record.outcome != Outcome::HungUp);
        check.again = answers.count() as u64;
        Ok(())
    }

    /// What the visit came to.
    fn summary(&self, history: &History) -> Summary {
        let Plan { targets, sale, habits, connections, .. } = &self.plan;
        let urls = targets.iter().map(|target| target.url.clone()).collect();
        Summary::new(urls, sale.clone(), habits, *connections, &self.crowd, &history.records, &self.tally)
    }
}

fn books(plan: &Plan) -> Option<Books<'_>> {
    let token = plan.token.as_deref()?;
    Some(Books { targets: &plan.targets, sale: &plan.sale, token })
}

/// Sends a crowd, or the part of it that is due before `stop`, and checks what it was told.
pub async fn run(plan: Plan, clock: Arc<dyn Clock>, stop: impl Future<Output = ()>) -> anyhow::Result<Summary> {
    let (checked, twice) = (plan.check && plan.token.is_some(), plan.twice);
    let mut visit = Visit::begin(plan, clock).await?;
    let history = visit.send(stop).await?;
    let mut summary = visit.summary(&history);
    if checked {
        let (mut check, facts) = visit.check(&history).await?;
        if twice && facts.settled {
            visit.twice(&history, &mut check, &facts).await?;
        }
        summary.check = Some(check);
    }
    Ok(summary)
}
