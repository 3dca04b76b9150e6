//! What is measured, running: a Sluice of this run's own, embedded or distributed, and processes of the bench beside it.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::Method;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::Target;
use tempfile::TempDir;

use crate::machine;
use crate::process::{Env, Serving, said, sluice};
use crate::servers::trio::Trio;
use crate::servers::{Server, free_port};

/// The one SKU of most sales; orders.lua orders it.
pub(crate) const SKU: &str = "ps5";
const TOKEN: &str = "token-of-the-bench";
/// How long accepted orders may take to settle after the load has ended.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(300);
/// `sluice audit` exits with this while accepted orders are on their way.
const UNSETTLED: i32 = 11;

/// A Sluice under measurement.
pub(crate) struct Scene {
    pub(crate) target: Target,
    // Processes end before the servers that they talk to.
    api: Option<Serving>,
    worker: Option<Serving>,
    pub(crate) trio: Option<Trio>,
    folder: TempDir,
    env: Env,
    address: String,
    sales: Cell<u32>,
}

impl Scene {
    /// Everything in one process.
    pub(crate) async fn embedded() -> anyhow::Result<Self> {
        Self::start(None, &["serve"]).await
    }

    /// An API over the three servers; [`Scene::add_worker`] adds a worker.
    pub(crate) async fn distributed() -> anyhow::Result<Self> {
        Self::start(Some(Trio::start()), &["serve", "--role", "api"]).await
    }

    /// An API and a worker over the three servers.
    pub(crate) async fn distributed_with_worker() -> anyhow::Result<Self> {
        let mut scene = Self::distributed().await?;
        scene.add_worker();
        Ok(scene)
    }

    async fn start(trio: Option<Trio>, role: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut env = trio.as_ref().map(Trio::env).unwrap_or_default();
        env.push(("SLUICE_ADMIN_TOKEN", TOKEN.to_owned()));
        let address = format!("127.0.0.1:{}", free_port());
        let target = Target::find(&format!("http://{address}"), false).await?;
        let mut scene = Self { target, api: None, worker: None, trio, folder, env, address, sales: Cell::new(0) };
        scene.api = Some(scene.serve(role));
        Ok(scene)
    }

    fn serve(&self, role: &[&str]) -> Serving {
        let serving = Serving::spawn(self.folder.path(), &[role, &["--listen", &self.address]].concat(), &self.env);
        serving.wait_for("/docs/");
        serving
    }

    /// A process that settles, just started.
    pub(crate) fn add_worker(&mut self) {
        self.worker = Some(Serving::spawn(self.folder.path(), &["worker"], &self.env));
    }

    /// Ends the worker's process the polite way.
    pub(crate) fn stop_worker(&mut self) -> anyhow::Result<()> {
        let (code, said, _) = self.worker.take().context("there is no worker")?.stop();
        ensure!(code == Some(0), "the worker failed: {said}");
        Ok(())
    }

    /// Ends the only process and starts it again; answers when it is ready, in milliseconds from its start.
    pub(crate) async fn restart(&mut self, politely: bool) -> anyhow::Result<f64> {
        let serving = self.api.take().context("nothing runs")?;
        if politely {
            let (code, said, _) = serving.stop();
            ensure!(code == Some(0), "the server failed: {said}");
        } else {
            serving.kill();
        }
        let clock = RealClock::new();
        self.api = Some(Serving::spawn(self.folder.path(), &["serve", "--listen", &self.address], &self.env));
        while self.target.fetch(Method::GET, "/readyz", None, None).await.is_err() {
            ensure!(clock.monotonic() < SETTLED_TIME_MAX, "it does not become ready");
            clock.sleep(Duration::from_millis(2)).await;
        }
        Ok(clock.monotonic().as_secs_f64() * 1e3)
    }

    /// Opens a new sale of one SKU, sold at once unless it is held for so many seconds; answers with its id.
    pub(crate) async fn sale(&self, stock: u64, hold_seconds: u32) -> anyhow::Result<String> {
        let number = self.sales.replace(self.sales.get() + 1);
        let id = format!("sale{number:04}");
        self.create(&id, stock, hold_seconds).await?;
        Ok(id)
    }

    /// Opens a new sale of this id.
    pub(crate) async fn create(&self, id: &str, stock: u64, hold_seconds: u32) -> anyhow::Result<()> {
        let item = json!({"sku": SKU, "stock": stock});
        let sale = json!({"id": id, "name": id, "opens_at": "2020-01-01T00:00:00Z", "hold_seconds": hold_seconds,
            "items": [item]});
        let _created: Value = self.target.ask(Method::POST, "/v1/sales", Some(TOKEN), Some(&sale)).await?;
        Ok(())
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What a console sends to watch a sale.
    pub(crate) fn live_request(&self, sale: &str) -> String {
        let head = format!("host: {}\r\nauthorization: Bearer {TOKEN}", self.address);
        format!("GET /v1/sales/{sale}/live HTTP/1.1\r\n{head}\r\n\r\n")
    }

    /// What the operator sees of a sale: units, and orders in flight.
    pub(crate) async fn stock(&self, sale: &str) -> anyhow::Result<Value> {
        self.target.ask(Method::GET, &format!("/v1/sales/{sale}/stock"), Some(TOKEN), None).await
    }

    /// Orders one unit for this customer, again and again until there is an answer other than "not now"; its status.
    pub(crate) async fn order(&self, sale: &str, customer: &str) -> anyhow::Result<u16> {
        let body = json!({"customer": customer, "lines": [{"sku": SKU, "quantity": 1}]});
        let path = format!("/v1/sales/{sale}/orders");
        let clock = RealClock::new();
        while clock.monotonic() < SETTLED_TIME_MAX {
            let answer = self.target.answer(Method::POST, &path, None, Some(customer), Some(&body)).await;
            match answer.map(|answer| answer.status.as_u16()) {
                Ok(503) | Err(_) => clock.sleep(Duration::from_millis(2)).await,
                Ok(status) => return Ok(status),
            }
        }
        bail!("no order is taken")
    }

    /// Adds units to a sale; the gate has them when this returns.
    pub(crate) async fn restock(&self, sale: &str, units: u64) -> anyhow::Result<()> {
        let (path, more) =
            (format!("/v1/sales/{sale}/items/{SKU}/adjustments"), json!({"delta": units, "reason": "more"}));
        let answer = self.target.answer(Method::POST, &path, Some(TOKEN), Some("more"), Some(&more)).await?;
        ensure!(answer.status.as_u16() == 201, "more stock is answered {}", answer.status);
        Ok(())
    }

    /// Units of this sale that settled orders hold.
    pub(crate) async fn held(&self, sale: &str) -> anyhow::Result<u64> {
        self.stock(sale).await?["items"][0]["held"].as_u64().context("no units")
    }

    /// Waits until all that was accepted in any sale is settled. The queue of an embedded Sluice is one line, so one more
    /// order, in this sale, is the last of it; a thousand sales asked one by one would cost more than what is measured.
    pub(crate) async fn settled_everywhere(&self, sale: &str) -> anyhow::Result<()> {
        let status = self.order(sale, &format!("last-{:016x}", fastrand::u64(..))).await?;
        ensure!(status == 202, "the last order is answered {status}");
        self.settled(sale).await
    }

    /// Waits until all that was accepted is settled.
    pub(crate) async fn settled(&self, sale: &str) -> anyhow::Result<()> {
        let clock = RealClock::new();
        while self.stock(sale).await?["in_flight"] != 0 {
            ensure!(clock.monotonic() < SETTLED_TIME_MAX, "accepted orders of {sale} are not settled");
            clock.sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Recounts a sale, or all of them; anything but exact makes the run fail.
    pub(crate) async fn audit(&self, sale: Option<&str>) -> anyhow::Result<()> {
        let clock = RealClock::new();
        loop {
            let mut command = sluice(self.folder.path(), &["audit"]);
            command.args(sale).envs(self.env.iter().map(|(name, value)| (name, value)));
            let output = command.output()?;
            match output.status.code() {
                Some(0) => return Ok(()),
                Some(UNSETTLED) if clock.monotonic() < SETTLED_TIME_MAX => {
                    clock.sleep(Duration::from_millis(100)).await;
                }
                code => {
                    bail!("sluice audit exits {code:?}: {}{}", String::from_utf8_lossy(&output.stdout), said(&output))
                }
            }
        }
    }

    /// A command of the program beside this deployment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = sluice(self.folder.path(), args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.api.iter().chain(&self.worker).map(Serving::pid).collect()
    }

    /// The most memory that each of its processes had resident so far, in words.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<String> {
        let names: &[&str] = if self.trio.is_some() { &["API ", "worker "] } else { &[""] };
        let peaks =
            names.iter().zip(self.pids()).map(|(name, pid)| Ok(format!("{name}{:.0} MB", machine::peak_mb(pid)?)));
        Ok(format!("peak memory of its processes: {}", peaks.collect::<anyhow::Result<Vec<_>>>()?.join(", ")))
    }

    /// The size of the data folder, in megabytes.
    pub(crate) fn data_mb(&self) -> f64 {
        let sizes = std::fs::read_dir(self.folder.path().join("data")).into_iter().flatten().flatten();
        sizes.filter_map(|entry| entry.metadata().ok()).map(|data| data.len() as f64 / 1e6).sum()
    }
}

/// A process of the bench's own, on a free port, that dies with it.
pub(crate) struct Control {
    _server: Server,
    pub(crate) url: String,
    pub(crate) pid: u32,
}

/// Where a control says that it is ready, and which process it is.
const PID: &str = "pid";

impl Control {
    /// Starts this role of the bench's program in this folder, at a free port.
    pub(crate) fn start(name: &'static str, folder: TempDir, role: &'static str) -> anyhow::Result<Self> {
        Self::start_with(name, folder, role, free_port().into())
    }

    /// The same with another number than a port, for a role that does not listen.
    pub(crate) fn start_with(
        name: &'static str,
        folder: TempDir,
        role: &'static str,
        number: usize,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let ready = folder.path().join(PID);
        let mut server = Server::new(name, folder, move |folder| {
            let mut command = Command::new(&program);
            command.arg(role).arg(folder).arg(number.to_string());
            command
        });
        server.start(|| ready.exists());
        let pid = std::fs::read_to_string(&ready)?.parse().context("it says no process number")?;
        Ok(Self { _server: server, url: format!("http://127.0.0.1:{number}"), pid })
    }

    /// Said by the process itself.
    pub(crate) fn ready(folder: &Path) -> anyhow::Result<()> {
        let unseen = folder.join("pid.new");
        std::fs::write(&unseen, std::process::id().to_string())?;
        Ok(std::fs::rename(unseen, folder.join(PID))?)
    }
}
