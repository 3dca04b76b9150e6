//! The gate's servers on a bad day: they forget, come back with an old dump, or are replaced by another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::gate::{Admission, Gate, GateView, MemoryGate, Refusal};
use sluice::ledger::{Books, Move, MoveKind, Snapshot};
use sluice::model::{Claim, Epoch, Line, OrderId, Result, SaleId, Seq};

use super::clocks::{LedgerTime, ProcessClock};
use super::world::{Bug, World, at_once};

/// A server that runs a gate.
pub(crate) struct GateServer {
    clock: Arc<LedgerTime>,
    /// Whether it ever needs an old dump.
    keeps_log: bool,
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
    pub(crate) fn new(clock: Arc<LedgerTime>, keeps_log: bool) -> Self {
        let gate = Arc::new(MemoryGate::new(clock.clone()));
        let state = ServerState { gate, trusted: true, log: Vec::new(), dump: 0, forged: 0 };
        Self { clock, keeps_log, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().expect("no holder panics")
    }

    /// Forgets everything.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        state.gate = Arc::new(MemoryGate::new(self.clock.clone()));
        (state.trusted, state.dump, state.forged) = (true, 0, 0);
        state.log.clear();
    }

    /// Keeps a dump of its memory.
    pub(crate) fn save(&self) {
        let mut state = self.state();
        state.dump = state.log.len();
    }

    /// Comes back with its old dump.
    pub(crate) fn rewind(&self, trusted: bool) {
        let log = {
            let state = self.state();
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
        self.state().trusted = trusted;
        self.save();
    }

    /// It takes over, and its memory may have missed writes.
    pub(crate) fn distrust(&self) {
        self.state().trusted = false;
    }

    pub(crate) fn view(&self, sale: &SaleId) -> Option<GateView> {
        let (gate, forged) = self.trusted()?;
        let mut view = at_once(gate.view(sale))?;
        view.watermark.0 -= forged;
        Some(view)
    }

    fn trusted(&self) -> Option<(Arc<MemoryGate>, u64)> {
        let state = self.state();
        state.trusted.then(|| (state.gate.clone(), state.forged))
    }

    fn log(&self, change: impl FnOnce() -> Change) {
        if self.keeps_log {
            self.state().log.push(change());
        }
    }

    fn admit(&self, claim: &Claim) -> Admission {
        let Some((gate, _)) = self.trusted() else { return Admission::Unloaded };
        let admission = at_once(gate.admit(claim));
        if let Admission::Admitted(_) = admission {
            self.log(|| Change::Admit(claim.clone()));
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
            self.state().forged = 0;
            self.log(|| Change::Load(snapshot.clone(), epoch));
        }
        loaded
    }

    fn open(&self, sale: &SaleId, epoch: Epoch) -> bool {
        let Some((gate, _)) = self.trusted() else { return false };
        self.log(|| Change::Open(sale.clone(), epoch));
        at_once(gate.open(sale, epoch))
    }

    fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Option<Seq> {
        let (gate, forged) = self.trusted()?;
        self.log(|| Change::Follow(sale.clone(), epoch, moves.to_vec()));
        if forged == 0 {
            return at_once(gate.follow(sale, epoch, moves));
        }
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

    pub(crate) fn find(&self, sale: &SaleId, id: OrderId) -> Option<(Claim, Epoch)> {
        self.trusted().and_then(|(gate, _)| at_once(gate.find(sale, id)))
    }

    /// A planted bug writes moves that no ledger wrote.
    pub(crate) fn forge(&self, sale: &SaleId, kind: MoveKind, claim: Option<OrderId>, lines: &[Line]) {
        let Some((gate, _)) = self.trusted() else { return };
        let Some(view) = at_once(gate.view(sale)) else { return };
        let (seq, at) = (view.watermark.next(), self.clock.now());
        let step = Move { seq, at, kind, claim, customer: None, lines: lines.to_vec() };
        if at_once(gate.follow(sale, view.epoch, &[step])) == Some(seq) {
            self.state().forged += 1;
        }
    }
}

/// A process's way to the gate.
pub(crate) struct FaultyGate {
    pub(crate) world: Arc<World>,
    pub(crate) clock: Arc<ProcessClock>,
    /// Which server it reaches.
    pub(crate) reach: Arc<AtomicUsize>,
}

impl FaultyGate {
    async fn call<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&World, &GateServer) -> T + Send + 'static,
    ) -> Result<T> {
        let (reach, now) = (self.reach.load(Ordering::Relaxed), self.clock.now());
        let serve = move |world: &World| {
            world.time.called_at(now);
            world.gates_touched.fetch_or(1 << reach, Ordering::Relaxed);
            serve(world, &world.gates[reach])
        };
        if self.world.distributed {
            return self.world.call("gate", serve).await;
        }
        self.world.sim.pause().await;
        let answer = serve(&self.world);
        self.world.sim.pause().await;
        Ok(answer)
    }
}

#[async_trait]
impl Gate for FaultyGate {
    async fn admit(&self, claim: &Claim) -> Result<Admission> {
        let (claim, asked) = (claim.clone(), self.world.sim.now());
        self.call(move |world, server| {
            let mut admission = server.admit(&claim);
            if world.has(Bug::EmptyMeansSoldOut) && admission == Admission::Unloaded {
                admission =
                    Admission::Refused(Refusal::SoldOut { sku: claim.lines()[0].sku.clone(), may_return: false });
            }
            if let Admission::Refused(refusal) = &admission {
                world.promises(claim.sale()).refused(world, server, &claim, refusal, asked);
            }
            admission
        })
        .await
    }

    async fn load(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        let mut snapshot = snapshot.clone();
        self.call(move |world, server| {
            if world.has(Bug::LimitOnlyAtTheGate) {
                snapshot.record.sale.per_customer_limit = world.promises[0].limit;
            }
            let sale = snapshot.record.sale.id.clone();
            if world.has(Bug::NothingCarriedOver) && server.view(&sale).is_none_or(|view| view.epoch < epoch) {
                server.wipe();
            }
            let loaded = server.load(&Arc::new(snapshot), epoch);
            world.sim.note(|| format!("load {sale} {epoch}: {loaded}"));
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
            world.sim.note(|| format!("open {sale} {epoch}: {open}"));
            open
        })
        .await
    }

    async fn follow(&self, sale: &SaleId, epoch: Epoch, moves: &[Move]) -> Result<Option<Seq>> {
        let (sale, moves) = (sale.clone(), moves.to_vec());
        self.call(move |world, server| {
            if !world.has(Bug::MovesAppliedTwice) {
                return server.follow(&sale, epoch, &moves);
            }
            let before = server.view(&sale).map(|view| view.watermark);
            let applied = server.follow(&sale, epoch, &moves);
            let twice = before < applied && world.sim.percent(20);
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
