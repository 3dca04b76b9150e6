//! `sluice serve`: opens a deployment, and serves it until it is told to stop.

use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use super::client::ServerNote;
use crate::clock::{Clock, RealClock};
use crate::config::{self, LogFormat, Role};
use crate::demo::{Chaos, Demo};
use crate::deployment::{self, Deployment, Layer, Schema, create_private};
use crate::http::{self, Api, Limits, RunBy, Site, Tokens};
use crate::model::limits;

/// How long whoever came to a stopped server may take its answer.
const AFTERWORD_TIME_MAX: Duration = Duration::from_millis(100);
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

/// `sluice worker`: the same process in another role.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example: sluice worker",
    after_help = "The same as `sluice serve --role worker`. Start as many as you like: each sale is settled by one of them at a \
                  time.\nExit codes: 0 stopped by a signal, 1 failed, 2 wrong usage. A second signal exits at once."
)]
pub(super) struct WorkerArgs {
    #[command(flatten)]
    process: config::Process,
}

pub(super) async fn run_worker(WorkerArgs { process }: WorkerArgs) -> anyhow::Result<ExitCode> {
    let config = config::Serve { role: Role::Worker, demo: false, process, tokens: config::Tokens::default() };
    run(Args { config }).await
}

pub(super) async fn run(Args { config }: Args) -> anyhow::Result<ExitCode> {
    let servers = config.check()?;
    let process = &config.process;
    log_to_stderr(process.log);
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let listener = match config.listen() {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let stop = Stop::on_signal(clock.clone())?;
    let opened = match &servers {
        Some(servers) => join_servers(servers, process, listener.as_ref(), &clock, &stop).await?,
        None => Some(deployment::embedded_with(&process.data.path, schema(process), clock.clone()).await?),
    };
    let Some(mut deployment) = opened else { return Ok(ExitCode::SUCCESS) };
    let chaos = if config.demo { Some(surround(&mut deployment)?) } else { None };
    let server = Server { deployment: Arc::new(deployment), role: config.role, chaos, stop };
    match listener {
        Some(listener) => server.serve(listener, &config, clock.as_ref()).await?,
        None => server.work().await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn schema(process: &config::Process) -> Schema {
    if process.no_migrate { Schema::Check } else { Schema::Migrate }
}

/// Waits for the servers, and meanwhile tells everybody who asks that it does; `None` if it was stopped first.
async fn join_servers(
    servers: &config::Servers,
    process: &config::Process,
    listener: Option<&std::net::TcpListener>,
    clock: &Arc<dyn Clock>,
    stop: &Stop,
) -> anyhow::Result<Option<Deployment>> {
    let waiting = Arc::new(deployment::Waiting::default());
    let joined = deployment::distributed(servers, schema(process), deployment::Patience::Endless, waiting.clone());
    let (joined, stopped) = (pin!(joined), pin!(stop.asked()));
    let outcome = match listener {
        None => select(joined, stopped).await,
        Some(listener) => {
            let (ready, is_ready) = oneshot::channel::<()>();
            let site = Site::waiting(move || waiting.missing(), clock.clone(), Limits::default());
            let site = http::serve(shared(listener)?, site, async { drop(is_ready.await) });
            let outcome = async {
                let outcome = select(joined, stopped).await;
                drop(ready);
                outcome
            };
            futures_util::future::join(outcome, site).await.0
        }
    };
    match outcome {
        Either::Left((joined, _)) => joined.map(Some),
        Either::Right(_) => Ok(None),
    }
}

/// A process that has joined its deployment.
struct Server {
    deployment: Arc<Deployment>,
    role: Role,
    /// Only in a demonstration.
    chaos: Option<Arc<Chaos>>,
    stop: Stop,
}

/// Chaos around the layers of a deployment that nobody uses yet.
pub(super) fn surround(deployment: &mut Deployment) -> anyhow::Result<Arc<Chaos>> {
    let shop = Arc::get_mut(&mut deployment.shop).context("the shop is in use already")?;
    let chaos = Chaos::new(shop.clock.clone());
    chaos.surround(shop);
    Ok(chaos)
}

impl Server {
    /// Serves and works until it is told to stop.
    async fn serve(
        self,
        listener: std::net::TcpListener,
        config: &config::Serve,
        clock: &dyn Clock,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr()?;
        let data = &config.process.data.path;
        let takes_orders = self.role != Role::Worker;
        let generated = if takes_orders { generated_token(&config.tokens, data, clock)? } else { None };
        let admin = config::each(&config.tokens.admin_token).chain(generated.as_deref());
        let tokens = Tokens::new(admin, config::each(&config.tokens.shop_token));
        let shop = self.deployment.shop.clone();
        let database = config.process.layers.database()?;
        let demo = self.chaos.clone().map(|chaos| Demo::new(url(address), chaos, shop.clock.clone(), database));
        let loopback = address.ip().is_loopback();
        let api = Api::with_demo(shop, run_by(&self.deployment), tokens, Limits::default(), loopback, demo);
        let site = if takes_orders { Site::whole(api) } else { Site::machine(api) };
        let note = takes_orders.then(|| ServerNote::write(data, &url(address)));
        banner(&self.deployment, address, takes_orders.then_some(data), generated.as_deref());
        let mut working = self.spawn_work();
        let serving = pin!(http::serve(shared(&listener)?, site, self.stop.asked()));
        if let Either::Right((ended, _)) = select(serving, &mut working).await {
            bail!("settlement ended ({ended:?}); nothing is lost, start again");
        }
        self.leave(working, Some(&listener)).await?;
        if let Some(note) = note {
            note.remove();
        }
        Ok(())
    }

    /// Works until it is told to stop, and answers nobody.
    async fn work(self) -> anyhow::Result<()> {
        for line in introduction(&self.deployment) {
            eprintln!("{line}");
        }
        let mut working = self.spawn_work();
        if let Either::Right((ended, _)) = select(pin!(self.stop.asked()), &mut working).await {
            bail!("settlement ended ({ended:?}); nothing is lost, start again");
        }
        self.leave(working, None).await
    }

    fn spawn_work(&self) -> JoinHandle<()> {
        let (deployment, role) = (self.deployment.clone(), self.role);
        match self.chaos.clone() {
            None => tokio::spawn(async move { deployment.run(role).await }),
            Some(chaos) => tokio::spawn(async move { chaos.run_worker(|| deployment.run(role)).await }),
        }
    }

    /// Settles what was accepted, within what is left of the time to stop. Whoever still comes is told to come again.
    async fn leave(&self, working: JoinHandle<()>, listener: Option<&std::net::TcpListener>) -> anyhow::Result<()> {
        let time_max = self.stop.time_left();
        let (settled, is_settled) = oneshot::channel::<()>();
        let leaving = async {
            if !self.deployment.drain_within(time_max).await {
                tracing::warn!("some orders are still to be settled; the next start does it");
            }
            working.abort();
            self.deployment.fold().await;
            drop(settled);
        };
        match listener {
            None => leaving.await,
            Some(listener) => {
                let stopping = || vec!["the server is stopping".to_owned()];
                let limits = Limits { shutdown_time_max: AFTERWORD_TIME_MAX, ..Limits::default() };
                let site = Site::waiting(stopping, self.deployment.shop.clock.clone(), limits);
                let site = http::serve(shared(listener)?, site, async { drop(is_settled.await) });
                futures_util::future::join(leaving, site).await;
            }
        }
        Ok(())
    }
}

/// In words for everybody: what runs each layer.
pub(super) fn run_by(deployment: &Deployment) -> RunBy {
    let [gate, queue, ledger] = deployment.layers.each_ref().map(|layer| layer.run_by);
    RunBy { gate, queue, ledger }
}

async fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let bound = TcpListener::bind(address).await.and_then(TcpListener::into_std);
    bound.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            anyhow::anyhow!("something listens on {address} already. Stop it, or choose another address with --listen")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}. Choose another address with --listen"),
    })
}

/// The same socket once more, so that one server can take over from another without a moment in which nobody listens.
fn shared(listener: &std::net::TcpListener) -> anyhow::Result<TcpListener> {
    Ok(TcpListener::from_std(listener.try_clone()?)?)
}

/// The token of an operator who set none: made once, kept where only its owner can read it.
fn generated_token(tokens: &config::Tokens, data: &Path, clock: &dyn Clock) -> anyhow::Result<Option<String>> {
    if config::each(&tokens.admin_token).next().is_some() {
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
    create_private(data)?;
    keep(&path, &token).with_context(|| format!("cannot write {}", path.display()))?;
    // Another process that shares the folder may have been first.
    let kept = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(kept.trim().to_owned()))
}

/// Writes a file that only its owner can read, whole or not at all; one that is there already stays.
fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    let whole = path.with_extension(std::process::id().to_string());
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&whole)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    let linked = fs::hard_link(&whole, path);
    fs::remove_file(&whole)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
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

/// Where a browser finds the console. What stands behind the `#` it sends to nobody: the page takes the token from there.
pub(super) fn console(url: &str, token: Option<&str>) -> String {
    token.map_or_else(|| format!("{url}/"), |token| format!("{url}/#token={token}"))
}

/// The token is shown on a terminal only: what goes elsewhere is a log.
fn banner(deployment: &Deployment, address: SocketAddr, data: Option<&PathBuf>, generated: Option<&str>) {
    let mut lines = introduction(deployment);
    lines.push(format!("  {:8} {address}", "address"));
    if let Some(data) = data {
        let shown = generated.filter(|_| std::io::stderr().is_terminal());
        let token = match (shown, generated) {
            (Some(_), _) => format!("in the console's link, and in {}", data.join(TOKEN_FILE).display()),
            (None, Some(_)) => format!("in {}", data.join(TOKEN_FILE).display()),
            (None, None) => "yours".to_owned(),
        };
        lines.push(format!("  {:8} {}", "data", data.display()));
        lines.push(format!("  {:8} {token}", "token"));
        lines.push(format!("  {:8} {}", "console", console(&url(address), shown)));
        lines.push(format!("  {:8} {}/docs/", "API", url(address)));
    }
    eprintln!("{}", lines.join("\n"));
}

fn introduction(deployment: &Deployment) -> Vec<String> {
    let line = |layer: &Layer| format!("  {:8} {}, {}", layer.name, layer.run_by, layer.place);
    let name = format!("Sluice {}", env!("CARGO_PKG_VERSION"));
    std::iter::once(name).chain(deployment.layers.iter().map(line)).collect()
}

pub(super) fn log_to_stderr(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,refinery_core=warn,lapin=off"));
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

/// Whether the process was asked to stop.
pub(super) struct Stop {
    /// On the clock's monotonic time.
    at: watch::Receiver<Option<Duration>>,
    clock: Arc<dyn Clock>,
}

impl Stop {
    /// By the first SIGTERM or SIGINT; the second ends the process at once.
    fn on_signal(clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (tell, at) = watch::channel(None);
        let now = clock.clone();
        tokio::spawn(async move {
            select(pin!(terminate.recv()), pin!(interrupt.recv())).await;
            tracing::info!("stopping: what is in flight is finished first");
            tell.send_replace(Some(now.monotonic()));
            select(pin!(terminate.recv()), pin!(interrupt.recv())).await;
            std::process::exit(1);
        });
        Ok(Self { at, clock })
    }

    /// Resolves once it was; for everybody who waits for it.
    fn asked(&self) -> impl Future<Output = ()> + use<> {
        let mut at = self.at.clone();
        async move { drop(at.wait_for(Option::is_some).await) }
    }

    /// What is left of the time to stop.
    fn time_left(&self) -> Duration {
        let passed = self.at.borrow().map_or(Duration::ZERO, |at| self.clock.monotonic().saturating_sub(at));
        limits::SHUTDOWN_TIME_MAX.saturating_sub(passed)
    }
}
