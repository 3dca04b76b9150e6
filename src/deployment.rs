//! The deployments, side by side: the only file that names the backends. It builds a [`Shop`]; nothing else knows of what.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join;
use tokio::try_join;

use crate::clock::{Clock, RealClock};
use crate::config::{Role, Secret, Servers};
use crate::gate::{MemoryGate, RedisGate};
use crate::ledger::{PostgresLedger, SqliteLedger};
use crate::model::{Mint, limits};
use crate::postgres::{Database, DatabaseClock};
use crate::queue::{RabbitQueue, SqliteQueue};
use crate::remote::{Backoff, Unusable};
use crate::shop::Shop;
use crate::sqlite::{Access, Store, Tables};
use crate::way::Ways;
use crate::{reconcile, settlement};

/// The databases within the data folder: one each, so that a push does not wait for a settlement's commit.
const LEDGER: &str = "ledger.db";
const QUEUE: &str = "queue.db";
/// Held while a process serves from the data folder.
const LOCK: &str = "lock";
/// How often a process says again that it waits for a server.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What runs a layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Gate, queue or ledger.
    pub name: &'static str,
    /// By what it is run, in a word.
    pub run_by: &'static str,
    /// Where that is.
    pub place: String,
}

/// A shop and what keeps it going.
pub struct Deployment {
    /// The shop.
    pub shop: Arc<Shop>,
    /// What runs each layer, for people.
    pub layers: [Layer; 3],
    /// The files of an embedded deployment.
    stores: Vec<Store>,
    /// Held by the only process of an embedded deployment.
    alone: Option<File>,
    /// The clock that all processes of a distributed deployment share.
    time: Option<Arc<DatabaseClock>>,
}

/// Everything in this process and one data folder, which is created if it is missing. It must run within a tokio runtime.
/// Fails with what to do if the folder is damaged, is newer than this program, or is served by another process.
pub async fn embedded(data: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Deployment> {
    embedded_with(data, Schema::Migrate, clock).await
}

/// The same; with [`Schema::Check`] the folder has to be there, with this program's schema.
pub async fn embedded_with(data: &Path, schema: Schema, clock: Arc<dyn Clock>) -> anyhow::Result<Deployment> {
    let access = match schema {
        Schema::Migrate => Access::Write,
        Schema::Check => Access::WriteAsItIs,
    };
    match schema {
        Schema::Migrate => create_private(data)?,
        Schema::Check => find_databases(data)?,
    }
    let lock = lock(data)?;
    build(data, access, clock, Some(lock)).await
}

/// Three servers that any number of processes share: Redis or Valkey, RabbitMQ, PostgreSQL. Fails with the setting to correct
/// if one of them is not usable; one that is not there is waited for, and `waiting` says so meanwhile.
pub async fn distributed(
    servers: &Servers,
    schema: Schema,
    patience: Patience,
    waiting: Arc<Waiting>,
) -> anyhow::Result<Deployment> {
    let time = Arc::new(DatabaseClock::new(Arc::new(RealClock::new())));
    let clock: Arc<dyn Clock> = time.clone();
    let reach = Reach { patience, waiting: &waiting };
    let (database, redis, rabbitmq) = (servers.database.reveal(), servers.redis.reveal(), servers.rabbitmq.reveal());
    let ways = Arc::<Ways>::default();
    let (database, gate, queue) = try_join!(
        reach.server("PostgreSQL", "DATABASE_URL", || Database::connect(database)),
        reach.server("Redis", "REDIS_URL", || RedisGate::connect(redis, clock.clone(), limits::GATE_LEASE)),
        reach.server("RabbitMQ", "RABBITMQ_URL", || RabbitQueue::connect(rabbitmq, clock.clone(), ways.clone())),
    )?;
    match schema {
        Schema::Migrate => reach.server("PostgreSQL", "DATABASE_URL", || database.migrate()).await?,
        Schema::Check => reach.server("PostgreSQL", "DATABASE_URL", || database.check_schema()).await?,
    }
    reach.server("PostgreSQL", "DATABASE_URL", || time.follow(&database)).await?;
    let layer = |name, run_by, place: &str| Layer { name, run_by, place: place.to_owned() };
    let layers = [
        layer("gate", "Redis", &gate.name()),
        layer("queue", "RabbitMQ", &queue.name()),
        layer("ledger", "PostgreSQL", database.name().trim_start_matches("PostgreSQL at ")),
    ];
    let ledger = Arc::new(PostgresLedger::new(database, clock.clone()));
    let mint = Mint::new(ledger.secret(fresh_secret(&*clock)).await?);
    let shop = Arc::new(Shop::new(Arc::new(gate), Arc::new(queue), ledger, clock, mint, ways));
    Ok(Deployment { shop, layers, stores: Vec::new(), alone: None, time: Some(time) })
}

/// Brings the database to this program's schema; many processes may do it at once.
pub async fn migrate(database: &Secret, patience: Patience) -> anyhow::Result<()> {
    let reach = Reach { patience, waiting: &Waiting::default() };
    let database = reach.server("PostgreSQL", "DATABASE_URL", || Database::connect(database.reveal())).await?;
    reach.server("PostgreSQL", "DATABASE_URL", || database.migrate()).await
}

/// How servers are reached at the start.
struct Reach<'a> {
    patience: Patience,
    waiting: &'a Waiting,
}

impl Reach<'_> {
    /// Tries until it works, if the patience lasts. What the operator has to correct is said with the setting's name.
    async fn server<T, F>(
        &self,
        server: &'static str,
        setting: &'static str,
        attempt: impl Fn() -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, Unusable>>,
    {
        let (clock, mut backoff, mut told_at) = (RealClock::new(), Backoff::default(), None);
        loop {
            let why = match attempt().await {
                Ok(reached) => {
                    self.waiting.missing.lock().expect("no holder panics").remove(setting);
                    if told_at.is_some() {
                        tracing::info!("{server} is there");
                    }
                    return Ok(reached);
                }
                Err(Unusable::NotYet(why)) if self.patience == Patience::Endless => why,
                Err(unusable) => bail!("{setting}: {unusable}"),
            };
            self.waiting.missing.lock().expect("no holder panics").insert(setting, server);
            let now = clock.monotonic();
            if told_at.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY) {
                tracing::warn!("waiting for {server} ({setting}): {why}");
                told_at = Some(now);
            }
            clock.sleep(backoff.next(clock.chance())).await;
        }
    }
}

/// What a joining process does about the database's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Brings it to this program's.
    Migrate,
    /// Refuses another one.
    Check,
}

/// What a process does when a server is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Waits for it, however long that takes.
    Endless,
    /// Fails.
    None,
}

/// What a joining process still waits for.
#[derive(Debug, Default)]
pub struct Waiting {
    missing: Mutex<BTreeMap<&'static str, &'static str>>,
}

impl Waiting {
    /// In words for everybody, without an address.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.missing.lock().expect("no holder panics");
        missing.iter().map(|(setting, server)| format!("waiting for {server} ({setting})")).collect()
    }
}

/// Ledger and queue of a data folder that nobody serves, beside an empty gate, to look at them: nothing of a sale changes.
pub async fn inspect(data: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Deployment> {
    find_databases(data)?;
    build(data, Access::Read, clock, None).await
}

/// Fails, with what to do, unless the folder has its databases.
fn find_databases(data: &Path) -> anyhow::Result<()> {
    let (ledger, queue) = (data.join(LEDGER), data.join(QUEUE));
    let (there, missing) = match (ledger.exists(), queue.exists()) {
        (true, true) => return Ok(()),
        (false, false) => bail!(
            "{} does not exist: nothing was ever served from this data folder. Check --data (SLUICE_DATA), or run \
             `sluice migrate` to make a new one",
            ledger.display()
        ),
        (true, false) => (ledger, queue),
        (false, true) => (queue, ledger),
    };
    bail!(
        "{} does not exist, and {} does: something was lost. Restore the data folder from a backup; where there is \
         none, `sluice migrate` makes what is missing, empty",
        missing.display(),
        there.display()
    )
}

async fn build(data: &Path, access: Access, clock: Arc<dyn Clock>, lock: Option<File>) -> anyhow::Result<Deployment> {
    let (ledger_path, queue_path) = (data.join(LEDGER), data.join(QUEUE));
    let ledger_store = Store::open(&ledger_path, Tables::Ledger, access)?;
    let ledger = Arc::new(SqliteLedger::new(ledger_store.clone(), clock.clone()));
    let mint = Mint::new(ledger.secret(fresh_secret(&*clock)).await?);
    let queue_store = Store::open(&queue_path, Tables::Queue, access)?;
    let ways = Arc::<Ways>::default();
    let queue = Arc::new(SqliteQueue::new(queue_store.clone(), clock.clone(), ways.clone()));
    let gate = Arc::new(MemoryGate::new(clock.clone()));
    let layer = |name, path: &Path| Layer { name, run_by: "SQLite", place: path.display().to_string() };
    let gate_layer = Layer { name: "gate", run_by: "this process", place: "memory".to_owned() };
    let layers = [gate_layer, layer("queue", &queue_path), layer("ledger", &ledger_path)];
    let shop = Arc::new(Shop::new(gate, queue, ledger, clock, mint, ways));
    Ok(Deployment { shop, layers, stores: vec![ledger_store, queue_store], alone: lock, time: None })
}

impl Deployment {
    /// Does what the role asks for until the future is dropped: a worker settles, follows, sweeps and lapses; an API
    /// alone only looks after its way to the queue.
    pub async fn run(&self, role: Role) {
        let work = async {
            match role {
                Role::All | Role::Worker => drop(join(settlement::run(&self.shop), reconcile::run(&self.shop)).await),
                Role::Api => reconcile::ask_failed_queue(&self.shop).await,
            }
        };
        match &self.time {
            Some(time) => drop(join(work, time.run()).await),
            None => work.await,
        }
    }

    /// Waits until everything accepted is settled, while [`Deployment::run`] goes on; false if that takes too long or the
    /// queue fails. A distributed process does not wait: another settles what is left. Nothing is lost either way.
    pub async fn drain(&self) -> bool {
        self.drain_within(limits::SHUTDOWN_TIME_MAX).await
    }

    /// The same, for as long as this at most.
    pub async fn drain_within(&self, time_max: Duration) -> bool {
        if self.alone.is_none() {
            return true;
        }
        let clock = &self.shop.clock;
        let deadline = clock.monotonic() + time_max;
        loop {
            match self.shop.queue.depth().await {
                Ok(depth) if depth.waiting == 0 => return true,
                Ok(_) if clock.monotonic() < deadline => clock.sleep(Duration::from_millis(5)).await,
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Makes the files of an embedded deployment whole, for whoever copies them once the process has ended. What fails of
    /// this is only not done: the next start reads the log as well.
    pub async fn fold(&self) {
        for store in &self.stores {
            store.fold().await;
        }
    }
}

/// What order ids are derived from, unless the ledger has a secret already.
fn fresh_secret(clock: &dyn Clock) -> [u8; 32] {
    let mut fresh = [0; 32];
    fresh.as_chunks_mut::<8>().0.iter_mut().for_each(|chunk| *chunk = clock.chance().to_le_bytes());
    fresh
}

/// Creates the data folder so that only its owner can look into it; one that is there stays as it is.
pub fn create_private(data: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(data)
        .with_context(|| format!("cannot create the data folder {}. Choose another with --data", data.display()))
}

fn lock(data: &Path) -> anyhow::Result<File> {
    let path: PathBuf = data.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "the data folder {} is served by another process. Stop it first, or choose another folder with --data",
            data.display()
        ),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
