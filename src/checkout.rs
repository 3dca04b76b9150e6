//! An order's way to the queue: the gate admits it, the queue makes it durable, and it is accepted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::fault::{self, Moment};
use crate::gate::{Admission, Refusal};
use crate::ledger::{Turn, Turned};
use crate::model::{
    Claim, Effect, Epoch, Error, Order, OrderId, OrderRecord, OrderState, Result, SaleState, same_lines,
};
use crate::queue::{Message, Push};
use crate::reconcile;
use crate::shop::Shop;
use crate::way::Stop;

/// How often an order is looked up while somebody waits for it and another process settles it.
const POLL: Duration = Duration::from_millis(50);

/// What became of a request to order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The order is kept, whatever crashes.
    Accepted(OrderRecord),
    /// It was placed before; this is how it is now.
    Repeat(OrderRecord),
    /// Another order was placed under this idempotency key.
    KeyReused,
    /// Nothing was taken, and why.
    Refused(Refusal),
    /// There is no such sale.
    UnknownSale,
    /// Not now; the caller may ask again with the same key.
    Unavailable(Effect),
}

/// The order's refusal, if the gate can tell it without taking anything; `None` means: ask [`place`]. Whoever asks may go
/// away at any time.
pub async fn refuse(shop: &Shop, order: &Order) -> Result<Option<Refusal>> {
    if shop.queue_down.load(Ordering::Relaxed) || shop.pushing.is_full() {
        return Ok(None);
    }
    shop.gate.refuse(order).await
}

/// Places an order. After [`Placement::Accepted`] it is kept, whatever crashes. Asked again it is
/// [`Placement::Repeat`]: nothing is taken twice.
///
/// Run it in its own task: a caller that stops waiting changes nothing, it only learns less.
pub async fn place(shop: &Shop, order: Arc<Order>) -> Result<Placement> {
    if shop.queue_down.load(Ordering::Relaxed) {
        return Ok(Placement::Unavailable(Effect::None));
    }
    if shop.pushing.is_full() {
        return Err(Error::Overloaded("the queue"));
    }
    let _on_its_way = shop.pushing.begin();
    let claim = Claim::Order(order.clone());
    let started = shop.clock.monotonic();
    fault::at(Moment::BeforeAdmit);
    let admission = shop.gate.admit(&claim).await?;
    if let Admission::Admitted(_) = admission {
        fault::at(Moment::Admitted);
        let now = shop.clock.monotonic();
        metrics::histogram!("sluice_stage_duration_seconds", "stage" => "admit").record(now.saturating_sub(started));
        shop.ways.note([order.id], &[(Stop::Asked, started), (Stop::Admitted, now)]);
    }
    match admission {
        Admission::Admitted(epoch) => Ok(match push(shop, claim, epoch, started).await? {
            Push::Durable => Placement::Accepted(OrderRecord::accepted(Arc::unwrap_or_clone(order))),
            Push::Fenced => Placement::Unavailable(Effect::Unknown),
        }),
        Admission::Repeat(pending) => repeat(shop, &order, pending, started).await,
        Admission::Refused(refusal) => Ok(Placement::Refused(refusal)),
        Admission::Unloaded => without_gate(shop, &order).await,
    }
}

/// Makes an admitted claim durable. What happened before an error is unknown: the claim stays pending at the gate and
/// rolls forward, see [`reconcile::sweep`]. `asked` is when the gate was asked to admit it: the push is late when it ends a
/// push's time after that, so a process that was asleep since then promises nothing, whatever the queue says.
pub(crate) async fn push(shop: &Shop, claim: Claim, epoch: Epoch, asked: Duration) -> Result<Push> {
    let started = shop.clock.monotonic();
    let id = claim.id();
    let pushed = shop.queue.push(Message::claim(claim, epoch)).await;
    shop.queue_answered(&pushed);
    let now = shop.clock.monotonic();
    let took = now.saturating_sub(asked);
    metrics::histogram!("sluice_stage_duration_seconds", "stage" => "push").record(now.saturating_sub(started));
    shop.pushing.took(took);
    let late = shop.queue.push_timeout().is_some_and(|timeout| took >= timeout);
    match pushed {
        Ok(Push::Durable) if late => Err(unknown("its answer came too late")),
        Ok(push) => {
            fault::at(Moment::Confirmed);
            if push == Push::Durable {
                shop.ways.note([id], &[(Stop::Pushed, now)]);
            }
            Ok(push)
        }
        Err(error) => Err(unknown(error)),
    }
}

fn unknown(why: impl ToString) -> Error {
    Error::Unavailable { layer: "queue", why: why.to_string(), effect: Effect::Unknown }
}

/// Answers a retry. A claim that is still pending may never have been pushed, so it is pushed before it is promised; and before
/// another order is told that it has the key, because a gate that was replaced may remember what nobody was promised.
async fn repeat(shop: &Shop, order: &Order, pending: Option<(Claim, Epoch)>, asked: Duration) -> Result<Placement> {
    match pending {
        Some((Claim::Order(first), epoch)) => Ok(match push(shop, Claim::Order(first.clone()), epoch, asked).await? {
            Push::Durable if same_lines(&first.lines, &order.lines) => {
                Placement::Repeat(OrderRecord::accepted(Arc::unwrap_or_clone(first)))
            }
            Push::Durable => Placement::KeyReused,
            Push::Fenced => Placement::Unavailable(Effect::Unknown),
        }),
        Some((Claim::Withdrawal(_), _)) => Ok(Placement::KeyReused),
        None => Ok(settled(shop, order).await?.unwrap_or(Placement::Unavailable(Effect::Unknown))),
    }
}

/// The order as the ledger has it.
async fn settled(shop: &Shop, order: &Order) -> Result<Option<Placement>> {
    let Some(record) = shop.ledger.order(order.id).await? else { return Ok(None) };
    let same = same_lines(&record.order.lines, &order.lines);
    Ok(Some(if same { Placement::Repeat(record) } else { Placement::KeyReused }))
}

/// Answers for a sale that the gate does not know: it is over, or it is being loaded. What was accepted may still be on
/// its way, until a marker closes the last epoch; only then is an order that the ledger does not know too late. A memory
/// that is still there is being loaded, and may carry over what a queue that lost its data cannot bring any more.
async fn without_gate(shop: &Shop, order: &Order) -> Result<Placement> {
    let Some(record) = shop.ledger.sale(&order.sale).await? else { return Ok(Placement::UnknownSale) };
    if record.sale.window.state(shop.clock.now()) != SaleState::Ended {
        return Ok(Placement::Unavailable(Effect::None));
    }
    let over = reconcile::is_over(shop, &record) && shop.gate.view(&order.sale).await?.is_none();
    let otherwise = if over { Placement::Refused(Refusal::Ended) } else { Placement::Unavailable(Effect::None) };
    Ok(settled(shop, order).await?.unwrap_or(otherwise))
}

/// An order as it is now, wherever it is; `None` if nobody knows it. Fails with `effect: none` if it is not found and some
/// sale's gate, which may know it, is being loaded. An id that nobody knows costs two questions to the gate per sale that is
/// not over.
pub async fn find(shop: &Shop, id: OrderId) -> Result<Option<OrderRecord>> {
    if let Some(record) = shop.ledger.order(id).await? {
        return Ok(Some(record));
    }
    let mut loading = false;
    for record in shop.ledger.sales().await? {
        if let Some((Claim::Order(order), _)) = shop.gate.find(&record.sale.id, id).await? {
            return Ok(Some(OrderRecord::accepted(Arc::unwrap_or_clone(order))));
        }
        loading |= !reconcile::is_over(shop, &record) && shop.gate.view(&record.sale.id).await?.is_none();
    }
    // It may have been settled between the two questions.
    match shop.ledger.order(id).await? {
        None if loading => {
            Err(Error::Unavailable { layer: "gate", why: "it is being loaded".into(), effect: Effect::None })
        }
        found => Ok(found),
    }
}

/// Like [`find`], but waits up to this time for the order to be settled.
pub async fn find_settled(shop: &Shop, id: OrderId, time_max: Duration) -> Result<Option<OrderRecord>> {
    let deadline = shop.clock.monotonic() + time_max;
    loop {
        let told = shop.waiting.wait(id);
        let found = find(shop, id).await?;
        let left = deadline.saturating_sub(shop.clock.monotonic());
        let settled = found.as_ref().is_none_or(|record| record.state != OrderState::Accepted);
        if settled || left.is_zero() {
            drop(told);
            shop.waiting.forget(id);
            return Ok(found);
        }
        match select(told, shop.clock.sleep(left.min(POLL))).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }
}

/// Confirms or cancels a hold; an order that is still on its way is waited for.
pub async fn turn(shop: &Shop, id: OrderId, turn: Turn, time_max: Duration) -> Result<Turned> {
    fault::at(Moment::BeforeTurn);
    let turned = match shop.ledger.turn(id, turn).await? {
        Turned::Unknown if find_settled(shop, id, time_max).await?.is_some() => shop.ledger.turn(id, turn).await?,
        turned => turned,
    };
    if let Turned::Done(_, moves) = &turned {
        fault::at(Moment::Turned);
        reconcile::apply(shop, std::slice::from_ref(moves)).await;
    }
    Ok(turned)
}
