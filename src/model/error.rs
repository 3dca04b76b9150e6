//! A machine failed: the only errors there are. What a customer or an operator may hear ("sold out", "paused") is an
//! outcome, not an error, and is matched exhaustively where it is answered.
//!
//! Every error says what may have happened before it, because the caller has to tell the client.

use serde::Serialize;

/// Whether a request that failed left something behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing happened.
    None,
    /// It may have happened: ask again with the same idempotency key.
    Unknown,
}

/// A machine failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A gate, queue or ledger did not answer, or answered with a failure of its own.
    #[error("{layer} is unavailable: {why}")]
    Unavailable {
        /// Which of the layers failed.
        layer: &'static str,
        /// Its own words, for the log.
        why: String,
        /// What may have happened all the same.
        effect: Effect,
    },
    /// More work is waiting than may wait.
    #[error("{0} is overloaded")]
    Overloaded(&'static str),
    /// What is stored contradicts itself. Nothing goes on until a person has looked.
    #[error("{0} is damaged: {1}")]
    Damaged(&'static str, String),
}

impl Error {
    /// What may have happened before the error.
    pub fn effect(&self) -> Effect {
        match self {
            Error::Unavailable { effect, .. } => *effect,
            Error::Overloaded(_) => Effect::None,
            Error::Damaged(..) => Effect::Unknown,
        }
    }
}

/// The result of asking a machine.
pub type Result<T, E = Error> = std::result::Result<T, E>;
