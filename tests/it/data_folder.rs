//! A data folder that cannot be served is refused at start, with what to do, and is left as it is.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use sluice::clock::RealClock;
use sluice::deployment::{embedded, inspect};
use sluice::model::Error;
use sluice::sqlite::{Access, Failure, OpenError, Store, Tables};

use crate::support::{create, eventually, sale, start};

async fn refusal(data: &Path) -> String {
    match embedded(data, Arc::new(RealClock::new())).await {
        Ok(_) => panic!("it was served"),
        Err(error) => format!("{error:#}"),
    }
}

/// A folder with a small sale in it, that nobody serves any more.
fn used_folder() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let running = start(data.path()).await;
        let deployment = &running.deployment;
        create(&deployment.shop, &sale("drop"), 10).await;
        for number in 0..2_000 {
            let order = crate::support::order(&deployment.shop, &sale("drop"), &format!("c-{number}"));
            sluice::checkout::place(&deployment.shop, order).await.unwrap();
        }
        deployment.drain().await;
    });
    drop(runtime);
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_do_not_share_a_folder() {
    let data = tempfile::tempdir().unwrap();
    let _first = start(data.path()).await;
    let why = refusal(data.path()).await;
    assert!(why.contains("served by another process") && why.contains("--data"), "{why}");
}

#[test]
fn a_damaged_database_is_refused_and_left_alone() {
    let data = used_folder();
    let path = data.path().join("ledger.db");
    // Opening and closing it folds the write-ahead log into the file.
    drop(Connection::open(&path).unwrap().execute_batch("pragma wal_checkpoint(truncate)"));
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(2) {
        page[..64].fill(0x5a);
    }
    fs::write(&path, &bytes).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let why = runtime.block_on(refusal(data.path()));
    assert!(why.contains("damaged") && why.contains("backup"), "{why}");
    assert!(fs::read(&path).unwrap() == bytes, "the damaged file was changed");
}

/// The start does not wait for the check of a large file. Here a table takes the check milliseconds a row, as one of
/// gigabytes would, and its last row is the damaged one.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_large_file_ends_the_service_once_it_is_found() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("ledger.db");
    drop(Store::open(&path, Tables::Ledger, Access::Write).unwrap());
    let table = "create table large (n integer primary key, \
                                     check (n < 400 and instr(hex(zeroblob(1000000 + n)), 'x') = 0)); \
                 pragma ignore_check_constraints = on; \
                 insert into large with recursive r (n) as (select 1 union all select n + 1 from r where n < 400) \
                 select n from r; pragma wal_checkpoint(truncate)";
    Connection::open(&path).unwrap().execute_batch(table).unwrap();
    let store = Store::open(&path, Tables::Ledger, Access::Write).unwrap();
    store.read("ledger", |_| Ok(())).await.unwrap();
    eventually("the damage is found", || async {
        let read = store.read("ledger", |_| Ok(())).await;
        let write = store.write("ledger", |_| Ok(())).await;
        [read, write].iter().all(|result| matches!(result, Err(Error::Damaged("ledger", _))))
    })
    .await;
    let Err(OpenError::Damaged { .. }) = Store::open(&path, Tables::Ledger, Access::Read) else {
        panic!("whoever only looks at a damaged file waits for the check")
    };
}

/// Alone in its transaction, or between others.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_leaves_nothing_and_takes_nobody_with_it() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(&data.path().join("ledger.db"), Tables::Ledger, Access::Write).unwrap();
    let insert = |connection: &Connection, name: &str| {
        connection.execute("insert into secrets (name, value) values (?1, x'00')", [name])?;
        Ok::<_, Failure>(())
    };
    let fail = move |name: &'static str, how: fn() -> Failure| {
        move |connection: &Connection| insert(connection, name).and_then(|()| Err::<(), _>(how()))
    };
    let refused = || Failure::Nonsense("refused".into());
    for how in [refused, || panic!("a job that panics")] {
        let alone = store.write("ledger", fail("failed", how)).await;
        assert!(matches!(alone, Err(Error::Damaged("ledger", _))), "{alone:?}");

        // While the writer is busy, three come to wait.
        let (release, held) = std::sync::mpsc::channel::<()>();
        store.submit("ledger", move |_| Ok(held.recv().is_ok()), drop).await.unwrap();
        let before = store.write("ledger", move |connection| insert(connection, "before"));
        let amid = store.write("ledger", fail("failed", how));
        let after = store.write("ledger", move |connection| insert(connection, "after"));
        let all = async { tokio::join!(before, amid, after) };
        let (all, ()) = tokio::join!(all, async { release.send(()).unwrap() });
        assert!(matches!(all, (Ok(()), Err(Error::Damaged("ledger", _)), Ok(()))), "{all:?}");

        let names = |connection: &Connection| {
            let sql = "delete from secrets returning name";
            let names: Result<Vec<String>, _> = connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect();
            Ok(names?)
        };
        assert_eq!(store.write("ledger", names).await.unwrap(), ["after", "before"]);
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("ledger.db"), vec![b'x'; 8192]).unwrap();
    let why = refusal(data.path()).await;
    assert!(why.contains("damaged"), "{why}");
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("ledger.db");
    drop(Store::open(&path, Tables::Ledger, Access::Write).unwrap());
    let sql = "insert into refinery_schema_history (version, name, applied_on, checksum) values (999, 'later', '', '')";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let why = refusal(data.path()).await;
    assert!(why.contains("schema version 999") && why.contains("newer Sluice"), "{why}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let why = refusal(&file.join("data")).await;
    assert!(why.contains("cannot create the data folder") && why.contains("--data"), "{why}");
}

#[tokio::test]
async fn looking_at_a_folder_that_was_never_served_says_so() {
    let data = tempfile::tempdir().unwrap();
    let Err(error) = inspect(data.path(), Arc::new(RealClock::new())).await else { panic!() };
    assert!(error.to_string().contains("does not exist"), "{error:#}");
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "nothing is made by looking");
}

#[tokio::test]
async fn a_lost_queue_is_named() {
    let data = tempfile::tempdir().unwrap();
    drop(embedded(data.path(), Arc::new(RealClock::new())).await.unwrap());
    fs::remove_file(data.path().join("queue.db")).unwrap();
    let Err(error) = inspect(data.path(), Arc::new(RealClock::new())).await else { panic!() };
    let why = error.to_string();
    assert!(why.contains("queue.db does not exist") && why.contains("backup") && !why.contains("never"), "{why}");
}

#[tokio::test]
async fn only_its_owner_reads_a_database_whatever_the_folder_allows() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().unwrap();
    let modes = |wide: bool| {
        let databases = fs::read_dir(data.path()).unwrap().map(|file| file.unwrap().path());
        let databases = databases.filter(|path| path.to_string_lossy().contains(".db")).collect::<Vec<_>>();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let all: Vec<u32> = databases.iter().map(|path| mode(path)).collect();
        if wide {
            databases.iter().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap());
        }
        all
    };
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        let deployment = embedded(data.path(), Arc::new(RealClock::new())).await.unwrap();
        let modes = modes(true);
        assert!(modes.len() >= 6 && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
        drop(deployment);
    }
}
