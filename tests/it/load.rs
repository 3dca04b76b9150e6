//! The crowd against the real program: it does everything a crowd does, and believes nothing it cannot check.

use serde_json::Value;

use crate::process::{Serving, run};

#[test]
fn a_crowd_that_does_everything_finds_an_exact_sale() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    let items = ["--item", "a=400", "--item", "b=150", "--limit", "4", "--open"];
    run(data, &[&["sale", "create", "--name", "Drop", "--id", "drop"][..], &items].concat(), 0);
    let crowd = "load --sale drop --rate 4000 --orders 6000 --customers 2000 --connections 50 --seed 7 --json \
                 --again 0.1 --retries 0.2 --duplicates 0.1 --impatience 0.1 --confirm 0.3 --cancel 0.2 --lines 2 --quantity 2";
    let told = run(data, &crowd.split_whitespace().collect::<Vec<_>>(), 0);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["check"]["verdict"], "exact", "{told:#}");
    let outcomes: Vec<&str> =
        told["outcomes"].as_array().unwrap().iter().filter_map(|row| row["outcome"].as_str()).collect();
    for outcome in ["accepted", "repeat", "sold_out"] {
        assert!(outcomes.contains(&outcome), "{outcome}: {told:#}");
    }
    let ended = &told["check"]["ended"];
    assert!(ended["sold"].as_u64().unwrap() > 0 && ended["released"].as_u64().unwrap() > 0, "{ended}");
    assert_eq!(serving.stop().0, Some(0));
    run(data, &["audit", "drop"], 0);
}

#[test]
fn a_crowd_notices_a_ledger_that_was_doctored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let serving = Serving::start(data);
    run(data, &["sale", "create", "--name", "Drop", "--id", "drop", "--item", "a=50", "--open"], 0);
    let crowd = "load --sale drop --rate 2000 --orders 200 --seed 1";
    run(data, &crowd.split_whitespace().collect::<Vec<_>>(), 0);
    assert_eq!(serving.stop().0, Some(0));
    let doctored = rusqlite::Connection::open(data.join("data/sluice.db")).unwrap();
    doctored.execute_batch("update moves set units = 2 where sale = 'drop' and seq = 9").unwrap();
    drop(doctored);
    let findings = run(data, &["audit", "drop"], 10);
    assert!(findings.contains("#9"), "{findings}");
    let serving = Serving::start(data);
    let crowd = "load --sale drop --rate 2000 --orders 20 --seed 2";
    let told = run(data, &crowd.split_whitespace().collect::<Vec<_>>(), 10);
    assert!(!told.contains("· CONSERVED"), "{told}");
    assert_eq!(serving.stop().0, Some(0));
}
