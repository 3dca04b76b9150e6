//! What a worker remembers between two looks at the sales, and the sales that it mends meanwhile.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{MENDED_SALES_MAX, SWEEP_EVERY, TICK};
use crate::ledger::{EpochState, SaleRecord};
use crate::model::{Error, Result, SaleId};

/// A sale whose sweeps are in vain is swept again after so many looks at the latest.
const IN_VAIN_TICKS_MAX: u32 = 8;

/// What earlier looks saw.
#[derive(Default)]
pub struct Watch {
    sales: HashMap<SaleId, Seen>,
}

#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Units held and sold; `None` before the first look.
    taken: Option<u64>,
    epoch: EpochState,
    /// When the epoch was last seen to move, or its loader to be alive.
    pub(super) moved_at: Duration,
    swept: Option<u64>,
    pub(super) swept_at: Duration,
    /// Sweeps since a claim was last settled.
    in_vain: u32,
}

impl Watch {
    /// Notes what is seen now and answers with what is known from before.
    pub(super) fn see(&mut self, record: &SaleRecord, now: Duration) -> Seen {
        let (epoch, swept) = (record.epoch, record.swept);
        let new = Seen { taken: None, epoch, moved_at: now, swept, swept_at: now, in_vain: 0 };
        let seen = self.sales.entry(record.sale.id.clone()).or_insert(new);
        if seen.epoch != record.epoch {
            (seen.epoch, seen.moved_at) = (record.epoch, now);
        }
        // One sweep is enough, whoever made it.
        if seen.swept != record.swept {
            (seen.swept, seen.swept_at) = (record.swept, now);
            seen.in_vain = seen.in_vain.saturating_add(1);
        }
        if seen.taken.is_some_and(|before| taken(record) > before) {
            seen.in_vain = 0;
        }
        let before = *seen;
        if now.saturating_sub(seen.swept_at) >= SWEEP_EVERY {
            seen.swept_at = now;
        }
        seen.taken = Some(taken(record));
        before
    }
}

impl Seen {
    /// Whether nothing was settled since. Who has just come cannot know, and perhaps a long queue only waits for them. What
    /// sweeps have not brought, as a claim that was set aside, is swept up less and less often.
    pub(super) fn is_stuck(&self, record: &SaleRecord, now: Duration) -> bool {
        let rest = TICK * 2_u32.saturating_pow(self.in_vain.saturating_sub(1)).min(IN_VAIN_TICKS_MAX);
        self.taken.is_some_and(|before| taken(record) <= before)
            && (self.in_vain < 2 || now.saturating_sub(self.swept_at) >= rest)
    }
}

/// It grows when claims are settled, and only then: lapses, cancels and confirms go on in a sale that is stuck.
fn taken(record: &SaleRecord) -> u64 {
    record.places.iter().map(|places| u64::from(places.held.get()) + u64::from(places.sold.get())).sum()
}

pub(super) fn complain(error: &Error) {
    tracing::warn!(%error, "could not compare the gate with the ledger");
}

/// The sales that are being mended: none waits for another, nor the next look for any of them.
#[derive(Default)]
pub(super) struct Mending<'a> {
    work: FuturesUnordered<BoxFuture<'a, (SaleId, Result<()>)>>,
    sales: HashSet<SaleId>,
}

impl<'a> Mending<'a> {
    /// Mends this sale from now on, unless that is being done already.
    pub(super) fn begin(&mut self, sale: &SaleId, mend: impl Future<Output = Result<()>> + Send + 'a) {
        if self.sales.len() < MENDED_SALES_MAX && self.sales.insert(sale.clone()) {
            let sale = sale.clone();
            self.work.push(Box::pin(async move { (sale, mend.await) }));
        }
    }

    /// Waits for something else, and lets them go on.
    pub(super) async fn meanwhile<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        loop {
            match select(wait.as_mut(), self.work.next()).await {
                Either::Left((done, _)) => return done,
                Either::Right((Some((sale, mended)), _)) => {
                    self.sales.remove(&sale);
                    mended.unwrap_or_else(|error| complain(&error));
                }
                Either::Right((None, _)) => return wait.await,
            }
        }
    }
}
