//! Loading a sale: the snapshot is brought in parts to keys of its own, and one short script puts them in place.

use std::sync::atomic::Ordering;

use super::RedisGate;
use super::script::{Answer, Call, FILL, Keys, LOAD, damaged};
use crate::gate::Gate;
use crate::model::{Customer, Effect, Epoch, Error, OrderId, Result, Snapshot, Time, Units, limits};

impl RedisGate {
    pub(super) async fn load_snapshot(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        let sale = &snapshot.record.sale.id;
        // Most loaders that come too late learn it before they bring a million ids.
        if self.view(sale).await?.is_some_and(|view| view.epoch >= epoch) {
            return Ok(false);
        }
        let stamp = format!("{:016x}-{}", self.clock.chance(), self.loads.fetch_add(1, Ordering::Relaxed));
        let keys = Keys::new(sale);
        let parts = keys.parts(&stamp);
        let (mut known, mut customers) = (0, 0);
        for ids in snapshot.known.chunks(limits::GATE_LOAD_PART_MAX) {
            known += self.fill(&parts, ids, &[]).await?.0;
        }
        for used in snapshot.used.chunks(limits::GATE_LOAD_PART_MAX) {
            customers += self.fill(&parts, &[], used).await?.1;
        }
        let mut call = LOAD.over(&[&keys.all()[..], &parts[..]].concat());
        call.push(epoch.0);
        call.push(known);
        call.push(customers);
        push_head(&mut call, snapshot, &stamp);
        match Answer::read(self.link.run(&call).await?)? {
            Err(why) => Err(Error::Unavailable {
                layer: "gate",
                why: format!("the snapshot did not arrive whole ({why})"),
                effect: Effect::None,
            }),
            Ok(mut answer) => {
                let loaded = answer.flag()?;
                if loaded {
                    tracing::info!(%sale, %epoch, before = answer.text()?, "Redis remembers the sale");
                }
                Ok(loaded)
            }
        }
    }

    /// Brings a part; how many ids and customers of it were new.
    async fn fill(&self, parts: &[String; 3], ids: &[OrderId], used: &[(Customer, Units)]) -> Result<(u64, u64)> {
        let lives_ms = u64::try_from(limits::GATE_LOAD_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
        let mut call = FILL.over(parts).arg(lives_ms).arg(ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>());
        for (customer, units) in used {
            call.push(customer.as_str());
            call.push(units.get());
        }
        let mut fresh = Answer::read(self.link.run(&call).await?)?.map_err(|word| damaged(&word))?;
        Ok((fresh.number()?, fresh.number()?))
    }
}

/// The fields of the head that the snapshot decides.
fn push_head(call: &mut Call, snapshot: &Snapshot, stamp: &str) {
    let record = &snapshot.record;
    let sale = &record.sale;
    let skus: Vec<&str> = sale.items.iter().map(|item| item.sku.as_str()).collect();
    let moment = |time: Option<Time>| time.map(|time| time.millis().to_string()).unwrap_or_default();
    let limit = sale.per_customer_limit.map_or(-1, |limit| i64::from(limit.get()));
    let mut field = |name: &str, value: &str| {
        call.push(name);
        call.push(value);
    };
    field("stamp", stamp);
    field("skus", &skus.join("\n"));
    field("watermark", &record.watermark.0.to_string());
    field("phase", sale.window.phase.word());
    field("opens_at", &moment(sale.window.opens_at));
    field("closes_at", &moment(sale.window.closes_at));
    field("limit", &limit.to_string());
    field("hold", &sale.hold_seconds.to_string());
    for (item, places) in sale.items.iter().zip(&record.places) {
        field(&format!("sku:{}", item.sku), &format!("{} 0 {}", places.available.get(), places.held.get()));
    }
}
