//! A reader takes one shard's deliveries into the buffer, in their sequence. RabbitMQ serves one reader of a shard at a
//! time, in whichever process; the others stand in line.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{DeliveryTag, FieldTable};
use lapin::{Channel, Consumer};

use super::buffer::Entry;
use super::parcel::{self, Content};
use super::session::Session;
use super::topology;
use super::{LAYER, Shared};
use crate::model::{Body, Effect, Error, Result, limits};

/// How long a worker that met a parcel of a newer version stays out of the line.
const STEP_BACK: Duration = Duration::from_secs(10);

/// How soon parking is tried again.
const PARK_AGAIN: Duration = Duration::from_secs(1);

/// Reads a shard until the session is over.
///
/// A parcel of a newer version is left for a newer worker: this one settles what stands before it, then closes its channel
/// and stands in line again after a while, behind whoever is there. Alone it comes back to the same parcel each time, so the
/// shard waits for the newer program and nothing is lost; rejecting it would only send it round in circles.
pub(super) async fn run(shard: usize, shared: Arc<Shared>, session: Arc<Session>) {
    loop {
        match read(shard, &shared, &session).await {
            Ok(version) => {
                let queue = topology::queue_name(shard);
                tracing::error!(%queue, version, "a newer Sluice pushed here: update this worker, it leaves the queue alone");
                shared.clock.sleep(STEP_BACK).await;
            }
            Err(error) => return session.fail(error),
        }
    }
}

/// Reads until a newer version turns up.
async fn read(shard: usize, shared: &Shared, session: &Session) -> Result<i64> {
    let channel = Arc::new(session.ask(session.pulling.create_channel()).await?);
    session.ask(channel.basic_qos(limits::PULL_AHEAD_PARCELS_MAX, BasicQosOptions::default())).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(topology::queue_name(shard), "".into(), options, none);
    // Dropped on its way, it would cancel itself, and the next worker would overtake what is not acknowledged.
    let mut consumer: ManuallyDrop<Consumer> = ManuallyDrop::new(session.ask(consumer).await?);
    let mut last: DeliveryTag = 0;
    let version = loop {
        let delivery = match consumer.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(lost(&error.to_string())),
            None => return Err(lost("RabbitMQ has cancelled the consumer")),
        };
        // Acknowledging up to a tag includes all before it, so none may ever be missing.
        if delivery.delivery_tag != last + 1 {
            return Err(lost("a delivery is missing"));
        }
        last = delivery.delivery_tag;
        if let Some(version) = take(shard, shared, session, &channel, delivery).await? {
            break version;
        }
    };
    loop {
        let changed = shared.buffer.changed();
        if shared.buffer.is_empty_of(shard) {
            break;
        }
        changed.await;
    }
    session.ask(channel.close(200, "a newer version".into())).await?;
    drop(ManuallyDrop::into_inner(consumer));
    Ok(version)
}

/// Takes in one delivery, or says which newer version it has.
async fn take(
    shard: usize,
    shared: &Shared,
    session: &Session,
    channel: &Arc<Channel>,
    delivery: Delivery,
) -> Result<Option<i64>> {
    let tag = delivery.delivery_tag;
    let alone = BasicAckOptions { multiple: false };
    match parcel::unpack(&delivery.properties, &delivery.data) {
        Content::Messages { mut messages, pushed_ms } => {
            if delivery.redelivered {
                // What comes back may come in another sequence, and then a marker proves nothing.
                messages.retain(|message| matches!(message.body, Body::Claim(_)));
            }
            if messages.is_empty() {
                session.ask(channel.basic_ack(tag, alone)).await?;
            } else {
                shared.buffer.put(Entry { shard, channel: channel.clone(), tag, messages, pushed_ms });
            }
        }
        Content::Garbage(why) => {
            tracing::error!(queue = %topology::queue_name(shard), why, "a message that nobody can read is parked");
            // What stands behind it waits until it is parked; that may take as long as an alarm.
            while let Err(error) = session.park(&delivery.data, 0, 0, &why).await {
                session.still()?;
                tracing::error!(%error, "it cannot be parked yet");
                shared.clock.sleep(PARK_AGAIN).await;
            }
            session.ask(channel.basic_ack(tag, alone)).await?;
        }
        Content::Newer(version) => return Ok(Some(version)),
    }
    Ok(None)
}

fn lost(why: &str) -> Error {
    Error::Unavailable { layer: LAYER, why: why.to_owned(), effect: Effect::None }
}
