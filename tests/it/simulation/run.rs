//! One sale from its creation to its rest: who is there, what happens, and how everything heals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sluice::adjustment;
use sluice::checkout::{self, place};
use sluice::clock::Clock;
use sluice::ledger::{Addition, Books, Ledger, Turn};
use sluice::model::{
    Customer, Item, Line, Mint, Order, OrderId, Phase, Sale, SaleId, Sku, Units, Verb, Window, Withdrawal,
};
use sluice::reconcile::{self, Watch};
use sluice::settlement::settle_once;
use sluice::shop::Shop;
use tokio::sync::Mutex;

use super::executor::{Executor, NETWORK, Owner, Sim, Violation};
use super::faults::{Bug, FaultyGate, FaultyLedger, FaultyQueue, GateServer, World, at_once};
use super::promises::{Promises, SELLS};
use crate::model_ledger::ModelLedger;
use crate::model_queue::ModelQueue;

/// Rounds in which everything must come to rest once nothing goes wrong any more.
const HEALING_ROUNDS: usize = 40;

/// Runs the sale of this seed; what went wrong, if anything did.
pub(crate) fn run(seed: u64, bug: Option<Bug>) -> Option<Violation> {
    play(seed, bug, false).sim.violation()
}

/// Runs it once more, and tells what happened last.
pub(crate) fn events(seed: u64, bug: Option<Bug>) -> String {
    play(seed, bug, true).sim.events()
}

fn play(seed: u64, bug: Option<Bug>, noting: bool) -> Run {
    let mut run = Run::new(seed, bug, noting);
    run.begin();
    run.crowd();
    run.heal();
    run.sell_out();
    if run.sim.violation().is_none() {
        run.world.promises.check_at_rest(&run.world, run.primary);
    }
    run
}

struct Run {
    world: Arc<World>,
    sim: Arc<Sim>,
    executor: Executor,
    processes: Vec<Process>,
    owners: u32,
    /// Each sale knows some troubles and not others, so that the rare ones meet each other, too.
    troubles: Vec<Trouble>,
    troubles_left: usize,
    /// So many events in a hundred are customers.
    rush: usize,
    /// So many events pass before a worker does anything.
    rest: usize,
    primary: usize,
    sale: Arc<Sale>,
    mint: Mint,
    orders: Vec<Arc<Order>>,
    adjustments: Vec<(OrderId, i64, Sku)>,
}

/// What can happen to machines, besides calls that go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    TaskDies,
    WorkersDie,
    LoaderDies,
    ProcessDies,
    WorkersRest,
    QueueDown,
    FailOver,
    GateEmpty,
    GateRewound,
}

const TROUBLES: [Trouble; 9] = [
    Trouble::TaskDies,
    Trouble::WorkersDie,
    Trouble::LoaderDies,
    Trouble::ProcessDies,
    Trouble::WorkersRest,
    Trouble::QueueDown,
    Trouble::FailOver,
    Trouble::GateEmpty,
    Trouble::GateRewound,
];

impl Trouble {
    fn needs_a_network(self) -> bool {
        matches!(self, Trouble::FailOver | Trouble::GateEmpty | Trouble::GateRewound)
    }
}

/// One process: its shop, and the work it does in the background.
#[derive(Clone)]
struct Process {
    owner: Owner,
    shop: Arc<Shop>,
    watch: Arc<Mutex<Watch>>,
    line: Arc<ModelQueue>,
    reach: Arc<AtomicUsize>,
}

fn units(count: usize) -> Units {
    Units::new(u32::try_from(count).expect("few")).expect("few")
}

fn a_sale(sim: &Sim) -> (Sale, Vec<Units>) {
    let later = |from: usize, to: usize| sim.now().after(Duration::from_millis((from + sim.below(to - from)) as u64));
    let opens_at = if sim.percent(10) { later(1, 3_000) } else { sim.now() };
    let closes_at = sim.percent(10).then(|| later(4_000, 20_000));
    let items = (0..1 + sim.below(3)).map(|index| Item {
        sku: Sku::new(&format!("sku{index}")).expect("a SKU"),
        name: String::new(),
        price_cents: 100,
        currency: "EUR".into(),
    });
    let sale = Sale {
        id: SaleId::new("sale").expect("an id"),
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
        let distributed = sim.percent(70);
        let push_timeout = distributed.then_some(Duration::from_millis([50, 500, 2_000][sim.below(3)]));
        let known_percent = [20, 50, 80][sim.below(3)];
        let (mut sale, stock) = a_sale(&sim);
        let world = Arc::new(World {
            sim: sim.clone(),
            bug,
            promises: Promises::new(sale.id.clone(), sale.per_customer_limit),
            ledger: ModelLedger::new(sim.clone()),
            line: ModelQueue::new(sim.clone(), push_timeout),
            gates: (0..1 + usize::from(distributed)).map(|_| GateServer::new(sim.clone())).collect(),
            distributed,
            faults_left: AtomicUsize::new(0),
            fault_percent: [0, 2, 5, 15][sim.below(4)],
            only_late: sim.percent(25),
            queue_down_calls: AtomicUsize::new(0),
            worker_deaths: AtomicUsize::new(0),
            touched: AtomicBool::new(false),
        });
        if bug == Some(Bug::LimitOnlyAtTheGate) {
            sale.per_customer_limit = None;
        }
        at_once(world.ledger.create(&sale, &stock));
        let mut run = Self {
            executor: Executor::new(sim.clone()),
            processes: Vec::new(),
            owners: 0,
            troubles: TROUBLES.into_iter().filter(|_| sim.percent(known_percent)).collect(),
            troubles_left: sim.below(12),
            rush: [15, 25, 35][sim.below(3)],
            rest: 0,
            primary: 0,
            sale: Arc::new(sale),
            mint: Mint::new([7; 32]),
            orders: Vec::new(),
            adjustments: Vec::new(),
            world,
            sim,
        };
        for _ in 0..if distributed { 1 + run.sim.below(3) } else { 1 } {
            run.start_process();
        }
        run
    }

    fn start_process(&mut self) {
        self.owners += 1;
        let reach = Arc::new(AtomicUsize::new(self.primary));
        let line = Arc::new(self.world.line.connect());
        let gate = FaultyGate { world: self.world.clone(), reach: reach.clone() };
        let queue = FaultyQueue { world: self.world.clone(), line: line.clone(), reach: reach.clone() };
        let ledger = FaultyLedger { world: self.world.clone() };
        let shop = Shop::new(Arc::new(gate), Arc::new(queue), Arc::new(ledger), self.sim.clone(), self.mint.clone());
        let (owner, watch) = (Owner(self.owners), Arc::default());
        self.processes.push(Process { owner, shop: Arc::new(shop), watch, line, reach });
    }

    fn step(&mut self) -> bool {
        let went = self.executor.step();
        for owner in std::mem::take(&mut self.executor.dead) {
            self.bury(owner);
        }
        if self.world.touched.swap(false, Ordering::Relaxed) {
            self.world.promises.check(&self.world);
        }
        went
    }

    fn process(&self) -> Process {
        self.processes[self.sim.below(self.processes.len())].clone()
    }

    /// The first load, with nothing going wrong.
    fn begin(&mut self) {
        self.reload(self.process());
        self.settle(self.process());
        while self.executor.count(self.processes[0].owner, "reload") + self.reloads() > 0 && self.step() {
            if self.processes.iter().all(|process| self.executor.count(process.owner, "settle") == 0) {
                self.settle(self.process());
            }
        }
        self.world.faults_left.store(self.sim.below(12), Ordering::Relaxed);
    }

    fn reloads(&self) -> usize {
        self.processes.iter().map(|process| self.executor.count(process.owner, "reload")).sum()
    }

    /// People come, machines work, and things go wrong.
    fn crowd(&mut self) {
        for _ in 0..40 + self.sim.below(140) {
            self.rest = self.rest.saturating_sub(1);
            match self.sim.below(100) {
                event if event < self.rush => self.customer(),
                0..45 if self.rest == 0 => self.settle(self.process()),
                45..52 => self.lapse(self.process()),
                52..66 => self.tick(self.process()),
                66..70 => self.sweep(self.process()),
                70..78 => self.turn(),
                78..83 => self.operator(),
                83..91 => self.trouble(),
                91..94 => self.reload(self.process()),
                94..95 => self.world.gates[self.primary].save(),
                _ => self.sim.pass(Duration::from_millis(self.sim.below(2_500) as u64)),
            }
            for _ in 0..self.sim.below(10) {
                self.step();
            }
            if self.sim.violation().is_some() {
                return;
            }
        }
    }

    fn customer(&mut self) {
        let again = (!self.orders.is_empty()).then(|| self.sim.below(self.orders.len()));
        let order = match again {
            Some(index) if self.sim.percent(40) => {
                let mut order = (*self.orders[index]).clone();
                if self.sim.percent(15) {
                    order.lines[0].quantity = order.lines[0].quantity.plus(units(1)).expect("few");
                }
                order.accepted_at = self.sim.now();
                Arc::new(order)
            }
            _ => self.new_order(),
        };
        self.ask(&order);
    }

    fn new_order(&mut self) -> Arc<Order> {
        let who = format!("c{}", self.sim.below(6));
        let mut lines = Vec::new();
        for item in &self.sale.items {
            if self.sim.percent(50) || (lines.is_empty() && item.sku == self.sale.items[self.sale.items.len() - 1].sku)
            {
                let quantity = units(1 + usize::from(self.sim.percent(20)));
                lines.push(Line { sku: item.sku.clone(), quantity });
            }
        }
        self.order_of(&who, lines)
    }

    fn order_of(&mut self, who: &str, lines: Vec<Line>) -> Arc<Order> {
        let key = self.orders.len().to_string();
        let order = Arc::new(Order {
            id: self.mint.id("order", &self.sale.id, who, &key),
            sale: self.sale.id.clone(),
            customer: Customer::new(who).expect("a customer"),
            lines,
            accepted_at: self.sim.now(),
        });
        self.orders.push(order.clone());
        order
    }

    fn ask(&mut self, order: &Arc<Order>) {
        let Process { owner, shop, .. } = self.process();
        let (world, order) = (self.world.clone(), order.clone());
        let before = world.promises.promised().contains(&order.id);
        world.promises.asked(&order);
        self.executor.spawn(owner, "place", async move {
            let answer = place(&shop, order.clone()).await;
            world.promises.answered(&world, &order, before, &answer);
        });
    }

    fn settle(&mut self, process: Process) {
        if self.executor.count(process.owner, "settle") == 0 {
            self.executor.spawn(process.owner, "settle", async move {
                let _settled = settle_once(&process.shop).await;
            });
        }
    }

    fn reload(&mut self, process: Process) {
        let sale = self.sale.id.clone();
        self.executor.spawn(process.owner, "reload", async move {
            let _loaded = reconcile::reload(&process.shop, &sale).await;
        });
    }

    fn lapse(&mut self, process: Process) {
        self.executor.spawn(process.owner, "lapse", async move {
            let _wait = reconcile::lapse_once(&process.shop).await;
        });
    }

    fn tick(&mut self, process: Process) {
        if self.executor.count(process.owner, "tick") == 0 {
            self.executor.spawn(process.owner, "tick", async move {
                let _ticked = reconcile::tick(&process.shop, &mut *process.watch.lock().await).await;
            });
        }
    }

    fn sweep(&mut self, process: Process) {
        if self.executor.count(process.owner, "sweep") == 0 {
            let sale = self.sale.id.clone();
            self.executor.spawn(process.owner, "sweep", async move {
                let _swept = reconcile::sweep(&process.shop, &sale).await;
            });
        }
    }

    fn turn(&mut self) {
        let promised = self.world.promises.promised();
        let Some(id) = promised.get(self.sim.below(promised.len().max(1))).copied() else { return };
        let turn = if self.sim.percent(60) { Turn::Confirm } else { Turn::Cancel };
        let Process { owner, shop, .. } = self.process();
        let world = self.world.clone();
        self.executor.spawn(owner, "turn", async move {
            let turned = checkout::turn(&shop, id, turn, Duration::from_millis(100)).await;
            world.promises.turned(&world, id, turn, &turned);
        });
    }

    fn operator(&mut self) {
        if self.sim.percent(25) {
            let verb = if self.sim.percent(40) { Verb::Pause } else { Verb::Resume };
            let Process { owner, shop, .. } = self.process();
            let sale = self.sale.id.clone();
            return self.executor.spawn(owner, "steer", async move {
                let _steered = shop.ledger.steer(&sale, verb).await;
            });
        }
        let again = (!self.adjustments.is_empty()).then(|| self.sim.below(self.adjustments.len()));
        let (id, delta, sku) = match again {
            Some(index) if self.sim.percent(40) => self.adjustments[index].clone(),
            _ => self.new_adjustment(),
        };
        let Process { owner, shop, .. } = self.process();
        let (world, sale, reason) = (self.world.clone(), self.sale.id.clone(), String::new());
        let line = Line { sku, quantity: Units::new(u32::try_from(delta.unsigned_abs()).expect("few")).expect("few") };
        self.executor.spawn(owner, "adjust", async move {
            let adjusted = if delta > 0 {
                adjustment::add(&shop, &Addition { id, sale, line, reason }).await
            } else {
                adjustment::withdraw(&shop, Arc::new(Withdrawal { id, sale, line, reason })).await
            };
            world.promises.adjusted(&world, id, delta, &adjusted);
        });
    }

    fn new_adjustment(&mut self) -> (OrderId, i64, Sku) {
        let sku = self.sale.items[self.sim.below(self.sale.items.len())].sku.clone();
        let id = self.mint.id("adjustment", &self.sale.id, sku.as_str(), &self.adjustments.len().to_string());
        let delta = if self.sim.percent(50) { 1 } else { -1 } * (1 + i64::from(self.sim.percent(30)));
        self.adjustments.push((id, delta, sku.clone()));
        (id, delta, sku)
    }

    /// One of the troubles that this sale knows.
    fn trouble(&mut self) {
        let trouble = TROUBLES[self.sim.below(TROUBLES.len())];
        let known = self.troubles.contains(&trouble) && (self.world.distributed || !trouble.needs_a_network());
        if !known || self.troubles_left == 0 {
            return;
        }
        self.troubles_left -= 1;
        match trouble {
            Trouble::TaskDies => self.kill_a_task(|_| true),
            Trouble::WorkersDie => self.world.worker_deaths.store(1 + self.sim.below(4), Ordering::Relaxed),
            Trouble::LoaderDies => self.kill_a_task(|name| name == "reload" || name == "tick"),
            Trouble::ProcessDies => self.crash(),
            Trouble::WorkersRest => self.rest = 20 + self.sim.below(60),
            Trouble::QueueDown => self.world.queue_down_calls.store(self.sim.below(6), Ordering::Relaxed),
            Trouble::FailOver => self.fail_over(),
            Trouble::GateEmpty => {
                self.sim.note(|| "the gate's server restarts empty".into());
                self.world.gates[self.primary].wipe();
            }
            Trouble::GateRewound => {
                self.sim.note(|| "the gate's server restarts with an old dump".into());
                self.world.gates[self.primary].rewind(self.world.has(Bug::StaleMemoryTrusted));
            }
        }
    }

    fn kill_a_task(&mut self, dies: impl Fn(&str) -> bool) {
        let killed = self.executor.kill_one(|owner, name| owner != NETWORK && dies(name));
        let Some((owner, name)) = killed else { return };
        self.sim.note(|| format!("a {name} dies"));
        if name == "settle" {
            self.bury(owner);
        }
    }

    /// A worker is dead: sometimes it is the process's next one that takes over its connection.
    fn bury(&self, owner: Owner) {
        if self.sim.percent(60) {
            let process = self.processes.iter().find(|process| process.owner == owner);
            process.into_iter().for_each(|process| self.disconnect(process));
        }
    }

    /// The broker notices that a consumer is gone. A table in a file keeps its sequence, a broker need not.
    fn disconnect(&self, process: &Process) {
        if self.world.distributed {
            let kept = self.world.has(Bug::RedeliveredMarkerTrusted);
            process.line.leave(kept, |count| self.sim.below(count));
        } else {
            process.line.leave(true, |_| 0);
        }
    }

    fn crash(&mut self) {
        let index = self.sim.below(self.processes.len());
        let process = self.processes.remove(index);
        self.sim.note(|| format!("process {} dies", process.owner.0));
        if self.world.distributed {
            self.executor.kill(|owner, _| owner == process.owner);
        } else {
            self.executor.kill(|_, _| true);
            self.world.gates[0].wipe();
        }
        self.disconnect(&process);
        self.start_process();
    }

    /// The other server takes over; some processes reach the old one for a while.
    fn fail_over(&mut self) {
        self.primary = 1 - self.primary;
        self.sim.note(|| format!("gate {} takes over", self.primary));
        if !self.world.has(Bug::StaleMemoryTrusted) {
            self.world.gates[self.primary].distrust();
        }
        for process in &self.processes {
            if self.sim.percent(70) {
                process.reach.store(self.primary, Ordering::Relaxed);
            }
        }
    }

    /// Nothing goes wrong any more, and everybody reaches the same gate: all must come to rest.
    fn heal(&mut self) {
        self.world.faults_left.store(0, Ordering::Relaxed);
        self.world.queue_down_calls.store(0, Ordering::Relaxed);
        self.world.worker_deaths.store(0, Ordering::Relaxed);
        self.sim.note(|| "nothing goes wrong any more".into());
        for process in &self.processes {
            process.reach.store(self.primary, Ordering::Relaxed);
        }
        at_once(self.world.ledger.steer(&self.sale.id, Verb::Resume));
        for round in 0..HEALING_ROUNDS {
            if self.sim.violation().is_some() || (round > 2 && self.at_rest()) {
                break;
            }
            self.work_through();
            for order in self.world.promises.open() {
                self.ask(&order);
            }
            self.sim.pass(Duration::from_millis(250));
        }
    }

    fn at_rest(&self) -> bool {
        let view = self.world.gates[self.primary].view(&self.sale.id);
        let record = at_once(self.world.ledger.sale(&self.sale.id)).expect("the sale is there");
        let quiet = view.is_some_and(|view| {
            view.live && view.pending == 0 && view.epoch == record.epoch.epoch && view.watermark == record.watermark
        });
        quiet
            && self.world.promises.open().is_empty()
            && self.world.line.waiting().is_empty()
            && self.processes.iter().all(|process| !process.shop.queue_down.load(Ordering::Relaxed))
    }

    /// Everybody does a round of work, and every task that can end ends.
    fn work_through(&mut self) {
        for process in self.processes.clone() {
            self.tick(process.clone());
            self.lapse(process);
        }
        self.drain();
    }

    /// Whatever is left is sold to whoever comes, and not one unit more.
    fn sell_out(&mut self) {
        let window = at_once(self.world.ledger.sale(&self.sale.id)).expect("the sale is there").sale.window;
        if window.state(self.sim.now()) != sluice::model::SaleState::Open || self.sim.violation().is_some() {
            return;
        }
        for sku in self.sale.items.iter().map(|item| item.sku.clone()).collect::<Vec<_>>() {
            let view = self.world.gates[self.primary].view(&self.sale.id);
            let left =
                view.and_then(|view| view.items.iter().find(|item| item.sku == sku).map(|item| item.available.get()));
            for buyer in 0..=left.unwrap_or(0) {
                let line = Line { sku: sku.clone(), quantity: units(1) };
                let order = self.order_of(&format!("{sku}-{buyer}"), vec![line]);
                self.ask(&order);
            }
            let before = self.world.promises.promised().len();
            self.drain();
            let sold = self.world.promises.promised().len() - before;
            if left.is_none_or(|left| left as usize != sold) {
                let detail = format!("{left:?} units of {sku} were left, {sold} were sold");
                self.sim.violated(SELLS, detail);
            }
        }
    }

    /// Settles what waits, and nothing else.
    fn drain(&mut self) {
        loop {
            for process in self.processes.clone() {
                self.settle(process);
            }
            if !self.step() || self.sim.violation().is_some() {
                return;
            }
        }
    }
}
