//! Makes the ticks of one sale while somebody watches: one consistent cut each, whose story is read up to its watermark.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::feed::Feed;
use super::judge::Judge;
use super::story::{Entry, Orders};
use super::tally::Tally;
use super::tick::{Bye, Due, Funnel, HoldsJson, ItemJson, ProcessJson, QueueJson, Tick};
use crate::audit::{self, Stock};
use crate::http::Api;
use crate::ledger::{OrderFilter, SaleRecord};
use crate::model::{Error, OrderState, Phase, Result, Sale, SaleState, Seq, Time, limits};
use crate::queue::Depth;

/// Between two ticks; longer if a tick is costly, so that watching takes no more than a fifth of one processor.
const TICK: Duration = Duration::from_millis(200);
const TICK_PAUSE_TIMES: u32 = 4;
/// The holds that end next are read again after this time at least, and so many times as long as reading them took.
const HOLDS_PAUSE_MIN: Duration = Duration::from_secs(1);
const HOLDS_PAUSE_TIMES: u32 = 50;
/// Seconds shown in which holds end.
const HOLDS_SECONDS: usize = 10;
/// Pages of held orders that are read for them: of more, the latest are not shown.
const HOLDS_PAGES_MAX: usize = 10;

/// Makes ticks until nobody watches any more, the sale is gone or the server stops.
pub(super) async fn produce(api: Arc<Api>, sale: Arc<Sale>, feed: Arc<Feed>) {
    let clock = api.shop.clock.clone();
    let mut producer = Producer::new(api.clone(), sale, feed.clone());
    while !feed.is_left() {
        let started = clock.monotonic();
        match producer.tick().await {
            Ok(true) => {}
            Ok(false) => return feed.leave(Some(Bye::SaleGone)),
            Err(error) => producer.complain(&error),
        }
        let took = clock.monotonic().saturating_sub(started);
        let pause = TICK.saturating_sub(took).max(took * TICK_PAUSE_TIMES);
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = api.drained() => return feed.leave(None),
        }
    }
}

struct Producer {
    api: Arc<Api>,
    sale: Arc<Sale>,
    feed: Arc<Feed>,
    judge: Judge,
    holds: Holds,
    said: Said,
    depth: Depth,
}

/// What was seen last time, so that a change is said once.
#[derive(Default)]
struct Said {
    loaded: Option<bool>,
    queue_down: bool,
    failing: bool,
    state: Option<SaleState>,
}

#[derive(Default)]
struct Holds {
    shown: HoldsJson,
    /// At which watermark they were read, and when they may be read again.
    read_at: Seq,
    next_at: Duration,
    /// All orders settled up to here are held no longer.
    after: Seq,
    lapsed_at: Option<Time>,
}

impl Producer {
    fn new(api: Arc<Api>, sale: Arc<Sale>, feed: Arc<Feed>) -> Self {
        let (judge, holds, said) = (Judge::default(), Holds::default(), Said::default());
        Self { api, sale, feed, judge, holds, said, depth: Depth::default() }
    }

    /// Makes a tick and sends it; false if there is no such sale any more.
    async fn tick(&mut self) -> Result<bool> {
        let shop = self.api.shop.clone();
        self.judge.recount(&shop, &self.sale.id).await;
        let Some((record, stock)) = audit::survey(&shop, &self.sale.id).await? else { return Ok(false) };
        if !self.read_up_to(stock.watermark).await? {
            // The gate is a little behind what was told before: the next cut is not.
            return Ok(true);
        }
        // A queue that does not answer is no reason to show nothing of the rest.
        let depth = shop.queue.depth().await.unwrap_or(self.depth);
        self.depth = depth;
        self.read_holds(&record).await?;
        self.said.failing = false;
        self.tell(&record, &stock);
        self.feed.tick(self.cut(&record, stock, depth));
        Ok(true)
    }

    /// Reads the journal up to exactly this move; false if more of it was read before.
    async fn read_up_to(&self, watermark: Seq) -> Result<bool> {
        loop {
            let at = self.feed.with_story(|story| story.at);
            if at >= watermark {
                return Ok(at == watermark);
            }
            let moves = self.api.shop.ledger.journal(&self.sale.id, at, limits::JOURNAL_PAGE_MOVES_MAX).await?;
            if moves.is_empty() {
                return Err(Error::Damaged("ledger", format!("its journal ends at #{at} before #{watermark}")));
            }
            self.feed.read(&self.sale, &moves, watermark);
        }
    }

    fn cut(&self, record: &SaleRecord, stock: Stock, depth: Depth) -> Tick {
        let (api, sale) = (&self.api, &record.sale);
        let now = api.shop.clock.now();
        let tally = api.tally(&sale.id);
        let tally = tally.as_deref();
        let (orders, marks, verdict) =
            self.feed.with_story(|story| (story.orders, story.marks(sale, now), self.judge.verdict(story, &stock)));
        let verdict = self.feed.worst(verdict);
        let uptime = api.shop.clock.monotonic().saturating_sub(api.started);
        Tick {
            sale: sale.id.clone(),
            name: sale.name.clone(),
            state: sale.window.state(now),
            server_time: now,
            opens_at: sale.window.opens_at,
            closes_at: sale.window.closes_at,
            hold_seconds: sale.hold_seconds,
            per_customer_limit: sale.per_customer_limit,
            watermark: stock.watermark,
            conserved: stock.conserved && verdict.is_clean(),
            in_flight: stock.in_flight,
            verdict,
            items: stock.items.into_iter().zip(&sale.items).map(|(units, item)| ItemJson::new(units, item)).collect(),
            funnel: Funnel::new(tally.map(Tally::answers).unwrap_or_default(), orders),
            latency: tally.map(Tally::latency).unwrap_or_default(),
            queue: QueueJson {
                depth: depth.waiting,
                oldest_seconds: depth.oldest.as_secs_f64(),
                dead_letters: depth.parked,
            },
            holds: self.holds.shown.clone(),
            process: ProcessJson::read(api.run_by, uptime),
            marks,
            demo: api.demo.is_some(),
        }
    }

    /// Writes into the log what has changed since the last tick.
    fn tell(&mut self, record: &SaleRecord, stock: &Stock) {
        let (now, shop) = (self.api.shop.clock.now(), &self.api.shop);
        let mut entries = self.feed.unseen(&self.api.notes, &self.sale.id);
        let state = record.sale.window.state(now);
        if let Some(before) = self.said.state.replace(state).filter(|before| *before != state) {
            entries.extend(self.by_the_clock(record, before, state, now));
        }
        let loaded = stock.items.iter().all(|item| item.gate.is_some());
        let epoch = record.epoch.epoch;
        match self.said.loaded.replace(loaded) {
            Some(true) if !loaded && state != SaleState::Ended => {
                entries.push(Entry::note(now, "reloaded", "the gate is being loaded: orders are asked to come again"));
            }
            Some(false) if loaded => {
                entries.push(Entry::note(now, "reloaded", format!("the gate was loaded, under epoch {epoch}")));
            }
            _ => {}
        }
        let down = shop.queue_down.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.said.queue_down, down) != down {
            let text = if down { "the queue is down: orders are asked to come again" } else { "the queue is back" };
            entries.push(Entry::note(now, "slow", text));
        }
        self.feed.tell(entries);
    }

    /// The window opens and closes without a move.
    fn by_the_clock(&self, record: &SaleRecord, before: SaleState, state: SaleState, now: Time) -> Option<Entry> {
        let window = record.sale.window;
        let opened = before == SaleState::Scheduled && state == SaleState::Open && window.opens_at.is_some();
        let moved = self.feed.with_story(|story| story.opened);
        match (state, window.closes_at) {
            (SaleState::Open, _) if opened && !moved => {
                let at = self.feed.with_story(|story| story.opened_at(&record.sale, now))?;
                Some(Entry::note(at, "opened", "the sale opened, as it was set"))
            }
            (SaleState::Ended, Some(at)) if window.phase != Phase::Closed => {
                Some(Entry::note(at, "closed", "the sale closed, as it was set"))
            }
            _ => None,
        }
    }

    /// A tick that cannot be made is said once; the age of the last one says the rest.
    fn complain(&mut self, error: &Error) {
        if let Error::Damaged(what, why) = error {
            let verdict = self.feed.worst(self.judge.unreadable(format!("{what}: {why}")));
            let now = self.api.shop.clock.now();
            self.feed.tick_again(|tick| {
                (tick.server_time, tick.conserved, tick.verdict) = (now, false, verdict);
            });
        }
        if !std::mem::replace(&mut self.said.failing, true) {
            tracing::warn!(%error, sale = %self.sale.id, "no tick for those who watch");
            let text = match error {
                Error::Damaged(what, _) => format!("the {what} holds what cannot be"),
                Error::Unavailable { layer, .. } => format!("the {layer} does not answer"),
                _ => "no cut could be made".to_owned(),
            };
            self.feed.tell(vec![Entry::note(self.api.shop.clock.now(), "slow", text)]);
        }
    }

    /// Which holds end next, and how late the last one did.
    async fn read_holds(&mut self, record: &SaleRecord) -> Result<()> {
        let shop = self.api.shop.clone();
        let (Orders { held, .. }, lapsed) = self.feed.with_story(|story| (story.orders, story.lapsed));
        if let Some((id, at)) = lapsed.filter(|(_, at)| self.holds.lapsed_at != Some(*at)) {
            let due = shop.ledger.order(id).await?.and_then(|record| record.expires_at);
            self.holds.shown.release_lag_seconds = due.map(|due| at.since(due).as_secs_f64());
            self.holds.lapsed_at = Some(at);
        }
        let now = shop.clock.monotonic();
        if record.watermark == self.holds.read_at || now < self.holds.next_at {
            return Ok(());
        }
        self.holds.read_at = record.watermark;
        self.holds.shown.next = if held > 0 { self.next_due().await? } else { Vec::new() };
        let took = shop.clock.monotonic().saturating_sub(now);
        self.holds.next_at = now + HOLDS_PAUSE_MIN.max(took * HOLDS_PAUSE_TIMES);
        Ok(())
    }

    /// All holds of a sale last equally long, so they end in the sequence of their settling.
    async fn next_due(&mut self) -> Result<Vec<Due>> {
        let limit = limits::PAGE_ORDERS_MAX;
        let sale = self.sale.id.clone();
        let mut filter =
            OrderFilter { sale, state: Some(OrderState::Held), customer: None, after: self.holds.after, limit };
        let mut due: Vec<Due> = Vec::new();
        for page in 0..HOLDS_PAGES_MAX {
            let found = self.api.shop.ledger.orders(&filter).await?;
            if page == 0 {
                let before = |seq: Seq| Seq(seq.0.saturating_sub(1));
                self.holds.after = found.orders.first().and_then(|order| order.seq).map_or(filter.after, before);
            }
            for order in &found.orders {
                let Some(ends) = order.expires_at else { continue };
                let second = Time::from_millis(ends.millis() - ends.millis().rem_euclid(1_000));
                let units = order.order.lines.iter().map(|line| u64::from(line.quantity.get())).sum::<u64>();
                if let Some(due) = due.last_mut().filter(|due| due.at == second) {
                    due.units += units;
                } else if due.len() == HOLDS_SECONDS {
                    return Ok(due);
                } else {
                    due.push(Due { at: second, units });
                }
            }
            let Some(next) = found.next else { break };
            filter.after = next;
        }
        Ok(due)
    }
}
