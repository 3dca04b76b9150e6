//! The usual ways to sell from a table of PostgreSQL, each with a connection per customer who is being served. READ COMMITTED,
//! the level that everybody has, is the one that surprises: a transaction around reading and writing changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use futures_util::future::try_join_all;
use tokio_postgres::{Client, NoTls};

use super::trace::{Rule, Try, first_wrong};
use super::{LINES, Round, Setting, arrivals};
use crate::clock::Clock;
use crate::config::Secret;

/// A way to sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ReadThenWrite,
    InTransaction,
    Locked,
    OneStatement,
}

impl Way {
    pub(super) const ALL: [Way; 4] = [Way::ReadThenWrite, Way::InTransaction, Way::Locked, Way::OneStatement];

    /// Id, name, whether it is guarded, and how it goes.
    pub(super) fn words(self) -> (&'static str, &'static str, bool, &'static str) {
        match self {
            Way::ReadThenWrite => (
                "postgres-read-then-write",
                "PostgreSQL: read, check, write",
                false,
                "Reads how many there are, checks in the program, and writes back one less.",
            ),
            Way::InTransaction => (
                "postgres-transaction",
                "PostgreSQL: the same in a transaction",
                false,
                "begin, read, check, write, insert, commit, at READ COMMITTED: it still oversells.",
            ),
            Way::Locked => (
                "postgres-for-update",
                "PostgreSQL: select … for update",
                true,
                "The same transaction, but the row is locked while it is read.",
            ),
            Way::OneStatement => (
                "postgres-one-statement",
                "PostgreSQL: one conditional update",
                true,
                "update … set available = available - 1 where available > 0, and the order in the same transaction.",
            ),
        }
    }
}

/// The tables of one race, gone when it is over.
pub(super) struct Tables {
    url: Secret,
    schema: String,
    client: Client,
}

impl Tables {
    /// Makes the tables in a schema of their own. The server has to be reachable without TLS.
    pub(super) async fn create(url: &Secret, clock: &dyn Clock) -> anyhow::Result<Self> {
        let client = connect(url).await?;
        let schema = format!("sluice_race_{:016x}", clock.chance());
        let sql = format!(
            "/* race: tables */ create schema {schema}; create table {schema}.stock (available integer not null); \
             create table {schema}.sold (customer integer primary key)"
        );
        client.batch_execute(&sql).await.context("cannot create the race's tables")?;
        Ok(Self { url: url.clone(), schema, client })
    }

    /// Removes the tables.
    pub(super) async fn remove(self) -> anyhow::Result<()> {
        let sql = format!("/* race: clean up */ drop schema {} cascade", self.schema);
        self.client.batch_execute(&sql).await.context("cannot remove the race's tables")
    }

    /// Runs one way with one seed.
    pub(super) async fn run(
        &self,
        way: Way,
        setting: Setting,
        seed: u32,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Round> {
        let (schema, units) = (&self.schema, setting.units);
        let sql = format!(
            "/* race: begin */ truncate {schema}.stock, {schema}.sold; insert into {schema}.stock values ({units})"
        );
        self.client.batch_execute(&sql).await?;
        let mut clients = Vec::new();
        for _ in 0..LINES {
            let client = connect(&self.url).await?;
            client.batch_execute(&format!("/* race: path */ set search_path = {schema}")).await?;
            clients.push(client);
        }
        let crowd =
            Arc::new(Crowd { way, clock: clock.clone(), arrivals: arrivals(setting, seed), next: AtomicUsize::new(0) });
        let start = clock.monotonic();
        let lines = clients.into_iter().map(|client| tokio::spawn(crowd.clone().line(client)));
        let lines: Vec<Vec<Try>> = try_join_all(lines).await?.into_iter().collect::<anyhow::Result<_>>()?;
        let time = clock.monotonic().saturating_sub(start);
        let tries: Vec<Try> = lines.into_iter().flatten().collect();
        let sql = format!("/* race: count */ select count(*) from {schema}.sold");
        let sold: i64 = self.client.query_one(&sql, &[]).await?.get(0);
        let rule = match way {
            Way::ReadThenWrite | Way::InTransaction => Some(Rule::SameValueTwice),
            Way::Locked | Way::OneStatement => None,
        };
        let wrong = rule.and_then(|rule| first_wrong(rule, &tries, start));
        Round::new(u32::try_from(sold)?, &tries, time, wrong)
    }
}

struct Crowd {
    way: Way,
    clock: Arc<dyn Clock>,
    arrivals: Vec<u32>,
    next: AtomicUsize,
}

impl Crowd {
    /// Serves one customer after the other.
    async fn line(self: Arc<Self>, client: Client) -> anyhow::Result<Vec<Try>> {
        let mut tries = Vec::new();
        while let Some(customer) = self.arrivals.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let customer = i32::try_from(*customer)?;
            let mut one = Try::begin(self.clock.monotonic());
            match self.way {
                Way::ReadThenWrite => self.read_then_write(&client, customer, &mut one).await?,
                Way::InTransaction | Way::Locked => {
                    client.batch_execute("/* race */ begin isolation level read committed").await?;
                    self.read_then_write(&client, customer, &mut one).await?;
                    client.batch_execute("/* race */ commit").await?;
                }
                Way::OneStatement => self.one_statement(&client, customer, &mut one).await?,
            }
            one.end(self.clock.monotonic());
            tries.push(one);
        }
        Ok(tries)
    }

    async fn read_then_write(&self, client: &Client, customer: i32, one: &mut Try) -> anyhow::Result<()> {
        let sql = match self.way {
            Way::Locked => "/* race: read */ select available from stock for update",
            _ => "/* race: read */ select available from stock",
        };
        let available: i32 = client.query_one(sql, &[]).await?.get(0);
        one.saw(self.clock.monotonic(), available.into());
        if available > 0 {
            client.execute("/* race: write */ update stock set available = $1", &[&(available - 1)]).await?;
            one.left(self.clock.monotonic(), (available - 1).into());
            client.execute("/* race: sell */ insert into sold values ($1)", &[&customer]).await?;
            one.sold = true;
        }
        Ok(())
    }

    async fn one_statement(&self, client: &Client, customer: i32, one: &mut Try) -> anyhow::Result<()> {
        let sql = "/* race: sell one */ with taken as (update stock set available = available - 1 where available > 0 \
                   returning available) insert into sold select $1 from taken";
        one.sold = client.execute(sql, &[&customer]).await? > 0;
        Ok(())
    }
}

async fn connect(url: &Secret) -> anyhow::Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url.reveal(), NoTls).await.context("cannot reach the race's PostgreSQL without TLS")?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the race ended");
        }
    });
    Ok(client)
}
