//! The k6 script of load/k6, run for real: against the real program, which it has to pass, and against servers that lie,
//! each of which it has to catch.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::process::{Serving, run};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/load/k6/flash-sale.js");
/// What k6 exits with if a threshold was crossed.
const CROSSED: i32 = 99;

/// What a run of the script came to.
#[derive(Debug)]
pub(crate) struct K6 {
    pub(crate) code: Option<i32>,
    /// What it wrote as JSON.
    pub(crate) summary: Value,
    /// What it told a person.
    pub(crate) printed: String,
}

/// Runs the script against this server, or several parted by commas; `env` is what load/k6/README.md lists.
pub(crate) fn k6(base_url: &str, token: &str, env: &[(&str, &str)]) -> K6 {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("summary.json");
    let mut command = Command::new(program());
    command.args(["run", "--quiet", "--no-color", SCRIPT]).env_clear().current_dir(folder.path());
    command.env("HOME", folder.path()).env("K6_NO_USAGE_REPORT", "true");
    command.env("BASE_URL", base_url).env("ADMIN_TOKEN", token).env("SUMMARY_JSON", &json).envs(env.iter().copied());
    let output = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = said(&output.stdout) + &said(&output.stderr);
    let summary = std::fs::read(&json).unwrap_or_else(|error| panic!("no summary ({error}):\n{printed}"));
    K6 { code: output.status.code(), summary: serde_json::from_slice(&summary).unwrap(), printed }
}

/// The k6 that ./test put there, or the one that `SLUICE_K6` names.
fn program() -> PathBuf {
    let path = std::env::var_os("SLUICE_K6")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/k6")), PathBuf::from);
    assert!(path.is_file(), "k6 is missing at {}: ./test puts it there", path.display());
    path
}

/// On a machine that does much else, only what is promised whatever the speed.
pub(crate) const UNHURRIED: [(&str, &str); 3] = [("P95_MS", "20000"), ("P99_MS", "30000"), ("DROPPED_SHARE_MAX", "1")];

fn sells_out(stock: u64, env: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    let token = std::fs::read_to_string(folder.path().join("data/admin-token")).unwrap();
    let stock_text = stock.to_string();
    let env = [&UNHURRIED, env, &[("STOCK", stock_text.as_str())]].concat();
    let run_k6 = k6(&format!("http://{}", serving.address()), token.trim(), &env);
    assert_eq!(run_k6.code, Some(0), "{}", run_k6.printed);
    let summary = &run_k6.summary;
    assert_eq!(summary["passed"], true, "{summary}");
    assert_eq!((&summary["accepted"], &summary["ledger"]["held"]), (&stock.into(), &stock.into()), "{summary}");
    assert_eq!((&summary["other"], &summary["unavailable"], &summary["checks"]["failed"]), zeros(), "{summary}");
    let [sold_out, repeated] = ["sold_out", "repeated"].map(|kind| summary[kind].as_u64().unwrap());
    assert!(sold_out > 0 && repeated > 0, "it was no crowd: {summary}");
    assert!(run_k6.printed.contains("OVERSOLD 0 · UNDERSOLD 0 · LOST 0"), "{}", run_k6.printed);
    assert!(run(folder.path(), &["audit"], 0).contains("EXACT"));
}

fn zeros<'a>() -> (&'a Value, &'a Value, &'a Value) {
    static ZERO: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| 0.into());
    (&ZERO, &ZERO, &ZERO)
}

#[test]
fn a_crowd_from_k6_takes_every_unit_once() {
    sells_out(300, &[("SCENARIO", "crowd"), ("VUS", "100"), ("DURATION", "3s")]);
}

#[test]
fn a_spike_from_k6_takes_every_unit_once() {
    sells_out(
        200,
        &[("SCENARIO", "spike"), ("RATE", "400"), ("VUS", "50"), ("DURATION", "4s"), ("RETRY_SHARE", "0.2")],
    );
}

#[test]
fn without_a_token_k6_says_so() {
    let refused = k6("http://127.0.0.1:9", "", &[]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.printed.contains("ADMIN_TOKEN is missing"), "{}", refused.printed);
    assert!(refused.printed.contains("the ledger was not read"), "{}", refused.printed);
}

/// What is wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// It accepts beyond the stock, and its ledger says so.
    Oversells,
    /// It accepts beyond the stock, and its ledger does not say so.
    Loses,
    /// It says "sold out" while units are left, and sells none of them.
    Undersells,
    /// A retry leads to another order.
    ForgetsKeys,
    /// A retry of an accepted order hears "sold out".
    BreaksPromises,
    Miscounts,
    NeverSettles,
    /// Its audit finds something.
    FailsItsAudit,
    /// Every tenth answer is a 500.
    Crashes,
    /// Every tenth answer is a 503.
    IsAway,
    /// Its 503 does not say when to come again.
    IsAwayWithoutHint,
    /// Its 409 is of another kind.
    RefusesOtherwise,
}

const STOCK: usize = 20;
/// Enough to see a lie: about 130 orders, of which half are retries.
const BRIEF: [(&str, &str); 7] = [
    ("SCENARIO", "spike"),
    ("RATE", "200"),
    ("VUS", "10"),
    ("DURATION", "1s"),
    ("RETRY_SHARE", "0.5"),
    ("STOCK", "20"),
    ("SETTLE_SECONDS", "1"),
];

struct Liar {
    lie: Lie,
    ids: Mutex<HashMap<String, usize>>,
    answers: Mutex<usize>,
}

impl Liar {
    async fn start(lie: Lie) -> String {
        let liar = Arc::new(Self { lie, ids: Mutex::default(), answers: Mutex::default() });
        let app = Router::new()
            .route("/v1/sales", routing::post(async || (StatusCode::CREATED, Json(json!({})))))
            .route("/v1/sales/{sale}/open", routing::post(async || Json(json!({}))))
            .route("/v1/sales/{sale}/orders", routing::post(order))
            .route("/v1/sales/{sale}/stock", routing::get(stock))
            .route("/v1/sales/{sale}/audit", routing::get(audit))
            .with_state(liar);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    fn stock_shown(&self) -> usize {
        if self.lie == Lie::Undersells { 2 * STOCK } else { STOCK }
    }
}

async fn order(State(liar): State<Arc<Liar>>, headers: axum::http::HeaderMap) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let every_tenth = {
        let mut answers = liar.answers.lock().unwrap();
        *answers += 1;
        answers.is_multiple_of(10)
    };
    match liar.lie {
        Lie::Crashes if every_tenth => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Lie::IsAway if every_tenth => return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response(),
        Lie::IsAwayWithoutHint if every_tenth => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => {}
    }
    let sold_out = || {
        let kind = if liar.lie == Lie::RefusesOtherwise { "/problems/sale-not-open" } else { "/problems/sold-out" };
        (StatusCode::CONFLICT, Json(json!({ "type": kind }))).into_response()
    };
    let mut ids = liar.ids.lock().unwrap();
    let next = ids.len();
    let known = ids.get(&key).copied();
    match known {
        Some(_) if liar.lie == Lie::BreaksPromises => sold_out(),
        Some(_) if liar.lie == Lie::ForgetsKeys => Json(json!({ "id": "ord_x", "state": "held" })).into_response(),
        Some(id) => Json(json!({ "id": format!("ord_{id}"), "state": "held" })).into_response(),
        None if next >= STOCK && !matches!(liar.lie, Lie::Oversells | Lie::Loses) => sold_out(),
        None => {
            ids.insert(key, next);
            (StatusCode::ACCEPTED, Json(json!({ "id": format!("ord_{next}"), "state": "accepted" }))).into_response()
        }
    }
}

async fn stock(State(liar): State<Arc<Liar>>) -> Json<Value> {
    let accepted = liar.ids.lock().unwrap().len();
    let held = if liar.lie == Lie::Loses { accepted.min(STOCK) } else { accepted };
    let (stock, in_flight) = (liar.stock_shown(), usize::from(liar.lie == Lie::NeverSettles));
    let available = stock.saturating_sub(held);
    Json(json!({
        "in_flight": in_flight, "conserved": liar.lie != Lie::Miscounts,
        "items": [{ "sku": "ps5", "stock": stock, "available": available, "held": held, "sold": 0, "in_flight": 0 }],
    }))
}

async fn audit(State(liar): State<Arc<Liar>>) -> Json<Value> {
    Json(json!({ "verdict": if liar.lie == Lie::FailsItsAudit { "violation" } else { "exact" } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_catches_every_lie() {
    let lies = [
        (Lie::None, ""),
        (Lie::Oversells, "oversold"),
        (Lie::Loses, "lost"),
        (Lie::Undersells, "false_sold_out"),
        (Lie::ForgetsKeys, "checks"),
        (Lie::BreaksPromises, "checks"),
        (Lie::Miscounts, "unconserved"),
        (Lie::NeverSettles, "unsettled"),
        (Lie::FailsItsAudit, "unconserved"),
        (Lie::Crashes, "answer_other"),
        (Lie::IsAway, "unavailable_share"),
        (Lie::IsAwayWithoutHint, "answer_other"),
        (Lie::RefusesOtherwise, "answer_other"),
    ];
    let runs = lies.map(|(lie, crossed)| async move {
        let server = Liar::start(lie).await;
        let run = tokio::task::spawn_blocking(move || k6(&server, "token", &[&UNHURRIED[..], &BRIEF].concat())).await;
        (lie, crossed, run.unwrap())
    });
    for (lie, crossed, run) in join_all(runs).await {
        let expected = if lie == Lie::None { 0 } else { CROSSED };
        assert_eq!(run.code, Some(expected), "{lie:?}: {}", run.printed);
        let names: Vec<&str> =
            run.summary["crossed"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
        let found = names.iter().any(|name| name.split(' ').next() == Some(crossed));
        assert!(found || lie == Lie::None, "{lie:?} is caught by {names:?}, not by {crossed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_fails_a_server_that_is_too_slow() {
    let server = Liar::start(Lie::None).await;
    let run = k6(&server, "token", &[&UNHURRIED[..], &BRIEF, &[("P99_MS", "0")]].concat());
    assert_eq!(run.code, Some(CROSSED), "{}", run.printed);
    assert_eq!(run.summary["crossed"], json!(["http_req_duration{name:order} p(99)<0"]));
}
