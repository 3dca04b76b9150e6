//! Recounts a sale and compares all layers.

use serde::Serialize;
use utoipa::ToSchema;

use crate::gate::{GateItem, GateView};
use crate::ledger::journal::{Finding, Invariant};
use crate::model::{Error, Item, Places, Result, SaleId, SaleRecord, Seq, Sku, Units, limits};
use crate::shop::Shop;

/// Where the units of a sale are, all layers at one watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stock {
    /// Which.
    #[schema(value_type = String)]
    pub sale: SaleId,
    /// The journal's number at which all layers were read.
    #[schema(value_type = u64)]
    pub watermark: Seq,
    /// Whether every layer's arithmetic holds.
    pub conserved: bool,
    /// Units admitted by the gate that the ledger has not settled yet.
    pub in_flight: u64,
    /// Per SKU, in the sale's sequence.
    pub items: Vec<StockItem>,
}

/// Where the units of an item are: `stock = available + held + sold + in_flight`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StockItem {
    /// Which.
    #[schema(value_type = String)]
    pub sku: Sku,
    /// Units put into the sale and not withdrawn.
    #[schema(value_type = u32)]
    pub stock: Units,
    /// Units that nobody has, not even a claim on its way.
    #[schema(value_type = u32)]
    pub available: Units,
    /// Units set aside for somebody, for a time.
    #[schema(value_type = u32)]
    pub held: Units,
    /// Units that are somebody's.
    #[schema(value_type = u32)]
    pub sold: Units,
    /// Units admitted by the gate that the ledger has not settled yet.
    #[schema(value_type = u32)]
    pub in_flight: Units,
    /// What the gate says; `None` while it is not loaded.
    pub gate: Option<GateStock>,
}

/// What the gate says of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct GateStock {
    /// Units it would admit.
    #[schema(value_type = u32)]
    pub available: Units,
}

/// What an audit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything adds up and nothing is on its way.
    Exact,
    /// Something does not add up.
    Violation,
    /// Everything adds up so far; claims are still on their way.
    Unsettled,
}

/// A recount of one sale, all layers compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Audit {
    /// The verdict.
    pub verdict: Verdict,
    /// Units held and sold beyond the stock.
    pub oversold: u64,
    /// Units that the ledger could sell and the gate would refuse.
    pub undersold: u64,
    /// Units that the gate would admit, or has admitted, and the ledger does not have.
    pub leaked: u64,
    /// Orders that were accepted and are nowhere.
    pub lost: u64,
    /// Orders that took units twice.
    pub doubled: u64,
    /// Orders that were accepted and then refused.
    pub broken_promises: u64,
    /// Units and moves that do not add up.
    pub conservation_errors: u64,
    /// Where the units are.
    pub stock: Stock,
    /// Orders per state.
    pub orders: std::collections::BTreeMap<String, u64>,
    /// Everything that does not add up, with the order or SKU concerned.
    pub findings: Vec<Finding>,
}

/// Where a sale's units are now, all layers at one watermark; `None` for an unknown sale.
pub async fn stock(shop: &Shop, sale: &SaleId) -> Result<Option<Stock>> {
    Ok(survey(shop, sale).await?.map(|(_, stock)| stock))
}

/// The same with the sale as the ledger had it, at this watermark or a later one.
pub async fn survey(shop: &Shop, sale: &SaleId) -> Result<Option<(SaleRecord, Stock)>> {
    let (view, record) = both(shop, sale).await?;
    let Some(record) = record else { return Ok(None) };
    let stock = count(shop, &record, view.as_ref()).await?;
    Ok(Some((record, stock)))
}

/// The gate follows committed moves only, so what is read from the ledger afterwards is never behind it.
async fn both(shop: &Shop, sale: &SaleId) -> Result<(Option<GateView>, Option<SaleRecord>)> {
    Ok((shop.gate.view(sale).await?, shop.ledger.sale(sale).await?))
}

async fn count(shop: &Shop, record: &SaleRecord, view: Option<&GateView>) -> Result<Stock> {
    match view.filter(|view| is_comparable(view, record)) {
        Some(view) => with_gate(shop, record, view).await,
        None => Ok(without_gate(record)),
    }
}

/// Whether the gate's memory is of the life that the ledger knows; while it is loaded anew, it is not.
fn is_comparable(view: &GateView, record: &SaleRecord) -> bool {
    view.epoch == record.epoch.epoch && view.watermark <= record.watermark
}

/// Whether claims are on their way, as far as can be told. A gate that does not count knows those that it has pending, and
/// the queue those of a gate that forgot.
async fn is_unsettled(shop: &Shop, record: &SaleRecord, view: Option<&GateView>) -> Result<bool> {
    let pending = view.is_some_and(|view| view.pending > 0);
    let counted = view.is_some_and(|view| is_comparable(view, record));
    Ok(pending || (!counted && shop.queue.depth().await?.waiting > 0))
}

async fn with_gate(shop: &Shop, record: &SaleRecord, view: &GateView) -> Result<Stock> {
    let places = rewind(shop, record, view.watermark).await?;
    let items: Vec<StockItem> = places.iter().zip(&view.items).map(|(at, gate)| item(*at, gate)).collect();
    let agree = |(at, gate): (&Places, &GateItem)| {
        u64::from(gate.available.get()) + u64::from(gate.pending.get()) == u64::from(at.available.get())
    };
    Ok(Stock {
        sale: record.sale.id.clone(),
        watermark: view.watermark,
        conserved: places.iter().all(Places::conserved) && places.iter().zip(&view.items).all(agree),
        in_flight: items.iter().map(|item| u64::from(item.in_flight.get())).sum(),
        items,
    })
}

fn item(at: Places, gate: &GateItem) -> StockItem {
    StockItem {
        sku: gate.sku.clone(),
        stock: at.stock,
        available: at.available.minus(gate.pending).unwrap_or_default(),
        held: at.held,
        sold: at.sold,
        in_flight: gate.pending,
        gate: Some(GateStock { available: gate.available }),
    }
}

/// While the gate is not loaded, the ledger alone is counted.
fn without_gate(record: &SaleRecord) -> Stock {
    let item = |(item, at): (&Item, &Places)| StockItem {
        sku: item.sku.clone(),
        stock: at.stock,
        available: at.available,
        held: at.held,
        sold: at.sold,
        in_flight: Units::ZERO,
        gate: None,
    };
    Stock {
        sale: record.sale.id.clone(),
        watermark: record.watermark,
        conserved: record.places.iter().all(Places::conserved),
        in_flight: 0,
        items: record.sale.items.iter().zip(&record.places).map(item).collect(),
    }
}

/// Where the ledger's units were at an earlier watermark: the moves since then are taken back.
async fn rewind(shop: &Shop, record: &SaleRecord, to: Seq) -> Result<Vec<Places>> {
    let mut places = record.places.clone();
    let mut at = to;
    while at < record.watermark {
        let page = shop.ledger.journal(&record.sale.id, at, limits::JOURNAL_PAGE_MOVES_MAX).await?;
        let Some(last) = page.last().map(|step| step.seq) else { break };
        for step in page.iter().filter(|step| step.seq <= record.watermark) {
            for line in &step.lines {
                let Some(index) = record.sale.items.iter().position(|item| item.sku == line.sku) else { continue };
                places[index] = step.kind.undo(places[index], line.quantity).ok_or_else(|| {
                    Error::Damaged("ledger", format!("move #{} of {} cannot be taken back", step.seq, line.sku))
                })?;
            }
        }
        at = last;
    }
    Ok(places)
}

/// Recounts a sale; `None` for an unknown sale.
pub async fn audit(shop: &Shop, sale: &SaleId) -> Result<Option<Audit>> {
    let Some(recount) = shop.ledger.recount(sale).await? else { return Ok(None) };
    let (view, record) = both(shop, sale).await?;
    let Some(record) = record else { return Ok(None) };
    let stock = count(shop, &record, view.as_ref()).await?;
    let unsettled = is_unsettled(shop, &record, view.as_ref()).await?;
    let mut findings = recount.findings;
    let drifted = drift(&stock);
    findings.extend(drifted.iter().map(|drift| drift.finding.clone()));
    let count = |invariant| findings.iter().filter(|finding| finding.invariant == invariant).count() as u64;
    Ok(Some(Audit {
        verdict: match () {
            () if !findings.is_empty() => Verdict::Violation,
            () if unsettled => Verdict::Unsettled,
            () => Verdict::Exact,
        },
        oversold: over(&record).max(count(Invariant::Oversold)),
        undersold: drifted.iter().map(|drift| drift.undersold).sum(),
        leaked: drifted.iter().map(|drift| drift.leaked).sum(),
        lost: count(Invariant::Lost),
        doubled: count(Invariant::Doubled),
        broken_promises: count(Invariant::BrokenPromise),
        conservation_errors: count(Invariant::Conservation)
            + count(Invariant::Transition)
            + count(Invariant::CustomerLimit),
        orders: recount.orders.iter().map(|(state, orders)| (state.word().to_owned(), *orders)).collect(),
        stock,
        findings,
    }))
}

fn over(record: &SaleRecord) -> u64 {
    let more = |at: &Places| {
        let taken = u64::from(at.held.get()) + u64::from(at.sold.get());
        taken.saturating_sub(at.stock.get().into())
    };
    record.places.iter().map(more).sum()
}

/// A difference between gate and ledger at one watermark.
struct Drift {
    undersold: u64,
    leaked: u64,
    finding: Finding,
}

fn drift(stock: &Stock) -> Vec<Drift> {
    stock.items.iter().filter_map(item_drift).collect()
}

fn item_drift(item: &StockItem) -> Option<Drift> {
    let count = |units: Units| u64::from(units.get());
    let gate = count(item.gate?.available) + count(item.in_flight);
    let ledger = count(item.stock).saturating_sub(count(item.held) + count(item.sold));
    let (undersold, leaked) = (ledger.saturating_sub(gate), gate.saturating_sub(ledger));
    let (invariant, detail) = match (undersold, leaked) {
        (0, 0) => return None,
        (0, _) => (Invariant::Leaked, format!("the gate would admit {leaked} units that the ledger does not have")),
        _ => (Invariant::Undersold, format!("the gate would refuse {undersold} units that nobody has")),
    };
    Some(Drift { undersold, leaked, finding: Finding { invariant, subject: item.sku.to_string(), detail } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gate_set_aside_and_the_ledger_does_not_have_has_leaked() {
        let units = |count| Units::new(count).expect("few units");
        let of = |available, in_flight| StockItem {
            sku: Sku::new("a").expect("a good name"),
            stock: units(10),
            available: Units::ZERO,
            held: units(5),
            sold: Units::ZERO,
            in_flight: units(in_flight),
            gate: Some(GateStock { available: units(available) }),
        };
        assert!(item_drift(&of(0, 5)).is_none());
        assert!(item_drift(&of(2, 3)).is_none());
        for (available, in_flight, undersold, leaked) in [(0, 7, 0, 2), (3, 5, 0, 3), (0, 1, 4, 0)] {
            let drift = item_drift(&of(available, in_flight)).expect("it differs");
            assert_eq!((drift.undersold, drift.leaked), (undersold, leaked));
        }
    }
}
