//! A lane carries the pushes of one shard: what gathers while a batch is in flight leaves with the next one, in sequence.
//!
//! A batch is answered as a whole, when all its confirms have come. RabbitMQ returns a parcel that no binding takes before
//! it confirms it, but the client library hands the return to whichever confirm it processes next (lapin 4.12,
//! `Acknowledgements::complete_pending`). With nothing else on the channel, the returns that came along with a batch are
//! exactly the batch's own, and the parcel's id says whose.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::{Confirmation, PublisherConfirm};
use tokio::time::timeout;

use super::session::{MANDATORY, Session, alarmed};
use super::{LAYER, Shared, not_connected, parcel};
use crate::batcher::{Batches, Waiting};
use crate::clock::Clock;
use crate::fault::{self, Moment};
use crate::model::{Effect, Error, Message, Result, limits};
use crate::queue::Push;
use crate::way::Stop;

/// How long confirms are waited for before the session is given up. Whoever pushed has heard "unknown" long before.
const CONFIRM_TIME_MAX: Duration = Duration::from_secs(5);

/// A message that was handed in, and when on the monotonic clock.
pub(super) struct Handed {
    pub(super) message: Message,
    pub(super) at: Duration,
}

type Publishing<'a> = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a>>;

/// Pushes what gathers, batch by batch, until nobody can push any more.
pub(super) async fn run(shard: usize, shared: Arc<Shared>, mut batches: Batches<Handed, Result<Push>>) {
    let mut last_id = 0;
    while let Some(batch) = batches.next(limits::PUSH_BATCH_CLAIMS_MAX).await {
        let now = shared.clock.monotonic();
        let in_time = |waiting: &Waiting<Handed, _>| now.saturating_sub(waiting.item.at) < limits::PUSH_TIME_MAX;
        // Nobody waits for the late ones, and whatever is late already must not make the next ones late too.
        let (batch, late): (Vec<_>, Vec<_>) = batch.into_iter().partition(in_time);
        drop(late);
        let (handed, answers): (Vec<Handed>, Vec<_>) = batch.into_iter().map(Waiting::split).unzip();
        let pushes = match shared.session() {
            None => vec![Err(not_connected()); handed.len()],
            Some(session) if session.is_alarmed() => vec![Err(alarmed()); handed.len()],
            Some(session) => {
                shared.ways.note(handed.iter().filter_map(|handed| handed.message.claim_id()), &[(Stop::Sealed, now)]);
                push(shard, &session, shared.clock.as_ref(), &handed, &mut last_id).await
            }
        };
        answers.into_iter().zip(pushes).for_each(|(answer, push)| answer(push));
    }
}

/// One batch: all its parcels leave together, and are answered together.
async fn push(
    shard: usize,
    session: &Session,
    clock: &dyn Clock,
    handed: &[Handed],
    last_id: &mut u64,
) -> Vec<Result<Push>> {
    let parcels = parcel::pack(shard, handed.iter().map(|handed| &handed.message));
    let pushed_ms = clock.now().millis();
    let mut publishing: Vec<Publishing> = Vec::new();
    let mut ids = Vec::new();
    for parcel in &parcels {
        *last_id += 1;
        ids.push(last_id.to_string());
        let properties = parcel::properties(*last_id, parcel.items.len(), pushed_ms, None);
        let (exchange, key) = (parcel.exchange.clone(), parcel.key.clone());
        let lane = &session.lanes[shard];
        publishing.push(Box::pin(lane.basic_publish(exchange, key, MANDATORY, &parcel.body, properties)));
    }
    let claims = handed.iter().any(|handed| handed.message.is_claim());
    if claims {
        fault::at(Moment::BeforePublish);
    }
    let confirms = confirmed(session, publishing).await;
    if claims {
        fault::at(Moment::Published);
    }
    let mut pushes = vec![Err(unknown("it cannot be written")); handed.len()];
    let answers = match confirms {
        Ok(confirmations) => answers(&ids, confirmations),
        Err(error) => vec![Err(error); parcels.len()],
    };
    for (parcel, answer) in parcels.iter().zip(answers) {
        parcel.items.iter().for_each(|item| pushes[*item] = answer.clone());
    }
    pushes
}

/// All confirms of what is published here, in its sequence.
async fn confirmed(session: &Session, publishing: Vec<Publishing<'_>>) -> Result<Vec<Confirmation>> {
    let all = async {
        let mut left = Vec::new();
        for mut publishing in publishing {
            // The first poll queues the parcel, so that the sequence is this one whatever is polled first later.
            let polled = poll_fn(|context| Poll::Ready(publishing.as_mut().poll(context))).await;
            left.push(async move {
                let confirm = match polled {
                    Poll::Ready(confirm) => confirm?,
                    Poll::Pending => publishing.await?,
                };
                confirm.await
            });
        }
        try_join_all(left).await
    };
    tokio::pin!(all);
    loop {
        let confirmed = tokio::select! {
            why = session.ended() => return Err(unknown(&why)),
            confirmed = timeout(CONFIRM_TIME_MAX, &mut all) => confirmed,
        };
        match confirmed {
            Ok(Ok(confirmations)) => return Ok(confirmations),
            Ok(Err(error)) => {
                session.fail(&error);
                return Err(unknown(&error.to_string()));
            }
            // An alarm may last; what is on its way is confirmed after it.
            Err(_) if session.is_alarmed() => {}
            Err(_) => {
                session.fail("RabbitMQ confirms nothing");
                return Err(unknown("RabbitMQ confirms nothing"));
            }
        }
    }
}

/// What each parcel came to; `ids` are in the sequence of the confirmations.
fn answers(ids: &[String], confirmations: Vec<Confirmation>) -> Vec<Result<Push>> {
    let taken: Vec<bool> = confirmations.iter().map(Confirmation::is_ack).collect();
    let returned = confirmations.into_iter().filter_map(Confirmation::take_message);
    let returned: HashSet<String> = returned
        .filter_map(|message| message.delivery.properties.message_id().as_ref().map(ToString::to_string))
        .collect();
    let answer = |(id, taken): (&String, bool)| match (returned.contains(id), taken) {
        (true, _) => Ok(Push::Fenced),
        (false, true) => Ok(Push::Durable),
        // The queue is full: the only reason to refuse what was routed.
        (false, false) => Err(Error::Overloaded(LAYER)),
    };
    ids.iter().zip(taken).map(answer).collect()
}

fn unknown(why: &str) -> Error {
    Error::Unavailable { layer: LAYER, why: why.to_owned(), effect: Effect::Unknown }
}
