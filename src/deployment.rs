//! The deployments, side by side: the only file that names the backends. It builds a [`Shop`]; nothing else knows of what.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join;

use crate::clock::Clock;
use crate::gate::MemoryGate;
use crate::ledger::SqliteLedger;
use crate::model::Mint;
use crate::queue::SqliteQueue;
use crate::shop::Shop;
use crate::sqlite::{Access, Store};
use crate::{reconcile, settlement};

/// The database within the data folder.
const DATABASE: &str = "sluice.db";
/// Held while a process serves from the data folder.
const LOCK: &str = "lock";
/// How long a stopping process waits for the queue to run empty.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A shop and what keeps it going.
pub struct Deployment {
    /// The shop.
    pub shop: Arc<Shop>,
    /// Which layer is run by what, for people.
    pub layers: Vec<(&'static str, String)>,
    _lock: Option<File>,
}

/// Everything in this process and one data folder, which is created if it is missing. It must run within a tokio runtime.
/// Fails with what to do if the folder is damaged, is newer than this program, or is served by another process.
pub async fn embedded(data: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Deployment> {
    create_private(data)?;
    let lock = lock(data)?;
    build(data, Access::Write, clock, Some(lock)).await
}

/// The same over a data folder that nobody serves, to look at it: nothing of a sale changes.
pub async fn inspect(data: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Deployment> {
    build(data, Access::Read, clock, None).await
}

async fn build(data: &Path, access: Access, clock: Arc<dyn Clock>, lock: Option<File>) -> anyhow::Result<Deployment> {
    let path = data.join(DATABASE);
    let store = Store::open(&path, access)?;
    let ledger = Arc::new(SqliteLedger::new(store.clone(), clock.clone()));
    let mut fresh = [0; 32];
    fresh.as_chunks_mut::<8>().0.iter_mut().for_each(|chunk| *chunk = clock.chance().to_le_bytes());
    let mint = Mint::new(ledger.secret(fresh).await?);
    let queue = Arc::new(SqliteQueue::new(store, clock.clone()));
    let gate = Arc::new(MemoryGate::new(clock.clone()));
    let layers = vec![
        ("gate", "in this process".to_owned()),
        ("queue", format!("SQLite, {}", path.display())),
        ("ledger", format!("SQLite, {}", path.display())),
    ];
    Ok(Deployment { shop: Arc::new(Shop::new(gate, queue, ledger, clock, mint)), layers, _lock: lock })
}

impl Deployment {
    /// Settles, follows, sweeps and lapses until the future is dropped.
    pub async fn run(&self) {
        join(settlement::run(&self.shop), reconcile::run(&self.shop)).await;
    }

    /// Waits until everything accepted is settled, while [`Deployment::run`] goes on; false if that takes too long. What
    /// is left is settled at the next start.
    pub async fn drain(&self) -> bool {
        let clock = &self.shop.clock;
        let deadline = clock.monotonic() + DRAIN_TIME_MAX;
        while clock.monotonic() < deadline {
            match self.shop.queue.depth().await {
                Ok(depth) if depth.waiting == 0 => return true,
                Ok(_) => clock.sleep(Duration::from_millis(5)).await,
                Err(_) => return false,
            }
        }
        false
    }
}

/// Creates the data folder so that only its owner can look into it.
fn create_private(data: &Path) -> anyhow::Result<()> {
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
