//! What dashboard and alerts ask for is what the program says of itself, and nothing that it says goes unseen.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{text, yaml};
use crate::process::{Serving, run};

/// What Prometheus itself adds.
const OF_PROMETHEUS: &[&str] = &["up"];
/// What an embedded Sluice has no use for.
const OF_DISTRIBUTED: &[&str] = &["sluice_retries_total"];
/// What alone may be in a query besides metrics and labels.
const FUNCTIONS: &[&str] = &["max", "sum", "rate", "histogram_quantile", "max_over_time", "absent", "by"];
/// The three that page somebody.
const PAGE: [&str; 3] = ["SluiceOversold", "SluiceBrokenPromise", "SluiceConservationError"];

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana/dashboards/sluice.json")).unwrap()
}

/// The queries of dashboard and alerts.
fn queries() -> Vec<String> {
    let dashboard = dashboard();
    let shown = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown = shown.map(|target| target["expr"].as_str().unwrap().to_owned());
    let variable = dashboard["templating"]["list"][0]["query"]["query"].as_str().unwrap();
    let variable = variable.strip_prefix("label_values(").and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    let alerts = alerts().into_iter().map(|alert| alert["expr"].as_str().unwrap().to_owned());
    shown.chain([variable]).chain(alerts).collect()
}

fn alerts() -> Vec<Value> {
    yaml("deploy/prometheus/alerts.yml")["groups"][0]["rules"].as_array().unwrap().clone()
}

/// What must be so of a label: its name, an operator such as `=~`, a value.
type Matcher = (String, String, String);

/// The metrics of a query, each with what must be so of its labels.
fn selectors(query: &str) -> Vec<(String, Vec<Matcher>)> {
    let (mut found, mut rest) = (Vec::new(), query);
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if let Some(block) = after.strip_prefix('{') {
            // A value may hold braces; the block ends behind the last quote.
            let end = block.find("\"}").unwrap() + 1;
            found.push((name.to_owned(), block[..end].split("\",").map(matcher).collect()));
            rest = &block[end + 1..];
        } else if name == "by" {
            rest = &after[after.find(')').unwrap()..];
        } else if !FUNCTIONS.contains(&name) {
            found.push((name.to_owned(), Vec::new()));
        }
        // Not into a range such as [30s].
        if let Some(range) = rest.strip_prefix('[') {
            rest = &range[range.find(']').unwrap()..];
        }
    }
    found
}

fn matcher(text: &str) -> Matcher {
    let (name, rest) = text.split_at(text.find(['=', '!']).unwrap());
    let (operator, value) = rest.split_once('"').unwrap();
    (name.to_owned(), operator.to_owned(), value.trim_end_matches('"').to_owned())
}

/// What a real server tells Prometheus after an order that was accepted, one that was refused, and a hold that lapsed.
fn scrape() -> String {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    let create =
        ["sale", "create", "--id", "drop", "--name", "Drop", "--item", "ps5=1", "--hold-seconds", "1", "--open"];
    run(folder.path(), &create, 0);
    run(folder.path(), &["load", "--sale", "drop", "--orders", "20", "--rate", "100"], 0);
    loop {
        let metrics = get(&serving.address(), "/metrics");
        if metrics.contains("sluice_hold_release_lag_seconds_count 1") {
            return metrics;
        }
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The metrics that the source names.
fn in_the_source() -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![super::root().join("src")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let literals = source.split('"').map(str::to_owned);
            let word = |text: &String| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let ours = |text: &String| ["sluice_", "http_server_"].iter().any(|prefix| text.starts_with(prefix));
            found.extend(literals.filter(ours).filter(word));
        }
    }
    assert!(OF_DISTRIBUTED.iter().all(|name| found.contains(*name)) && found.len() > 10, "{found:?}");
    found
}

#[test]
fn every_query_finds_what_it_asks_for_and_every_metric_is_asked_for() {
    let scrape = scrape();
    let series: Vec<&str> = scrape.lines().filter(|line| !line.starts_with('#') && line.contains(' ')).collect();
    let name_of = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
    let mut asked = BTreeSet::new();
    for query in queries() {
        let selectors = selectors(&query);
        assert!(!selectors.is_empty(), "{query}");
        for (name, matchers) in selectors {
            if OF_PROMETHEUS.contains(&name.as_str()) {
                continue;
            }
            if OF_DISTRIBUTED.contains(&name.as_str()) {
                asked.insert(name);
                continue;
            }
            let found = series.iter().any(|line| {
                name_of(line) == name
                    && matchers.iter().all(|(label, operator, value)| match operator.as_str() {
                        "=" => line.contains(&format!("{label}=\"{value}\"")),
                        _ => line.contains(&format!("{label}=\"")),
                    })
            });
            assert!(found, "{query}: there is no {name} with {matchers:?}");
            asked.insert(name.trim_end_matches("_bucket").trim_end_matches("_count").to_owned());
        }
    }
    let unseen: Vec<String> = in_the_source().into_iter().filter(|name| !asked.contains(name)).collect();
    assert!(unseen.is_empty(), "neither on the dashboard nor in an alert: {unseen:?}");
}

#[test]
fn three_alerts_page_somebody_and_the_page_tells_of_all() {
    let alerts = alerts();
    let name = |alert: &Value| alert["alert"].as_str().unwrap().to_owned();
    let paging: Vec<String> = alerts.iter().filter(|alert| alert["labels"]["severity"] == "page").map(name).collect();
    assert_eq!(paging, PAGE);
    let (page, tests) = (text("deploy/README.md"), text("deploy/prometheus/alerts_test.yml"));
    for alert in &alerts {
        let (name, severity) = (name(alert), alert["labels"]["severity"].as_str().unwrap());
        let row = page.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
        assert!(row.is_some_and(|row| row.contains(&format!("| {severity} |"))), "{name} is not in the page");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].is_string(), "{name} does not say what to do");
        }
        assert!(!PAGE.contains(&name.as_str()) || alert["for"].is_null(), "{name} waits");
    }
}

#[test]
fn the_dashboard_asks_the_datasource_that_is_there() {
    let source = &yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][0]["uid"];
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    assert_eq!(dashboard["templating"]["list"][0]["datasource"]["uid"], *source);
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels of one id");
        assert!(["title", "description"].iter().all(|text| panel[text].is_string()));
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24);
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{} lies on another panel", panel["title"]);
        }
        for target in panel["targets"].as_array().unwrap().iter().chain([panel]) {
            assert_eq!(target["datasource"]["uid"], *source);
        }
    }
}

#[test]
fn selectors_of_a_query_are_found() {
    let found =
        selectors("histogram_quantile(0.99, sum by (le) (rate(a_b{r=\"/v1/{sale}\",s=~\"5..\"}[30s]))) + absent(c)");
    let matchers = [("r", "=", "/v1/{sale}"), ("s", "=~", "5..")].map(|(n, o, v)| (n.into(), o.into(), v.into()));
    assert_eq!(found, [("a_b".to_owned(), matchers.to_vec()), ("c".to_owned(), Vec::new())]);
}
