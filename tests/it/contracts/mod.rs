//! What every gate, every queue and every ledger does, whoever implements it. A new implementation is one more line here.

mod gate;
mod ledger;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use sluice::gate::{Gate, MemoryGate, RedisGate};
use sluice::ledger::{Ledger, PostgresLedger, SqliteLedger};
use sluice::postgres::Database;
use sluice::queue::{Queue, RabbitQueue, SqliteQueue};
use sluice::sqlite::{Access, Store, Tables};
use tempfile::TempDir;

use crate::model_ledger::ModelLedger;
use crate::model_queue::ModelQueue;
use crate::servers;
use crate::words::HandClock;

/// Turns the sentences of a contract into one test each, for one implementation.
macro_rules! sentences {
    ($implementation:expr; $($sentence:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $sentence() {
            super::$sentence($implementation()).await;
        })*
    };
}
use sentences;

fn memory_gate(clock: Arc<HandClock>) -> Arc<dyn Gate> {
    Arc::new(MemoryGate::new(clock))
}

/// A gate of its own database on a server that the tests share.
fn redis_gate(clock: Arc<HandClock>) -> Arc<dyn Gate> {
    let url = servers::redis::fresh_database();
    let connect = RedisGate::connect(&url, clock, Duration::ZERO);
    let gate = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connect));
    Arc::new(gate.expect("the server is there"))
}

/// A ledger or a queue, its clock, and where it keeps its file or which server it asks.
struct Bench<T: ?Sized> {
    tested: Arc<T>,
    clock: Arc<HandClock>,
    file: Option<TempDir>,
    url: Option<String>,
}

impl<T: ?Sized> std::ops::Deref for Bench<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.tested
    }
}

fn open(file: &TempDir, tables: Tables) -> Store {
    Store::open(&file.path().join("test.db"), tables, Access::Write).expect("a new file opens")
}

fn sqlite_ledger() -> Bench<dyn Ledger> {
    let (clock, file) = (Arc::new(HandClock::default()), TempDir::new().expect("a folder"));
    Bench {
        tested: Arc::new(SqliteLedger::new(open(&file, Tables::Ledger), clock.clone())),
        clock,
        file: Some(file),
        url: None,
    }
}

fn postgres_ledger() -> Bench<dyn Ledger> {
    let clock = Arc::new(HandClock::default());
    let database = tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(async {
            let database = Database::connect(&servers::postgres::shared().database()).await.expect("it runs");
            database.migrate().await.expect("a new database");
            database
        })
    });
    Bench { tested: Arc::new(PostgresLedger::new(database, clock.clone())), clock, file: None, url: None }
}

fn model_ledger() -> Bench<dyn Ledger> {
    let clock = Arc::new(HandClock::default());
    Bench { tested: Arc::new(ModelLedger::new(clock.clone())), clock, file: None, url: None }
}

fn sqlite_queue() -> Bench<dyn Queue> {
    let (clock, file) = (Arc::new(HandClock::default()), TempDir::new().expect("a folder"));
    Bench {
        tested: Arc::new(SqliteQueue::new(open(&file, Tables::Queue), clock.clone(), Arc::default())),
        clock,
        file: Some(file),
        url: None,
    }
}

fn rabbit_queue() -> Bench<dyn Queue> {
    rabbit_queue_at(servers::rabbitmq::shared().own_url(), Arc::new(HandClock::default()))
}

fn rabbit_queue_at(url: String, clock: Arc<HandClock>) -> Bench<dyn Queue> {
    let queue = tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current()
            .block_on(RabbitQueue::connect(&url, clock.clone(), Arc::default()))
            .expect("it runs")
    });
    Bench { tested: Arc::new(queue), clock, file: None, url: Some(url) }
}

fn model_queue() -> Bench<dyn Queue> {
    let clock = Arc::new(HandClock::default());
    Bench { tested: Arc::new(ModelQueue::new(clock.clone(), None)), clock, file: None, url: None }
}
