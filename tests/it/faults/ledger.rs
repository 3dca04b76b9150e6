//! Faults of the ledger's server and of the ways to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Scene, Struck, UNITS, Who, cuts, lasts, units_for};
use crate::servers::frames::{Kind, Side};
use crate::servers::postgres::own;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_killed_and_starts_again() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().postgres.kill();
    lasts(Duration::from_secs(1)).await;
    scene.servers().postgres.start_again();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_stopped_by_its_operator_and_starts_again() {
    let mut scene = Scene::begin(UNITS).await;
    scene.servers().postgres.stop_fast();
    lasts(Duration::from_secs(1)).await;
    scene.servers().postgres.start_again();
    scene.all_is_well().await;
}

/// PostgreSQL then drops every session, because its shared memory may be damaged.
#[tokio::test(flavor = "multi_thread")]
async fn one_session_of_postgresql_is_killed() {
    let scene = Scene::begin(UNITS).await;
    let trio = &scene.site().cluster.trio;
    let sessions = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let all: Vec<String> = trio.psql(sessions).lines().map(str::to_owned).collect();
    assert!(all.len() > 4, "{all:?}");
    assert!(Command::new("kill").args(["-KILL", &all[0]]).status().unwrap().success());
    let gone = |pid: &String| !Path::new(&format!("/proc/{pid}/fd/0")).exists();
    eventually("every session is gone", async || all.iter().all(gone)).await;
    let answers = || trio.postgres.by_hand(trio.database_name(), "select 1").output().unwrap().status.success();
    eventually("PostgreSQL has recovered", async || answers()).await;
    scene.all_is_well().await;
}

/// It is committed, and the worker does not know.
#[tokio::test(flavor = "multi_thread")]
async fn the_word_that_a_settlement_is_committed_is_lost() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.workers.postgres, (Side::Server, Kind::Commit), cuts()).await;
    scene.all_is_well().await;
}

/// It is not committed, and the worker does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_is_cut_off_before_its_commit_arrives() {
    let scene = Scene::begin(units_for(cuts())).await;
    scene.strikes(|site| &site.workers.postgres, (Side::Client, Kind::Commit), cuts()).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_postgresql_carry_nothing_one_way() {
    let scene = Scene::begin(3 * UNITS).await;
    scene
        .nothing_arrives_one_way(
            |links| &links.postgres,
            |who, _| if who == Who::Workers { Struck::Settling } else { Struck::PerhapsNothing },
        )
        .await;
    scene.all_is_well().await;
}

/// Somebody's statements by hand, in one transaction.
fn by_hand(scene: &Scene, sql: &str) -> Child {
    let trio = &scene.site().cluster.trio;
    let mut psql = trio.postgres.by_hand(trio.database_name(), &format!("begin; {sql}; rollback"));
    psql.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Longer than a statement waits for a lock: the settlement fails, and is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_keeps_the_rows_of_the_sale_locked() {
    let scene = Scene::begin(UNITS).await;
    let sale = &scene.sale;
    let mut locker =
        by_hand(&scene, &format!("select * from sales where id = '{sale}' for update; select pg_sleep(3)"));
    let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    eventually("somebody waits for it", async || scene.site().cluster.trio.psql(waits) != "0").await;
    assert!(locker.wait().unwrap().success());
    scene.all_is_well().await;
}

/// The worker has the sale and wants its items; somebody has the items and wants the sale. PostgreSQL ends the one that has
/// waited for a second first, which is the worker's.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_dies_in_a_deadlock() {
    let scene = Scene::begin(UNITS).await;
    let sale = &scene.sale;
    let deadlocks = || -> u64 {
        let sql = "select deadlocks from pg_stat_database where datname = current_database()";
        scene.site().cluster.trio.psql(sql).parse().unwrap()
    };
    let before = deadlocks();
    let items = format!("select * from items where sale = '{sale}' for update");
    let wanted = format!("select * from sales where id = '{sale}' for update");
    let other = by_hand(&scene, &format!("{items}; select pg_sleep(0.5); {wanted}"));
    let told = other.wait_with_output().unwrap();
    assert!(told.status.success(), "the wrong one died: {}", String::from_utf8_lossy(&told.stderr));
    eventually("there was a deadlock", async || deadlocks() > before).await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_postgresql_takes_fifty_milliseconds() {
    let scene = Scene::begin(UNITS).await;
    let ways = [&scene.site().apis.postgres, &scene.site().workers.postgres];
    ways.iter().for_each(|way| way.delay(Duration::from_millis(50)));
    scene.crowd.accepts(600).await;
    // It is slow, and nothing else.
    assert_eq!((scene.crowd.not_now(), scene.crowd.unanswered()), (0, 0));
    ways.iter().for_each(|way| way.heal());
    ways.iter().for_each(|way| way.throttle(200_000));
    scene.crowd.accepts(600).await;
    ways.iter().for_each(|way| way.heal());
    scene.all_is_well().await;
}

/// A small file system in memory, where this process may make one; unmounted in the end.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path, bytes: u64) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(folder).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        mounted.then(|| {
            own(folder);
            Self(folder)
        })
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _in_use = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Orders lie on a disk of their own, which somebody fills up. Who may not mount one gets the same error from a trigger.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_ledger_is_full() {
    let scene = Scene::begin(UNITS).await;
    let trio = &scene.site().cluster.trio;
    let folder = trio.postgres.folder().join("small");
    // There is room for what earlier scenes left, and for a little more.
    let there: u64 = trio.psql("select pg_table_size('orders')").parse().unwrap();
    let disk = SmallDisk::mount(&folder, there + (8 << 20));
    if disk.is_some() {
        trio.psql(&format!("create tablespace small location '{}'", folder.display()));
        trio.psql("set lock_timeout = '5s'; alter table orders set tablespace small");
        let filler = folder.join("filler");
        // It takes everything that is left, and the next page that a table needs is not there.
        assert!(fs::write(&filler, vec![0; 16 << 20]).is_err(), "the disk is not small");
        fs::set_permissions(&filler, PermissionsExt::from_mode(0o600)).unwrap();
    } else {
        println!("no file system can be mounted here: a trigger says that the disk is full");
        trio.psql(
            "create function full() returns trigger language plpgsql as $$ begin \
             raise exception 'disk full' using errcode = 'disk_full'; end $$; \
             create trigger full before insert on orders execute function full()",
        );
    }
    let said = || scene.site().cluster.workers.iter().map(|worker| worker.said()).collect::<String>();
    eventually("settling fails for want of room", async || said().contains("settlement failed")).await;
    // The last page may have room for a small batch; then there is none, and what is accepted waits.
    scene.accepted_orders_wait().await;
    if disk.is_some() {
        fs::remove_file(folder.join("filler")).unwrap();
        trio.psql("set lock_timeout = '5s'; alter table orders set tablespace pg_default");
        trio.psql("drop tablespace small");
    } else {
        trio.psql("drop trigger full on orders; drop function full");
    }
    drop(disk);
    fs::remove_dir(&folder).unwrap();
    scene.all_is_well().await;
}
