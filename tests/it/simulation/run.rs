//! One run from the creation of its sales to their rest: who is there, what happens, and how everything heals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sluice::ledger::Ledger;
use sluice::model::{Item, Mint, Order, OrderId, Phase, Sale, SaleId, Sku, Units, Window};
use sluice::reconcile::Watch;
use sluice::shop::Shop;
use tokio::sync::Mutex;

use super::clocks::{LedgerTime, ProcessClock};
use super::executor::{Executor, Job, Owner};
use super::gate::{FaultyGate, GateServer};
use super::ledger::FaultyLedger;
use super::promises::Promises;
use super::queue::FaultyQueue;
use super::sim::Sim;
use super::troubles::Troubles;
use super::world::{Bug, World, at_once};
use crate::model_ledger::ModelLedger;
use crate::model_queue::ModelQueue;

/// What became of a run.
pub(crate) struct Outcome {
    pub(crate) sim: Arc<Sim>,
    pub(crate) sales: usize,
    /// From the healing of the last fault to full service.
    pub(crate) service_time: Duration,
}

/// Runs the seed; `noting` keeps what happened last.
pub(crate) fn play(seed: u64, bug: Option<Bug>, noting: bool) -> Outcome {
    let mut run = Run::new(seed, bug, noting);
    run.begin();
    run.crowd();
    let service_time = run.heal();
    run.sell_out();
    if !run.sim.failed() {
        run.world.promises.iter().for_each(|promises| promises.check_at_rest(&run.world, run.primary));
    }
    Outcome { sales: run.sales.len(), service_time, sim: run.sim }
}

pub(super) struct Run {
    pub(super) world: Arc<World>,
    pub(super) sim: Arc<Sim>,
    pub(super) executor: Executor,
    pub(super) processes: Vec<Process>,
    owners: u32,
    pub(super) troubles: Troubles,
    /// So many events in a hundred are customers.
    rush: usize,
    /// So many events pass before a worker does anything.
    pub(super) rest: usize,
    pub(super) primary: usize,
    pub(super) sales: Vec<SaleInRun>,
    pub(super) mint: Mint,
}

/// A sale, and what was asked of it.
pub(super) struct SaleInRun {
    pub(super) sale: Arc<Sale>,
    pub(super) orders: Vec<Arc<Order>>,
    pub(super) adjustments: Vec<(OrderId, i64, Sku)>,
}

/// What a process does, as `--role` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    All,
    Api,
    Worker,
}

/// One process: its shop, and the work it does in the background.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) owner: Owner,
    pub(super) role: Role,
    pub(super) shop: Arc<Shop>,
    pub(super) watch: Arc<Mutex<Watch>>,
    /// Held by whichever task settles.
    pub(super) settling: Arc<Mutex<()>>,
    pub(super) queue: Arc<FaultyQueue>,
    pub(super) clock: Arc<ProcessClock>,
    pub(super) reach: Arc<AtomicUsize>,
}

pub(super) fn units(count: usize) -> Units {
    Units::new(u32::try_from(count).expect("few")).expect("few")
}

fn a_sale(sim: &Sim, time: &LedgerTime, number: usize) -> (Sale, Vec<Units>) {
    let later = |from: usize, to: usize| time.now().after(Duration::from_millis((from + sim.below(to - from)) as u64));
    let opens_at = if sim.percent(10) { later(1, 3_000) } else { time.now() };
    let closes_at = sim.percent(10).then(|| later(4_000, 20_000));
    let items = (0..1 + sim.below(3)).map(|index| Item {
        sku: Sku::new(&format!("sku{index}")).expect("a SKU"),
        name: String::new(),
        price_cents: 100,
        currency: String::new(),
    });
    let sale = Sale {
        id: SaleId::new(&format!("s{number}")).expect("an id"),
        name: String::new(),
        window: Window { phase: Phase::Armed, opens_at: Some(opens_at), closes_at },
        hold_seconds: u32::try_from(sim.below(4)).expect("few"),
        per_customer_limit: sim.percent(50).then(|| units(1 + sim.below(3))),
        items: items.collect(),
    };
    let most = [2, 6][sim.below(2)];
    let stock = sale.items.iter().map(|_| units(1 + sim.below(most))).collect();
    (sale, stock)
}

impl Run {
    fn new(seed: u64, bug: Option<Bug>, noting: bool) -> Self {
        let sim = Sim::new(seed, noting);
        let time = LedgerTime::new(sim.clone());
        let distributed = sim.percent(80);
        let push_timeout = distributed.then_some(Duration::from_millis([50, 500, 2_000][sim.below(3)]));
        let troubles = Troubles::new(&sim, distributed);
        // The planted bugs that write into the gate know of one sale.
        let sale_count = if distributed && bug.is_none() { [1, 1, 1, 1, 1, 1, 2, 3][sim.below(8)] } else { 1 };
        let mut sales: Vec<_> = (0..sale_count).map(|number| a_sale(&sim, &time, number)).collect();
        let shard = || ModelQueue::new(time.clone(), push_timeout);
        let gate = || GateServer::new(time.clone(), troubles.rewind());
        let world = Arc::new(World {
            sim: sim.clone(),
            bug,
            promises: sales.iter().map(|(sale, _)| Promises::new(sale)).collect(),
            ledger: ModelLedger::new(time.clone()),
            shards: (0..sale_count.min(2)).map(|_| shard()).collect(),
            gates: (0..1 + usize::from(distributed)).map(|_| gate()).collect(),
            time,
            distributed,
            faults_left: AtomicUsize::new(0),
            fault_percent: [0, 2, 5, 15][sim.below(4)],
            only_late: sim.percent(25) || bug.is_some_and(Bug::is_about_late_claims),
            queue_down_calls: AtomicUsize::new(0),
            worker_deaths: AtomicUsize::new(0),
            broker_life: AtomicU64::new(0),
            broker_wiped: AtomicU64::new(0),
            slow_until_ms: AtomicU64::new(0),
            ledger_touched: AtomicBool::new(true),
            gates_touched: AtomicUsize::new(0),
        });
        for (sale, stock) in &mut sales {
            if bug == Some(Bug::LimitOnlyAtTheGate) {
                sale.per_customer_limit = None;
            }
            at_once(world.ledger.create(sale, stock));
        }
        let in_run = |(sale, _)| SaleInRun { sale: Arc::new(sale), orders: Vec::new(), adjustments: Vec::new() };
        let mut run = Self {
            executor: Executor::new(sim.clone()),
            processes: Vec::new(),
            owners: 0,
            troubles,
            rush: [15, 25, 35][sim.below(3)],
            rest: 0,
            primary: 0,
            sales: sales.into_iter().map(in_run).collect(),
            mint: Mint::new([7; 32]),
            world,
            sim,
        };
        run.start_processes();
        run
    }

    fn start_processes(&mut self) {
        let roles = match (self.world.distributed, self.sim.percent(50)) {
            (false, _) => vec![Role::All],
            (true, false) => vec![Role::All; 1 + self.sim.below(3)],
            (true, true) => {
                let apis = vec![Role::Api; 1 + self.sim.below(3)];
                [apis, vec![Role::Worker; 1 + self.sim.below(2)]].concat()
            }
        };
        roles.into_iter().for_each(|role| self.start_process(role));
    }

    pub(super) fn start_process(&mut self, role: Role) {
        self.owners += 1;
        let world = &self.world;
        let clock = ProcessClock::new(&self.sim, &world.time, !world.distributed, world.has(Bug::OwnTimeOfDay));
        let reach = Arc::new(AtomicUsize::new(self.primary));
        let gate = FaultyGate { world: world.clone(), clock: clock.clone(), reach: reach.clone() };
        let ledger = FaultyLedger { world: world.clone(), clock: clock.clone() };
        let queue = FaultyQueue::new(world, &reach);
        let shop = Shop::new(
            Arc::new(gate),
            queue.clone(),
            Arc::new(ledger),
            clock.clone(),
            self.mint.clone(),
            Arc::default(),
        );
        let (owner, watch) = (Owner(self.owners), Arc::default());
        let settling = Arc::default();
        self.processes.push(Process { owner, role, shop: Arc::new(shop), watch, settling, queue, clock, reach });
    }

    pub(super) fn step(&mut self, until: Duration) -> bool {
        let went = self.executor.step(until);
        for owner in std::mem::take(&mut self.executor.dead) {
            self.bury(owner);
        }
        self.world.check();
        went
    }

    /// Some process that does not have this role.
    pub(super) fn process_but(&self, not: Role) -> Process {
        let able = || self.processes.iter().filter(|process| process.role != not);
        able().nth(self.sim.below(able().count())).expect("there is one").clone()
    }

    /// Some process that settles and reconciles.
    pub(super) fn worker(&self) -> Process {
        self.process_but(Role::Api)
    }

    pub(super) fn some_sale(&self) -> usize {
        if self.sales.len() == 1 { 0 } else { self.sim.below(self.sales.len()) }
    }

    /// The first load, with nothing going wrong.
    fn begin(&mut self) {
        for sale in 0..self.sales.len() {
            let process = self.processes[self.sim.below(self.processes.len())].clone();
            self.reload(process, sale);
        }
        while self.executor.anybody(Job::Reload) && !self.sim.failed() {
            for process in self.processes.clone().iter().filter(|process| process.role != Role::Api) {
                self.settle(process);
            }
            self.step(Duration::MAX);
        }
        self.world.faults_left.store(self.sim.below(12), Ordering::Relaxed);
    }

    /// People come, machines work, and things go wrong.
    fn crowd(&mut self) {
        for _ in 0..40 + self.sim.below(140) {
            self.rest = self.rest.saturating_sub(1);
            match self.sim.below(100) {
                event if event < self.rush => self.customer(),
                0..45 if self.rest == 0 => self.settle(&self.worker()),
                45..52 => self.lapse(&self.worker()),
                52..65 => self.tick(&self.worker()),
                65..66 => self.ask_queue(),
                66..70 => self.sweep(&self.worker()),
                70..78 => self.turn(),
                78..83 => self.operator(),
                83..91 => self.trouble(),
                91..94 => self.reload(self.worker(), self.some_sale()),
                94..95 => self.world.gates[self.primary].save(),
                _ => self.executor.leap(self.sim.ms_below(2_500)),
            }
            for _ in 0..self.sim.below(10) {
                self.step(Duration::MAX);
            }
            if self.sim.failed() {
                return;
            }
        }
    }
}
