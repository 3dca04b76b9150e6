//! What the RabbitMQ queue promises beyond the contract: under concurrency, when the broker dies, closes or refuses, and
//! what it says to an operator whose settings are wrong.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sluice::clock::{Clock, RealClock};
use sluice::model::{Claim, Effect, Epoch, OrderId};
use sluice::queue::{Body, Message, Push, Queue, RabbitQueue};
use sluice::remote::Unusable;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::servers::free_port;
use crate::servers::rabbitmq::{Rabbit, SMALL, SMALL_MESSAGES_MAX, shared};
use crate::support::eventually;
use crate::words::{claim, marker, message, order, sale_id};

async fn connect(url: &str) -> Arc<RabbitQueue> {
    Arc::new(RabbitQueue::connect(url, Arc::new(RealClock::new()), Arc::default()).await.unwrap())
}

async fn pause(time: Duration) {
    RealClock::new().sleep(time).await;
}

/// The claim number so-and-so of a sale: its id and customer are the number.
fn numbered(sale: &str, epoch: u64, number: u32) -> Message {
    let mut message = message(claim(order(0, &[("a", 1)])), epoch);
    let Body::Claim(Claim::Order(order)) = &mut message.body else { unreachable!() };
    let order = Arc::make_mut(order);
    order.id = OrderId(u128::from(number).to_be_bytes());
    order.sale = sale_id(sale);
    message.sale = sale_id(sale);
    message
}

fn number(message: &Message) -> u32 {
    let Body::Claim(claim) = &message.body else { panic!("{message:?}") };
    u32::try_from(u128::from_be_bytes(claim.id().0)).unwrap()
}

/// Pulls and acknowledges until nothing comes for a while.
async fn drain(queue: &RabbitQueue) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Ok(delivery) = timeout(Duration::from_secs(2), queue.pull(1_000)).await {
        let delivery = delivery.unwrap();
        queue.acknowledge(delivery.receipt).await.unwrap();
        messages.extend(delivery.messages);
    }
    messages
}

/// The client library alone mistakes about one in two hundred of these (`lane.rs` says why).
#[tokio::test(flavor = "multi_thread")]
async fn each_push_gets_its_own_answer() {
    let queue = connect(&shared().own_url()).await;
    // Markers and claims of many epochs that are not bound: a parcel each, so that RabbitMQ confirms the first of a batch
    // while it still returns others.
    let pushed = |count: u32| {
        let sale = format!("sale-{}", count % 3);
        if count.is_multiple_of(2) {
            Message { body: Body::Sweep(count.into()), ..marker_of(&sale) }
        } else {
            numbered(&sale, count.into(), count)
        }
    };
    let answers = join_all((0..12_000).map(|count| queue.push(pushed(count)))).await;
    for (count, answer) in (0..).zip(answers) {
        let right = if count % 2 == 0 { Push::Durable } else { Push::Fenced };
        assert_eq!(answer.unwrap(), right, "push {count}");
    }
    let pulled = drain(&queue).await;
    assert_eq!(pulled.len(), 6_000);
    let pulled: HashSet<u64> = pulled.iter().map(sweep).collect();
    assert_eq!(pulled, (0..12_000).step_by(2).collect());
}

fn sweep(message: &Message) -> u64 {
    let Body::Sweep(number) = message.body else { panic!("{message:?}") };
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_is_kept_across_batches() {
    let queue = connect(&shared().own_url()).await;
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    // They are handed in in this sequence, and leave in several batches.
    let pushes = join_all((0..5_000).map(|count| queue.push(numbered("s", 1, count)))).await;
    assert!(pushes.into_iter().all(|push| matches!(push, Ok(Push::Durable))));
    let pulled: Vec<u32> = drain(&queue).await.iter().map(number).collect();
    assert!(pulled.iter().copied().eq(0..5_000), "{pulled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_has_a_shard_and_the_next_takes_over() {
    let url = shared().own_url();
    let (pusher, first, second) = (connect(&url).await, connect(&url).await, connect(&url).await);
    pusher.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    assert_eq!(pusher.push(numbered("s", 1, 0)).await.unwrap(), Push::Durable);
    assert_eq!(first.pull(10).await.unwrap().messages.len(), 1);
    let standby = tokio::spawn({
        let second = second.clone();
        async move { second.pull(10).await.unwrap().messages }
    });
    for count in 1..50 {
        assert_eq!(pusher.push(numbered("s", 1, count)).await.unwrap(), Push::Durable);
    }
    assert_eq!(pusher.push(marker_of("s")).await.unwrap(), Push::Durable);
    // The first has settled a part, and holds the rest.
    let mut seen = 0;
    while seen < 20 {
        let delivery = first.pull(10).await.unwrap();
        seen += delivery.messages.len();
        first.acknowledge(delivery.receipt).await.unwrap();
    }
    pause(Duration::from_millis(300)).await;
    assert!(!standby.is_finished(), "two workers were served at once");
    drop(first);
    let started = RealClock::new();
    let took_over = timeout(Duration::from_secs(10), standby).await.expect("the second goes on").unwrap();
    assert!(started.monotonic() < Duration::from_secs(5));
    assert_eq!(pusher.push(numbered("s", 1, 50)).await.unwrap(), Push::Durable);
    let rest = drain(&second).await;
    assert_eq!(number(&took_over[0]), number(&rest[0]), "what is not acknowledged is pulled again");
    // What was on its way to the first comes again, in any sequence; what was not comes behind it, in its own.
    let claims: HashSet<u32> = rest.iter().filter(|message| is_claim(message)).map(number).collect();
    assert!((u32::try_from(seen).unwrap()..=50).all(|count| claims.contains(&count)), "{claims:?}");
    assert_eq!(number(rest.last().unwrap()), 50);
    let markers = rest.iter().position(|message| !is_claim(message));
    assert_eq!(markers, None, "a marker was delivered a second time");
}

fn is_claim(message: &Message) -> bool {
    matches!(message.body, Body::Claim(_))
}

fn marker_of(sale: &str) -> Message {
    Message { sale: sale_id(sale), ..marker(Body::Sweep(1), 1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_loses_nothing() {
    let queue = connect(&shared().url(SMALL)).await;
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    let mut durable = Vec::new();
    let mut refused = 0;
    for count in 0..30 {
        match queue.push(numbered("s", 1, count)).await {
            Ok(Push::Durable) => durable.push(count),
            Err(error) => {
                assert_eq!(error.effect(), Effect::None, "{error}");
                refused += 1;
            }
            Ok(Push::Fenced) => panic!("it is bound"),
        }
    }
    assert!(refused >= 20, "{refused} were refused, with room for {SMALL_MESSAGES_MAX}");
    assert!(durable.len() >= SMALL_MESSAGES_MAX, "{durable:?}");
    assert_eq!(drain(&queue).await.iter().map(number).collect::<Vec<u32>>(), durable);
    eventually("there is room again", async || matches!(queue.push(numbered("s", 1, 99)).await, Ok(Push::Durable)))
        .await;
}

/// Pushes from many callers until told to stop; answers with what was confirmed.
fn pushing(queue: &Arc<RabbitQueue>, stop: &Arc<AtomicBool>) -> JoinSet<Vec<u32>> {
    let mut callers = JoinSet::new();
    for caller in 0..50_u32 {
        let (queue, stop) = (queue.clone(), stop.clone());
        callers.spawn(async move {
            let mut durable = Vec::new();
            for count in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let count = caller * 1_000_000 + count;
                match queue.push(numbered(&format!("sale-{}", caller % 5), 1, count)).await {
                    Ok(Push::Durable) => durable.push(count),
                    Ok(Push::Fenced) => panic!("it is bound"),
                    Err(_) => pause(Duration::from_millis(20)).await,
                }
            }
            durable
        });
    }
    callers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_loses_nothing_confirmed() {
    let url = shared().own_url();
    let queue = connect(&url).await;
    for sale in 0..5 {
        queue.bind(&sale_id(&format!("sale-{sale}")), Epoch(1), true).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let callers = pushing(&queue, &stop);
    let vhost = url.rsplit('/').next().unwrap().to_owned();
    for _time in 0..2 {
        pause(Duration::from_millis(200)).await;
        let vhost = vhost.clone();
        let close = move || shared().control(&["close_all_connections", "--vhost", &vhost, "a test"]);
        tokio::task::spawn_blocking(close).await.unwrap();
    }
    eventually("it is connected again", async || queue.depth().await.is_ok()).await;
    stop.store(true, Ordering::Relaxed);
    let durable: HashSet<u32> = callers.join_all().await.into_iter().flatten().collect();
    let pulled: HashSet<u32> = drain(&queue).await.iter().map(number).collect();
    assert!(durable.len() > 100, "{} were confirmed", durable.len());
    assert!(durable.is_subset(&pulled), "{} were lost", durable.difference(&pulled).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_and_is_found_again() {
    let mut rabbit = tokio::task::spawn_blocking(Rabbit::start).await.unwrap();
    let url = rabbit.own_url();
    let queue = connect(&url).await;
    for sale in 0..5 {
        queue.bind(&sale_id(&format!("sale-{sale}")), Epoch(1), true).await.unwrap();
    }
    // Something is pulled and not acknowledged, a marker among it.
    assert_eq!(queue.push(numbered("sale-0", 1, 7)).await.unwrap(), Push::Durable);
    assert_eq!(queue.push(marker_of("sale-0")).await.unwrap(), Push::Durable);
    eventually("claim and marker are pulled", async || queue.pull(10).await.unwrap().messages.len() == 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers = pushing(&queue, &stop);
    pause(Duration::from_millis(500)).await;
    rabbit = tokio::task::spawn_blocking(move || {
        rabbit.kill();
        rabbit
    })
    .await
    .unwrap();
    eventually("the loss is noticed", async || queue.depth().await.is_err()).await;
    let pulled = queue.pull(10).await;
    assert_eq!(pulled.unwrap_err().effect(), Effect::None);
    assert_eq!(queue.push(numbered("sale-0", 1, 8)).await.unwrap_err().effect(), Effect::None);
    rabbit = tokio::task::spawn_blocking(move || {
        rabbit.start_again();
        rabbit
    })
    .await
    .unwrap();
    let back = RealClock::new();
    eventually("pushes work", async || matches!(queue.push(numbered("sale-0", 1, 9)).await, Ok(Push::Durable))).await;
    assert!(back.monotonic() < Duration::from_secs(5), "{:?} until the first push", back.monotonic());
    stop.store(true, Ordering::Relaxed);
    let mut durable: HashSet<u32> = callers.join_all().await.into_iter().flatten().collect();
    durable.extend([7, 9]);
    let pulled = drain(&queue).await;
    assert!(pulled.iter().all(is_claim), "a marker was delivered a second time");
    let pulled: HashSet<u32> = pulled.iter().map(number).collect();
    assert!(durable.len() > 100, "{} were confirmed", durable.len());
    assert!(durable.is_subset(&pulled), "{} were lost", durable.difference(&pulled).count());
    bindings_survive(rabbit, &queue, &url).await;
}

/// What was fenced and bound just before a crash is so after it, for a process that knows nothing of it too.
async fn bindings_survive(mut rabbit: Rabbit, queue: &RabbitQueue, url: &str) {
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    queue.fence(&sale_id("s"), Epoch(2)).await.unwrap();
    queue.bind(&sale_id("t"), Epoch(1), true).await.unwrap();
    rabbit = tokio::task::spawn_blocking(move || {
        rabbit.kill();
        rabbit.start_again();
        rabbit
    })
    .await
    .unwrap();
    let fresh = connect(url).await;
    assert!(matches!(fresh.push(numbered("s", 1, 1)).await, Ok(Push::Fenced)));
    assert!(matches!(fresh.push(numbered("t", 1, 2)).await, Ok(Push::Durable)));
    eventually("it is connected again", async || queue.depth().await.is_ok()).await;
    assert!(matches!(queue.push(numbered("s", 1, 3)).await, Ok(Push::Fenced)));
    drop(rabbit);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_refuses_pushes_at_once_and_settling_goes_on() {
    let rabbit = Arc::new(tokio::task::spawn_blocking(Rabbit::start).await.unwrap());
    let queue = connect(&rabbit.own_url()).await;
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    assert_eq!(queue.push(numbered("s", 1, 1)).await.unwrap(), Push::Durable);
    let memory = |high: &'static str| {
        let rabbit = rabbit.clone();
        tokio::task::spawn_blocking(move || rabbit.control(&["set_vm_memory_high_watermark", high]))
    };
    memory("0.000001").await.unwrap();
    // RabbitMQ speaks up only when something is pushed.
    let first = queue.push(numbered("s", 1, 2)).await.unwrap_err();
    let asked = RealClock::new();
    let second = queue.push(numbered("s", 1, 3)).await.unwrap_err();
    assert_eq!((first.effect(), second.effect()), (Effect::Unknown, Effect::None), "{first} {second}");
    assert!(asked.monotonic() < Duration::from_millis(100), "{:?}", asked.monotonic());
    let delivery = queue.pull(1).await.unwrap();
    queue.acknowledge(delivery.receipt).await.unwrap();
    assert_eq!(delivery.messages, [numbered("s", 1, 1)]);
    queue.bind(&sale_id("t"), Epoch(1), true).await.unwrap();
    // Longer than confirms are waited for otherwise.
    pause(Duration::from_secs(6)).await;
    memory("0.6").await.unwrap();
    eventually("pushes work", async || matches!(queue.push(numbered("s", 1, 4)).await, Ok(Push::Durable))).await;
    assert_eq!(drain(&queue).await.iter().map(number).collect::<Vec<u32>>(), [2, 4]);
    frozen(&rabbit, &queue).await;
}

/// A broker that stands still: pushes have no answer in time, and everything goes on when it moves again.
async fn frozen(rabbit: &Rabbit, queue: &Arc<RabbitQueue>) {
    rabbit.freeze();
    let asked = RealClock::new();
    let unknown = queue.push(numbered("s", 1, 5)).await.unwrap_err();
    assert_eq!(unknown.effect(), Effect::Unknown, "{unknown}");
    assert!(asked.monotonic() < Duration::from_millis(2_500), "{:?}", asked.monotonic());
    // Longer than confirms are waited for.
    pause(Duration::from_secs(6)).await;
    rabbit.resume();
    let back = RealClock::new();
    eventually("pushes work", async || matches!(queue.push(numbered("s", 1, 6)).await, Ok(Push::Durable))).await;
    assert!(back.monotonic() < Duration::from_secs(5), "{:?} until the first push", back.monotonic());
    let pulled: Vec<u32> = drain(queue).await.iter().map(number).collect();
    assert!(pulled.contains(&6), "{pulled:?}");
}

/// Where the sale `s` is, today and in a hundred years: its messages may still be there.
const SHARD_OF_S: &str = "sluice.claims.1";

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// Puts a message of another program into the queue of the sale `s`.
async fn smuggle(channel: &Channel, version: i64, body: &[u8]) {
    let mut headers = FieldTable::default();
    headers.insert("version".into(), AMQPValue::LongLongInt(version));
    let properties = BasicProperties::default().with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = channel.basic_publish("sluice.claims".into(), "s.1".into(), options, body, properties);
    assert_eq!(published.await.unwrap().await.unwrap(), lapin::Confirmation::Ack(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_is_parked() {
    let url = shared().own_url();
    let queue = connect(&url).await;
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    assert_eq!(queue.push(numbered("s", 1, 1)).await.unwrap(), Push::Durable);
    let (_connection, channel) = channel(&url).await;
    smuggle(&channel, 1, b"{\"sale\":").await;
    smuggle(&channel, 0, b"").await;
    assert_eq!(queue.push(numbered("s", 1, 2)).await.unwrap(), Push::Durable);
    assert_eq!(drain(&queue).await.iter().map(number).collect::<Vec<u32>>(), [1, 2]);
    eventually("both are parked", async || queue.depth().await.unwrap().parked == 2).await;
    assert_eq!(queue.depth().await.unwrap().waiting, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_waits_for_a_newer_worker() {
    let url = shared().own_url();
    let queue = connect(&url).await;
    queue.bind(&sale_id("s"), Epoch(1), true).await.unwrap();
    assert_eq!(queue.push(numbered("s", 1, 1)).await.unwrap(), Push::Durable);
    let (_connection, channel) = channel(&url).await;
    smuggle(&channel, 2, b"a newer way of writing").await;
    assert_eq!(queue.push(numbered("s", 1, 2)).await.unwrap(), Push::Durable);
    assert_eq!(drain(&queue).await.iter().map(number).collect::<Vec<u32>>(), [1]);
    // The old worker has stepped back, so a newer one is served.
    let served = channel.basic_consume(SHARD_OF_S.into(), "".into(), Default::default(), FieldTable::default());
    let mut served = served.await.unwrap();
    let newer = timeout(Duration::from_secs(5), served.next()).await.expect("it was given back").unwrap().unwrap();
    assert_eq!(newer.data, b"a newer way of writing");
    assert_eq!(queue.depth().await.unwrap().parked, 0);
}

async fn refusal(url: &str) -> Unusable {
    RabbitQueue::connect(url, Arc::new(RealClock::new()), Arc::default()).await.map(drop).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_a_clear_sentence() {
    let port = shared().port;
    let wrong = async |url: &str, words: &[&str]| match refusal(url).await {
        Unusable::Wrong(said) => {
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert!(!said.contains("canary"), "{said}");
        }
        other => panic!("{url}: {other:?}"),
    };
    wrong("canary", &["not a URL", "amqp://"]).await;
    wrong("redis://u:canary@localhost/", &["not a URL"]).await;
    wrong(&format!("amqp://u:canary@[::1:{port}/"), &["not a URL"]).await;
    wrong(&format!("amqp://guest:canary@127.0.0.1:{port}/v0"), &["\"guest\"", "password"]).await;
    wrong(&format!("amqp://guest:guest@127.0.0.1:{port}/nowhere"), &["`nowhere`", "Create it"]).await;
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = http.local_addr().unwrap();
    tokio::spawn(axum::serve(http, axum::Router::new()).into_future());
    wrong(&format!("amqp://u:canary@{elsewhere}/"), &["not RabbitMQ"]).await;
    wrong(&format!("amqps://u:canary@127.0.0.1:{port}/"), &["no TLS"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_queue_is_named() {
    let url = shared().own_url();
    let (_connection, channel) = channel(&url).await;
    let declared =
        channel.queue_declare("sluice.claims.2".into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.unwrap();
    match refusal(&url).await {
        Unusable::Wrong(said) => assert!(said.contains("sluice.claims.2") && said.contains("Delete"), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_may_come_yet() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("amqp://u:canary@{}/", silent.local_addr().unwrap());
    let hangs_up = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let curt = format!("amqp://u:canary@{}/", hangs_up.local_addr().unwrap());
    tokio::spawn(async move { while hangs_up.accept().await.is_ok() {} });
    let refused = format!("amqp://u:canary@127.0.0.1:{}/", free_port());
    for url in [&silent, &curt, &refused, "amqp://u:canary@no.such.host.invalid/"] {
        match refusal(url).await {
            Unusable::NotYet(said) => assert!(!said.contains("canary"), "{said}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}
