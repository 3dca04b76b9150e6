//! Settlement: pulls claims from the queue, lets the ledger decide on them, acknowledges, and tells the gate.

use std::time::Duration;

use crate::ledger::{Settlement, Verdict};
use crate::model::{Error, Result, limits};
use crate::queue::{Delivery, Message};
use crate::reconcile;
use crate::shop::Shop;

/// How long a failed ledger is left alone before the next try.
const RETRY: Duration = Duration::from_millis(100);

/// Settles until the future is dropped. Killed anywhere, it loses nothing: what was not acknowledged is pulled again,
/// and what was settled before is [`Verdict::Known`].
pub async fn run(shop: &Shop) {
    loop {
        if let Err(error) = settle_once(shop).await {
            tracing::error!(%error, "settlement failed, trying again");
            shop.clock.sleep(RETRY).await;
        }
    }
}

/// Settles one batch: waits for it, commits, and only then acknowledges.
pub async fn settle_once(shop: &Shop) -> Result<()> {
    let delivery = shop.queue.pull(limits::SETTLE_BATCH_CLAIMS_MAX).await?;
    let settlement = match shop.ledger.settle(&delivery.messages).await {
        Err(Error::Damaged(what, why)) => return park_the_bad(shop, delivery, &format!("{what}: {why}")).await,
        settlement => settlement?,
    };
    shop.queue.acknowledge(delivery.receipt).await?;
    finish(shop, &delivery.messages, &settlement).await;
    Ok(())
}

async fn finish(shop: &Shop, messages: &[Message], settlement: &Settlement) {
    for (message, verdict) in messages.iter().zip(&settlement.verdicts) {
        let outcome = match verdict {
            Verdict::Settled => "settled",
            Verdict::Known => "repeated",
            Verdict::Late => "late",
            Verdict::Marker => continue,
            Verdict::Refused(reason) => {
                metrics::counter!("sluice_broken_promises_total", "sale" => message.sale.to_string()).increment(1);
                tracing::error!(?message, ?reason, "the gate admitted what the ledger could not keep");
                "broken"
            }
            Verdict::Unknown => {
                tracing::error!(?message, "a message about nothing the ledger knows");
                "unknown"
            }
        };
        metrics::counter!("sluice_settlements_total", "sale" => message.sale.to_string(), "outcome" => outcome)
            .increment(1);
    }
    reconcile::apply(shop, &settlement.moves).await;
}

/// A batch that the ledger cannot even read is settled message by message; those that fail alone are parked.
async fn park_the_bad(shop: &Shop, delivery: Delivery, why: &str) -> Result<()> {
    tracing::error!(why, "a batch could not be settled");
    let mut bad = 0;
    for message in &delivery.messages {
        match shop.ledger.settle(std::slice::from_ref(message)).await {
            Ok(settlement) => finish(shop, std::slice::from_ref(message), &settlement).await,
            Err(Error::Damaged(..)) => bad += 1,
            Err(error) => return Err(error),
        }
    }
    if bad == 0 {
        return shop.queue.acknowledge(delivery.receipt).await;
    }
    shop.queue.park(delivery.receipt, why).await
}
