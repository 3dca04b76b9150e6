//! The ledger on a bad day: it keeps what it has, and only the way to it is bad. Some of the planted bugs are here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::ledger::{
    Added, Addition, Adjustment, Books, Creation, EpochStage, EpochState, EpochStep, Lapses, Ledger, Move, OrderFilter,
    OrderPage, Recount, SaleRecord, Settlement, Snapshot, Steered, Turn, Turned,
};
use sluice::model::{Claim, Epoch, OrderId, OrderRecord, OrderState, Result, Sale, SaleId, Seq, Units, Verb};
use sluice::queue::{Body, Message};

use super::clocks::ProcessClock;
use super::world::{Bug, World, at_once};
use crate::model_ledger::ModelLedger;

/// A process's way to the ledger.
pub(crate) struct FaultyLedger {
    pub(crate) world: Arc<World>,
    pub(crate) clock: Arc<ProcessClock>,
}

impl FaultyLedger {
    async fn read<T: Send + 'static>(&self, serve: impl FnOnce(&ModelLedger) -> T + Send + 'static) -> Result<T> {
        self.world.call("ledger", move |world| serve(&world.ledger)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&World, &ModelLedger) -> T + Send + 'static,
    ) -> Result<T> {
        let clock = self.clock.clone();
        let serve = move |world: &World| {
            world.time.called_at(clock.now());
            world.ledger_touched.store(true, Ordering::Relaxed);
            serve(world, &world.ledger)
        };
        self.world.call("ledger", serve).await
    }
}

#[async_trait]
impl Ledger for FaultyLedger {
    async fn create(&self, sale: &Sale, stock: &[Units]) -> Result<Creation> {
        let (sale, stock) = (sale.clone(), stock.to_vec());
        self.write(move |_, ledger| at_once(ledger.create(&sale, &stock))).await
    }

    async fn steer(&self, sale: &SaleId, verb: Verb) -> Result<Steered> {
        let sale = sale.clone();
        self.write(move |world, ledger| {
            world.sim.note(|| format!("steer {sale}: {}", verb.word()));
            at_once(ledger.steer(&sale, verb))
        })
        .await
    }

    async fn settle(&self, messages: &[Message]) -> Result<Settlement> {
        let mut messages = messages.to_vec();
        self.world.worker(messages.iter().any(|message| message.body == Body::Close)).await;
        self.write(move |world, ledger| {
            for message in &mut messages {
                spoil(world, ledger, message);
            }
            let settlement = at_once(ledger.settle(&messages));
            for (message, verdict) in messages.iter().zip(&settlement.verdicts) {
                let (sale, epoch) = (&message.sale, message.epoch);
                world.sim.note(|| format!("settle {} of {sale} {epoch}: {verdict:?}", brief(message)));
            }
            settlement
        })
        .await
    }

    async fn turn(&self, id: OrderId, turn: Turn) -> Result<Turned> {
        self.write(move |world, ledger| {
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
        self.write(move |_, ledger| at_once(ledger.add(&addition))).await
    }

    async fn lapse(&self, orders_max: usize) -> Result<Lapses> {
        self.write(move |_, ledger| at_once(ledger.lapse(orders_max))).await
    }

    async fn step_epoch(&self, sale: &SaleId, step: EpochStep) -> Result<Option<EpochState>> {
        let sale = sale.clone();
        self.write(move |world, ledger| {
            let state = at_once(ledger.step_epoch(&sale, step));
            if !matches!(step, EpochStep::Beat(_)) {
                world.sim.note(|| format!("epochs of {sale}: {step:?} gives {state:?}"));
            }
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
    let (Some(bug), Body::Claim(claim)) = (world.bug, &mut message.body) else { return };
    match (bug, claim) {
        (Bug::ClosedEpochsSettled, _) => message.epoch = Epoch(u64::MAX),
        (Bug::LateSettledWhileReloading, _) => {
            let stage = at_once(ledger.sale(&message.sale)).map(|record| record.epoch.stage);
            if stage == Some(EpochStage::Reloading) {
                message.epoch = Epoch(u64::MAX);
            }
        }
        (Bug::LedgerForgetsIds, Claim::Order(order)) => {
            while at_once(ledger.order(order.id)).is_some() {
                let mut other = (**order).clone();
                other.id.0[0] ^= 0xff;
                other.id.0[1] = other.id.0[1].wrapping_add(1);
                *order = Arc::new(other);
            }
        }
        _ => {}
    }
}

#[async_trait]
impl Books for FaultyLedger {
    async fn sales(&self) -> Result<Vec<SaleRecord>> {
        self.read(|ledger| at_once(ledger.sales())).await
    }

    async fn sale(&self, sale: &SaleId) -> Result<Option<SaleRecord>> {
        let sale = sale.clone();
        self.read(move |ledger| at_once(ledger.sale(&sale))).await
    }

    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>> {
        self.read(move |ledger| at_once(ledger.order(id))).await
    }

    async fn orders(&self, filter: &OrderFilter) -> Result<OrderPage> {
        let filter = filter.clone();
        self.read(move |ledger| at_once(ledger.orders(&filter))).await
    }

    async fn adjustment(&self, id: OrderId) -> Result<Option<Adjustment>> {
        self.read(move |ledger| at_once(ledger.adjustment(id))).await
    }

    async fn journal(&self, sale: &SaleId, after: Seq, moves_max: usize) -> Result<Vec<Move>> {
        let sale = sale.clone();
        self.read(move |ledger| at_once(ledger.journal(&sale, after, moves_max))).await
    }

    async fn snapshot(&self, sale: &SaleId) -> Result<Option<Snapshot>> {
        let sale = sale.clone();
        self.read(move |ledger| at_once(ledger.snapshot(&sale))).await
    }

    async fn recount(&self, sale: &SaleId) -> Result<Option<Recount>> {
        let sale = sale.clone();
        self.read(move |ledger| at_once(ledger.recount(&sale))).await
    }
}
