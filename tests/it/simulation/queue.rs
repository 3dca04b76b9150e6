//! The queue on a bad day: pushes get lost or come late, the broker crashes, undoes its last bindings, or loses everything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use sluice::ledger::MoveKind;
use sluice::model::{Claim, Effect, Epoch, Error, Result, SaleId};
use sluice::queue::{Body, Delivery, Depth, Message, Push, Queue, Receipt};

use super::world::{Bug, Fate, World, at_once, less, unavailable};
use crate::model_queue::ModelQueue;

/// How long a process remembers its fences, in case that the broker forgets them.
const FENCES_KEPT: Duration = Duration::from_secs(10);
/// How long a process may take to connect again.
const RECONNECT_MS_MAX: usize = 1_000;
/// Receipts of the second shard begin here.
const SECOND_SHARD: u64 = 1 << 40;

/// A process's connection to the queue.
pub(crate) struct FaultyQueue {
    pub(crate) world: Arc<World>,
    shards: Vec<Arc<ModelQueue>>,
    reach: Arc<AtomicUsize>,
    session: Mutex<Session>,
}

/// One life of the connection.
struct Session {
    /// Which life of the broker it is connected to.
    life: u64,
    /// What was fenced lately, and when.
    fences: Vec<(Duration, SaleId, Epoch)>,
}

impl FaultyQueue {
    pub(crate) fn new(world: &Arc<World>, reach: &Arc<AtomicUsize>) -> Arc<Self> {
        let shards = world.shards.iter().map(|shard| Arc::new(shard.connect())).collect();
        let session = Session { life: world.broker_life.load(Ordering::Relaxed), fences: Vec::new() };
        Arc::new(Self { world: world.clone(), shards, reach: reach.clone(), session: Mutex::new(session) })
    }

    /// The broker notices that this consumer is gone. A table in a file keeps its sequence, a broker need not.
    pub(crate) fn leave(&self) {
        let sim = &self.world.sim;
        for shard in &self.shards {
            if self.world.distributed {
                shard.leave(self.world.has(Bug::RedeliveredMarkerTrusted), |count| sim.below(count));
            } else {
                shard.leave(true, |_| 0);
            }
        }
    }

    /// Whether the connection is to the broker as it lives now.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected().is_ok()
    }

    fn connected(&self) -> Result<u64> {
        let life = self.session.lock().expect("no holder panics").life;
        if life == self.world.broker_life.load(Ordering::Relaxed) {
            return Ok(life);
        }
        Err(Error::Unavailable { layer: "queue", why: "not connected".into(), effect: Effect::None })
    }

    /// What a supervisor does after a crash: fences that the broker may have forgotten are repeated, and what may still be
    /// on its way gets the time that it needs to be too late, before anything else happens.
    pub(crate) async fn reconnect(&self) {
        let sim = &self.world.sim;
        loop {
            let life = self.world.broker_life.load(Ordering::Relaxed);
            sim.sleep(sim.ms_below(RECONNECT_MS_MAX)).await;
            let fences = {
                let mut session = self.session.lock().expect("no holder panics");
                session.fences.retain(|(at, ..)| sim.now().saturating_sub(*at) < FENCES_KEPT);
                session.fences.clone()
            };
            if !fences.is_empty() && !self.world.has(Bug::FencesNotRepeated) {
                for (_, sale, below) in &fences {
                    at_once(self.shard(sale).fence(sale, *below));
                }
                sim.sleep(self.push_timeout().unwrap_or_default()).await;
            }
            if life == self.world.broker_life.load(Ordering::Relaxed) {
                self.session.lock().expect("no holder panics").life = life;
                return;
            }
        }
    }

    fn shard(&self, sale: &SaleId) -> &Arc<ModelQueue> {
        &self.shards[self.world.shard(sale)]
    }

    fn down(&self) -> Result<()> {
        if less(&self.world.queue_down_calls) { Err(unavailable("queue")) } else { Ok(()) }
    }

    /// What a broker does with a message: it routes it at once, and a moment later it stands in the line.
    async fn travel(&self, message: Message) -> Result<Push> {
        let world = &self.world;
        let line = self.shard(&message.sale).clone();
        if !world.distributed {
            return world.call("queue", move |_| at_once(line.push(message))).await;
        }
        let life = self.connected()?;
        let mut fate = world.fate();
        if world.only_late && world.sim.percent(20) && world.fault() {
            fate = Fate::Slow;
        }
        world.sim.pause().await;
        if fate == Fate::RequestLost {
            world.sim.note(|| "a push is lost".into());
            let lies = world.has(Bug::LostPushAnsweredAsDurable);
            return if lies { Ok(Push::Durable) } else { Err(unavailable("queue")) };
        }
        if life == self.connected()? && !line.routes(&message) && !world.has(Bug::NoFence) {
            return if world.has(Bug::FencedMeansFailed) { Err(unavailable("queue")) } else { Ok(Push::Fenced) };
        }
        let (tell, told) = oneshot::channel();
        let late = world.clone();
        world.sim.send(async move {
            let sim = &late.sim;
            sim.pause().await;
            if fate == Fate::Slow {
                late.slow(6_000).await;
            }
            let crashed = late.broker_life.load(Ordering::Relaxed) > life;
            let lost = late.broker_wiped.load(Ordering::Relaxed) > life || (crashed && sim.percent(50));
            if lost {
                return;
            }
            line.append(message.clone());
            if sim.percent(3) {
                sim.note(|| format!("a push arrives twice: {message:?}"));
                line.append(message);
            }
            sim.pause().await;
            if fate != Fate::AnswerLost && late.broker_life.load(Ordering::Relaxed) == life {
                let _gone = tell.send(Push::Durable);
            }
        });
        told.await.map_err(|_| unavailable("queue"))
    }

    /// Changes the bindings, on a connection that outlives the change.
    async fn rebind(&self, change: impl FnOnce(&World) + Send + 'static) -> Result<()> {
        self.down()?;
        let life = self.connected()?;
        let done = self.world.call("queue", move |world| {
            let connected = world.broker_life.load(Ordering::Relaxed) == life;
            if connected {
                change(world);
            }
            connected
        });
        let done = done.await? && self.connected()? == life;
        if done { Ok(()) } else { Err(unavailable("queue")) }
    }

    /// The hasty programmer's repair: what was perhaps not pushed is given back.
    fn compensate(&self, claim: &Claim) {
        let server = &self.world.gates[self.reach.load(Ordering::Relaxed)];
        if server.find(claim.sale(), claim.id()).is_some() {
            server.forge(claim.sale(), MoveKind::Withdraw, Some(claim.id()), claim.lines());
            server.forge(claim.sale(), MoveKind::Add, None, claim.lines());
        }
    }
}

/// The shard of a receipt, and the receipt as that shard knows it.
fn at_shard(receipt: Receipt) -> (usize, Receipt) {
    let shard = receipt.from / SECOND_SHARD;
    let base = shard * SECOND_SHARD;
    (usize::try_from(shard).expect("0 or 1"), Receipt { from: receipt.from - base, to: receipt.to - base })
}

#[async_trait]
impl Queue for FaultyQueue {
    async fn push(&self, message: Message) -> Result<Push> {
        self.down()?;
        if !self.world.has(Bug::CompensateOnTimeout) {
            return self.travel(message).await;
        }
        let pushed = self.travel(message.clone()).await;
        if let (Err(_), Body::Claim(claim)) = (&pushed, &message.body) {
            self.compensate(claim);
        }
        pushed
    }

    async fn pull(&self, messages_max: usize) -> Result<Delivery> {
        self.down()?;
        self.connected()?;
        let few = messages_max.min(1 + self.world.sim.below(8));
        let (mut delivery, shard) = match &self.shards[..] {
            [one, other] => match select(one.pull(few), other.pull(few)).await {
                Either::Left((delivery, _)) => (delivery?, 0),
                Either::Right((delivery, _)) => (delivery?, 1),
            },
            shards => (shards[0].pull(few).await?, 0),
        };
        delivery.receipt.from += shard * SECOND_SHARD;
        delivery.receipt.to += shard * SECOND_SHARD;
        self.world.sim.pause().await;
        if self.world.has(Bug::AcknowledgeBeforeCommit) {
            let (shard, receipt) = at_shard(delivery.receipt);
            self.shards[shard].acknowledge(receipt).await?;
        }
        Ok(delivery)
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<()> {
        self.world.worker(false).await;
        self.down()?;
        let (shard, receipt) = at_shard(receipt);
        let line = self.shards[shard].clone();
        self.world.call("queue", move |_| at_once(line.acknowledge(receipt))).await
    }

    async fn park(&self, receipt: Receipt, why: &str) -> Result<()> {
        let (shard, receipt) = at_shard(receipt);
        let (line, why) = (self.shards[shard].clone(), why.to_owned());
        self.world.call("queue", move |_| at_once(line.park(receipt, &why))).await
    }

    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()> {
        let now = self.world.sim.now();
        self.session.lock().expect("no holder panics").fences.push((now, sale.clone(), below));
        let (line, sale) = (self.shard(sale).clone(), sale.clone());
        self.rebind(move |world| {
            world.sim.note(|| format!("fence {sale} below {below}"));
            at_once(line.fence(&sale, below));
        })
        .await
    }

    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()> {
        let (line, sale) = (self.shard(sale).clone(), sale.clone());
        self.rebind(move |world| {
            world.sim.note(|| format!("bind {sale} {epoch}: {open}"));
            at_once(line.bind(&sale, epoch, open));
        })
        .await
    }

    async fn depth(&self) -> Result<Depth> {
        self.down()?;
        self.connected()?;
        self.shards[0].depth().await
    }

    fn push_timeout(&self) -> Option<Duration> {
        self.shards[0].push_timeout().filter(|_| !self.world.has(Bug::NoWait))
    }
}
