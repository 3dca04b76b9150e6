//! The program: see `sluice --help`.

use std::process::ExitCode;

use clap::Parser;
use sluice::cli::Cli;
use sluice::{config, fault};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sluice: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let env_file = config::load_env_file();
    fault::arm()?;
    let cli = Cli::parse();
    if cli.is_configured() {
        env_file?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    // On a thread of the workers, so that a connection is served where it was accepted, and wakes no other thread.
    runtime.block_on(runtime.spawn(cli.run()))?
}
