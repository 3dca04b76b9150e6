//! A SQLite file: one writer that commits in batches, and readers beside it. The embedded ledger and the embedded queue
//! have one each.
//!
//! Whatever waits for the writer is committed together, with one fsync (WAL, `synchronous = full`); an answer is given
//! only after the commit. Each job has a savepoint of its own, so that one that fails takes nothing with it.

#[cfg(unix)]
use std::fs::{self, File};
#[cfg(unix)]
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::model::{Effect, Error, Result};

mod ledger {
    refinery::embed_migrations!("migrations/sqlite/ledger");
}

mod queue {
    refinery::embed_migrations!("migrations/sqlite/queue");
}

/// Jobs committed together.
const JOBS_MAX: usize = 1_024;
/// Jobs that wait for the writer.
const JOBS_WAITING_MAX: usize = 8_192;
/// Connections that read at the same time.
const READERS_MAX: usize = 4;
/// Pages of the write-ahead log before it is folded into the file: 64 MiB, so that a page which is written again and again
/// is folded once.
const LOG_PAGES_MAX: u32 = 16_384;
/// How long a stop may take to fold it.
const FOLD_TIME_MAX: Duration = Duration::from_millis(500);
/// How long a start waits for the check of a file that is to be served: a million orders take some two seconds.
const CHECK_TIME_MAX: Duration = Duration::from_millis(100);
/// Compiled statements kept per connection.
const STATEMENTS_MAX: usize = 128;

/// Runs inside the writer's transaction; the function it returns is called with the outcome of the commit.
type Job = Box<dyn FnOnce(&Connection, Company) -> Reply + Send>;
type Reply = (bool, Box<dyn FnOnce(Result<()>) + Send>);

/// Which other jobs are in a job's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    None,
    Others,
}

/// An open database; clones share it. The writer ends when the last one is dropped.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    readers: Arc<Readers>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    slots: Semaphore,
    check: Check,
}

/// The check of the whole file, which goes on until it is done or dropped.
struct Check {
    damage: Arc<OnceLock<String>>,
    under_way: InterruptHandle,
}

/// Which tables a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// The ledger's.
    Ledger,
    /// The queue's.
    Queue,
}

/// How a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Created if missing, migrated, written to.
    Write,
    /// Written to; it must be there, with this program's schema.
    WriteAsItIs,
    /// Only looked at; it must be there.
    Read,
}

/// Why a database cannot be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("{0} does not exist. Check --data (SLUICE_DATA)")]
    Missing(PathBuf),
    /// The file is not a whole database.
    #[error(
        "{path} is damaged ({why}). Nothing was changed. Restore the data folder from a backup, or move it away to \
         start empty"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A later version of Sluice wrote it.
    #[error(
        "{path} has schema version {found}, this Sluice knows up to {known}. Nothing was changed. Start the newer \
         Sluice that wrote it"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest version known here.
        known: u32,
    },
    /// An earlier version of Sluice wrote it, and it may not be changed now.
    #[error("{path} has schema version {found}, this Sluice needs {known}. Run `sluice migrate` first")]
    Older {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version needed.
        known: u32,
    },
    /// The operating system or SQLite refused.
    #[error("cannot open {path}: {why}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// Its words.
        why: String,
    },
}

impl Store {
    /// Opens the database and brings it to the current schema.
    pub fn open(path: &Path, tables: Tables, access: Access) -> Result<Self, OpenError> {
        if access != Access::Write && !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        if access != Access::Read {
            make_private(path).map_err(|error| OpenError::Refused { path: path.to_owned(), why: error.to_string() })?;
        }
        let mut connection = Connection::open(path).map_err(|error| refusal(path, &error))?;
        set_up(&connection, tables).map_err(|error| refusal(path, &error))?;
        let time_max = (access != Access::Read).then_some(CHECK_TIME_MAX);
        let check = Check::begin(path, time_max)?;
        migrate(&mut connection, path, tables, access)?;
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
        thread::Builder::new()
            .name(format!("{tables:?} writer").to_lowercase())
            .spawn(move || write(&connection, waiting))
            .map_err(|error| no_thread(path, &error))?;
        let slots = Semaphore::new(READERS_MAX);
        let readers = Readers { path: path.to_owned(), idle: Mutex::default(), slots, check };
        Ok(Self { jobs, readers: Arc::new(readers) })
    }

    /// Runs the job in the writer's next transaction and answers once it is committed. After an error of the commit it
    /// is unknown whether the job took effect.
    pub async fn write<T, F>(&self, layer: &'static str, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(layer, job, move |result| drop(answer.send(result))).await?;
        answered.await.map_err(|_| gone(layer))?
    }

    /// Like [`Store::write`], but comes back as soon as the job is in line; `then` hears how it went.
    pub async fn submit<T, F, A>(&self, layer: &'static str, job: F, then: A) -> Result<()>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
        A: FnOnce(Result<T>) + Send + 'static,
    {
        self.readers.check.passed_so_far(layer)?;
        let job: Job = Box::new(move |connection, company| {
            let result = guarded(connection, company, job).map_err(|failure| failure.named(layer));
            let done = result.is_ok();
            let reply = move |committed: Result<()>| then(result.and_then(|value| committed.map(|()| value)));
            (done, Box::new(reply))
        });
        self.jobs.send(job).await.map_err(|_| gone(layer))
    }

    /// Runs the job on a reader, within one consistent cut.
    pub async fn read<T, F>(&self, layer: &'static str, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.readers.check.passed_so_far(layer)?;
        let readers = self.readers.clone();
        let _slot = self.readers.slots.acquire().await.expect("never closed");
        tokio::task::spawn_blocking(move || readers.run(job).map_err(|failure| failure.named(layer)))
            .await
            .map_err(|error| Error::Damaged(layer, error.to_string()))?
    }

    /// Folds the write-ahead log into the file, so that the file alone is the whole database. If somebody reads or writes
    /// meanwhile, or if it takes too long, what is left is folded another time. A check that is under way is given up.
    pub async fn fold(&self) {
        self.readers.check.under_way.interrupt();
        let path = self.readers.path.clone();
        let folded = tokio::task::spawn_blocking(move || fold(&path)).await;
        if let Ok(Err(error)) = folded {
            tracing::debug!(%error, path = %self.readers.path.display(), "the write-ahead log stays as it is");
        }
    }
}

/// A second thread ends it when its time is over.
fn fold(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(FOLD_TIME_MAX)?;
    let (interrupt, (done, is_done)) = (connection.get_interrupt_handle(), sync_channel::<()>(0));
    let watch = thread::Builder::new().name("fold watch".into()).spawn(move || {
        if is_done.recv_timeout(FOLD_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    if watch.is_err() {
        return Ok(());
    }
    let folded = connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
    drop(done);
    folded
}

/// Creates the file so that only its owner can read it, or takes from one that is there what others may do with it. SQLite
/// gives the files beside it the mode of this one when it makes them.
#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.map(drop),
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // Through its name: to close a file that SQLite has open would drop SQLite's locks.
        let Ok(found) = fs::metadata(&file) else { continue };
        let mode = found.permissions().mode();
        if mode & 0o077 != 0
            && let Err(error) = fs::set_permissions(&file, fs::Permissions::from_mode(mode & !0o077))
        {
            tracing::warn!(%error, file = %file.display(), "others on this machine can read this file");
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn gone(layer: &'static str) -> Error {
    Error::Unavailable { layer, why: "its writer has ended".into(), effect: Effect::Unknown }
}

impl Readers {
    fn run<T>(&self, job: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.idle.lock().expect("no holder panics").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.execute_batch("begin deferred")?;
        let result = job(&connection);
        connection.execute_batch("rollback")?;
        self.idle.lock().expect("no holder panics").push(connection);
        result
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = open_to_read(&self.path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(connection)
    }
}

impl Check {
    /// Begins it on a thread of its own, and waits for its end, or for so long. Fails if damage has been found by then.
    fn begin(path: &Path, time_max: Option<Duration>) -> Result<Self, OpenError> {
        let connection = open_to_check(path).map_err(|error| refusal(path, &error))?;
        let check = Self { damage: Arc::default(), under_way: connection.get_interrupt_handle() };
        let (tell, told) = sync_channel(0);
        let (damage, file) = (check.damage.clone(), path.to_owned());
        let work = move || {
            // Whoever waits hears it; whoever does not wait any more finds it.
            if let Err(std::sync::mpsc::SendError(Err(error))) = tell.send(quick_check(&connection, &file)) {
                let OpenError::Damaged { path, why } = error else { return };
                let path = path.display();
                tracing::error!(
                    "{path} is damaged ({why}). Everything is refused from now on: restore a backup of the folder"
                );
                damage.get_or_init(|| why);
            }
        };
        thread::Builder::new().name("check".into()).spawn(work).map_err(|error| no_thread(path, &error))?;
        let found = match time_max {
            Some(time_max) => told.recv_timeout(time_max).unwrap_or(Ok(())),
            None => told.recv().unwrap_or(Ok(())),
        };
        found.map(|()| check)
    }

    /// Fails once damage was found.
    fn passed_so_far(&self, layer: &'static str) -> Result<()> {
        self.damage.get().map_or(Ok(()), |why| Err(Error::Damaged(layer, why.clone())))
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.under_way.interrupt();
    }
}

fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// SQLite leaves the CHECK constraints out of what it looks at where a file was opened read-only.
fn open_to_check(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The transaction had ended before the job began: an earlier job met a full disk, say.
    #[error("the transaction was lost")]
    TransactionLost,
    /// SQLite said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What is stored, or was handed in, cannot be understood.
    #[error("{0}")]
    Nonsense(String),
}

impl Failure {
    /// The same for the layer that asked. A job that failed was rolled back.
    fn named(self, layer: &'static str) -> Error {
        match &self {
            Failure::Nonsense(why) => Error::Damaged(layer, why.clone()),
            Failure::Sqlite(rusqlite::Error::SqliteFailure(code, _)) if damaged(code.code) => {
                Error::Damaged(layer, self.to_string())
            }
            Failure::Sqlite(_) | Failure::TransactionLost => {
                Error::Unavailable { layer, why: self.to_string(), effect: Effect::None }
            }
        }
    }
}

fn damaged(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch
    )
}

/// The writer's thread: takes what waits, commits it, answers.
fn write(connection: &Connection, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(JOBS_MAX);
    while waiting.blocking_recv_many(&mut jobs, JOBS_MAX) > 0 {
        write_batch(connection, &mut jobs);
    }
}

fn write_batch(connection: &Connection, jobs: &mut Vec<Job>) {
    let begun = connection.execute_batch("begin immediate").map_err(|error| error.to_string());
    let mut replies = Vec::with_capacity(jobs.len());
    let mut lost = None;
    let company = if jobs.len() == 1 { Company::None } else { Company::Others };
    for job in jobs.drain(..) {
        let (done, reply) = job(connection, company);
        // A failure such as a full disk may end the whole transaction, and all that came before in it.
        if !done && connection.is_autocommit() {
            lost = Some("an earlier job ended the transaction".to_owned());
        }
        replies.push(reply);
    }
    let committed = begun
        .and_then(|()| lost.map_or(Ok(()), Err))
        .and_then(|()| connection.execute_batch("commit").map_err(|error| error.to_string()));
    if committed.is_err() && !connection.is_autocommit() {
        let _gone = connection.execute_batch("rollback");
    }
    for reply in replies {
        let unavailable =
            |why: &String| Error::Unavailable { layer: "sqlite", why: why.clone(), effect: Effect::Unknown };
        reply(committed.as_ref().copied().map_err(unavailable));
    }
}

/// Runs a job; after a failure or a panic nothing of it is left. A savepoint keeps what others did in the transaction; it
/// costs a copy of every page that is written, so whoever is alone does without.
fn guarded<T>(
    connection: &Connection,
    company: Company,
    job: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if connection.is_autocommit() {
        return Err(Failure::TransactionLost);
    }
    let run = || {
        catch_unwind(AssertUnwindSafe(|| job(connection)))
            .unwrap_or_else(|_| Err(Failure::Nonsense("the job panicked".into())))
    };
    let (result, undo) = match company {
        Company::None => (run(), "rollback"),
        Company::Others => {
            connection.prepare_cached("savepoint job")?.execute([])?;
            (run(), "rollback to job")
        }
    };
    if result.is_err() && !connection.is_autocommit() {
        connection.prepare_cached(undo)?.execute([])?;
    }
    if company == Company::Others && !connection.is_autocommit() {
        connection.prepare_cached("release job")?.execute([])?;
    }
    result
}

fn set_up(connection: &Connection, tables: Tables) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES_MAX)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // In KiB, if negative. Orders are looked for by their ids, which are anywhere; a queue has a front and a back.
    let cache = match tables {
        Tables::Ledger => -16_384,
        Tables::Queue => -2_048,
    };
    connection.pragma_update(None, "cache_size", cache)?;
    connection.pragma_update(None, "temp_store", "memory")
}

fn quick_check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String =
        connection.query_row("pragma quick_check(1)", [], |row| row.get(0)).map_err(|error| refusal(path, &error))?;
    if found == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_owned(), why: found }) }
}

fn migrate(connection: &mut Connection, path: &Path, tables: Tables, access: Access) -> Result<(), OpenError> {
    let path = path.to_owned();
    let runner = match tables {
        Tables::Ledger => ledger::migrations::runner(),
        Tables::Queue => queue::migrations::runner(),
    };
    let known = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    let found: u32 = connection
        .query_row("select coalesce(max(version), 0) from refinery_schema_history", [], |row| row.get(0))
        .unwrap_or(0);
    let known = u32::try_from(known).unwrap_or(u32::MAX);
    if found > known {
        return Err(OpenError::Newer { path, found, known });
    }
    if access != Access::Write && found < known {
        return Err(OpenError::Older { path, found, known });
    }
    if found < known {
        let run = runner.set_grouped(true).run(connection);
        run.map_err(|error| OpenError::Refused { path, why: error.to_string() })?;
    }
    Ok(())
}

fn no_thread(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Refused { path: path.to_owned(), why: error.to_string() }
}

fn refusal(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, why) = (path.to_owned(), error.to_string());
    match error {
        rusqlite::Error::SqliteFailure(code, _) if damaged(code.code) => OpenError::Damaged { path, why },
        _ => OpenError::Refused { path, why },
    }
}
