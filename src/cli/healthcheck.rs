//! `sluice healthcheck`: for containers, which have no curl.

use std::process::ExitCode;

use axum::http::{Method, StatusCode};

use super::client::Server;
use super::print;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice healthcheck --url http://127.0.0.1:8080",
    after_help = "Exit codes: 0 ready, 1 not ready or not there, 2 wrong usage."
)]
pub(super) struct Args {
    /// Print what the server answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reply = args.server.client().await?.ask(Method::GET, "/readyz", None, None).await?;
    if args.json {
        print::json(&reply.body)?;
    }
    if reply.status == StatusCode::OK {
        eprintln!("ready");
        return Ok(ExitCode::SUCCESS);
    }
    for missing in reply.body["missing"].as_array().into_iter().flatten() {
        eprintln!("not ready: {}", print::cell(missing));
    }
    Ok(ExitCode::FAILURE)
}
