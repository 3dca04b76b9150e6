//! A small HTTP client for the commands that talk to a running server, and the note that leads them there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::body::Body;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;

use super::serve::TOKEN_FILE;
use crate::config::{DataFolder, Secret, given};

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
            let client = Client::new(&note.url, self.token())?;
            // A note without a server was left by one that was killed.
            return Ok(client.connect().await.is_ok().then_some(client));
        };
        Client::new(&url, self.token()).map(Some)
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
        let first = |list: &str| list.split(',').next().map(|token| token.trim().to_owned());
        given(&self.admin_token).and_then(first).or_else(|| kept().map(|token| token.trim().to_owned()))
    }
}

/// Talks to one server, a connection per request.
pub(super) struct Client {
    authority: String,
    token: Option<String>,
}

/// What the server answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Client {
    fn new(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL. Write it like http://127.0.0.1:8080"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("{url} is no http:// URL. Behind TLS, name the server's own address");
        };
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()), token })
    }

    /// Reads.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None, None).await?.done()
    }

    /// Does.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body), None).await?.done()
    }

    /// Asks and takes any answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        request = request.header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        let response = sender.send_request(request.context("this cannot be sent")?).await;
        let response = response.with_context(|| format!("{} broke off", self.authority))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
        let body = serde_json::from_slice(&bytes).with_context(|| format!("{} is no Sluice", self.authority))?;
        Ok(Reply { status, body })
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let authority = &self.authority;
        TcpStream::connect(authority).await.with_context(|| {
            format!("no Sluice answers at http://{authority}. Start `sluice serve`, or name another with --url")
        })
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
        let text = |name: &str| self.body[name].as_str().unwrap_or("?").to_owned();
        let mut message = format!("{}: {}", text("title"), text("detail"));
        for fault in self.body["errors"].as_array().into_iter().flatten() {
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
