//! What an operator may choose. The comments here are what `--help` says; a flag goes before the environment, the
//! environment before a file `.env`, that before the default.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

/// What `sluice serve` may be told.
#[derive(Debug, Args)]
pub struct Serve {
    /// What this process does. Everything, unless several processes share a database, a broker and a gate
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,

    /// Let the console call a crowd, kill the worker, deliver twice and freeze the gate. On this machine only
    #[arg(long)]
    pub demo: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub process: Process,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub tokens: Tokens,
}

/// What every process of a deployment may be told.
#[derive(Debug, Args)]
pub struct Process {
    /// Address to listen on; a worker, which answers /livez, /readyz and /metrics alone, listens only if told.
    /// An API that others can reach needs a token of your own [default: 127.0.0.1:8080]
    #[arg(long, env = "SLUICE_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<Listen>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub data: DataFolder,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub layers: Layers,

    /// Do not bring the database to this program's schema: `sluice migrate` does it beforehand
    #[arg(long)]
    pub no_migrate: bool,

    /// How the log is written
    #[arg(long, env = "SLUICE_LOG", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log: LogFormat,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The API and settlement
    All,
    /// The API alone
    Api,
    /// Settlement alone
    Worker,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line per event, for people
    Text,
    /// A JSON object per event, for machines
    Json,
}

/// Where an embedded Sluice keeps everything; a distributed one keeps only the generated token there.
#[derive(Debug, Clone, Args)]
pub struct DataFolder {
    /// Folder for the embedded database and the generated token
    #[arg(long = "data", env = "SLUICE_DATA", default_value = DATA_DEFAULT, value_name = "FOLDER",
        value_hint = ValueHint::DirPath, value_parser = OsStringValueParser::new().map(folder))]
    pub path: PathBuf,
}

/// Where an embedded Sluice keeps everything unless told otherwise.
const DATA_DEFAULT: &str = "./sluice-data";

/// An empty variable is as good as none.
fn folder(text: OsString) -> PathBuf {
    if text.is_empty() { DATA_DEFAULT.into() } else { text.into() }
}

/// Who may do what. Several tokens of a kind, parted by commas, live at once, so that one can be replaced without a gap.
#[derive(Debug, Default, Args)]
pub struct Tokens {
    /// Token that may do everything. Generated and kept in the data folder if there is none. Better set in the
    /// environment: others on this machine can read flags
    #[arg(long, env = "SLUICE_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub admin_token: Option<Secret>,

    /// Token that may confirm orders and nothing else, for the shop in front of Sluice
    #[arg(long, env = "SLUICE_SHOP_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub shop_token: Option<Secret>,
}

/// What runs the layers: all three addresses for a distributed Sluice, none for an embedded one.
#[derive(Debug, Args)]
pub struct Layers {
    /// PostgreSQL, for the ledger; or DB_USER, DB_HOST, DB_NAME, DB_PASSWORD and DB_PORT
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Secret>,

    /// Redis or Valkey, for the gate
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<Secret>,

    /// RabbitMQ, for the queue
    #[arg(long, env = "RABBITMQ_URL", hide_env_values = true, value_name = "URL")]
    rabbitmq_url: Option<Secret>,

    #[arg(long, env = "DB_USER", hide = true)]
    db_user: Option<Secret>,
    #[arg(long, env = "DB_HOST", hide = true)]
    db_host: Option<Secret>,
    #[arg(long, env = "DB_NAME", hide = true)]
    db_name: Option<Secret>,
    #[arg(long, env = "DB_PASSWORD", hide = true, hide_env_values = true)]
    db_password: Option<Secret>,
    #[arg(long, env = "DB_PORT", hide = true)]
    db_port: Option<Secret>,
}

/// Reads `.env` in the working folder into the environment, which it does not override. Call it before the first thread.
pub fn load_env_file() -> anyhow::Result<()> {
    match dotenvy::from_path(".env") {
        Err(dotenvy::Error::LineParse(_, column)) => bail!(
            "the file .env has a line that is not NAME=value (an error at its character {column}). Correct or remove it"
        ),
        Err(error) if !error.not_found() => Err(error).context("cannot read the file .env"),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// An address to listen on; none if the text is empty, for an empty variable is as good as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(Option<SocketAddr>);

impl FromStr for Listen {
    type Err = AddrParseError;
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))) }
    }
}

/// Where an API listens unless told otherwise.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl Serve {
    /// Where to listen; `None` for a worker that was not told.
    pub fn listen(&self) -> Option<SocketAddr> {
        let told = self.process.listen.and_then(|Listen(address)| address);
        told.or((self.role != Role::Worker).then_some(LISTEN_DEFAULT))
    }

    /// Refuses what is unsafe or does not go together, saying what to do instead; otherwise answers with the servers to
    /// use, `None` for an embedded Sluice.
    pub fn check(&self) -> anyhow::Result<Option<Servers>> {
        let servers = self.process.layers.servers()?;
        if servers.is_none() && self.role != Role::All {
            bail!(
                "an API or a worker alone needs a database, a broker and a gate that several processes share: set \
                 DATABASE_URL, REDIS_URL and RABBITMQ_URL. An embedded Sluice is one process: `sluice serve`"
            );
        }
        let public = self.listen().is_some_and(|listen| !listen.ip().is_loopback());
        if self.demo && (public || self.role != Role::All) {
            bail!(
                "--demo lets whoever has the console break things on purpose: it needs --role all and an address that \
                 only this machine reaches, such as 127.0.0.1:8080"
            );
        }
        if public && self.role != Role::Worker && each(&self.tokens.admin_token).next().is_none() {
            bail!(
                "{} can be reached from other machines, and there is no admin token. Set SLUICE_ADMIN_TOKEN, or listen \
                 on 127.0.0.1",
                self.listen().unwrap_or(LISTEN_DEFAULT)
            );
        }
        Ok(servers)
    }
}

/// The servers of a distributed Sluice.
#[derive(Debug, Clone)]
pub struct Servers {
    /// PostgreSQL.
    pub database: Secret,
    /// Redis or Valkey.
    pub redis: Secret,
    /// RabbitMQ.
    pub rabbitmq: Secret,
}

impl Layers {
    /// The servers that were given: `None` if none was, an error that names what is missing if some were.
    pub fn servers(&self) -> anyhow::Result<Option<Servers>> {
        let database = self.database()?;
        let in_parts = database.is_some() && given(&self.database_url).is_none();
        let all = [
            (if in_parts { "DB_HOST" } else { "DATABASE_URL" }, database.map(|url| url.0)),
            ("REDIS_URL", given(&self.redis_url).map(str::to_owned)),
            ("RABBITMQ_URL", given(&self.rabbitmq_url).map(str::to_owned)),
        ];
        let names = |there: bool| -> Vec<&str> {
            all.iter().filter(|(_, url)| url.is_some() == there).map(|(name, _)| *name).collect()
        };
        let (there, missing) = (names(true), names(false));
        if !there.is_empty() && !missing.is_empty() {
            bail!(
                "{} without {}: a distributed Sluice needs all three, an embedded one none",
                there.join(" and "),
                missing.join(" and ")
            );
        }
        let [(_, Some(database)), (_, Some(redis)), (_, Some(rabbitmq))] = all else { return Ok(None) };
        Ok(Some(Servers { database: Secret(database), redis: Secret(redis), rabbitmq: Secret(rabbitmq) }))
    }

    /// The database alone: `None` if there is only the data folder.
    pub fn database(&self) -> anyhow::Result<Option<Secret>> {
        let url = match given(&self.database_url) {
            Some(url) => Some(url.to_owned()),
            None => self.database_parts()?,
        };
        Ok(url.map(Secret))
    }

    /// The database's address made of DB_USER and the like, as libpq writes it; `None` if none of them was given.
    fn database_parts(&self) -> anyhow::Result<Option<String>> {
        let parts = [
            ("DB_HOST", "host", given(&self.db_host)),
            ("DB_USER", "user", given(&self.db_user)),
            ("DB_NAME", "dbname", given(&self.db_name)),
            ("DB_PORT", "port", given(&self.db_port)),
            ("DB_PASSWORD", "password", given(&self.db_password)),
        ];
        if parts.iter().all(|(_, _, value)| value.is_none()) {
            return Ok(None);
        }
        let missing = parts.iter().take(3).filter(|(_, _, value)| value.is_none()).map(|(name, ..)| *name);
        let missing: Vec<&str> = missing.collect();
        if let [_, others @ ..] = missing.as_slice() {
            let (names, verb) = (missing.join(" and "), if others.is_empty() { "is" } else { "are" });
            bail!("{names} {verb} missing: a database needs DB_HOST, DB_USER and DB_NAME, or DATABASE_URL alone");
        }
        if let Some(port) = given(&self.db_port).filter(|port| port.parse::<u16>().is_err()) {
            bail!("DB_PORT is {port:?}, which is no port. PostgreSQL's own is 5432");
        }
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let words = parts.iter().filter_map(|(_, key, value)| value.map(|value| format!("{key}='{}'", quoted(value))));
        Ok(Some(words.collect::<Vec<_>>().join(" ")))
    }
}

/// A text that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The secret, if it is one: an empty variable is as good as none.
pub fn given(secret: &Option<Secret>) -> Option<&str> {
    secret.as_ref().map(Secret::reveal).map(str::trim).filter(|text| !text.is_empty())
}

/// Tokens parted by commas.
pub fn each(secret: &Option<Secret>) -> impl Iterator<Item = &str> {
    given(secret).into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

impl FromStr for Secret {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serve: Serve,
    }

    fn checked(flags: &[&str]) -> Result<Option<Servers>, String> {
        let serve = Command::try_parse_from([&["serve"], flags].concat()).expect("good flags").serve;
        assert!(!format!("{serve:?}").contains("hunter2"), "a secret is shown");
        serve.check().map_err(|error| error.to_string())
    }

    fn refusal(flags: &[&str]) -> String {
        checked(flags).expect_err("it is refused")
    }

    #[test]
    fn nothing_given_is_an_embedded_server_on_loopback() {
        assert!(matches!(checked(&[]), Ok(None)));
        assert!(matches!(checked(&["--listen", "[::1]:0", "--redis-url", ""]), Ok(None)));
        let empty = Command::try_parse_from(["serve", "--listen", "", "--data", ""]).expect("good flags").serve;
        assert_eq!(empty.listen(), Some(LISTEN_DEFAULT));
        assert_eq!(empty.process.data.path, PathBuf::from(DATA_DEFAULT));
    }

    #[test]
    fn a_public_address_needs_a_token() {
        let refused = refusal(&["--listen", "0.0.0.0:8080"]);
        assert!(refused.contains("SLUICE_ADMIN_TOKEN"), "{refused}");
        refusal(&["--listen", "0.0.0.0:8080", "--admin-token", " "]);
        refusal(&["--listen", "0.0.0.0:8080", "--admin-token", ",  ,"]);
        assert!(matches!(checked(&["--listen", "0.0.0.0:8080", "--admin-token", "hunter2"]), Ok(None)));
    }

    #[test]
    fn a_demonstration_stays_on_this_machine() {
        let refused = refusal(&["--demo", "--listen", "0.0.0.0:8080", "--admin-token", "hunter2"]);
        assert!(refused.contains("--demo"), "{refused}");
        let all = ["--demo", "--database-url", "d", "--redis-url", "r", "--rabbitmq-url", "q"];
        assert!(refusal(&[&all[..], &["--role", "api"]].concat()).contains("--role all"));
        assert!(matches!(checked(&all), Ok(Some(_))));
    }

    #[test]
    fn a_missing_address_is_named() {
        assert_eq!(
            refusal(&["--redis-url", "redis://x:hunter2@h"]),
            "REDIS_URL without DATABASE_URL and RABBITMQ_URL: a distributed Sluice needs all three, an embedded one none"
        );
        let two = ["--db-host", "h", "--db-user", "u", "--db-name", "n", "--redis-url", "r"];
        assert!(refusal(&two).starts_with("DB_HOST and REDIS_URL without RABBITMQ_URL"), "{}", refusal(&two));
        assert!(refusal(&two[..6]).starts_with("DB_HOST without REDIS_URL and RABBITMQ_URL"), "{}", refusal(&two[..6]));
        assert!(refusal(&["--role", "worker"]).contains("REDIS_URL"));
    }

    #[test]
    fn a_database_may_be_given_in_parts() {
        let others = ["--redis-url", "r", "--rabbitmq-url", "q", "--role", "worker"];
        let parts =
            ["--db-host", "h", "--db-user", "u", "--db-name", "n", "--db-password", "hunter2's", "--db-port", "6"];
        let servers = checked(&[&others[..], &parts].concat()).expect("good").expect("distributed");
        let words = "host='h' user='u' dbname='n' port='6' password='hunter2\\'s'";
        assert_eq!(servers.database.reveal(), words);
        assert_eq!((servers.redis.reveal(), servers.rabbitmq.reveal()), ("r", "q"));
        let refused = refusal(&[&others[..], &parts[..4]].concat());
        assert!(refused.starts_with("DB_NAME is missing"), "{refused}");
        let refused = refusal(&[&others[..], &parts[..2]].concat());
        assert!(refused.starts_with("DB_USER and DB_NAME are missing"), "{refused}");
        let refused = refusal(&[&others[..], &parts[..8], &["--db-port", "x"]].concat());
        assert!(refused.contains("DB_PORT") && !refused.contains("hunter2"), "{refused}");
        let url = ["--database-url", "postgres://u:hunter2@h/n"];
        let servers = checked(&[&others[..], &parts, &url].concat()).expect("good").expect("distributed");
        assert_eq!(servers.database.reveal(), "postgres://u:hunter2@h/n");
    }

    #[test]
    fn a_worker_listens_only_if_told() {
        let listen =
            |flags: &[&str]| Command::try_parse_from([&["serve"], flags].concat()).expect("good flags").serve.listen();
        assert_eq!(listen(&[]), Some(LISTEN_DEFAULT));
        assert_eq!(listen(&["--role", "worker"]), None);
        assert!(listen(&["--role", "worker", "--listen", "127.0.0.1:1"]).is_some());
    }

    #[test]
    fn tokens_are_parted_by_commas() {
        let tokens = Some(Secret("old, new,,".into()));
        assert_eq!(each(&tokens).collect::<Vec<_>>(), ["old", "new"]);
        assert_eq!(each(&None).count(), 0);
    }
}
