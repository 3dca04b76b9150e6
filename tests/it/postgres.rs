//! The PostgreSQL ledger beyond its contract: what it refuses, what it survives, and several processes at once.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use sluice::clock::{Clock, RealClock};
use sluice::ledger::{Books, Creation, EpochStep, Ledger, PostgresLedger, Turn, Turned, Verdict};
use sluice::model::{Claim, Effect, Error, Message, Order, OrderId, OrderState, Time, limits};
use sluice::postgres::{Database, DatabaseClock};
use sluice::remote::Unusable;
use tokio_postgres::NoTls;

use crate::servers::postgres::{Postgres, shared};
use crate::servers::{free_port, program};
use crate::words::{claim, message, order_by, sale, sale_id, units};

/// A part of every server's password.
const CANARY: &str = "canary";

async fn open(url: &str) -> PostgresLedger {
    let database = Database::connect(url).await.unwrap();
    database.migrate().await.unwrap();
    PostgresLedger::new(database, Arc::new(RealClock::new()))
}

async fn with_sale(ledger: &PostgresLedger, stock: u32) {
    let created = ledger.create(&sale("s", &["a"]), &[units(stock)]).await.unwrap();
    assert!(matches!(created, Creation::Created(_)));
}

/// One unit for a customer of its own.
fn one(number: u64) -> Message {
    let order = order_by(&format!("customer {number}"), 0, &[("a", 1)]);
    message(Claim::Order(Arc::new(Order { id: id(number), ..order })), 1)
}

fn id(number: u64) -> OrderId {
    OrderId(u128::from(number).to_be_bytes())
}

async fn wait(millis: u64) {
    RealClock::new().sleep(Duration::from_millis(millis)).await;
}

/// A connection of somebody else's.
async fn somebody(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn exact(ledger: &PostgresLedger) {
    let recount = ledger.recount(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!(recount.findings, []);
}

async fn refusal(url: &str) -> Unusable {
    let refused = Database::connect(url).await.err().unwrap_or_else(|| panic!("connected to {url}"));
    let why = refused.to_string();
    assert!(!why.contains(CANARY) && !why.contains('\n') && why.len() < 400, "{why}");
    refused
}

fn wrong(refused: Unusable, words: &[&str]) {
    let Unusable::Wrong(why) = refused else { panic!("another try would not help: {refused}") };
    assert!(words.iter().all(|word| why.contains(word)), "{why}");
}

fn not_yet(refused: Unusable, words: &[&str]) {
    let Unusable::NotYet(why) = refused else { panic!("it may come: {refused}") };
    assert!(words.iter().all(|word| why.contains(word)), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_migrate_at_the_same_time() {
    let url = shared().database();
    let databases = join_all((0..8).map(|_| Database::connect(&url))).await;
    let databases: Vec<Database> = databases.into_iter().map(Result::unwrap).collect();
    let migrated = join_all(databases.iter().map(Database::migrate)).await;
    migrated.into_iter().for_each(Result::unwrap);
    join_all(databases.iter().map(Database::check_schema)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(shared().psql(name(&url), "select count(*) from refinery_schema_history"), "1");
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn who_is_not_let_in_hears_why() {
    let url = shared().database();
    wrong(refusal(&url.replace("canary", "canarium")).await, &["127.0.0.1", "does not let us in", "password"]);
    wrong(refusal(&url.replace("//sluice", "//nobody")).await, &["does not let us in"]);
    wrong(refusal(&shared().url("nowhere")).await, &["nowhere", "does not exist", "createdb"]);
    wrong(refusal("postgres://u:canary@").await, &["postgres://USER:PASSWORD@HOST"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come() {
    not_yet(refusal(&format!("postgres://u:canary@127.0.0.1:{}/d", free_port())).await, &["cannot reach", "refused"]);
    not_yet(refusal("postgres://u:canary@no-such-host.invalid/d").await, &["cannot reach", "no-such-host.invalid"]);
}

#[tokio::test]
async fn another_kind_of_server_is_recognised() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 8];
            let _gone = stream.read_exact(&mut request);
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
    });
    wrong(refusal(&format!("postgres://u:canary@127.0.0.1:{port}/d")).await, &["not PostgreSQL", &port.to_string()]);
}

#[tokio::test]
async fn a_database_that_may_forget_is_refused() {
    let url = shared().database();
    shared().psql("postgres", &format!("alter database {} set synchronous_commit = off", name(&url)));
    wrong(refusal(&url).await, &["synchronous_commit = off", "may forget"]);
    for setting in ["fsync", "full_page_writes"] {
        let careless = Postgres::start(&[&format!("{setting}=off")]);
        wrong(refusal(&careless.url("postgres")).await, &[setting, "may forget", "postgresql.conf"]);
    }
}

#[tokio::test]
async fn an_older_schema_is_left_alone() {
    let url = shared().database();
    let database = Database::connect(&url).await.unwrap();
    wrong(database.check_schema().await.unwrap_err(), &["schema version 0", "Run `sluice migrate`"]);
    let tables = shared().psql(name(&url), "select count(*) from pg_tables where schemaname = 'public'");
    assert_eq!(tables, "0");
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let url = shared().database();
    let database = Database::connect(&url).await.unwrap();
    database.migrate().await.unwrap();
    let sql = "insert into refinery_schema_history (version, name, applied_on, checksum) \
               values (999, 'later', '2030-01-01T00:00:00Z', '1')";
    shared().psql(name(&url), sql);
    for refused in [database.check_schema().await, database.migrate().await] {
        wrong(refused.unwrap_err(), &["schema version 999", "Nothing was changed", "newer Sluice"]);
    }
}

#[tokio::test]
async fn tls_is_used_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("server.key"), folder.path().join("server.crt"));
    let mut openssl = Command::new(program("openssl", "openssl", &[]));
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:false"]);
    let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Postgres::start_with_tls(&key, &certificate);
    let url = server.url("postgres").replace("127.0.0.1", "localhost");
    wrong(refusal(&format!("{url}?sslmode=require")).await, &["TLS", "sslrootcert=FILE"]);
    let trusted = format!("{url}?sslmode=verify-full&sslrootcert={}", certificate.display());
    let connected = Database::connect(&trusted).await.unwrap();
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
                     where application_name = 'sluice'";
    assert_eq!(server.psql("postgres", encrypted), "t");
    drop(connected);
    wrong(refusal(&trusted.replace("localhost", "127.0.0.1")).await, &["TLS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_that_comes_back_is_found_again() {
    let mut server = Postgres::start(&[]);
    let ledger = open(&server.database()).await;
    with_sale(&ledger, 1_000).await;
    ledger.settle(&[one(1), one(2), one(3)]).await.unwrap();
    // Every connection is in use once, so that each is stale after the kill.
    let all = async |ledger: &PostgresLedger, number: u64| {
        let (s, messages) = (sale_id("s"), [one(number)]);
        let (read, turned, settled, recounts, lapses) = tokio::join!(
            join_all((0..10).map(|_| ledger.sale(&s))),
            ledger.turn(id(number - 1), Turn::Confirm),
            ledger.settle(&messages),
            join_all((0..4).map(|_| ledger.recount(&s))),
            ledger.lapse(10),
        );
        let reads: Vec<bool> = read.iter().map(Result::is_ok).chain(recounts.iter().map(Result::is_ok)).collect();
        (reads, turned.is_ok(), settled.is_ok(), lapses.is_ok())
    };
    assert_eq!(all(&ledger, 4).await, (vec![true; 14], true, true, true));
    server.kill();
    let gone = ledger.settle(&[one(5)]).await.unwrap_err();
    assert!(matches!(gone, Error::Unavailable { effect: Effect::None, .. }), "{gone}");
    assert!(!gone.to_string().contains(CANARY), "{gone}");
    assert!(matches!(ledger.order(id(1)).await, Err(Error::Unavailable { .. })));
    server.start_again();
    assert_eq!(all(&ledger, 5).await, (vec![true; 14], true, true, true), "not one error after it came back");
    exact(&ledger).await;
    assert_eq!(ledger.order(id(5)).await.unwrap().unwrap().state, OrderState::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_was_cut_is_no_error() {
    let url = shared().database();
    let ledger = open(&url).await;
    with_sale(&ledger, 100).await;
    for number in 0..10 {
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() \
                   and datname = current_database()";
        shared().psql(name(&url), cut);
        let (s, messages) = (sale_id("s"), [one(number)]);
        let (settled, read) = tokio::join!(ledger.settle(&messages), ledger.sale(&s));
        assert_eq!(settled.unwrap().verdicts, [Verdict::Settled]);
        read.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_too_long_is_waited_for_again() {
    let url = shared().database();
    let ledger = open(&url).await;
    with_sale(&ledger, 10).await;
    let somebody = somebody(&url).await;
    somebody.batch_execute("begin; select from sales for update").await.unwrap();
    let release = async {
        wait(2_500).await;
        somebody.batch_execute("commit").await.unwrap();
    };
    let messages = [one(1)];
    let (settled, ()) = tokio::join!(ledger.settle(&messages), release);
    assert_eq!(settled.unwrap().verdicts, [Verdict::Settled]);
    exact(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again() {
    let url = shared().database();
    let ledger = open(&url).await;
    with_sale(&ledger, 10).await;
    let somebody = somebody(&url).await;
    somebody.batch_execute("begin; select from items for update").await.unwrap();
    let provoke = async {
        wait(300).await;
        somebody.batch_execute("select from sales for update").await.unwrap();
        somebody.batch_execute("commit").await.unwrap();
    };
    let messages = [one(1)];
    let (settled, ()) = tokio::join!(ledger.settle(&messages), provoke);
    assert_eq!(settled.unwrap().verdicts, [Verdict::Settled]);
    let deadlocks = format!("select deadlocks from pg_stat_database where datname = '{}'", name(&url));
    crate::support::eventually("the deadlock is counted", async || shared().psql("postgres", &deadlocks) == "1").await;
    exact(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ledgers_that_settle_one_batch_decide_once() {
    let url = shared().database();
    let (one_ledger, other) = tokio::join!(open(&url), open(&url));
    with_sale(&one_ledger, 150).await;
    one_ledger.create(&sale("t", &["a"]), &[units(1_000)]).await.unwrap();
    for round in 0..20_u64 {
        let batch: Vec<Message> = (0..20).map(|number| both_sales(round * 20 + number)).collect();
        let mut reversed = batch.clone();
        reversed.reverse();
        let (first, second) = tokio::join!(one_ledger.settle(&batch), other.settle(&reversed));
        let (first, second) = (first.unwrap().verdicts, second.unwrap().verdicts);
        for (number, (first, second)) in first.iter().zip(second.iter().rev()).enumerate() {
            let known = [first, second].into_iter().filter(|verdict| **verdict == Verdict::Known).count();
            assert_eq!(known, 1, "round {round}, claim {number}: {first:?} and {second:?}");
        }
    }
    let record = one_ledger.sale(&sale_id("s")).await.unwrap().unwrap();
    assert_eq!((record.places[0].available, record.places[0].held), (units(0), units(150)));
    for sale in ["s", "t"] {
        let recount = other.recount(&sale_id(sale)).await.unwrap().unwrap();
        let broken = recount.findings.iter().filter(|found| !found.detail.contains("refused"));
        assert_eq!(broken.count(), 0, "{:?}", recount.findings);
    }
}

/// Every other claim is in the sale `t`.
fn both_sales(number: u64) -> Message {
    let name = if number.is_multiple_of(2) { "s" } else { "t" };
    let order = order_by(&format!("customer {number}"), 0, &[("a", 1)]);
    message(claim(Order { id: id(number), sale: sale_id(name), ..order }), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_come_together_are_answered_one_by_one() {
    let url = shared().database();
    let ledger = open(&url).await;
    with_sale(&ledger, 300).await;
    let batch: Vec<Message> = (0..300).map(one).collect();
    ledger.settle(&batch).await.unwrap();
    // One order is damaged; its neighbours do not notice.
    shared().psql(name(&url), "update orders set customer = '' where settled_seq = 102");
    let confirm = join_all((0..300).map(|number| ledger.turn(id(number), Turn::Confirm)));
    let cancel = join_all((0..300).map(|number| ledger.turn(id(number), Turn::Cancel)));
    let find = join_all((0..300).map(|number| ledger.order(id(number))));
    let (confirmed, cancelled, found) = tokio::join!(confirm, cancel, find);
    for (number, answers) in confirmed.into_iter().zip(cancelled).zip(found).enumerate() {
        match answers {
            ((Err(Error::Damaged(..)), Err(Error::Damaged(..))), Err(Error::Damaged(..))) => assert_eq!(number, 100),
            ((Ok(Turned::Done(record, moves)), Ok(Turned::WrongState(_))), Ok(Some(_)))
            | ((Ok(Turned::WrongState(_)), Ok(Turned::Done(record, moves))), Ok(Some(_))) => {
                assert_eq!((moves.moves.len(), Some(moves.moves[0].seq)), (1, record.seq));
                assert_eq!(moves.moves[0].claim, Some(id(u64::try_from(number).unwrap())));
            }
            other => panic!("order {number}: {other:?}"),
        }
    }
    shared().psql(name(&url), "update orders set customer = 'customer 100' where settled_seq = 102");
    exact(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_is_turned_once_by_whoever_comes_first() {
    let url = shared().database();
    let (one_ledger, other) = tokio::join!(open(&url), open(&url));
    with_sale(&one_ledger, 100).await;
    let batch: Vec<Message> = (0..100).map(one).collect();
    one_ledger.settle(&batch).await.unwrap();
    let asked = (0..100).flat_map(|number| [(&one_ledger, number, Turn::Confirm), (&other, number, Turn::Cancel)]);
    let answers = join_all(asked.map(|(ledger, number, turn)| ledger.turn(id(number), turn))).await;
    for pair in answers.chunks(2) {
        let done = pair.iter().filter(|answer| matches!(answer, Ok(Turned::Done(..)))).count();
        let late = pair.iter().filter(|answer| matches!(answer, Ok(Turned::WrongState(_)))).count();
        assert_eq!((done, late), (1, 1), "{pair:?}");
    }
    exact(&one_ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_lapse_once_while_orders_are_settled_and_turned() {
    let url = shared().database();
    let (one_ledger, other) = tokio::join!(open(&url), open(&url));
    let short = sluice::model::Sale { hold_seconds: 1, per_customer_limit: Some(units(1)), ..sale("s", &["a"]) };
    one_ledger.create(&short, &[units(2_000)]).await.unwrap();
    let until = RealClock::new();
    let settle = async {
        for round in 0..20 {
            let batch: Vec<Message> = (0..50).map(|number| one(round * 50 + number)).collect();
            one_ledger.settle(&batch).await.unwrap();
            wait(50).await;
        }
    };
    let turn = join_all((0..1_000).step_by(3).map(|number| {
        let ledger = &other;
        async move {
            wait(number * 2).await;
            ledger.turn(id(number), Turn::Confirm).await.unwrap()
        }
    }));
    let lapse = async |ledger: &PostgresLedger| {
        let mut lapsed = 0;
        while until.monotonic() < Duration::from_secs(4) {
            lapsed += ledger.lapse(100).await.unwrap().lags_ms.len();
            wait(10).await;
        }
        lapsed
    };
    let ((), turned, first, second) = tokio::join!(settle, turn, lapse(&one_ledger), lapse(&other));
    let sold = turned.iter().filter(|turned| matches!(turned, Turned::Done(..))).count();
    assert_eq!(sold + first + second, 1_000, "{sold} sold, {first} and {second} lapsed");
    assert!(first + second >= 600, "{first} and {second} lapsed");
    exact(&one_ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_no_transaction_open() {
    let url = shared().database();
    let (ledger, other) = tokio::join!(open(&url), open(&url));
    with_sale(&ledger, 10_000).await;
    let clock = RealClock::new();
    for number in 0..60 {
        let batch: Vec<Message> = (number * 100..number * 100 + 100).map(one).collect();
        let micros = 100 * number;
        let _cut_off = tokio::time::timeout(Duration::from_micros(micros), ledger.settle(&batch)).await;
        let started = clock.monotonic();
        let settled = other.settle(&batch).await.unwrap().verdicts;
        let took = clock.monotonic() - started;
        assert!(took < limits::LEDGER_LOCK_TIME_MAX, "somebody held the sale's row for {took:?}");
        assert!(settled.iter().all(|verdict| *verdict == settled[0]), "wholly or not at all: {settled:?}");
    }
    exact(&ledger).await;
}

/// Settles while its connection is cut at any moment: what is said about the effect is true.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_without_effect_left_nothing() {
    let url = shared().database();
    let ledger = open(&url).await;
    with_sale(&ledger, 1_000_000).await;
    let somebody = somebody(&url).await;
    let (mut in_doubt, mut committed) = (0, 0);
    for round in 0..150_u64 {
        let batch: Vec<Message> = (round * 200..round * 200 + 200).map(one).collect();
        let cut = async {
            tokio::time::timeout(Duration::from_micros(200 * (round % 50)), std::future::pending::<()>()).await.ok();
            let sql = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() \
                       and datname = current_database()";
            somebody.execute(sql, &[]).await.unwrap();
        };
        let (settled, ()) = tokio::join!(ledger.settle(&batch), cut);
        let there = ledger.order(id(round * 200)).await.unwrap().is_some();
        match settled {
            Ok(_) => assert!(there),
            Err(Error::Unavailable { effect: Effect::None, why, .. }) => assert!(!there, "{why}"),
            Err(Error::Unavailable { effect: Effect::Unknown, .. }) => {
                in_doubt += 1;
                committed += usize::from(there);
            }
            Err(error) => panic!("{error}"),
        }
        let again = ledger.settle(&batch).await.unwrap().verdicts;
        assert!(again.iter().all(|verdict| *verdict == if there { Verdict::Known } else { Verdict::Settled }));
    }
    println!("{in_doubt} in doubt, {committed} of them committed");
    exact(&ledger).await;
}

/// With a synchronous standby that is away, a commit waits; called off, it succeeds with a warning and is not safe.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_may_not_be_on_the_standby_is_in_doubt() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let ledger = open(&url).await;
    with_sale(&ledger, 10).await;
    server.psql(name(&url), "alter system set synchronous_standby_names = 'nobody'");
    server.psql(name(&url), "select pg_reload_conf()");
    let call_off = async {
        let waiting = "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
        crate::support::eventually("a commit waits", async || server.psql("postgres", waiting) == "1").await;
    };
    let messages = [one(1)];
    let (settled, ()) = tokio::join!(ledger.settle(&messages), call_off);
    assert!(matches!(settled, Err(Error::Unavailable { effect: Effect::Unknown, .. })), "{settled:?}");
    server.psql(name(&url), "alter system reset synchronous_standby_names");
    server.psql(name(&url), "select pg_reload_conf()");
    assert_eq!(ledger.settle(&[one(1)]).await.unwrap().verdicts, [Verdict::Known]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_hold_keeps_no_other_from_lapsing() {
    let url = shared().database();
    let ledger = open(&url).await;
    let short = sluice::model::Sale { hold_seconds: 1, ..sale("s", &["a"]) };
    ledger.create(&short, &[units(10)]).await.unwrap();
    ledger.settle(&[one(1), one(2), one(3)]).await.unwrap();
    shared().psql(name(&url), "update orders set customer = '' where settled_seq = 3");
    wait(1_100).await;
    assert_eq!(ledger.lapse(10).await.unwrap().lags_ms.len(), 2);
    assert!(matches!(ledger.lapse(10).await, Err(Error::Damaged(..))));
    shared().psql(name(&url), "update orders set customer = 'customer 2' where settled_seq = 3");
    assert_eq!(ledger.lapse(10).await.unwrap().lags_ms.len(), 1);
    exact(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_what_cannot_be() {
    let url = shared().database();
    let ledger = open(&url).await;
    with_sale(&ledger, 10).await;
    let somebody = somebody(&url).await;
    for sql in [
        "update items set available = available - 1",
        "update items set held = -1, available = available + 1",
        "update moves set units = -1",
        "update sales set stage = 'ajar'",
    ] {
        let refused = somebody.execute(sql, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "23514", "{sql}");
    }
    // What was changed past the constraints shows, and is parked rather than tried for ever.
    somebody
        .batch_execute("alter table items drop constraint items_check; update items set available = 99")
        .await
        .unwrap();
    let recount = ledger.recount(&sale_id("s")).await.unwrap().unwrap();
    assert!(!recount.findings.is_empty());
    somebody.batch_execute("update items set stock = -1").await.unwrap_err();
    somebody.batch_execute("update sales set phase = 'armed', hash = decode(repeat('00', 32), 'hex')").await.unwrap();
    somebody
        .batch_execute("alter table sales drop constraint sales_stage_check; update sales set stage = 'ajar'")
        .await
        .unwrap();
    assert!(matches!(ledger.settle(&[one(1)]).await, Err(Error::Damaged(..))));
}

/// A machine whose time of day is an hour wrong and whose monotonic time may jump.
struct WrongClock {
    real: RealClock,
    jumped_millis: AtomicU64,
}

#[async_trait]
impl Clock for WrongClock {
    fn now(&self) -> Time {
        self.real.now().after(Duration::from_secs(3_600))
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic() + Duration::from_millis(self.jumped_millis.load(Ordering::SeqCst))
    }

    async fn sleep(&self, time: Duration) {
        self.real.sleep(time).await;
    }

    fn chance(&self) -> u64 {
        self.real.chance()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_clock_counts_and_the_machines_does_not() {
    let url = shared().database();
    let database = Database::connect(&url).await.unwrap();
    let machine = Arc::new(WrongClock { real: RealClock::new(), jumped_millis: AtomicU64::new(0) });
    let clock = DatabaseClock::new(machine.clone());
    clock.follow(&database).await.unwrap();
    let somebody = somebody(&url).await;
    let off_by = async || {
        let sql = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
        let before = clock.now();
        let there = Time::from_millis(somebody.query_one(sql, &[]).await.unwrap().get(0));
        let after = clock.now();
        before.since(there).max(there.since(after))
    };
    let near = Duration::from_millis(20);
    assert!(off_by().await <= near, "{:?}", off_by().await);
    machine.jumped_millis.store(60_000, Ordering::SeqCst);
    assert!(off_by().await > Duration::from_secs(50));
    let followed = crate::support::eventually("it follows the database's clock", async || off_by().await <= near);
    tokio::select! { () = clock.run() => unreachable!(), () = followed => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_made_once() {
    let url = shared().database();
    let (one_ledger, other) = tokio::join!(open(&url), open(&url));
    let (first, second) = tokio::join!(one_ledger.secret([1; 32]), other.secret([2; 32]));
    assert_eq!(first.unwrap(), second.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_created_once_and_its_epochs_differ() {
    let url = shared().database();
    let (one_ledger, other) = tokio::join!(open(&url), open(&url));
    let (sale, stock) = (sale("s", &["a", "b"]), [units(5), units(6)]);
    let created = join_all((0..10).map(|number| {
        let ledger = if number % 2 == 0 { &one_ledger } else { &other };
        ledger.create(&sale, &stock)
    }))
    .await;
    let new = created.iter().filter(|created| matches!(created, Ok(Creation::Created(_)))).count();
    let old = created.iter().filter(|created| matches!(created, Ok(Creation::Exists(_)))).count();
    assert_eq!((new, old), (1, 9), "{created:?}");
    let here = sale_id("s");
    let raised = join_all((0..20).map(|number| {
        let ledger = if number % 2 == 0 { &one_ledger } else { &other };
        ledger.step_epoch(&here, EpochStep::Raise)
    }))
    .await;
    let mut epochs: Vec<u64> = raised.into_iter().map(|state| state.unwrap().unwrap().epoch.0).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=20).collect::<Vec<_>>());
    exact(&one_ledger).await;
}
