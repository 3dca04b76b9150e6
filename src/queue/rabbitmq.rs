//! The queue as RabbitMQ: quorum queues that refuse rather than drop, pushes that are confirmed, and bindings as the fence.
//!
//! Claims are routed by sale and epoch. Unbinding an epoch makes RabbitMQ return whatever is pushed under it from then on,
//! whoever sends it, and a returned claim is never promised. Markers go to their shard's queue directly.

mod address;
mod buffer;
mod lane;
mod parcel;
mod reader;
mod session;
mod supervisor;
mod topology;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use lapin::options::{BasicAckOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use self::address::Address;
use self::buffer::{Buffer, Entry};
use self::lane::Handed;
use self::session::Session;
use super::{Delivery, Depth, Push, Queue, Receipt};
use crate::batcher::{Batcher, Gone, batcher};
use crate::clock::Clock;
use crate::model::{Body, Effect, Epoch, Error, Message, Result, SaleId, limits};
use crate::remote::Unusable;
use crate::way::Ways;

const LAYER: &str = "queue";
/// Bindings removed at once.
const UNBIND_AT_ONCE: usize = 64;
/// Sales whose fences are remembered, to spare questions; any number would do.
const FENCES_MAX: usize = 10_000;
/// A power failure may undo what RabbitMQ answered this short a time before: it does not wait until a binding is on disk
/// (`mnesia:sync_log/0` says so). A killed RabbitMQ undoes nothing.
const BINDINGS_SETTLE: Duration = Duration::from_secs(10);

/// Pushes and pulls through RabbitMQ, and reconnects for as long as it lives.
pub struct RabbitQueue {
    shared: Arc<Shared>,
    lanes: Vec<Batcher<Handed, Result<Push>>>,
}

/// What the tasks of one queue share.
struct Shared {
    address: Address,
    clock: Arc<dyn Clock>,
    ways: Arc<Ways>,
    session: RwLock<Option<Arc<Session>>>,
    buffer: Buffer,
    /// Whether this process pulls: one that only pushes must not stand in line.
    pulls: watch::Sender<bool>,
    fences: Mutex<Fences>,
    stop: Notify,
}

#[derive(Default)]
struct Fences {
    /// Per sale, the epoch below which nothing is bound, as far as this connection knows.
    floors: HashMap<SaleId, Epoch>,
    /// What was fenced lately, and when on the monotonic clock.
    recent: Vec<(Duration, SaleId, Epoch)>,
    /// Fences were repeated: no epoch is closed before this time of the monotonic clock.
    close_from: Duration,
}

impl RabbitQueue {
    /// Connects to `amqp://user:password@host:port/vhost` (or `amqps://`), declares what is missing there and compares what
    /// is not; notes in `ways` when claims leave. It needs a tokio runtime. The error says whether another try may help; it
    /// never shows the password.
    pub async fn connect(url: &str, clock: Arc<dyn Clock>, ways: Arc<Ways>) -> Result<RabbitQueue, Unusable> {
        let address = Address::new(url)?;
        let session = Arc::new(Session::open(&address, clock.as_ref()).await?);
        let shared = Arc::new(Shared {
            address,
            clock,
            ways,
            session: RwLock::new(Some(session.clone())),
            buffer: Buffer::default(),
            pulls: watch::Sender::new(false),
            fences: Mutex::default(),
            stop: Notify::new(),
        });
        let mut lanes = Vec::new();
        for shard in 0..limits::QUEUE_SHARDS {
            let (pushes, batches) = batcher(limits::PUSH_WAITING_MAX);
            tokio::spawn(lane::run(shard, shared.clone(), batches));
            lanes.push(pushes);
        }
        tokio::spawn(supervisor::run(shared.clone(), session));
        Ok(RabbitQueue { shared, lanes })
    }

    /// Where the server is, for people; never the password.
    pub fn name(&self) -> String {
        self.shared.address.to_string()
    }
}

impl Drop for RabbitQueue {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn push(&self, message: Message) -> Result<Push> {
        if self.shared.connected()?.is_alarmed() {
            return Err(session::alarmed());
        }
        if let Body::Close = message.body {
            self.shared.wait_for_fences().await;
        }
        let lane = &self.lanes[topology::shard(&message.sale)];
        let handed = Handed { message, at: self.shared.clock.monotonic() };
        let why = match timeout(limits::PUSH_TIME_MAX, lane.call(handed)).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(Gone::Full)) => return Err(Error::Overloaded(LAYER)),
            Ok(Err(Gone::Dropped)) => "shutting down",
            Err(_) => "RabbitMQ has not confirmed in time",
        };
        Err(Error::Unavailable { layer: LAYER, why: why.to_owned(), effect: Effect::Unknown })
    }

    async fn pull(&self, messages_max: usize) -> Result<Delivery> {
        self.shared.pulls.send_if_modified(|pulls| !std::mem::replace(pulls, true));
        loop {
            let changed = self.shared.buffer.changed();
            self.shared.connected()?;
            if let Some(delivery) = self.shared.buffer.front(messages_max) {
                return Ok(delivery);
            }
            changed.await;
        }
    }

    /// What a lost connection had delivered is delivered again, so there is nothing to acknowledge any more.
    async fn acknowledge(&self, receipt: Receipt) -> Result<()> {
        let Some(session) = self.shared.session() else { return Ok(()) };
        let mut last: BTreeMap<usize, Entry> = BTreeMap::new();
        for entry in self.shared.buffer.take_through(receipt) {
            last.insert(entry.shard, entry);
        }
        for entry in last.into_values() {
            let up_to = BasicAckOptions { multiple: true };
            if session.ask(entry.channel.basic_ack(entry.tag, up_to)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn park(&self, receipt: Receipt, why: &str) -> Result<()> {
        let session = self.shared.connected()?;
        for (messages, pushed_ms) in self.shared.buffer.of(receipt) {
            session.park(&parcel::lines(&messages), messages.len(), pushed_ms, why).await?;
        }
        for entry in self.shared.buffer.take_of(receipt) {
            let alone = BasicAckOptions { multiple: false };
            if session.ask(entry.channel.basic_ack(entry.tag, alone)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()> {
        let session = self.shared.connected()?;
        self.shared.note_fence(sale, below);
        let floor = self.shared.fences().floors.get(sale).copied().unwrap_or_default();
        unbind(&session, sale, floor, below).await?;
        self.shared.raise_floor(sale, below);
        // If the session ended meanwhile, RabbitMQ may have crashed and forgotten; the caller fences again.
        session.still()
    }

    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()> {
        let session = self.shared.connected()?;
        if !open {
            return session.ask(unbinding(&session, sale, epoch.0)).await;
        }
        let (queue, key) = (topology::queue_name(topology::shard(sale)), topology::routing_key(sale, epoch));
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        session.ask(session.control.queue_bind(queue, topology::CLAIMS.into(), key, options, none)).await
    }

    /// As far as this process can see: a parcel that waits in RabbitMQ counts as one message, and its age is unknown.
    async fn depth(&self) -> Result<Depth> {
        let session = self.shared.connected()?;
        let ready = |queue| {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            session.control.queue_declare(queue, passive, FieldTable::default())
        };
        let shards = (0..limits::QUEUE_SHARDS).map(|shard| ready(topology::queue_name(shard)));
        let queues = session.ask(try_join_all(shards.chain([ready(topology::PARKED.into())]))).await?;
        let mut counts: Vec<u64> = queues.iter().map(|queue| queue.message_count().into()).collect();
        let parked = counts.pop().unwrap_or(0);
        let (here, since) = self.shared.buffer.waiting();
        let now = self.shared.clock.now().millis();
        let oldest_ms = since.map_or(0, |since| u64::try_from(now - since).unwrap_or(0));
        Ok(Depth { waiting: counts.iter().sum::<u64>() + here, oldest: Duration::from_millis(oldest_ms), parked })
    }

    fn push_timeout(&self) -> Option<Duration> {
        Some(limits::PUSH_TIME_MAX)
    }
}

/// Removes the bindings of these epochs. AMQP cannot list bindings; removing one that is not there changes nothing.
async fn unbind(session: &Session, sale: &SaleId, from: Epoch, below: Epoch) -> Result<()> {
    let mut next = from.0.max(1);
    while next < below.0 {
        let end = below.0.min(next + UNBIND_AT_ONCE as u64);
        session.ask(try_join_all((next..end).map(|epoch| unbinding(session, sale, epoch)))).await?;
        next = end;
    }
    Ok(())
}

async fn unbinding(session: &Session, sale: &SaleId, epoch: u64) -> lapin::Result<()> {
    let (queue, key) = (topology::queue_name(topology::shard(sale)), topology::routing_key(sale, Epoch(epoch)));
    session.control.queue_unbind(queue, topology::CLAIMS.into(), key, FieldTable::default()).await
}

impl Shared {
    fn session(&self) -> Option<Arc<Session>> {
        self.session.read().expect("no holder panics").clone()
    }

    /// The session, if there is one that has not ended.
    fn connected(&self) -> Result<Arc<Session>> {
        self.session().filter(|session| session.still().is_ok()).ok_or_else(not_connected)
    }

    fn install(&self, session: Option<Arc<Session>>) {
        *self.session.write().expect("no holder panics") = session;
        self.buffer.wake();
    }

    fn fences(&self) -> std::sync::MutexGuard<'_, Fences> {
        self.fences.lock().expect("no holder panics")
    }

    fn note_fence(&self, sale: &SaleId, below: Epoch) {
        if below <= Epoch::FIRST {
            return;
        }
        let now = self.clock.monotonic();
        let mut fences = self.fences();
        fences.recent.retain(|(at, other, _)| other != sale && now.saturating_sub(*at) < BINDINGS_SETTLE);
        fences.recent.push((now, sale.clone(), below));
    }

    /// Fences were repeated just now: what was pushed under an old epoch meanwhile stands in the queue, and what is still on
    /// its way gets the time it needs to be too late.
    fn fenced_again(&self) {
        self.fences().close_from = self.clock.monotonic() + limits::PUSH_TIME_MAX;
    }

    async fn wait_for_fences(&self) {
        let from = self.fences().close_from;
        self.clock.sleep(from.saturating_sub(self.clock.monotonic())).await;
    }

    fn raise_floor(&self, sale: &SaleId, below: Epoch) {
        let mut fences = self.fences();
        if fences.floors.len() >= FENCES_MAX {
            fences.floors.clear();
        }
        let floor = fences.floors.entry(sale.clone()).or_default();
        *floor = below.max(*floor);
    }

    /// What was fenced so shortly before now that RabbitMQ may forget it in a crash.
    fn recent_fences(&self) -> Vec<(SaleId, Epoch)> {
        let now = self.clock.monotonic();
        let mut fences = self.fences();
        fences.floors.clear();
        let recent = fences.recent.iter().filter(|(at, ..)| now.saturating_sub(*at) < BINDINGS_SETTLE);
        recent.map(|(_, sale, below)| (sale.clone(), *below)).collect()
    }
}

fn not_connected() -> Error {
    Error::Unavailable { layer: LAYER, why: "not connected to RabbitMQ".to_owned(), effect: Effect::None }
}
