//! Which servers the gate takes, what it says to the operator of the others, and how it reaches them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sluice::clock::RealClock;
use sluice::gate::{Admission, Gate, RedisGate};
use sluice::ledger::{Books, Ledger};
use sluice::model::{Effect, Epoch, Error, SaleId, Seq};
use sluice::remote::Unusable;

use super::{gate, info, of_sale, one, open, repeat, say, sold_out};
use crate::model_ledger::ModelLedger;
use crate::servers::redis::RedisServer;
use crate::servers::{free_port, program};
use crate::support::eventually;
use crate::words::{message, sale, sale_id, units};

const SECRET: &str = "hunter2-canary";

/// Why this server is not taken; no sentence tells a password.
async fn unusable(url: &str) -> Unusable {
    let Err(why) = RedisGate::connect(url, Arc::new(RealClock::new()), Duration::ZERO).await else {
        panic!("{url} was taken")
    };
    assert!(!format!("{why} {why:?}").contains(SECRET), "{why:?}");
    why
}

async fn wrong(url: &str, sentence: &str) {
    let why = unusable(url).await;
    assert!(matches!(&why, Unusable::Wrong(text) if text.contains(sentence)), "{url}: {why:?}");
}

async fn not_yet(url: &str, sentence: &str) {
    let why = unusable(url).await;
    assert!(matches!(&why, Unusable::NotYet(text) if text.contains(sentence)), "{url}: {why:?}");
}

/// A server that answers every connection with this.
fn answers_with(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut some = [0; 16];
            let _read = stream.read(&mut some);
            let _written = stream.write_all(text.as_bytes());
            open.push(stream);
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_none_is_wrong() {
    for url in ["", "127.0.0.1:6379", "http://127.0.0.1", &format!("redes://:{SECRET}@host"), "redis://host/db/1"] {
        wrong(url, "URL").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_may_come() {
    not_yet(&format!("redis://:{SECRET}@127.0.0.1:{}", free_port()), "nobody listens").await;
    not_yet("redis://nowhere.invalid", "").await;
    not_yet("redis+unix:///nowhere/redis.sock", "nobody listens").await;
    not_yet(&answers_with(""), "in time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_redis_is_wrong() {
    wrong(&answers_with("HTTP/1.1 400 Bad Request\r\n\r\n"), "not Redis").await;
    wrong(&answers_with("AMQP\0\0\u{9}\u{1}"), "not Redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_must_fit() {
    let server = RedisServer::start(&["--requirepass", SECRET]);
    wrong(&server.url(), "wants a password").await;
    wrong(&format!("redis://:not-{SECRET}@127.0.0.1:{}", server.port), "refuses the user or the password").await;
    wrong(&format!("redis://nobody:{SECRET}@127.0.0.1:{}", server.port), "refuses the user or the password").await;
    let good = format!("redis://:{SECRET}@127.0.0.1:{}", server.port);
    open(&gate(&good).await, &sale("s", &["a"]), 1, 1).await;
    wrong(&format!("{good}/99999"), "database").await;
    let _user: String = say(&good, &["ACL", "SETUSER", "half", "on", ">half", "~*", "+@all", "-info"]);
    wrong(&format!("redis://half:half@127.0.0.1:{}", server.port), "may not do").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_throws_keys_away_is_wrong() {
    let server = RedisServer::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    wrong(&server.url(), "noeviction").await;
    let _set: String = say(&server.url(), &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    gate(&server.url()).await;
    let _set: String = say(&server.url(), &["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    wrong(&server.url(), "maxmemory-policy volatile-ttl").await;
    let _set: String = say(&server.url(), &["CONFIG", "SET", "maxmemory", "0"]);
    gate(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_the_gate() {
    let server = RedisServer::start(&[]);
    let _done: String = say(&server.url(), &["REPLICAOF", "127.0.0.1", "1"]);
    not_yet(&server.url(), "replica").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_in_the_file_system_will_do() {
    let server = RedisServer::start(&["--unixsocket", "redis.sock"]);
    let url = format!("redis+unix://{}", server.server.folder().join("redis.sock").display());
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 1, 1).await;
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(1)));
}

/// A key and a certificate for this machine that it signs itself.
fn make_certificate(folder: &Path) {
    let mut openssl = Command::new(program("openssl", "openssl", &[]));
    openssl.current_dir(folder).args("req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2".split(' '));
    openssl.args(["-subj", "/CN=sluice", "-addext", "subjectAltName=IP:127.0.0.1"]);
    let made = openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_the_certificate_checked() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let server = RedisServer::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("cert"),
        "--tls-key-file",
        &file("key"),
        "--tls-ca-cert-file",
        &file("cert"),
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://127.0.0.1:{port}");
    wrong(&url, "TLS").await;
    not_yet(&format!("rediss://127.0.0.1:{}", server.port), "TLS").await;
    // Which certificates are trusted is read from the environment, so a process of its own trusts this one.
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "redis_gate::servers::a_trusted_certificate_will_do", "--ignored", "--nocapture"]);
    let output = again.env("SSL_CERT_FILE", file("cert")).env("SLUICE_TEST_URL", &url).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it, in a process of its own"]
async fn a_trusted_certificate_will_do() {
    let url = std::env::var("SLUICE_TEST_URL").unwrap();
    let gate = gate(&url).await;
    open(&gate, &sale("s", &["a"]), 1, 1).await;
    assert_eq!(gate.admit(&one(1)).await.unwrap(), Admission::Admitted(Epoch(1)));
    assert_eq!(gate.admit(&one(2)).await.unwrap(), sold_out(true));
}

/// Three primaries that share the slots.
fn cluster() -> [RedisServer; 3] {
    let node = || {
        let bus = free_port().to_string();
        RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"])
    };
    let nodes = [node(), node(), node()];
    let mut create = Command::new(program("redis-cli", "redis-tools", &[]));
    create.args(["--cluster", "create", "--cluster-yes"]);
    create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
    let created = create.output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_each_sale_lives_on_one_node() {
    let mut nodes = cluster();
    let url = nodes[0].url();
    for node in &nodes {
        eventually("the cluster is up", || async { info(&node.url(), "cluster_enabled") == "1" }).await;
        let state = || say::<String>(&node.url(), &["CLUSTER", "INFO"]);
        eventually("the cluster is complete", || async { state().contains("cluster_state:ok") }).await;
    }
    let gate = gate(&url).await;
    let ledger = ModelLedger::new(Arc::new(RealClock::new()));
    let names: Vec<SaleId> = (0..9).map(|number| sale_id(&format!("sale-{number}"))).collect();
    for name in &names {
        essentials(&gate, &ledger, name).await;
    }
    let keys = |node: &RedisServer| say::<Vec<String>>(&node.url(), &["KEYS", "*"]);
    let of = |node: &RedisServer, name: &SaleId| keys(node).iter().filter(|key| key.contains(name.as_str())).count();
    assert!(nodes.iter().all(|node| !keys(node).is_empty()), "the sales are spread over the nodes");
    for name in &names {
        let counts: Vec<usize> = nodes.iter().map(|node| of(node, name)).collect();
        assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1, "{name}: {counts:?}");
    }
    // A node dies: its sales wait, the others go on.
    let (lost, kept): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| of(&nodes[2], name) > 0);
    let _set: String = say(&nodes[0].url(), &["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    let _set: String = say(&nodes[1].url(), &["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    nodes[2].server.kill();
    for name in &lost {
        let error = gate.admit(&of_sale(name, 77)).await.expect_err("its node is dead");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
    for name in &kept {
        assert_eq!(gate.admit(&of_sale(name, 1)).await.unwrap(), Admission::Repeat(None), "{name}");
    }
    nodes[2].start_again();
    for name in &lost {
        eventually("the node is found again", || async { matches!(gate.view(name).await, Ok(None)) }).await;
        assert_eq!(gate.admit(&of_sale(name, 1)).await.unwrap(), Admission::Unloaded);
    }
}

/// What every gate does, for one sale of a cluster.
async fn essentials(gate: &RedisGate, ledger: &ModelLedger, name: &SaleId) {
    let claim = |number| of_sale(name, number);
    ledger.create(&sale(name.as_str(), &["a"]), &[units(2)]).await.unwrap();
    assert_eq!(gate.admit(&claim(1)).await.unwrap(), Admission::Unloaded);
    let snapshot = ledger.snapshot(name).await.unwrap().unwrap();
    assert!(gate.load(&snapshot, Epoch(1)).await.unwrap());
    assert!(!gate.load(&snapshot, Epoch(1)).await.unwrap());
    assert!(gate.open(name, Epoch(1)).await.unwrap());
    assert_eq!(gate.admit(&claim(1)).await.unwrap(), Admission::Admitted(Epoch(1)));
    assert_eq!(gate.admit(&claim(1)).await.unwrap(), repeat(&claim(1), 1));
    assert_eq!(gate.admit(&claim(2)).await.unwrap(), Admission::Admitted(Epoch(1)));
    for number in 3..6 {
        assert_eq!(gate.admit(&claim(number)).await.unwrap(), sold_out(true));
    }
    assert_eq!(gate.pending(name).await.unwrap().len(), 2);
    assert_eq!(gate.find(name, claim(2).id()).await.unwrap(), Some((claim(2), Epoch(1))));
    let moves = ledger.settle(&[message(claim(1), 1)]).await.unwrap().moves.remove(0).moves;
    assert_eq!(gate.follow(name, Epoch(1), &moves).await.unwrap(), Some(Seq(2)));
    assert_eq!(gate.admit(&claim(1)).await.unwrap(), Admission::Repeat(None));
    assert_eq!(gate.view(name).await.unwrap().unwrap().pending, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_that_a_client_hears_holds_the_password() {
    let mut server = RedisServer::start(&["--requirepass", SECRET]);
    let gate = gate(&format!("redis://:{SECRET}@127.0.0.1:{}", server.port)).await;
    server.server.kill();
    for _try in 0..20 {
        let error = gate.view(&sale_id("s")).await.expect_err("it is dead");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        assert!(matches!(error, Error::Unavailable { effect: Effect::None | Effect::Unknown, .. }));
    }
}
