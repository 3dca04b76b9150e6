//! `sluice completions`: for a shell to read.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, print};

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice completions bash > ~/.local/share/bash-completion/completions/sluice",
    after_help = super::PRINT_EXIT_CODES
)]
pub(super) struct Args {
    /// For which
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sluice", &mut script);
    print::text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
