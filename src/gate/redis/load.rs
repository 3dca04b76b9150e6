//! Loading a sale: the snapshot, and what is carried over, are brought in parts to keys of their own, and one short script
//! puts them in place.

use std::sync::atomic::Ordering;

use super::lane::write_claim;
use super::script::{Answer, Call, FILL, Keys, LOAD, SHUT, damaged};
use super::{Pending, READINGS_MAX, RedisGate, restless};
use crate::gate::carry::Carried;
use crate::model::{Claim, Customer, Effect, Epoch, Error, OrderId, Result, Snapshot, Time, Units, limits};

/// A part of a load on its way to the server.
#[derive(Default)]
struct Part<'a> {
    ids: &'a [OrderId],
    pending: &'a [Claim],
    used: &'a [(Customer, Units)],
}

/// What all parts together brought.
#[derive(Default)]
struct Brought {
    pending: u64,
    known: u64,
    customers: u64,
}

impl RedisGate {
    pub(super) async fn load_snapshot(&self, snapshot: &Snapshot, epoch: Epoch) -> Result<bool> {
        let sale = &snapshot.record.sale.id;
        let keys = Keys::new(sale);
        let Some(before) = self.shut(&keys, epoch).await? else { return Ok(false) };
        let carried = Carried::over(snapshot, before.claims.into_values());
        let stamp = format!("{:016x}-{}", self.clock.chance(), self.loads.fetch_add(1, Ordering::Relaxed));
        let parts = keys.parts(&stamp);
        let brought = self.bring(&parts, snapshot, &carried).await?;
        let mut call = LOAD.over(&[&keys.all()[..], &parts[..]].concat());
        call.push(epoch.0);
        call.push(before.stamp);
        call.push(brought.pending);
        call.push(brought.known);
        call.push(brought.customers);
        call.push(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX));
        push_head(&mut call, snapshot, &carried, &stamp);
        match Answer::read(self.link.run(&call).await?)? {
            Err(why) => Err(Error::Unavailable {
                layer: "gate",
                why: format!("the snapshot cannot be put in place ({why})"),
                effect: Effect::None,
            }),
            Ok(mut answer) => {
                let loaded = answer.flag()?;
                if loaded {
                    let carried_over = carried.claims.len();
                    tracing::info!(%sale, %epoch, before = answer.text()?, carried_over, "Redis remembers the sale");
                }
                Ok(loaded)
            }
        }
    }

    /// Ends the epoch that is there, and answers with what it leaves pending; `None` if this loader comes too late.
    async fn shut(&self, keys: &Keys, epoch: Epoch) -> Result<Option<Pending>> {
        for _reading in 0..READINGS_MAX {
            let Some(mut answer) = self.ask(SHUT.over(keys.all()).arg(epoch.0)).await? else {
                return Ok(Some(Pending::default()));
            };
            if !answer.flag()? {
                return Ok(None);
            }
            let stamp = answer.text()?;
            match self.read_pending(keys).await {
                Ok(Some(pending)) if pending.stamp == stamp => return Ok(Some(pending)),
                Ok(_) => {}
                Err(Error::Damaged(_, why)) => {
                    tracing::error!(why, "what was pending is unreadable and is not carried over");
                    return Ok(Some(Pending { stamp, ..Pending::default() }));
                }
                Err(error) => return Err(error),
            }
        }
        Err(restless())
    }

    /// Brings everything, part by part.
    async fn bring(&self, parts: &[String; 4], snapshot: &Snapshot, carried: &Carried) -> Result<Brought> {
        let mut brought = Brought::default();
        let carried_ids: Vec<OrderId> = carried.claims.iter().map(Claim::id).collect();
        for ids in [&snapshot.known, &carried_ids].iter().flat_map(|ids| ids.chunks(limits::GATE_LOAD_PART_MAX)) {
            self.fill(parts, Part { ids, ..Part::default() }, &mut brought).await?;
        }
        for pending in carried.claims.chunks(limits::GATE_PENDING_PAGE_CLAIMS) {
            self.fill(parts, Part { pending, ..Part::default() }, &mut brought).await?;
        }
        // What is said of a customer later counts.
        let carried_used: Vec<(Customer, Units)> = carried.used.clone().into_iter().collect();
        for used in [&snapshot.used, &carried_used].iter().flat_map(|used| used.chunks(limits::GATE_LOAD_PART_MAX)) {
            self.fill(parts, Part { used, ..Part::default() }, &mut brought).await?;
        }
        Ok(brought)
    }

    /// Brings a part, and counts what of it was new.
    async fn fill(&self, parts: &[String; 4], part: Part<'_>, brought: &mut Brought) -> Result<()> {
        let lives_ms = u64::try_from(limits::GATE_LOAD_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
        let mut call = FILL.over(parts).arg(lives_ms).arg(part.ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>());
        call.push(part.pending.len());
        for claim in part.pending {
            call.push(&claim.id().0[..]);
            call.push(write_claim(claim)?);
        }
        for (customer, units) in part.used {
            call.push(customer.as_str());
            call.push(units.get());
        }
        let mut fresh = Answer::read(self.link.run(&call).await?)?.map_err(|word| damaged(&word))?;
        brought.pending += fresh.number::<u64>()?;
        brought.known += fresh.number::<u64>()?;
        brought.customers += fresh.number::<u64>()?;
        Ok(())
    }
}

/// The fields of the head that the snapshot decides.
fn push_head(call: &mut Call, snapshot: &Snapshot, carried: &Carried, stamp: &str) {
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
    for ((item, places), pending) in sale.items.iter().zip(&record.places).zip(&carried.units) {
        let available = places.available.minus(*pending).unwrap_or_default();
        field(&format!("sku:{}", item.sku), &format!("{} {} {}", available.get(), pending.get(), places.held.get()));
    }
}
