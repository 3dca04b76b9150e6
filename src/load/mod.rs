//! The crowd: an open-model load against any running Sluice that remembers every answer, and in the end holds the ledger
//! to it.
//!
//! [`crowd`] decides from a seed who wants what and when; [`engine`] sends it; [`record`] is what is kept of an answer;
//! [`facts`] asks the ledger; [`check`] compares; [`summary`] tells.

pub mod answer;
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

use anyhow::ensure;

use crate::clock::Clock;
use crate::model::{SaleId, limits};
use check::History;
use crowd::{Crowd, Habits};
use engine::{Aim, Engine};
use facts::Books;
use progress::Watch;
use record::Record;
use summary::Summary;
use wire::Target;

/// What is going to happen.
pub struct Plan {
    /// The servers; connections are spread over them.
    pub targets: Vec<Target>,
    /// The sale.
    pub sale: SaleId,
    /// The operator's token: for the check, and for confirming.
    pub token: Option<String>,
    /// How the crowd behaves.
    pub habits: Habits,
    /// Connections that the crowd shares.
    pub connections: usize,
    /// Whether the answers are checked in the end.
    pub check: bool,
    /// How long the check waits for orders on their way.
    pub settle_time_max: Duration,
    /// Who watches.
    pub watch: Watch,
}

/// Sends a crowd, or the part of it that is due before `stop`, and checks what it was told.
pub async fn run(plan: Plan, clock: Arc<dyn Clock>, stop: impl Future<Output = ()>) -> anyhow::Result<Summary> {
    let Plan { targets, sale, token, habits, connections, check, settle_time_max, watch } = plan;
    ensure!(!targets.is_empty(), "there is no server to send anything to");
    let target = targets[0].clone();
    let fact = facts::sale(&target, &sale).await?;
    let books = match &token {
        Some(token) if check => Some(Books { target: &target, sale: &sale, token }),
        _ => None,
    };
    let before = match &books {
        Some(books) => Some(books.before(&fact).await?),
        None => None,
    };
    let crowd = Arc::new(Crowd::gather(&habits, &fact.skus(), fact.per_customer_limit));
    let (total, max) = (crowd.requests.len(), limits::CROWD_REQUESTS_MAX);
    ensure!(
        total <= max,
        "{total} requests are too many to remember, at most {max}: take a lower --rate or --duration"
    );
    let urls = targets.iter().map(|target| target.url.clone()).collect();
    let aim = Aim { targets, sale: sale.clone(), skus: fact.skus(), token: token.clone() };
    let engine = Engine::new(crowd.clone(), aim, clock.clone())?;
    let tally = engine.tally();
    let records: Vec<Record> = tokio::select! {
        records = engine.run(connections, stop) => records,
        () = progress::show(watch, &tally, total as u64, &*clock) => Vec::new(),
    };
    let mut summary = Summary::new(urls, sale.clone(), &habits, connections, &crowd, &records, &tally);
    if let (Some(books), Some(before)) = (books, before) {
        let settled = books.settled(&*clock, settle_time_max).await?;
        let facts = books.facts(before, settled).await?;
        summary.check = Some(check::check(History { crowd: &crowd, records: &records }, &facts));
    }
    Ok(summary)
}
