//! Buyers who insist: each asks again under the same key, at one API after the other, until it has a final answer. They
//! keep all that they were told, which the ledger is held to afterwards. And an operator who insists likewise.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::{Target, Wire, bearer};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::cluster::TOKEN;

/// How long a buyer waits for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a buyer waits before it asks again.
const AGAIN: Duration = Duration::from_millis(5);

/// What an order was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// 200, 201 or 202, with the order's id.
    Promised(String),
    SoldOut,
    /// 503, or no answer: ask again.
    NotNow,
}

/// Orders one unit over this connection.
pub(crate) async fn order(
    wire: &mut Wire,
    target: &Target,
    sale: &str,
    customer: &str,
    sku: &str,
) -> anyhow::Result<Told> {
    let body = json!({ "customer": customer, "lines": [{ "sku": sku, "quantity": 1 }] }).to_string();
    let mut request = target.request(Method::POST, format!("/v1/sales/{sale}/orders").parse()?, body.into());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert("idempotency-key", HeaderValue::from_str(&format!("{customer}-{sku}"))?);
    let answer = wire.call(request).await?;
    let body: Value = serde_json::from_slice(&answer.body)?;
    Ok(match (answer.status.as_u16(), body["type"].as_str()) {
        (200..=202, _) => Told::Promised(body["id"].as_str().unwrap().to_owned()),
        (409, Some("/problems/sold-out")) => Told::SoldOut,
        (503, _) => Told::NotNow,
        _ => panic!("{}: {body}", answer.status),
    })
}

/// What buyers do with what they get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// They keep it, and leave when it is sold out.
    Keep,
    /// They look around for so long between two orders, until they are told to hurry, and leave when it is sold out.
    Stroll(Duration),
    /// Of ten orders the shop confirms five, and their customers cancel two; they leave when it is sold out.
    Turn,
    /// They let it lapse, and come back until all together were promised so many orders.
    LetLapse(usize),
}

/// How an order has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Held,
    Sold,
    Cancelled,
    Lapsed,
}

/// A crowd of buyers at one sale, under way.
pub(crate) struct Buyers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    targets: Vec<Target>,
    sale: String,
    family: String,
    habit: Habit,
    hurry: AtomicBool,
    customers: AtomicUsize,
    promised: AtomicUsize,
    orders: Mutex<HashMap<String, (String, End)>>,
}

impl Buyers {
    /// So many buyers, each with one wish after the other. Those of another `family` are other customers.
    pub(crate) fn come(targets: &[Target], sale: &str, family: &str, buyers: usize, habit: Habit) -> Self {
        let shared = Arc::new(Shared {
            targets: targets.to_vec(),
            sale: sale.to_owned(),
            family: family.to_owned(),
            habit,
            hurry: AtomicBool::new(false),
            customers: AtomicUsize::new(0),
            promised: AtomicUsize::new(0),
            orders: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for number in 0..buyers {
            let shared = shared.clone();
            tasks.spawn(async move { shared.buy(number).await });
        }
        Self { shared, tasks }
    }

    /// Orders promised so far.
    pub(crate) fn promised(&self) -> usize {
        self.shared.promised.load(Ordering::Relaxed)
    }

    /// One more customer comes, who has an answer when this returns.
    pub(crate) async fn one_more(&self, customer: &str) -> Told {
        let mut wire = None;
        self.shared.insist(&mut wire, customer, 0).await
    }

    /// Nobody strolls any more.
    pub(crate) fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
    }

    /// Waits until everybody has left; answers with all promised orders and how each has to end.
    pub(crate) async fn gone(mut self) -> HashMap<String, End> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let orders = self.shared.orders.lock().unwrap();
        let ids: HashMap<String, End> = orders.values().cloned().collect();
        assert_eq!(ids.len(), orders.len(), "two customers got one order");
        ids
    }
}

impl Shared {
    async fn buy(&self, number: usize) {
        let mut wire = None;
        for count in 0.. {
            let told = self.insist(&mut wire, &format!("{}-{number}-{count}", self.family), number).await;
            match (told, self.habit) {
                (Told::Promised(id), Habit::Turn) if count % 2 == 0 => self.turn(number, &id, "confirm").await,
                (Told::Promised(id), Habit::Turn) if count % 5 == 1 => self.turn(number, &id, "cancel").await,
                (_, Habit::LetLapse(orders)) if self.promised.load(Ordering::Relaxed) >= orders => return,
                (Told::SoldOut, Habit::LetLapse(_)) => RealClock::new().sleep(AGAIN * 4).await,
                (Told::SoldOut, _) => return,
                (_, Habit::Stroll(time)) if !self.hurry.load(Ordering::Relaxed) => RealClock::new().sleep(time).await,
                (Told::Promised(_) | Told::NotNow, _) => {}
            }
        }
    }

    /// Asks until there is a final answer. Every fourth customer asks once more, elsewhere; not the first ones, because what
    /// was promised to whoever asks again is mended by that.
    async fn insist(&self, wire: &mut Option<(usize, Wire)>, customer: &str, number: usize) -> Told {
        let (clock, mut attempt) = (RealClock::new(), number);
        let mut asked_again = self.customers.fetch_add(1, Ordering::Relaxed) % 4 != 3;
        loop {
            let at = attempt % self.targets.len();
            let told = timeout(ANSWER_TIME_MAX, self.once(wire, at, customer)).await;
            match told.unwrap_or_else(|late| Err(late.into())) {
                Ok(Told::Promised(id)) => {
                    self.note(customer, &id);
                    if std::mem::replace(&mut asked_again, true) {
                        return Told::Promised(id);
                    }
                }
                Ok(Told::SoldOut) => {
                    let orders = self.orders.lock().unwrap();
                    assert!(
                        !orders.contains_key(customer),
                        "{customer} was accepted and then told that it is sold out"
                    );
                    return Told::SoldOut;
                }
                Ok(Told::NotNow) => clock.sleep(AGAIN).await,
                Err(_) => {
                    *wire = None;
                    clock.sleep(AGAIN).await;
                }
            }
            attempt += 1;
        }
    }

    fn note(&self, customer: &str, id: &str) {
        let end = if matches!(self.habit, Habit::LetLapse(_)) { End::Lapsed } else { End::Held };
        let before = self.orders.lock().unwrap().insert(customer.to_owned(), (id.to_owned(), end));
        match before {
            None => drop(self.promised.fetch_add(1, Ordering::Relaxed)),
            Some((other, _)) => assert_eq!(other, id, "a retry led {customer} to another order"),
        }
    }

    /// Orders over the open connection, or a new one; a connection that failed is not used again.
    async fn once(&self, wire: &mut Option<(usize, Wire)>, at: usize, customer: &str) -> anyhow::Result<Told> {
        let target = &self.targets[at];
        let mut open = match wire.take() {
            Some((open, wire)) if open == at => wire,
            _ => Wire::open(target).await?,
        };
        let told = order(&mut open, target, &self.sale, customer, "a").await?;
        *wire = Some((at, open));
        Ok(told)
    }

    /// Confirms or cancels an order, again and again until that is done.
    async fn turn(&self, number: usize, id: &str, verb: &str) {
        for attempt in number.. {
            let target = &self.targets[attempt % self.targets.len()];
            let mut request =
                target.request(Method::POST, format!("/v1/orders/{id}/{verb}").parse().unwrap(), Default::default());
            request.headers_mut().insert("authorization", bearer(TOKEN).unwrap());
            let asked = timeout(ANSWER_TIME_MAX, async { Wire::open(target).await?.call(request).await }).await;
            match asked {
                Ok(Ok(answer)) if answer.status == 200 => break,
                Ok(Ok(answer)) => assert_eq!(answer.status, 503, "{verb} {id}: {:?}", answer.body),
                _ => {}
            }
            RealClock::new().sleep(AGAIN).await;
        }
        let end = if verb == "confirm" { End::Sold } else { End::Cancelled };
        let mut orders = self.orders.lock().unwrap();
        let (_, expected) = orders.values_mut().find(|(other, _)| other == id).expect("it was promised");
        *expected = end;
    }
}

/// Adds units of `a` and withdraws some again, one adjustment after the other, each under its key until it is answered.
pub(crate) struct Operator {
    stops: Arc<AtomicBool>,
    task: JoinHandle<i64>,
}

impl Operator {
    /// Somebody who looks around for so long between two adjustments.
    pub(crate) fn come(targets: &[Target], sale: &str, pause: Duration) -> Self {
        let (targets, sale, stops) = (targets.to_vec(), sale.to_owned(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let stops = stops.clone();
            async move {
                let mut more = 0;
                for number in 0.. {
                    let delta = if number % 2 == 0 { 3 } else { -2 };
                    if adjust(&targets, &sale, number, delta).await {
                        more += delta;
                    }
                    if stops.load(Ordering::Relaxed) {
                        break;
                    }
                    RealClock::new().sleep(pause).await;
                }
                more
            }
        });
        Self { stops, task }
    }

    /// Waits for the answer to the last adjustment; answers with the units that are more now, all in all.
    pub(crate) async fn gone(self) -> usize {
        self.stops.store(true, Ordering::Relaxed);
        usize::try_from(self.task.await.unwrap()).expect("more is added than withdrawn")
    }
}

/// Whether this adjustment is done: fewer units may be left than are to be withdrawn.
async fn adjust(targets: &[Target], sale: &str, number: usize, delta: i64) -> bool {
    let (path, key) = (format!("/v1/sales/{sale}/items/a/adjustments"), format!("adjustment-{number}"));
    let body = json!({ "delta": delta, "reason": "a pallet turned up, or is broken" });
    for attempt in number.. {
        let target = &targets[attempt % targets.len()];
        let asked = target.answer(Method::POST, &path, Some(TOKEN), Some(&key), Some(&body));
        if let Ok(Ok(answer)) = timeout(ANSWER_TIME_MAX, asked).await {
            match answer.status.as_u16() {
                200 | 201 => return true,
                409 if delta < 0 => return false,
                status => assert_eq!(status, 503, "{key}: {:?}", answer.body),
            }
        }
        RealClock::new().sleep(AGAIN).await;
    }
    unreachable!("an operator asks without end")
}
