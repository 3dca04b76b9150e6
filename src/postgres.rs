//! One PostgreSQL database: how it is reached, what is asked of it before it is used, and its connections.
//!
//! A [`Session`] is a connection in use. One whose work did not come to its end (a failure, a time limit, a caller that
//! went away) is closed, so that nobody gets a connection that is still in somebody's transaction.

mod address;
mod clock;
mod connection;
mod failure;
mod schema;

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use futures_util::future::{BoxFuture, FutureExt, try_join, try_join_all};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row, Statement};

pub use clock::DatabaseClock;
pub(crate) use failure::{Failure, attempts};

use crate::model::{Effect, limits};
use crate::remote::Unusable;
use address::Address;
use connection::Connector;

/// A database; clones share its connections. Connections are made when they are needed, in the tokio runtime of the caller,
/// and made anew after the server was away.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    pools: [Pool; 4],
}

/// `try_join_all` asks so many futures one after the other; with more it would not keep their sequence.
const IN_SEQUENCE_MAX: usize = 30;

/// Which connections to use, so that none of these waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Settlement.
    Settle,
    /// Everything else that writes, or that a reload waits for.
    Write,
    /// Short reads.
    Read,
    /// Recounts, which may take minutes.
    Recount,
}

impl Database {
    /// Reaches the database and looks whether it may be used. `url` is a `postgres://` or `postgresql://` URL or
    /// `key=value` pairs, as in libpq. `sslmode` is `disable`, `prefer` (the default) or `require`; whenever TLS is used
    /// the certificate is verified, so `verify-ca` and `verify-full` mean `require`. `sslrootcert=FILE` names the roots
    /// to trust instead of the system's.
    ///
    /// Refused with words for the operator: a server older than version 13, one that is not PostgreSQL, and one that may
    /// forget what it committed (`fsync`, `full_page_writes` or `synchronous_commit` off).
    pub async fn connect(url: &str) -> Result<Self, Unusable> {
        let address = Address::parse(url)?;
        let sizes = limits::LEDGER_LANE_CONNECTIONS_MAX;
        let pools = [
            pool(&address, sizes[0])?,
            pool(&address, sizes[1])?,
            pool(&address, sizes[2])?,
            pool(&address, sizes[3])?,
        ];
        let database = Self { shared: Arc::new(Shared { address, pools }) };
        match database.object(Lane::Write).await {
            Ok(_) => Ok(database),
            Err(unusable) => Err(database.shared.address.explain(unusable).await),
        }
    }

    /// Host, port and name, for people; never the password.
    pub fn name(&self) -> &str {
        &self.shared.address.name
    }

    async fn object(&self, lane: Lane) -> Result<Object, Unusable> {
        let name = self.name();
        self.shared.pools[lane as usize].get().await.map_err(|error| match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                failure::unusable(name, &error)
            }
            PoolError::PostCreateHook(HookError::Message(why)) => Unusable::Wrong(format!("{name} {why}")),
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => {
                Unusable::NotYet(format!("all connections to {name} are busy"))
            }
            PoolError::Timeout(_) => Unusable::NotYet(format!("{name} accepts connections and says nothing")),
            PoolError::Closed | PoolError::NoRuntimeSpecified => Unusable::NotYet(format!("{name}: shutting down")),
        })
    }

    /// A connection for one piece of work.
    pub(crate) async fn session(&self, lane: Lane) -> Result<Session, Failure> {
        match self.object(lane).await {
            Ok(object) => Ok(Session { object: Some(object) }),
            Err(why) => Err(Failure::Unavailable { why: why.to_string(), effect: Effect::None }),
        }
    }
}

fn pool(address: &Address, size: usize) -> Result<Pool, Unusable> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &address.tls {
        Some(tls) => Manager::from_connect(address.config.clone(), Connector(tls.clone()), config),
        None => Manager::from_connect(address.config.clone(), Connector(NoTls), config),
    };
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(limits::LEDGER_WAIT_TIME_MAX))
        .create_timeout(Some(limits::LEDGER_CONNECT_TIME_MAX))
        .post_create(Hook::async_fn(|client, _| connection::set_up(client).boxed()))
        .build()
        .map_err(|error| Unusable::Wrong(error.to_string()))
}

/// A connection in use. [`Session::done`] gives it back; dropped before that, it is closed.
pub(crate) struct Session {
    object: Option<Object>,
}

/// A set-based statement and its values.
pub(crate) struct Write<'a> {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
}

impl Write<'_> {
    pub(crate) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as _).collect()
    }
}

impl Session {
    /// Gives the connection back: nothing is open on it.
    pub(crate) fn done(mut self) {
        drop(self.object.take());
    }

    /// The statements, compiled. Statements that leave together must be compiled before, or they would leave one by one
    /// and out of their sequence.
    pub(crate) async fn prepare<const N: usize>(&self, sqls: [&'static str; N]) -> Result<[Statement; N], Failure> {
        let statements = self.prepare_all(&sqls).await?;
        statements.try_into().map_err(|_| Failure::Damaged("a statement is missing".into()))
    }

    async fn prepare_all(&self, sqls: &[&'static str]) -> Result<Vec<Statement>, Failure> {
        trip(try_join_all(sqls.iter().map(|sql| self.prepare_cached(sql)))).await
    }

    /// Begins with this statement and asks these queries after it, all in one round trip.
    pub(crate) async fn begin<const N: usize>(
        &self,
        begin: &str,
        queries: [(&'static str, &[&(dyn ToSql + Sync)]); N],
    ) -> Result<[Vec<Row>; N], Failure> {
        let statements = self.prepare(queries.map(|(sql, _)| sql)).await?;
        let asked = try_join_all(
            statements
                .iter()
                .zip(queries)
                .map(|(statement, (_, values))| async move { self.query(statement, values).await }.boxed()),
        );
        let (_, found) = trip(try_join(self.batch_execute(begin), asked)).await?;
        found.try_into().map_err(|_| Failure::Damaged("an answer is missing".into()))
    }

    /// Carries out the writes and commits, all in one round trip. An error of a statement means that nothing was committed;
    /// what became of a commit without an answer is unknown.
    pub(crate) async fn commit(&self, writes: &[Write<'_>]) -> Result<(), Failure> {
        let sqls: Vec<&'static str> = writes.iter().map(|write| write.sql).collect();
        debug_assert!(sqls.len() <= IN_SEQUENCE_MAX);
        let statements = self.prepare_all(&sqls).await?;
        let parameters: Vec<Vec<&(dyn ToSql + Sync)>> = writes.iter().map(Write::parameters).collect();
        if self.is_closed() {
            return Err(Failure::Again("the connection was lost before the commit".into()));
        }
        // They are sent in this sequence, and sending stops at the first one that cannot be: never a commit without its
        // writes. A statement that fails at the server turns the commit into a rollback, and is the error here.
        let written = try_join_all(statements.iter().zip(&parameters).map(|(statement, values)| -> BoxFuture<'_, _> {
            async move { self.execute(statement, values).await.map_err(Failure::of_a_write) }.boxed()
        }));
        let committed = async { self.batch_execute("/* commit */ commit").await.map_err(Failure::of_a_commit) };
        match timeout(limits::LEDGER_TRIP_TIME_MAX, try_join(written, committed)).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(Failure::Unavailable { why: "no answer to a commit".into(), effect: Effect::Unknown }),
        }
    }
}

impl Deref for Session {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.object.as_ref().expect("it is taken when the session ends")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// One round trip before any commit, within its time limit: after an error nothing is changed.
pub(crate) async fn trip<T>(asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    trip_within(limits::LEDGER_TRIP_TIME_MAX, asked).await
}

/// The same, or several round trips, with a limit of its own.
pub(crate) async fn trip_within<T, E: Into<Failure>>(
    limit: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match timeout(limit, asked).await {
        Ok(result) => result.map_err(E::into),
        Err(_) => Err(Failure::Unavailable { why: format!("no answer within {limit:?}"), effect: Effect::None }),
    }
}
