//! `sluice race`: the same crowd buys in several ways, side by side; which of them oversell is seen, not said.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;

use crate::clock::{Clock, RealClock};
use crate::config::Secret;
use crate::race::{Board, Lane, Race, Setting};

const EXAMPLES: &str = "Examples:
  sluice race                            20 seeds, 100 units, 2,000 customers
  sluice race --seeds 100 --json         for a script

Every lane has the same crowd, a stock of its own and real concurrency; one that does not oversell this time is shown as it
came out. `sluice demo` shows the same at /race, with the recorded steps of the first sale that went wrong.

Exit codes: 0 the guarded lanes came out exact, 10 one of them did not, 1 the race failed.";

/// Let the same crowd buy in several ways side by side, and see which of them oversell
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: sluice race --seeds 20", after_help = EXAMPLES)]
pub(super) struct Args {
    /// How often every lane is run; each time the crowd comes in another sequence
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    seeds: u32,

    /// Units there are
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    units: u32,

    /// People who want one each
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,

    /// PostgreSQL without TLS, in which some lanes are run; without it there are fewer lanes
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Secret>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) async fn run(Args { seeds, units, customers, database_url, json }: Args) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let folder = std::env::temp_dir().join(format!("sluice-race-{:016x}", clock.chance()));
    if database_url.is_none() {
        eprintln!("without a PostgreSQL (DATABASE_URL) its four lanes are missing");
    }
    let (race, setting) = (Race::new(database_url), Setting { seeds, units, customers });
    race.begin(setting);
    race.run(setting, &folder, &clock).await;
    // A race that could not even begin has left nothing.
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let board = race.board();
    if json {
        println!("{}", serde_json::to_string_pretty(&board)?);
    } else {
        println!("{}", table(&board));
    }
    if let Some(error) = &board.error {
        bail!("the race ended early: {error}");
    }
    let exact = |lane: &Lane| !lane.guarded || lane.oversold + lane.lost + lane.phantom == 0;
    Ok(if board.lanes.iter().all(exact) { ExitCode::SUCCESS } else { ExitCode::from(10) })
}

/// Units of each lane's worst seed, times of its middle one.
fn table(board: &Board) -> String {
    let head = format!(
        "{:<37}{:>7}{:>10}{:>6}{:>9}{:>9}{:>10}  outcome",
        "lane", "sold", "oversold", "lost", "phantom", "time", "p99"
    );
    let line = |lane: &Lane| {
        let Lane { name, sold, oversold, lost, phantom, ms, p99_ms, .. } = lane;
        let (time, p99, outcome) = (format!("{ms} ms"), format!("{p99_ms:.2} ms"), lane.outcome());
        format!("{name:<37}{sold:>7}{oversold:>10}{lost:>6}{phantom:>9}{time:>9}{p99:>10}  {outcome}")
    };
    std::iter::once(head).chain(board.lanes.iter().map(line)).collect::<Vec<_>>().join("\n")
}
