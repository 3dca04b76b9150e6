//! What only a demonstration may do: a crowd that comes when called, and three faults at the press of a button. `--demo` puts
//! [`Chaos`] around gate and queue and beside the worker; a server without it has nothing of this.

mod chaos;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::sync::watch;

pub use chaos::{Chaos, Fault};

use crate::clock::Clock;
use crate::config::Secret;
use crate::load::books;
use crate::load::crowd::{Crowd, Habits};
use crate::load::engine::{Aim, Engine, Patience, Tally};
use crate::load::record::Outcome;
use crate::load::wire::Target;
use crate::model::SaleId;
use crate::race::{Board, Race, Setting};

/// Connections that a crowd shares.
const CONNECTIONS: usize = 64;

/// A demonstration's controls.
pub struct Demo {
    /// The faults.
    pub chaos: Arc<Chaos>,
    /// Where this server itself listens.
    url: String,
    clock: Arc<dyn Clock>,
    visit: Mutex<Option<Visit>>,
    race: Race,
}

/// A crowd as it was called.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where it goes.
    pub sale: SaleId,
    /// How many people.
    pub customers: u32,
    /// New orders per second; everybody once within the time if absent.
    pub rate_per_second: Option<u32>,
    /// How long they keep coming.
    pub seconds: u32,
    /// Whether they also ask again, click twice and hang up.
    pub retries: bool,
    /// The same seed is the same crowd.
    pub seed: u64,
}

/// A crowd that came.
struct Visit {
    sale: SaleId,
    customers: u32,
    crowd: Arc<Crowd>,
    tally: Arc<Tally>,
    start: Duration,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

/// How far a crowd is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    sale: SaleId,
    customers: u32,
    /// Requests that have left, those sent again included.
    sent: u64,
    /// Requests that were due so far.
    offered: u64,
    /// Requests that left more than 10 ms after they were due.
    late: u64,
    accepted: u64,
    /// Refused for good or for now.
    refused: u64,
    /// Requests whose customer hung up, heard nothing sensible, or could not be served at all.
    unanswered: u64,
    done: bool,
}

impl Demo {
    /// Controls of the server that listens here, over this chaos. With a database, PostgreSQL takes part in races.
    pub fn new(url: String, chaos: Arc<Chaos>, clock: Arc<dyn Clock>, database: Option<Secret>) -> Arc<Self> {
        Arc::new(Self { chaos, url, clock, visit: Mutex::default(), race: Race::new(database) })
    }

    /// Calls a crowd; false if one is there already. It comes over HTTP, as any other.
    pub async fn call(&self, call: &Call) -> anyhow::Result<bool> {
        if self.is_busy() {
            return Ok(false);
        }
        let target = Target::find(&self.url, false).await?;
        let fact = books::sale(&target, &call.sale).await?;
        let (habits, skus, limit) = (call.habits(), fact.skus(), fact.per_customer_limit);
        let gathered = tokio::task::spawn_blocking(move || Crowd::gather(&habits, &skus, limit));
        let crowd = Arc::new(gathered.await.context("the crowd cannot be gathered")?);
        let aim = Aim {
            targets: vec![target],
            sale: call.sale.clone(),
            skus: fact.skus(),
            token: None,
            patience: Patience::default(),
        };
        let engine = Engine::new(crowd.clone(), aim, self.clock.clone()).context("the crowd cannot come")?;
        let (stop, mut stopped) = watch::channel(false);
        let (tell, done) = watch::channel(false);
        let visit = Visit {
            sale: call.sale.clone(),
            customers: call.customers,
            crowd,
            tally: engine.tally(),
            start: self.clock.monotonic(),
            stop,
            done,
        };
        // Another call may have been faster.
        if !self.begin(visit) {
            return Ok(false);
        }
        tokio::spawn(async move {
            engine.run(CONNECTIONS, async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
            tell.send_replace(true);
        });
        Ok(true)
    }

    /// Sends the crowd home, if there is one; what it has sent is answered.
    pub fn dismiss(&self) {
        if let Some(visit) = &*self.visit.lock().expect("no holder panics") {
            visit.stop.send_replace(true);
        }
    }

    /// Begins a race, in files that are gone afterwards; false if one is being run.
    pub fn race(self: &Arc<Self>, setting: Setting) -> bool {
        let begun = self.race.begin(setting);
        if begun {
            let demo = self.clone();
            tokio::spawn(async move {
                let folder = std::env::temp_dir().join(format!("sluice-race-{:016x}", demo.clock.chance()));
                demo.race.run(setting, &folder, &demo.clock).await;
                if let Err(error) = std::fs::remove_dir_all(&folder)
                    && folder.exists()
                {
                    tracing::warn!(%error, "could not remove the race's folder");
                }
            });
        }
        begun
    }

    /// How far the race is, or what the last one came to.
    pub fn board(&self) -> Board {
        self.race.board()
    }

    /// The crowd that is here, or the last one that was.
    pub fn progress(&self) -> Option<Progress> {
        self.visit.lock().expect("no holder panics").as_ref().map(|visit| visit.progress(self.clock.monotonic()))
    }

    fn is_busy(&self) -> bool {
        self.visit.lock().expect("no holder panics").as_ref().is_some_and(|visit| !visit.is_over())
    }

    fn begin(&self, visit: Visit) -> bool {
        let mut place = self.visit.lock().expect("no holder panics");
        let free = place.as_ref().is_none_or(Visit::is_over);
        if free {
            *place = Some(visit);
        }
        free
    }
}

impl Call {
    fn habits(&self) -> Habits {
        let (people, seconds) = (f64::from(self.customers), f64::from(self.seconds));
        let rate_per_s = self.rate_per_second.map_or(people / seconds, f64::from);
        let orders = self.rate_per_second.map_or(self.customers, |rate| rate.saturating_mul(self.seconds));
        let plain = Habits { customers: self.customers, orders, rate_per_s, ..Habits::plain(self.seed) };
        match self.retries {
            true => Habits { again: 0.05, retries: 0.15, duplicates: 0.05, impatience: 0.03, ..plain },
            false => plain,
        }
    }
}

impl Visit {
    fn is_over(&self) -> bool {
        *self.done.borrow()
    }

    fn progress(&self, now: Duration) -> Progress {
        let since_us = u64::try_from(now.saturating_sub(self.start).as_micros()).unwrap_or(u64::MAX);
        let offered = self.crowd.requests.partition_point(|request| request.due_us <= since_us) as u64;
        let count = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| self.tally.count(*outcome)).sum::<u64>();
        let refusals =
            [Outcome::SoldOut, Outcome::CustomerLimit, Outcome::KeyReused, Outcome::Refused, Outcome::Unavailable];
        Progress {
            sale: self.sale.clone(),
            customers: self.customers,
            sent: self.tally.sent(),
            offered,
            late: self.tally.late(),
            accepted: count(&[Outcome::Accepted]),
            refused: count(&refusals),
            unanswered: count(&[Outcome::HungUp, Outcome::Error]) + self.tally.dropped(),
            done: self.is_over(),
        }
    }
}
