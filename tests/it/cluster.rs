//! A distributed Sluice of one test's own: processes of the real program over three private servers.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::Target;
use tempfile::TempDir;

use crate::process::{Env, Serving, said, sluice};
use crate::servers::free_port;
use crate::servers::trio::Trio;

pub(crate) const TOKEN: &str = "token-of-the-test";

/// How long a sale may take to settle after everything is well again; a busy machine is slow.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(20);

/// Processes of one deployment.
pub(crate) struct Crew {
    pub(crate) apis: Vec<Member>,
    pub(crate) workers: Vec<Member>,
    folder: TempDir,
    env: Env,
}

/// A crew over three servers of its own.
pub(crate) struct Cluster {
    crew: Crew,
    pub(crate) trio: Trio,
}

/// One process of a cluster, which keeps its address through all its lives.
pub(crate) struct Member {
    pub(crate) address: String,
    args: Vec<String>,
    folder: PathBuf,
    env: Env,
    serving: Option<Serving>,
}

impl Cluster {
    /// Two APIs and two workers.
    pub(crate) fn start() -> Self {
        Self::of(2, 2)
    }

    pub(crate) fn of(apis: usize, workers: usize) -> Self {
        let trio = Trio::start();
        let env = trio.env();
        Self::over(trio, env, apis, workers)
    }

    /// Processes that find these servers by these variables.
    pub(crate) fn over(trio: Trio, env: Env, apis: usize, workers: usize) -> Self {
        Self { crew: Crew::start(env, apis, workers), trio }
    }

    /// Two APIs and two workers that find these servers by different ways; commands beside them go straight.
    pub(crate) fn apart(trio: Trio, apis: &Env, workers: &Env) -> Self {
        let roles = [(&["serve", "--role", "api"][..], apis), (&["worker"][..], workers)];
        let [apis, workers] = roles.map(|role| vec![role; 2]);
        // Within what even a killed test leaves nothing of.
        let folder = tempfile::tempdir_in(trio.redis.server.folder()).unwrap();
        Self { crew: Crew::of(folder, trio.env(), &apis, &workers), trio }
    }
}

impl Deref for Cluster {
    type Target = Crew;

    fn deref(&self) -> &Crew {
        &self.crew
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut Crew {
        &mut self.crew
    }
}

impl Crew {
    /// Processes that find their servers by these variables. They start all at once on an empty database: each of them
    /// wants to migrate it.
    pub(crate) fn start(env: Env, apis: usize, workers: usize) -> Self {
        let (api, worker) = ((&["serve", "--role", "api"][..], &env), (&["worker"][..], &env));
        Self::of(new_folder(), env.clone(), &vec![api; apis], &vec![worker; workers])
    }

    /// One process that is everything.
    pub(crate) fn embedded() -> Self {
        Self::of(new_folder(), Env::new(), &[(&["serve"], &Env::new())], &[])
    }

    /// APIs and workers, each with its arguments and variables, and the variables of commands beside them.
    fn of(folder: TempDir, mut env: Env, apis: &[(&[&str], &Env)], workers: &[(&[&str], &Env)]) -> Self {
        let token = ("SLUICE_ADMIN_TOKEN", TOKEN.to_owned());
        env.push(token.clone());
        let with_token = |env: &Env| [&env[..], std::slice::from_ref(&token)].concat();
        let member = |(role, env): &(&[&str], &Env)| Member::new(role, folder.path(), &with_token(env));
        let (apis, workers) = (apis.iter().map(member).collect(), workers.iter().map(member).collect());
        let mut crew = Self { apis, workers, folder, env };
        crew.members_mut().for_each(|member| member.spawn(&[]));
        crew.members().for_each(Member::is_up);
        crew
    }

    /// All processes.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.apis.iter().chain(&self.workers)
    }

    /// All processes, to do something to them.
    pub(crate) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.apis.iter_mut().chain(&mut self.workers)
    }

    /// What all of them say in their present lives.
    pub(crate) fn said(&self) -> String {
        self.members().map(Member::said).collect::<Vec<_>>().join("\n")
    }

    /// The APIs' addresses.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.apis.iter().map(|api| format!("http://{}", api.address)).collect()
    }

    pub(crate) async fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for url in self.urls() {
            targets.push(Target::find(&url, false).await.unwrap());
        }
        targets
    }

    /// Runs a command of the program beside the others.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str], code: i32) -> String {
        let output = with(self.folder.path(), args, &self.env);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Creates the sale `drop`, open since long ago.
    pub(crate) async fn create(&self, items: Value, more: Value) {
        let mut sale = json!({ "id": "drop", "name": "Drop", "opens_at": "2020-01-01T00:00:00Z", "items": items });
        sale.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let _created: Value =
            self.targets().await[0].ask(Method::POST, "/v1/sales", Some(TOKEN), Some(&sale)).await.unwrap();
    }

    /// The audit, once nothing is on its way any more.
    pub(crate) async fn settled_audit(&self) -> Value {
        let target = self.targets().await.pop().unwrap();
        let audit = async || target.ask::<Value>(Method::GET, "/v1/sales/drop/audit", Some(TOKEN), None).await.unwrap();
        let clock = RealClock::new();
        loop {
            let audit = audit().await;
            if audit["verdict"] != "unsettled" {
                return audit;
            }
            assert!(clock.monotonic() < SETTLED_TIME_MAX, "not settled: {audit}\n{}", self.said());
            clock.sleep(Duration::from_millis(20)).await;
        }
    }
}

fn new_folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

impl Member {
    fn new(role: &[&str], folder: &Path, env: &Env) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let args = role.iter().chain(&["--listen", &address]).map(ToString::to_string).collect();
        Self { address, args, folder: folder.to_owned(), env: env.clone(), serving: None }
    }

    /// Starts the process, with these variables besides its own; it may not be up yet.
    pub(crate) fn spawn(&mut self, more: &[(&'static str, String)]) {
        assert!(self.serving.is_none(), "{} runs already", self.address);
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.serving = Some(Serving::spawn(&self.folder, &args, &[&self.env, more].concat()));
    }

    /// Waits until it listens and has found its servers.
    #[track_caller]
    pub(crate) fn is_up(&self) {
        drop(self.serving().address());
    }

    /// The running process.
    #[track_caller]
    pub(crate) fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("it runs")
    }

    /// What its present life has said.
    pub(crate) fn said(&self) -> String {
        self.serving().said()
    }

    /// Ends it the hard way, wherever it is.
    pub(crate) fn kill(&mut self) {
        self.serving.take().expect("it was started").kill();
    }

    /// Whether it died by itself, or stands still.
    pub(crate) fn is_struck(&self) -> bool {
        matches!(self.serving().condition(), 'T' | 'Z')
    }

    /// Goes on if it stands still; otherwise it is started anew, with nothing that may strike it.
    pub(crate) fn go_on(&mut self) {
        if self.serving().condition() == 'T' {
            return self.serving().resume();
        }
        self.kill();
        self.spawn(&[]);
    }

    /// Asks it to stop; answers with its exit code, everything it said, and everything it printed.
    pub(crate) fn stop(&mut self) -> (Option<i32>, String, String) {
        self.serving.take().expect("it runs").stop()
    }
}

/// Runs a command of the program in this environment.
pub(crate) fn with(folder: &Path, args: &[&str], env: &Env) -> Output {
    sluice(folder, args).envs(env.iter().map(|(name, value)| (name, value))).output().unwrap()
}
