//! Keeps a queue connected: when a session ends, everything of it is dropped and another is opened, however long it takes.
//! The client library can recover connections by itself, but does not after a restart of the broker (amqp-rs/lapin, issue
//! 450), and cannot know what this queue must forget.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::session::Session;
use super::{Shared, reader, unbind};
use crate::model::{Epoch, SaleId, limits};
use crate::remote::{Backoff, Unusable};

/// How long readers may take to notice that their connection is closed.
const READERS_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs until the queue is dropped.
pub(super) async fn run(shared: Arc<Shared>, first: Arc<Session>) {
    let mut session = first;
    loop {
        let mut readers = JoinSet::new();
        let why = tokio::select! {
            why = session.watch() => Some(why),
            () = read_when_wanted(&shared, &session, &mut readers) => None,
            () = shared.stop.notified() => None,
        };
        shared.install(None);
        // First the goodbye, so that no consumer is cancelled while its connection lives.
        session.close().await;
        let all_ended = async { while readers.join_next().await.is_some() {} };
        let _some_hang = timeout(READERS_TIME_MAX, all_ended).await;
        readers.shutdown().await;
        shared.buffer.clear();
        drop(session);
        let Some(why) = why else { return };
        let fences = shared.recent_fences();
        tracing::warn!(why, "lost RabbitMQ, connecting again");
        session = tokio::select! {
            session = open(&shared, &fences) => session,
            () = shared.stop.notified() => return,
        };
        shared.install(Some(session.clone()));
        tracing::info!("connected to RabbitMQ again");
    }
}

/// Starts the readers once this process pulls. The shards stand in a random sequence, so that two workers that start
/// together share them.
async fn read_when_wanted(shared: &Arc<Shared>, session: &Arc<Session>, readers: &mut JoinSet<()>) {
    let mut pulls = shared.pulls.subscribe();
    let _sender_lives = pulls.wait_for(|pulls| *pulls).await.is_ok();
    let mut shards: Vec<usize> = (0..limits::QUEUE_SHARDS).collect();
    while !shards.is_empty() {
        let pick = usize::try_from(shared.clock.chance() % shards.len() as u64).unwrap_or(0);
        readers.spawn(reader::run(shards.swap_remove(pick), shared.clone(), session.clone()));
    }
    pending::<()>().await;
}

/// Opens a session, trying again and again.
async fn open(shared: &Shared, fences: &[(SaleId, Epoch)]) -> Arc<Session> {
    let mut backoff = Backoff::default();
    let mut said = String::new();
    loop {
        shared.clock.sleep(backoff.next(shared.clock.chance())).await;
        let why = match Session::open(&shared.address, shared.clock.as_ref()).await {
            Ok(session) if fenced_again(shared, &session, fences).await => return Arc::new(session),
            Ok(_) => continue,
            Err(Unusable::NotYet(why) | Unusable::Wrong(why)) => why,
        };
        if why != said {
            tracing::warn!(why, "no connection to RabbitMQ yet");
            said = why;
        }
    }
}

/// Repeats the fences that a power failure may have undone, before any marker of this process closes an epoch behind them.
async fn fenced_again(shared: &Shared, session: &Session, fences: &[(SaleId, Epoch)]) -> bool {
    for (sale, below) in fences {
        if unbind(session, sale, Epoch::FIRST, *below).await.is_err() {
            return false;
        }
    }
    if !fences.is_empty() {
        shared.fenced_again();
    }
    true
}
