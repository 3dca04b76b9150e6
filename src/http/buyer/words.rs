//! What the buyer's page says, filled into the templates of ui/buyer. Everything that comes from outside is escaped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use axum::http::StatusCode;

use crate::gate::{GateView, Refusal};
use crate::ledger::SaleRecord;
use crate::model::{Item, OrderRecord, OrderState, Places, Reason, Sale, SaleState, Time, Units, limits};

const SHELL: &str = include_str!("../../../ui/buyer/shell.html");
const SALE: &str = include_str!("../../../ui/buyer/sale.html");
const ITEM: &str = include_str!("../../../ui/buyer/item.html");
const ORDER: &str = include_str!("../../../ui/buyer/order.html");
const CANCEL: &str = include_str!("../../../ui/buyer/cancel.html");
/// A page that waits for something asks again by itself, also without JavaScript.
const ASK_AGAIN: &str = r#"<noscript><meta http-equiv="refresh" content="2"></noscript>"#;

/// What a buyer filled in, or will.
pub(super) struct Wish {
    pub(super) key: String,
    pub(super) customer: String,
    pub(super) sku: String,
    pub(super) quantity: String,
}

/// What came of the form just sent, if it is no order.
pub(super) enum Notice {
    Refused(Refusal),
    /// There is an order under this key, for something else.
    OrderedOtherwise,
    NotNow,
    /// What is wrong with the form, in words.
    Wrong(String),
}

/// The status under which a refusal is shown.
pub(super) fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Ended => StatusCode::GONE,
        Refusal::SoldOut { .. } | Refusal::LimitReached { .. } | Refusal::NotOpen { .. } | Refusal::Paused => {
            StatusCode::CONFLICT
        }
    }
}

/// The page of a sale.
pub(super) fn sale(
    record: &SaleRecord,
    view: Option<&GateView>,
    now: Time,
    notice: Option<&Notice>,
    wish: &Wish,
) -> String {
    let sale = &record.sale;
    let state = sale.window.state(now);
    let seats: Vec<Seat<'_>> = Seat::all(record, view);
    let left = seats.iter().any(|seat| seat.available > Units::ZERO);
    let (verb, can_buy) = match state {
        SaleState::Open if left => ("Buy", true),
        // A unit may come back between this page and the click.
        SaleState::Open => ("Try again", true),
        SaleState::Scheduled => ("Opens soon", false),
        SaleState::Draft => ("Not open yet", false),
        SaleState::Paused => ("Paused", false),
        SaleState::Ended => ("Over", false),
    };
    let most = sale.per_customer_limit.map_or(10, Units::get).min(limits::LINE_UNITS_MAX);
    let items: String = seats.iter().map(|seat| seat.html(&seats, sale, now, wish)).collect();
    let body = fill(
        SALE,
        &[
            ("name", text(&sale.name)),
            ("state", state_word(state).into()),
            ("now", now.to_string().into()),
            ("opens_at", sale.window.opens_at.map(|time| time.to_string()).unwrap_or_default().into()),
            ("sale", text(sale.id.as_str())),
            ("when", when(sale, state, left).into()),
            ("notice", notice.map(notice_html).unwrap_or_default().into()),
            ("key", text(&wish.key)),
            ("legend", if seats.len() == 1 { "What there is" } else { "Choose one" }.into()),
            ("items", items.into()),
            ("customer", text(&wish.customer)),
            ("most", most.to_string().into()),
            ("quantity", text(&wish.quantity)),
            ("disabled", if can_buy { "" } else { "disabled" }.into()),
            ("verb", verb.into()),
            ("promise", promise(sale).into()),
        ],
    );
    let head = if state == SaleState::Scheduled { ASK_AGAIN } else { "" };
    shell(&sale.name, head, &body)
}

/// The page of an order.
pub(super) fn order(sale: &Sale, record: &OrderRecord, now: Time) -> String {
    let OrderRecord { order, state, reason, expires_at, .. } = record;
    let until = expires_at.map(clock_html).unwrap_or_default();
    let (title, said) = match (state, reason) {
        (OrderState::Accepted, _) => ("Your order is in", "It is accepted and will be kept. One moment …".to_owned()),
        (OrderState::Held, _) => ("It is yours to pay for", format!("Held for you until {until}")),
        (OrderState::Sold, _) => ("It is yours", "Sold to you.".to_owned()),
        (OrderState::Released, Some(Reason::Cancelled)) => ("Given back", "You gave it back.".to_owned()),
        (OrderState::Released, _) => ("The time is up", format!("It was held for you until {until}")),
        (OrderState::Refused, _) => ("This went wrong", "The order was refused. Please tell the shop.".to_owned()),
    };
    let line = |line: &crate::model::Line| {
        let name = sale.item(&line.sku).map_or(line.sku.as_str(), |item| &item.name);
        format!("<li><span>{}</span><span>{} ×</span></li>", text(name), line.quantity.get())
    };
    let action = match state {
        OrderState::Held => fill(CANCEL, &[("sale", text(sale.id.as_str())), ("id", order.id.to_string().into())]),
        OrderState::Released => format!(r#"<p><a href="/s/{}">Back to the sale</a></p>"#, text(sale.id.as_str())),
        OrderState::Accepted | OrderState::Sold | OrderState::Refused => String::new(),
    };
    let body = fill(
        ORDER,
        &[
            ("sale", text(sale.id.as_str())),
            ("name", text(&sale.name)),
            ("title", title.into()),
            ("state", state.word().into()),
            ("now", now.to_string().into()),
            ("expires_at", expires_at.map(|time| time.to_string()).unwrap_or_default().into()),
            ("said", said.into()),
            ("lines", order.lines.iter().map(line).collect::<String>().into()),
            ("id", order.id.to_string().into()),
            ("customer", text(order.customer.as_str())),
            ("action", action.into()),
        ],
    );
    shell(title, if *state == OrderState::Accepted { ASK_AGAIN } else { "" }, &body)
}

/// An item and where its units are.
struct Seat<'a> {
    item: &'a Item,
    places: &'a Places,
    available: Units,
}

impl<'a> Seat<'a> {
    fn all(record: &'a SaleRecord, view: Option<&GateView>) -> Vec<Self> {
        let seats = record.sale.items.iter().zip(&record.places);
        let at_gate = |item: &Item| {
            let items = view.filter(|view| view.live).map(|view| &view.items)?;
            items.iter().find(|at| at.sku == item.sku).map(|at| at.available)
        };
        seats
            .map(|(item, places)| Seat { item, places, available: at_gate(item).unwrap_or(places.available) })
            .collect()
    }

    fn html(&self, all: &[Seat<'_>], sale: &Sale, now: Time, wish: &Wish) -> String {
        let Seat { item, places, available } = self;
        let chosen = all.len() == 1 || item.sku.as_str() == wish.sku;
        let (class, status) = match (available.get(), places.held.get()) {
            (0, 0) => ("gone", "Sold out: every unit is sold.".to_owned()),
            (0, held) => {
                // No hold that exists now lasts longer than one that begins now.
                let by = clock_html(now.after(Duration::from_secs(sale.hold_seconds.into())));
                let held = grouped(held);
                ("held", format!("All units are in other people's checkouts; {held} could come back by {by}."))
            }
            (left, _) => ("", format!("{} of {} left", grouped(left), grouped(places.stock.get()))),
        };
        fill(
            ITEM,
            &[
                ("class", format!("{class}{}", if all.len() == 1 { " only" } else { "" }).into()),
                ("sku", text(item.sku.as_str())),
                ("checked", if chosen { "checked" } else { "" }.into()),
                ("name", text(&item.name)),
                ("price", price(item).into()),
                ("status", status.into()),
            ],
        )
    }
}

fn when(sale: &Sale, state: SaleState, left: bool) -> String {
    match (state, sale.window.opens_at) {
        (SaleState::Draft, _) => "Not open yet".into(),
        (SaleState::Scheduled, Some(opens)) => format!("Opens at {}", clock_html(opens)),
        (SaleState::Scheduled, None) => "Opens soon".into(),
        (SaleState::Open, _) if left => "Open now".into(),
        (SaleState::Open, _) => "Every unit is taken".into(),
        (SaleState::Paused, _) => "Paused for a moment; nothing is lost.".into(),
        (SaleState::Ended, _) => "The sale is over.".into(),
    }
}

fn promise(sale: &Sale) -> String {
    let limit = sale.per_customer_limit.map(|limit| format!("At most {} per customer. ", limit.get()));
    let hold = match sale.hold_seconds {
        0 => "What you order is yours at once.".into(),
        seconds if seconds < 120 => format!("What you order is held for you for {seconds} seconds."),
        seconds => format!("What you order is held for you for {} minutes.", seconds / 60),
    };
    format!("{}{hold} Clicking twice orders once.", limit.unwrap_or_default())
}

fn notice_html(notice: &Notice) -> String {
    let said: Cow<'_, str> = match notice {
        Notice::Refused(Refusal::SoldOut { may_return: true, .. }) => {
            "Not this time: every unit is taken. Some are only held and may come back.".into()
        }
        Notice::Refused(Refusal::SoldOut { .. }) => "Sold out: every unit is sold.".into(),
        Notice::Refused(Refusal::LimitReached { limit, used }) => {
            format!("One customer may have {}, and you have {}.", limit.get(), used.get()).into()
        }
        Notice::Refused(Refusal::NotOpen { .. }) => "The sale is not open yet.".into(),
        Notice::Refused(Refusal::Paused) => "The sale is paused for a moment. Nothing was ordered.".into(),
        Notice::Refused(Refusal::Ended) => "The sale is over.".into(),
        Notice::OrderedOtherwise => "You have an order already, for something else than this.".into(),
        Notice::NotNow => "That did not work. Press the button again: nothing is ordered twice.".into(),
        Notice::Wrong(detail) => text(detail),
    };
    format!(r#"<p class="notice" role="alert">{said}</p>"#)
}

fn state_word(state: SaleState) -> &'static str {
    match state {
        SaleState::Draft => "draft",
        SaleState::Scheduled => "scheduled",
        SaleState::Open => "open",
        SaleState::Paused => "paused",
        SaleState::Ended => "ended",
    }
}

fn price(item: &Item) -> String {
    if item.price_cents == 0 {
        return String::new();
    }
    format!("{}.{:02} {}", item.price_cents / 100, item.price_cents % 100, text(&item.currency))
}

/// 12345 as 12,345.
fn grouped(count: u32) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let comma = |at: usize| if at > 0 && at % 3 == first { "," } else { "" };
    digits.char_indices().fold(String::new(), |text, (at, digit)| text + comma(at) + digit.encode_utf8(&mut [0; 4]))
}

/// A time of day; the script turns it into the reader's own.
fn clock_html(time: Time) -> String {
    let whole = time.to_string();
    let day = whole.get(11..19).unwrap_or(&whole);
    format!(r#"<time datetime="{whole}">{day} UTC</time>"#)
}

fn shell(title: &str, head: &str, body: &str) -> String {
    fill(SHELL, &[("title", text(title)), ("head", head.into()), ("body", body.into())])
}

/// Puts the values into the template; each name stands there as `{{name}}`, and values are not looked into again.
fn fill(template: &str, values: &[(&str, Cow<'_, str>)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut parts = template.split("{{");
    filled.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("every name in a template ends");
        let (_, value) = values.iter().find(|(known, _)| *known == name).expect("every name in a template has a value");
        let _ = write!(filled, "{value}{rest}");
    }
    filled
}

/// Text as it stands in HTML, within an element or a quoted attribute.
fn text(plain: &str) -> Cow<'_, str> {
    if !plain.contains(['&', '<', '>', '"', '\'']) {
        return plain.into();
    }
    let mut safe = String::with_capacity(plain.len() + 16);
    for c in plain.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([7, 999, 1_000, 12_345, 1_234_567].map(grouped), ["7", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        assert_eq!(text(r#"<b a="1">&'"#), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
        assert_eq!(fill("a {{b}} c {{d}}", &[("b", "{{d}}".into()), ("d", text("<"))]), "a {{d}} c &lt;");
    }
}
