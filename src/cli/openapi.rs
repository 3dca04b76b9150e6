//! `sluice openapi`: the API's description, made from its code.

use std::process::ExitCode;

use super::print;
use crate::http;

#[derive(Debug, clap::Args)]
#[command(before_help = "Example: sluice openapi > openapi.json", after_help = super::PRINT_EXIT_CODES)]
pub(super) struct Args {}

pub(super) fn run(Args {}: &Args) -> anyhow::Result<ExitCode> {
    print::json(&http::openapi())?;
    Ok(ExitCode::SUCCESS)
}
