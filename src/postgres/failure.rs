//! What a failure of the database means: try again, wait, or let a person look.

use std::error::Error as _;
use std::future::Future;
use std::io;

use tokio_postgres::error::SqlState;

use crate::clock::Clock;
use crate::model::{Effect, Error};
use crate::remote::{Backoff, Unusable};

/// How often a piece of work is tried, the first time included.
const TRIES_MAX: u32 = 6;

/// Why a piece of work failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing is changed, and the next try may go well: a deadlock, a lock that somebody held for too long, a connection
    /// that had died unnoticed.
    Again(String),
    /// The server cannot do it now.
    Unavailable {
        /// In its own words.
        why: String,
        /// What may have happened.
        effect: Effect,
    },
    /// What is stored, or was handed in, cannot be right.
    Damaged(String),
}

impl Failure {
    /// A statement failed, and its commit was already on the way. The server answers a statement before it comes to the
    /// commit; without an answer, it may have come to it.
    pub(super) fn of_a_write(error: tokio_postgres::Error) -> Self {
        if is_lost(&error) { in_doubt(&error) } else { error.into() }
    }

    /// The commit itself failed.
    pub(super) fn of_a_commit(error: tokio_postgres::Error) -> Self {
        let code = error.code().map_or("", SqlState::code);
        if code.starts_with("23") || code.starts_with("40") { error.into() } else { in_doubt(&error) }
    }

    /// The same for the layer that asked.
    pub(crate) fn named(self, layer: &'static str) -> Error {
        match self {
            Failure::Again(why) => Error::Unavailable { layer, why, effect: Effect::None },
            Failure::Unavailable { why, effect } => Error::Unavailable { layer, why, effect },
            Failure::Damaged(why) => Error::Damaged(layer, why),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    /// For everything before a commit.
    fn from(error: tokio_postgres::Error) -> Self {
        let why = words(&error);
        match error.code().map(SqlState::code) {
            // serialization failure, deadlock, lock not available
            Some("40001" | "40P01" | "55P03") => Failure::Again(why),
            // a plan or a statement that a migration left behind
            Some("0A000" | "26000") => Failure::Again(why),
            // the session was ended: by a person, by another session's crash, by its idle time
            Some("57P01" | "57P02" | "25P03") => Failure::Again(why),
            Some(code) if code.starts_with("22") || code.starts_with("23") => Failure::Damaged(why),
            // Damaged pages (XX001, XX002) among them: no order is set aside for what a repair may bring back.
            Some(_) => Failure::Unavailable { why, effect: Effect::None },
            None if is_lost(&error) => Failure::Again(why),
            None => Failure::Damaged(why),
        }
    }
}

fn in_doubt(error: &tokio_postgres::Error) -> Failure {
    Failure::Unavailable { why: format!("the commit is in doubt: {}", words(error)), effect: Effect::Unknown }
}

/// Whether the connection failed, rather than what was sent over it. tokio-postgres tells these apart in its words only;
/// what it may come to call otherwise counts as a failed connection, so that no order is set aside for it.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let words = error.to_string();
    let unfit = ["error serializing", "error deserializing", "error encoding"];
    error.as_db_error().is_none() && !unfit.iter().any(|unfit| words.starts_with(unfit))
}

/// What the server or the connection said, with the code that can be looked up.
fn words(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// Tries a piece of work a few times while it fails with [`Failure::Again`], a little later each time.
pub(crate) async fn attempts<T, F>(
    layer: &'static str,
    clock: &dyn Clock,
    mut work: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut backoff = Backoff::default();
    for _ in 1..TRIES_MAX {
        match work().await {
            Err(Failure::Again(why)) => {
                metrics::counter!("sluice_retries_total", "layer" => layer).increment(1);
                tracing::debug!(layer, why, "trying again");
            }
            result => return result.map_err(|failure| failure.named(layer)),
        }
        clock.sleep(backoff.next(clock.chance())).await;
    }
    work().await.map_err(|failure| failure.named(layer))
}

/// Why no connection was made.
pub(super) fn unusable(name: &str, error: &tokio_postgres::Error) -> Unusable {
    let why = words(error);
    if let Some(db) = error.as_db_error() {
        let said = db.message();
        return match db.code().code() {
            "28P01" | "28000" => Unusable::Wrong(format!("{name} does not let us in: {said}. Check user and password")),
            "3D000" => Unusable::Wrong(format!("{name} is missing: {said}. Create it first, with `createdb`")),
            "42501" => Unusable::Wrong(format!("{name}: {said}. Grant it to the user that Sluice connects as")),
            code if ["53", "57", "08"].contains(&&code[..2]) => Unusable::NotYet(format!("{name}: {why}")),
            _ => Unusable::Wrong(format!("{name}: {why}")),
        };
    }
    let cause = error.source();
    match cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            Unusable::NotYet(format!("{name} takes no writes: it is a standby or read-only"))
        }
        Some(cause) if cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Unusable::Wrong(untrusted(name, &cause.to_string()))
        }
        Some(cause) => Unusable::NotYet(format!("cannot reach {name}: {cause}")),
        None if error.is_closed() => Unusable::NotYet(format!("{name} closed the connection")),
        None if error.to_string().contains("TLS") => Unusable::Wrong(untrusted(name, &why)),
        None if error.to_string().starts_with("timeout") => Unusable::NotYet(format!("cannot reach {name}: {why}")),
        None => Unusable::Wrong(format!("{name}: {why}")),
    }
}

fn untrusted(name: &str, why: &str) -> String {
    format!(
        "{name}: no TLS that can be trusted ({why}). Name the certificate of its authority with sslrootcert=FILE, or, on \
         a network that nobody else is on, use sslmode=disable"
    )
}
