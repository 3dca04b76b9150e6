//! `sluice audit`: recounts sales and compares every layer; the verdict is the exit code.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use super::client::{Client, Server};
use super::print;
use crate::audit;
use crate::clock::RealClock;
use crate::config::Layers;
use crate::deployment::{self, Patience, Schema};
use crate::model::SaleId;

const VIOLATION: u8 = 10;
const UNSETTLED: u8 = 11;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice audit launch && echo exact",
    after_help = "Exit codes: 0 exact, 1 failed, 2 wrong usage, 10 violation, 11 not yet settled.\n\
                  Asks the server if there is one; otherwise reads what a distributed Sluice runs on, or the data folder."
)]
pub(super) struct Args {
    /// The sale; all of them if absent
    sale: Option<SaleId>,
    /// Print what the API answers: an object for one sale, a list for all
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    layers: Layers,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let audits = match args.server.find().await? {
        Some(client) => served(&client, args.sale.as_ref()).await?,
        None => offline(&args).await?,
    };
    match (args.json, args.sale.is_some()) {
        (true, true) => print::json(&audits[0])?,
        (true, false) => print::json(&audits)?,
        (false, _) => audits.iter().try_for_each(show)?,
    }
    if audits.is_empty() {
        eprintln!("There is no sale to audit");
    }
    let any = |verdict: &str| audits.iter().any(|audit| audit["verdict"] == verdict);
    Ok(match (any("violation"), any("unsettled")) {
        (true, _) => ExitCode::from(VIOLATION),
        (false, true) => ExitCode::from(UNSETTLED),
        (false, false) => ExitCode::SUCCESS,
    })
}

async fn served(client: &Client, sale: Option<&SaleId>) -> anyhow::Result<Vec<Value>> {
    let sales = match sale {
        Some(sale) => vec![sale.to_string()],
        None => {
            let list = client.get("/v1/sales").await?;
            let sales = list["sales"].as_array().into_iter().flatten();
            sales.filter_map(|sale| sale["id"].as_str().map(str::to_owned)).collect()
        }
    };
    let mut audits = Vec::new();
    for sale in sales {
        audits.push(client.get(&format!("/v1/sales/{sale}/audit")).await?);
    }
    Ok(audits)
}

/// Recounts what the layers hold, with no server.
async fn offline(args: &Args) -> anyhow::Result<Vec<Value>> {
    let deployment = match args.layers.servers()? {
        Some(servers) => deployment::distributed(&servers, Schema::Check, Patience::None, Arc::default()).await?,
        None => deployment::inspect(args.server.data(), Arc::new(RealClock::new())).await?,
    };
    let shop = &deployment.shop;
    let sales = match &args.sale {
        Some(sale) => vec![sale.clone()],
        None => shop.ledger.sales().await?.into_iter().map(|record| record.sale.id).collect(),
    };
    let mut audits = Vec::new();
    for sale in sales {
        let audit = audit::audit(shop, &sale).await?;
        let audit = audit.with_context(|| format!("there is no sale {sale} in {}", deployment.layers[2].place))?;
        audits.push(serde_json::to_value(audit)?);
    }
    Ok(audits)
}

fn show(audit: &Value) -> anyhow::Result<()> {
    let stock = &audit["stock"];
    let verdict = audit["verdict"].as_str().unwrap_or_default().to_uppercase();
    let count = |name: &str| format!("{} {}", name.replace('_', " ").to_uppercase(), audit[name]);
    let counts = ["oversold", "undersold", "broken_promises", "leaked", "lost", "doubled"].map(count).join(" · ");
    let conserved = match (stock["conserved"] == true, &audit["conservation_errors"]) {
        (true, errors) if *errors == 0 => "CONSERVED ✓".to_owned(),
        (_, errors) => format!("NOT CONSERVED ✗, CONSERVATION ERRORS {errors}"),
    };
    let sale = print::cell(&stock["sale"]);
    print::text(&format!("{sale}: {verdict} · {counts} · {conserved} (as of #{})\n", stock["watermark"]))?;
    let columns = ["sku", "stock", "available", "held", "sold", "in_flight"];
    let row = |item: &Value| {
        let cells = columns.iter().map(|column| print::cell(&item[*column]));
        cells.chain([print::cell(&item["gate"]["available"])]).collect::<Vec<_>>()
    };
    let head = columns.iter().chain(&["at_gate"]).map(|name| name.replace('_', " ").to_uppercase()).collect();
    let items = stock["items"].as_array().into_iter().flatten().map(row);
    print::table(&std::iter::once(head).chain(items).collect::<Vec<_>>())?;
    for finding in audit["findings"].as_array().into_iter().flatten() {
        let [invariant, subject, detail] = ["invariant", "subject", "detail"].map(|name| print::cell(&finding[name]));
        print::text(&format!("✗ {invariant} {subject}: {detail}\n"))?;
    }
    Ok(())
}
