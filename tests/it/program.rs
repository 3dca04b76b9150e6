//! The program as its operator meets it: a real process, its exit codes, its files.

use std::fs;

use serde_json::Value;

use crate::process::{Serving, run, said, sluice};

#[test]
fn a_sale_is_run_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    assert_eq!(run(data, &["healthcheck"], 0), "");
    let create = ["sale", "create", "--name", "Launch", "--id", "launch", "--item", "ps5=10", "--open"];
    assert_eq!(run(data, &create, 0), "launch\n");
    run(data, &create, 1);
    let adjusted = |delta: &str| {
        let adjust = ["sale", "adjust", "launch", "ps5", delta, "--reason", "broken", "--key", "k"];
        said(&sluice(data, &adjust).output().unwrap())
    };
    assert!(adjusted("-4").starts_with("The stock of ps5 is 6 now"));
    assert!(adjusted("-4").starts_with("Done before, under this key: the stock of ps5 was 6 then"));
    assert_eq!(adjusted("0"), "sluice: Invalid request: /delta: must not be 0\n");
    for verb in ["pause", "resume", "close"] {
        run(data, &["sale", verb, "launch"], 0);
    }
    let sale: Value = serde_json::from_str(&run(data, &["sale", "show", "launch", "--json"], 0)).unwrap();
    assert_eq!((&sale["state"], &sale["items"][0]["stock"]), (&"ended".into(), &6.into()));
    assert!(run(data, &["sale", "list"], 0).contains("launch  ended"));
    assert!(run(data, &["audit"], 0).starts_with("launch: EXACT · OVERSOLD 0"));
    run(data, &["sale", "show", "no-such-sale"], 1);

    let second = sluice(data, &["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("served by another process"), "{}", said(&second));

    let token = fs::read_to_string(data.join("data/admin-token")).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(data.join("data/admin-token")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (code, log, printed) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(token.trim()), "the token is in the log");
    assert_eq!(printed, "", "messages belong on stderr");
    assert!(!data.join("data/server.json").exists());

    let audit: Value = serde_json::from_str(&run(data, &["audit", "launch", "--json"], 0)).unwrap();
    assert_eq!(audit["verdict"], "exact");
    let nobody = sluice(data, &["sale", "list"]).output().unwrap();
    assert!(nobody.status.code() == Some(1) && said(&nobody).contains("sluice serve"), "{}", said(&nobody));
}

#[test]
fn what_a_server_left_can_be_copied_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    run(data, &["sale", "create", "--name", "n", "--id", "s", "--item", "x=1"], 0);
    let (code, log, _) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("data")).unwrap();
    for file in ["ledger.db", "queue.db"] {
        fs::copy(data.join("data").join(file), copy.path().join("data").join(file)).unwrap();
    }
    assert!(run(copy.path(), &["audit", "s"], 0).starts_with("s: EXACT"));
}

#[test]
fn without_migration_a_server_wants_what_migrate_makes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--no-migrate"];
    let refused = |way_out: &str| {
        let output = sluice(data, &serve).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("sluice migrate") && said(&output).contains(way_out), "{}", said(&output));
    };
    refused("does not exist");
    assert!(!data.join("data").exists(), "a refused start leaves nothing behind");
    run(data, &["migrate"], 0);
    let older =
        "delete from refinery_schema_history where version = (select max(version) from refinery_schema_history)";
    let ledger = data.join("data/ledger.db");
    fs::copy(&ledger, data.join("whole.db")).unwrap();
    rusqlite::Connection::open(&ledger).unwrap().execute_batch(older).unwrap();
    refused("schema version");
    fs::copy(data.join("whole.db"), &ledger).unwrap();
    let serving = Serving::spawn(data, &serve, &Vec::new());
    serving.wait_for("/docs/");
    assert_eq!(serving.stop().0, Some(0));
}

#[test]
fn a_killed_server_leaves_a_note_that_misleads_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    run(data, &["sale", "create", "--name", "n", "--id", "s", "--item", "x=1"], 0);
    drop(serving);
    assert!(data.join("data/server.json").exists());
    assert!(run(data, &["audit", "s"], 0).starts_with("s: EXACT"));
    run(data, &["healthcheck"], 1);
    let again = Serving::start(data);
    assert_eq!(again.stop().0, Some(0));
}

#[test]
fn what_is_unsafe_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let refused = |args: &[&str], code: i32, way_out: &str| {
        let output = sluice(data, args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(way_out), "{}", said(&output));
    };
    refused(&["serve", "--listen", "0.0.0.0:0"], 1, "Set SLUICE_ADMIN_TOKEN");
    refused(&["serve", "--listen", "0.0.0.0:0", "--admin-token", ","], 1, "Set SLUICE_ADMIN_TOKEN");
    refused(&["sale", "list", "--url", "localhost:1"], 1, "put http:// in front");
    refused(&["serve", "--role", "worker"], 1, "DATABASE_URL, REDIS_URL and RABBITMQ_URL");
    refused(&["serve", "--redis-url", "redis://h"], 1, "REDIS_URL without DATABASE_URL and RABBITMQ_URL");
    refused(&["serve", "--listen", "everywhere"], 2, "--listen");
    refused(&["no-such-command"], 2, "Usage");
    refused(&["sale", "list", "--url", "https://h"], 1, "http://");
    assert!(!data.join("data").exists(), "a refused start leaves nothing behind");
    fs::write(data.join(".env"), "RABBITMQ_URL=amqp://h\n").unwrap();
    refused(&["serve"], 1, "RABBITMQ_URL without");
    fs::write(data.join(".env"), "not a line\n").unwrap();
    refused(&["serve"], 1, ".env");
    refused(&["serve", "--help"], 0, "");
    run(data, &["completions", "bash"], 0);
}

#[test]
fn what_is_printed_can_be_piped() {
    let folder = tempfile::tempdir().unwrap();
    let description: Value = serde_json::from_str(&run(folder.path(), &["openapi"], 0)).unwrap();
    assert_eq!(description["openapi"], "3.1.0");
    assert!(run(folder.path(), &["completions", "bash"], 0).contains("_sluice()"));
    assert!(run(folder.path(), &["audit", "--help"], 0).starts_with("Example: sluice audit"));
    for verb in ["open", "pause", "resume", "close"] {
        let help = run(folder.path(), &["sale", verb, "--help"], 0);
        assert!(help.starts_with(&format!("Example: sluice sale {verb} launch")), "{help}");
        assert!(help.contains("Exit codes: "), "{help}");
    }
}
