//! A sale as the ledger has it, and what a gate begins with.

use super::{Customer, Epoch, OrderId, Places, Sale, Seq, Units};

/// A sale as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleRecord {
    /// The sale, with its window as it is now.
    pub sale: Sale,
    /// Where the units are, in the items' sequence.
    pub places: Vec<Places>,
    /// The number of the last move in its journal.
    pub watermark: Seq,
    /// Which life of the gate is valid.
    pub epoch: EpochState,
    /// The sweep whose marker was settled last.
    pub swept: Option<u64>,
}

/// The epochs of a sale: reloading, then closed, then live, then reloading under the next number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochState {
    /// The latest life of the gate.
    pub epoch: Epoch,
    /// How far it has come.
    pub stage: EpochStage,
    /// Every epoch below this one is over for good.
    pub closed: Epoch,
    /// How often the loader of this epoch has shown that it is alive.
    pub beats: u64,
}

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochStage {
    /// Raised: earlier pushes may still be on their way.
    Reloading,
    /// The marker is settled: what earlier epochs came to is final.
    Closed,
    /// The gate of this epoch may open.
    Live,
}

impl EpochStage {
    /// The word for it in the database.
    pub fn word(self) -> &'static str {
        match self {
            EpochStage::Reloading => "reloading",
            EpochStage::Closed => "closed",
            EpochStage::Live => "live",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [EpochStage::Reloading, EpochStage::Closed, EpochStage::Live].into_iter().find(|stage| stage.word() == word)
    }
}

/// Everything that a gate needs to begin: one consistent cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The sale, its window, its units and its watermark.
    pub record: SaleRecord,
    /// Units held or sold per customer, in a sale with a limit.
    pub used: Vec<(Customer, Units)>,
    /// Every claim that was decided.
    pub known: Vec<OrderId>,
}
