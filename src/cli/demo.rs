//! `sluice demo`: a whole flash sale in this process, with its crowd, in a few seconds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::{Either, select};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::load::{exit_code, interrupted};
use super::report::Report;
use super::serve::{console, run_by, surround};
use crate::clock::{Clock, RealClock};
use crate::config::{Role, Secret};
use crate::demo::{Chaos, Demo};
use crate::deployment::{self, Deployment};
use crate::http::{self, Api, Limits, Site, Tokens};
use crate::load::crowd::Habits;
use crate::load::engine::Patience;
use crate::load::progress::Watch;
use crate::load::record::Outcome;
use crate::load::summary::{Summary, grouped};
use crate::load::wire::Target;
use crate::load::{self, Plan};
use crate::model::SaleId;

/// How long new customers keep coming if nobody looks.
const CROWD_SECONDS: f64 = 4.0;
/// How long they do if somebody looks: so long that the units last a moment, within these bounds.
const WATCHED_SECONDS: std::ops::RangeInclusive<f64> = 6.0..=30.0;
const UNITS_SECONDS: f64 = 2.0;
/// How long the crowd waits for the console to be opened, and how long whoever opened it sees every unit available.
const CONSOLE_TIME_MAX: Duration = Duration::from_secs(15);
const FULL_TIME: Duration = Duration::from_secs(1);
/// Connections that the crowd shares.
const CONNECTIONS: usize = 64;
/// How long an order is held for its customer.
const HOLD_SECONDS: u32 = 600;

const EXAMPLES: &str = "Examples:
  sluice demo                  watch it, then try the API yourself
  sluice demo --exit           for a script: exit code 0 exact, 10 violation, 11 not yet settled
  sluice demo --units 3 --customers 50000";

/// Sell 1,000 units to a crowd of 20,000, in this process, and prove that it came out exact
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: sluice demo --exit", after_help = EXAMPLES)]
pub(super) struct Args {
    /// Units there are
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    units: u32,

    /// People who want one
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,

    /// The same seed is the same crowd
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Where to listen [default: a free port of this machine]
    #[arg(long, env = "SLUICE_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Keep the sale in this folder [default: a folder that is gone afterwards]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// PostgreSQL without TLS, which then takes part in the race
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Secret>,

    /// Write what came of it to this file: a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// End when the crowd has gone
    #[arg(long)]
    exit: bool,
}

/// Runs it.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let data = Folder::new(args.data.clone(), &*clock);
    let token = format!("{:016x}{:016x}", clock.chance(), clock.chance());
    let listen = args.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    if !listen.ip().is_loopback() {
        bail!("the demo listens on this machine only, and {listen} is reached from others: give a loopback address");
    }
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut deployment = deployment::embedded(&data.path, clock.clone()).await?;
    let chaos = surround(&mut deployment)?;
    let deployment = Arc::new(deployment);
    let api = Api::with_demo(
        deployment.shop.clone(),
        run_by(&deployment),
        Tokens::new([token.as_str()].into_iter(), std::iter::empty()),
        Limits::default(),
        true,
        Some(Demo::new(url.clone(), chaos.clone(), clock.clone(), args.database_url.clone())),
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn({
        let deployment = deployment.clone();
        let api = api.clone();
        async move { serve(listener, api, &deployment, &chaos, stopped).await }
    });
    let shown = show(&args, &url, &token, &deployment, &api, clock).await;
    drop(stop);
    server.await.context("the server broke down")?;
    shown
}

/// Serves until the other end of `stopped` is gone, then settles what is left.
async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    deployment: &Deployment,
    chaos: &Chaos,
    stopped: oneshot::Receiver<()>,
) {
    let serving = async {
        http::serve(listener, Site::whole(api), async { drop(stopped.await) }).await;
        if !deployment.drain().await {
            tracing::warn!("some orders are left for the next start");
        }
    };
    let (serving, running) = (std::pin::pin!(serving), std::pin::pin!(chaos.run_worker(|| deployment.run(Role::All))));
    match select(serving, running).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}

/// The crowd comes, and its story is told.
async fn show(
    args: &Args,
    url: &str,
    token: &str,
    deployment: &Deployment,
    api: &Api,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<ExitCode> {
    let target = Target::find(url, false).await?;
    let sale = open_sale(&target, token, args).await?;
    println!("Sluice {} · demo", env!("CARGO_PKG_VERSION"));
    for layer in &deployment.layers {
        println!("  {:<8}{}, {}", layer.name, layer.run_by, layer.place);
    }
    println!("  {:<8}{}", "console", console(url, Some(token)));
    println!("  {:<8}{url}/docs/\n", "API");
    let (units, customers) = (grouped(args.units.into()), grouped(args.customers.into()));
    println!("{units} consoles, one per customer, go on sale. {customers} people want one. Some click twice,");
    println!("some ask again, some hang up before the answer and come back. Here they come …\n");
    let seconds = if args.exit { CROWD_SECONDS } else { crowd_seconds(args, api, &*clock).await? };
    let plan = Plan {
        targets: vec![target.clone()],
        sale: sale.clone(),
        token: Some(token.to_owned()),
        habits: habits(args, seconds),
        patience: Patience::default(),
        connections: CONNECTIONS,
        alone: true,
        check: true,
        twice: false,
        settle_time_max: Duration::from_secs(10),
        watch: Watch::Stderr,
    };
    let summary = tokio::select! {
        summary = load::run(plan, clock, interrupted(1)) => summary?,
        () = interrupted(2) => bail!("interrupted: nothing was checked"),
    };
    tell(&summary);
    if let Some(file) = args.report.clone() {
        Report { file, target, token: token.to_owned(), by: "sluice demo" }.write(&summary).await?;
    }
    if !args.exit {
        invite(url, &sale, token);
        interrupted(1).await;
    }
    Ok(exit_code(&summary))
}

/// Waits a while for the console to be opened, and says how long the crowd keeps coming: long enough to be seen if it was.
async fn crowd_seconds(args: &Args, api: &Api, clock: &dyn Clock) -> anyhow::Result<f64> {
    let most = CONSOLE_TIME_MAX.as_secs();
    eprintln!("waiting for the console to be opened, {most} s at most …");
    let watched = tokio::select! {
        watched = api.watched(CONSOLE_TIME_MAX) => watched,
        () = interrupted(1) => bail!("interrupted: nobody came"),
    };
    if !watched {
        return Ok(CROWD_SECONDS);
    }
    clock.sleep(FULL_TIME).await;
    let seconds = UNITS_SECONDS * f64::from(args.customers) / f64::from(args.units);
    Ok(seconds.clamp(*WATCHED_SECONDS.start(), *WATCHED_SECONDS.end()))
}

/// A crowd that does everything a crowd does.
fn habits(args: &Args, seconds: f64) -> Habits {
    Habits {
        customers: args.customers,
        orders: args.customers,
        rate_per_s: f64::from(args.customers) / seconds,
        again: 0.05,
        retries: 0.15,
        duplicates: 0.05,
        impatience: 0.03,
        ..Habits::plain(args.seed)
    }
}

#[derive(Deserialize)]
struct Created {
    id: SaleId,
}

async fn open_sale(target: &Target, token: &str, args: &Args) -> anyhow::Result<SaleId> {
    let sale = json!({
        "name": "Console launch",
        "hold_seconds": HOLD_SECONDS,
        "per_customer_limit": 1,
        "items": [{"sku": "console", "name": "Console", "price_cents": 49_900, "currency": "EUR", "stock": args.units}],
    });
    let Created { id } = target.ask(Method::POST, "/v1/sales", Some(token), Some(&sale)).await?;
    let path = format!("/v1/sales/{id}/open");
    let _opened: Created = target.ask(Method::POST, &path, Some(token), Some(&json!({}))).await?;
    Ok(id)
}

fn tell(summary: &Summary) {
    let sent = summary.requests.sent;
    let steps = [
        ("requests", sent, "sent, one wish each, or once more"),
        ("sold out", summary.count(Outcome::SoldOut), "refused at once"),
        ("limit", summary.count(Outcome::CustomerLimit), "had one already"),
        ("hung up", summary.count(Outcome::HungUp), "did not wait for the answer"),
        ("repeats", summary.count(Outcome::Repeat), "got the order they had, and no second one"),
        ("accepted", summary.count(Outcome::Accepted), "promised"),
        ("held", summary.check.as_ref().map_or(0, |check| check.ended.held), "and kept, in the ledger"),
    ];
    for (step, count, meaning) in steps {
        println!("  {step:<9}{:>9}  {}  {meaning}", grouped(count), bar(count, sent));
    }
    let unlucky = summary.count(Outcome::Unavailable) + summary.count(Outcome::Error) + summary.requests.dropped;
    if unlucky > 0 {
        println!("  {:<9}{:>9}  got no proper answer", "failed", grouped(unlucky));
    }
    println!("\nHow long they waited, from the moment they clicked:\n\n{}\n", summary.table());
    for violation in summary.check.iter().flat_map(|check| &check.violations) {
        println!("violation {violation}");
    }
    if let Some(verdict) = summary.verdict() {
        println!("{verdict}");
    }
}

fn bar(count: u64, of: u64) -> String {
    const WIDTH: u64 = 24;
    let cells = (count * WIDTH).div_ceil(of.max(1)).min(WIDTH);
    (0..WIDTH).map(|cell| if cell < cells { '█' } else { '·' }).collect()
}

/// What to try next. It goes to stderr: the verdict is the last line of the output.
fn invite(url: &str, sale: &SaleId, token: &str) {
    let console = console(url, Some(token));
    eprintln!(
        "
Still running. Try:

  the console {console}
  the API     {url}/docs/
  the sale    curl -s {url}/v1/sales/{sale}
  an order    curl -s {url}/v1/sales/{sale}/orders -H 'content-type: application/json' \\
                -H 'idempotency-key: mine-1' -d '{{\"customer\":\"me\",\"lines\":[{{\"sku\":\"console\",\"quantity\":1}}]}}'
  the units   curl -s {url}/v1/sales/{sale}/stock -H 'authorization: Bearer {token}'
  the audit   curl -s {url}/v1/sales/{sale}/audit -H 'authorization: Bearer {token}'

Ctrl-C ends it."
    );
}

/// The data folder, gone afterwards unless it was asked for.
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn new(wanted: Option<PathBuf>, clock: &dyn Clock) -> Self {
        let kept = wanted.is_some();
        let fresh = || std::env::temp_dir().join(format!("sluice-demo-{:016x}", clock.chance()));
        Self { path: wanted.unwrap_or_else(fresh), kept }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "could not remove the demo's folder");
    }
}
