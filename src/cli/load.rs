//! `sluice load`: sends a crowd to a running Sluice and checks what it was told.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::client::ServerNote;
use super::report::Report;
use super::serve::TOKEN_FILE;
use crate::audit::Verdict;
use crate::clock::{Clock, RealClock};
use crate::config::DataFolder;
use crate::load::books;
use crate::load::crowd::Habits;
use crate::load::engine::Patience;
use crate::load::facts::SaleFact;
use crate::load::progress::Watch;
use crate::load::summary::Summary;
use crate::load::wire::Target;
use crate::load::{self, Plan};
use crate::model::{SaleId, SaleState};

/// Where a Sluice listens unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";
/// How long the crowd keeps coming unless told otherwise.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Connections of one crowd.
const CONNECTIONS_MAX: usize = 10_000;

const EXAMPLES: &str = "Examples:
  sluice load --rate 5000 --duration 10s                 a crowd for the only open sale
  sluice load --sale drop --retries 0.2 --impatience 0.1 people who ask again and hang up early
  sluice load --sale drop --confirm 0.8 --cancel 0.1     holds become sales, or come back
  sluice load --url http://10.0.0.1 --url http://10.0.0.2 --insist 30s --twice --i-own-this-server
                                                         through an outage; then everything once more
  sluice load --orders 100000 --report drop.html         a report that anybody can open
  sluice load --orders 100000 --seed 7 --json            the same crowd every time, for a script

Latencies count from the moment a request was due, so a server that falls behind cannot hide it. A request counts as
late when it left more than 10 ms after it was due, and is dropped when it could not leave within 5 s.

Exit codes: 0 exact, 10 violation, 11 not yet settled, 1 the run failed.";

/// Send an open-model crowd to a running Sluice, then hold the ledger to every answer it gave
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: sluice load --rate 5000 --duration 10s", after_help = EXAMPLES)]
pub(super) struct Args {
    /// The server; several, or the flag given again, share the crowd [default: the one that serves the data folder]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    url: Vec<String>,

    /// The sale; not needed if only one is open
    #[arg(long, value_name = "ID")]
    sale: Option<SaleId>,

    /// The admin token, for the check and for --confirm [default: the one in the data folder]
    #[arg(long = "admin-token", env = "SLUICE_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,

    #[command(flatten)]
    data: DataFolder,

    /// New orders per second, on average; what people do besides comes on top
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1_000.0, value_parser = rate)]
    rate: f64,

    /// How long new customers keep coming, such as 30s or 2m [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Stop after so many orders
    #[arg(long, value_name = "COUNT")]
    orders: Option<u32>,

    /// How many people there are; they order in turn
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    customers: u32,

    /// Connections that they share
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    connections: usize,

    /// Share of orders whose customer wants another one soon, under another key
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    again: f64,

    /// Share of orders sent again later, under the same key
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    retries: f64,

    /// Share of orders sent twice at the same moment, on two connections
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    duplicates: f64,

    /// Share of orders whose customer hangs up before the answer, and asks again later
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    impatience: f64,

    /// Share of orders whose customer asks later for something else under the same key, by mistake; needs carts that differ
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    mistakes: f64,

    /// Share of orders that the shop confirms once they are held
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    confirm: f64,

    /// Share of orders that are cancelled once they are held
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    cancel: f64,

    /// How long customers ask again, under the same key, when they hear nothing or "not now"
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    insist: Duration,

    /// SKUs of one order, at most
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    lines: usize,

    /// Units of one line, at most
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    quantity: u32,

    /// The same seed and flags make the same crowd: customers, keys, carts and sequence [default: by chance]
    #[arg(long)]
    seed: Option<u64>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Write what came of it to this file: a page that needs nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "no_audit")]
    report: Option<PathBuf>,

    /// Do not check the answers; needs no token
    #[arg(long)]
    no_audit: bool,

    /// Nobody else orders from the sale meanwhile: every order has to have a request
    #[arg(long)]
    alone: bool,

    /// After the check, send everything once more: it has to change nothing
    #[arg(long, conflicts_with = "no_audit")]
    twice: bool,

    /// How long to wait in the end for orders that are still on their way
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    settle: Duration,

    /// Allow a server on another machine
    #[arg(long)]
    i_own_this_server: bool,
}

/// Runs it.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let (json, file) = (args.json, args.report.clone());
    let plan = plan(args, &*clock).await?;
    let report = file.zip(plan.targets.first().cloned()).zip(plan.token.clone());
    let report = report.map(|((file, target), token)| Report { file, target, token, by: "sluice load" });
    let summary = tokio::select! {
        summary = load::run(plan, clock, interrupted(1)) => summary?,
        () = interrupted(2) => bail!("interrupted: nothing was checked"),
    };
    print(&summary, json)?;
    if let Some(report) = report {
        report.write(&summary).await?;
    }
    Ok(exit_code(&summary))
}

/// Resolves after so many Ctrl-C.
pub(super) async fn interrupted(times: u32) {
    for _ in 0..times {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn plan(args: Args, clock: &dyn Clock) -> anyhow::Result<Plan> {
    ensure!(args.confirm + args.cancel <= 1.0, "--confirm and --cancel come to more than all orders");
    ensure!((1..=CONNECTIONS_MAX).contains(&args.connections), "--connections is 1 to {CONNECTIONS_MAX}");
    let noted = || ServerNote::read(&args.data.path).map_or_else(|| URL_DEFAULT.to_owned(), |note| note.url);
    let urls = if args.url.is_empty() { vec![noted()] } else { args.url.clone() };
    let mut targets = Vec::new();
    for url in &urls {
        targets.push(Target::find(url, args.i_own_this_server).await?);
    }
    let token = token(&args)?;
    let sale = match &args.sale {
        Some(sale) => sale.clone(),
        None => only_open(&books::sales(&targets[0]).await?)?,
    };
    Ok(Plan {
        targets,
        sale,
        token,
        habits: habits(&args, clock),
        patience: Patience { insist: args.insist, ..Patience::default() },
        connections: args.connections,
        alone: args.alone,
        check: !args.no_audit,
        twice: args.twice,
        settle_time_max: args.settle,
        watch: Watch::Stderr,
    })
}

fn habits(args: &Args, clock: &dyn Clock) -> Habits {
    let time = args.duration.or(args.orders.is_none().then_some(DURATION_DEFAULT));
    let in_time = time.map_or(u32::MAX, |time| count(args.rate * time.as_secs_f64()));
    Habits {
        // Short enough to be copied from the summary.
        seed: args.seed.unwrap_or_else(|| clock.chance() >> 32),
        customers: args.customers,
        orders: args.orders.unwrap_or(u32::MAX).min(in_time),
        rate_per_s: args.rate,
        again: args.again,
        retries: args.retries,
        duplicates: args.duplicates,
        impatience: args.impatience,
        mistakes: args.mistakes,
        confirm: args.confirm,
        cancel: args.cancel,
        lines_max: args.lines,
        quantity_max: args.quantity,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturating")]
fn count(number: f64) -> u32 {
    number.round() as u32
}

/// The admin token; none if nobody needs it.
fn token(args: &Args) -> anyhow::Result<Option<String>> {
    let path = args.data.path.join(TOKEN_FILE);
    let token = match &args.token {
        Some(token) => Some(token.clone()),
        None => std::fs::read_to_string(&path).ok().map(|token| token.trim().to_owned()),
    };
    let needed = !args.no_audit || args.confirm > 0.0;
    if needed && token.is_none() {
        bail!(
            "the check needs the admin token, and {} cannot be read: give --admin-token, or --data with the server's data \
             folder, or do without the check (--no-audit, and no --confirm)",
            path.display()
        );
    }
    Ok(token)
}

/// The only open sale.
fn only_open(sales: &[SaleFact]) -> anyhow::Result<SaleId> {
    let open: Vec<&SaleFact> = sales.iter().filter(|sale| sale.state == SaleState::Open).collect();
    match open.as_slice() {
        [sale] => Ok(sale.id.clone()),
        [] => bail!("no sale is open: open one with `sluice sale open`, or name one with --sale"),
        several => {
            let list: Vec<String> = several.iter().map(|sale| format!("  {}  {}", sale.id, sale.name)).collect();
            bail!("several sales are open, name one with --sale:\n{}", list.join("\n"))
        }
    }
}

fn print(summary: &Summary, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(summary)?);
        return Ok(());
    }
    println!("{summary}");
    if let Some(verdict) = summary.verdict() {
        println!("{verdict}");
    }
    Ok(())
}

/// What the verdict means to a script.
pub(super) fn exit_code(summary: &Summary) -> ExitCode {
    match summary.check.as_ref().map(|check| check.verdict) {
        None | Some(Verdict::Exact) => ExitCode::SUCCESS,
        Some(Verdict::Violation) => ExitCode::from(10),
        Some(Verdict::Unsettled) => ExitCode::from(11),
    }
}

fn share(text: &str) -> anyhow::Result<f64> {
    let share: f64 = text.parse()?;
    ensure!((0.0..=1.0).contains(&share), "a share is between 0 and 1");
    Ok(share)
}

fn rate(text: &str) -> anyhow::Result<f64> {
    let rate: f64 = text.parse()?;
    ensure!(rate > 0.0 && rate <= 1e6, "a rate is more than 0 and at most 1,000,000 a second");
    Ok(rate)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let time: jiff::SignedDuration = text.parse().context("a time is written like 500ms, 30s or 2m")?;
    Ok(time.try_into()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(flags: &str) -> Result<Habits, clap::Error> {
        let program = Program::try_parse_from(["load"].into_iter().chain(flags.split_whitespace()))?;
        Ok(habits(&program.args, &RealClock::new()))
    }

    #[test]
    fn orders_follow_from_rate_and_time() {
        assert_eq!(parsed("").unwrap().orders, 10_000);
        assert_eq!(parsed("--rate 2000 --duration 1m30s").unwrap().orders, 180_000);
        assert_eq!(parsed("--rate 10 --orders 500").unwrap().orders, 500);
        assert_eq!(parsed("--rate 10 --orders 500 --duration 2s").unwrap().orders, 20);
    }

    #[test]
    fn a_seed_is_kept_and_a_missing_one_is_drawn() {
        assert_eq!(parsed("--seed 7").unwrap().seed, 7);
        assert_ne!(parsed("").unwrap().seed, parsed("").unwrap().seed);
    }

    #[test]
    fn servers_are_listed_or_named_one_by_one() {
        for flags in ["--url http://a,http://b", "--url http://a --url http://b"] {
            let flags = ["load"].into_iter().chain(flags.split_whitespace());
            assert_eq!(Program::try_parse_from(flags).unwrap().args.url, ["http://a", "http://b"]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for flags in ["--rate 0", "--rate NaN", "--retries 1.5", "--duration soon", "--duration -1s", "--customers 0"] {
            assert!(parsed(flags).is_err(), "{flags}");
        }
    }
}
