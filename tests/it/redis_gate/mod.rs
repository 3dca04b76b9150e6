//! What the gate in Redis does beyond the contract: servers that die, lie or freeze, and several processes at once.

mod crowd;
mod model;
mod outages;
mod servers;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use sluice::clock::RealClock;
use sluice::gate::{Admission, Gate, RedisGate, Refusal};
use sluice::ledger::{Books, Ledger};
use sluice::model::{Claim, Customer, Epoch, Order, OrderId, Sale, SaleId, Snapshot};

use crate::model_ledger::ModelLedger;
use crate::servers::redis::say;
use crate::words::{line, sale_id, sku, units};

/// Where Redis keeps the head of the sale `s`.
const HEAD: &str = "sluice:{s}:head";

/// A gate as a process of its own would have it, but for the lease: it asks about every request.
async fn gate(url: &str) -> RedisGate {
    leasing(url, Duration::ZERO).await
}

/// A gate whose latch need not ask for so long.
async fn leasing(url: &str, lease: Duration) -> RedisGate {
    RedisGate::connect(url, Arc::new(RealClock::new()), lease).await.expect("the server is there")
}

/// A sale that is new in the ledger.
async fn snapshot(sale: &Sale, stock: u32) -> Snapshot {
    let ledger = ModelLedger::new(Arc::new(RealClock::new()));
    ledger.create(sale, &vec![units(stock); sale.items.len()]).await.unwrap();
    ledger.snapshot(&sale.id).await.unwrap().unwrap()
}

/// Loads a new sale and opens it.
async fn open(gate: &dyn Gate, sale: &Sale, stock: u32, epoch: u64) {
    assert!(gate.load(&snapshot(sale, stock).await, Epoch(epoch)).await.unwrap());
    assert!(gate.open(&sale.id, Epoch(epoch)).await.unwrap());
}

/// One unit of `a` in the sale `s`, by a customer of its own.
fn one(number: u128) -> Claim {
    of_sale(&sale_id("s"), number)
}

fn of_sale(sale: &SaleId, number: u128) -> Claim {
    Claim::Order(Arc::new(Order {
        id: OrderId(number.to_be_bytes()),
        sale: sale.clone(),
        customer: Customer::new(&format!("customer {number}")).unwrap(),
        lines: vec![line("a", 1)],
        accepted_at: sluice::model::Time::from_millis(1_800_000_000_000),
    }))
}

fn repeat(claim: &Claim, epoch: u64) -> Admission {
    Admission::Repeat(Some((claim.clone(), Epoch(epoch))))
}

fn sold_out(may_return: bool) -> Admission {
    Admission::Refused(Refusal::SoldOut { sku: sku("a"), may_return })
}

/// What the server says of itself.
fn info(url: &str, name: &str) -> String {
    let all: String = say(url, &["INFO", "everything"]);
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("INFO has no {name}")).trim().to_owned()
}
