//! One life of the connections to RabbitMQ. Whatever fails in it ends it as a whole: the next one begins from nothing, so
//! there is no half-alive state to think about.

use std::future::Future;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, Event};
use tokio::sync::watch;
use tokio::time::timeout;

use super::address::Address;
use super::topology::{self, ANSWER_TIME_MAX, PARKED};
use super::{LAYER, parcel};
use crate::clock::Clock;
use crate::model::{Effect, Error, Result, limits};
use crate::remote::Unusable;

/// How often the connections are looked at, in case that nothing told of their end.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long queues that were just declared are left alone. RabbitMQ writes down which logs belong to them a moment later:
/// killed within a second (seen with 3.10), it comes back with a queue that has neither a leader nor what was confirmed.
const FRESH: Duration = Duration::from_secs(2);
/// How long a goodbye may take.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// Every parcel is confirmed, or comes back if no binding takes it.
pub(super) const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// Two connections, because an alarm of RabbitMQ stops the one that publishes, and only settling makes room again.
pub(super) struct Session {
    /// Publishes, and nothing else.
    pushing: Connection,
    /// One channel for each shard, with confirms, in the shard's own hands.
    pub(super) lanes: Vec<Channel>,
    /// Consumes, declares, binds and asks.
    pub(super) pulling: Connection,
    /// For bindings and questions.
    pub(super) control: Channel,
    /// Why this session is over, once it is.
    over: watch::Sender<Option<String>>,
}

impl Session {
    /// Connects, declares everything and compares it with what is there.
    pub(super) async fn open(address: &Address, clock: &dyn Clock) -> Result<Session, Unusable> {
        let pulling = address.connect("sluice: pull").await?;
        let pushing = address.connect("sluice: push").await?;
        let was_there = in_time(address, topology::is_there(&pulling)).await?;
        let control = in_time(address, topology::declare(&pulling)).await?;
        if !was_there {
            clock.sleep(FRESH).await;
        }
        let lanes = in_time(address, async {
            let mut lanes = Vec::new();
            for _shard in 0..limits::QUEUE_SHARDS {
                let lane = pushing.create_channel().await?;
                lane.confirm_select(ConfirmSelectOptions::default()).await?;
                lanes.push(lane);
            }
            Ok(lanes)
        });
        let lanes = lanes.await?;
        Ok(Session { pushing, lanes, pulling, control, over: watch::Sender::new(None) })
    }

    /// Ends the session: everybody in it stops, and the next one is opened.
    pub(super) fn fail(&self, why: impl ToString) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            over.get_or_insert_with(|| why.to_string());
            first
        });
    }

    /// Comes back when the session has ended, and says why.
    pub(super) async fn ended(&self) -> String {
        let mut over = self.over.subscribe();
        let why = over.wait_for(Option::is_some).await.map(|why| why.clone());
        why.ok().flatten().unwrap_or_default()
    }

    /// Fails if the session has ended.
    pub(super) fn still(&self) -> Result<()> {
        self.over
            .borrow()
            .clone()
            .map_or(Ok(()), |why| Err(Error::Unavailable { layer: LAYER, why, effect: Effect::None }))
    }

    /// RabbitMQ is short of memory or disk and takes nothing more. It says so only after the first parcel it did not take.
    pub(super) fn is_alarmed(&self) -> bool {
        self.pushing.status().blocked()
    }

    /// Watches both connections until one of them fails or somebody says [`Session::fail`].
    pub(super) async fn watch(&self) -> String {
        let mut events = stream::select(self.pushing.events_listener(), self.pulling.events_listener());
        loop {
            let event = tokio::select! {
                why = self.ended() => return why,
                event = timeout(LOOK_EVERY, events.next()) => event,
            };
            match event {
                Ok(Some(Event::Error(error))) => self.fail(error),
                Ok(Some(Event::ConnectionBlocked(why))) => {
                    tracing::error!(why, "RabbitMQ has raised an alarm and takes nothing more: orders are refused");
                }
                Ok(Some(Event::ConnectionUnblocked)) => tracing::info!("RabbitMQ has ended its alarm"),
                _ if self.pushing.status().connected() && self.pulling.status().connected() => {}
                _ => self.fail("the connection is closed"),
            }
        }
    }

    /// Says goodbye on the consuming connection before anything in it is dropped. A consumer that is cancelled while its
    /// parcels are not acknowledged lets the next worker overtake them; one whose connection ends gives them back first.
    pub(super) async fn close(&self) {
        self.fail("it is closed");
        let goodbye = self.pulling.close(200, "goodbye".into());
        let _lost_already = timeout(GOODBYE_TIME_MAX, goodbye).await;
    }

    /// Waits for an answer, but not for ever. Without one the session is over.
    pub(super) async fn ask<T>(&self, question: impl Future<Output = lapin::Result<T>>) -> Result<T> {
        let why = tokio::select! {
            why = self.ended() => why,
            answer = timeout(ANSWER_TIME_MAX, question) => match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            },
        };
        self.fail(&why);
        Err(Error::Unavailable { layer: LAYER, why, effect: Effect::Unknown })
    }

    /// Puts a parcel where a person finds it. It has arrived when this comes back.
    pub(super) async fn park(&self, body: &[u8], claims: usize, pushed_ms: i64, why: &str) -> Result<()> {
        if self.is_alarmed() {
            return Err(alarmed());
        }
        // Parking is rare: a channel of its own costs less than sharing the confirms of another.
        let channel = self.ask(self.pushing.create_channel()).await?;
        self.ask(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let properties = parcel::properties(0, claims, pushed_ms, Some(why));
        let parked =
            async { channel.basic_publish(PARKED.into(), "".into(), MANDATORY, body, properties).await?.await };
        let parked = self.ask(parked).await?;
        let _closed_anyway = timeout(GOODBYE_TIME_MAX, channel.close(200, "parked".into())).await;
        if parked == Confirmation::Ack(None) {
            return Ok(());
        }
        let why = format!("the queue {PARKED} takes nothing more");
        Err(Error::Unavailable { layer: LAYER, why, effect: Effect::None })
    }
}

/// A step of the opening: its answer, or why there is none.
async fn in_time<T>(address: &Address, step: impl Future<Output = lapin::Result<T>>) -> Result<T, Unusable> {
    match timeout(ANSWER_TIME_MAX, step).await {
        Ok(answer) => answer.map_err(|error| address.unusable(&error)),
        Err(_) => Err(Unusable::NotYet(format!("RabbitMQ at {address} takes too long"))),
    }
}

/// What a push hears during an alarm.
pub(super) fn alarmed() -> Error {
    let why = "RabbitMQ is short of memory or disk and takes nothing more".to_owned();
    Error::Unavailable { layer: LAYER, why, effect: Effect::None }
}
