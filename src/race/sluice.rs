//! Sluice's own lanes: the same crowd, over the same number of lines, at an embedded deployment of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::{LINES, Round, Setting, arrivals};
use crate::audit::{self, Verdict};
use crate::checkout::{self, Placement};
use crate::clock::Clock;
use crate::config::Role;
use crate::deployment::{self, Deployment};
use crate::ledger::Creation;
use crate::model::{Customer, Item, Line, Order, Phase, Sale, SaleId, Sku, Units, Window};
use crate::reconcile;

/// How long a killed worker is gone.
const GONE_TIME: Duration = Duration::from_millis(100);
/// How soon, and how long, a customer comes again who was told "not now".
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const RETRY_TIME_MAX: Duration = Duration::from_secs(10);
/// How long everything may take to be settled in the end.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(20);

pub(super) async fn run(
    setting: Setting,
    seed: u32,
    killed: bool,
    data: &Path,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Round> {
    let deployment = Arc::new(deployment::embedded(data, clock.clone()).await?);
    let mut worker = Worker(begin(&deployment));
    let sale = sale()?;
    let created = deployment.shop.ledger.create(&sale, &[Units::new(setting.units)?]).await?;
    let Creation::Created(_) = created else { bail!("the lane's sale was there before") };
    reconcile::ensure_loaded(&deployment.shop, &sale.id).await?;
    let crowd = Arc::new(Crowd { arrivals: arrivals(setting, seed), next: AtomicUsize::new(0), sale });
    let start = clock.monotonic();
    let lines = (0..LINES).map(|_| tokio::spawn(crowd.clone().line(deployment.clone())));
    let lines = tokio::spawn(join_all(lines));
    if killed {
        while crowd.next.load(Ordering::Relaxed) * 2 < (setting.units.min(setting.customers) as usize) {
            tokio::task::yield_now().await;
        }
        worker.end().await;
        clock.sleep(GONE_TIME).await;
        worker = Worker(begin(&deployment));
    }
    let mut told = Vec::new();
    for line in lines.await? {
        told.extend(line??);
    }
    let audit = settled(&deployment, &crowd.sale.id).await?;
    let time = clock.monotonic().saturating_sub(start);
    worker.end().await;
    let sold = audit.stock.items.iter().map(|item| item.held.get() + item.sold.get()).sum();
    let accepted = u32::try_from(told.iter().filter(|(accepted, _)| *accepted).count())?;
    let waits = told.into_iter().map(|(_, wait)| wait).collect();
    let lost = accepted.saturating_sub(sold).max(u32::try_from(audit.lost + audit.broken_promises)?);
    let wanted = setting.units.min(setting.customers);
    if audit.verdict != Verdict::Exact && sold == wanted && lost == 0 {
        // Its numbers would call it right.
        bail!("Sluice's own lane came out {:?}: {:?}", audit.verdict, audit.findings);
    }
    Ok(Round { sold, lost, time, waits, wrong: None })
}

/// Ends with its lane.
struct Worker(JoinHandle<()>);

impl Worker {
    /// Drops its work wherever it is, and waits until it is gone.
    async fn end(mut self) {
        self.0.abort();
        let _aborted = (&mut self.0).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn begin(deployment: &Arc<Deployment>) -> JoinHandle<()> {
    let deployment = deployment.clone();
    tokio::spawn(async move { deployment.run(Role::All).await })
}

struct Crowd {
    arrivals: Vec<u32>,
    next: AtomicUsize,
    sale: Sale,
}

impl Crowd {
    /// Serves one customer after the other: whether each was accepted, and how long it took.
    async fn line(self: Arc<Self>, deployment: Arc<Deployment>) -> anyhow::Result<Vec<(bool, Duration)>> {
        let shop = &deployment.shop;
        let mut told = Vec::new();
        while let Some(customer) = self.arrivals.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let began = shop.clock.monotonic();
            let name = format!("c-{customer}");
            let order = Order {
                id: shop.mint.id("order", &self.sale.id, &name, "race"),
                sale: self.sale.id.clone(),
                customer: Customer::new(&name)?,
                lines: vec![Line { sku: self.sale.items[0].sku.clone(), quantity: Units::new(1)? }],
                accepted_at: shop.clock.now(),
            };
            let order = Arc::new(order);
            // "Not now" is no answer: as any client, this one comes again under the same key.
            let placed = loop {
                match checkout::place(shop, order.clone()).await? {
                    Placement::Unavailable(_) if shop.clock.monotonic() < began + RETRY_TIME_MAX => {
                        shop.clock.sleep(RETRY_PAUSE).await;
                    }
                    placed => break placed,
                }
            };
            let accepted = matches!(placed, Placement::Accepted(_) | Placement::Repeat(_));
            told.push((accepted, shop.clock.monotonic().saturating_sub(began)));
        }
        Ok(told)
    }
}

fn sale() -> anyhow::Result<Sale> {
    let item = Item { sku: Sku::new("unit")?, name: "Unit".into(), price_cents: 100, currency: "EUR".into() };
    Ok(Sale {
        id: SaleId::new("race")?,
        name: "Race".into(),
        window: Window { phase: Phase::Armed, opens_at: None, closes_at: None },
        hold_seconds: 0,
        per_customer_limit: None,
        items: vec![item],
    })
}

/// The audit once nothing is on its way any more, or after a while; whatever it found, the lane shows it.
async fn settled(deployment: &Deployment, sale: &SaleId) -> anyhow::Result<audit::Audit> {
    let shop = &deployment.shop;
    let deadline = shop.clock.monotonic() + SETTLE_TIME_MAX;
    loop {
        let audit = audit::audit(shop, sale).await?.context("the lane's sale is gone")?;
        match audit.verdict {
            Verdict::Unsettled if shop.clock.monotonic() < deadline => shop.clock.sleep(Duration::from_millis(2)).await,
            Verdict::Exact | Verdict::Unsettled | Verdict::Violation => return Ok(audit),
        }
    }
}
