//! A crowd that insists: every customer asks again, with the same key and at another API, until there is a final answer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::{Answer, Target, Wire};
use sluice::model::Effect;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Customers that order at the same time.
const CUSTOMERS: usize = 24;
/// What a customer does between two orders, as long as nobody is in a hurry. All of them buy 300 units a second at most,
/// however fast the machine: a sale must not end before its fault has.
const THINK: Duration = Duration::from_millis(80);
/// Between "not now" and the next try.
const AGAIN: Duration = Duration::from_millis(20);
/// After this time without an answer a customer hangs up and asks again.
const PATIENCE: Duration = Duration::from_secs(4);
/// After this time a crowd that does not come to an end is stuck: a long sale on a busy machine takes its minutes.
const FINISH_TIME_MAX: Duration = Duration::from_secs(300);
/// Every so many customers ask once more after they were promised something.
const REPEATS_EVERY: usize = 5;
/// Every so many customers leave for good when they are told "not now", and that nothing has happened.
const LEAVES_EVERY: usize = 4;
/// Customers that ask for their order once more when everything is over, so that it takes no longer than a second or two.
const ASKED_AGAIN_MAX: usize = 300;

/// What an order was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// 200, 201 or 202, with the order's id.
    Promised(String),
    SoldOut,
    /// 503, and what may have happened all the same.
    NotNow(Effect),
}

/// The crowd of one sale.
pub(crate) struct Crowd {
    sale: String,
    targets: Vec<Target>,
    clock: RealClock,
    hurries: AtomicBool,
    /// Every other request is hung up on.
    hasty: AtomicBool,
    accepted: AtomicUsize,
    not_now: AtomicUsize,
    unanswered: AtomicUsize,
    /// Who was promised which order.
    promises: Mutex<HashMap<String, String>>,
    /// Who left and was told each time that nothing had happened.
    left: Mutex<HashSet<String>>,
    /// What nobody should ever be told.
    wrong: Mutex<Vec<String>>,
    members: Mutex<JoinSet<()>>,
}

impl Crowd {
    /// Customers of this sale begin to order.
    pub(crate) fn gather(sale: &str, targets: Vec<Target>) -> Arc<Self> {
        let crowd = Arc::new(Self {
            sale: sale.to_owned(),
            targets,
            clock: RealClock::new(),
            hurries: AtomicBool::new(false),
            hasty: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            not_now: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            promises: Mutex::default(),
            left: Mutex::default(),
            wrong: Mutex::default(),
            members: Mutex::default(),
        });
        for number in 0..CUSTOMERS {
            crowd.members.lock().unwrap().spawn(crowd.clone().come(number));
        }
        crowd
    }

    /// Orders accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests that were answered "not now" so far.
    pub(crate) fn not_now(&self) -> usize {
        self.not_now.load(Ordering::Relaxed)
    }

    /// Requests without an answer so far.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Waits until so many more orders are accepted.
    pub(crate) async fn accepts(&self, more: usize) {
        let goal = self.accepted() + more;
        let started = self.clock.monotonic();
        while self.accepted() < goal {
            let waited = self.clock.monotonic() - started;
            assert!(waited < Duration::from_secs(60), "nobody sells: {} of {goal}", self.accepted());
            self.clock.sleep(Duration::from_millis(2)).await;
        }
    }

    /// From now on every other request ends with a client that hangs up: before its answer, during it or right after.
    pub(crate) fn be_hasty(&self, hasty: bool) {
        self.hasty.store(hasty, Ordering::Relaxed);
    }

    /// From now on customers order as fast as they can, or take their time again.
    pub(crate) fn hurry(&self, hurry: bool) {
        self.hurries.store(hurry, Ordering::Relaxed);
    }

    /// Lets everybody order as fast as they can, until the last one is told that all is sold; answers with who was promised
    /// which order.
    pub(crate) async fn finish(&self) -> HashMap<String, String> {
        self.hurry(true);
        let members = std::mem::take(&mut *self.members.lock().unwrap());
        let done = timeout(FINISH_TIME_MAX, members.join_all()).await;
        let counts = (self.accepted(), self.not_now(), self.unanswered());
        assert!(done.is_ok(), "not everybody gets an answer: accepted, not now, without an answer: {counts:?}");
        let wrong = std::mem::take(&mut *self.wrong.lock().unwrap());
        assert!(wrong.is_empty(), "{} wrong answers, first {}", wrong.len(), wrong[0]);
        std::mem::take(&mut *self.promises.lock().unwrap())
    }

    /// Who left, and was told each time that nothing had happened.
    pub(crate) fn left(&self) -> HashSet<String> {
        self.left.lock().unwrap().clone()
    }

    /// Whoever was promised an order asks for it once more, everywhere, and gets it.
    pub(crate) async fn ask_once_more(&self, promises: &HashMap<String, String>) {
        for target in &self.targets {
            let mut wire = Wire::open(target).await.unwrap();
            for (customer, first) in promises.iter().take(ASKED_AGAIN_MAX) {
                let answer = ask(&mut wire, target, &self.sale, customer, None).await.unwrap();
                let body: Value = serde_json::from_slice(&answer.body).unwrap();
                let told = (answer.status.as_u16(), body["id"].as_str());
                assert_eq!(told, (200, Some(first.as_str())), "{customer} asks {} once more: {body}", target.url);
            }
        }
    }

    /// One customer after the other, until the sale is sold out.
    async fn come(self: Arc<Self>, number: usize) {
        let mut wires: HashMap<usize, Wire> = HashMap::new();
        for count in 0.. {
            let customer = format!("c-{number}-{count}");
            let leaves = (number + count).is_multiple_of(LEAVES_EVERY);
            match self.insist(&mut wires, number + count, &customer, leaves).await {
                Told::Promised(_) if count % REPEATS_EVERY == 0 => {
                    // A promise stays one, wherever it is asked for; `note` compares.
                    let again = self.insist(&mut wires, number + count + 1, &customer, false).await;
                    if again == Told::SoldOut {
                        self.complain(format!("{customer} was accepted, and then told that it is sold out"));
                    }
                }
                Told::Promised(_) => {}
                Told::NotNow(_) => drop(self.left.lock().unwrap().insert(customer)),
                Told::SoldOut => return,
            }
            if !self.hurries.load(Ordering::Relaxed) {
                self.clock.sleep(THINK).await;
            }
        }
    }

    /// Asks until there is a final answer, each time the next API. Who `leaves` is content with "not now", once it is
    /// certain that nothing has happened: each try was answered, and said so.
    async fn insist(&self, wires: &mut HashMap<usize, Wire>, first: usize, customer: &str, leaves: bool) -> Told {
        let mut nothing_happened = true;
        for at in first.. {
            let at = at % self.targets.len();
            let hangs_up = self.hasty.load(Ordering::Relaxed) && fastrand::bool();
            // The shorter, the more often: an API that is quick is hung up on in the middle as well.
            let patience = if hangs_up { Duration::from_micros(1 << fastrand::u32(0..15)) } else { PATIENCE };
            match timeout(patience, self.ask(wires, at, customer)).await {
                _ if hangs_up => {
                    wires.remove(&at);
                    nothing_happened = false;
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(Told::NotNow(effect))) => {
                    nothing_happened &= effect == Effect::None;
                    self.not_now.fetch_add(1, Ordering::Relaxed);
                    if leaves && nothing_happened {
                        return Told::NotNow(effect);
                    }
                }
                Ok(Ok(told)) => return told,
                Ok(Err(_)) | Err(_) => {
                    nothing_happened = false;
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.clock.sleep(AGAIN).await;
        }
        unreachable!("a customer asks without end")
    }

    /// Orders one unit over an open connection, or a new one; one that failed is not used again.
    async fn ask(&self, wires: &mut HashMap<usize, Wire>, at: usize, customer: &str) -> anyhow::Result<Told> {
        let target = &self.targets[at];
        let mut wire = match wires.remove(&at) {
            Some(wire) if !wire.is_closed() => wire,
            _ => Wire::open(target).await?,
        };
        let (told, _) = self.order(&mut wire, target, customer, None).await?;
        wires.insert(at, wire);
        Ok(told)
    }

    /// Orders at this API until an order is settled.
    pub(crate) async fn order_until_settled(&self, at: usize, customer: &str) {
        loop {
            let target = &self.targets[at];
            let settled = async {
                let answer = self.order(&mut Wire::open(target).await?, target, customer, Some("wait=2")).await?;
                anyhow::Ok(answer)
            };
            match settled.await {
                Ok((Told::Promised(_), state)) if state == "held" => return,
                Ok((Told::SoldOut, _)) => panic!("sold out before it was healed: {customer} needs a larger sale"),
                _ => self.clock.sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// One order, and the state it is said to be in.
    async fn order(
        &self,
        wire: &mut Wire,
        target: &Target,
        customer: &str,
        prefer: Option<&'static str>,
    ) -> anyhow::Result<(Told, String)> {
        let answer = ask(wire, target, &self.sale, customer, prefer).await?;
        Ok(self.note(customer, &answer))
    }

    fn note(&self, customer: &str, answer: &Answer) -> (Told, String) {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let told = match (answer.status.as_u16(), text("type").as_str()) {
            (200..=202, _) if ["accepted", "held"].contains(&text("state").as_str()) => Told::Promised(text("id")),
            (409, "/problems/sold-out") => Told::SoldOut,
            (503, _) => self.not_now_as_it_should_be(customer, answer, &text("effect")),
            (status, _) => {
                self.complain(format!("{customer} was told {status}: {body}"));
                Told::NotNow(Effect::Unknown)
            }
        };
        let mut promises = self.promises.lock().unwrap();
        match (&told, promises.get(customer)) {
            (Told::Promised(id), None) => {
                promises.insert(customer.to_owned(), id.clone());
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            (Told::Promised(id), Some(first)) if id != first => {
                self.complain(format!("{customer} was promised {first}, and then {id}"));
            }
            _ => {}
        }
        drop(promises);
        (told, text("state"))
    }

    /// "Not now" says what may have happened, and when to ask again.
    fn not_now_as_it_should_be(&self, customer: &str, answer: &Answer, effect: &str) -> Told {
        if answer.retry_after.is_none() {
            self.complain(format!("{customer} was told 503 without Retry-After"));
        }
        Told::NotNow(match effect {
            "none" => Effect::None,
            "unknown" => Effect::Unknown,
            other => {
                self.complain(format!("{customer} was told 503 with the effect {other:?}"));
                Effect::Unknown
            }
        })
    }

    fn complain(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }
}

/// Orders one unit; the customer's name is the key.
pub(crate) async fn ask(
    wire: &mut Wire,
    target: &Target,
    sale: &str,
    customer: &str,
    prefer: Option<&'static str>,
) -> anyhow::Result<Answer> {
    let body = json!({ "customer": customer, "lines": [{ "sku": "a", "quantity": 1 }] }).to_string();
    let mut request = target.request(Method::POST, format!("/v1/sales/{sale}/orders").parse()?, body.into());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert("idempotency-key", HeaderValue::from_str(customer)?);
    if let Some(prefer) = prefer {
        request.headers_mut().insert("prefer", HeaderValue::from_static(prefer));
    }
    wire.call(request).await
}
