//! The database's clock, as this process knows it, so that all processes of a deployment go by one time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use super::{Database, Failure, Lane, trip};
use crate::clock::Clock;
use crate::model::Time;
use crate::remote::Unusable;

/// How often the database is asked for its time.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked at the start; the fastest answer counts.
const FIRST_ASKS: u32 = 5;
/// How far two clocks may drift apart, in microseconds per second.
const DRIFT_MICROS: u64 = 500;

/// The machine's monotonic time, set by the database's time of day. What the machine believes the time of day to be plays
/// no part. How the time is read from an answer that took a while, and which answers to trust: F. Cristian,
/// *Probabilistic clock synchronization*, 1989.
pub struct DatabaseClock {
    machine: Arc<dyn Clock>,
    database: OnceLock<Database>,
    reading: Mutex<Reading>,
    /// The reading's, for whoever only wants to know the time: every request does, several times.
    offset_micros: AtomicI64,
}

/// What an answer of the database said.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The database's time minus the machine's monotonic time.
    offset_micros: i64,
    /// By how much that may be wrong: half of the time that the answer took.
    error_micros: u64,
    /// When, in the machine's monotonic time.
    at: Duration,
}

impl DatabaseClock {
    /// The machine's own time, until [`DatabaseClock::follow`].
    pub fn new(machine: Arc<dyn Clock>) -> Self {
        let at = machine.monotonic();
        let offset_micros = machine.now().millis().saturating_mul(1_000) - micros(at);
        let reading = Mutex::new(Reading { offset_micros, error_micros: u64::MAX, at });
        Self { machine, database: OnceLock::new(), reading, offset_micros: AtomicI64::new(offset_micros) }
    }

    /// Asks this database for its time, and goes by it from now on; it is asked again while [`DatabaseClock::run`] goes on.
    /// A second database is not looked at.
    pub async fn follow(&self, database: &Database) -> Result<(), Unusable> {
        let database = self.database.get_or_init(|| database.clone());
        for _ in 0..FIRST_ASKS {
            let reading = ask(database, &*self.machine).await;
            self.consider(
                reading.map_err(|failure| {
                    Unusable::NotYet(format!("{}: {}", database.name(), failure.named("its clock")))
                })?,
            );
        }
        Ok(())
    }

    fn consider(&self, new: Reading) {
        let mut reading = self.reading.lock().expect("no holder panics");
        if better(*reading, new) {
            *reading = new;
            self.offset_micros.store(new.offset_micros, Ordering::Relaxed);
        }
    }

    /// Follows the database's clock until the future is dropped.
    pub async fn run(&self) {
        loop {
            self.machine.sleep(ASK_EVERY).await;
            let Some(database) = self.database.get() else { continue };
            match ask(database, &*self.machine).await {
                Ok(new) => self.consider(new),
                Err(failure) => {
                    let error = failure.named("the database's clock");
                    tracing::warn!(%error, "going on by the machine's clock for a while");
                }
            }
        }
    }
}

/// Whether a new reading is to be believed: one that was answered fast, compared with how far the old one may have drifted
/// since; or one that contradicts it, because then the database's clock was set.
fn better(old: Reading, new: Reading) -> bool {
    let age = new.at.saturating_sub(old.at);
    let drift = u64::try_from(age.as_micros()).unwrap_or(u64::MAX) / 1_000_000 * DRIFT_MICROS;
    let error_now = old.error_micros.saturating_add(drift);
    let contradiction = old.offset_micros.abs_diff(new.offset_micros) > error_now.saturating_add(new.error_micros);
    new.error_micros <= error_now || contradiction
}

async fn ask(database: &Database, machine: &dyn Clock) -> Result<Reading, Failure> {
    let session = database.session(Lane::Read).await?;
    let sql = "/* clock */ select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let [statement] = session.prepare([sql]).await?;
    let before = machine.monotonic();
    let row = trip(session.query_one(&statement, &[])).await?;
    let at = machine.monotonic();
    session.done();
    let took = micros(at.saturating_sub(before));
    let offset_micros = row.get::<_, i64>(0) - (micros(before) + took / 2);
    Ok(Reading { offset_micros, error_micros: took.unsigned_abs() / 2 + 1, at })
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Clock for DatabaseClock {
    fn now(&self) -> Time {
        let offset = self.offset_micros.load(Ordering::Relaxed);
        Time::from_millis((micros(self.machine.monotonic()) + offset).div_euclid(1_000))
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    async fn sleep(&self, time: Duration) {
        self.machine.sleep(time).await;
    }

    fn chance(&self) -> u64 {
        self.machine.chance()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(offset_micros: i64, error_micros: u64, at_seconds: u64) -> Reading {
        Reading { offset_micros, error_micros, at: Duration::from_secs(at_seconds) }
    }

    #[test]
    fn slow_answers_are_ignored_until_the_old_one_is_older() {
        let old = reading(0, 100, 0);
        assert!(better(old, reading(50, 90, 1)));
        assert!(!better(old, reading(300, 2_000, 1)));
        assert!(better(old, reading(300, 2_000, 5)));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        assert!(better(reading(0, 100, 0), reading(-3_600_000_000, 40_000, 1)));
    }
}
