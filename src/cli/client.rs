//! Commands talk to a running server over the crowd's wire; a note in the data folder leads them there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::serve::TOKEN_FILE;
use crate::config::{DataFolder, Secret, each};
use crate::load::wire::{Answer, Target, Wire, problem_in_words};

/// Which server to talk to.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The server. If absent, the one that serves the data folder
    #[arg(long, env = "SLUICE_URL", value_name = "URL")]
    url: Option<String>,

    /// The admin token. If absent, the one kept in the data folder
    #[arg(long, env = "SLUICE_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    admin_token: Option<Secret>,

    #[command(flatten)]
    data: DataFolder,
}

impl Server {
    /// Where the data is, whether it is served or not.
    pub(super) fn data(&self) -> &Path {
        &self.data.path
    }

    /// The server that was named, or that serves the data folder; `None` if nobody does.
    pub(super) async fn find(&self) -> anyhow::Result<Option<Client>> {
        let Some(url) = self.url.clone().filter(|url| !url.is_empty()) else {
            let Some(note) = ServerNote::read(&self.data.path) else { return Ok(None) };
            let client = Client::new(&note.url, self.token()).await?;
            // A note without a server was left by one that was killed.
            return Ok(Wire::open(&client.target).await.is_ok().then_some(client));
        };
        Client::new(&url, self.token()).await.map(Some)
    }

    /// Like [`Server::find`], for commands that cannot do without.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let found = self.find().await?;
        found.with_context(|| {
            let data = self.data.path.display();
            format!(
                "nobody serves the data folder {data}. Start `sluice serve`, or name a server with --url or SLUICE_URL"
            )
        })
    }

    fn token(&self) -> Option<String> {
        let kept = || fs::read_to_string(self.data.path.join(TOKEN_FILE)).ok();
        let given = each(&self.admin_token).next().map(str::to_owned);
        given.or_else(|| kept().map(|token| token.trim().to_owned()))
    }
}

/// Talks to one server.
pub(super) struct Client {
    target: Target,
    token: Option<String>,
}

/// What the server answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Client {
    async fn new(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        Ok(Self { target: Target::find(url, true).await?, token })
    }

    /// Reads.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None, None).await?.done()
    }

    /// Does.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body), None).await?.done()
    }

    /// Asks and takes any answer, however long it takes.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let Answer { status, body, .. } = self.target.answer(method, path, self.token.as_deref(), key, body).await?;
        let body = serde_json::from_slice(&body).with_context(|| format!("{} is no Sluice", self.target.url))?;
        Ok(Reply { status, body })
    }
}

impl Reply {
    /// The answer, if it is a yes; otherwise the problem in words.
    pub(super) fn done(self) -> anyhow::Result<Value> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            bail!("the server does not know this token. Set SLUICE_ADMIN_TOKEN, or --data to the folder it serves");
        }
        let mut message = problem_in_words(&self.body);
        // Of a single one the detail says everything.
        for fault in self.body["errors"].as_array().filter(|faults| faults.len() > 1).into_iter().flatten() {
            let place = fault["pointer"].as_str().or(fault["parameter"].as_str()).unwrap_or_default();
            message += &format!("\n  {place} {}", fault["detail"].as_str().unwrap_or_default());
        }
        bail!(message)
    }
}

/// Says in the data folder where its server is.
#[derive(Serialize, Deserialize)]
pub(super) struct ServerNote {
    pub(super) url: String,
    #[serde(skip)]
    path: PathBuf,
}

impl ServerNote {
    /// Without it the server is as good, only its address has to be named.
    pub(super) fn write(data: &Path, url: &str) -> Self {
        let note = Self { url: url.to_owned(), path: Self::path(data) };
        let text = serde_json::to_string(&note).expect("a string becomes JSON");
        if let Err(error) = fs::create_dir_all(data).and_then(|()| fs::write(&note.path, text)) {
            tracing::warn!(%error, path = %note.path.display(), "could not note the address for other commands");
        }
        note
    }

    pub(super) fn read(data: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(Self::path(data)).ok()?).ok()
    }

    /// Takes the note away, unless another server has written its own over it.
    pub(super) fn remove(self) {
        let own = self.path.parent().and_then(Self::read).is_some_and(|note| note.url == self.url);
        if !own {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "could not remove");
        }
    }

    fn path(data: &Path) -> PathBuf {
        data.join("server.json")
    }
}
