//! The queue as a table in a SQLite file. A row is a batch of claims, so that one insert and one fsync carry many.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Notify;

use super::{Delivery, Depth, Push, Queue, Receipt};
use crate::batcher::{Batcher, Batches, Gone, Waiting, batcher};
use crate::clock::Clock;
use crate::fault::{self, Moment};
use crate::model::{Body, Effect, Epoch, Error, Message, Result, SaleId, limits};
use crate::sqlite::{Failure, Store};
use crate::way::{Stop, Ways};

const LAYER: &str = "queue";
/// Messages that are kept in memory until they are settled; those beyond are read from the table.
const FRESH_MESSAGES_MAX: usize = 20_000;

/// Keeps messages in the table `messages`, and the fence in `bindings`: `migrations/sqlite/queue`.
pub struct SqliteQueue {
    store: Store,
    clock: Arc<dyn Clock>,
    pushes: Batcher<Message, Result<Push>>,
    pushed: Arc<Notify>,
    fresh: Arc<Fresh>,
    /// The last position that is settled; its rows are removed a moment later.
    acknowledged: AtomicU64,
}

impl SqliteQueue {
    /// A queue in this database, which notes in `ways` when claims leave. It needs a tokio runtime, in which the batches form.
    pub fn new(store: Store, clock: Arc<dyn Clock>, ways: Arc<Ways>) -> Self {
        let (pushes, batches) = batcher(limits::PUSH_WAITING_MAX);
        let (pushed, fresh) = (Arc::new(Notify::new()), Arc::new(Fresh::default()));
        tokio::spawn(push_batches(store.clone(), clock.clone(), ways, batches, fresh.clone(), pushed.clone()));
        Self { store, clock, pushes, pushed, fresh, acknowledged: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn push(&self, message: Message) -> Result<Push> {
        self.pushes.call(message).await.unwrap_or_else(|gone| match gone {
            Gone::Full => Err(Error::Overloaded(LAYER)),
            Gone::Dropped => {
                Err(Error::Unavailable { layer: LAYER, why: "shutting down".into(), effect: Effect::Unknown })
            }
        })
    }

    async fn pull(&self, messages_max: usize) -> Result<Delivery> {
        loop {
            let pushed = self.pushed.notified();
            let after = self.acknowledged.load(Ordering::Acquire);
            if let Some(delivery) = self.fresh.after(after, messages_max) {
                return Ok(delivery);
            }
            let front = self.store.read(LAYER, move |connection| front(connection, after, messages_max)).await?;
            if let Some(row) = front.unreadable {
                self.set_aside(Receipt { from: row.0, to: row.0 }, row.1).await?;
            } else if let Some(delivery) = front.delivery {
                return Ok(delivery);
            } else {
                pushed.await;
            }
        }
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<()> {
        self.acknowledged.fetch_max(receipt.to, Ordering::AcqRel);
        self.fresh.forget(receipt.to);
        let job = move |connection: &Connection| {
            let sql = "/* acknowledge */ delete from messages where position <= ?1";
            Ok(connection.prepare_cached(sql)?.execute([receipt.to])?)
        };
        // Rows that stay are pulled again after a restart and are known by then, so nobody waits for their removal.
        self.store.submit(LAYER, job, |_| ()).await
    }

    async fn park(&self, receipt: Receipt, why: &str) -> Result<()> {
        self.set_aside(receipt, why.to_owned()).await
    }

    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()> {
        let sale = sale.clone();
        let job = move |connection: &Connection| {
            let sql = "/* fence */ delete from bindings where sale = ?1 and epoch < ?2";
            connection.prepare_cached(sql)?.execute(params![sale.as_str(), below.0])?;
            Ok(())
        };
        self.store.write(LAYER, job).await
    }

    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()> {
        let sale = sale.clone();
        let job = move |connection: &Connection| {
            let sql = if open {
                "/* bind */ insert or ignore into bindings (sale, epoch) values (?1, ?2)"
            } else {
                "/* unbind */ delete from bindings where sale = ?1 and epoch = ?2"
            };
            connection.prepare_cached(sql)?.execute(params![sale.as_str(), epoch.0])?;
            Ok(())
        };
        self.store.write(LAYER, job).await
    }

    async fn depth(&self) -> Result<Depth> {
        let now = self.clock.now().millis();
        let job = move |connection: &Connection| {
            let sql = "/* depth */ select coalesce(sum(claims), 0), min(pushed_at), (select count(*) from parked) \
                       from messages";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| {
                let since: Option<i64> = row.get(1)?;
                let oldest_ms = since.map_or(0, |since| u64::try_from(now - since).unwrap_or(0));
                Ok(Depth { waiting: row.get(0)?, oldest: Duration::from_millis(oldest_ms), parked: row.get(2)? })
            })?)
        };
        self.store.read(LAYER, job).await
    }

    /// Fence and push are transactions of one writer.
    fn push_timeout(&self) -> Option<Duration> {
        None
    }
}

impl SqliteQueue {
    async fn set_aside(&self, receipt: Receipt, why: String) -> Result<()> {
        self.fresh.forget(receipt.to);
        let now = self.clock.now().millis();
        let job = move |connection: &Connection| {
            let sql = "/* park */ insert or ignore into parked (position, body, why, parked_at) \
                       select position, body, ?3, ?4 from messages where position between ?1 and ?2";
            connection.prepare_cached(sql)?.execute(params![receipt.from, receipt.to, why, now])?;
            let sql = "/* park, remove */ delete from messages where position between ?1 and ?2";
            connection.prepare_cached(sql)?.execute(params![receipt.from, receipt.to])?;
            Ok(())
        };
        self.store.write(LAYER, job).await
    }
}

/// What this process pushed lately, as it was before it was written down: a claim that is settled soon is never read from the
/// table. It is a copy of committed rows, and may have gaps.
#[derive(Default)]
struct Fresh {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    rows: VecDeque<Row>,
    /// In all rows together.
    messages: usize,
}

/// A committed row of the table.
struct Row {
    position: u64,
    messages: Vec<Message>,
}

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder panics")
    }

    /// Keeps a row, if there is room.
    fn keep(&self, row: Row) {
        let mut kept = self.lock();
        if kept.messages + row.messages.len() <= FRESH_MESSAGES_MAX {
            kept.messages += row.messages.len();
            kept.rows.push_back(row);
        }
    }

    /// Forgets the rows up to this position.
    fn forget(&self, to: u64) {
        let mut kept = self.lock();
        while let Some(row) = kept.rows.pop_front_if(|row| row.position <= to) {
            kept.messages -= row.messages.len();
        }
    }

    /// The rows directly behind this position, until there are enough messages; `None` if the next one is not here.
    fn after(&self, position: u64, messages_max: usize) -> Option<Delivery> {
        let kept = self.lock();
        let (mut messages, mut to) = (Vec::new(), position);
        for row in kept.rows.iter().skip_while(|row| row.position <= position) {
            let too_many = to > position && messages.len() + row.messages.len() > messages_max;
            if row.position != to + 1 || too_many {
                break;
            }
            messages.extend_from_slice(&row.messages);
            to = row.position;
        }
        (to > position).then_some(Delivery { messages, receipt: Receipt { from: position + 1, to } })
    }
}

/// What stands at the front of the queue.
#[derive(Default)]
struct Front {
    delivery: Option<Delivery>,
    unreadable: Option<(u64, String)>,
}

/// Rows after this position until there are enough messages; a row that cannot be read comes alone.
fn front(connection: &Connection, after: u64, messages_max: usize) -> Result<Front, Failure> {
    let sql = "/* pull */ select position, claims, body from messages where position > ?1 order by position";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([after])?;
    let mut front = Front::default();
    while let Some(row) = rows.next()? {
        let (position, claims): (u64, usize) = (row.get(0)?, row.get(1)?);
        if front.delivery.as_ref().is_some_and(|delivery| delivery.messages.len() + claims > messages_max) {
            break;
        }
        let body: String = row.get(2)?;
        let messages = match body.lines().map(serde_json::from_str).collect::<Result<Vec<Message>, _>>() {
            Ok(messages) => messages,
            Err(error) if front.delivery.is_none() => {
                front.unreadable = Some((position, error.to_string()));
                break;
            }
            Err(_) => break,
        };
        let receipt = Receipt { from: position, to: position };
        let delivery = front.delivery.get_or_insert_with(|| Delivery { messages: Vec::new(), receipt });
        delivery.messages.extend(messages);
        delivery.receipt.to = position;
    }
    Ok(front)
}

/// Turns what gathered into one row, again and again.
async fn push_batches(
    store: Store,
    clock: Arc<dyn Clock>,
    ways: Arc<Ways>,
    mut batches: Batches<Message, Result<Push>>,
    fresh: Arc<Fresh>,
    pushed: Arc<Notify>,
) {
    while let Some(batch) = batches.next(limits::PUSH_BATCH_CLAIMS_MAX).await {
        let (messages, answers): (Vec<Message>, Vec<_>) = batch.into_iter().map(Waiting::split).unzip();
        let now = clock.now().millis();
        ways.note(messages.iter().filter_map(Message::claim_id), &[(Stop::Sealed, clock.monotonic())]);
        let claims = messages.iter().any(Message::is_claim);
        if claims {
            fault::at(Moment::BeforePublish);
        }
        match store.write(LAYER, move |connection| insert(connection, messages, now)).await {
            Ok((pushes, row)) => {
                if claims {
                    fault::at(Moment::Published);
                }
                row.into_iter().for_each(|row| fresh.keep(row));
                pushed.notify_one();
                answers.into_iter().zip(pushes).for_each(|(answer, push)| answer(Ok(push)));
            }
            Err(error) => answers.into_iter().for_each(|answer| answer(Err(error.clone()))),
        }
    }
}

/// Writes the messages that the fence lets in, as one row.
fn insert(connection: &Connection, messages: Vec<Message>, now: i64) -> Result<(Vec<Push>, Option<Row>), Failure> {
    let mut body = Vec::new();
    let mut pushes = Vec::with_capacity(messages.len());
    let mut asked: Option<(&SaleId, Epoch, bool)> = None;
    for message in &messages {
        let open = match (&message.body, asked) {
            (Body::Close | Body::Sweep(_), _) => true,
            (Body::Claim(_), Some((sale, epoch, open))) if *sale == message.sale && epoch == message.epoch => open,
            (Body::Claim(_), _) => bound(connection, message)?,
        };
        asked = Some((&message.sale, message.epoch, open)).filter(|_| matches!(message.body, Body::Claim(_)));
        if open {
            serde_json::to_writer(&mut body, message).map_err(|error| Failure::Nonsense(error.to_string()))?;
            body.push(b'\n');
        }
        pushes.push(if open { Push::Durable } else { Push::Fenced });
    }
    let let_in = pushes.iter().map(|push| *push == Push::Durable);
    let messages: Vec<Message> =
        messages.into_iter().zip(let_in).filter_map(|(message, let_in)| let_in.then_some(message)).collect();
    if messages.is_empty() {
        return Ok((pushes, None));
    }
    let body = String::from_utf8(body).map_err(|error| Failure::Nonsense(error.to_string()))?;
    let sql = "/* push */ insert into messages (body, claims, pushed_at) values (?1, ?2, ?3)";
    let position = connection.prepare_cached(sql)?.insert(params![body, messages.len(), now])?;
    let position = u64::try_from(position).map_err(|error| Failure::Nonsense(error.to_string()))?;
    Ok((pushes, Some(Row { position, messages })))
}

fn bound(connection: &Connection, message: &Message) -> rusqlite::Result<bool> {
    let sql = "/* bound */ select 1 from bindings where sale = ?1 and epoch = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found: Option<i64> =
        statement.query_row(params![message.sale.as_str(), message.epoch.0], |row| row.get(0)).optional()?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: u64, messages: u64) -> Row {
        let sale = SaleId::new("s").expect("a good name");
        let messages =
            (0..messages).map(|number| Message { sale: sale.clone(), epoch: Epoch(1), body: Body::Sweep(number) });
        Row { position, messages: messages.collect() }
    }

    fn found(fresh: &Fresh, after: u64, messages_max: usize) -> Option<(usize, u64, u64)> {
        let Delivery { messages, receipt } = fresh.after(after, messages_max)?;
        Some((messages.len(), receipt.from, receipt.to))
    }

    #[test]
    fn only_what_comes_directly_next_is_taken_from_memory() {
        let fresh = Fresh::default();
        for position in [4, 5, 7, 8] {
            fresh.keep(row(position, 3));
        }
        assert_eq!(found(&fresh, 2, 100), None, "the table has row 3");
        assert_eq!(found(&fresh, 3, 100), Some((6, 4, 5)), "row 6 is in the table alone");
        assert_eq!(found(&fresh, 3, 5), Some((3, 4, 4)));
        assert_eq!(found(&fresh, 3, 1), Some((3, 4, 4)), "what was pushed together comes together");
        assert_eq!(found(&fresh, 4, 100), Some((3, 5, 5)), "row 4 is settled and its removal has yet to come");
        fresh.forget(5);
        assert_eq!(found(&fresh, 3, 100), None);
        assert_eq!(found(&fresh, 5, 100), None);
        assert_eq!(found(&fresh, 6, 100), Some((6, 7, 8)));
        assert_eq!(found(&fresh, 8, 100), None);
    }

    #[test]
    fn a_row_without_room_stays_in_the_table() {
        let fresh = Fresh::default();
        let size = FRESH_MESSAGES_MAX as u64 / 4;
        (1..=4).for_each(|position| fresh.keep(row(position, size)));
        fresh.keep(row(5, 1));
        assert_eq!(found(&fresh, 3, 100), Some((FRESH_MESSAGES_MAX / 4, 4, 4)));
        assert_eq!(found(&fresh, 4, 100), None);
        fresh.forget(4);
        fresh.keep(row(6, size));
        assert_eq!(found(&fresh, 4, 100), None, "the row without room comes first");
        (7..=9).for_each(|position| fresh.keep(row(position, size)));
        assert_eq!(found(&fresh, 8, 100), Some((FRESH_MESSAGES_MAX / 4, 9, 9)), "what was settled has made room");
    }
}
