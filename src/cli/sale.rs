//! `sluice sale`: the API's sales, by hand.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use axum::http::{Method, StatusCode};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::client::Server;
use super::print;
use crate::clock::{Clock, RealClock};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.";

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice sale create --name Launch --item ps5=1000 --item xbox=500 --limit 2 --open",
    after_help = EXIT_CODES
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a sale
    Create(Create),
    /// List all sales
    List(List),
    /// Show one sale
    Show(One),
    /// Open a sale now
    #[command(before_help = "Example: sluice sale open launch")]
    Open(Steer),
    /// Sell nothing until resumed
    #[command(before_help = "Example: sluice sale pause launch")]
    Pause(Steer),
    /// Sell again
    #[command(before_help = "Example: sluice sale resume launch")]
    Resume(Steer),
    /// End a sale for good
    #[command(before_help = "Example: sluice sale close launch")]
    Close(Steer),
    /// Add or withdraw stock
    Adjust(Adjust),
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice sale create --name Launch --item ps5=1000 --limit 2 --open",
    after_help = EXIT_CODES
)]
struct Create {
    /// The sale as a JSON file, as the API takes it; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "item", "id", "opens_at", "closes_at", "hold_seconds", "limit"])]
    file: Option<PathBuf>,
    /// Name, for people
    #[arg(long, required_unless_present = "file")]
    name: Option<String>,
    /// An item and its stock; may be repeated
    #[arg(long, value_name = "SKU=STOCK", required_unless_present = "file", value_parser = item)]
    item: Vec<(String, u32)>,
    /// Id; chosen by the server if absent
    #[arg(long)]
    id: Option<String>,
    /// When it opens, like 2026-11-27T12:00:00Z; a draft if absent
    #[arg(long, value_name = "TIME")]
    opens_at: Option<String>,
    /// When it closes
    #[arg(long, value_name = "TIME")]
    closes_at: Option<String>,
    /// How long an order is held for its customer; 0 sells at once
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    hold_seconds: u32,
    /// Units one customer may have
    #[arg(long, value_name = "UNITS")]
    limit: Option<u32>,
    /// Open it at once
    #[arg(long, conflicts_with = "opens_at")]
    open: bool,
    /// Print the sale as JSON, not only its id
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Example: sluice sale list --json", after_help = EXIT_CODES)]
struct List {
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Example: sluice sale show launch --json", after_help = EXIT_CODES)]
struct One {
    /// The sale's id
    sale: String,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
struct Steer {
    /// The sale's id
    sale: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice sale adjust launch ps5 +50 --reason \"a pallet turned up\"",
    after_help = EXIT_CODES
)]
struct Adjust {
    /// The sale's id
    sale: String,
    /// The item
    sku: String,
    /// Units to add, or to withdraw if negative
    #[arg(allow_negative_numbers = true)]
    delta: i64,
    /// Why; it is kept
    #[arg(long)]
    reason: String,
    /// Idempotency key: repeating the command with the same key does nothing again
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Create(create) => create.run().await?,
        Verb::List(list) => list.run().await?,
        Verb::Show(one) => one.run().await?,
        Verb::Open(steer) => steer.run("open").await?,
        Verb::Pause(steer) => steer.run("pause").await?,
        Verb::Resume(steer) => steer.run("resume").await?,
        Verb::Close(steer) => steer.run("close").await?,
        Verb::Adjust(adjust) => adjust.run().await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn item(text: &str) -> Result<(String, u32), String> {
    let (sku, stock) = text.split_once('=').ok_or("write it like ps5=1000")?;
    let stock = stock.parse().map_err(|_| format!("{stock} is no number of units"))?;
    Ok((sku.to_owned(), stock))
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let body = self.body()?;
        let client = self.server.client().await?;
        let mut sale = client.post("/v1/sales", &body).await?;
        let id = sale["id"].as_str().unwrap_or_default().to_owned();
        if self.open {
            sale = client.post(&format!("/v1/sales/{id}/open"), &json!({})).await?;
        }
        eprintln!("Created: {}", summary(&sale));
        if self.json { print::json(&sale) } else { Ok(print::text(&format!("{id}\n"))?) }
    }

    fn body(&self) -> anyhow::Result<Value> {
        if let Some(path) = &self.file {
            let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
            return serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()));
        }
        let items: Vec<Value> = self.item.iter().map(|(sku, stock)| json!({ "sku": sku, "stock": stock })).collect();
        let mut body = Map::from_iter([
            ("name".to_owned(), json!(self.name)),
            ("hold_seconds".to_owned(), json!(self.hold_seconds)),
            ("items".to_owned(), json!(items)),
        ]);
        for (name, text) in [("id", &self.id), ("opens_at", &self.opens_at), ("closes_at", &self.closes_at)] {
            body.extend(text.as_ref().map(|text| (name.to_owned(), json!(text))));
        }
        body.extend(self.limit.map(|limit| ("per_customer_limit".to_owned(), json!(limit))));
        Ok(body.into())
    }
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        return std::io::stdin().read_to_string(&mut text).map(|_| text);
    }
    std::fs::read_to_string(path)
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let list = self.server.client().await?.get("/v1/sales").await?;
        if self.json {
            return print::json(&list);
        }
        let sales = list["sales"].as_array().context("the server does not answer like a Sluice")?;
        if sales.is_empty() {
            eprintln!("There is no sale. Create one with `sluice sale create`");
            return Ok(());
        }
        let columns = ["id", "state", "opens_at", "closes_at", "name"];
        let row = |sale: &Value| columns.iter().map(|column| print::cell(&sale[*column])).collect();
        let head = columns.map(|column| column.replace('_', " ").to_uppercase()).to_vec();
        Ok(print::table(&std::iter::once(head).chain(sales.iter().map(row)).collect::<Vec<_>>())?)
    }
}

impl One {
    async fn run(self) -> anyhow::Result<()> {
        let sale = self.server.client().await?.get(&format!("/v1/sales/{}", segment(&self.sale)?)).await?;
        if self.json {
            return print::json(&sale);
        }
        print::text(&format!("{}\n", summary(&sale)))?;
        let columns = ["sku", "status", "available", "stock", "price_cents", "currency", "name"];
        let row = |item: &Value| columns.iter().map(|column| print::cell(&item[*column])).collect();
        let head = columns.map(|column| column.replace('_', " ").to_uppercase()).to_vec();
        let items = sale["items"].as_array().into_iter().flatten().map(row);
        Ok(print::table(&std::iter::once(head).chain(items).collect::<Vec<_>>())?)
    }
}

impl Steer {
    async fn run(self, verb: &str) -> anyhow::Result<()> {
        let client = self.server.client().await?;
        let sale = client.post(&format!("/v1/sales/{}/{verb}", segment(&self.sale)?), &json!({})).await?;
        eprintln!("{}", summary(&sale));
        Ok(())
    }
}

impl Adjust {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.server.client().await?;
        let path = format!("/v1/sales/{}/items/{}/adjustments", segment(&self.sale)?, segment(&self.sku)?);
        let body = json!({ "delta": self.delta, "reason": self.reason });
        let key = self.key.unwrap_or_else(|| format!("{:016x}", RealClock::new().chance()));
        let again = || format!("to try again without doing it twice, add --key {key}");
        let reply = client.ask(Method::POST, &path, Some(&body), Some(&key)).await.with_context(again)?;
        let status = reply.status;
        let adjusted = if status.is_server_error() { reply.done().with_context(again) } else { reply.done() }?;
        let (sku, stock, seq) = (&self.sku, &adjusted["stock"], &adjusted["seq"]);
        match status {
            StatusCode::OK => eprintln!("Done before, under this key: the stock of {sku} was {stock} then (#{seq})"),
            _ => eprintln!("The stock of {sku} is {stock} now (#{seq})"),
        }
        Ok(())
    }
}

/// A text that stands in a path as it is.
fn segment(text: &str) -> anyhow::Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        bail!("{text:?} is no id: ids have letters, digits and . _ - :");
    }
    Ok(text)
}

fn summary(sale: &Value) -> String {
    let cell = |name: &str| print::cell(&sale[name]);
    format!("{} ({}) is {}; held for {} s", cell("id"), cell("name"), cell("state"), cell("hold_seconds"))
}
