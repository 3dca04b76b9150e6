//! Settlement: pulls claims from the queue, lets the ledger decide on them, acknowledges, and tells the gate.

use std::time::Duration;

use futures_util::future::join;

use crate::fault::{self, Moment};
use crate::ledger::{Settlement, Verdict};
use crate::model::{Error, Message, Result, limits};
use crate::queue::Delivery;
use crate::reconcile;
use crate::shop::Shop;
use crate::way::Stop;

/// How long a failed ledger is left alone before the next try.
const RETRY: Duration = Duration::from_millis(100);

/// Settles until the future is dropped. Killed anywhere, it loses nothing: what was not acknowledged is pulled again,
/// and what was settled before is [`Verdict::Known`].
pub async fn run(shop: &Shop) {
    let mut last = None;
    loop {
        // What one batch came to is told while the next one is settled.
        let tell = async {
            if let Some(settled) = last.take() {
                finish(shop, settled).await;
            }
        };
        match join(settle(shop), tell).await {
            (Ok(settled), ()) => last = settled,
            (Err(error), ()) => {
                tracing::error!(%error, "settlement failed, trying again");
                shop.clock.sleep(RETRY).await;
            }
        }
    }
}

/// Settles one batch: waits for it, commits, and only then acknowledges and tells. For tests; the program calls [`run`].
pub async fn settle_once(shop: &Shop) -> Result<()> {
    if let Some(settled) = settle(shop).await? {
        finish(shop, settled).await;
    }
    Ok(())
}

/// A batch that is settled and acknowledged.
struct Settled {
    messages: Vec<Message>,
    settlement: Settlement,
}

/// Settles one batch and acknowledges it; `None` if it was settled message by message, and told.
async fn settle(shop: &Shop) -> Result<Option<Settled>> {
    let delivery = shop.queue.pull(limits::SETTLE_BATCH_CLAIMS_MAX).await?;
    fault::at(Moment::Pulled);
    let started = shop.clock.monotonic();
    let settlement = match shop.ledger.settle(&delivery.messages).await {
        Err(Error::Damaged(what, why)) => {
            return park_the_bad(shop, delivery, &format!("{what}: {why}")).await.map(|()| None);
        }
        settlement => settlement?,
    };
    let committed = shop.clock.monotonic();
    let took = committed.saturating_sub(started);
    metrics::histogram!("sluice_stage_duration_seconds", "stage" => "settle").record(took);
    let decisions = delivery.messages.iter().zip(&settlement.verdicts);
    let decided = decisions.filter(|(_, verdict)| matches!(verdict, Verdict::Settled | Verdict::Refused(_)));
    let stops = [(Stop::Pulled, started), (Stop::Settled, committed)];
    shop.ways.note(decided.filter_map(|(message, _)| message.claim_id()), &stops);
    fault::at(Moment::Committed);
    shop.queue.acknowledge(delivery.receipt).await?;
    fault::at(Moment::Acknowledged);
    Ok(Some(Settled { messages: delivery.messages, settlement }))
}

/// Counts what was settled, and tells the gate.
async fn finish(shop: &Shop, Settled { messages, settlement }: Settled) {
    let outcomes = messages.iter().zip(&settlement.verdicts);
    let mut outcomes: Vec<_> =
        outcomes.filter_map(|(message, verdict)| Some((&message.sale, outcome(message, *verdict)?))).collect();
    outcomes.sort_unstable();
    for same in outcomes.chunk_by(|one, other| one == other) {
        let ((sale, outcome), count) = (same[0], same.len() as u64);
        metrics::counter!("sluice_settlements_total", "sale" => sale.to_string(), "outcome" => outcome)
            .increment(count);
        if outcome == "refused" {
            metrics::counter!("sluice_broken_promises_total", "sale" => sale.to_string()).increment(count);
        }
    }
    reconcile::apply(shop, &settlement.moves).await;
}

fn outcome(message: &Message, verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Settled => Some("settled"),
        Verdict::Known => Some("repeated"),
        Verdict::Late => Some("late"),
        Verdict::Marker => None,
        Verdict::Refused(reason) => {
            tracing::error!(?message, ?reason, "the gate admitted what the ledger could not keep");
            Some("refused")
        }
        Verdict::Unknown => {
            tracing::error!(?message, "a message about nothing that the ledger knows");
            Some("unknown")
        }
    }
}

/// A batch that the ledger cannot read is settled message by message. If one fails alone too, the whole delivery is set
/// aside: what was settled of it is [`Verdict::Known`] when somebody pushes it again.
async fn park_the_bad(shop: &Shop, delivery: Delivery, why: &str) -> Result<()> {
    tracing::error!(why, "a batch could not be settled");
    let mut bad = false;
    for message in &delivery.messages {
        match shop.ledger.settle(std::slice::from_ref(message)).await {
            Ok(settlement) => finish(shop, Settled { messages: vec![message.clone()], settlement }).await,
            Err(Error::Damaged(..)) => bad = true,
            Err(error) => return Err(error),
        }
    }
    if !bad {
        return shop.queue.acknowledge(delivery.receipt).await;
    }
    shop.queue.park(delivery.receipt, why).await
}
