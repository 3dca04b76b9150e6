//! A gate, a queue and a ledger as they are on a bad day: requests and answers get lost or come late, servers forget,
//! connections break. And the planted bugs, which the promises must catch.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use futures_util::FutureExt;
use sluice::clock::Clock;
use sluice::gate::{Admission, Gate, GateView, MemoryGate, Refusal};
use sluice::ledger::{
    Added, Addition, Adjustment, Books, Creation, EpochState, EpochStep, Lapses, Ledger, Move, MoveKind, OrderFilter,
    OrderPage, Recount, SaleRecord, Settlement, Snapshot, Steered, Turn, Turned,
};
use sluice::model::{Claim, Effect, Epoch, Error, Line, OrderId, OrderState, Result, Sale, SaleId, Seq, Units, Verb};
use sluice::queue::{Body, Delivery, Depth, Message, Push, Queue, Receipt};

use super::executor::Sim;
use super::promises::Promises;
use crate::model_ledger::ModelLedger;
use crate::model_queue::ModelQueue;

/// A mistake planted on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    AcknowledgeBeforeCommit,
    LostPushAnsweredAsDurable,
    MovesAppliedTwice,
    StaleMemoryTrusted,
    NoFence,
    NoWait,
    NoMarker,
    RedeliveredMarkerTrusted,
    ClosedEpochsSettled,
    LedgerForgetsIds,
    LimitOnlyAtTheGate,
    CompensateOnTimeout,
    LiveBeforeBound,
    EpochIgnored,
    EmptyMeansSoldOut,
    PendingForgotten,
    ConfirmUnguarded,
}

/// What all processes reach.
pub(crate) struct World {
    pub(crate) sim: Arc<Sim>,
    pub(crate) bug: Option<Bug>,
    pub(crate) promises: Promises,
    pub(crate) ledger: ModelLedger,
    pub(crate) line: ModelQueue,
    pub(crate) gates: Vec<GateServer>,
    /// Whether there is a network between the processes and what they reach.
    pub(crate) distributed: bool,
    /// How many calls may still go wrong.
    pub(crate) faults_left: AtomicUsize,
    /// How often they do, in a hundred.
    pub(crate) fault_percent: usize,
    /// Whether calls are only late, and never lost.
    pub(crate) only_late: bool,
    /// So many calls of the queue fail from now on.
    pub(crate) queue_down_calls: AtomicUsize,
    /// So many workers die between pull and acknowledgement.
    pub(crate) worker_deaths: AtomicUsize,
    /// Whether the gate or the ledger was called since the last check.
    pub(crate) touched: AtomicBool,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    Slow,
    RequestLost,
    AnswerLost,
}

impl World {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Takes one of the faults that are left.
    pub(crate) fn fault(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.faults_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// A worker that may die here; the moments around a marker are the ones that matter.
    async fn worker(&self, at_a_marker: bool) {
        let less = |left: usize| left.checked_sub(1);
        let doomed = self.worker_deaths.load(Ordering::Relaxed) > 0
            && self.sim.percent(40)
            && self.worker_deaths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if doomed || (at_a_marker && self.sim.percent(60) && self.fault()) {
            self.sim.note(|| "a worker dies".into());
            self.sim.die().await;
        }
    }

    fn fate(&self) -> Fate {
        if !self.sim.percent(self.fault_percent) || !self.fault() {
            return Fate::Good;
        }
        match self.sim.below(3) {
            0 if !self.only_late => Fate::RequestLost,
            1 if !self.only_late => Fate::AnswerLost,
            _ => Fate::Slow,
        }
    }

    /// Calls a server. What was sent arrives even if its sender dies.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        layer: &'static str,
        serve: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T> {
        let fate = self.fate();
        self.sim.pause().await;
        if fate == Fate::RequestLost {
            self.sim.note(|| format!("a request to the {layer} is lost"));
            return Err(unavailable(layer));
        }
        if fate == Fate::Good && self.sim.percent(70) {
            let answer = serve(self);
            self.touched.store(true, Ordering::Relaxed);
            self.sim.pause().await;
            return Ok(answer);
        }
        let (tell, told) = oneshot::channel();
        let world = self.clone();
        self.sim.send(async move {
            world.sim.pause().await;
            if fate == Fate::Slow {
                let slow_ms = world.sim.below(3_000) as u64;
                world.sim.sleep(Duration::from_millis(slow_ms)).await;
            }
            let answer = serve(&world);
            world.touched.store(true, Ordering::Relaxed);
            world.sim.pause().await;
            if fate == Fate::AnswerLost {
                world.sim.note(|| format!("an answer of the {layer} is lost"));
            } else {
                let _gone = tell.send(answer);
            }
        });
        told.await.map_err(|_| unavailable(layer))
    }
}

fn unavailable(layer: &'static str) -> Error {
    Error::Unavailable { layer, why: "simulated".into(), effect: Effect::Unknown }
}

/// The doubles answer at once; only the way to them takes time.
pub(crate) fn at_once<T>(answer: impl Future<Output = Result<T>>) -> T {
    answer.now_or_never().expect("a double never waits").expect("a double never fails")
}

/// A server that runs a gate.
pub(crate) struct GateServer {
    clock: Arc<Sim>,
    state: Mutex<ServerState>,
}

struct ServerState {
    gate: Arc<MemoryGate>,
    /// False once its memory is not the one that was loaded: an old dump, a replica that took over.
    trusted: bool,
    /// Everything that changed its memory, so that an old dump can be restored.
    log: Vec<Change>,
    dump: usize,
    /// Moves that only a planted bug wrote into it.
    forged: u64,
}

#[derive(Clone)]
enum Change {
    Load(Arc<Snapshot>, Epoch),
    Open(SaleId, Epoch),
    Admit(Claim),
    Follow(SaleId, Epoch, Vec<Move>),
}

impl GateServer {
    pub(crate) fn new(clock: Arc<Sim>) -> Self {
        let gate = Arc::new(MemoryGate::new(clock.clone()));
        let state = ServerState { gate, trusted: true, log: Vec::new(), dump: 0, forged: 0 };
        Self { clock, state: Mutex::new(state) }
    }

    /// Forgets everything.
    pub(crate) fn wipe(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.gate = Arc::new(MemoryGate::new(self.clock.clone()));
        (state.trusted, state.dump, state.forged) = (true, 0, 0);
        state.log.clear();
    }

    /// Keeps a dump of its memory.
    pub(crate) fn save(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.dump = state.log.len();
    }

    /// Comes back with its old dump.
    pub(crate) fn rewind(&self, trusted: bool) {
        let log = {
            let state = self.state.lock().expect("no holder panics");
            state.log[..state.dump].to_vec()
        };
        self.wipe();
        for change in &log {
            match change {
                Change::Load(snapshot, epoch) => drop(self.load(snapshot, *epoch)),
                Change::Open(sale, epoch) => drop(self.open(sale, *epoch)),
                Change::Admit(claim) => drop(self.admit(claim)),
                Change::Follow(sale, epoch, moves) => drop(self.follow(sale, *epoch, moves)),
            }
        }
        self.state.lock().expect("no holder panics").trusted = trusted;
        self.save();
    }

    /// It takes over, and its memory may have missed writes.
    pub(crate) fn distrust(&self) {
        self.state.lock().expect("no holder panics").trusted = false;
    }

    pub(crate) fn view(&self, sale: &SaleId) -> Option<GateView> {
        let (gate, forged) = self.trusted()?;
        let mut view = at_once(gate.view(sale))?;
        view.watermark.0 -= forged;
        Some(view)
    }

    fn trusted(&self) -> Option<(Arc<MemoryGate>, u64)> {
        let state = self.state.lock().expect("no holder panics");
        state.trusted.then(|| (state.gate.clone(), state.forged))
    }

    fn log(&self, change: Change) {
        self.state.lock().expect("no holder panics").log.push(change);
    }

    fn admit(&self, claim: &Claim) -> Admission {
        let Some((gate, _)) = self.trusted() else { return Admission::Unloaded };
        let admission = at_once(gate.admit(claim));
        if let Admission::Admitted(_) = admission {
            self.log(Change::Admit(claim.clone()));
        }
        admission
    }

    fn load(&self, snapshot: &Arc<Snapshot>, epoch: Epoch) -> bool {
        if self.trusted().is_none() {
            self.wipe();
        }
        let Some((gate, _)) = self.trusted() else { return false };
        let loaded = at_once(gate.load(snapshot, epoch));
        if loaded {
            let mut state = self.state.lock().expect("no holder panics");
            state.forged = 0;
            state.log.push(Change::Load(snapshot.clone(), epoch));
        }
        loaded
    }

    fn open(&self, sale: &SaleId, epoch: Epoch) -> bool {
        let Some((gate, _)) = self.trusted() else { return false };
        self.log(Change::Open(sale.clone(), epoch));
        at_once(gate.open(sale, epoch))
    }

    fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Option<Seq> {
        let (gate, forged) = self.trusted()?;
        self.log(Change::Follow(sale.clone(), epoch, moves.to_vec()));
        let mut moves = moves.to_vec();
        moves.iter_mut().for_each(|step| step.seq.0 += forged);
        at_once(gate.follow(sale, epoch, &moves)).map(|seq| Seq(seq.0 - forged))
    }

    fn pending(&self, sale: &SaleId) -> Vec<(Claim, Epoch)> {
        let Some((gate, _)) = self.trusted() else { return Vec::new() };
        let mut pending = at_once(gate.pending(sale));
        // Any sequence is good; the run must be the same every time.
        pending.sort_by_key(|(claim, _)| claim.id());
        pending
    }

    fn find(&self, sale: &SaleId, id: OrderId) -> Option<(Claim, Epoch)> {
        self.trusted().and_then(|(gate, _)| at_once(gate.find(sale, id)))
    }

    /// A planted bug writes moves that no ledger wrote.
    fn forge(&self, sale: &SaleId, kind: MoveKind, claim: Option<OrderId>, lines: &[Line]) {
        let Some((gate, _)) = self.trusted() else { return };
        let Some(view) = at_once(gate.view(sale)) else { return };
        let (seq, at) = (view.watermark.next(), self.clock.now());
        let step = Move { seq, at, kind, claim, customer: None, lines: lines.to_vec() };
        if at_once(gate.follow(sale, view.epoch, &[step])) == Some(seq) {
            self.state.lock().expect("no holder panics").forged += 1;
        }
    }
}

/// A process's way to the gate.
pub(crate) struct FaultyGate {
    pub(crate) world: Arc<World>,
    /// Which server it reaches.
    pub(crate) reach: Arc<AtomicUsize>,
}

impl FaultyGate {
    async fn call<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&World, &GateServer) -> T + Send + 'static,
    ) -> Result<T> {
        let reach = self.reach.load(Ordering::Relaxed);
        if !self.world.distributed {
            self.world.sim.pause().await;
            let answer = serve(&self.world, &self.world.gates[reach]);
            self.world.touched.store(true, Ordering::Relaxed);
            self.world.sim.pause().await;
            return Ok(answer);
        }
        self.world.call("gate", move |world| serve(world, &world.gates[reach])).await
    }
}

#[async_trait]
impl Gate for FaultyGate {
    async fn admit(&self, claim: &Claim) -> Result<Admission> {
        let claim = claim.clone();
        self.call(move |world, server| {
            let mut admission = server.admit(&claim);
            if world.has(Bug::EmptyMeansSoldOut) && admission == Admission::Unloaded {
                admission =
                    Admission::Refused(Refusal::SoldOut { sku: claim.lines()[0].sku.clone(), may_return: false });
            }
            world.promises.admission(world, server.view(claim.sale()), &claim, &admission);
            admission
        })
        .await
    }

    async fn load(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        let mut snapshot = snapshot.clone();
        self.call(move |world, server| {
            if world.has(Bug::LimitOnlyAtTheGate) {
                snapshot.record.sale.per_customer_limit = world.promises.limit();
            }
            let sale = snapshot.record.sale.id.clone();
            let loaded = server.load(&Arc::new(snapshot), epoch);
            world.sim.note(|| format!("load {epoch}: {loaded}"));
            if world.has(Bug::LiveBeforeBound) {
                server.open(&sale, epoch);
            }
            loaded
        })
        .await
    }

    async fn open(&self, sale: &SaleId, epoch: Epoch) -> Result<bool> {
        let sale = sale.clone();
        self.call(move |world, server| {
            let open = server.open(&sale, epoch);
            world.sim.note(|| format!("open {epoch}: {open}"));
            open
        })
        .await
    }

    async fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Result<Option<Seq>> {
        let (sale, moves) = (sale.clone(), moves.to_vec());
        self.call(move |world, server| {
            let before = server.view(&sale).map(|view| view.watermark);
            let applied = server.follow(&sale, epoch, &moves);
            let twice = world.has(Bug::MovesAppliedTwice) && before < applied && world.sim.percent(20);
            if let Some(step) = moves.iter().find(|step| Some(step.seq) == applied).filter(|_| twice) {
                let back = matches!(step.kind, MoveKind::Cancel | MoveKind::Lapse | MoveKind::Add);
                if back {
                    server.forge(&sale, MoveKind::Add, None, &step.lines);
                }
            }
            applied
        })
        .await
    }

    async fn pending(&self, sale: &SaleId) -> Result<Vec<(Claim, Epoch)>> {
        let sale = sale.clone();
        let forgets = self.world.has(Bug::PendingForgotten);
        self.call(move |_, server| if forgets { Vec::new() } else { server.pending(&sale) }).await
    }

    async fn find(&self, sale: &SaleId, id: OrderId) -> Result<Option<(Claim, Epoch)>> {
        let sale = sale.clone();
        self.call(move |_, server| server.find(&sale, id)).await
    }

    async fn view(&self, sale: &SaleId) -> Result<Option<GateView>> {
        let sale = sale.clone();
        self.call(move |world, server| {
            let mut view = server.view(&sale);
            if let Some(view) = view.as_mut().filter(|_| world.has(Bug::EpochIgnored)) {
                view.epoch = at_once(world.ledger.sale(&sale)).map_or(view.epoch, |record| record.epoch.epoch);
            }
            view
        })
        .await
    }
}

/// A process's connection to the queue.
pub(crate) struct FaultyQueue {
    pub(crate) world: Arc<World>,
    pub(crate) line: Arc<ModelQueue>,
    pub(crate) reach: Arc<AtomicUsize>,
}

impl FaultyQueue {
    fn down(&self) -> Result<()> {
        let less = |left: usize| left.checked_sub(1);
        match self.world.queue_down_calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Err(unavailable("queue")),
            Err(_) => Ok(()),
        }
    }

    /// What a broker does with a message: it routes it at once, and a moment later it stands in the line.
    async fn travel(&self, message: Message) -> Result<Push> {
        let world = &self.world;
        if !world.distributed {
            let line = self.line.clone();
            return world.call("queue", move |_| at_once(line.push(message))).await;
        }
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
        if !self.line.routes(&message) && !world.has(Bug::NoFence) {
            return Ok(Push::Fenced);
        }
        let (tell, told) = oneshot::channel();
        let (line, late) = (self.line.clone(), world.clone());
        world.sim.send(async move {
            let sim = &late.sim;
            sim.pause().await;
            if fate == Fate::Slow {
                let slow_ms = sim.below(6_000) as u64;
                sim.sleep(Duration::from_millis(slow_ms)).await;
            }
            line.append(message.clone());
            if sim.percent(3) {
                sim.note(|| format!("a push arrives twice: {message:?}"));
                line.append(message);
            }
            sim.pause().await;
            if fate != Fate::AnswerLost {
                let _gone = tell.send(Push::Durable);
            }
        });
        told.await.map_err(|_| unavailable("queue"))
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

#[async_trait]
impl Queue for FaultyQueue {
    async fn push(&self, message: Message) -> Result<Push> {
        self.down()?;
        let pushed = self.travel(message.clone()).await;
        if let (Err(_), Body::Claim(claim), true) = (&pushed, &message.body, self.world.has(Bug::CompensateOnTimeout)) {
            self.compensate(claim);
        }
        pushed
    }

    async fn pull(&self, messages_max: usize) -> Result<Delivery> {
        self.down()?;
        let few = 1 + self.world.sim.below(8);
        let delivery = self.line.pull(messages_max.min(few)).await?;
        self.world.sim.pause().await;
        if self.world.has(Bug::AcknowledgeBeforeCommit) {
            self.line.acknowledge(delivery.receipt).await?;
        }
        Ok(delivery)
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<()> {
        self.world.worker(false).await;
        self.down()?;
        let line = self.line.clone();
        self.world.call("queue", move |_| at_once(line.acknowledge(receipt))).await
    }

    async fn park(&self, receipt: Receipt, why: &str) -> Result<()> {
        let (line, why) = (self.line.clone(), why.to_owned());
        self.world.call("queue", move |_| at_once(line.park(receipt, &why))).await
    }

    async fn fence(&self, sale: &SaleId, below: Epoch) -> Result<()> {
        self.down()?;
        let (line, sale) = (self.line.clone(), sale.clone());
        self.world
            .call("queue", move |world| {
                world.sim.note(|| format!("fence below {below}"));
                at_once(line.fence(&sale, below));
            })
            .await
    }

    async fn bind(&self, sale: &SaleId, epoch: Epoch, open: bool) -> Result<()> {
        self.down()?;
        let (line, sale) = (self.line.clone(), sale.clone());
        self.world
            .call("queue", move |world| {
                world.sim.note(|| format!("bind {epoch}: {open}"));
                at_once(line.bind(&sale, epoch, open));
            })
            .await
    }

    async fn depth(&self) -> Result<Depth> {
        self.down()?;
        self.line.depth().await
    }

    fn push_timeout(&self) -> Option<Duration> {
        self.line.push_timeout().filter(|_| !self.world.has(Bug::NoWait))
    }
}

/// A process's way to the ledger.
pub(crate) struct FaultyLedger {
    pub(crate) world: Arc<World>,
}

impl FaultyLedger {
    async fn call<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&World, &ModelLedger) -> T + Send + 'static,
    ) -> Result<T> {
        self.world.call("ledger", move |world| serve(world, &world.ledger)).await
    }
}

#[async_trait]
impl Ledger for FaultyLedger {
    async fn create(&self, sale: &Sale, stock: &[Units]) -> Result<Creation> {
        let (sale, stock) = (sale.clone(), stock.to_vec());
        self.call(move |_, ledger| at_once(ledger.create(&sale, &stock))).await
    }

    async fn steer(&self, sale: &SaleId, verb: Verb) -> Result<Steered> {
        let sale = sale.clone();
        self.call(move |world, ledger| {
            world.sim.note(|| format!("steer: {}", verb.word()));
            at_once(ledger.steer(&sale, verb))
        })
        .await
    }

    async fn settle(&self, messages: &[Message]) -> Result<Settlement> {
        let mut messages = messages.to_vec();
        self.world.worker(messages.iter().any(|message| message.body == Body::Close)).await;
        self.call(move |world, ledger| {
            for message in &mut messages {
                spoil(world, ledger, message);
            }
            let settlement = at_once(ledger.settle(&messages));
            for (message, verdict) in messages.iter().zip(&settlement.verdicts) {
                let (epoch, what) = (message.epoch, brief(message));
                world.sim.note(|| format!("settle {what} of {epoch}: {verdict:?}"));
            }
            settlement
        })
        .await
    }

    async fn turn(&self, id: OrderId, turn: Turn) -> Result<Turned> {
        self.call(move |world, ledger| {
            let turned = at_once(ledger.turn(id, turn));
            match turned {
                Turned::Lapsed(mut record) if world.has(Bug::ConfirmUnguarded) => {
                    record.state = OrderState::Sold;
                    Turned::Already(record)
                }
                turned => turned,
            }
        })
        .await
    }

    async fn add(&self, addition: &Addition) -> Result<Added> {
        let addition = addition.clone();
        self.call(move |_, ledger| at_once(ledger.add(&addition))).await
    }

    async fn lapse(&self, orders_max: usize) -> Result<Lapses> {
        self.call(move |_, ledger| at_once(ledger.lapse(orders_max))).await
    }

    async fn step_epoch(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>> {
        let sale = sale.clone();
        self.call(move |world, ledger| {
            let state = at_once(ledger.step_epoch(&sale, step));
            world.sim.note(|| format!("epochs: {step:?} gives {state:?}"));
            if let (Some(state), EpochStep::Raise, true) = (state, step, world.has(Bug::NoMarker)) {
                at_once(ledger.settle(&[Message { sale, epoch: state.epoch, body: Body::Close }]));
            }
            state
        })
        .await
    }
}

pub(crate) fn brief(message: &Message) -> String {
    match &message.body {
        Body::Claim(claim) => claim.id().to_string().split_off(28),
        Body::Close => "close".into(),
        Body::Sweep(_) => "sweep".into(),
    }
}

/// What the planted bugs do to a message before it is settled.
fn spoil(world: &World, ledger: &ModelLedger, message: &mut Message) {
    if !matches!(message.body, Body::Claim(_)) {
        return;
    }
    if world.has(Bug::ClosedEpochsSettled) {
        message.epoch = Epoch(u64::MAX);
    }
    if let (Body::Claim(Claim::Order(order)), true) = (&mut message.body, world.has(Bug::LedgerForgetsIds)) {
        while at_once(ledger.order(order.id)).is_some() {
            let mut other = (**order).clone();
            other.id.0[0] ^= 0xff;
            other.id.0[1] = other.id.0[1].wrapping_add(1);
            *order = Arc::new(other);
        }
    }
}

#[async_trait]
impl Books for FaultyLedger {
    async fn sales(&self) -> Result<Vec<SaleRecord>> {
        self.call(|_, ledger| at_once(ledger.sales())).await
    }

    async fn sale(&self, sale: &SaleId) -> Result<Option<SaleRecord>> {
        let sale = sale.clone();
        self.call(move |_, ledger| at_once(ledger.sale(&sale))).await
    }

    async fn order(&self, id: OrderId) -> Result<Option<sluice::model::OrderRecord>> {
        self.call(move |_, ledger| at_once(ledger.order(id))).await
    }

    async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage> {
        let filter = filter.clone();
        self.call(move |_, ledger| at_once(ledger.orders(&filter))).await
    }

    async fn adjustment(&self, id: OrderId) -> Result<Option<Adjustment>> {
        self.call(move |_, ledger| at_once(ledger.adjustment(id))).await
    }

    async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Result<Vec<Move>> {
        let sale = sale.clone();
        self.call(move |_, ledger| at_once(ledger.journal(&sale, after, moves_max))).await
    }

    async fn snapshot(&self, sale: &SaleId) -> Result<Option<Snapshot>> {
        let sale = sale.clone();
        self.call(move |_, ledger| at_once(ledger.snapshot(&sale))).await
    }

    async fn recount(&self, sale: &SaleId) -> Result<Option<Recount>> {
        let sale = sale.clone();
        self.call(move |_, ledger| at_once(ledger.recount(&sale))).await
    }
}
