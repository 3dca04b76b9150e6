//! The queue's promise, sentence by sentence.

use std::sync::Arc;
use std::time::Duration;

use sluice::model::Epoch;
use sluice::queue::{Body, Depth, Message, Push, Queue, SqliteQueue};
use sluice::sqlite::Tables;

use super::{Bench, open};
use crate::support::eventually;
use crate::words::{claim, marker, message, order, sale_id};

macro_rules! queue_contract {
    ($name:ident) => {
        mod $name {
            crate::contracts::sentences! { crate::contracts::$name;
                what_is_pushed_is_pulled_in_sequence
                what_is_not_acknowledged_is_pulled_again
                what_is_acknowledged_is_gone_the_second_time_too
                acknowledging_removes_only_what_was_pulled
                pushed_twice_is_pulled_twice
                a_pull_takes_the_front
                a_pull_waits_for_a_push
                a_puller_that_dies_loses_nothing
                a_claim_of_an_epoch_that_was_never_bound_is_fenced
                a_fence_shuts_out_the_epochs_below
                a_fence_keeps_what_was_pushed_before
                binding_lets_in_and_unbinding_shuts_out
                a_fence_concerns_one_sale
                markers_pass_every_fence
                what_is_parked_is_set_aside
                the_depth_counts_what_waits
                what_is_durable_survives_a_restart
            }
        }
    };
}

queue_contract!(model_queue);
queue_contract!(rabbit_queue);
queue_contract!(sqlite_queue);

type Tested = Bench<dyn Queue>;

fn a_claim(number: u8) -> Message {
    message(claim(order(number, &[("a", 1)])), 1)
}

async fn bound(queue: &Tested) {
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
}

async fn pushed(queue: &Tested, numbers: &[u8]) {
    bound(queue).await;
    for number in numbers {
        assert_eq!(queue.push(a_claim(*number)).await.unwrap(), Push::Durable);
    }
}

/// Pulls and acknowledges until so many messages came.
async fn drain(queue: &Tested, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let delivery = queue.pull(count).await.unwrap();
        queue.acknowledge(delivery.receipt).await.unwrap();
        messages.extend(delivery.messages);
    }
    messages
}

async fn what_is_pushed_is_pulled_in_sequence(queue: Tested) {
    pushed(&queue, &[1, 2, 3]).await;
    assert_eq!(drain(&queue, 3).await, [a_claim(1), a_claim(2), a_claim(3)]);
}

async fn what_is_not_acknowledged_is_pulled_again(queue: Tested) {
    pushed(&queue, &[1, 2]).await;
    let first = queue.pull(10).await.unwrap();
    let second = queue.pull(10).await.unwrap();
    assert_eq!(first.messages, second.messages);
    assert_eq!(drain(&queue, 2).await, [a_claim(1), a_claim(2)]);
}

async fn what_is_acknowledged_is_gone_the_second_time_too(queue: Tested) {
    pushed(&queue, &[1]).await;
    let delivery = queue.pull(10).await.unwrap();
    queue.acknowledge(delivery.receipt).await.unwrap();
    pushed(&queue, &[2]).await;
    queue.acknowledge(delivery.receipt).await.unwrap();
    assert_eq!(drain(&queue, 1).await, [a_claim(2)]);
}

async fn acknowledging_removes_only_what_was_pulled(queue: Tested) {
    pushed(&queue, &[1]).await;
    let delivery = queue.pull(10).await.unwrap();
    pushed(&queue, &[2]).await;
    queue.acknowledge(delivery.receipt).await.unwrap();
    assert_eq!(drain(&queue, 1).await, [a_claim(2)]);
}

async fn pushed_twice_is_pulled_twice(queue: Tested) {
    pushed(&queue, &[1, 1]).await;
    assert_eq!(drain(&queue, 2).await, [a_claim(1), a_claim(1)]);
}

async fn a_pull_takes_the_front(queue: Tested) {
    pushed(&queue, &[1, 2, 3]).await;
    let delivery = queue.pull(1).await.unwrap();
    assert_eq!(delivery.messages, [a_claim(1)]);
    queue.acknowledge(delivery.receipt).await.unwrap();
    assert_eq!(queue.pull(1).await.unwrap().messages, [a_claim(2)]);
}

async fn a_pull_waits_for_a_push(queue: Tested) {
    let pulling = tokio::spawn({
        let queue = queue.tested.clone();
        async move { queue.pull(10).await.unwrap().messages }
    });
    tokio::task::yield_now().await;
    pushed(&queue, &[1]).await;
    assert_eq!(pulling.await.unwrap(), [a_claim(1)]);
}

async fn a_puller_that_dies_loses_nothing(queue: Tested) {
    let pulling = tokio::spawn({
        let queue = queue.tested.clone();
        async move { queue.pull(10).await }
    });
    tokio::task::yield_now().await;
    pulling.abort();
    let _aborted = pulling.await;
    pushed(&queue, &[1]).await;
    drop(queue.pull(10).await.unwrap());
    assert_eq!(drain(&queue, 1).await, [a_claim(1)]);
}

async fn a_claim_of_an_epoch_that_was_never_bound_is_fenced(queue: Tested) {
    assert_eq!(queue.push(a_claim(1)).await.unwrap(), Push::Fenced);
    assert_eq!(queue.depth().await.unwrap().waiting, 0);
}

async fn a_fence_shuts_out_the_epochs_below(queue: Tested) {
    for epoch in [1, 2, 3] {
        queue.bind(&sale_id("s"), Epoch(epoch), true).await.unwrap();
    }
    for _second_time in 0..2 {
        queue.fence(&sale_id("s"), Epoch(3)).await.unwrap();
        let mut pushes = Vec::new();
        for epoch in [1, 2, 3] {
            pushes.push(queue.push(message(claim(order(1, &[("a", 1)])), epoch)).await.unwrap());
        }
        assert_eq!(pushes, [Push::Fenced, Push::Fenced, Push::Durable]);
    }
    assert_eq!(queue.depth().await.unwrap().waiting, 2);
}

async fn a_fence_keeps_what_was_pushed_before(queue: Tested) {
    pushed(&queue, &[1]).await;
    queue.fence(&sale_id("s"), Epoch(2)).await.unwrap();
    assert_eq!(drain(&queue, 1).await, [a_claim(1)]);
}

async fn binding_lets_in_and_unbinding_shuts_out(queue: Tested) {
    for (open, push) in [(true, Push::Durable), (true, Push::Durable), (false, Push::Fenced), (false, Push::Fenced)] {
        queue.bind(&sale_id("s"), Epoch(1), open).await.unwrap();
        assert_eq!(queue.push(a_claim(1)).await.unwrap(), push);
    }
}

async fn a_fence_concerns_one_sale(queue: Tested) {
    bound(&queue).await;
    queue.fence(&sale_id("other"), Epoch(9)).await.unwrap();
    queue.bind(&sale_id("other"), Epoch(1), false).await.unwrap();
    assert_eq!(queue.push(a_claim(1)).await.unwrap(), Push::Durable);
}

async fn markers_pass_every_fence(queue: Tested) {
    queue.fence(&sale_id("s"), Epoch(9)).await.unwrap();
    let markers = [marker(Body::Close, 1), marker(Body::Sweep(7), 1)];
    for marker in &markers {
        assert_eq!(queue.push(marker.clone()).await.unwrap(), Push::Durable);
    }
    assert_eq!(drain(&queue, 2).await, markers);
}

async fn what_is_parked_is_set_aside(queue: Tested) {
    pushed(&queue, &[1]).await;
    let delivery = queue.pull(10).await.unwrap();
    pushed(&queue, &[2]).await;
    for _second_time in 0..2 {
        queue.park(delivery.receipt, "it cannot be read").await.unwrap();
        // A message on its way from a broker is nowhere for a moment.
        eventually("one waits and one is parked", async || {
            let depth = queue.depth().await.unwrap();
            (depth.waiting, depth.parked) == (1, 1)
        })
        .await;
    }
    assert_eq!(drain(&queue, 1).await, [a_claim(2)]);
}

async fn the_depth_counts_what_waits(queue: Tested) {
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
    pushed(&queue, &[1]).await;
    queue.clock.pass(1_000);
    pushed(&queue, &[2]).await;
    queue.clock.pass(500);
    assert_eq!(queue.depth().await.unwrap().waiting, 2);
    // A process may see how old a message is only once it has pulled, and what is pulled still waits.
    queue.pull(10).await.unwrap();
    let depth = Depth { waiting: 2, oldest: Duration::from_millis(1_500), parked: 0 };
    eventually("two wait", async || queue.depth().await.unwrap() == depth).await;
    drain(&queue, 2).await;
    // Nobody waits for the removal of what was acknowledged, so it may take a moment.
    eventually("nothing waits", async || queue.depth().await.unwrap() == Depth::default()).await;
}

async fn what_is_durable_survives_a_restart(queue: Tested) {
    pushed(&queue, &[1, 2]).await;
    let delivery = queue.pull(1).await.unwrap();
    queue.acknowledge(delivery.receipt).await.unwrap();
    let queue = restarted(queue);
    assert_eq!(queue.push(a_claim(3)).await.unwrap(), Push::Durable);
    let mut messages = drain(&queue, 1).await;
    while messages.last() != Some(&a_claim(3)) {
        messages.extend(drain(&queue, 1).await);
    }
    // What was acknowledged just before may come once more.
    assert!(messages.ends_with(&[a_claim(2), a_claim(3)]), "{messages:?}");
}

/// The same queue, opened anew. A queue in memory is its own server, which goes on.
fn restarted(queue: Tested) -> Tested {
    let Bench { tested, clock, file, url } = queue;
    if let Some(url) = url {
        drop(tested);
        return super::rabbit_queue_at(url, clock);
    }
    let Some(file) = file else { return Bench { tested, clock, file, url } };
    drop(tested);
    Bench {
        tested: Arc::new(SqliteQueue::new(open(&file, Tables::Queue), clock.clone(), Arc::default())),
        clock,
        file: Some(file),
        url,
    }
}
