//! What an operator may choose. The comments here are what `--help` says; a flag goes before the environment, the
//! environment before a file `.env`, that before the default.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

/// What `sluice serve` may be told.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on. One that others can reach needs a token of your own
    #[arg(long, env = "SLUICE_LISTEN", default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub listen: SocketAddr,

    /// What this process does. Everything, unless several processes share a database, a broker and a gate
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub data: DataFolder,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub tokens: Tokens,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's own")]
    pub layers: Layers,

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

/// Where an embedded Sluice keeps everything.
#[derive(Debug, Clone, Args)]
pub struct DataFolder {
    /// Folder for the database and the generated token
    #[arg(long = "data", env = "SLUICE_DATA", default_value = "./sluice-data", value_name = "FOLDER")]
    pub path: PathBuf,
}

/// Who may do what. Several tokens of a kind, parted by commas, live at once, so that one can be replaced without a gap.
#[derive(Debug, Args)]
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

impl Serve {
    /// Refuses what is unsafe or does not go together, saying what to do instead.
    pub fn check(&self) -> anyhow::Result<()> {
        self.layers.check()?;
        if self.role != Role::All {
            bail!(
                "--role api and --role worker need a database, a broker and a gate that several processes share. \
                 An embedded Sluice is one process: leave --role out"
            );
        }
        if !self.listen.ip().is_loopback() && given(&self.tokens.admin_token).is_none() {
            bail!(
                "{} can be reached from other machines, and there is no admin token. Set SLUICE_ADMIN_TOKEN, or listen \
                 on 127.0.0.1",
                self.listen
            );
        }
        Ok(())
    }
}

impl Layers {
    fn check(&self) -> anyhow::Result<()> {
        let parts = [&self.db_user, &self.db_host, &self.db_name, &self.db_password, &self.db_port];
        let database = given(&self.database_url).is_some() || parts.into_iter().any(|part| given(part).is_some());
        let all = [
            ("DATABASE_URL", database),
            ("REDIS_URL", given(&self.redis_url).is_some()),
            ("RABBITMQ_URL", given(&self.rabbitmq_url).is_some()),
        ];
        let names = |there: bool| -> Vec<&str> {
            all.iter().filter(|(_, given)| *given == there).map(|(name, _)| *name).collect()
        };
        match (names(true), names(false)) {
            (given, _) if given.is_empty() => Ok(()),
            (_, missing) if missing.is_empty() => {
                bail!("the distributed deployment is not built yet. Leave DATABASE_URL, REDIS_URL and RABBITMQ_URL out")
            }
            (given, missing) => bail!(
                "{} without {}: a distributed Sluice needs all three, an embedded one none",
                given.join(" and "),
                missing.join(" and ")
            ),
        }
    }
}

/// A text that no log and no message shows.
#[derive(Clone)]
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

    fn refusal(flags: &[&str]) -> Option<String> {
        let serve = Command::try_parse_from([&["serve"], flags].concat()).expect("good flags").serve;
        assert!(!format!("{serve:?}").contains("hunter2"), "a secret is shown");
        serve.check().err().map(|error| error.to_string())
    }

    #[test]
    fn nothing_given_is_an_embedded_server_on_loopback() {
        assert_eq!(refusal(&[]), None);
        assert_eq!(refusal(&["--listen", "[::1]:0", "--redis-url", ""]), None);
    }

    #[test]
    fn a_public_address_needs_a_token() {
        let refused = refusal(&["--listen", "0.0.0.0:8080"]).expect("refused");
        assert!(refused.contains("SLUICE_ADMIN_TOKEN"), "{refused}");
        assert!(refusal(&["--listen", "0.0.0.0:8080", "--admin-token", " "]).is_some());
        assert_eq!(refusal(&["--listen", "0.0.0.0:8080", "--admin-token", "hunter2"]), None);
    }

    #[test]
    fn a_missing_address_is_named() {
        let refused = refusal(&["--redis-url", "redis://x:hunter2@h"]).expect("refused");
        assert_eq!(
            refused,
            "REDIS_URL without DATABASE_URL and RABBITMQ_URL: a distributed Sluice needs all three, an embedded one none"
        );
        let refused = refusal(&["--db-host", "h", "--redis-url", "r"]).expect("refused");
        assert!(refused.starts_with("DATABASE_URL and REDIS_URL without RABBITMQ_URL"), "{refused}");
        assert!(refusal(&["--role", "worker"]).is_some());
    }

    #[test]
    fn tokens_are_parted_by_commas() {
        let tokens = Some(Secret("old, new,,".into()));
        assert_eq!(each(&tokens).collect::<Vec<_>>(), ["old", "new"]);
        assert_eq!(each(&None).count(), 0);
    }
}
