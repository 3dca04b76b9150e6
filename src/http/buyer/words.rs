//! What the buyer's page says, filled into the templates of ui/buyer. Everything that comes from outside is escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::http::StatusCode;

use crate::gate::{GateView, Refusal};
use crate::ledger::SaleRecord;
use crate::model::{Item, OrderId, OrderRecord, OrderState, Places, Reason, Sale, SaleState, Time, Units, limits};

const SHELL: &str = include_str!("../../../ui/buyer/shell.html");
const SALE: &str = include_str!("../../../ui/buyer/sale.html");
const ITEM: &str = include_str!("../../../ui/buyer/item.html");
const ORDER: &str = include_str!("../../../ui/buyer/order.html");
const CANCEL: &str = include_str!("../../../ui/buyer/cancel.html");
const PROBLEM: &str = include_str!("../../../ui/buyer/problem.html");

/// What a buyer filled in, or will.
pub(super) struct Wish {
    pub(super) key: String,
    /// Whether there was one before it that has its order: then the key of that one is forgotten.
    pub(super) another: bool,
    pub(super) customer: String,
    pub(super) sku: String,
    pub(super) quantity: String,
}

/// What came of the form just sent, if it is no order.
pub(super) enum Notice {
    Refused(Refusal),
    /// There is an order under this key, this one, for something else.
    OrderedOtherwise(OrderId),
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
    holds_end: Option<Time>,
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
    let back_by = holds_end.map_or_else(|| "as their time runs out".into(), |by| format!("by {}", clock_html(by, now)));
    let items: String = seats.iter().map(|seat| seat.html(&seats, state, &back_by, wish)).collect();
    let body = fill(
        SALE,
        &[
            ("name", text(&sale.name)),
            ("state", state_word(state).into()),
            ("now", now.to_string().into()),
            ("opens_at", sale.window.opens_at.map(|time| time.to_string()).unwrap_or_default().into()),
            ("sale", text(sale.id.as_str())),
            ("when", when(sale, state, left, now).into()),
            ("notice", notice.map(|notice| notice_html(notice, sale)).unwrap_or_default().into()),
            ("key", text(&wish.key)),
            ("another", if wish.another { "data-another" } else { "" }.into()),
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
    let again = format!("/s/{}", sale.id);
    shell(&sale.name, if state == SaleState::Scheduled { Some(&again) } else { None }, &body)
}

/// The page of an order.
pub(super) fn order(sale: &Sale, record: &OrderRecord, now: Time) -> String {
    let OrderRecord { order, state, reason, expires_at, .. } = record;
    let until = expires_at.map(|at| clock_html(at, now)).unwrap_or_default();
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
    let again = format!("/s/{}/orders/{}", sale.id, order.id);
    shell(title, if *state == OrderState::Accepted { Some(&again) } else { None }, &body)
}

/// The page of a problem.
pub(super) fn problem(title: &str, detail: &str) -> String {
    let title = if title.is_empty() { "That did not work" } else { title };
    shell(title, None, &fill(PROBLEM, &[("title", text(title)), ("detail", text(detail))]))
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

    fn html(&self, all: &[Seat<'_>], state: SaleState, back_by: &str, wish: &Wish) -> String {
        let Seat { item, places, available } = self;
        let chosen = all.len() == 1 || item.sku.as_str() == wish.sku;
        let (class, status) = match (available.get(), places.held.get()) {
            (0, 0) => ("gone", "Sold out: every unit is sold.".to_owned()),
            _ if state == SaleState::Ended => ("gone", "No longer on sale.".to_owned()),
            (0, held) => {
                let held = grouped(held);
                ("held", format!("All units are in other people's checkouts; {held} could come back {back_by}."))
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

fn when(sale: &Sale, state: SaleState, left: bool, now: Time) -> String {
    match (state, sale.window.opens_at) {
        (SaleState::Draft, _) => "Not open yet".into(),
        (SaleState::Scheduled, Some(opens)) => format!("Opens at {}", clock_html(opens, now)),
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
        seconds => format!("What you order is held for you for {}.", lasting(seconds)),
    };
    format!("{}{hold} Clicking twice orders once.", limit.unwrap_or_default())
}

/// 150 as 2 minutes 30 seconds; less than two minutes are seconds.
fn lasting(seconds: u32) -> String {
    if seconds < 120 {
        return format!("{seconds} second{}", if seconds == 1 { "" } else { "s" });
    }
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3_600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let said = parts.iter().filter(|(count, _)| *count > 0);
    said.map(|(count, unit)| format!("{count} {unit}{}", if *count == 1 { "" } else { "s" }))
        .collect::<Vec<_>>()
        .join(" ")
}

fn notice_html(notice: &Notice, sale: &Sale) -> String {
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
        Notice::OrderedOtherwise(first) => {
            let link = format!(r#"<a href="/s/{}/orders/{first}">an order already</a>"#, text(sale.id.as_str()));
            let more = "To order this as well, press the button once more.";
            format!("You have {link}, for something else than this. {more}").into()
        }
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

/// A time of day, with its date if that is another day than now; the script turns it into the reader's own.
fn clock_html(time: Time, now: Time) -> String {
    let (whole, today) = (time.to_string(), now.to_string());
    let (date, clock) = (whole.get(..10).unwrap_or(&whole), whole.get(11..19).unwrap_or_default());
    let date = if today.starts_with(date) { String::new() } else { format!("{date} ") };
    format!(r#"<time datetime="{whole}">{date}{clock} UTC</time>"#)
}

/// A page that waits for something asks at this address again by itself, also without JavaScript.
fn shell(title: &str, again: Option<&str>, body: &str) -> String {
    let refresh =
        |at: &str| format!(r#"<noscript><meta http-equiv="refresh" content="2;url={}"></noscript>"#, text(at));
    fill(
        SHELL,
        &[("title", text(title)), ("head", again.map(refresh).unwrap_or_default().into()), ("body", body.into())],
    )
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
    fn a_time_is_said_as_long_as_it_is() {
        let said = [1, 90, 150, 600, 3_600, 90_061].map(lasting);
        let words = ["1 second", "90 seconds", "2 minutes 30 seconds", "10 minutes", "1 hour"];
        assert_eq!((&said[..5], said[5].as_str()), (&words.map(String::from)[..], "1 day 1 hour 1 minute 1 second"));
    }

    #[test]
    fn another_day_is_said_with_its_date() {
        let at = |ms| clock_html(Time::from_millis(ms), Time::from_millis(0));
        assert!(at(3_600_000).ends_with(">01:00:00 UTC</time>"), "{}", at(3_600_000));
        assert!(at(3 * 86_400_000).ends_with(">1970-01-04 00:00:00 UTC</time>"), "{}", at(3 * 86_400_000));
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        assert_eq!(text(r#"<b a="1">&'"#), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
        assert_eq!(fill("a {{b}} c {{d}}", &[("b", "{{d}}".into()), ("d", text("<"))]), "a {{d}} c &lt;");
    }
}
