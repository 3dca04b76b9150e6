//! One sale's feed in this process: what all its watchers share. A tick is made and encoded once, however many watch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use super::story::{Entry, LOG_ENTRIES_MAX, Story};
use super::tally::Tally;
use super::tick::{Bye, Snapshot, Tick, VerdictJson};
use crate::ledger::Move;
use crate::model::{Sale, SaleId, Seq};

/// Events that a watcher may be behind; then it is cut off.
const BEHIND_EVENTS_MAX: usize = 32;

/// What the watchers of one sale share.
pub(super) struct Feed {
    state: Mutex<State>,
    sent: broadcast::Sender<Sent>,
}

/// An encoded event.
#[derive(Clone)]
pub(super) struct Sent {
    /// Events of one feed are numbered, so that a watcher knows which of them its snapshot has already.
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    /// Whether it is the stream's last one.
    pub(super) last: bool,
}

struct State {
    /// Whether somebody makes ticks.
    running: bool,
    story: Story,
    log: VecDeque<Entry>,
    /// The latest tick; none unless somebody makes them.
    tick: Option<Tick>,
    number: u64,
    /// The latest snapshot, and the number of the last event that is part of it.
    snapshot: Option<(u64, Bytes)>,
    notes_seen: u64,
    /// The worst that was ever found: rows that are put right again do not undo what buyers were told meanwhile.
    worst: VerdictJson,
}

impl Feed {
    pub(super) fn new(sale: &Sale) -> Self {
        let state = State {
            running: false,
            story: Story::new(sale),
            log: VecDeque::new(),
            tick: None,
            number: 0,
            snapshot: None,
            notes_seen: 0,
            worst: VerdictJson::default(),
        };
        Self { state: Mutex::new(state), sent: broadcast::Sender::new(BEHIND_EVENTS_MAX) }
    }

    /// One more watcher, and whether somebody has to begin to make ticks.
    pub(super) fn join(&self) -> (broadcast::Receiver<Sent>, bool) {
        let mut state = self.state();
        let events = self.sent.subscribe();
        (events, !std::mem::replace(&mut state.running, true))
    }

    /// Whether nobody watches any more; then whoever made the ticks may leave.
    pub(super) fn is_left(&self) -> bool {
        let mut state = self.state();
        let left = self.sent.receiver_count() == 0;
        if left {
            state.leave();
        }
        left
    }

    /// Nobody makes ticks any more; with a reason, all watchers are told goodbye.
    pub(super) fn leave(&self, bye: Option<Bye>) {
        let mut state = self.state();
        state.leave();
        if let Some(bye) = bye {
            self.send(&mut state, event("bye", None, &bye), true);
        }
    }

    /// The worst verdict so far, this one included. It stands as long as the process lives.
    pub(super) fn worst(&self, found: VerdictJson) -> VerdictJson {
        let mut state = self.state();
        state.worst.worsen(found);
        state.worst.clone()
    }

    /// Does something with the story.
    pub(super) fn with_story<T>(&self, what: impl FnOnce(&mut Story) -> T) -> T {
        what(&mut self.state().story)
    }

    /// The next moves of the journal, up to this one.
    pub(super) fn read(&self, sale: &Sale, moves: &[Move], last: Seq) {
        let mut state = self.state();
        for step in moves.iter().take_while(|step| step.seq <= last) {
            state.story.step(sale, step);
        }
    }

    /// Tells the watchers what came into the log: from the journal, and these.
    pub(super) fn tell(&self, more: Vec<Entry>) {
        let mut state = self.state();
        let entries = state.story.take_entries();
        for entry in entries.into_iter().chain(more) {
            let bytes = event("log", None, &entry);
            state.log.push_back(entry);
            if state.log.len() > LOG_ENTRIES_MAX {
                state.log.pop_front();
            }
            // Before the first tick the log is part of the snapshot.
            if state.tick.is_some() {
                self.send(&mut state, bytes, false);
            }
        }
    }

    /// Sends a tick to everybody.
    pub(super) fn tick(&self, tick: Tick) {
        let bytes = event("tick", Some(tick.watermark), &tick);
        let mut state = self.state();
        state.tick = Some(tick);
        self.send(&mut state, bytes, false);
    }

    /// Sends the latest tick once more, changed like this; nothing before the first one.
    pub(super) fn tick_again(&self, change: impl FnOnce(&mut Tick)) {
        let mut state = self.state();
        let Some(mut tick) = state.tick.take() else { return };
        change(&mut tick);
        let bytes = event("tick", Some(tick.watermark), &tick);
        state.tick = Some(tick);
        self.send(&mut state, bytes, false);
    }

    /// What a watcher gets first, and the number of the last event that is part of it; `None` before the first tick.
    pub(super) fn snapshot(&self, tally: Option<&Tally>) -> Option<(u64, Bytes)> {
        let mut state = self.state();
        if let Some(ready) = state.snapshot.as_ref().filter(|(number, _)| *number == state.number) {
            return Some(ready.clone());
        }
        let tick = state.tick.as_ref()?;
        let curve = state.story.curve.read(tick.server_time, state.story.levels(), tally);
        let bytes = event("snapshot", Some(tick.watermark), &Snapshot { tick, curve, log: &state.log });
        let ready = (state.number, bytes);
        state.snapshot = Some(ready.clone());
        Some(ready)
    }

    /// The notes after the last one that was asked for here.
    pub(super) fn unseen(&self, notes: &Notes, sale: &SaleId) -> Vec<Entry> {
        let mut state = self.state();
        let notes = notes.0.lock().expect("no holder panics");
        let after = std::mem::replace(&mut state.notes_seen, notes.number);
        let unseen = notes.kept.iter().filter(|note| note.number > after);
        unseen.filter(|note| note.sale.as_ref().is_none_or(|of| of == sale)).map(|note| note.entry.clone()).collect()
    }

    fn send(&self, state: &mut State, bytes: Bytes, last: bool) {
        state.number += 1;
        let _nobody_watches = self.sent.send(Sent { number: state.number, bytes, last });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn leave(&mut self) {
        (self.running, self.tick, self.snapshot) = (false, None, None);
    }
}

/// An event as it goes over the wire.
pub(super) fn event(name: &str, id: Option<Seq>, data: &impl Serialize) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let data = serde_json::to_string(data).expect("strings and numbers become JSON");
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}

/// The data of an event.
pub(super) fn data(event: &Bytes) -> Option<Bytes> {
    const NAME: &[u8] = b"\ndata: ";
    let at = event.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    Some(event.slice(at..event.len().checked_sub(2)?))
}

/// What the process notes for the event log, about one sale or all of them; the latest ones are kept.
#[derive(Default)]
pub(in crate::http) struct Notes(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    number: u64,
    kept: VecDeque<Note>,
}

struct Note {
    number: u64,
    sale: Option<SaleId>,
    entry: Entry,
}

impl Notes {
    /// Notes something.
    pub(in crate::http) fn add(&self, sale: Option<SaleId>, entry: Entry) {
        let mut noted = self.0.lock().expect("no holder panics");
        noted.number += 1;
        let number = noted.number;
        noted.kept.push_back(Note { number, sale, entry });
        if noted.kept.len() > LOG_ENTRIES_MAX {
            noted.kept.pop_front();
        }
    }
}

/// The feeds of all sales that were ever watched in this process.
#[derive(Default)]
pub(in crate::http) struct Feeds(Mutex<std::collections::HashMap<SaleId, Arc<Feed>>>);

impl Feeds {
    pub(super) fn of(&self, sale: &Sale) -> Arc<Feed> {
        let mut feeds = self.0.lock().expect("no holder panics");
        feeds.entry(sale.id.clone()).or_insert_with(|| Arc::new(Feed::new(sale))).clone()
    }
}
