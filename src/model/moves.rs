//! A move: one line of a sale's journal. Everything that happens to units is one.

use super::{Customer, Line, OrderId, Places, Seq, Time, Units};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Its number in the sale; the first is 1.
    pub seq: Seq,
    /// When, on the ledger's clock.
    pub at: Time,
    /// What happened.
    pub kind: MoveKind,
    /// Which order or adjustment it was; `None` for the sale's own moves.
    pub claim: Option<OrderId>,
    /// Whose order it was.
    pub customer: Option<Customer>,
    /// Which units.
    pub lines: Vec<Line>,
}

/// What happened. The units go from one place to another, or in or out of the sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// Into the sale, available.
    Add,
    /// From available, out of the sale.
    Withdraw,
    /// From available to held.
    Hold,
    /// From available to sold, at once.
    Sell,
    /// From held to sold.
    Confirm,
    /// From held to available, by the order's holder.
    Cancel,
    /// From held to available, by time.
    Lapse,
    /// Nowhere: the claim could not be kept.
    Refuse,
    /// The sale was opened by hand.
    Open,
    /// The sale was paused.
    Pause,
    /// The sale was resumed.
    Resume,
    /// The sale was closed by hand.
    Close,
}

impl MoveKind {
    const ALL: [MoveKind; 12] = [
        MoveKind::Add,
        MoveKind::Withdraw,
        MoveKind::Hold,
        MoveKind::Sell,
        MoveKind::Confirm,
        MoveKind::Cancel,
        MoveKind::Lapse,
        MoveKind::Refuse,
        MoveKind::Open,
        MoveKind::Pause,
        MoveKind::Resume,
        MoveKind::Close,
    ];

    /// The word for it in the database.
    pub fn word(self) -> &'static str {
        match self {
            MoveKind::Add => "add",
            MoveKind::Withdraw => "withdraw",
            MoveKind::Hold => "hold",
            MoveKind::Sell => "sell",
            MoveKind::Confirm => "confirm",
            MoveKind::Cancel => "cancel",
            MoveKind::Lapse => "lapse",
            MoveKind::Refuse => "refuse",
            MoveKind::Open => "open",
            MoveKind::Pause => "pause",
            MoveKind::Resume => "resume",
            MoveKind::Close => "close",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Moves so many units of one item; `None` if they are not there.
    pub fn apply(self, places: Places, units: Units) -> Option<Places> {
        let Places { stock, available, held, sold } = places;
        let moved = match self {
            MoveKind::Add => Places { stock: stock.plus(units)?, available: available.plus(units)?, ..places },
            MoveKind::Withdraw => Places { stock: stock.minus(units)?, available: available.minus(units)?, ..places },
            MoveKind::Hold => Places { available: available.minus(units)?, held: held.plus(units)?, ..places },
            MoveKind::Sell => Places { available: available.minus(units)?, sold: sold.plus(units)?, ..places },
            MoveKind::Confirm => Places { held: held.minus(units)?, sold: sold.plus(units)?, ..places },
            MoveKind::Cancel | MoveKind::Lapse => {
                Places { held: held.minus(units)?, available: available.plus(units)?, ..places }
            }
            MoveKind::Refuse | MoveKind::Open | MoveKind::Pause | MoveKind::Resume | MoveKind::Close => places,
        };
        Some(moved)
    }

    /// Takes the move back; `None` if the units are not where it put them.
    pub fn undo(self, places: Places, units: Units) -> Option<Places> {
        let Places { stock, available, held, sold } = places;
        let before = match self {
            MoveKind::Add => Places { stock: stock.minus(units)?, available: available.minus(units)?, ..places },
            MoveKind::Withdraw => Places { stock: stock.plus(units)?, available: available.plus(units)?, ..places },
            MoveKind::Hold => Places { held: held.minus(units)?, available: available.plus(units)?, ..places },
            MoveKind::Cancel | MoveKind::Lapse => {
                Places { available: available.minus(units)?, held: held.plus(units)?, ..places }
            }
            MoveKind::Sell => Places { sold: sold.minus(units)?, available: available.plus(units)?, ..places },
            MoveKind::Confirm => Places { sold: sold.minus(units)?, held: held.plus(units)?, ..places },
            MoveKind::Refuse | MoveKind::Open | MoveKind::Pause | MoveKind::Resume | MoveKind::Close => places,
        };
        Some(before)
    }

    /// Whether it is the first move of an order or a withdrawal: the ledger's decision on the claim.
    pub fn settles(self) -> bool {
        matches!(self, MoveKind::Hold | MoveKind::Sell | MoveKind::Refuse | MoveKind::Withdraw)
    }
}
