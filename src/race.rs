//! The race: the same crowd buys from the same stock in several ways, with real concurrency on real tables, side by side.
//! One thing is arranged: the counter in front lives in this process, and one of its clients in twenty dies between counter
//! and table. Otherwise nothing is: a way that comes out right this time is shown as such, and what is shown of one that
//! does not was recorded as it happened.

mod postgres;
mod sluice;
mod tables;
mod trace;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::config::Secret;
use tables::Way;
use trace::Try;

/// Customers that buy at the same time, each over a connection of its own.
const LINES: usize = 8;

/// What is raced for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The crowd of each seed comes in another sequence.
    pub seeds: u32,
    /// Units there are.
    pub units: u32,
    /// People who want one each.
    pub customers: u32,
}

/// A race and how far it is.
#[derive(Debug, Clone, Serialize)]
pub struct Board {
    /// `idle`, `running` or `done`.
    pub state: &'static str,
    /// The seed that is being run, or was run last.
    pub seed: u32,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// One per way to sell.
    pub lanes: Vec<Lane>,
}

/// What one way to sell came to. Units are those of its worst seed, times the middle ones of all seeds.
#[derive(Debug, Clone, Serialize)]
pub struct Lane {
    id: &'static str,
    /// For people.
    pub name: &'static str,
    /// Whether it is written so that it cannot oversell.
    pub guarded: bool,
    how: &'static str,
    stock: u32,
    /// Units sold.
    pub sold: u32,
    /// Units sold that there were not.
    pub oversold: u32,
    /// Orders that were told yes and are nowhere.
    pub lost: u32,
    /// Units that nobody has although people were told "sold out".
    pub phantom: u32,
    /// Milliseconds of one seed.
    pub ms: u64,
    /// Milliseconds within which 99 customers of 100 had their answer.
    pub p99_ms: f64,
    seeds: Vec<Seed>,
    /// How it went wrong for the first time.
    first_wrong: Option<Vec<Step>>,
}

#[derive(Debug, Clone, Serialize)]
struct Seed {
    seed: u32,
    sold: u32,
    oversold: u32,
    lost: u32,
    phantom: u32,
    ms: u64,
    #[serde(skip)]
    p99_ms: f64,
}

/// Something that one of two customers did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Microseconds since the first customer came.
    pub t_us: u64,
    /// `A` or `B`.
    pub who: char,
    /// In words.
    pub does: String,
}

/// What one way came to with one seed.
struct Round {
    sold: u32,
    lost: u32,
    time: Duration,
    /// How long each customer waited.
    waits: Vec<Duration>,
    wrong: Option<Vec<Step>>,
}

impl Round {
    fn new(sold: u32, tries: &[Try], time: Duration, wrong: Option<Vec<Step>>) -> anyhow::Result<Self> {
        let told = u32::try_from(tries.iter().filter(|one| one.sold).count())?;
        let waits = tries.iter().map(|one| one.ended.saturating_sub(one.began)).collect();
        Ok(Self { sold, lost: told.saturating_sub(sold), time, waits, wrong })
    }
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
enum Contestant {
    Table(Way),
    Postgres(postgres::Way),
    Sluice { killed: bool },
}

/// All ways, in the sequence in which they are shown.
fn contestants(with_postgres: bool) -> Vec<Contestant> {
    let tables = Way::ALL.into_iter().map(Contestant::Table);
    let postgres = postgres::Way::ALL.into_iter().filter(|_| with_postgres).map(Contestant::Postgres);
    tables.chain(postgres).chain([false, true].map(|killed| Contestant::Sluice { killed })).collect()
}

/// A race that is run at most once at a time, and can be looked at meanwhile.
pub struct Race {
    board: Mutex<Board>,
    /// Where PostgreSQL's lanes are run, if anywhere.
    database: Option<Secret>,
}

impl Race {
    /// Nothing is run yet. With a database, PostgreSQL takes part.
    pub fn new(database: Option<Secret>) -> Self {
        let board = Board { state: "idle", seed: 0, error: None, lanes: Vec::new() };
        Self { board: Mutex::new(board), database }
    }

    /// How far it is.
    pub fn board(&self) -> Board {
        self.board.lock().expect("no holder panics").clone()
    }

    /// Begins a race; false if one is being run.
    pub fn begin(&self, setting: Setting) -> bool {
        let mut board = self.board.lock().expect("no holder panics");
        let free = board.state != "running";
        if free {
            let contestants = contestants(self.database.is_some());
            let lanes = contestants.into_iter().map(|contestant| contestant.lane(setting)).collect();
            *board = Board { state: "running", seed: 1, error: None, lanes };
        }
        free
    }

    /// Runs the race that was begun, in files under this folder.
    pub async fn run(&self, setting: Setting, folder: &Path, clock: &Arc<dyn Clock>) {
        let ended = self.run_all(setting, folder, clock).await;
        let mut board = self.board.lock().expect("no holder panics");
        board.state = "done";
        board.error = ended.err().map(|error| format!("{error:#}"));
    }

    async fn run_all(&self, setting: Setting, folder: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
        let postgres = match &self.database {
            Some(url) => Some(postgres::Tables::create(url, &**clock).await?),
            None => None,
        };
        let ended = self.run_seeds(setting, folder, clock, postgres.as_ref()).await;
        if let Some(tables) = postgres {
            tables.remove().await?;
        }
        ended
    }

    async fn run_seeds(
        &self,
        setting: Setting,
        folder: &Path,
        clock: &Arc<dyn Clock>,
        postgres: Option<&postgres::Tables>,
    ) -> anyhow::Result<()> {
        for seed in 1..=setting.seeds {
            self.board.lock().expect("no holder panics").seed = seed;
            for (place, contestant) in contestants(postgres.is_some()).into_iter().enumerate() {
                let data = folder.join(format!("{place}-{seed}"));
                crate::deployment::create_private(&data)?;
                let round = match (contestant, postgres) {
                    (Contestant::Table(way), _) => tables::run(way, setting, seed, &data, clock.clone()).await?,
                    (Contestant::Postgres(way), Some(tables)) => tables.run(way, setting, seed, clock).await?,
                    (Contestant::Postgres(_), None) => continue,
                    (Contestant::Sluice { killed }, _) => {
                        sluice::run(setting, seed, killed, &data, clock.clone()).await?
                    }
                };
                std::fs::remove_dir_all(&data)?;
                self.board.lock().expect("no holder panics").lanes[place].add(seed, round);
            }
        }
        Ok(())
    }
}

impl Contestant {
    fn lane(self, setting: Setting) -> Lane {
        let (id, name, guarded, how) = match self {
            Contestant::Table(way) => way.words(),
            Contestant::Postgres(way) => way.words(),
            Contestant::Sluice { killed: false } => (
                "sluice",
                "Sluice",
                true,
                "The gate sets a unit aside, a durable queue carries the order, the ledger sells.",
            ),
            Contestant::Sluice { killed: true } => (
                "sluice-killed",
                "Sluice, its worker killed",
                true,
                "The same, and in the middle the worker is dropped wherever it is, and started again.",
            ),
        };
        Lane {
            id,
            name,
            guarded,
            how,
            stock: setting.units,
            sold: 0,
            oversold: 0,
            lost: 0,
            phantom: 0,
            ms: 0,
            p99_ms: 0.0,
            seeds: Vec::new(),
            first_wrong: None,
        }
    }
}

impl Lane {
    /// How its seeds came out, in words.
    pub fn outcome(&self) -> String {
        let wrong = |kind: fn(&Seed) -> u32| self.seeds.iter().filter(|seed| kind(seed) > 0).count();
        let kinds = [
            ("oversold", wrong(|seed| seed.oversold)),
            ("lost orders", wrong(|seed| seed.lost)),
            ("left units that nobody has", wrong(|seed| seed.phantom)),
        ];
        let all = self.seeds.len();
        let told: Vec<String> = kinds
            .iter()
            .filter(|(_, seeds)| *seeds > 0)
            .map(|(what, seeds)| format!("{seeds} of {all} seeds {what}"))
            .collect();
        match (told.is_empty(), all, self.guarded) {
            (false, ..) => told.join(", "),
            (true, 0, _) => "not run".to_owned(),
            (true, _, true) => "exact".to_owned(),
            (true, _, false) => "did not oversell this time".to_owned(),
        }
    }

    fn add(&mut self, seed: u32, round: Round) {
        let Round { sold, lost, time, mut waits, wrong } = round;
        waits.sort_unstable();
        let wanted = u32::try_from(waits.len()).unwrap_or(u32::MAX);
        let at = (waits.len() * 99 / 100).min(waits.len().saturating_sub(1));
        let p99_ms = waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
        let oversold = sold.saturating_sub(self.stock);
        let phantom = self.stock.min(wanted).saturating_sub(sold);
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.seeds.push(Seed { seed, sold, oversold, lost, phantom, ms, p99_ms });
        if self.first_wrong.is_none() {
            self.first_wrong = wrong;
        }
        let worst = self.seeds.iter().max_by_key(|seed| seed.oversold + seed.lost + seed.phantom);
        if let Some(worst) = worst {
            (self.sold, self.oversold, self.lost, self.phantom) =
                (worst.sold, worst.oversold, worst.lost, worst.phantom);
        }
        let mut times: Vec<(u64, f64)> = self.seeds.iter().map(|seed| (seed.ms, seed.p99_ms)).collect();
        times.sort_unstable_by_key(|(ms, _)| *ms);
        self.ms = times[times.len() / 2].0;
        times.sort_unstable_by(|one, other| one.1.total_cmp(&other.1));
        self.p99_ms = (times[times.len() / 2].1 * 1e3).round() / 1e3;
    }
}

/// The customers in the sequence in which they come with this seed.
fn arrivals(setting: Setting, seed: u32) -> Vec<u32> {
    let mut customers: Vec<u32> = (0..setting.customers).collect();
    fastrand::Rng::with_seed(seed.into()).shuffle(&mut customers);
    customers
}
