//! Two processes at one Redis against one gate in memory: whatever is asked in whatever sequence, they give the same
//! answers and remember the same. A failure is shrunk to the shortest sequence that shows it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sluice::gate::{Admission, Gate, MemoryGate, RedisGate, Refusal};
use sluice::ledger::{Books, Ledger, Turn};
use sluice::model::{Claim, Epoch, Phase, Sale, Seq, Sku, Time, Verb, Window};

use super::say;
use crate::model_ledger::ModelLedger;
use crate::servers::redis::fresh_database;
use crate::words::{HandClock, addition, claim, id, message, order_by, sale, sale_id, sku, units, withdrawal};

/// Sequences of one test run, and steps of one sequence.
const SEQUENCES: u32 = 64;
const STEPS_MAX: usize = 60;
/// Where the hand clock begins.
const START: i64 = 1_800_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// At this process, 0 or 1.
    Admit(usize, Claim),
    /// At the same moment, at both.
    AdmitTwice(Claim),
    /// At the same moment, at one.
    AdmitMany(usize, Vec<Claim>),
    /// Settles so many of the claims that are pending at the gate, from this one on.
    Settle(usize, usize),
    /// Settles what the gate never saw, or saw too.
    SettleOthers(Claim),
    Turn(u8, Turn),
    Lapse(usize),
    Pass(u64),
    Add(u8, &'static str, u32),
    Steer(Verb),
    /// So many moves, from this far before the watermark on, or behind a gap.
    Follow(usize, i64, usize),
    /// Under the epoch so far from the present one.
    Load(i64),
    Open(i64),
}

/// Few ids, few customers and few SKUs (one of them unknown), so that they meet often.
fn a_claim() -> impl Strategy<Value = Claim> {
    let skus = prop::sample::subsequence(vec!["a", "b", "b2"], 1..3);
    let order = (0..14_u8, skus, 1..3_u32, 0..3_usize, 0..20_u8).prop_map(|(number, skus, quantity, who, unknown)| {
        let mut lines: Vec<(&str, u32)> = skus.into_iter().map(|name| (name, quantity)).collect();
        if unknown == 0 {
            lines.push(("unknown", 1));
        }
        claim(order_by(["x", "y", "z"][who], number, &lines))
    });
    let withdrawal = (20..24_u8, prop::sample::select(vec!["a", "b"]), 1..4_u32)
        .prop_map(|(number, name, quantity)| withdrawal(number, name, quantity));
    prop_oneof![9 => order, 1 => withdrawal]
}

fn a_step() -> impl Strategy<Value = Step> {
    let turn = prop::sample::select(vec![Turn::Confirm, Turn::Cancel]);
    let verb = prop::sample::select(vec![Verb::Open, Verb::Pause, Verb::Resume, Verb::Open, Verb::Resume, Verb::Close]);
    prop_oneof![
        16 => (0..2_usize, a_claim()).prop_map(|(at, claim)| Step::Admit(at, claim)),
        4 => a_claim().prop_map(Step::AdmitTwice),
        8 => (0..2_usize, prop::collection::vec(a_claim(), 2..8)).prop_map(|(at, many)| Step::AdmitMany(at, many)),
        6 => (0..5_usize, 1..6_usize).prop_map(|(from, count)| Step::Settle(from, count)),
        1 => a_claim().prop_map(Step::SettleOthers),
        4 => (0..14_u8, turn).prop_map(|(number, turn)| Step::Turn(number, turn)),
        2 => (1..4_usize).prop_map(Step::Lapse),
        3 => prop_oneof![Just(1_u64), 500..1_500_u64, Just(40_000)].prop_map(Step::Pass),
        2 => (30..36_u8, prop::sample::select(vec!["a", "b"]), 1..4_u32)
            .prop_map(|(number, name, quantity)| Step::Add(number, name, quantity)),
        1 => verb.prop_map(Step::Steer),
        10 => (0..2_usize, prop_oneof![8 => Just(0_i64), 1 => -3..3_i64], 0..30_usize)
            .prop_map(|(at, from, count)| Step::Follow(at, from, count)),
        1 => prop_oneof![2 => Just(1_i64), 1 => -1..2_i64].prop_map(Step::Load),
        2 => prop_oneof![3 => Just(0_i64), 1 => -1..2_i64].prop_map(Step::Open),
    ]
}

fn a_sale() -> impl Strategy<Value = (Sale, Vec<u32>)> {
    let phase = prop_oneof![8 => Just(Phase::Armed), 1 => Just(Phase::Draft), 1 => Just(Phase::Paused)];
    let moment = |chance| prop::option::weighted(chance, 0..4_000_i64);
    let window = (phase, moment(0.2), moment(0.2)).prop_map(|(phase, opens, closes)| {
        let at = |moment: Option<i64>| moment.map(|millis| Time::from_millis(START + millis));
        Window { phase, opens_at: at(opens), closes_at: at(closes) }
    });
    let stock = prop::collection::vec(0..7_u32, 3);
    (window, prop::option::of(1..6_u32), prop::sample::select(vec![0, 30]), stock).prop_map(
        |(window, limit, hold_seconds, stock)| {
            let sale = sale("s", &["a", "b", "b2"]);
            (Sale { window, per_customer_limit: limit.map(units), hold_seconds, ..sale }, stock)
        },
    )
}

#[test]
fn the_gate_in_redis_says_and_keeps_the_same_as_the_gate_in_memory() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sequences = std::env::var("SLUICE_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(SEQUENCES);
    let config = Config { cases: sequences, failure_persistence: None, ..Config::default() };
    let strategy = (a_sale(), prop::collection::vec(a_step(), 1..STEPS_MAX));
    let url = fresh_database();
    let outcome = TestRunner::new(config).run(&strategy, |((sale, stock), steps): ((Sale, Vec<u32>), _)| {
        runtime.block_on(async {
            let _emptied: String = say(&url, &["FLUSHDB"]);
            Trio::new(&url, &sale, &stock).await.live(steps).await
        })
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two processes at one Redis, the gate in memory, and the ledger that all follow.
struct Trio {
    redis: [RedisGate; 2],
    memory: MemoryGate,
    ledger: ModelLedger,
    clock: Arc<HandClock>,
    url: String,
    epoch: i64,
}

impl Trio {
    async fn new(url: &str, sale: &Sale, stock: &[u32]) -> Self {
        let clock = Arc::new(HandClock::default());
        let ledger = ModelLedger::new(clock.clone());
        let stock: Vec<_> = stock.iter().map(|count| units(*count)).collect();
        ledger.create(sale, &stock).await.unwrap();
        let connect = || async { RedisGate::connect(url, clock.clone(), Duration::ZERO).await.unwrap() };
        let redis = [connect().await, connect().await];
        let trio = Self { redis, memory: MemoryGate::new(clock.clone()), ledger, clock, url: url.to_owned(), epoch: 0 };
        let snapshot = trio.ledger.snapshot(&sale.id).await.unwrap().unwrap();
        for gate in [&trio.redis[0] as &dyn Gate, &trio.memory] {
            assert!(gate.load(&snapshot, Epoch(10)).await.unwrap());
            assert!(gate.open(&sale.id, Epoch(10)).await.unwrap());
        }
        Self { epoch: 10, ..trio }
    }

    async fn live(mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            self.take(step).await?;
            self.compare().await?;
        }
        Ok(())
    }

    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let here = sale_id("s");
        match step {
            Step::Admit(at, claim) => {
                let (one, other) =
                    (self.redis[at].admit(&claim).await.unwrap(), self.memory.admit(&claim).await.unwrap());
                self.same(&claim, one, other).await?;
            }
            Step::AdmitTwice(claim) => self.admit_twice(&claim).await?,
            Step::AdmitMany(at, claims) => self.admit_many(at, claims).await?,
            Step::Settle(from, count) => {
                let mut pending = self.memory.pending(&here).await.unwrap();
                pending.sort_by_key(|(claim, _)| claim.id());
                let some = pending.into_iter().skip(from).take(count);
                let messages: Vec<_> = some.map(|(claim, epoch)| message(claim, epoch.0)).collect();
                self.ledger.settle(&messages).await.unwrap();
            }
            Step::SettleOthers(claim) => drop(self.ledger.settle(&[message(claim, 10)]).await.unwrap()),
            Step::Turn(number, turn) => drop(self.ledger.turn(id(number), turn).await.unwrap()),
            Step::Lapse(orders_max) => drop(self.ledger.lapse(orders_max).await.unwrap()),
            Step::Pass(millis) => self.clock.pass(millis),
            Step::Add(number, name, quantity) => {
                drop(self.ledger.add(&addition(number, name, quantity)).await.unwrap());
            }
            Step::Steer(verb) => drop(self.ledger.steer(&here, verb).await.unwrap()),
            Step::Follow(at, from, count) => self.follow(at, from, count).await?,
            Step::Load(by) => {
                let (snapshot, epoch) = (self.ledger.snapshot(&here).await.unwrap().unwrap(), self.epoch_at(by));
                let loaded = self.memory.load(&snapshot, epoch).await.unwrap();
                prop_assert_eq!(self.redis[0].load(&snapshot, epoch).await.unwrap(), loaded);
                self.epoch += i64::from(loaded) * by;
            }
            Step::Open(by) => {
                let epoch = self.epoch_at(by);
                let opened = self.memory.open(&here, epoch).await.unwrap();
                prop_assert_eq!(self.redis[1].open(&here, epoch).await.unwrap(), opened);
            }
        }
        Ok(())
    }

    fn epoch_at(&self, by: i64) -> Epoch {
        Epoch(u64::try_from(self.epoch + by).unwrap())
    }

    async fn follow(&self, at: usize, from: i64, count: usize) -> Result<(), TestCaseError> {
        let here = sale_id("s");
        let Some(view) = self.memory.view(&here).await.unwrap() else { return Ok(()) };
        let after = Seq(view.watermark.0.saturating_add_signed(from));
        let moves = self.ledger.journal(&here, after, count).await.unwrap();
        let applied = self.memory.follow(&here, view.epoch, &moves).await.unwrap();
        prop_assert_eq!(self.redis[at].follow(&here, view.epoch, &moves).await.unwrap(), applied);
        Ok(())
    }

    /// One of the two is first, the other a repeat; in memory they come one after the other.
    async fn admit_twice(&self, claim: &Claim) -> Result<(), TestCaseError> {
        let (one, other) = tokio::join!(self.redis[0].admit(claim), self.redis[1].admit(claim));
        let (one, other) = (one.unwrap(), other.unwrap());
        let (first, second) = if let Admission::Admitted(_) = other { (other, one) } else { (one, other) };
        let expected = self.memory.admit(claim).await.unwrap();
        self.same(claim, first, expected).await?;
        let expected = self.memory.admit(claim).await.unwrap();
        self.same(claim, second, expected).await
    }

    /// Those at the latch come later than those that are admitted at once. What the gate did is seen in its ids: the memory
    /// takes them in that sequence, and refuses the others after them.
    async fn admit_many(&self, at: usize, mut claims: Vec<Claim>) -> Result<(), TestCaseError> {
        // Whether such a claim is refused for another line first depends on its own moment.
        claims.retain(|claim| claim.lines().iter().all(|line| line.sku != sku("unknown")));
        let answers = join_all(claims.iter().map(|claim| self.redis[at].admit(claim))).await;
        let ids: Vec<u8> = say(&self.url, &["GET", "sluice:{s}:ids"]);
        let place = |claim: &Claim| ids.chunks(16).position(|id| *id == claim.id().0).unwrap_or(usize::MAX);
        let mut both: Vec<_> = claims.iter().zip(answers.into_iter().map(Result::unwrap)).collect();
        // Under one id, a body that was not admitted came before the one that was, and the repeats came after it.
        let rank = |answer: &Admission| match answer {
            Admission::Refused(_) | Admission::Unloaded => 0,
            Admission::Admitted(_) => 1,
            Admission::Repeat(_) => 2,
        };
        both.sort_by_key(|(claim, answer)| (place(claim), rank(answer)));
        for (claim, answer) in both {
            let expected = self.memory.admit(claim).await.unwrap();
            match (&answer, &expected) {
                // How many there were at its own moment, only the gate knows.
                (Admission::Refused(Refusal::LimitReached { .. }), Admission::Refused(_)) => {}
                (Admission::Refused(Refusal::SoldOut { sku, .. }), Admission::Refused(_)) => {
                    self.is_true(claim, sku).await?;
                }
                _ => self.same(claim, answer, expected).await?,
            }
        }
        Ok(())
    }

    /// Whether there are too few units of this SKU for the claim.
    async fn is_true(&self, claim: &Claim, sku: &Sku) -> Result<(), TestCaseError> {
        let view = self.memory.view(&sale_id("s")).await.unwrap().unwrap();
        let left = view.items.iter().find(|item| item.sku == *sku).unwrap().available;
        let wanted = claim.lines().iter().find(|line| line.sku == *sku).unwrap().quantity;
        prop_assert!(left < wanted, "{} is there: {:?}", sku, view);
        Ok(())
    }

    /// The same answer; where several reasons hold, the two may say different ones.
    async fn same(&self, claim: &Claim, redis: Admission, memory: Admission) -> Result<(), TestCaseError> {
        let (Admission::Refused(one), Admission::Refused(other)) = (&redis, &memory) else {
            prop_assert_eq!(redis, memory);
            return Ok(());
        };
        match (one, other) {
            (Refusal::SoldOut { sku: one, .. }, Refusal::SoldOut { sku: other, .. }) if one != other => {
                self.is_true(claim, one).await?;
                self.is_true(claim, other).await
            }
            (Refusal::SoldOut { sku, .. }, Refusal::LimitReached { .. })
            | (Refusal::LimitReached { .. }, Refusal::SoldOut { sku, .. }) => self.is_true(claim, sku).await,
            _ => {
                prop_assert_eq!(redis, memory);
                Ok(())
            }
        }
    }

    /// All remember the same.
    async fn compare(&self) -> Result<(), TestCaseError> {
        let here = sale_id("s");
        let (view, mut pending) = (self.memory.view(&here).await.unwrap(), self.memory.pending(&here).await.unwrap());
        pending.sort_by_key(|(claim, _)| claim.id());
        for gate in &self.redis {
            prop_assert_eq!(&gate.view(&here).await.unwrap(), &view);
            let mut there = gate.pending(&here).await.unwrap();
            there.sort_by_key(|(claim, _)| claim.id());
            prop_assert_eq!(&there, &pending);
        }
        for number in [0, 1, 20] {
            let found = self.redis[0].find(&here, id(number)).await.unwrap();
            prop_assert_eq!(found, self.memory.find(&here, id(number)).await.unwrap());
        }
        Ok(())
    }
}
