//! Who settles: RabbitMQ gives a shard to the worker that asked for it first, until that one is gone.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use sluice::model::limits::QUEUE_SHARDS;

use crate::support::eventually;

/// Waits until each shard in this virtual host is somebody's, or nobody's.
pub(crate) async fn are_somebodys(url: &str, somebodys: bool) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    eventually(&format!("each shard has a worker: {somebodys}"), async || {
        for shard in 0..QUEUE_SHARDS {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let queue = format!("sluice.claims.{shard}");
            let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
            // Whoever waits for a shard is not counted.
            if (queue.consumer_count() > 0) != somebodys {
                return false;
            }
        }
        true
    })
    .await;
    connection.close(200, "".into()).await.unwrap();
}
