//! One scene: a crowd at a sale, a process that comes to a moment between two steps, and what strikes there. Afterwards
//! every promise is held against the ledger.

use std::collections::HashMap;
use std::time::Duration;

use clap::ValueEnum;
use hyper::Method;
use serde_json::Value;
use sluice::clock::{Clock, RealClock};
use sluice::fault::{Moment, VARIABLE};
use sluice::load::wire::Target;

use super::{account, probe, shards};
use crate::buyers::{Buyers, End, Habit, Operator};
use crate::cluster::{Crew, Member, TOKEN};
use crate::process::Env;
use crate::servers::redis::say;
use crate::servers::trio::Trio;
use crate::support::eventually;

/// Units of a scene's sale, and buyers that want them.
const UNITS: usize = 240;
const BUYERS: usize = 12;
/// Promises before something that is to meet a sale in full swing.
const SWING: usize = UNITS / 6;
/// How long it may take until somebody comes to a moment.
const MET_TIME_MAX: Duration = Duration::from_secs(40);
/// From the last cancel until its unit is on sale again.
const RETURN_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a process stands still: longer than a push may take.
const FROZEN: Duration = Duration::from_millis(2_600);
/// How long it may take, after a gate was emptied, until somebody comes to a moment of its reload; then it is emptied again.
const RELOAD_TIME_MAX: Duration = Duration::from_secs(6);
/// How long the worker that is not to load the gate sleeps at most.
const HEAD_START_MAX: Duration = Duration::from_secs(2);
/// Between two adjustments of the stock.
const ADJUSTS_EVERY: Duration = Duration::from_millis(10);
/// Ends every session of this database but the one that says so.
const END_SESSIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                            where datname = current_database() and pid <> pg_backend_pid()";

/// What happens at the moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Strike {
    /// The process is killed, and started again.
    Killed,
    /// The process stands still for longer than any timeout of the protocol, and goes on.
    Frozen,
    /// The process stands still for longer than RabbitMQ waits for a sign of life; when it goes on, another one has settled
    /// what it had pulled.
    Silent,
    /// While it stands still, the gate's server forgets everything.
    GateEmptied,
    /// While it stands still, every session of the ledger is ended.
    SessionsEnded,
    /// While it stands still, the gate's server is killed and starts empty.
    GateKilled,
    /// While it stands still, the ledger's server is killed and started again.
    LedgerKilled,
    /// While it stands still, the queue's server is killed and started again.
    QueueKilled,
}

impl Strike {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().unwrap().get_name().to_owned()
    }
}

/// Where scenes are played: one deployment, scene after scene.
pub(crate) struct Stage<'a> {
    pub(crate) crew: Crew,
    servers: Option<Servers<'a>>,
    scenes: usize,
}

/// The servers of a distributed stage.
pub(crate) enum Servers<'a> {
    /// Those that other stages use too, and the variables that lead to this stage's part of them.
    Shared(&'a Trio, Env),
    Own(&'a mut Trio),
}

impl<'a> Stage<'a> {
    pub(crate) async fn embedded() -> Self {
        Self::new(Crew::embedded(), None).await
    }

    /// One API, which is missed, and two workers, so that one can take over.
    pub(crate) async fn distributed(servers: Servers<'a>) -> Self {
        Self::new(Crew::start(servers.env(), 1, 2), Some(servers)).await
    }

    async fn new(crew: Crew, servers: Option<Servers<'a>>) -> Self {
        let stage = Self { crew, servers, scenes: 0 };
        probe::prepare(&stage.target().await).await;
        stage
    }

    async fn target(&self) -> Target {
        Target::find(&self.crew.urls()[0], false).await.unwrap()
    }

    /// Plays one scene; answers how long it took from the return of the last part to full service.
    pub(crate) async fn play(&mut self, moment: Moment, strike: Strike) -> Duration {
        self.scenes += 1;
        let (target, sale, habit) = (self.target().await, format!("s{}", self.scenes), habit(moment));
        let hold_seconds = if matches!(habit, Habit::LetLapse(_)) { 1 } else { 600 };
        probe::create(&target, &sale, UNITS, hold_seconds).await;
        self.arm(moment, strike).await;
        let targets = std::slice::from_ref(&target);
        let alone = is_alone(moment, strike);
        let buyers = Buyers::come(targets, &sale, "c", if alone { 1 } else { BUYERS }, habit);
        let adjusted = is_adjusted(moment) && !alone;
        let operator = adjusted.then(|| Operator::come(targets, &sale, ADJUSTS_EVERY));
        if self.servers.is_some() && is_reload(moment) {
            eventually("the sale is in full swing", async || buyers.promised() >= SWING).await;
        }
        let scene = format!("{}@{}", strike.name(), moment.name());
        self.meet(moment, strike, &scene).await;
        self.strike(moment, strike, &sale).await;
        let healed = RealClock::new();
        self.heal(moment, strike);
        probe::serves(&target, &sale).await;
        buyers.one_more("late").await;
        let took = healed.monotonic();
        let more = if let Some(operator) = operator { operator.gone().await } else { 0 };
        let (mut promised, units) = (buyers.gone().await, UNITS + more);
        if habit == Habit::Turn || adjusted {
            buy_the_rest(&target, &sale, units, &mut promised).await;
        }
        let taken = account::hold(&target, &sale, units, &promised).await;
        assert_eq!(taken, if matches!(habit, Habit::LetLapse(_)) { 0 } else { units }, "{scene}");
        let _closed: Value =
            target.ask(Method::POST, &format!("/v1/sales/{sale}/close"), Some(TOKEN), None).await.unwrap();
        took
    }

    /// Lets the processes that come to the moment meet it in their next life; an API a few steps later each time. A worker
    /// takes all that waits in few steps, so it is the first time that counts there. Where one worker is to take over from
    /// the other, it is certain which of them settles: the other one in a reload, so that nothing but a loader is struck.
    async fn arm(&mut self, moment: Moment, strike: Strike) {
        let signal = if strike == Strike::Killed { "kill" } else { "freeze" };
        let times = if is_of_an_api(moment) { 1 + self.scenes % 5 } else { 1 };
        let trap = [(VARIABLE, format!("{}:{signal}@{times}", moment.name()))];
        if self.is_taken_over(moment, strike) {
            let url = self.servers().url("RABBITMQ_URL");
            self.crew.workers.iter_mut().for_each(Member::kill);
            shards::are_somebodys(&url, false).await;
            let [struck, other] = &mut self.crew.workers[..] else { panic!("there are two") };
            let (mut first, mut second) = ((struck, &trap[..]), (other, &[][..]));
            if is_reload(moment) {
                std::mem::swap(&mut first, &mut second);
            }
            first.0.spawn(first.1);
            shards::are_somebodys(&url, true).await;
            second.0.spawn(second.1);
            second.0.is_up();
            return;
        }
        for member in self.actors(moment, strike) {
            member.kill();
            member.spawn(&trap);
        }
        if moment == Moment::Swept {
            // Something has to be left over that a sweep pushes again.
            let api = &mut self.crew.apis[0];
            api.kill();
            api.spawn(&[(VARIABLE, format!("{}:kill@3", Moment::Admitted.name()))]);
        }
        if is_in_full_swing(moment) {
            let crew = &self.crew;
            let up = async || crew.members().all(|member| member.is_struck() || member.said().contains("  address  "));
            eventually("they are up", up).await;
        }
    }

    /// Whoever may come to this moment.
    fn actors(&mut self, moment: Moment, strike: Strike) -> &mut [Member] {
        match () {
            () if is_of_an_api(moment) || self.servers.is_none() => &mut self.crew.apis,
            () if self.is_taken_over(moment, strike) => &mut self.crew.workers[..1],
            () => &mut self.crew.workers,
        }
    }

    /// Whether one worker is struck, and the other one is to take over.
    fn is_taken_over(&self, moment: Moment, strike: Strike) -> bool {
        self.servers.is_some() && (is_reload(moment) || strike == Strike::Silent)
    }

    /// Comes back when a process is struck.
    async fn meet(&mut self, moment: Moment, strike: Strike, scene: &str) {
        let waiting = RealClock::new();
        let mut emptied_at = None;
        while !self.actors(moment, strike).iter().any(Member::is_struck) {
            let now = waiting.monotonic();
            assert!(now < MET_TIME_MAX, "{scene}: not met: {}", self.crew.said());
            let reloads = self.servers.is_some() && is_reload(moment);
            if reloads && emptied_at.is_none_or(|at| now > at + RELOAD_TIME_MAX) {
                self.let_it_reload().await;
                emptied_at = Some(now);
            }
            waiting.sleep(Duration::from_millis(5)).await;
        }
    }

    /// The gate forgets everything, and the worker that is to be struck loads it: the other one sleeps until that has begun.
    /// It may sleep over locks that the loader needs, or over a marker; so it does not sleep long, and this may be in vain.
    async fn let_it_reload(&mut self) {
        let clock = RealClock::new();
        let [struck, other] = &self.crew.workers[..] else { panic!("there are two") };
        other.serving().freeze();
        let before = self.epochs();
        self.empty_gate();
        while !struck.is_struck() && self.epochs() == before && clock.monotonic() < HEAD_START_MAX {
            clock.sleep(Duration::from_millis(5)).await;
        }
        other.serving().resume();
    }

    async fn strike(&mut self, moment: Moment, strike: Strike, sale: &str) {
        match strike {
            Strike::Killed => {}
            Strike::Silent => self.other_settles_all(sale).await,
            Strike::Frozen if self.is_overtaken(moment, strike) => {}
            Strike::Frozen => RealClock::new().sleep(FROZEN).await,
            Strike::GateEmptied => self.empty_gate(),
            Strike::SessionsEnded => drop(self.servers().psql(END_SESSIONS)),
            Strike::GateKilled => self.servers().own(|trio| {
                trio.redis.server.kill();
                trio.redis.start_again();
            }),
            Strike::LedgerKilled => self.servers().own(|trio| {
                trio.postgres.kill();
                trio.postgres.start_again();
            }),
            Strike::QueueKilled => self.servers().own(|trio| {
                trio.rabbit.kill();
                trio.rabbit.start_again();
            }),
        }
        if self.is_overtaken(moment, strike) {
            self.is_loaded().await;
        }
    }

    /// Whether another process loads the gate while the one that was struck stands still. Where that one keeps a shard from
    /// all others, nobody can.
    fn is_overtaken(&self, moment: Moment, strike: Strike) -> bool {
        let reloads = match strike {
            Strike::Killed | Strike::Silent => false,
            Strike::GateEmptied | Strike::GateKilled => is_of_an_api(moment) || is_reload(moment),
            Strike::Frozen | Strike::SessionsEnded | Strike::LedgerKilled | Strike::QueueKilled => {
                is_reload(moment) && moment != Moment::Opened
            }
        };
        reloads && self.servers.is_some()
    }

    /// The sum of the epochs of all sales that go on.
    fn epochs(&self) -> u64 {
        self.asks("select coalesce(sum(epoch), 0) from sales where phase <> 'closed'")
    }

    /// Waits until the gate admits every sale that goes on. What its loader left shut is opened by another process.
    async fn is_loaded(&self) {
        let servers = self.servers.as_ref().expect("the stage is distributed");
        let (url, sales) = (servers.url("REDIS_URL"), servers.psql("select id from sales where phase <> 'closed'"));
        let live =
            |sale: &str| say::<Option<u8>>(&url, &["HGET", &format!("sluice:{{{sale}}}:head"), "live"]) == Some(1);
        eventually("another process has loaded the gate", async || sales.lines().all(live)).await;
    }

    /// Waits until the whole sale is in the ledger.
    async fn other_settles_all(&self, sale: &str) {
        let settled = format!("select count(*) from orders where sale = '{sale}'");
        eventually("the other worker settles all", async || self.asks(&settled) >= UNITS as u64).await;
    }

    /// A number out of the ledger.
    fn asks(&self, sql: &str) -> u64 {
        self.servers.as_ref().expect("the stage is distributed").psql(sql).parse().unwrap()
    }

    fn servers(&mut self) -> &mut Servers<'a> {
        self.servers.as_mut().expect("the stage is distributed")
    }

    fn empty_gate(&self) {
        let servers = self.servers.as_ref().expect("the stage is distributed");
        let _done: String = say(&servers.url("REDIS_URL"), &["FLUSHDB"]);
    }

    /// Who stands still goes on; who is dead, or may still come to the moment, lives anew.
    fn heal(&mut self, moment: Moment, strike: Strike) {
        let left_over = moment == Moment::Swept;
        for member in self.actors(moment, strike) {
            member.go_on();
        }
        if left_over {
            self.crew.apis[0].go_on();
        }
        self.crew.members().for_each(Member::is_up);
    }
}

/// Buyers come one after the other for what was cancelled or added: the last units are a moment on their way back to the gate.
async fn buy_the_rest(target: &Target, sale: &str, units: usize, promised: &mut HashMap<String, End>) {
    let clock = RealClock::new();
    for number in 0.. {
        let family = format!("rest{number}");
        promised.extend(Buyers::come(std::slice::from_ref(target), sale, &family, 1, Habit::Keep).gone().await);
        let taken = promised.values().filter(|end| **end != End::Cancelled).count();
        if taken == units || clock.monotonic() > RETURN_TIME_MAX {
            return;
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
}

impl Servers<'_> {
    fn env(&self) -> Env {
        match self {
            Servers::Shared(_, env) => env.clone(),
            Servers::Own(trio) => trio.env(),
        }
    }

    /// What this variable says.
    fn url(&self, name: &str) -> String {
        self.env().into_iter().find(|(other, _)| *other == name).expect("it has one").1
    }

    fn psql(&self, sql: &str) -> String {
        let url = self.url("DATABASE_URL");
        let trio = match self {
            Servers::Shared(trio, _) => trio,
            Servers::Own(trio) => &**trio,
        };
        trio.postgres.psql(url.rsplit('/').next().unwrap(), sql)
    }

    fn own(&mut self, strike: impl FnOnce(&mut Trio)) {
        match self {
            Servers::Own(trio) => strike(trio),
            Servers::Shared(..) => panic!("others use them"),
        }
    }
}

/// What the crowd has to do so that somebody comes to this moment.
fn habit(moment: Moment) -> Habit {
    match moment {
        Moment::BeforeTurn | Moment::Turned => Habit::Turn,
        Moment::Lapsed => Habit::LetLapse(UNITS * 3 / 2),
        _ => Habit::Keep,
    }
}

fn is_of_an_api(moment: Moment) -> bool {
    use Moment::{Admitted, Answered, BeforeAdmit, BeforePublish, BeforeTurn, Confirmed, Published, Turned};
    matches!(moment, BeforeAdmit | Admitted | BeforePublish | Published | Confirmed | Answered | BeforeTurn | Turned)
}

fn is_reload(moment: Moment) -> bool {
    use Moment::{Bound, Closed, Fenced, Live, Loaded, Opened, Raised, Waited};
    matches!(moment, Raised | Fenced | Waited | Closed | Loaded | Bound | Live | Opened)
}

/// Whether one buyer comes. The push of others would be on its way while the process stands still; then it wakes, finds that
/// too late and gives its connection up, and what was admitted would not reach the queue's fence.
fn is_alone(moment: Moment, strike: Strike) -> bool {
    moment == Moment::Admitted && matches!(strike, Strike::GateEmptied | Strike::GateKilled)
}

/// Whether an operator adds and withdraws stock meanwhile.
fn is_adjusted(moment: Moment) -> bool {
    matches!(moment, Moment::Admitted | Moment::Confirmed | Moment::Committed | Moment::Followed)
}

fn is_in_full_swing(moment: Moment) -> bool {
    !is_reload(moment) && !matches!(moment, Moment::Lapsed | Moment::Swept)
}
