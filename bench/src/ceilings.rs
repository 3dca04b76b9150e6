//! What each of the three servers can do alone on this machine, asked as well as we know how. No architecture over them is
//! faster.

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionProperties};
use sluice::clock::{Clock, RealClock};
use tokio::try_join;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::figures::Effort;
use crate::report::Report;
use crate::scene::Scene;
use crate::servers::trio::Trio;

/// Script calls in one pipeline.
const PIPELINE: usize = 32;
/// Pipelines under way at once.
const PIPELINES: usize = 8;
/// Channels that publish at the same time.
const LANES: usize = 4;
/// Messages of each of them without a confirm yet.
const UNCONFIRMED_MAX: usize = 250;
const CEILING: &str = "ceiling";
/// Orders in one settlement.
const BATCH: usize = 1_000;

/// All of them.
pub(crate) async fn measure(effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let scene = Scene::distributed().await?;
    let trio = scene.trio.as_ref().context("it is distributed")?;
    let mut set_based = SetBased::start(&scene).await?;
    let scripts = format!("Redis alone: script calls, {PIPELINE} a pipeline");
    let mut figures = [
        report.figure("ceiling-redis", &scripts, "/s"),
        report.figure("ceiling-rabbitmq-200", "RabbitMQ alone: confirmed messages of 200 B", "/s"),
        report.figure("ceiling-rabbitmq-20k", "RabbitMQ alone: confirmed messages of 20 kB", "/s"),
        report.figure("ceiling-postgresql", "PostgreSQL alone: orders, 1,000 a batch", "/s"),
    ];
    let size = if effort.quick { 1 } else { 3 };
    for round in 0..=effort.rounds {
        let values = [
            scripts_per_s(trio, 100_000 * size).await?,
            messages_per_s(trio, 200, 20_000 * size).await?,
            messages_per_s(trio, 20_000, 4_000 * size).await?,
            set_based.run(30 * size).await?,
        ];
        if round > 0 {
            figures.iter_mut().zip(values).for_each(|(figure, value)| figure.subject.values.push(value));
        }
    }
    for mut figure in figures {
        figure.subject.name = "alone".to_owned();
        report.put(figure)?;
    }
    Ok(())
}

/// What a gate of one order a call does: read, compare, take, remember.
const TAKE: &str = "
local available = tonumber(redis.call('get', KEYS[1]) or '0')
if available < 1 then return 0 end
redis.call('decr', KEYS[1])
redis.call('hset', KEYS[2], ARGV[1], 1)
return 1";

async fn scripts_per_s(trio: &Trio, calls: usize) -> anyhow::Result<f64> {
    let client = redis::Client::open(trio.redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("SET").arg("ceiling:stock").arg(1_000_000_000).exec_async(&mut connection).await?;
    let hash: String = redis::cmd("SCRIPT").arg("LOAD").arg(TAKE).query_async(&mut connection).await?;
    let clock = RealClock::new();
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..PIPELINES {
        let (mut connection, hash) = (client.get_multiplexed_async_connection().await?, hash.clone());
        lanes.spawn(async move {
            for number in 0..calls / PIPELINES / PIPELINE {
                let mut pipe = redis::pipe();
                for call in 0..PIPELINE {
                    let id = format!("ord_{lane}_{number}_{call}");
                    pipe.cmd("EVALSHA").arg(&hash).arg(2).arg("ceiling:stock").arg("ceiling:orders").arg(id);
                }
                let taken: Vec<u8> = pipe.query_async(&mut connection).await?;
                ensure!(taken.iter().all(|&taken| taken == 1), "a call took nothing");
            }
            Ok(calls / PIPELINES / PIPELINE * PIPELINE)
        });
    }
    let mut done = 0;
    while let Some(lane) = lanes.join_next().await {
        done += lane??;
    }
    let per_s = done as f64 / clock.monotonic().as_secs_f64();
    redis::cmd("DEL").arg("ceiling:stock").arg("ceiling:orders").exec_async(&mut connection).await?;
    Ok(per_s)
}

async fn messages_per_s(trio: &Trio, bytes: usize, messages: usize) -> anyhow::Result<f64> {
    let connection = lapin::Connection::connect(&trio.rabbit.url("v1"), ConnectionProperties::default()).await?;
    let control = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    control.queue_declare(CEILING.into(), QueueDeclareOptions::durable(), arguments).await?;
    let clock = RealClock::new();
    let mut lanes = tokio::task::JoinSet::new();
    for _lane in 0..LANES {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        lanes.spawn(publish(channel, vec![b'x'; bytes], messages / LANES));
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    let per_s = (messages / LANES * LANES) as f64 / clock.monotonic().as_secs_f64();
    control.queue_delete(CEILING.into(), lapin::options::QueueDeleteOptions::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(per_s)
}

async fn publish(channel: Channel, body: Vec<u8>, messages: usize) -> anyhow::Result<()> {
    let mut confirms = VecDeque::with_capacity(UNCONFIRMED_MAX);
    for _message in 0..messages {
        if confirms.len() == UNCONFIRMED_MAX {
            taken(confirms.pop_front().context("a confirm")?.await?)?;
        }
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        confirms.push_back(channel.basic_publish("".into(), CEILING.into(), options, &body, persistent).await?);
    }
    while let Some(confirm) = confirms.pop_front() {
        taken(confirm.await?)?;
    }
    Ok(())
}

fn taken(confirm: Confirmation) -> anyhow::Result<()> {
    ensure!(confirm == Confirmation::Ack(None), "a message was not taken: {confirm:?}");
    Ok(())
}

/// Settlement as raw SQL into Sluice's own tables, without Sluice: no queue to read, nothing to decide, no hash to count.
pub(crate) struct SetBased {
    client: Client,
    statements: Statements,
    seq: i64,
}

/// What a statement is executed with.
type Values<'a, const N: usize> = [&'a (dyn tokio_postgres::types::ToSql + Sync); N];

struct Statements {
    lock_sale: Statement,
    lock_item: Statement,
    orders: Statement,
    moves: Statement,
    item: Statement,
    sale: Statement,
}

impl SetBased {
    /// Over a database of its own on the scene's PostgreSQL, with the tables that `sluice migrate` creates.
    pub(crate) async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let trio = scene.trio.as_ref().context("it is distributed")?;
        let url = trio.postgres.database();
        let migrated = scene.command(&["migrate"]).env("DATABASE_URL", &url).output()?;
        ensure!(migrated.status.success(), "sluice migrate failed: {}", String::from_utf8_lossy(&migrated.stderr));
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        client
            .batch_execute(
                "insert into sales (id, name, phase, hold_seconds, created_at, hash) \
                     values ('s', 's', 'armed', 600, now(), decode(repeat('00', 32), 'hex'));
                 insert into items values ('s', 'ps5', 0, 'ps5', 100, 'EUR', 500000000, 500000000, 0, 0)",
            )
            .await?;
        let statements = Statements::prepare(&client).await?;
        Ok(Self { client, statements, seq: 0 })
    }

    /// Orders a second over so many batches, one after another.
    pub(crate) async fn run(&mut self, batches: usize) -> anyhow::Result<f64> {
        let clock = RealClock::new();
        for _batch in 0..batches {
            self.settle().await?;
        }
        let per_s = (batches * BATCH) as f64 / clock.monotonic().as_secs_f64();
        let kept: i64 = self.client.query_one("select count(*) from orders", &[]).await?.get(0);
        ensure!(kept == self.seq, "{kept} orders are kept of {}", self.seq);
        Ok(per_s)
    }

    /// One transaction in two trips: lock, then write everything and commit.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let (client, to) = (&self.client, &self.statements);
        try_join!(
            client.batch_execute("begin"),
            client.query_one(&to.lock_sale, &[]),
            client.query_one(&to.lock_item, &[]),
        )?;
        let seqs: Vec<i64> = (self.seq + 1..).take(BATCH).collect();
        let ids: Vec<Uuid> = seqs.iter().map(|_| Uuid::from_u128(fastrand::u128(..))).collect();
        let customers: Vec<String> = seqs.iter().map(|seq| format!("c-{}", 1_000_000_000 + seq)).collect();
        let hashes: Vec<Vec<u8>> = seqs.iter().map(|_| fastrand::u128(..).to_le_bytes().repeat(2)).collect();
        let (last, count) = (self.seq + BATCH as i64, BATCH as i32);
        let last_hash = hashes.last().context("a batch")?;
        let (orders, moves): (Values<'_, 3>, Values<'_, 3>) = ([&seqs, &ids, &customers], [&seqs, &ids, &hashes]);
        let (item, sale): (Values<'_, 1>, Values<'_, 2>) = ([&count], [&last, last_hash]);
        try_join!(
            client.execute(&to.orders, &orders),
            client.execute(&to.moves, &moves),
            client.execute(&to.item, &item),
            client.execute(&to.sale, &sale),
            client.batch_execute("commit"),
        )?;
        self.seq = last;
        Ok(())
    }
}

impl Statements {
    async fn prepare(client: &Client) -> anyhow::Result<Self> {
        Ok(Self {
            lock_sale: client.prepare("select seq, hash, epoch from sales where id = 's' for update").await?,
            lock_item: client.prepare("select stock, available, held, sold from items where sale = 's' for update").await?,
            orders: client
                .prepare(
                    "insert into orders (sale, settled_seq, id, customer, state, accepted_at, settled_at, expires_at, seq) \
                     select 's', seq, id, customer, 'held', now(), now(), now() + interval '600 s', seq \
                     from unnest($1::bigint[], $2::uuid[], $3::text[]) as v (seq, id, customer)",
                )
                .await?,
            moves: client
                .prepare(
                    "insert into moves (sale, seq, line, kind, claim, sku, units, at, hash) \
                     select 's', seq, 0, 'hold', id, 'ps5', 1, now(), hash \
                     from unnest($1::bigint[], $2::uuid[], $3::bytea[]) as v (seq, id, hash)",
                )
                .await?,
            item: client
                .prepare("update items set available = available - $1, held = held + $1 where sale = 's'")
                .await?,
            sale: client.prepare("update sales set seq = $1, hash = $2 where id = 's'").await?,
        })
    }
}
