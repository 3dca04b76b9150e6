//! A connection whose client takes no byte of its answer for too long fails, instead of being kept for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, interval_at};

use crate::fault::{self, Moment};

/// A stream that fails when a write waits for longer than its limit.
pub(super) struct StallGuard<S> {
    stream: S,
    /// What was read and put back.
    unread: Bytes,
    stall_max: Duration,
    /// Ticks while a write waits.
    waiting: Option<Interval>,
}

impl<S> StallGuard<S> {
    pub(super) fn new(stream: S, stall_max: Duration) -> Self {
        Self { stream, unread: Bytes::new(), stall_max, waiting: None }
    }

    /// Lets the next reader begin with this, of which nothing was used.
    pub(super) fn put_back(&mut self, unread: Bytes) {
        self.unread = unread;
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let stall_max = self.stall_max;
        let begin = || interval_at(tokio::time::Instant::now() + stall_max, stall_max);
        ready!(self.waiting.get_or_insert_with(begin).poll_tick(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

fn answered(poll: &Poll<io::Result<usize>>) {
    if matches!(poll, Poll::Ready(Ok(_))) {
        fault::at(Moment::Answered);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let count = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        answered(&poll);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        answered(&poll);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, poll)
    }
}
