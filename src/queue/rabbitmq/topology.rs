//! What Sluice declares in RabbitMQ: exchanges, a queue per shard, the queue of what was parked. Declaring again compares.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use crate::model::{Epoch, SaleId, limits};

/// Routes claims by sale and epoch: its bindings are the fence.
pub(super) const CLAIMS: &str = "sluice.claims";
/// Exchange and queue of what a person has to look at.
pub(super) const PARKED: &str = "sluice.parked";
/// How long the server may take to answer one question.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a parcel may come back before it counts as a dead letter. RabbitMQ 4 would give up after 20 times, which a
/// worker that crashes in a loop reaches within a minute, taking innocent parcels along; 3.10 mistakes -1 for 0.
const DELIVERIES_MAX: i32 = 1_000_000_000;

/// The shard of a sale, on every machine and in every version.
pub(super) fn shard(sale: &SaleId) -> usize {
    let hash = blake3::hash(sale.as_str().as_bytes());
    usize::from(hash.as_bytes()[0]) % limits::QUEUE_SHARDS
}

/// The queue of a shard.
pub(super) fn queue_name(shard: usize) -> ShortString {
    format!("{CLAIMS}.{shard}").into()
}

/// What claims under this epoch are routed by.
pub(super) fn routing_key(sale: &SaleId, epoch: Epoch) -> ShortString {
    format!("{sale}.{epoch}").into()
}

/// Whether everything was declared before: the last queue is there.
pub(super) async fn is_there(connection: &Connection) -> lapin::Result<bool> {
    // The server closes the channel when there is no such queue.
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    match channel.queue_declare(queue_name(limits::QUEUE_SHARDS - 1), passive, FieldTable::default()).await {
        Ok(_) => channel.close(200, "it is there".into()).await.map(|()| true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(refusal) if refusal.get_id() == 404)
}

/// Declares everything, or fails with what differs from what is there. The last queue comes last.
pub(super) async fn declare(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for (exchange, kind) in [(CLAIMS, ExchangeKind::Direct), (PARKED, ExchangeKind::Fanout)] {
        channel.exchange_declare(exchange.into(), kind, durable, FieldTable::default()).await?;
    }
    channel.queue_declare(PARKED.into(), QueueDeclareOptions::durable(), parked_arguments()).await?;
    let none = FieldTable::default();
    channel.queue_bind(PARKED.into(), PARKED.into(), "".into(), QueueBindOptions::default(), none).await?;
    for shard in 0..limits::QUEUE_SHARDS {
        channel.queue_declare(queue_name(shard), QueueDeclareOptions::durable(), shard_arguments()).await?;
    }
    Ok(channel)
}

fn parked_arguments() -> FieldTable {
    table([("x-queue-type", text("quorum")), ("x-overflow", text("reject-publish"))])
}

/// Nothing confirmed is ever dropped: a full queue refuses, and a dead letter is removed once it is safe in the other queue.
fn shard_arguments() -> FieldTable {
    table([
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-overflow", text("reject-publish")),
        ("x-max-length", AMQPValue::LongLongInt(limits::SHARD_PARCELS_MAX.into())),
        ("x-dead-letter-exchange", text(PARKED)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-delivery-limit", AMQPValue::LongInt(DELIVERIES_MAX)),
    ])
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A table of arguments.
pub(super) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}
