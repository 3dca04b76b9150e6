//! The commands: one file each. Data goes to stdout, messages to stderr.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage; `sluice audit` also 10 for a violation and 11 for not yet settled.

mod audit;
mod client;
mod completions;
mod demo;
mod healthcheck;
mod load;
mod migrate;
mod openapi;
mod print;
mod race;
mod report;
mod sale;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sells exactly the stock there is, to a crowd a thousand times larger.
#[derive(Debug, Parser)]
#[command(
    version,
    before_help = "Example: sluice serve & sluice sale create --name Launch --item ps5=1000 --open",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage. A file .env is read; see each command's --help.";
/// Of commands that only print.
const PRINT_EXIT_CODES: &str = "Exit codes: 0 printed, 1 failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and settle what it accepts
    Serve(serve::Args),
    /// Settle what the APIs accepted, and serve no API
    Worker(serve::WorkerArgs),
    /// Create the database, or bring it to this program's schema
    Migrate(migrate::Args),
    /// Sell 1,000 units to a crowd of 20,000, in this process, and prove that it came out exact
    Demo(demo::Args),
    /// Let the same crowd buy in several ways side by side, and see which of them oversell
    Race(race::Args),
    /// Send an open-model crowd to a running Sluice, then hold the ledger to every answer it gave
    Load(load::Args),
    /// Create, read and steer sales of a running server
    Sale(sale::Args),
    /// Recount a sale, or all of them, and compare every layer
    Audit(audit::Args),
    /// Print the API's OpenAPI description
    Openapi(openapi::Args),
    /// Ask a running server whether it is ready
    Healthcheck(healthcheck::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

impl Cli {
    /// Whether what is asked for depends on flags and variables: a bad file `.env` is no reason to show no completions.
    pub fn is_configured(&self) -> bool {
        !matches!(self.command, Command::Openapi(_) | Command::Completions(_))
    }

    /// Does what the command line says.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Worker(args) => serve::run_worker(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Race(args) => race::run(args).await,
            Command::Load(args) => load::run(args).await,
            Command::Sale(args) => sale::run(args).await,
            Command::Audit(args) => audit::run(args).await,
            Command::Openapi(args) => openapi::run(&args),
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Completions(args) => completions::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_help_begins_with_an_example() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(help.starts_with("Example: sluice"), "{help}");
            command.get_subcommands_mut().for_each(check);
        }
        Cli::command().debug_assert();
        check(&mut Cli::command());
    }
}
