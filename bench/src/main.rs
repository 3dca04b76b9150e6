//! Measures Sluice against controls of the same run: see `./bench/run` and docs/BENCHMARKS.md.
//!
//! Read [`figures`] for what is measured, [`scene`] for what is started, [`wrk`] and [`crowd`] for who asks, [`report`] for
//! what is written. The controls are [`fixed`], a server that always says the same; [`plain`], the same three servers
//! without Sluice's batches; [`ceilings`], what each of the three can do alone.

mod ceilings;
mod chart;
mod crowd;
mod document;
#[cfg(test)]
#[path = "../../tests/it/eventually.rs"]
mod eventually;
mod figures;
mod fixed;
mod growth;
mod machine;
mod million;
mod plain;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/it/process.rs"]
mod process;
mod report;
mod results;
mod scene;
#[expect(dead_code, reason = "the tests use the rest of them")]
#[path = "../../tests/it/servers/mod.rs"]
mod servers;
mod settled;
mod watched;
mod wrk;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure Sluice against controls of the same run
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,

    /// Only the figures whose name contains one of these
    filters: Vec<String>,

    /// Fewer and shorter runs, and a smaller past
    #[arg(long)]
    quick: bool,

    /// Name the figures, and measure none
    #[arg(long)]
    list: bool,

    /// Print, but leave docs/ as it is
    #[arg(long)]
    dry: bool,
}

/// What this program is besides: the controls run as processes of their own.
#[derive(Subcommand)]
enum Role {
    /// The server that always says the same
    #[command(hide = true)]
    Fixed { folder: PathBuf, port: u16 },
    /// The API of the plain architecture
    #[command(hide = true)]
    PlainApi { folder: PathBuf, port: u16 },
    /// The worker of the plain architecture
    #[command(hide = true)]
    PlainWorker { folder: PathBuf, workers: usize },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio::runtime::Runtime::new()?.block_on(async {
        match args.role {
            Some(Role::Fixed { folder, port }) => fixed::serve(&folder, port).await,
            Some(Role::PlainApi { folder, port }) => plain::serve(&folder, port).await,
            Some(Role::PlainWorker { folder, workers }) => plain::work(&folder, workers).await,
            None => figures::run(&args.filters, args.quick, args.list, args.dry).await,
        }
    })
}
