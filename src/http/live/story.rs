//! A sale's story: its journal folded move by move into what the live page shows of it. It is read once from the first
//! move, and goes on from there as long as the process lives.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::curve::{Curve, Levels};
use crate::ledger::{Move, MoveKind};
use crate::model::{OrderId, Places, Sale, Seq, Sku, Time};

/// Entries of the log that a new watcher gets.
pub(super) const LOG_ENTRIES_MAX: usize = 200;
/// Marks of one sale.
const MARKS_MAX: usize = 64;
/// Moves of one kind within this time are one entry of the log.
const GROUP_TIME: Duration = Duration::from_secs(1);

/// What the journal comes to, up to a move.
#[derive(Debug, Clone)]
pub(super) struct Story {
    /// The last move that is part of it.
    pub(super) at: Seq,
    /// Where the units are by the journal's own arithmetic, in the items' sequence.
    pub(super) places: Vec<Places>,
    pub(super) orders: Orders,
    pub(super) curve: Curve,
    /// Accepted orders that were refused.
    pub(super) broken_promises: u64,
    /// Moves of units that were not there.
    pub(super) impossible: u64,
    /// The first move that must not be.
    pub(super) offence: Option<Offence>,
    /// The last order that lapsed, and when.
    pub(super) lapsed: Option<(OrderId, Time)>,
    created_at: Option<Time>,
    /// Whether the operator opened it.
    pub(super) opened: bool,
    marks: Vec<Mark>,
    last_settle: Option<Time>,
    sold_out_at: Vec<Option<Time>>,
    given_back: [Option<Group>; 2],
    fresh: VecDeque<Entry>,
}

/// Orders that the ledger has decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Orders {
    pub(super) settled: u64,
    pub(super) held: u64,
    pub(super) sold: u64,
    pub(super) lapsed: u64,
    pub(super) cancelled: u64,
}

/// The first thing that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Offence {
    pub(super) seq: Option<Seq>,
    pub(super) order: Option<OrderId>,
    pub(super) what: String,
}

/// A moment that the curve shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mark {
    at: Time,
    what: &'static str,
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::http) struct Entry {
    pub(super) seq: Option<Seq>,
    pub(super) at: Time,
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) order: Option<OrderId>,
    pub(super) sku: Option<Sku>,
}

/// Holds that ended in the same way, one soon after the other.
#[derive(Debug, Clone)]
struct Group {
    entry: Entry,
    orders: u64,
    units: u64,
}

impl Entry {
    /// Something that happened to the process and not to units.
    pub(in crate::http) fn note(at: Time, kind: &'static str, text: impl Into<String>) -> Self {
        Self { seq: None, at, kind, text: text.into(), order: None, sku: None }
    }
}

impl Story {
    /// Of a sale of whose journal nothing was read yet.
    pub(super) fn new(sale: &Sale) -> Self {
        Self {
            at: Seq(0),
            places: vec![Places::default(); sale.items.len()],
            orders: Orders::default(),
            curve: Curve::default(),
            broken_promises: 0,
            impossible: 0,
            offence: None,
            lapsed: None,
            created_at: None,
            opened: false,
            marks: Vec::new(),
            last_settle: None,
            sold_out_at: vec![None; sale.items.len()],
            given_back: [None, None],
            fresh: VecDeque::new(),
        }
    }

    /// The next move.
    pub(super) fn step(&mut self, sale: &Sale, step: &Move) {
        let before = self.levels();
        self.at = step.seq;
        self.created_at.get_or_insert(step.at);
        self.move_units(sale, step);
        let levels = self.levels();
        match step.kind {
            MoveKind::Hold | MoveKind::Sell => self.settled(sale, step),
            MoveKind::Confirm => {
                self.orders.held = self.orders.held.saturating_sub(1);
                self.orders.sold += 1;
            }
            MoveKind::Cancel | MoveKind::Lapse => self.given_back(step),
            MoveKind::Refuse => self.refused(step),
            MoveKind::Add | MoveKind::Withdraw => self.adjusted(sale, step),
            MoveKind::Open | MoveKind::Pause | MoveKind::Resume | MoveKind::Close => self.steered(step),
        }
        let moved = levels != before;
        if moved && self.orders.settled > 0 {
            self.curve.note(step.at, before, levels);
        }
    }

    /// Units available, held and sold.
    pub(super) fn levels(&self) -> Levels {
        let sum = |units: fn(&Places) -> u32| self.places.iter().map(|places| u64::from(units(places))).sum();
        [sum(|at| at.available.get()), sum(|at| at.held.get()), sum(|at| at.sold.get())]
    }

    /// What came into the log since this was last asked.
    pub(super) fn take_entries(&mut self) -> VecDeque<Entry> {
        for group in 0..self.given_back.len() {
            self.end_group(group);
        }
        std::mem::take(&mut self.fresh)
    }

    /// The marks so far. A sale that opened by the clock did so when it was due, or when it was created.
    pub(super) fn marks(&self, sale: &Sale, now: Time) -> Vec<Mark> {
        let mut marks = self.marks.clone();
        if let Some(at) = self.opened_at(sale, now).filter(|_| !self.opened) {
            marks.insert(0, Mark { at, what: "opened" });
        }
        marks.extend(self.last_settle.map(|at| Mark { at, what: "last_settle" }));
        marks
    }

    /// When the sale opened by the clock, if it did.
    pub(super) fn opened_at(&self, sale: &Sale, now: Time) -> Option<Time> {
        let due = sale.window.opens_at.filter(|due| *due <= now)?;
        Some(self.created_at.map_or(due, |created| created.max(due)))
    }

    fn move_units(&mut self, sale: &Sale, step: &Move) {
        for line in &step.lines {
            let place = sale.items.iter().position(|item| item.sku == line.sku);
            let moved = place.and_then(|place| step.kind.apply(self.places[place], line.quantity));
            match place.zip(moved) {
                Some((place, moved)) => self.places[place] = moved,
                None => {
                    self.impossible += 1;
                    let (kind, sku) = (step.kind.word(), &line.sku);
                    self.offend(step, format!("there were too few units of {sku} to {kind}"));
                }
            }
        }
    }

    fn offend(&mut self, step: &Move, what: String) {
        self.log(step, "violation", what.clone(), step.claim, None);
        self.offence.get_or_insert(Offence { seq: Some(step.seq), order: step.claim, what });
    }

    fn log(&mut self, step: &Move, kind: &'static str, text: String, order: Option<OrderId>, sku: Option<Sku>) {
        self.push(Entry { seq: Some(step.seq), at: step.at, kind, text, order, sku });
    }

    fn push(&mut self, entry: Entry) {
        self.fresh.push_back(entry);
        if self.fresh.len() > LOG_ENTRIES_MAX {
            self.fresh.pop_front();
        }
    }

    fn mark(&mut self, step: &Move, what: &'static str) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { at: step.at, what });
        }
    }

    fn mark_once(&mut self, step: &Move, what: &'static str) {
        if !self.marks.iter().any(|mark| mark.what == what) {
            self.mark(step, what);
        }
    }

    fn settled(&mut self, sale: &Sale, step: &Move) {
        self.orders.settled += 1;
        match step.kind {
            MoveKind::Sell => self.orders.sold += 1,
            _ => self.orders.held += 1,
        }
        self.last_settle = Some(step.at);
        self.mark_once(step, "first_unit");
        let [available, held, sold] = self.levels();
        if held + sold >= available {
            self.mark_once(step, "half");
        }
        if available == 0 {
            self.mark_once(step, "sold_out");
        }
        for line in &step.lines {
            self.sell_out(sale, step, &line.sku);
        }
    }

    /// Units that come back one by one and go at once would fill the log, so an item is sold out once a second at most.
    fn sell_out(&mut self, sale: &Sale, step: &Move, sku: &Sku) {
        let Some(place) = sale.items.iter().position(|item| item.sku == *sku) else { return };
        let gone = self.places[place].available.get() == 0;
        let said = self.sold_out_at[place].is_some_and(|at| step.at.since(at) < GROUP_TIME);
        if gone && !said {
            self.sold_out_at[place] = Some(step.at);
            let text = format!("{} is sold out", sale.items[place].name);
            self.log(step, "sold_out", text, None, Some(sku.clone()));
        }
    }

    fn given_back(&mut self, step: &Move) {
        self.orders.held = self.orders.held.saturating_sub(1);
        let (group, kind) = match step.kind {
            MoveKind::Lapse => {
                self.orders.lapsed += 1;
                self.lapsed = step.claim.map(|id| (id, step.at));
                (0, "lapsed")
            }
            _ => {
                self.orders.cancelled += 1;
                (1, "cancelled")
            }
        };
        if self.given_back[group].as_ref().is_some_and(|open| step.at.since(open.entry.at) >= GROUP_TIME) {
            self.end_group(group);
        }
        let entry = || Entry {
            seq: Some(step.seq),
            at: step.at,
            kind,
            text: String::new(),
            order: step.claim,
            sku: step.lines.first().map(|line| line.sku.clone()),
        };
        let open = self.given_back[group].get_or_insert_with(|| Group { entry: entry(), orders: 0, units: 0 });
        open.orders += 1;
        open.units += step.lines.iter().map(|line| u64::from(line.quantity.get())).sum::<u64>();
        open.entry.seq = Some(step.seq);
    }

    fn end_group(&mut self, group: usize) {
        let Some(Group { mut entry, orders, units }) = self.given_back[group].take() else { return };
        let ended = if entry.kind == "lapsed" { "lapsed" } else { "cancelled" };
        entry.text = match (orders, units) {
            (1, 1) => format!("a hold {ended}: 1 unit came back"),
            (1, _) => format!("a hold {ended}: {units} units came back"),
            _ => format!("{orders} holds {ended}: {units} units came back"),
        };
        if orders > 1 {
            (entry.order, entry.sku) = (None, None);
        }
        self.push(entry);
    }

    fn refused(&mut self, step: &Move) {
        if step.customer.is_some() {
            self.orders.settled += 1;
            self.broken_promises += 1;
            self.offend(step, "an accepted order was refused: a broken promise".to_owned());
        } else {
            let text = "a withdrawal was refused: too few units were available".to_owned();
            self.log(step, "adjusted", text, None, step.lines.first().map(|line| line.sku.clone()));
        }
    }

    fn adjusted(&mut self, sale: &Sale, step: &Move) {
        for line in &step.lines {
            let name = sale.item(&line.sku).map_or(line.sku.as_str(), |item| &item.name);
            let units = line.quantity.get();
            let (kind, text) = match (step.kind, step.claim) {
                (MoveKind::Withdraw, _) => ("adjusted", format!("{units} units of {name} were withdrawn")),
                (_, Some(_)) => ("adjusted", format!("{units} units of {name} were added")),
                (_, None) => ("created", format!("the sale begins with {units} units of {name}")),
            };
            self.log(step, kind, text, None, Some(line.sku.clone()));
        }
        if step.claim.is_some() {
            self.mark(step, "adjusted");
        }
    }

    fn steered(&mut self, step: &Move) {
        let (kind, text) = match step.kind {
            MoveKind::Open => ("opened", "the sale was opened"),
            MoveKind::Pause => ("paused", "the sale was paused: what is held stays held"),
            MoveKind::Resume => ("resumed", "the sale was resumed"),
            _ => ("closed", "the sale was closed"),
        };
        self.opened |= step.kind == MoveKind::Open;
        self.log(step, kind, text.to_owned(), None, None);
        if step.kind != MoveKind::Resume {
            self.mark(step, kind);
        }
    }
}
