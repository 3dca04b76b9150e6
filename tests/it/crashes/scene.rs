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

use super::{account, probe};
use crate::buyers::{Buyers, End, Habit};
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
const MET_TIME_MAX: Duration = Duration::from_secs(20);
/// From the last cancel until its unit is on sale again.
const RETURN_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a process stands still: longer than a push may take.
const FROZEN: Duration = Duration::from_millis(2_600);
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
        let buyers = Buyers::come(std::slice::from_ref(&target), &sale, "c", BUYERS, habit);
        if self.servers.is_some() && is_reload(moment) {
            eventually("the sale is in full swing", async || buyers.promised() >= SWING).await;
            self.empty_gate();
        }
        let scene = format!("{}@{}", strike.name(), moment.name());
        let waiting = RealClock::new();
        while !self.actors(moment).iter().any(Member::is_struck) {
            let promised = buyers.promised();
            assert!(
                waiting.monotonic() < MET_TIME_MAX,
                "{scene}: not met after {promised} promises: {}",
                self.crew.said()
            );
            waiting.sleep(Duration::from_millis(5)).await;
        }
        self.strike(strike).await;
        let healed = RealClock::new();
        self.heal(moment);
        probe::serves(&target, &sale).await;
        buyers.one_more("late").await;
        let took = healed.monotonic();
        let mut promised = buyers.gone().await;
        if habit == Habit::Turn {
            buy_the_rest(&target, &sale, &mut promised).await;
        }
        let taken = account::hold(&target, &sale, &promised).await;
        assert_eq!(taken, if matches!(habit, Habit::LetLapse(_)) { 0 } else { UNITS }, "{scene}");
        let _closed: Value =
            target.ask(Method::POST, &format!("/v1/sales/{sale}/close"), Some(TOKEN), None).await.unwrap();
        took
    }

    /// Lets the processes that come to the moment meet it in their next life; an API a few steps later each time. A worker
    /// takes all that waits in few steps, so it is the first time that counts there.
    async fn arm(&mut self, moment: Moment, strike: Strike) {
        let signal = if strike == Strike::Killed { "kill" } else { "freeze" };
        let times = if is_of_an_api(moment) { 1 + self.scenes % 5 } else { 1 };
        for member in self.actors(moment) {
            member.kill();
            member.spawn(&[(VARIABLE, format!("{}:{signal}@{times}", moment.name()))]);
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
    fn actors(&mut self, moment: Moment) -> &mut [Member] {
        if is_of_an_api(moment) || self.servers.is_none() { &mut self.crew.apis } else { &mut self.crew.workers }
    }

    async fn strike(&mut self, strike: Strike) {
        match strike {
            Strike::Killed => {}
            Strike::Frozen => RealClock::new().sleep(FROZEN).await,
            Strike::GateEmptied => self.empty_gate(),
            Strike::SessionsEnded => self.servers().psql(END_SESSIONS),
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
    }

    fn servers(&mut self) -> &mut Servers<'a> {
        self.servers.as_mut().expect("the stage is distributed")
    }

    fn empty_gate(&mut self) {
        let url = self.servers().env().into_iter().find(|(name, _)| *name == "REDIS_URL").expect("it has one").1;
        let _done: String = say(&url, &["FLUSHDB"]);
    }

    /// Who stands still goes on; who is dead, or may still come to the moment, lives anew.
    fn heal(&mut self, moment: Moment) {
        let left_over = moment == Moment::Swept;
        for member in self.actors(moment) {
            member.go_on();
        }
        if left_over {
            self.crew.apis[0].go_on();
        }
        self.crew.members().for_each(Member::is_up);
    }
}

/// Buyers come one after the other for what was cancelled: the last units are a moment on their way back to the gate.
async fn buy_the_rest(target: &Target, sale: &str, promised: &mut HashMap<String, End>) {
    let clock = RealClock::new();
    for number in 0.. {
        let family = format!("rest{number}");
        promised.extend(Buyers::come(std::slice::from_ref(target), sale, &family, 1, Habit::Keep).gone().await);
        let taken = promised.values().filter(|end| **end != End::Cancelled).count();
        if taken == UNITS || clock.monotonic() > RETURN_TIME_MAX {
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

    fn psql(&self, sql: &str) {
        let url = self.env().into_iter().find(|(name, _)| *name == "DATABASE_URL").expect("it has one").1;
        let trio = match self {
            Servers::Shared(trio, _) => trio,
            Servers::Own(trio) => &**trio,
        };
        trio.postgres.psql(url.rsplit('/').next().unwrap(), sql);
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

fn is_in_full_swing(moment: Moment) -> bool {
    !is_reload(moment) && !matches!(moment, Moment::Lapsed | Moment::Swept)
}
