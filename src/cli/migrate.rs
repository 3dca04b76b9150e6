//! `sluice migrate`: brings the database to this program's schema, before or instead of a server that does it.

use std::process::ExitCode;
use std::sync::Arc;

use super::serve::log_to_stderr;
use crate::clock::RealClock;
use crate::config::{self, LogFormat};
use crate::deployment::{self, Patience};

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice migrate && sluice serve --no-migrate",
    after_help = "May run in many processes at once: one of them does it.\n\
                  Exit codes: 0 done, or nothing to do; 1 failed; 2 wrong usage."
)]
pub(super) struct Args {
    #[command(flatten)]
    data: config::DataFolder,
    #[command(flatten)]
    layers: config::Layers,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    log_to_stderr(LogFormat::Text);
    match args.layers.database()? {
        Some(database) => deployment::migrate(&database, Patience::Endless).await?,
        None => deployment::embedded(&args.data.path, Arc::new(RealClock::new())).await?.fold().await,
    }
    eprintln!("the database has this program's schema");
    Ok(ExitCode::SUCCESS)
}
