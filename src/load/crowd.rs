//! The crowd: who wants what, and when, all of it from one seed.

use std::fmt::Write;

use bytes::Bytes;

use crate::model::{Customer, Line, Sku, Units, limits, same_lines};

/// Different carts of one crowd; customers share them.
const CARTS_MAX: usize = 256;
/// A retry comes this long after the request that it repeats, in microseconds.
const RETRY_AFTER_US: std::ops::Range<u64> = 20_000..1_500_000;
/// Who wants more comes back this long after the first order, in microseconds.
const AGAIN_AFTER_US: std::ops::Range<u64> = 1_000..200_000;
/// A hold is confirmed or cancelled this long after its order, in microseconds.
const TURN_AFTER_US: std::ops::Range<u64> = 200_000..1_500_000;

/// How a crowd behaves. Shares are between 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Habits {
    /// The same seed and habits make the same crowd: customers, keys, carts and sequence.
    pub seed: u64,
    /// How many people.
    pub customers: u32,
    /// How many orders they want; everything below comes on top.
    pub orders: u32,
    /// New orders per second, on average; they arrive as independent people do (a Poisson process).
    pub rate_per_s: f64,
    /// Share of orders whose customer wants another one, under another key.
    pub again: f64,
    /// Share of orders sent once more, later, under the same key.
    pub retries: f64,
    /// Share of orders sent twice at the same moment, under the same key.
    pub duplicates: f64,
    /// Share of orders whose customer hangs up before the answer, and asks again later under the same key.
    pub impatience: f64,
    /// Share of orders whose customer asks later for another cart under the same key, by mistake.
    pub mistakes: f64,
    /// Share of orders that are confirmed once they are held.
    pub confirm: f64,
    /// Share of orders that are cancelled once they are held.
    pub cancel: f64,
    /// SKUs of one cart, at most.
    pub lines_max: usize,
    /// Units of one line, at most.
    pub quantity_max: u32,
}

impl Habits {
    /// A thousand people, a thousand a second, who want one unit each and do nothing odd.
    pub fn plain(seed: u64) -> Self {
        Self {
            seed,
            customers: 1_000,
            orders: 1_000,
            rate_per_s: 1_000.0,
            again: 0.0,
            retries: 0.0,
            duplicates: 0.0,
            impatience: 0.0,
            mistakes: 0.0,
            confirm: 0.0,
            cancel: 0.0,
            lines_max: 1,
            quantity_max: 1,
        }
    }
}

/// Everything a crowd is going to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    name: String,
    /// What people put into one order.
    pub carts: Vec<Cart>,
    /// What people want; each wish has one idempotency key.
    pub wishes: Vec<Wish>,
    /// What people do about it, in the sequence of their time.
    pub requests: Vec<Request>,
}

/// What one order asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Cart {
    /// The lines.
    pub lines: Vec<Line>,
    /// The lines as they stand in the body of a request.
    json: String,
}

/// One customer's wish for one cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The customer's number.
    pub customer: u32,
    /// The cart's number.
    pub cart: u16,
}

/// One request, when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Microseconds after the start.
    pub due_us: u64,
    /// The wish's number.
    pub wish: u32,
    /// What it does.
    pub kind: Kind,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Orders, for the first time.
    First,
    /// Orders at the same moment as the first time.
    Duplicate,
    /// Orders, and hangs up after so many microseconds.
    HangUp(u32),
    /// Orders later under the same key.
    Retry,
    /// Asks for another cart under the same key, once there is an order.
    OtherCart,
    /// Turns the hold into a sale, if there is one.
    Confirm,
    /// Gives the hold back, if there is one.
    Cancel,
}

impl Kind {
    /// Whether it places the order, rather than doing something with it afterwards.
    pub fn orders(self) -> bool {
        !matches!(self, Kind::Confirm | Kind::Cancel | Kind::OtherCart)
    }
}

impl Crowd {
    /// Gathers a crowd for these items. Nobody asks for more units than one customer may have.
    pub fn gather(habits: &Habits, skus: &[Sku], per_customer_limit: Option<Units>) -> Self {
        let mut chance = fastrand::Rng::with_seed(habits.seed);
        let carts = carts(habits, skus, per_customer_limit, &mut chance);
        let mut crowd = Self { name: format!("{:x}", habits.seed), carts, wishes: Vec::new(), requests: Vec::new() };
        let mut at_us = 0.0;
        for number in 0..habits.orders {
            at_us += -(1.0 - chance.f64()).ln() * 1_000_000.0 / habits.rate_per_s;
            let customer = number % habits.customers.max(1);
            crowd.want(habits, customer, whole_us(at_us), &mut chance);
            if chance.f64() < habits.again {
                let later = whole_us(at_us) + chance.u64(AGAIN_AFTER_US);
                crowd.want(habits, customer, later, &mut chance);
            }
        }
        crowd.requests.sort_by_key(|request| request.due_us);
        crowd
    }

    /// A new wish, and all that its customer does about it.
    fn want(&mut self, habits: &Habits, customer: u32, due_us: u64, chance: &mut fastrand::Rng) {
        let wish = u32::try_from(self.wishes.len()).unwrap_or(u32::MAX);
        let cart = u16::try_from(chance.usize(0..self.carts.len())).unwrap_or(0);
        self.wishes.push(Wish { customer, cart });
        let mut add = |due_us, kind| self.requests.push(Request { due_us, wish, kind });
        if chance.f64() < habits.impatience {
            add(due_us, Kind::HangUp(chance.u32(0..3_000)));
            add(due_us + chance.u64(RETRY_AFTER_US), Kind::Retry);
        } else {
            add(due_us, Kind::First);
        }
        if chance.f64() < habits.duplicates {
            add(due_us, Kind::Duplicate);
        }
        if chance.f64() < habits.retries {
            add(due_us + chance.u64(RETRY_AFTER_US), Kind::Retry);
        }
        if chance.f64() < habits.mistakes {
            add(due_us + chance.u64(RETRY_AFTER_US), Kind::OtherCart);
        }
        let fate = chance.f64();
        if fate < habits.confirm {
            add(due_us + chance.u64(TURN_AFTER_US), Kind::Confirm);
        } else if fate < habits.confirm + habits.cancel {
            add(due_us + chance.u64(TURN_AFTER_US), Kind::Cancel);
        }
    }

    /// The same people with the same wishes, who do this about it.
    #[must_use]
    pub fn saying(&self, requests: Vec<Request>) -> Self {
        let (name, carts, wishes) = (self.name.clone(), self.carts.clone(), self.wishes.clone());
        Self { name, carts, wishes, requests }
    }

    /// The wish behind a request.
    pub fn wish(&self, request: u32) -> Wish {
        self.wishes[self.requests[request as usize].wish as usize]
    }

    /// The lines of a wish.
    pub fn lines(&self, wish: u32) -> &[Line] {
        &self.carts[usize::from(self.wishes[wish as usize].cart)].lines
    }

    /// A customer's name, which carries the seed: crowds of different seeds are different people.
    pub fn customer(&self, number: u32) -> String {
        format!("c-{}-{number}", self.name)
    }

    /// The customer's number, if it is one of this crowd.
    pub fn customer_number(&self, customer: &Customer) -> Option<u32> {
        let number = customer.as_str().strip_prefix("c-")?.strip_prefix(&self.name)?.strip_prefix('-')?;
        number.parse().ok()
    }

    /// The idempotency key of a wish.
    pub fn key(&self, wish: u32) -> String {
        format!("{}-{wish}", self.name)
    }

    /// The body of a request that orders.
    pub fn body(&self, wish: u32) -> Bytes {
        let Wish { customer, cart } = self.wishes[wish as usize];
        self.body_of(customer, cart)
    }

    /// The body of a request that asks for another cart than the wish's; `None` if all carts are alike.
    pub fn other_body(&self, wish: u32) -> Option<Bytes> {
        let Wish { customer, cart } = self.wishes[wish as usize];
        let other = self.carts.iter().position(|other| !same_lines(&other.lines, self.lines(wish)))?;
        u16::try_from(other).ok().filter(|other| *other != cart).map(|other| self.body_of(customer, other))
    }

    fn body_of(&self, customer: u32, cart: u16) -> Bytes {
        let (name, lines) = (&self.name, &self.carts[usize::from(cart)].json);
        let mut body = String::with_capacity(48 + name.len() + lines.len());
        let _infallible = write!(body, r#"{{"customer":"c-{name}-{customer}","lines":{lines}}}"#);
        body.into()
    }
}

fn carts(habits: &Habits, skus: &[Sku], limit: Option<Units>, chance: &mut fastrand::Rng) -> Vec<Cart> {
    let one_by_one = habits.lines_max <= 1 && habits.quantity_max <= 1;
    let count = if one_by_one { skus.len() } else { CARTS_MAX };
    (0..count)
        .map(|number| {
            let first = if one_by_one { number } else { chance.usize(0..skus.len()) };
            cart(habits, skus, first, limit, chance)
        })
        .collect()
}

/// A cart that begins with this SKU.
fn cart(habits: &Habits, skus: &[Sku], first: usize, limit: Option<Units>, chance: &mut fastrand::Rng) -> Cart {
    let mut left = limit.map_or(u32::MAX, Units::get);
    let lines_max = habits.lines_max.clamp(1, skus.len().min(limits::ORDER_LINES_MAX));
    let mut lines = Vec::new();
    for offset in 0..chance.usize(1..=lines_max) {
        let units_max = habits.quantity_max.clamp(1, limits::LINE_UNITS_MAX).min(left);
        if units_max == 0 {
            break;
        }
        let quantity = chance.u32(1..=units_max);
        left -= quantity;
        let quantity = Units::new(quantity).unwrap_or(Units::ZERO);
        lines.push(Line { sku: skus[(first + offset) % skus.len()].clone(), quantity });
    }
    let json = serde_json::to_string(&lines).expect("lines are plain JSON");
    Cart { lines, json }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturating")]
fn whole_us(time_us: f64) -> u64 {
    time_us as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skus() -> Vec<Sku> {
        ["ps5", "xbox", "switch"].map(|sku| Sku::new(sku).unwrap()).to_vec()
    }

    fn habits(seed: u64) -> Habits {
        Habits {
            customers: 300,
            again: 0.1,
            retries: 0.2,
            duplicates: 0.1,
            impatience: 0.1,
            mistakes: 0.1,
            confirm: 0.5,
            cancel: 0.2,
            lines_max: 3,
            quantity_max: 4,
            ..Habits::plain(seed)
        }
    }

    #[test]
    fn the_same_seed_is_the_same_crowd() {
        let crowd = |seed| Crowd::gather(&habits(seed), &skus(), None);
        assert_eq!(crowd(7), crowd(7));
        assert_ne!(crowd(7).requests, crowd(8).requests);
        assert_ne!(crowd(7).body(0), crowd(8).body(0));
    }

    #[test]
    fn shares_and_rate_are_about_what_was_asked_for() {
        let crowd = Crowd::gather(&habits(1), &skus(), None);
        let count = |wanted: fn(Kind) -> bool| crowd.requests.iter().filter(|request| wanted(request.kind)).count();
        let again = crowd.wishes.len() - 1_000;
        assert!((70..130).contains(&again), "{again} of 1000 wanted more");
        let doubled = count(|kind| kind == Kind::Duplicate);
        assert!((70..150).contains(&doubled), "{doubled} duplicates");
        let hung_up = count(|kind| matches!(kind, Kind::HangUp(_)));
        let retries = count(|kind| kind == Kind::Retry) - hung_up;
        assert!((150..290).contains(&retries), "{retries} retries");
        let mistakes = count(|kind| kind == Kind::OtherCart);
        assert!((70..150).contains(&mistakes), "{mistakes} mistakes");
        let confirmed = count(|kind| kind == Kind::Confirm);
        assert!((450..650).contains(&confirmed), "{confirmed} to be confirmed");
        let first_orders_end_us =
            crowd.requests.iter().filter(|one| one.kind == Kind::First).map(|one| one.due_us).max();
        assert!((850_000..1_400_000).contains(&first_orders_end_us.unwrap()));
        assert!(crowd.requests.is_sorted_by_key(|request| request.due_us));
    }

    #[test]
    fn nobody_asks_for_more_than_one_may_have() {
        let limit = Units::new(3).unwrap();
        let crowd = Crowd::gather(&habits(1), &skus(), Some(limit));
        for cart in &crowd.carts {
            let units: u32 = cart.lines.iter().map(|line| line.quantity.get()).sum();
            assert!((1..=3).contains(&units), "{cart:?}");
        }
        assert!(crowd.carts.iter().any(|cart| cart.lines.len() > 1));
    }

    #[test]
    fn a_body_names_customer_and_lines() {
        let crowd = Crowd::gather(&habits(10), &skus()[..1], Units::new(1).ok());
        let body: serde_json::Value = serde_json::from_slice(&crowd.body(5)).unwrap();
        let customer = crowd.customer(crowd.wishes[5].customer);
        let expected = serde_json::json!({"customer": customer, "lines": [{"sku": "ps5", "quantity": 1}]});
        assert_eq!(body, expected);
        let customer = Customer::new(&customer).unwrap();
        assert_eq!(crowd.customer_number(&customer), Some(crowd.wishes[5].customer));
        assert_eq!(crowd.customer_number(&Customer::new("c-b-5").unwrap()), None);
        assert_eq!(crowd.other_body(5), None, "there is no other cart");
    }

    #[test]
    fn another_cart_is_another_one() {
        let crowd = Crowd::gather(&habits(1), &skus(), None);
        for wish in 0..100 {
            assert_ne!(crowd.other_body(wish), Some(crowd.body(wish)));
        }
    }
}
