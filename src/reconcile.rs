//! The gate follows the ledger: it hears every move of the journal, its forgotten claims are swept up, its lost memory is
//! loaded again, and holds lapse. The steps and why they are enough: ARCHITECTURE.md, "Pending, marker, fence".

mod watch;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, join, select};
use futures_util::stream::{self, StreamExt};

pub use self::watch::Watch;
use self::watch::{Mending, Seen, complain};
use crate::fault::{self, Moment};
use crate::gate::GateView;
use crate::ledger::{EpochStage, EpochState, EpochStep, SaleMoves, SaleRecord};
use crate::model::{Claim, Effect, Epoch, Error, OrderId, Result, SaleId, SaleState, limits};
use crate::queue::{Body, Message, Push};
use crate::shop::Shop;

/// How often the gate is compared with the ledger.
const TICK: Duration = Duration::from_millis(250);
/// How often due holds are looked for at least.
const LAPSE_TICK: Duration = Duration::from_millis(50);
/// How soon a marker is looked for; then less and less often.
const MARKER_POLL: Duration = Duration::from_millis(2);
/// How often a loader shows that it is alive, and how long it is waited for after it has stopped.
const LOADER_BEAT: Duration = Duration::from_millis(200);
const LOADER_PATIENCE: Duration = Duration::from_secs(1);
/// How often a marker is looked for at least.
const MARKER_POLL_MAX: Duration = Duration::from_millis(50);
/// How often a marker is pushed again: a queue may drop one that it delivers a second time.
const MARKER_AGAIN: Duration = Duration::from_secs(1);
/// After this time a marker is given up; the next tick sends another.
const MARKER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long somebody may wait for a gate to be loaded.
const LOAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a claim may be pending in a busy sale before it is swept up.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Sales mended at the same time; the others wait for the next look.
const MENDED_SALES_MAX: usize = 64;

/// Keeps the gate true until the future is dropped.
pub async fn run(shop: &Shop) {
    let follow = async {
        let (mut watch, mut mending) = (Watch::default(), Mending::default());
        loop {
            match mending.meanwhile(look(shop, &mut watch)).await {
                // Without a sale to sweep, nobody else asks a failed queue; retries of what is over wait for it.
                Ok(found) if found.is_empty() => mending.meanwhile(ask_failed_queue_once(shop)).await,
                Ok(found) => {
                    for found in found {
                        mending.begin(&found.record.sale.id.clone(), mend(shop, found));
                    }
                }
                Err(error) => complain(&error),
            }
            mending.meanwhile(shop.clock.sleep(TICK)).await;
        }
    };
    let lapse = async {
        loop {
            let wait = lapse_once(shop).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "could not give back due holds");
                LAPSE_TICK
            });
            if !wait.is_zero() {
                shop.clock.sleep(wait).await;
            }
        }
    };
    join(follow, lapse).await;
}

/// Asks a queue that failed by a marker that nobody waits for, again and again until it takes one: what a process does that
/// places orders and does not settle them. Runs until the future is dropped.
pub async fn ask_failed_queue(shop: &Shop) {
    loop {
        shop.clock.sleep(TICK).await;
        ask_failed_queue_once(shop).await;
    }
}

/// Asks once, if the queue has failed.
pub async fn ask_failed_queue_once(shop: &Shop) {
    if !shop.queue_down.load(Ordering::Relaxed) {
        return;
    }
    // Whoever pushed a claim knows its sale.
    let Some(sale) = shop.known_sale() else { return };
    let pushed = shop.queue.push(Message { sale, epoch: Epoch(0), body: Body::Sweep(0) }).await;
    shop.queue_answered(&pushed);
}

/// Compares every live sale once, and waits until each is mended: loads what is not loaded, catches up, sweeps. For tests;
/// the program calls [`run`].
pub async fn tick(shop: &Shop, watch: &mut Watch) -> Result<()> {
    let work = look(shop, watch).await?.into_iter().map(|found| mend(shop, found));
    let results: Vec<Result<()>> = stream::iter(work).buffer_unordered(MENDED_SALES_MAX).collect().await;
    results.into_iter().collect()
}

/// A live sale, as its layers are now, and as they were.
struct Found {
    record: SaleRecord,
    view: Option<GateView>,
    before: Seen,
    now: Duration,
}

async fn look(shop: &Shop, watch: &mut Watch) -> Result<Vec<Found>> {
    let records = shop.ledger.sales().await?;
    let now = shop.clock.monotonic();
    let mut found = Vec::new();
    for record in records {
        let view = match shop.gate.view(&record.sale.id).await {
            Ok(view) => view,
            // Where each sale is on another server, one that is away keeps no other sale from being mended.
            Err(error) => {
                complain(&error);
                continue;
            }
        };
        if is_over(shop, &record) && view.is_none() {
            continue;
        }
        let before = watch.see(&record, now);
        found.push(Found { record, view, before, now });
    }
    Ok(found)
}

async fn mend(shop: &Shop, Found { record, view, before: seen, now }: Found) -> Result<()> {
    let sale = &record.sale.id;
    let Some(view) = view.filter(|view| view.live && view.epoch >= record.epoch.epoch) else {
        // Somebody else may be loading it, who shows it, or is dead. In one process there is nobody else.
        let patience = shop.queue.push_timeout().map_or(Duration::ZERO, |_| LOADER_PATIENCE);
        let busy = record.epoch.stage != EpochStage::Live && now.saturating_sub(seen.moved_at) < patience;
        return if busy { Ok(()) } else { reload(shop, sale).await.map(drop) };
    };
    if view.watermark < record.watermark {
        catch_up(shop, sale).await?;
    }
    let stuck = seen.is_stuck(&record, now) || now.saturating_sub(seen.swept_at) >= SWEEP_EVERY;
    // A queue that failed is asked again by a marker, whether or not claims are pending.
    if (view.pending > 0 && stuck) || shop.queue_down.load(Ordering::Relaxed) {
        sweep(shop, sale).await?;
    }
    Ok(())
}

/// Tells the gate what was just written into the journal, and everybody who waits for it. What the gate misses here,
/// [`catch_up`] brings.
pub async fn apply(shop: &Shop, written: &[SaleMoves]) {
    for SaleMoves { sale, epoch, moves } in written {
        let Some(last) = moves.last() else { continue };
        let result = match shop.gate.follow(sale, *epoch, moves).await {
            Ok(Some(applied)) if applied < last.seq => catch_up(shop, sale).await,
            followed => followed.map(drop),
        };
        fault::at(Moment::Followed);
        if let Err(error) = result {
            tracing::warn!(%error, %sale, "the gate did not follow, it will catch up");
        }
        shop.waiting.tell(moves.iter().filter_map(|step| step.claim));
    }
}

/// Brings the gate to the end of the journal.
pub async fn catch_up(shop: &Shop, sale: &SaleId) -> Result<()> {
    while let Some(view) = shop.gate.view(sale).await? {
        let moves = shop.ledger.journal(sale, view.watermark, limits::JOURNAL_PAGE_MOVES_MAX).await?;
        let Some(last) = moves.last().map(|step| step.seq) else { break };
        match shop.gate.follow(sale, view.epoch, &moves).await? {
            Some(applied) if applied >= last => {}
            // Another follower is at it, or the gate was loaded anew.
            _ => break,
        }
    }
    Ok(())
}

/// Gives back due holds once; answers how long to wait before looking again.
pub async fn lapse_once(shop: &Shop) -> Result<Duration> {
    let lapses = shop.ledger.lapse(limits::LAPSE_BATCH_ORDERS_MAX).await?;
    if !lapses.moves.is_empty() {
        fault::at(Moment::Lapsed);
    }
    apply(shop, &lapses.moves).await;
    for lag_ms in &lapses.lags_ms {
        metrics::histogram!("sluice_hold_release_lag_seconds").record(Duration::from_millis(*lag_ms));
    }
    let until_due = lapses.next_due.map_or(LAPSE_TICK, |due| due.since(shop.clock.now()));
    Ok(until_due.min(LAPSE_TICK))
}

/// Pushes again what was pending at the gate before a marker, and is still pending once the marker is settled: it was
/// never pushed, or the queue lost it. Pushing twice does nothing, so no timeout decides anything. A queue that has also
/// lost the binding of the living epoch takes none of it: then the gate is loaded anew, and carries it over.
pub async fn sweep(shop: &Shop, sale: &SaleId) -> Result<()> {
    let Some(view) = shop.gate.view(sale).await?.filter(|view| view.live) else { return Ok(()) };
    let before = shop.gate.pending(sale).await?;
    let Some(record) = shop.ledger.sale(sale).await? else { return Ok(()) };
    // Two sweeps that take the same number only push some claims too early.
    let number = record.swept.unwrap_or(0) + 1;
    let marker = Message { sale: sale.clone(), epoch: view.epoch, body: Body::Sweep(number) };
    let deadline = shop.clock.monotonic() + MARKER_TIME_MAX;
    if !marked(shop, marker, deadline, |record| record.swept >= Some(number)).await? {
        return Ok(());
    }
    fault::at(Moment::Swept);
    catch_up(shop, sale).await?;
    let now: HashMap<OrderId, Epoch> =
        shop.gate.pending(sale).await?.into_iter().map(|(claim, epoch)| (claim.id(), epoch)).collect();
    let left = before.into_iter().filter(|(claim, epoch)| now.get(&claim.id()) == Some(epoch));
    // Together, so that they share the queue's batches: there may be as many as were waiting in a broker that lost its data.
    let mut pushes =
        stream::iter(left.map(|(claim, epoch)| push_again(shop, claim, epoch))).buffered(limits::PUSH_BATCH_CLAIMS_MAX);
    let mut again = 0_u64;
    while let Some((pushed, epoch)) = pushes.next().await {
        match pushed? {
            Push::Durable => again += 1,
            Push::Fenced => return rebind(shop, sale, epoch).await,
        }
    }
    if again > 0 {
        tracing::info!(%sale, claims = again, "pushed claims again that had not reached the ledger");
    }
    Ok(())
}

async fn push_again(shop: &Shop, claim: Claim, epoch: Epoch) -> (Result<Push>, Epoch) {
    let pushed = shop.queue.push(Message::claim(claim, epoch)).await;
    shop.queue_answered(&pushed);
    (pushed, epoch)
}

/// Loads the gate anew if its epoch, which the queue has just refused, is the living one: a fence is always raised in the
/// ledger first, so this is none, and the queue has lost the binding.
async fn rebind(shop: &Shop, sale: &SaleId, epoch: Epoch) -> Result<()> {
    let Some(record) = shop.ledger.sale(sale).await? else { return Ok(()) };
    if is_at(record.epoch, epoch, EpochStage::Live) {
        tracing::error!(%sale, %epoch, "the queue has lost its bindings, and perhaps claims: loading the gate anew");
        reload(shop, sale).await?;
    }
    Ok(())
}

/// Pushes a marker, again now and then in case the queue lost it, until the ledger shows that it was settled; false if it
/// was overtaken or takes too long.
async fn marked(
    shop: &Shop,
    marker: Message,
    deadline: Duration,
    settled: impl Fn(&SaleRecord) -> bool,
) -> Result<bool> {
    let started = shop.clock.monotonic();
    let (mut pushes, mut wait) = (0, MARKER_POLL);
    while let Some(record) = shop.ledger.sale(&marker.sale).await? {
        if settled(&record) {
            return Ok(true);
        }
        let now = shop.clock.monotonic();
        let overtaken = record.epoch.epoch > marker.epoch;
        if overtaken || now >= deadline {
            break;
        }
        if now.saturating_sub(started) >= MARKER_AGAIN * pushes {
            let pushed = shop.queue.push(marker.clone()).await;
            shop.queue_answered(&pushed);
            pushed?;
            pushes += 1;
        }
        shop.clock.sleep(wait).await;
        wait = (wait * 3 / 2).min(MARKER_POLL_MAX);
    }
    Ok(false)
}

/// Loads the gate, overtaking whoever else loads it, until it admits claims for this sale, which must exist. Fails with
/// `effect: unknown` after [`LOAD_TIME_MAX`], as when nobody settles.
pub async fn ensure_loaded(shop: &Shop, sale: &SaleId) -> Result<()> {
    let deadline = shop.clock.monotonic() + LOAD_TIME_MAX;
    let loaded = async || Ok(shop.gate.view(sale).await?.is_some_and(|view| view.live));
    while !loaded().await? && !reload_until(shop, sale, deadline).await? {
        if shop.clock.monotonic() >= deadline {
            return Err(Error::Unavailable { layer: "gate", why: "nobody settles".into(), effect: Effect::Unknown });
        }
        shop.clock.sleep(MARKER_POLL).await;
    }
    Ok(())
}

/// Loads a gate that has no valid memory of the sale, under a new epoch; false if another loader overtook this one.
/// It may die between any two steps; the next one starts over with a higher epoch.
pub async fn reload(shop: &Shop, sale: &SaleId) -> Result<bool> {
    reload_until(shop, sale, shop.clock.monotonic() + MARKER_TIME_MAX).await
}

async fn reload_until(shop: &Shop, sale: &SaleId, deadline: Duration) -> Result<bool> {
    // A queue that does not answer cannot be fenced. Raised all the same, the epoch would look like another loader at work,
    // and everybody would wait for that one.
    shop.queue.depth().await?;
    // 1. Raise the epoch: every earlier one is going to be over.
    let Some(EpochState { epoch, .. }) = shop.ledger.step_epoch(sale, EpochStep::Raise).await? else {
        return Ok(false);
    };
    fault::at(Moment::Raised);
    let (loading, overtaken) = (pin!(load(shop, sale, epoch, deadline)), pin!(beat(shop, sale, epoch)));
    match select(loading, overtaken).await {
        Either::Left((loaded, _)) => loaded,
        Either::Right(((), _)) => Ok(false),
    }
}

/// Shows that this loader is alive, until another one has overtaken it.
async fn beat(shop: &Shop, sale: &SaleId, epoch: Epoch) {
    loop {
        shop.clock.sleep(LOADER_BEAT).await;
        let state = shop.ledger.step_epoch(sale, EpochStep::Beat(epoch)).await;
        if state.is_ok_and(|state| state.is_some_and(|state| state.epoch > epoch)) {
            return;
        }
    }
}

/// The steps of a load, after the first.
async fn load(shop: &Shop, sale: &SaleId, epoch: Epoch, deadline: Duration) -> Result<bool> {
    // 2. Fence: no push of an earlier epoch gets into the queue from here on.
    shop.queue.fence(sale, epoch).await?;
    fault::at(Moment::Fenced);
    // 3. A push that passed the fence just before is too late now to be promised. Before the first epoch there was none.
    if let Some(timeout) = shop.queue.push_timeout().filter(|_| epoch > Epoch::FIRST) {
        shop.clock.sleep(timeout).await;
    }
    fault::at(Moment::Waited);
    // 4. Marker: once it is settled, so is all that passed the fence, and the epochs before are closed.
    let marker = Message { sale: sale.clone(), epoch, body: Body::Close };
    let closed = |record: &SaleRecord| is_at(record.epoch, epoch, EpochStage::Closed);
    if !marked(shop, marker, deadline, closed).await? {
        return Ok(false);
    }
    fault::at(Moment::Closed);
    // 5. Load what the ledger knows; the gate stays closed.
    let Some(snapshot) = shop.ledger.snapshot(sale).await? else { return Ok(false) };
    if has_ended(shop, &snapshot.record) && shop.gate.view(sale).await?.is_none() {
        // Nobody needs the gate any more, now that the last epoch is closed.
        return Ok(true);
    }
    if !shop.gate.load(&snapshot, epoch).await? {
        return Ok(false);
    }
    fault::at(Moment::Loaded);
    // 6. Let the new epoch into the queue.
    shop.queue.bind(sale, epoch, true).await?;
    fault::at(Moment::Bound);
    // 7. Live, if nobody overtook us.
    let state = shop.ledger.step_epoch(sale, EpochStep::Live(epoch)).await?;
    if !state.is_some_and(|state| is_at(state, epoch, EpochStage::Live)) {
        shop.queue.bind(sale, epoch, false).await?;
        return Ok(false);
    }
    fault::at(Moment::Live);
    // 8. Open.
    let open = shop.gate.open(sale, epoch).await?;
    fault::at(Moment::Opened);
    catch_up(shop, sale).await?;
    tracing::info!(%sale, %epoch, open, "loaded the gate");
    Ok(open)
}

/// Whether the sale has ended and its last epoch is closed: nothing of it is on its way any more.
pub fn is_over(shop: &Shop, record: &SaleRecord) -> bool {
    has_ended(shop, record) && record.epoch.stage == EpochStage::Closed
}

fn has_ended(shop: &Shop, record: &SaleRecord) -> bool {
    record.sale.window.state(shop.clock.now()) == SaleState::Ended
}

fn is_at(state: EpochState, epoch: Epoch, stage: EpochStage) -> bool {
    state.epoch == epoch && state.stage == stage
}
