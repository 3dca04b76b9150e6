//! What people and processes ask for: orders, turns and adjustments; settlement, ticks, sweeps, reloads and lapses.

use std::sync::Arc;
use std::time::Duration;

use sluice::checkout::{self, place};
use sluice::ledger::{Addition, Turn};
use sluice::model::{Customer, Line, Order, OrderId, Sku, Units, Verb, Withdrawal};
use sluice::{adjustment, reconcile, settlement};

use super::executor::Job;
use super::run::{Process, Role, Run, units};

impl Run {
    pub(super) fn customer(&mut self) {
        let sale = self.some_sale();
        let orders = &self.sales[sale].orders;
        let again = (!orders.is_empty()).then(|| self.sim.below(orders.len()));
        let order = match again {
            Some(index) if self.sim.percent(40) => {
                let mut order = (*orders[index]).clone();
                if self.sim.percent(15) {
                    order.lines[0].quantity = order.lines[0].quantity.plus(units(1)).expect("few");
                }
                Arc::new(order)
            }
            _ => self.new_order(sale),
        };
        self.ask(&order);
    }

    fn new_order(&mut self, sale: usize) -> Arc<Order> {
        let who = ["c0", "c1", "c2", "c3", "c4", "c5"][self.sim.below(6)];
        let items = &self.sales[sale].sale.items;
        let mut lines = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if self.sim.percent(50) || (lines.is_empty() && index + 1 == items.len()) {
                let quantity = units(1 + usize::from(self.sim.percent(20)));
                lines.push(Line { sku: item.sku.clone(), quantity });
            }
        }
        self.order_of(sale, who, lines)
    }

    pub(super) fn order_of(&mut self, sale: usize, who: &str, lines: Vec<Line>) -> Arc<Order> {
        let accepted_at = self.world.time.now();
        let in_run = &mut self.sales[sale];
        let id = &in_run.sale.id;
        let order = Arc::new(Order {
            id: self.mint.id("order", id, who, &in_run.orders.len().to_string()),
            sale: id.clone(),
            customer: Customer::new(who).expect("a customer"),
            lines,
            accepted_at,
        });
        in_run.orders.push(order.clone());
        order
    }

    pub(super) fn ask(&mut self, order: &Arc<Order>) {
        let Process { owner, shop, .. } = self.process_but(Role::Worker);
        let (world, order) = (self.world.clone(), order.clone());
        let promises = world.promises(&order.sale);
        let before = promises.is_promised(order.id);
        promises.asked(&order);
        self.executor.spawn(owner, Job::Place, async move {
            let mut asked = (*order).clone();
            asked.accepted_at = shop.clock.now();
            // An API looks at the sale's items first.
            let answer = match shop.sale(&order.sale).await {
                Ok(_) => place(&shop, Arc::new(asked)).await,
                Err(error) => Err(error),
            };
            world.promises(&order.sale).answered(&world, &order, before, &answer);
        });
    }

    /// Settles one batch.
    pub(super) fn settle(&mut self, process: &Process) {
        if self.executor.does(process.owner, Job::Settle) {
            return;
        }
        let (shop, settling) = (process.shop.clone(), process.settling.clone());
        self.executor.spawn(process.owner, Job::Settle, async move {
            let _alone = settling.lock().await;
            let _settled = settlement::settle_once(&shop).await;
        });
    }

    /// Settles batch by batch from now on.
    pub(super) fn settle_on(&mut self, process: &Process) {
        let (shop, settling) = (process.shop.clone(), process.settling.clone());
        self.executor.spawn(process.owner, Job::Settle, async move {
            let _alone = settling.lock().await;
            settlement::run(&shop).await;
        });
    }

    /// Follows, sweeps, reloads and lapses from now on, as the program does.
    pub(super) fn reconcile_on(&mut self, process: &Process) {
        let shop = process.shop.clone();
        self.executor.spawn(process.owner, Job::Reconcile, async move { reconcile::run(&shop).await });
    }

    pub(super) fn reload(&mut self, process: Process, sale: usize) {
        let sale = self.sales[sale].sale.id.clone();
        self.executor.spawn(process.owner, Job::Reload, async move {
            let _loaded = reconcile::reload(&process.shop, &sale).await;
        });
    }

    pub(super) fn lapse(&mut self, process: &Process) {
        if !self.executor.does(process.owner, Job::Lapse) {
            let shop = process.shop.clone();
            self.executor.spawn(process.owner, Job::Lapse, async move {
                let _wait = reconcile::lapse_once(&shop).await;
            });
        }
    }

    pub(super) fn tick(&mut self, process: &Process) {
        if !self.executor.does(process.owner, Job::Tick) {
            let (shop, watch) = (process.shop.clone(), process.watch.clone());
            self.executor.spawn(process.owner, Job::Tick, async move {
                let _ticked = reconcile::tick(&shop, &mut *watch.lock().await).await;
            });
        }
    }

    pub(super) fn sweep(&mut self, process: &Process) {
        if !self.executor.does(process.owner, Job::Sweep) {
            let (shop, sale) = (process.shop.clone(), self.sales[self.some_sale()].sale.id.clone());
            self.executor.spawn(process.owner, Job::Sweep, async move {
                let _swept = reconcile::sweep(&shop, &sale).await;
            });
        }
    }

    pub(super) fn ask_queue(&mut self) {
        let process = self.process_but(Role::Worker);
        if process.role == Role::Api {
            self.ask_queue_of(process);
        }
    }

    pub(super) fn ask_queue_of(&mut self, process: Process) {
        if !self.executor.does(process.owner, Job::AskQueue) {
            self.executor.spawn(process.owner, Job::AskQueue, async move {
                reconcile::ask_failed_queue_once(&process.shop).await;
            });
        }
    }

    pub(super) fn turn(&mut self) {
        let sale = self.some_sale();
        let promised = self.world.promises[sale].promised();
        let Some(id) = promised.get(self.sim.below(promised.len().max(1))).copied() else { return };
        let turn = if self.sim.percent(60) { Turn::Confirm } else { Turn::Cancel };
        let Process { owner, shop, .. } = self.process_but(Role::Worker);
        let world = self.world.clone();
        self.executor.spawn(owner, Job::Turn, async move {
            let turned = checkout::turn(&shop, id, turn, Duration::from_millis(100)).await;
            world.promises[sale].turned(&world, id, turn, &turned);
        });
    }

    pub(super) fn operator(&mut self) {
        let sale = self.some_sale();
        let Process { owner, shop, .. } = self.process_but(Role::Worker);
        let id_of_sale = self.sales[sale].sale.id.clone();
        if self.sim.percent(25) {
            let verb = if self.sim.percent(40) { Verb::Pause } else { Verb::Resume };
            return self.executor.spawn(owner, Job::Operate, async move {
                let _steered = shop.ledger.steer(&id_of_sale, verb).await;
            });
        }
        let adjustments = &self.sales[sale].adjustments;
        let again = (!adjustments.is_empty()).then(|| self.sim.below(adjustments.len()));
        let (id, delta, sku) = match again {
            Some(index) if self.sim.percent(40) => adjustments[index].clone(),
            _ => self.new_adjustment(sale),
        };
        let (world, reason) = (self.world.clone(), String::new());
        let line = Line { sku, quantity: Units::new(u32::try_from(delta.unsigned_abs()).expect("few")).expect("few") };
        self.executor.spawn(owner, Job::Operate, async move {
            if shop.sale(&id_of_sale).await.is_err() {
                return;
            }
            let adjusted = if delta > 0 {
                adjustment::add(&shop, &Addition { id, sale: id_of_sale, line, reason }).await
            } else {
                adjustment::withdraw(&shop, Arc::new(Withdrawal { id, sale: id_of_sale, line, reason })).await
            };
            world.promises[sale].adjusted(&world, id, delta, &adjusted);
        });
    }

    fn new_adjustment(&mut self, sale: usize) -> (OrderId, i64, Sku) {
        let in_run = &mut self.sales[sale];
        let items = &in_run.sale.items;
        let sku = items[self.sim.below(items.len())].sku.clone();
        let id = self.mint.id("adjustment", &in_run.sale.id, sku.as_str(), &in_run.adjustments.len().to_string());
        let delta = if self.sim.percent(50) { 1 } else { -1 } * (1 + i64::from(self.sim.percent(30)));
        in_run.adjustments.push((id, delta, sku.clone()));
        (id, delta, sku)
    }
}
