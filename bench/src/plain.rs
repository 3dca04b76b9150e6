//! The plain architecture, as a baseline: the same three servers, and everything one by one. An order is one script call in
//! Redis, one message with one confirm in RabbitMQ, and one transaction in PostgreSQL that locks the item's row. It is
//! written with the same libraries: one multiplexed connection to Redis, pooled and prepared statements, as many workers as
//! settle most. What it lacks is Sluice's batches (and its epochs, journal, holds and limits).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::process::Env;
use crate::scene::{Control, SKU};

/// Of the item that is sold.
const STOCK: i64 = 500_000_000;
/// Messages that each worker holds before it has settled them. The architecture's usual form has 1, which waits for the
/// network between any two orders.
const PREFETCH: u16 = 32;
/// Channels that publish, in turns: confirms come per channel.
const LANES: usize = 4;
const QUEUE: &str = "orders";
/// Within the folder of a process.
const SERVERS: &str = "servers.json";

/// Takes units for an order once, and says 1; 0 if there are too few, 2 if this order has them already.
const TAKE: &str = "
if redis.call('hexists', KEYS[2], ARGV[1]) == 1 then return 2 end
local available = tonumber(redis.call('get', KEYS[1]) or '0')
local quantity = tonumber(ARGV[2])
if available < quantity then return 0 end
redis.call('decrby', KEYS[1], quantity)
redis.call('hset', KEYS[2], ARGV[1], quantity)
return 1";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Servers {
    postgres: String,
    redis: String,
    rabbitmq: String,
}

#[derive(Debug, Deserialize)]
struct Wish {
    customer: String,
    lines: Vec<WishLine>,
}

#[derive(Debug, Deserialize)]
struct WishLine {
    sku: String,
    quantity: i32,
}

/// What travels through the queue.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u128,
    customer: String,
    sku: String,
    quantity: i32,
}

/// Its API and its worker, running over servers of their own.
pub(crate) struct Plain {
    pub(crate) api: Control,
    worker: Option<Control>,
    servers: Servers,
}

impl Plain {
    /// Creates tables, stock and queue, and starts the API.
    pub(crate) async fn start(env: &Env) -> anyhow::Result<Self> {
        let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, url)| url.clone());
        let [postgres, redis, rabbitmq] = ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"].map(get);
        let servers = Servers {
            postgres: postgres.context("no PostgreSQL")?,
            redis: redis.context("no Redis")?,
            rabbitmq: rabbitmq.context("no RabbitMQ")?,
        };
        let pool = pool(&servers.postgres, 1)?;
        let tables = format!(
            "create table items (sku text primary key, stock bigint not null, available bigint not null check (available >= 0));
             create table orders (id uuid primary key, sku text not null, customer text not null, quantity integer not null,
                 created_at timestamptz not null default now());
             insert into items values ('{SKU}', {STOCK}, {STOCK})"
        );
        pool.get().await?.batch_execute(&tables).await?;
        let mut gate = redis::Client::open(servers.redis.as_str())?.get_multiplexed_async_connection().await?;
        redis::cmd("SET").arg(format!("stock:{SKU}")).arg(STOCK).exec_async(&mut gate).await?;
        let (connection, _channel) = declared(&servers.rabbitmq).await?;
        connection.close(200, "declared".into()).await?;
        let api = Control::start("the plain API", folder(&servers)?, "plain-api")?;
        Ok(Self { api, worker: None, servers })
    }

    /// Starts a process that settles so many orders at the same time.
    pub(crate) fn start_worker(&mut self, workers: usize) -> anyhow::Result<()> {
        let folder = folder(&self.servers)?;
        self.worker = Some(Control::start_with("the plain worker", folder, "plain-worker", workers)?);
        Ok(())
    }

    /// Ends the worker and throws away what it had not settled: nobody was promised anything here.
    pub(crate) async fn stop_worker(&mut self) -> anyhow::Result<()> {
        self.worker = None;
        let (connection, channel) = declared(&self.servers.rabbitmq).await?;
        channel.queue_purge(QUEUE.into(), lapin::options::QueuePurgeOptions::default()).await?;
        Ok(connection.close(200, "purged".into()).await?)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(&self.api).chain(&self.worker).map(|process| process.pid).collect()
    }
}

fn folder(servers: &Servers) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(SERVERS), serde_json::to_string(servers)?)?;
    Ok(folder)
}

fn servers(folder: &Path) -> anyhow::Result<Servers> {
    Ok(serde_json::from_str(&fs::read_to_string(folder.join(SERVERS))?)?)
}

fn pool(url: &str, size: usize) -> anyhow::Result<Pool> {
    let manager = Manager::from_config(url.parse()?, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Ok(Pool::builder(manager).max_size(size).build()?)
}

/// A durable quorum queue, as Sluice has.
async fn declared(url: &str) -> anyhow::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;
    Ok((connection, channel))
}

/// What the handlers share.
struct Shop {
    redis: MultiplexedConnection,
    take: redis::Script,
    lanes: Vec<Channel>,
    accepted: Bytes,
    sold_out: Bytes,
}

/// The API, until it is killed.
pub(crate) async fn serve(folder: &Path, port: u16) -> anyhow::Result<()> {
    let servers = servers(folder)?;
    let connection = Connection::connect(&servers.rabbitmq, ConnectionProperties::default()).await?;
    let mut lanes = Vec::new();
    for _lane in 0..LANES {
        let lane = connection.create_channel().await?;
        lane.confirm_select(ConfirmSelectOptions::default()).await?;
        lanes.push(lane);
    }
    let shop = Arc::new(Shop {
        redis: redis::Client::open(servers.redis)?.get_multiplexed_async_connection().await?,
        take: redis::Script::new(TAKE),
        lanes,
        accepted: Bytes::from_static(b"{\"state\":\"accepted\"}"),
        sold_out: Bytes::from_static(b"{\"state\":\"sold_out\"}"),
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    Control::ready(folder)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let shop = shop.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let shop = shop.clone();
            async move {
                let answer = match shop.place(request).await {
                    Ok(true) => (202, shop.accepted.clone()),
                    Ok(false) => (409, shop.sold_out.clone()),
                    Err(error) => (500, error.to_string().into()),
                };
                Response::builder()
                    .status(answer.0)
                    .header("content-type", "application/json")
                    .body(Full::new(answer.1))
            }
        });
        tokio::spawn(async move {
            // A client that hangs up is no concern of the baseline.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Shop {
    /// Takes the units at Redis and publishes the order; whether it is accepted.
    async fn place(&self, request: Request<Incoming>) -> anyhow::Result<bool> {
        let key = request.headers().get("idempotency-key").context("no key")?.to_str()?.to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let Wish { customer, lines } = serde_json::from_slice(&body)?;
        let WishLine { sku, quantity } = lines.into_iter().next().context("no line")?;
        let id = u128::from_le_bytes(derived(&customer, &key));
        let mut redis = self.redis.clone();
        let mut take = self.take.key(format!("stock:{sku}"));
        let taken: u8 =
            take.key(format!("orders:{sku}")).arg(&id.to_le_bytes()).arg(quantity).invoke_async(&mut redis).await?;
        match taken {
            0 => return Ok(false),
            2 => return Ok(true),
            _ => {}
        }
        let body = serde_json::to_vec(&Order { id, customer, sku, quantity })?;
        let lane = &self.lanes[fastrand::usize(..LANES)];
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let confirm = lane.basic_publish("".into(), QUEUE.into(), options, &body, persistent).await?;
        match confirm.await? {
            Confirmation::Ack(None) => Ok(true),
            other => bail!("the order was not taken: {other:?}"),
        }
    }
}

/// An id that a retry has again.
fn derived(customer: &str, key: &str) -> [u8; 16] {
    let sale = sluice::model::SaleId::new("plain").expect("a good id");
    sluice::model::Mint::new([7; 32]).id("order", &sale, customer, key).0
}

/// The workers, until the process is killed.
pub(crate) async fn work(folder: &Path, workers: usize) -> anyhow::Result<()> {
    let servers = servers(folder)?;
    let pool = pool(&servers.postgres, workers)?;
    let connection = Connection::connect(&servers.rabbitmq, ConnectionProperties::default()).await?;
    let mut working = tokio::task::JoinSet::new();
    for _worker in 0..workers {
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let mut orders = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;
        let pool = pool.clone();
        working.spawn(async move {
            while let Some(delivery) = orders.next().await {
                let delivery = delivery?;
                settle(&pool, &serde_json::from_slice(&delivery.data)?).await?;
                delivery.ack(BasicAckOptions::default()).await?;
            }
            anyhow::Ok(())
        });
    }
    Control::ready(folder)?;
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    bail!("the queue is gone")
}

/// One order, one transaction.
async fn settle(pool: &Pool, order: &Order) -> anyhow::Result<()> {
    let mut client = pool.get().await?;
    let lock = client.prepare_cached("select available from items where sku = $1 for update").await?;
    let insert = client
        .prepare_cached(
            "insert into orders (id, sku, customer, quantity) values ($1, $2, $3, $4) on conflict do nothing",
        )
        .await?;
    let update = client.prepare_cached("update items set available = available - $2 where sku = $1").await?;
    let id = Uuid::from_u128(order.id);
    let transaction = client.transaction().await?;
    let available: i64 = transaction.query_one(&lock, &[&order.sku]).await?.get(0);
    let quantity = i64::from(order.quantity);
    if available >= quantity {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&id, &order.sku, &order.customer, &order.quantity];
        if transaction.execute(&insert, &values).await? == 1 {
            transaction.execute(&update, &[&order.sku, &quantity]).await?;
        }
    }
    Ok(transaction.commit().await?)
}
