//! `sluice serve`: opens a deployment, and serves it until it is told to stop.

use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::client::ServerNote;
use crate::clock::{Clock, RealClock};
use crate::config::{self, LogFormat};
use crate::deployment::{self, Deployment};
use crate::http::{self, Api, Limits, Tokens};

/// The generated token, within the data folder.
pub(super) const TOKEN_FILE: &str = "admin-token";

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice serve --listen 127.0.0.1:8080 --data ./sluice-data",
    after_help = "Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage. A second signal exits at once."
)]
pub(super) struct Args {
    #[command(flatten)]
    config: config::Serve,
}

pub(super) async fn run(Args { config }: Args) -> anyhow::Result<ExitCode> {
    config.check()?;
    log_to_stderr(config.log);
    let data = &config.data.path;
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let listener = bind(config.listen).await?;
    let address = listener.local_addr()?;
    let deployment = Arc::new(deployment::embedded(data, clock.clone()).await?);
    let generated = generated_token(&config.tokens, data, clock.as_ref())?;
    let admin = config::each(&config.tokens.admin_token).chain(generated.as_deref());
    let tokens = Tokens::new(admin, config::each(&config.tokens.shop_token));
    let api = Api::new(deployment.shop.clone(), tokens, Limits::default(), address.ip().is_loopback());
    let stop = stop_signal()?;
    let note = ServerNote::write(data, &url(address))?;
    banner(&deployment, address, data, generated.as_deref());
    let served = serve(deployment, listener, api, stop).await;
    note.remove();
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(
    deployment: Arc<Deployment>,
    listener: TcpListener,
    api: Arc<Api>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let settling = deployment.clone();
    let mut settling = tokio::spawn(async move { settling.run().await });
    let serving = std::pin::pin!(http::serve(listener, api, stop));
    if let Either::Right((ended, _)) = select(serving, &mut settling).await {
        bail!("settlement ended ({ended:?}); nothing is lost, start again");
    }
    if !deployment.drain().await {
        tracing::warn!("some orders are still to be settled; the next start does it");
    }
    settling.abort();
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            anyhow::anyhow!("something listens on {address} already. Stop it, or choose another address with --listen")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}. Choose another address with --listen"),
    })
}

/// The token of an operator who set none: made once, kept where only its owner can read it.
fn generated_token(tokens: &config::Tokens, data: &Path, clock: &dyn Clock) -> anyhow::Result<Option<String>> {
    if config::given(&tokens.admin_token).is_some() {
        return Ok(None);
    }
    let path = data.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(Some(kept.trim().to_owned())),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        Ok(_) | Err(_) => {}
    }
    let token: String = (0..4).map(|_| format!("{:016x}", clock.chance())).collect();
    write_private(&path, &token).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(token))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// Where this machine reaches the server.
fn url(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{address}")
}

/// The token is shown on a terminal only: what goes elsewhere is a log.
fn banner(deployment: &Deployment, address: SocketAddr, data: &Path, generated: Option<&str>) {
    let url = url(address);
    let token = match generated {
        Some(token) if std::io::stderr().is_terminal() => token.to_owned(),
        Some(_) => format!("in {}", data.join(TOKEN_FILE).display()),
        None => "yours".to_owned(),
    };
    eprintln!("Sluice {}", env!("CARGO_PKG_VERSION"));
    for (layer, what) in &deployment.layers {
        eprintln!("  {layer:8} {what}");
    }
    eprintln!("  {:8} {}", "data", data.display());
    eprintln!("  {:8} {address}", "address");
    eprintln!("  {:8} {token}", "token");
    eprintln!("  {:8} {url}/docs/", "API");
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,refinery_core=warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = installed {
        eprintln!("the log stays as it is: {error}");
    }
}

/// Resolves at the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        select(std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv())).await;
        tracing::info!("stopping: what is in flight is finished first");
        tokio::spawn(async move {
            select(std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv())).await;
            std::process::exit(1);
        });
    })
}
