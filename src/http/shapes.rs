//! The JSON that leaves the server, as the OpenAPI describes it. Members may be added, none is ever renamed.

use serde::Serialize;
use utoipa::ToSchema;

use crate::gate::GateView;
use crate::ledger::{Adjustment, SaleRecord};
use crate::model::{
    Customer, Item, Line, OrderId, OrderRecord, OrderState, Places, Reason, SaleId, SaleState, Seq, Sku, Time, Units,
};

/// An order as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = Order)]
pub(super) struct OrderJson<'a> {
    /// Unguessable; whoever shows it may read and cancel the order.
    #[schema(value_type = String, example = "ord_00112233445566778899aabbccddeeff")]
    id: OrderId,
    #[schema(value_type = String)]
    sale: &'a SaleId,
    #[schema(value_type = String)]
    customer: &'a Customer,
    lines: Vec<LineJson<'a>>,
    /// `accepted`, then `held`, then `sold`; or `released`; or `refused`.
    #[schema(value_type = String, example = "held")]
    state: OrderState,
    /// Why it was released (`cancelled`, `lapsed`) or refused (`sold_out`, `customer_limit`).
    #[schema(value_type = Option<String>)]
    reason: Option<Reason>,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Time,
    /// When the ledger decided.
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<Time>,
    /// When its hold lapses or lapsed.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

/// Units of one SKU within an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Line)]
pub(super) struct LineJson<'a> {
    #[schema(value_type = String)]
    sku: &'a Sku,
    #[schema(value_type = u32, minimum = 1)]
    quantity: Units,
}

impl<'a> From<&'a Line> for LineJson<'a> {
    fn from(line: &'a Line) -> Self {
        Self { sku: &line.sku, quantity: line.quantity }
    }
}

impl<'a> From<&'a OrderRecord> for OrderJson<'a> {
    fn from(record: &'a OrderRecord) -> Self {
        let OrderRecord { order, state, reason, settled_at, expires_at, .. } = record;
        Self {
            id: order.id,
            sale: &order.sale,
            customer: &order.customer,
            lines: order.lines.iter().map(LineJson::from).collect(),
            state: *state,
            reason: *reason,
            accepted_at: order.accepted_at,
            settled_at: *settled_at,
            expires_at: *expires_at,
        }
    }
}

/// A page of orders.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderList)]
pub(super) struct OrderListJson<'a> {
    /// In the sequence of their settling.
    pub(super) orders: Vec<OrderJson<'a>>,
    /// Where the next page begins; null on the last.
    pub(super) next_cursor: Option<String>,
}

/// A sale as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = Sale)]
pub(super) struct SaleJson<'a> {
    #[schema(value_type = String)]
    id: &'a SaleId,
    name: &'a str,
    /// `draft`, `scheduled`, `open`, `paused` or `ended`.
    #[schema(value_type = String, example = "open")]
    state: SaleState,
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    closes_at: Option<Time>,
    /// Now, on the server's clock: count down by it.
    #[schema(value_type = String, format = DateTime)]
    server_time: Time,
    /// How long an order is held for its customer; 0 sells at once.
    hold_seconds: u32,
    /// Units one customer may hold and own together.
    #[schema(value_type = Option<u32>)]
    per_customer_limit: Option<Units>,
    items: Vec<ItemJson<'a>>,
}

/// An item as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = Item)]
pub(super) struct ItemJson<'a> {
    #[schema(value_type = String)]
    sku: &'a Sku,
    name: &'a str,
    /// Per unit, in the smallest unit of the currency.
    price_cents: u64,
    currency: &'a str,
    #[schema(value_type = u32)]
    stock: Units,
    /// Units that an order may still take.
    #[schema(value_type = u32)]
    available: Units,
    /// `available` or `sold_out`.
    #[schema(value_type = String, example = "available")]
    status: &'static str,
}

impl<'a> SaleJson<'a> {
    /// The sale at this moment; what is available says the gate, if it knows the sale.
    pub(super) fn new(record: &'a SaleRecord, view: Option<&GateView>, now: Time) -> Self {
        let sale = &record.sale;
        let admits = |sku: &Sku| {
            let items = view.filter(|view| view.live).map(|view| &view.items)?;
            items.iter().find(|item| item.sku == *sku).map(|item| item.available)
        };
        let item = |(item, places): (&'a Item, &Places)| {
            let available = admits(&item.sku).unwrap_or(places.available);
            ItemJson {
                sku: &item.sku,
                name: &item.name,
                price_cents: item.price_cents,
                currency: &item.currency,
                stock: places.stock,
                available,
                status: if available > Units::ZERO { "available" } else { "sold_out" },
            }
        };
        Self {
            id: &sale.id,
            name: &sale.name,
            state: sale.window.state(now),
            opens_at: sale.window.opens_at,
            closes_at: sale.window.closes_at,
            server_time: now,
            hold_seconds: sale.hold_seconds,
            per_customer_limit: sale.per_customer_limit,
            items: sale.items.iter().zip(&record.places).map(item).collect(),
        }
    }
}

/// All sales, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = SaleList)]
pub(super) struct SaleListJson<'a> {
    pub(super) sales: Vec<SaleJson<'a>>,
}

/// An adjustment of an item's stock.
#[derive(Serialize, ToSchema)]
#[schema(as = Adjustment)]
pub(super) struct AdjustmentJson<'a> {
    id: String,
    #[schema(value_type = String)]
    sale: &'a SaleId,
    #[schema(value_type = String)]
    sku: &'a Sku,
    /// Units added, or withdrawn if negative.
    delta: i64,
    reason: &'a str,
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// The journal's number of its move.
    #[schema(value_type = u64)]
    seq: Seq,
    /// The stock after it.
    #[schema(value_type = u32)]
    stock: Units,
}

impl<'a> From<&'a Adjustment> for AdjustmentJson<'a> {
    fn from(adjustment: &'a Adjustment) -> Self {
        let Adjustment { id, sale, sku, delta, reason, at, seq, stock } = adjustment;
        let id = id.to_string().replacen("ord_", "adj_", 1);
        Self { id, sale, sku, delta: *delta, reason, at: *at, seq: *seq, stock: *stock }
    }
}

/// Whether the server can take a correct decision.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessJson {
    pub(super) ready: bool,
    /// What it still lacks, in words.
    pub(super) missing: Vec<String>,
}
