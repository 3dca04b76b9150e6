//! Adjustments: more stock goes into the ledger and from there to the gate; less stock goes the way of an order, first
//! from the gate and then from the ledger, so that no unit is promised while it is being withdrawn.

use std::sync::Arc;
use std::time::Duration;

use crate::checkout;
use crate::gate::{Admission, Refusal};
use crate::ledger::{Added, Addition, Adjustment};
use crate::model::{Claim, Effect, OrderId, Result, SaleState, Sku, Units, Withdrawal};
use crate::queue::Push;
use crate::reconcile;
use crate::shop::Shop;

/// How long a withdrawal is waited for.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(10);

/// What became of a request to adjust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adjusted {
    /// It is so now.
    Done(Adjustment),
    /// It was done before under this key.
    Repeat(Adjustment),
    /// Another adjustment was done under this idempotency key.
    KeyReused,
    /// Fewer units are available than were to be withdrawn.
    TooFew(Sku),
    /// The stock would pass its limit.
    TooMany,
    /// The sale is over.
    Ended,
    /// No such sale, or no such SKU in it.
    Unknown,
    /// Not now; ask again with the same key.
    Unavailable(Effect),
}

/// Puts units into a sale; the second time under the same id changes nothing.
pub async fn add(shop: &Shop, addition: &Addition) -> Result<Adjusted> {
    let wish = Wish::of(addition);
    if let Some(adjustment) = shop.ledger.adjustment(addition.id).await? {
        return Ok(wish.repeat(adjustment));
    }
    let Some(record) = shop.ledger.sale(&addition.sale).await? else { return Ok(Adjusted::Unknown) };
    if record.sale.window.state(shop.clock.now()) == SaleState::Ended {
        return Ok(Adjusted::Ended);
    }
    Ok(match shop.ledger.add(addition).await? {
        Added::Done(adjustment, moves) => {
            reconcile::apply(shop, &[moves]).await;
            Adjusted::Done(adjustment)
        }
        Added::Already(adjustment) => wish.repeat(adjustment),
        Added::TooMany => Adjusted::TooMany,
        Added::Unknown => Adjusted::Unknown,
    })
}

/// Takes units out of a sale; the second time under the same id changes nothing.
pub async fn withdraw(shop: &Shop, withdrawal: Arc<Withdrawal>) -> Result<Adjusted> {
    let wish = Wish::to_withdraw(&withdrawal);
    if let Some(adjustment) = shop.ledger.adjustment(withdrawal.id).await? {
        return Ok(wish.repeat(adjustment));
    }
    let claim = Claim::Withdrawal(withdrawal.clone());
    let asked = shop.clock.monotonic();
    let (first, epoch) = match shop.gate.admit(&claim).await? {
        Admission::Admitted(epoch) => (true, epoch),
        Admission::Repeat(Some((first, epoch))) if first == claim => (false, epoch),
        Admission::Repeat(Some(_)) => return Ok(Adjusted::KeyReused),
        Admission::Repeat(None) => return decided(shop, withdrawal.id, &wish, false).await,
        Admission::Refused(Refusal::SoldOut { sku, .. }) => return Ok(Adjusted::TooFew(sku)),
        Admission::Refused(Refusal::Ended) => return Ok(Adjusted::Ended),
        Admission::Refused(Refusal::LimitReached { .. } | Refusal::NotOpen { .. } | Refusal::Paused)
        | Admission::Unloaded => return Ok(Adjusted::Unavailable(Effect::None)),
    };
    match checkout::push(shop, claim, epoch, asked).await? {
        Push::Durable => decided(shop, withdrawal.id, &wish, first).await,
        Push::Fenced => Ok(Adjusted::Unavailable(Effect::Unknown)),
    }
}

/// What an adjustment asks for.
struct Wish<'a> {
    sku: &'a Sku,
    delta: i64,
    reason: &'a str,
}

impl<'a> Wish<'a> {
    fn of(Addition { line, reason, .. }: &'a Addition) -> Self {
        Self { sku: &line.sku, delta: line.quantity.get().into(), reason }
    }

    fn to_withdraw(Withdrawal { line, reason, .. }: &'a Withdrawal) -> Self {
        Self { sku: &line.sku, delta: -i64::from(line.quantity.get()), reason }
    }

    /// The answer to whoever asks again, or asks for something else under the same key.
    fn repeat(&self, done: Adjustment) -> Adjusted {
        let same = done.delta == self.delta && done.sku == *self.sku && done.reason == self.reason;
        if same { Adjusted::Repeat(done) } else { Adjusted::KeyReused }
    }
}

/// Waits for the ledger's decision on a withdrawal that came for the first time, or again.
async fn decided(shop: &Shop, id: OrderId, wish: &Wish<'_>, first: bool) -> Result<Adjusted> {
    let deadline = shop.clock.monotonic() + SETTLED_TIME_MAX;
    loop {
        if let Some(adjustment) = shop.ledger.adjustment(id).await? {
            return Ok(match wish.repeat(adjustment) {
                Adjusted::Repeat(adjustment) if first => Adjusted::Done(adjustment),
                other => other,
            });
        }
        if shop.clock.monotonic() >= deadline {
            return Ok(Adjusted::Unavailable(Effect::Unknown));
        }
        shop.clock.sleep(Duration::from_millis(2)).await;
    }
}

/// The number of units an adjustment asks for, and whether they come or go; `None` if it asks for nothing or too much.
pub fn direction(delta: i64) -> Option<(Units, bool)> {
    let units = u32::try_from(delta.unsigned_abs()).ok().and_then(|count| Units::new(count).ok())?;
    (units > Units::ZERO).then_some((units, delta > 0))
}
