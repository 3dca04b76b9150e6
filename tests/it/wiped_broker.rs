//! RabbitMQ loses everything, or a queue is deleted under the processes: what was accepted is held all the same, and orders
//! are accepted again, without anybody's help.

use hyper::Method;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use sluice::load::wire::{Target, Wire};

use crate::cluster::Cluster;
use crate::support::eventually;

/// How the API answers one unit for this customer: its status, and the body.
async fn order(target: &Target, customer: &str) -> (u16, Value) {
    let body = json!({ "customer": customer, "lines": [{ "sku": "a", "quantity": 1 }] }).to_string();
    let mut request = target.request(Method::POST, "/v1/sales/drop/orders".parse().unwrap(), body.into());
    for (name, value) in [("content-type", "application/json"), ("idempotency-key", "k")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = Wire::open(target).await.unwrap().call(request).await.unwrap();
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
}

/// Places so many orders, all of which are accepted.
async fn accepted(target: &Target, who: &str, count: usize) {
    for number in 0..count {
        let (status, body) = order(target, &format!("{who}-{number}")).await;
        assert_eq!(status, 202, "{body}");
    }
}

async fn refused(target: &Target, customer: &str) {
    let (status, body) = order(target, customer).await;
    assert_eq!(status, 503, "{body}");
}

async fn all_is_well(cluster: &Cluster, orders: usize) {
    let held = || cluster.trio.psql("select count(*) from orders where state = 'held'");
    eventually("all orders are held", async || held() == orders.to_string()).await;
    let audit = cluster.settled_audit().await;
    assert_eq!(audit["verdict"], "exact", "{audit}");
    assert_eq!(audit["broken_promises"], 0, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_broker_breaks_no_promise() {
    let mut cluster = Cluster::of(1, 1);
    cluster.create(json!([{ "sku": "a", "stock": 100 }]), json!({ "per_customer_limit": 1 })).await;
    let api = cluster.targets().await.pop().unwrap();
    accepted(&api, "settled", 5).await;
    all_is_well(&cluster, 5).await;
    // Without a worker, orders stay in the queue.
    cluster.workers[0].stop();
    accepted(&api, "queued", 20).await;
    cluster.trio.rabbit.kill();
    refused(&api, "down").await;
    cluster.trio.rabbit.wipe();
    cluster.trio.rabbit.start_again();
    // The API finds its way back to a broker that knows no epoch: nothing is accepted, and nothing is forgotten.
    eventually("the broker refuses", async || {
        let (status, body) = order(&api, "fenced").await;
        assert_eq!(status, 503, "{body}");
        body["effect"] == "unknown"
    })
    .await;
    cluster.workers[0].spawn(&[]);
    eventually("orders are accepted", async || matches!(order(&api, "after").await.0, 200 | 202)).await;
    for again in ["queued-7", "fenced"] {
        let (status, body) = order(&api, again).await;
        assert!(matches!(status, 200 | 202), "{status}: {body}");
    }
    let down = order(&api, "down").await;
    assert!(matches!(down.0, 200 | 202), "{down:?}");
    all_is_well(&cluster, 28).await;
    queues_deleted(&cluster, &api).await;
}

/// Both processes are connected to the queues that go.
async fn queues_deleted(cluster: &Cluster, api: &Target) {
    let url = cluster.trio.rabbit.url("v0");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for shard in 0..sluice::model::limits::QUEUE_SHARDS {
        let queue = format!("sluice.claims.{shard}");
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    eventually("orders are accepted", async || matches!(order(api, "deleted").await.0, 200 | 202)).await;
    accepted(api, "declared", 3).await;
    all_is_well(cluster, 32).await;
}
