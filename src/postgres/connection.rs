//! One connection: how it is made, what it looks at before it is used, and the warning that ends it.

use std::future::poll_fn;

use deadpool_postgres::{ClientWrapper, Connect, HookError};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, SimpleQueryMessage, Socket};

use crate::model::limits;

/// The oldest PostgreSQL whose documentation has everything that is used here.
const VERSION_MIN: u32 = 13;
/// The server's function that waits for a synchronous standby.
const STANDBY_WAIT: &str = "SyncRepWaitForLSN";

/// Makes connections.
pub(super) struct Connector<T>(pub(super) T);

impl<T> Connect for Connector<T>
where
    T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
    T::Stream: Sync + Send,
    T::TlsConnect: Sync + Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let (tls, config) = (self.0.clone(), config.clone());
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            Ok((client, tokio::spawn(carry(connection))))
        })
    }
}

/// Carries the connection's messages until it ends. A commit whose wait for the standby was called off is reported by the
/// server as a success with a warning, although a failover would lose it; ending the connection before the success comes
/// through leaves that commit in doubt, which is what it is.
async fn carry<S, T>(mut connection: Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(code = notice.code().code(), said = notice.message(), "PostgreSQL notes");
                if notice.routine() == Some(STANDBY_WAIT) {
                    tracing::error!(said = notice.message(), "a commit may not be on the standby");
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
                return;
            }
        }
    }
}

/// Looks at the server and prepares the session. A server that was restarted with other settings is looked at again.
pub(super) async fn set_up(client: &ClientWrapper) -> Result<(), HookError> {
    let sql = "/* look at the server */ select current_setting('server_version_num'), version(), \
               current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')";
    let answers = client.simple_query(sql).await.map_err(HookError::Backend)?;
    let found = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some([0, 1, 2, 3, 4].map(|column| row.get(column).unwrap_or_default())),
        _ => None,
    });
    if let Some(why) = found.and_then(unfit) {
        return Err(HookError::message(why));
    }
    // Plans are not kept: the tables grow from nothing to millions within the life of one. What is read was written a
    // moment ago and is in memory, so an index is worth its while; no plan is worth compiling.
    let sql = format!(
        "/* set up session */ set synchronous_commit = on; set statement_timeout = {}; set lock_timeout = {}; \
         set idle_in_transaction_session_timeout = {}; set plan_cache_mode = force_custom_plan; \
         set random_page_cost = 1.1; set jit = off",
        limits::LEDGER_STATEMENT_TIME_MAX.as_millis(),
        limits::LEDGER_LOCK_TIME_MAX.as_millis(),
        limits::LEDGER_IDLE_TIME_MAX.as_millis(),
    );
    client.batch_execute(&sql).await.map_err(HookError::Backend)
}

/// Why this server must not be used, if so.
fn unfit([number, version, settings @ ..]: [&str; 5]) -> Option<String> {
    let major = number.parse::<u32>().unwrap_or(0) / 10_000;
    if !version.starts_with("PostgreSQL ") {
        return Some(format!("is not PostgreSQL but {version}. Sluice needs PostgreSQL {VERSION_MIN} or later"));
    }
    if major < VERSION_MIN {
        return Some(format!("is PostgreSQL {major}, too old. Sluice needs PostgreSQL {VERSION_MIN} or later"));
    }
    let names = ["fsync", "full_page_writes", "synchronous_commit"];
    let (off, _) = names.into_iter().zip(settings).find(|(_, value)| *value == "off")?;
    let where_to = match off {
        "synchronous_commit" => "in postgresql.conf, or for this role or database by `alter … set`",
        _ => "in postgresql.conf",
    };
    Some(format!(
        "runs with {off} = off and may forget orders that it committed. Set {off} = on {where_to}, then reload the server"
    ))
}
