//! A sale: a window, a limit per customer, its items.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SaleId, Sku, Time, Units};

/// What an operator last said about a sale. Its window decides the rest, see [`Window::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Has no opening time yet, so only an operator opens it.
    Draft,
    /// Sells within its window.
    Armed,
    /// Sells nothing until resumed.
    Paused,
    /// Over for good.
    Closed,
}

impl Phase {
    /// The word for it in the database.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Draft => "draft",
            Phase::Armed => "armed",
            Phase::Paused => "paused",
            Phase::Closed => "closed",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Phase::Draft, Phase::Armed, Phase::Paused, Phase::Closed].into_iter().find(|phase| phase.word() == word)
    }
}

/// What a sale is at a moment, as the API says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleState {
    /// Waits to be opened by hand.
    Draft,
    /// Opens by itself.
    Scheduled,
    /// Sells.
    Open,
    /// Sells nothing for now.
    Paused,
    /// Sells nothing any more.
    Ended,
}

/// When a sale sells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What the operator last said.
    pub phase: Phase,
    /// The first moment of the window.
    pub opens_at: Option<Time>,
    /// The first moment after the window.
    pub closes_at: Option<Time>,
}

impl Window {
    /// What the sale is at this moment. It is open from `opens_at` on and no longer at `closes_at`.
    pub fn state(&self, now: Time) -> SaleState {
        if self.phase == Phase::Closed || self.closes_at.is_some_and(|end| now >= end) {
            return SaleState::Ended;
        }
        match self.phase {
            Phase::Draft => SaleState::Draft,
            Phase::Paused => SaleState::Paused,
            Phase::Armed if self.opens_at.is_some_and(|start| now < start) => SaleState::Scheduled,
            Phase::Armed | Phase::Closed => SaleState::Open,
        }
    }

    /// The window after this verb at this moment; `None` if the sale is in no state for it. Repeating a verb changes
    /// nothing.
    pub fn steer(&self, verb: Verb, now: Time) -> Option<Window> {
        let state = self.state(now);
        match (verb, state) {
            (Verb::Open, SaleState::Open) | (Verb::Pause, SaleState::Paused) | (Verb::Close, SaleState::Ended) => {
                Some(*self)
            }
            (Verb::Resume, SaleState::Open | SaleState::Scheduled) => Some(*self),
            (Verb::Open, SaleState::Draft | SaleState::Scheduled) => {
                Some(Window { phase: Phase::Armed, opens_at: Some(now), ..*self })
            }
            (Verb::Pause, SaleState::Open | SaleState::Scheduled) => Some(Window { phase: Phase::Paused, ..*self }),
            (Verb::Resume, SaleState::Paused) => Some(Window { phase: Phase::Armed, ..*self }),
            (Verb::Close, _) => Some(Window { phase: Phase::Closed, ..*self }),
            (Verb::Open, SaleState::Paused | SaleState::Ended)
            | (Verb::Pause, SaleState::Draft | SaleState::Ended)
            | (Verb::Resume, SaleState::Draft | SaleState::Ended) => None,
        }
    }
}

/// What an operator does with a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Sell from now on, whatever `opens_at` said.
    Open,
    /// Sell nothing until resumed.
    Pause,
    /// Sell again, within the window.
    Resume,
    /// Sell nothing any more.
    Close,
}

impl Verb {
    /// The word for it, as it stands in the API and in the journal.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Open => "open",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Close => "close",
        }
    }
}

/// An item: a SKU in a sale. It never changes; its units are counted by the ledger, see [`Places`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its id, unique in the sale.
    pub sku: Sku,
    /// For people.
    pub name: String,
    /// Per unit, in the smallest unit of the currency.
    pub price_cents: u64,
    /// ISO 4217, three letters.
    pub currency: String,
}

/// A sale as it was created; its window and units change, the rest does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// Its id.
    pub id: SaleId,
    /// For people.
    pub name: String,
    /// When it sells.
    pub window: Window,
    /// How long an order is held for its customer, in seconds; 0 sells at once.
    pub hold_seconds: u32,
    /// Units one customer may hold and own together.
    pub per_customer_limit: Option<Units>,
    /// At least one, in the operator's sequence.
    pub items: Vec<Item>,
}

impl Sale {
    /// The item of this SKU.
    pub fn item(&self, sku: &Sku) -> Option<&Item> {
        self.items.iter().find(|item| item.sku == *sku)
    }

    /// When a hold that begins now lapses; `None` if the sale sells at once.
    pub fn hold_ends(&self, now: Time) -> Option<Time> {
        (self.hold_seconds > 0).then(|| now.after(Duration::from_secs(self.hold_seconds.into())))
    }
}

/// Where the units of an item are. In the ledger `stock = available + held + sold`, at every moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Places {
    /// Units put into the sale and not withdrawn.
    pub stock: Units,
    /// Units that nobody has.
    pub available: Units,
    /// Units set aside for somebody, for a time.
    pub held: Units,
    /// Units that are somebody's.
    pub sold: Units,
}

impl Places {
    /// So many units, all available.
    pub fn fresh(stock: Units) -> Self {
        Self { stock, available: stock, ..Self::default() }
    }

    /// Whether the arithmetic holds.
    pub fn conserved(&self) -> bool {
        let parts = [self.available, self.held, self.sold];
        u64::from(self.stock.get()) == parts.iter().map(|units| u64::from(units.get())).sum::<u64>()
    }
}
