//! How a run ends: nothing goes wrong any more, all comes to rest, and whatever is left is sold.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice::ledger::{Books, EpochStage, Ledger};
use sluice::model::{Line, SaleState, Verb};

use super::checks::is_overdue;
use super::executor::Job;
use super::promises::{SELLS, SOON};
use super::run::{Process, Role, Run, SaleInRun, units};
use super::world::at_once;
use crate::model_queue::ModelQueue;

/// From the healing of the last fault until everything accepted is settled and every order is taken again.
const SERVICE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an operator may wait for a withdrawal.
const PEOPLE_TIME_MAX: Duration = Duration::from_secs(15);
/// How often a process compares the gate with the ledger, as in the program.
const TICK: Duration = Duration::from_millis(250);

impl Run {
    /// Nothing goes wrong any more, and everybody reaches the same gate: all must come to rest, soon.
    pub(super) fn heal(&mut self) -> Duration {
        self.stop_troubles();
        for process in self.processes.clone().into_iter().filter(|process| process.role != Role::Api) {
            self.settle_on(&process);
            self.reconcile_on(&process);
        }
        let mut healed_at = self.sim.now();
        for round in 0.. {
            let now = self.sim.now();
            if self.sim.failed() || (self.is_healed() && self.at_rest()) {
                break;
            }
            if !self.is_healed() {
                healed_at = now;
            }
            if now > healed_at + SERVICE_TIME_MAX {
                self.sim.violated(SOON, self.state());
                break;
            }
            self.work(round % 4 == 0);
            while self.step(now + TICK) && !self.sim.failed() {}
        }
        self.sim.now().saturating_sub(healed_at)
    }

    /// Whether everything that was late has arrived, and everybody is connected.
    fn is_healed(&self) -> bool {
        let slow_until = Duration::from_millis(self.world.slow_until_ms.load(Ordering::Relaxed) + 60);
        self.sim.now() >= slow_until && self.processes.iter().all(|process| process.queue.is_connected())
    }

    /// A round of what the APIs do by themselves, and perhaps of what customers do who were told to come again.
    fn work(&mut self, customers: bool) {
        for process in self.processes.clone().into_iter().filter(|process| process.role == Role::Api) {
            self.ask_queue_of(process);
        }
        if customers {
            for sale in 0..self.sales.len() {
                for order in self.world.promises[sale].open() {
                    self.ask(&order);
                }
            }
        }
    }

    fn at_rest(&self) -> bool {
        let queue_is_up = |process: &Process| !process.shop.queue_down.load(Ordering::Relaxed);
        let all_over = || self.sales.iter().all(|sale| self.world.gates[self.primary].view(&sale.sale.id).is_none());
        self.world.shards.iter().all(ModelQueue::is_empty)
            && (0..self.sales.len()).all(|sale| self.sale_at_rest(sale))
            && (self.processes.iter().all(queue_is_up) || all_over())
    }

    fn sale_at_rest(&self, sale: usize) -> bool {
        let id = &self.sales[sale].sale.id;
        let now = self.world.time.now();
        let view = self.world.gates[self.primary].view(id);
        let (epoch, watermark, state) =
            self.world.ledger.record(id, |record| (record.epoch, record.watermark, record.sale.window.state(now)));
        let waits = matches!(state, SaleState::Open | SaleState::Ended) && self.world.promises[sale].any_open();
        let gate = match view {
            Some(view) => {
                let current = view.live && view.epoch == epoch.epoch && epoch.stage == EpochStage::Live;
                current && view.pending == 0 && view.watermark == watermark
            }
            None => state == SaleState::Ended && epoch.stage == EpochStage::Closed,
        };
        gate && !waits && !self.overdue(sale)
    }

    /// Whether a hold is there long after its time.
    fn overdue(&self, sale: usize) -> bool {
        let now = self.world.time.now();
        self.world
            .ledger
            .look(&self.sales[sale].sale.id, |_, _, orders| orders.values().any(|row| is_overdue(row, now)))
    }

    /// What is not as it should be.
    fn state(&self) -> String {
        let of = |sale: &SaleInRun| {
            let view = self.world.gates[self.primary].view(&sale.sale.id);
            let record = at_once(self.world.ledger.sale(&sale.sale.id));
            let open = self.world.promises(&sale.sale.id).any_open();
            let down = self.processes.iter().filter(|process| process.shop.queue_down.load(Ordering::Relaxed)).count();
            format!("{view:?}; {:?}; open wishes: {open}; queue down for {down}", record.map(|record| record.epoch))
        };
        self.sales.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// Whatever is left is sold to whoever comes, and not one unit more.
    pub(super) fn sell_out(&mut self) {
        // Some who came before are still busy.
        let deadline = self.sim.now() + PEOPLE_TIME_MAX;
        let busy = |run: &Self| [Job::Place, Job::Operate, Job::Turn].iter().any(|job| run.executor.anybody(*job));
        while busy(self) && !self.sim.failed() && self.step(deadline) {}
        for sale in 0..self.sales.len() {
            self.sell_out_of(sale);
        }
        let deadline = self.sim.now() + SERVICE_TIME_MAX;
        while !self.sim.failed() && !self.at_rest() && self.sim.now() < deadline {
            // A sale may have opened only now: whoever was told to wait for it comes again.
            self.work(true);
            let again = self.sim.now() + TICK;
            while self.step(again) && !self.sim.failed() && !self.at_rest() {}
        }
        if !self.sim.failed() && !self.at_rest() {
            self.sim.violated(SOON, self.state());
        }
    }

    fn sell_out_of(&mut self, sale: usize) {
        let in_run = self.sales[sale].sale.clone();
        for sku in in_run.items.iter().map(|item| &item.sku) {
            if !self.is_open(sale) || self.sim.failed() {
                return;
            }
            let view = self.world.gates[self.primary].view(&in_run.id);
            let left =
                view.and_then(|view| view.items.iter().find(|item| item.sku == *sku).map(|item| item.available.get()));
            let sold = || self.world.promises[sale].promised().len();
            let before = sold();
            for buyer in 0..=left.unwrap_or(0) {
                let line = Line { sku: sku.clone(), quantity: units(1) };
                let order = self.order_of(sale, &format!("{sku}-{buyer}"), vec![line]);
                self.ask(&order);
            }
            self.answer_all(sale);
            let sold = self.world.promises[sale].promised().len() - before;
            // A sale that has ended meanwhile, while its gate was loaded, may keep the rest.
            if self.is_open(sale) && left.is_none_or(|left| left as usize > sold) {
                self.sim.violated(SELLS, format!("{left:?} units of {sku} were left, {sold} were sold"));
            }
        }
    }

    /// Whether the sale is open, and not in its last moment, when some are told that it is over.
    fn is_open(&self, sale: usize) -> bool {
        let now = self.world.time.now();
        let soon = now.after(Duration::from_millis(500));
        let state = |at| self.world.ledger.record(&self.sales[sale].sale.id, |record| record.sale.window.state(at));
        [now, soon].map(state) == [SaleState::Open; 2]
    }

    /// Goes on until everybody has heard yes or no. A queue that lost its bindings shows only when the next order comes, so
    /// some may have to come again.
    fn answer_all(&mut self, sale: usize) {
        let deadline = self.sim.now() + SERVICE_TIME_MAX;
        loop {
            let again = self.sim.now() + TICK;
            while self.executor.anybody(Job::Place) && !self.sim.failed() && self.step(again) {}
            let open = self.world.promises[sale].open();
            if open.is_empty() || self.sim.failed() || self.sim.now() > deadline {
                return;
            }
            while self.step(again) && !self.sim.failed() {}
            open.iter().for_each(|order| self.ask(order));
        }
    }

    fn stop_troubles(&mut self) {
        self.world.faults_left.store(0, Ordering::Relaxed);
        self.world.queue_down_calls.store(0, Ordering::Relaxed);
        self.world.worker_deaths.store(0, Ordering::Relaxed);
        self.executor.thaw(Duration::MAX);
        self.sim.note(|| "nothing goes wrong any more".into());
        for process in &self.processes {
            process.reach.store(self.primary, Ordering::Relaxed);
        }
        self.world.time.called_at(self.world.time.now());
        for sale in &self.sales {
            at_once(self.world.ledger.steer(&sale.sale.id, Verb::Resume));
        }
        self.world.ledger_touched.store(true, Ordering::Relaxed);
    }
}
