//! The connection to Redis: every call has a time limit, and a connection that breaks is replaced by itself. No script is
//! ever sent twice, unless the server said that it did not run it.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, PushKind,
    RedisError, ServerErrorKind, Value,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::inspect::{self, wrong};
use super::script::Call;
use crate::clock::Clock;
use crate::model::{Effect, Error, Result, limits};
use crate::remote::{Backoff, Unusable};

/// Commands that wait for the socket; the batches keep them few, each with many claims.
const PIPELINE_COMMANDS_MAX: usize = 1_000;
/// How often a call follows a slot of the cluster that has moved.
const MOVES_MAX: usize = 3;
/// A connection that held so long was good, and the next one is tried for at once.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// What the server says when it did not run a command, or refused its first write: nothing has happened.
const NOT_DONE: &[&str] = &[
    "NOSCRIPT",
    "LOADING",
    "BUSY",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "MASTERDOWN",
    "READONLY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "NOPERM",
    "NOAUTH",
];

/// The connection, now and after every loss.
pub(super) struct Link {
    info: ConnectionInfo,
    state: Mutex<State>,
    lost: Arc<Notify>,
}

struct State {
    wire: Option<Wire>,
    /// Counts the connections, so that the end of an old one does not end its successor.
    number: u64,
    /// Whether a new one is being looked for.
    renewing: bool,
    /// Why there is none, for the log.
    why: String,
}

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects, and looks whether the server is fit for its work.
    pub(super) async fn connect(url: &str, clock: Arc<dyn Clock>) -> Result<Arc<Link>, Unusable> {
        let info = inspect::address(url)?;
        let state = State { wire: None, number: 0, renewing: false, why: String::new() };
        let link = Arc::new(Link { info, state: Mutex::new(state), lost: Arc::default() });
        link.renew().await?;
        tokio::spawn(keep(Arc::downgrade(&link), link.lost.clone(), clock));
        Ok(link)
    }

    /// Where the server is, without user and password.
    pub(super) fn name(&self) -> String {
        self.info.addr().to_string()
    }

    /// Runs a script. After an error with [`Effect::Unknown`] it may have run, or may still.
    pub(super) async fn run(&self, call: &Call) -> Result<Value> {
        match self.send(call.by_name()).await {
            Err(Failure::Server(error)) if error.code() == Some("NOSCRIPT") => {
                self.send(&call.by_text()).await.map_err(Failure::into_error)
            }
            result => result.map_err(Failure::into_error),
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let (mut wire, number) = {
            let state = self.lock();
            let wire = state.wire.clone().ok_or_else(|| Failure::NotConnected(state.why.clone()))?;
            (wire, state.number)
        };
        let sent = timeout(limits::GATE_CALL_TIME_MAX, wire.send(command)).await;
        let failure = match sent {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if inspect::is_servers_word(&error) => Failure::Server(error),
            Ok(Err(error)) if error.kind() == ErrorKind::ClusterConnectionNotFound => {
                Failure::NotConnected("no node of the cluster serves this sale".to_owned())
            }
            Ok(Err(error)) => Failure::Connection(error.to_string()),
            Err(_) => Failure::Connection("no answer in time".to_owned()),
        };
        match &failure {
            // A primary that became a replica: its name may lead to the new primary by now.
            Failure::Server(error) if error.kind() == ServerErrorKind::ReadOnly.into() => {
                self.lose(number, &error.to_string());
            }
            Failure::Server(_) => {}
            Failure::Connection(why) | Failure::NotConnected(why) => self.lose(number, why),
        }
        Err(failure)
    }

    /// This connection is no good any more; another one is looked for.
    fn lose(&self, number: u64, why: &str) {
        let mut state = self.lock();
        if state.number != number || state.renewing {
            return;
        }
        // The nodes of a cluster that do answer may go on doing so until the new connection is there.
        if let Some(Wire::One(_)) = state.wire {
            state.wire = None;
        }
        state.why = why.to_owned();
        state.renewing = true;
        drop(state);
        tracing::warn!(why, "lost the connection to Redis");
        self.lost.notify_one();
    }

    /// Replaces the connection once.
    async fn renew(self: &Arc<Self>) -> Result<(), Unusable> {
        let number = self.lock().number + 1;
        let opened = timeout(limits::GATE_CONNECT_TIME_MAX, self.open(number)).await;
        let opened = opened.unwrap_or_else(|_| Err(Unusable::NotYet(inspect::SILENT.to_owned())));
        let mut state = self.lock();
        match opened {
            Ok(wire) => {
                *state = State { wire: Some(wire), number, renewing: false, why: String::new() };
                Ok(())
            }
            Err(unusable) => {
                let unusable = self.hint(unusable);
                state.why = unusable.to_string();
                Err(unusable)
            }
        }
    }

    /// A server without TLS waits for the rest of what it takes for a command.
    fn hint(&self, unusable: Unusable) -> Unusable {
        match (unusable, self.info.addr()) {
            (Unusable::NotYet(why), ConnectionAddr::TcpTls { .. }) if why == inspect::SILENT => {
                Unusable::NotYet(format!("{why}. Perhaps it does not speak TLS, which rediss:// asks for"))
            }
            (unusable, _) => unusable,
        }
    }

    async fn open(self: &Arc<Self>, number: u64) -> Result<Wire, Unusable> {
        // redis builds its TLS from the process's default; there is one maker of ciphers in this program.
        let _set_before = rustls::crypto::ring::default_provider().install_default();
        let client = Client::open(self.info.clone()).map_err(|error| wrong(&error))?;
        let link: Weak<Link> = Arc::downgrade(self);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits::GATE_CONNECT_TIME_MAX))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_COMMANDS_MAX)
            .set_push_sender(move |push: PushInfo| {
                if let (PushKind::Disconnection, Some(link)) = (push.kind, link.upgrade()) {
                    link.lose(number, "the server closed the connection");
                }
                Ok::<(), std::convert::Infallible>(())
            });
        let opened = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut one = opened.map_err(|error| inspect::why_not(&error))?;
        let answered = one.req_packed_command(&redis::cmd("INFO")).await;
        let info = inspect::Info::read(answered.map_err(|error| inspect::why_not(&error))?)?;
        info.check()?;
        if !info.is_cluster() {
            return Ok(Wire::One(one));
        }
        self.open_cluster().await
    }

    /// The crate would send a script again after a silence, so it gets no tries of its own.
    async fn open_cluster(&self) -> Result<Wire, Unusable> {
        let client = ClusterClientBuilder::new([self.info.clone()])
            .retries(0)
            .connection_timeout(limits::GATE_CONNECT_TIME_MAX)
            .response_timeout(limits::GATE_CALL_TIME_MAX)
            .use_protocol(ProtocolVersion::RESP3)
            .build()
            .map_err(|error| wrong(&error))?;
        let mut cluster = client.get_async_connection().await.map_err(|error| inspect::why_not(&error))?;
        inspect::check_cluster(&mut cluster).await?;
        Ok(Wire::Cluster(cluster))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.lost.notify_one();
    }
}

/// Looks for a new connection after each loss, until the link is gone.
async fn keep(link: Weak<Link>, lost: Arc<Notify>, clock: Arc<dyn Clock>) {
    let mut backoff = Backoff::default();
    let mut since = clock.monotonic();
    loop {
        lost.notified().await;
        if clock.monotonic().saturating_sub(since) >= GOOD_AFTER {
            backoff.reset();
        } else {
            clock.sleep(backoff.next(clock.chance())).await;
        }
        loop {
            let Some(link) = link.upgrade() else { return };
            match link.renew().await {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, "cannot connect to Redis"),
            }
            drop(link);
            clock.sleep(backoff.next(clock.chance())).await;
        }
        tracing::info!("connected to Redis again");
        since = clock.monotonic();
    }
}

impl Wire {
    async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Wire::One(one) => one.req_packed_command(command).await?.extract_error(),
            Wire::Cluster(cluster) => {
                let mut moves = 0;
                loop {
                    let result = cluster.req_packed_command(command).await.and_then(Value::extract_error);
                    moves += 1;
                    match result {
                        // The node did not run it, and the crate has asked meanwhile who serves the slot.
                        Err(error) if error.code() == Some("MOVED") && moves <= MOVES_MAX => {}
                        result => return result,
                    }
                }
            }
        }
    }
}

/// Why a call has no answer.
enum Failure {
    /// It was not sent.
    NotConnected(String),
    /// It may have been sent.
    Connection(String),
    /// The server's own word.
    Server(RedisError),
}

impl Failure {
    fn into_error(self) -> Error {
        let (why, effect) = match self {
            Failure::NotConnected(why) => (format!("not connected: {why}"), Effect::None),
            Failure::Connection(why) => (why, Effect::Unknown),
            Failure::Server(error) => {
                let not_done = error.code().is_some_and(|code| NOT_DONE.contains(&code));
                (error.to_string(), if not_done { Effect::None } else { Effect::Unknown })
            }
        };
        Error::Unavailable { layer: "gate", why, effect }
    }
}
