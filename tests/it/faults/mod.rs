//! Faults between the processes and their servers: real processes, real servers, a crowd that insists, and one fault (or
//! two) in full swing. Afterwards, without anybody's help: each API sells again within five seconds, everything promised is
//! held in the ledger, every unit is sold to the last, and the audit finds nothing. The names of the tests are the list of
//! the faults.

mod crowd;
mod gate;
mod ledger;
mod overload;
mod pairs;
mod processes;
mod queue;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use sluice::clock::{Clock, RealClock};
use sluice::load::wire::Target;
use tokio::time::timeout;

use self::crowd::Crowd;
use crate::cluster::{Cluster, TOKEN};
use crate::process::Env;
use crate::servers::frames::{Kind, Protocol, Side};
use crate::servers::proxy::{Proxy, Strike};
use crate::servers::redis::say;
use crate::servers::trio::Trio;
use crate::servers::{Turn, turn};
use crate::support::eventually;

/// From the end of a fault until every API sells, and the ledger has it.
const FULL_SERVICE_TIME_MAX: Duration = Duration::from_secs(5);
/// Orders that are accepted before a fault strikes.
const FULL_SWING: usize = 200;
/// Units of a sale, unless its fault takes long: some are left when it ends.
const UNITS: usize = 2_500;

/// For how long a link carries nothing: longer than any step waits for an answer.
const STALLED: Duration = Duration::from_secs(4);

/// How often a scene repeats what it cuts: `SLUICE_CUTS=100` is for those who have time.
fn cuts() -> usize {
    std::env::var("SLUICE_CUTS").ok().map_or(4, |cuts| cuts.parse().expect("SLUICE_CUTS is a number"))
}

/// Units that outlast so many cuts.
fn units_for(cuts: usize) -> usize {
    UNITS + 400 * cuts
}

async fn lasts(time: Duration) {
    RealClock::new().sleep(time).await;
}

/// A cluster with a proxy on every way to a server: one for the APIs, one for the workers.
pub(crate) struct Site {
    cluster: Cluster,
    apis: Links,
    workers: Links,
    sales: usize,
}

/// The ways of some processes to their servers.
pub(crate) struct Links {
    redis: Proxy,
    rabbit: Proxy,
    postgres: Proxy,
}

impl Links {
    fn of(trio: &Trio) -> Self {
        Self {
            redis: Proxy::start(Protocol::Redis, trio.redis.port),
            rabbit: Proxy::start(Protocol::Amqp, trio.rabbit.port),
            postgres: Proxy::start(Protocol::Postgres, trio.postgres.port),
        }
    }

    fn env(&self, trio: &Trio) -> Env {
        let proxy = |name: &str| match name {
            "DATABASE_URL" => &self.postgres,
            "REDIS_URL" => &self.redis,
            _ => &self.rabbit,
        };
        trio.env().into_iter().map(|(name, url)| (name, proxy(name).lead(&url))).collect()
    }
}

impl Site {
    fn start() -> Self {
        let trio = Trio::start();
        let (apis, workers) = (Links::of(&trio), Links::of(&trio));
        let (api_env, worker_env) = (apis.env(&trio), workers.env(&trio));
        let cluster = Cluster::apart(trio, &api_env, &worker_env);
        Self { cluster, apis, workers, sales: 0 }
    }

    fn redis(&self) -> [&Proxy; 2] {
        [&self.apis.redis, &self.workers.redis]
    }

    /// What Redis says to this.
    fn redis_says<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        say(&self.cluster.trio.redis.url(), command)
    }
}

/// Whose link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Apis,
    Workers,
}

/// What a link that carries nothing one way is certain to hold up.
enum Struck {
    Orders,
    Settling,
    PerhapsNothing,
}

/// The site that no test has at the moment.
static IDLE: Mutex<Option<Site>> = Mutex::new(None);

/// A site that one test has for itself. It passes on to the next one, unless the test has failed.
struct Lease {
    site: Option<Site>,
    _turn: Turn,
}

impl Lease {
    async fn take() -> Self {
        let turn = turn().await;
        let idle = IDLE.lock().unwrap().take();
        Self { site: Some(idle.unwrap_or_else(Site::start)), _turn: turn }
    }

    fn site(&mut self) -> &mut Site {
        self.site.as_mut().unwrap()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            *IDLE.lock().unwrap() = self.site.take();
        }
    }
}

/// A sale in full swing on a site.
struct Scene {
    lease: Lease,
    sale: String,
    units: usize,
    crowd: Arc<Crowd>,
}

impl Scene {
    /// Opens a sale of so many units; comes back once the crowd buys.
    async fn begin(units: usize) -> Self {
        Self::at(units, |urls| urls).await
    }

    /// The same, with other ways to the APIs.
    async fn at(units: usize, ways: impl FnOnce(Vec<String>) -> Vec<String>) -> Self {
        let mut lease = Lease::take().await;
        let site = lease.site();
        site.sales += 1;
        let sale = format!("sale-{}", site.sales);
        let items = json!([{ "sku": "a", "stock": units }]);
        let body = json!({ "id": sale, "name": sale, "opens_at": "2020-01-01T00:00:00Z", "items": items,
            "per_customer_limit": 1 });
        let target = site.cluster.targets().await.swap_remove(0);
        let _created: Value = target.ask(Method::POST, "/v1/sales", Some(TOKEN), Some(&body)).await.unwrap();
        let mut targets = Vec::new();
        for url in ways(site.cluster.urls()) {
            targets.push(Target::find(&url, false).await.unwrap());
        }
        let crowd = Crowd::gather(&sale, targets);
        crowd.accepts(FULL_SWING).await;
        Self { lease, sale, units, crowd }
    }

    fn site(&self) -> &Site {
        self.lease.site.as_ref().unwrap()
    }

    fn cluster(&mut self) -> &mut Cluster {
        &mut self.lease.site().cluster
    }

    fn servers(&mut self) -> &mut Trio {
        &mut self.cluster().trio
    }

    /// Cuts a connection right before such a message, so many times; the crowd goes on buying after each.
    async fn strikes(&self, way: impl Fn(&Site) -> &Proxy, (side, kind): (Side, Kind), times: usize) {
        let proxy = way(self.site());
        let before = proxy.struck();
        for time in 1..=times {
            proxy.trap(side, kind, Strike::Cut, 1);
            eventually("the trap strikes", async || proxy.struck() == before + time).await;
            self.crowd.accepts(10).await;
        }
        println!("{}: cut {times} times", name());
    }

    /// The fault is over: now everything has to come right by itself.
    async fn all_is_well(self) {
        let accepted = self.crowd.accepted();
        let back = self.is_in_full_service("healed").await;
        let promises = self.crowd.finish().await;
        println!(
            "{}: full service {} ms after healing; {accepted} of {} accepted before it, {} times not now, {} times no answer, \
             {} left",
            name(),
            back.as_millis(),
            self.units,
            self.crowd.not_now(),
            self.crowd.unanswered(),
            self.crowd.left().len(),
        );
        self.adds_up(&promises).await;
        assert!(back < FULL_SERVICE_TIME_MAX, "full service only after {back:?}\n{}", self.said());
    }

    /// How long it takes from now until every API has sold a unit to somebody new, and the ledger has it.
    async fn is_in_full_service(&self, who: &str) -> Duration {
        let clock = RealClock::new();
        let apis = 0..self.site().cluster.apis.len();
        let probes = apis.map(async |at| self.crowd.order_until_settled(at, &format!("probe-{who}-{at}")).await);
        let well = timeout(Duration::from_secs(30), join_all(probes)).await;
        assert!(well.is_ok(), "no service after {:?}\n{}", clock.monotonic(), self.said());
        clock.monotonic()
    }

    /// Lets nothing of one side arrive at the other for a while, on each link to one server in turn, in each direction.
    async fn nothing_arrives_one_way(&self, link: impl Fn(&Links) -> &Proxy, struck: impl Fn(Who, Side) -> Struck) {
        let site = self.site();
        for (who, links) in [(Who::Apis, &site.apis), (Who::Workers, &site.workers)] {
            for side in [Side::Client, Side::Server] {
                let (scene, healed) = (format!("{who:?}, what the {side:?} sends"), format!("{who:?}-{side:?}"));
                let before = self.refused();
                link(links).stall(side);
                lasts(STALLED).await;
                match struck(who, side) {
                    Struck::Orders => eventually("orders are refused", async || self.refused() > before).await,
                    Struck::Settling => self.accepted_orders_wait().await,
                    Struck::PerhapsNothing => {}
                }
                link(links).heal();
                let back = self.is_in_full_service(&healed).await;
                println!("{}: {scene}: full service {} ms after healing", name(), back.as_millis());
                assert!(back < FULL_SERVICE_TIME_MAX, "{scene}: full service only after {back:?}\n{}", self.said());
            }
        }
    }

    /// Requests that were not answered, or with "not now".
    fn refused(&self) -> usize {
        self.crowd.not_now() + self.crowd.unanswered()
    }

    /// How many accepted orders the ledger does not have.
    fn waiting(&self) -> usize {
        let settled = format!("select count(*) from orders where sale = '{}'", self.sale);
        let settled: usize = self.site().cluster.trio.psql(&settled).parse().unwrap();
        self.crowd.accepted().saturating_sub(settled)
    }

    /// Nothing is settled any more, and orders are accepted all the same.
    async fn accepted_orders_wait(&self) {
        eventually("accepted orders wait", async || self.waiting() >= FULL_SWING).await;
    }

    /// All units are sold, to exactly those who were promised one, and every layer agrees.
    async fn adds_up(&self, promises: &HashMap<String, String>) {
        let (sale, units) = (self.sale.clone(), self.units);
        let said = self.said();
        let site = self.site();
        let target = site.cluster.targets().await.swap_remove(0);
        let last = Mutex::new(Value::Null);
        let path = format!("/v1/sales/{sale}/audit");
        eventually("the audit is no longer unsettled", async || {
            let audit: Value = match target.ask(Method::GET, &path, Some(TOKEN), None).await {
                Ok(audit) => audit,
                Err(_) => return false,
            };
            let settled = audit["verdict"] != "unsettled";
            *last.lock().unwrap() = audit;
            settled
        })
        .await;
        let audit = last.into_inner().unwrap();
        assert_eq!(audit["verdict"], "exact", "{audit}\n{said}");
        for number in ["oversold", "undersold", "leaked", "lost", "doubled", "broken_promises", "conservation_errors"] {
            assert_eq!(audit[number], 0, "{number}: {audit}\n{said}");
        }
        let orders = format!("select customer, state, id from orders where sale = '{sale}'");
        let orders = site.cluster.trio.psql(&orders);
        let orders: Vec<Vec<&str>> = orders.lines().map(|order| order.split('|').collect()).collect();
        let left = self.crowd.left();
        let kept: Vec<_> = orders.iter().filter(|order| left.contains(order[0])).collect();
        assert!(kept.is_empty(), "{kept:?} were told that nothing had happened, and have orders\n{said}");
        let held = orders.iter().filter(|order| order[1] == "held");
        let held: HashSet<String> = held.map(|order| format!("ord_{}", order[2].replace('-', ""))).collect();
        let promised: HashSet<String> = promises.values().cloned().collect();
        let lost: Vec<_> = promised.difference(&held).collect();
        let unknown: Vec<_> = held.difference(&promised).collect();
        assert!(lost.is_empty() && unknown.is_empty(), "lost {lost:?}, held by nobody {unknown:?}\n{said}");
        assert_eq!(promised.len(), units, "units are left, and everybody was told that all is sold\n{said}");
        self.crowd.ask_once_more(promises).await;
        // So that it does not concern the scenes that follow here.
        let close = format!("/v1/sales/{sale}/close");
        let _closed: Value = target.ask(Method::POST, &close, Some(TOKEN), None).await.unwrap();
    }

    /// What the processes said, for whoever has to find out why.
    fn said(&self) -> String {
        self.site().cluster.said()
    }
}

/// Of the test that runs on this thread.
fn name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}
