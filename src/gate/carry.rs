//! What a gate carries over when it is loaded: the claims that it admitted and the ledger does not know. Usually they are
//! still unpushed; but if the queue lost its data, they are promised, and this memory is the last that knows them.

use std::collections::{BTreeMap, HashMap};

use crate::model::{Claim, Customer, OrderId, Snapshot, Units};

/// Claims that stay pending beyond a load, and what they do to the snapshot's counts.
#[derive(Default)]
pub(super) struct Carried {
    /// In the sequence of their ids.
    pub(super) claims: Vec<Claim>,
    /// Their units, per item of the sale: no longer available.
    pub(super) units: Vec<Units>,
    /// All units of their customers, in a sale with a limit.
    pub(super) used: HashMap<Customer, Units>,
}

impl Carried {
    /// Of what was pending, carries over what the snapshot does not know, as long as its units and the customer's limit
    /// suffice. What does not fit was not promised by an honest gate, and is forgotten.
    pub(super) fn over(snapshot: &Snapshot, pending: impl IntoIterator<Item = Claim>) -> Self {
        let mut pending: BTreeMap<OrderId, Claim> = pending.into_iter().map(|claim| (claim.id(), claim)).collect();
        for id in &snapshot.known {
            pending.remove(id);
        }
        let units = vec![Units::ZERO; snapshot.record.sale.items.len()];
        let mut carried = Self { claims: Vec::new(), units, used: used_before(snapshot, pending.values()) };
        for claim in pending.into_values() {
            carried.take(snapshot, claim);
        }
        carried
    }

    fn take(&mut self, snapshot: &Snapshot, claim: Claim) {
        let Some(units) = self.with_units(snapshot, &claim) else { return };
        if let (Claim::Order(order), Some(limit)) = (&claim, snapshot.record.sale.per_customer_limit) {
            let used = self.used.entry(order.customer.clone()).or_default();
            match used.plus(claim.units()) {
                Some(sum) if sum <= limit => *used = sum,
                _ => return,
            }
        }
        self.units = units;
        self.claims.push(claim);
    }

    /// The units per item with those of this claim; `None` if there are too few.
    fn with_units(&self, snapshot: &Snapshot, claim: &Claim) -> Option<Vec<Units>> {
        let mut units = self.units.clone();
        for line in claim.lines() {
            let index = snapshot.record.sale.items.iter().position(|item| item.sku == line.sku)?;
            let sum = units[index].plus(line.quantity)?;
            snapshot.record.places[index].available.minus(sum)?;
            units[index] = sum;
        }
        Some(units)
    }
}

/// What the snapshot says of the customers of these claims.
fn used_before<'a>(snapshot: &Snapshot, pending: impl Iterator<Item = &'a Claim>) -> HashMap<Customer, Units> {
    let mut used = HashMap::new();
    if snapshot.record.sale.per_customer_limit.is_none() {
        return used;
    }
    for claim in pending {
        if let Claim::Order(order) = claim {
            used.insert(order.customer.clone(), Units::ZERO);
        }
    }
    if !used.is_empty() {
        for (customer, units) in &snapshot.used {
            used.entry(customer.clone()).and_modify(|used| *used = *units);
        }
    }
    used
}
