//! The usual ways to sell from a table, as they are written everywhere, each on a SQLite file of its own with a connection
//! per customer who is being served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OptionalExtension};

use super::trace::{Rule, Try, first_wrong};
use super::{LINES, Round, Setting, arrivals};
use crate::clock::Clock;

/// How long a connection waits for the writer before it gives up.
const BUSY_TIME_MAX: Duration = Duration::from_secs(10);
/// Of so many clients that were let through by the counter, one dies before its order is written. This is arranged, and said
/// so on the page: the seed chooses who dies. What follows from it is not.
const DEATHS_ONE_IN: u64 = 20;

/// A way to sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ReadThenWrite,
    CheckThenTake,
    CountDown,
    OneStatement,
}

impl Way {
    pub(super) const ALL: [Way; 4] = [Way::ReadThenWrite, Way::CheckThenTake, Way::CountDown, Way::OneStatement];

    /// Id, name, whether it is guarded, and how it goes.
    pub(super) fn words(self) -> (&'static str, &'static str, bool, &'static str) {
        match self {
            Way::ReadThenWrite => (
                "read-then-write",
                "SQLite: read, check, write",
                false,
                "Reads how many there are, checks in the program, and writes back one less.",
            ),
            Way::CheckThenTake => (
                "check-then-take",
                "SQLite: check, then take",
                false,
                "One transaction checks that there is one, the next takes one away.",
            ),
            Way::CountDown => (
                "count-down",
                "A counter in front",
                false,
                "A counter is decremented first and the order is written afterwards. Its counter lives in this process; one client \
                 in twenty dies between counter and table, as arranged, and nobody counts up again.",
            ),
            Way::OneStatement => (
                "one-statement",
                "SQLite: one conditional update",
                true,
                "update … set available = available - 1 where available > 0, and the order in the same transaction.",
            ),
        }
    }

    /// What shows that it went wrong; `None` if it cannot.
    fn rule(self) -> Option<Rule> {
        match self {
            Way::ReadThenWrite => Some(Rule::SameValueTwice),
            Way::CheckThenTake => Some(Rule::BelowZero),
            Way::CountDown => Some(Rule::NobodyHasIt),
            Way::OneStatement => None,
        }
    }
}

/// What the customers of one round share.
struct Stage {
    way: Way,
    file: PathBuf,
    clock: Arc<dyn Clock>,
    arrivals: Vec<u32>,
    next: AtomicUsize,
    /// Stands for a counter in a cache: it counts as exactly, only faster.
    counter: AtomicI64,
    seed: u32,
}

/// Runs one way with one seed.
pub(super) async fn run(
    way: Way,
    setting: Setting,
    seed: u32,
    data: &Path,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Round> {
    let stage = Stage {
        way,
        file: data.join("race.db"),
        clock,
        arrivals: arrivals(setting, seed),
        next: AtomicUsize::new(0),
        counter: AtomicI64::new(setting.units.into()),
        seed,
    };
    tokio::task::spawn_blocking(move || stage.run(setting)).await.context("a lane broke down")?
}

impl Stage {
    fn run(&self, setting: Setting) -> anyhow::Result<Round> {
        let connection = self.open()?;
        connection.execute_batch(
            "create table stock (available integer not null); create table sold (customer integer primary key);",
        )?;
        connection.execute("insert into stock values (?1)", [setting.units])?;
        let start = self.clock.monotonic();
        let tries = thread::scope(|scope| {
            let lines: Vec<_> = (0..LINES).map(|_| scope.spawn(|| self.line())).collect();
            lines.into_iter().map(|line| line.join().expect("no line panics")).collect::<anyhow::Result<Vec<_>>>()
        })?;
        let time = self.clock.monotonic().saturating_sub(start);
        let tries: Vec<Try> = tries.into_iter().flatten().collect();
        let sold = connection.query_row("select count(*) from sold", [], |row| row.get(0))?;
        let wrong = self.way.rule().and_then(|rule| first_wrong(rule, &tries, start));
        Round::new(sold, &tries, time, wrong)
    }

    fn open(&self) -> anyhow::Result<Connection> {
        let connection = Connection::open(&self.file)?;
        connection.busy_timeout(BUSY_TIME_MAX)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(connection)
    }

    /// Serves one customer after the other.
    fn line(&self) -> anyhow::Result<Vec<Try>> {
        let connection = self.open()?;
        let mut tries = Vec::new();
        while let Some(customer) = self.arrivals.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut one = Try::begin(self.clock.monotonic());
            match self.way {
                Way::ReadThenWrite => self.read_then_write(&connection, *customer, &mut one)?,
                Way::CheckThenTake => self.check_then_take(&connection, *customer, &mut one)?,
                Way::CountDown => self.count_down(&connection, *customer, &mut one)?,
                Way::OneStatement => self.one_statement(&connection, *customer, &mut one)?,
            }
            one.end(self.clock.monotonic());
            tries.push(one);
        }
        Ok(tries)
    }

    fn look(&self, connection: &Connection, one: &mut Try) -> rusqlite::Result<i64> {
        let available = connection.prepare_cached("select available from stock")?.query_row([], |row| row.get(0))?;
        one.saw(self.clock.monotonic(), available);
        Ok(available)
    }

    fn read_then_write(&self, connection: &Connection, customer: u32, one: &mut Try) -> rusqlite::Result<()> {
        let available = self.look(connection, one)?;
        if available > 0 {
            connection.prepare_cached("update stock set available = ?1")?.execute([available - 1])?;
            one.left(self.clock.monotonic(), available - 1);
            self.sell(connection, customer, one)?;
        }
        Ok(())
    }

    fn check_then_take(&self, connection: &Connection, customer: u32, one: &mut Try) -> rusqlite::Result<()> {
        if self.look(connection, one)? > 0 {
            connection.execute_batch("begin immediate")?;
            let sql = "update stock set available = available - 1 returning available";
            let left = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            self.sell(connection, customer, one)?;
            connection.execute_batch("commit")?;
            one.left(self.clock.monotonic(), left);
        }
        Ok(())
    }

    fn count_down(&self, connection: &Connection, customer: u32, one: &mut Try) -> rusqlite::Result<()> {
        let left = self.counter.fetch_sub(1, Ordering::SeqCst) - 1;
        one.left(self.clock.monotonic(), left);
        if left < 0 {
            return Ok(());
        }
        let fate = fastrand::Rng::with_seed(u64::from(self.seed) << 32 | u64::from(customer)).u64(..);
        one.died = fate.is_multiple_of(DEATHS_ONE_IN);
        if one.died { Ok(()) } else { self.sell(connection, customer, one) }
    }

    fn one_statement(&self, connection: &Connection, customer: u32, one: &mut Try) -> rusqlite::Result<()> {
        connection.execute_batch("begin immediate")?;
        let sql = "update stock set available = available - 1 where available > 0 returning available";
        let left: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        if left.is_some() {
            self.sell(connection, customer, one)?;
        }
        connection.execute_batch("commit")?;
        Ok(())
    }

    fn sell(&self, connection: &Connection, customer: u32, one: &mut Try) -> rusqlite::Result<()> {
        connection.prepare_cached("insert into sold values (?1)")?.execute([customer])?;
        one.sold = true;
        Ok(())
    }
}
