//! The verdict of the live page. Three things are compared at every tick: the journal's own arithmetic, the ledger's rows and
//! the gate. The whole recount, which also reads every order and every hash, goes on beside the ticks at a fiftieth of the
//! time that it takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::story::{Offence, Story};
use super::tick::VerdictJson;
use crate::audit::{self, Audit, Stock};
use crate::model::{Places, Result, SaleId};
use crate::shop::Shop;

/// The pause between two recounts: at least this, and so many times as long as the last one took.
const RECOUNT_PAUSE_MIN: Duration = Duration::from_secs(2);
const RECOUNT_PAUSE_TIMES: u32 = 50;

/// What is known of a sale's recounts.
#[derive(Default)]
pub(super) struct Judge {
    running: Option<JoinHandle<(Result<Option<Audit>>, Duration)>>,
    next_at: Duration,
    found: VerdictJson,
}

impl Judge {
    /// Takes note of a recount that has ended, and begins the next one when it is time.
    pub(super) async fn recount(&mut self, shop: &Arc<Shop>, sale: &SaleId) {
        let now = shop.clock.monotonic();
        if let Some(running) = self.running.take_if(|running| running.is_finished())
            && let Ok((audited, took)) = running.await
        {
            self.next_at = now + RECOUNT_PAUSE_MIN.max(took * RECOUNT_PAUSE_TIMES);
            if let Ok(Some(audit)) = audited {
                self.found = found(&audit);
            }
        }
        if self.running.is_none() && now >= self.next_at {
            self.next_at = now + RECOUNT_PAUSE_MIN;
            let (shop, sale) = (shop.clone(), sale.clone());
            self.running = Some(tokio::spawn(async move {
                let started = shop.clock.monotonic();
                let audited = audit::audit(&shop, &sale).await;
                (audited, shop.clock.monotonic().saturating_sub(started))
            }));
        }
    }

    /// The verdict at this watermark, up to which the story has been read.
    pub(super) fn verdict(&self, story: &Story, stock: &Stock) -> VerdictJson {
        let seen = at_once(story, stock);
        let first = [&story.offence, &self.found.first_offence, &seen.first_offence].into_iter().flatten().next();
        VerdictJson {
            oversold: seen.oversold.max(self.found.oversold),
            undersold: seen.undersold.max(self.found.undersold),
            broken_promises: seen.broken_promises.max(self.found.broken_promises),
            conservation_errors: seen.conservation_errors.max(self.found.conservation_errors),
            first_offence: first.cloned(),
        }
    }

    /// The verdict on rows that cannot even be read.
    pub(super) fn unreadable(&mut self, what: String) -> VerdictJson {
        self.found.conservation_errors = self.found.conservation_errors.max(1);
        self.found.first_offence.get_or_insert(Offence { seq: None, order: None, what });
        self.found.clone()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl VerdictJson {
    /// Takes what is worse of another verdict. The first offence stays the first, unless only a later one leads anywhere.
    pub(super) fn worsen(&mut self, other: VerdictJson) {
        self.oversold = self.oversold.max(other.oversold);
        self.undersold = self.undersold.max(other.undersold);
        self.broken_promises = self.broken_promises.max(other.broken_promises);
        self.conservation_errors = self.conservation_errors.max(other.conservation_errors);
        let leads = |offence: &Offence| offence.seq.is_some() || offence.order.is_some();
        let kept = self.first_offence.take();
        self.first_offence = match (kept, other.first_offence) {
            (Some(kept), Some(other)) if !leads(&kept) && leads(&other) => Some(other),
            (kept, other) => kept.or(other),
        };
    }

    /// Whether all is well.
    pub(super) fn is_clean(&self) -> bool {
        self.oversold + self.undersold + self.broken_promises + self.conservation_errors == 0
    }
}

/// What journal, rows and gate show when they are held against each other.
fn at_once(story: &Story, stock: &Stock) -> VerdictJson {
    let mut verdict = VerdictJson {
        broken_promises: story.broken_promises,
        conservation_errors: story.impossible,
        ..VerdictJson::default()
    };
    for (item, journal) in stock.items.iter().zip(&story.places) {
        let count = |units: crate::model::Units| u64::from(units.get());
        let available = count(item.available) + count(item.in_flight);
        let rows = [count(item.stock), available, count(item.held), count(item.sold)];
        let Places { stock, available: left, held, sold } = *journal;
        let differs = rows.iter().zip([stock, left, held, sold]).map(|(row, moves)| row.abs_diff(count(moves))).max();
        let differs = differs.unwrap_or(0);
        let oversold = (rows[2] + rows[3]).saturating_sub(rows[0]);
        let gate = item.gate.map_or(count(item.available), |gate| count(gate.available));
        let undersold = count(item.available).saturating_sub(gate);
        let leaked = gate.saturating_sub(count(item.available)).max(rows[0].abs_diff(rows[1] + rows[2] + rows[3]));
        verdict.oversold += oversold;
        verdict.undersold += undersold;
        verdict.conservation_errors += differs.max(leaked);
        let what = match (oversold, undersold, differs, leaked) {
            (0, 0, 0, 0) => continue,
            (1.., ..) => format!("{oversold} units of {} are held or sold beyond the stock", item.sku),
            (_, 1.., ..) => format!("the gate would refuse {undersold} units of {} that nobody has", item.sku),
            (_, _, 1.., _) => format!("the row of {} and its journal differ by {differs} units", item.sku),
            _ => format!("{leaked} units of {} are in no place or in two", item.sku),
        };
        verdict.first_offence.get_or_insert(Offence { seq: None, order: None, what });
    }
    verdict
}

fn found(audit: &Audit) -> VerdictJson {
    let first = audit.findings.first().map(|finding| {
        let seq = finding.subject.strip_prefix('#').and_then(|seq| seq.parse().ok()).map(crate::model::Seq);
        let what = format!("{}: {}", finding.subject, finding.detail);
        Offence { seq, order: finding.subject.parse().ok(), what }
    });
    VerdictJson {
        oversold: audit.oversold,
        undersold: audit.undersold,
        broken_promises: audit.broken_promises + audit.lost,
        conservation_errors: audit.conservation_errors + audit.leaked + audit.doubled,
        first_offence: first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Seq;

    fn found(oversold: u64, seq: Option<u64>, what: &str) -> VerdictJson {
        let first_offence = Some(Offence { seq: seq.map(Seq), order: None, what: what.to_owned() });
        VerdictJson { oversold, first_offence, ..VerdictJson::default() }
    }

    #[test]
    fn what_was_wrong_once_stays_wrong_and_leads_to_a_move_if_any_does() {
        let mut worst = VerdictJson::default();
        worst.worsen(VerdictJson::default());
        assert!(worst.is_clean() && worst.first_offence.is_none());
        worst.worsen(found(3, None, "a row"));
        worst.worsen(VerdictJson::default());
        assert_eq!(worst, found(3, None, "a row"));
        worst.worsen(found(1, Some(7), "a move"));
        worst.worsen(found(2, Some(9), "a later move"));
        assert_eq!(worst, found(3, Some(7), "a move"));
    }
}
