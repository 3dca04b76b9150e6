//! A TCP proxy that breaks what passes through it, on command: it refuses, cuts, delays, slows down, lets one direction go
//! nowhere, and strikes exactly before a message of a given kind. It counts what it did, so that a scenario can assert that
//! its fault was there.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sluice::clock::{Clock, RealClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::frames::{Frames, Kind, Protocol, Side};

/// Messages between reading and writing of one direction; beyond it the sender is held back.
const ON_ITS_WAY_MAX: usize = 4_096;

/// What a fault does to the connection that it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Both ends hear that it is gone; the message does not arrive.
    Cut,
    /// The direction stops there until the proxy is healed.
    Stall,
}

/// A way to a server on this machine.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    protocol: Protocol,
    clock: RealClock,
    rules: watch::Sender<Rules>,
    trap: Mutex<Option<Trap>>,
    struck: AtomicUsize,
    open: AtomicUsize,
}

#[derive(Clone, Default)]
struct Rules {
    /// The server's port.
    target: u16,
    refuses: bool,
    /// Of what the client sends, and of what the server sends.
    stalls: [bool; 2],
    delays: [Duration; 2],
    bytes_per_second: Option<u32>,
    /// Connections of earlier numbers are cut.
    cuts: u64,
    /// Whether the last cut is told by a reset, or by an ordinary goodbye.
    resets: bool,
}

/// Waits for a message.
struct Trap {
    side: Side,
    kind: Kind,
    strike: Strike,
    left: usize,
}

/// All proxies of this process live here, so that a test which blocks its own threads blocks none of them.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

impl Proxy {
    /// A way to the server at this port, which may come later.
    pub(crate) fn start(protocol: Protocol, target: u16) -> Self {
        let (rules, _) = watch::channel(Rules { target, resets: true, ..Rules::default() });
        let trap = Mutex::default();
        let (struck, open) = Default::default();
        let shared = Arc::new(Shared { protocol, clock: RealClock::new(), rules, trap, struck, open });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listening = runtime().spawn({
            let shared = shared.clone();
            async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(shared.clone(), client));
                }
            }
        });
        Self { port, shared, listening }
    }

    /// The URL of the server, led through here.
    pub(crate) fn lead(&self, url: &str) -> String {
        let target = self.shared.rules.borrow().target;
        let led = url.replace(&format!(":{target}"), &format!(":{}", self.port));
        assert_ne!(led, url, "{url} is not at port {target}");
        led
    }

    /// Leads new connections to another server.
    pub(crate) fn aim(&self, target: u16) {
        self.change(|rules| rules.target = target);
    }

    /// Takes no new connections from now on.
    pub(crate) fn refuse(&self) {
        self.change(|rules| rules.refuses = true);
    }

    /// Ends all connections, by a reset.
    pub(crate) fn cut(&self) {
        self.change(|rules| (rules.cuts, rules.resets) = (rules.cuts + 1, true));
    }

    /// Ends all connections with an ordinary goodbye.
    pub(crate) fn close(&self) {
        self.change(|rules| (rules.cuts, rules.resets) = (rules.cuts + 1, false));
    }

    /// What this side sends goes nowhere, and nobody hears of it; new connections open all the same.
    pub(crate) fn stall(&self, side: Side) {
        self.change(|rules| rules.stalls[side as usize] = true);
    }

    /// Everything takes so much longer, each way.
    pub(crate) fn delay(&self, time: Duration) {
        self.change(|rules| rules.delays = [time; 2]);
    }

    /// So much passes in a second, in each direction of each connection.
    pub(crate) fn throttle(&self, bytes_per_second: u32) {
        self.change(|rules| rules.bytes_per_second = Some(bytes_per_second));
    }

    /// Strikes exactly before the next messages of this kind pass, so many times.
    pub(crate) fn trap(&self, side: Side, kind: Kind, strike: Strike, times: usize) {
        *self.shared.trap.lock().unwrap() = Some(Trap { side, kind, strike, left: times });
    }

    /// How often a trap has struck.
    pub(crate) fn struck(&self) -> usize {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Everything passes again; what was stalled goes on its way.
    pub(crate) fn heal(&self) {
        *self.shared.trap.lock().unwrap() = None;
        self.change(|rules| {
            *rules = Rules { target: rules.target, cuts: rules.cuts, resets: true, ..Rules::default() }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.shared.rules.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

/// Carries one connection to its end.
async fn carry(shared: Arc<Shared>, mut client: TcpStream) {
    let mut rules = shared.rules.subscribe();
    let (target, refuses, cuts) = {
        let now = rules.borrow();
        (now.target, now.refuses, now.cuts)
    };
    let server = if refuses { None } else { TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await.ok() };
    let Some(mut server) = server else {
        let _gone = client.set_zero_linger();
        return;
    };
    let _gone = [client.set_nodelay(true), server.set_nodelay(true)];
    shared.open.fetch_add(1, Ordering::Relaxed);
    let resets = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let both = async {
            let up = pump(&shared, Side::Client, from_client, to_server);
            tokio::try_join!(up, pump(&shared, Side::Server, from_server, to_client))
        };
        tokio::select! {
            ended = both => ended.is_err(),
            cut = rules.wait_for(|rules| rules.cuts > cuts) => cut.is_ok_and(|rules| rules.resets),
        }
    };
    if resets {
        let _gone = [client.set_zero_linger(), server.set_zero_linger()];
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

/// Carries one direction until its sender has finished.
async fn pump(shared: &Shared, side: Side, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel(ON_ITS_WAY_MAX);
    let read = async move {
        let mut frames = Frames::new(shared.protocol, side);
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut bytes).await?;
            if count == 0 {
                break;
            }
            frames.add(&bytes[..count]);
            let now = shared.clock.monotonic();
            while let Some((kind, message)) = frames.next() {
                let _writer_ended = sender.send((now, kind, message)).await;
            }
        }
        let _writer_ended = sender.send((shared.clock.monotonic(), Kind::Other, frames.rest())).await;
        Ok(())
    };
    let write = async {
        let mut out = Vec::new();
        while let Some((at, kind, message)) = receiver.recv().await {
            if !shared.is_free(side, kind) {
                // What came before has passed already.
                to.write_all(&out).await?;
                out.clear();
                shared.hinder(side, at, kind, message.len()).await?;
            }
            out.extend(message);
            if receiver.is_empty() {
                to.write_all(&out).await?;
                out.clear();
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

impl Shared {
    /// Whether a message passes as if there were no proxy.
    fn is_free(&self, side: Side, kind: Kind) -> bool {
        let trapped =
            kind != Kind::Other && self.trap.lock().unwrap().as_ref().is_some_and(|trap| trap.waits(side, kind));
        let rules = self.rules.borrow();
        let at = side as usize;
        !trapped && !rules.stalls[at] && rules.delays[at].is_zero() && rules.bytes_per_second.is_none()
    }

    /// Comes back when the message may pass; an error cuts its connection.
    async fn hinder(&self, side: Side, at: Duration, kind: Kind, length: usize) -> io::Result<()> {
        let mut rules = self.rules.subscribe();
        let (delay, speed) = {
            let now = rules.borrow();
            (now.delays[side as usize], now.bytes_per_second)
        };
        self.clock.sleep((at + delay).saturating_sub(self.clock.monotonic())).await;
        if let Some(speed) = speed {
            self.clock.sleep(Duration::from_secs_f64(length as f64 / f64::from(speed))).await;
        }
        match self.spring(side, kind) {
            Some(Strike::Cut) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Strike::Stall) => drop(rules.wait_for(|_| self.trap.lock().unwrap().is_none()).await),
            None => {}
        }
        let _proxy_gone = rules.wait_for(|rules| !rules.stalls[side as usize]).await;
        Ok(())
    }

    /// What a trap does to this message.
    fn spring(&self, side: Side, kind: Kind) -> Option<Strike> {
        let mut trap = self.trap.lock().unwrap();
        let trap = trap.as_mut().filter(|trap| trap.waits(side, kind))?;
        trap.left -= 1;
        self.struck.fetch_add(1, Ordering::Relaxed);
        Some(trap.strike)
    }
}

impl Trap {
    fn waits(&self, side: Side, kind: Kind) -> bool {
        (self.side, self.kind) == (side, kind) && self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread;

    use super::*;
    use crate::eventually::eventually;

    /// A server that answers every line with `HTTP/1.1 <line>`, and a connection to it through a proxy.
    fn echo() -> (Proxy, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        let answer = format!("HTTP/1.1 {}\r\n\r\n", String::from_utf8_lossy(&bytes[..count]));
                        let _client_gone = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        let proxy = Proxy::start(Protocol::Http, port);
        let client = connect(&proxy);
        (proxy, client)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    fn ask(client: &mut TcpStream, word: &str) -> io::Result<String> {
        client.write_all(word.as_bytes())?;
        hear(client)
    }

    fn hear(client: &mut TcpStream) -> io::Result<String> {
        let mut bytes = [0; 64];
        let count = client.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[test]
    fn what_is_asked_is_answered_until_the_way_is_refused() {
        let (proxy, mut client) = echo();
        assert_eq!(ask(&mut client, "a").unwrap(), "HTTP/1.1 a\r\n\r\n");
        proxy.refuse();
        assert_eq!(ask(&mut client, "b").unwrap(), "HTTP/1.1 b\r\n\r\n");
        assert!(ask(&mut connect(&proxy), "c").is_err());
        proxy.heal();
        assert_eq!(ask(&mut connect(&proxy), "d").unwrap(), "HTTP/1.1 d\r\n\r\n");
    }

    #[tokio::test]
    async fn a_cut_is_a_reset_and_a_close_a_goodbye() {
        let (proxy, mut client) = echo();
        ask(&mut client, "a").unwrap();
        proxy.cut();
        assert_eq!(hear(&mut client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut client = connect(&proxy);
        ask(&mut client, "a").unwrap();
        proxy.close();
        assert_eq!(hear(&mut client).unwrap(), "");
        eventually("nothing is open", async || proxy.open() == 0).await;
    }

    #[test]
    fn a_stalled_direction_goes_on_where_it_stopped() {
        let (proxy, mut client) = echo();
        ask(&mut client, "a").unwrap();
        proxy.stall(Side::Server);
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(ask(&mut client, "b").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        proxy.heal();
        assert_eq!(hear(&mut client).unwrap(), "HTTP/1.1 b\r\n\r\n");
    }

    #[test]
    fn a_slow_way_takes_its_time() {
        let (proxy, mut client) = echo();
        let clock = RealClock::new();
        proxy.delay(Duration::from_millis(100));
        ask(&mut client, "a").unwrap();
        assert!(clock.monotonic() >= Duration::from_millis(200), "{:?}", clock.monotonic());
        proxy.heal();
        proxy.throttle(100);
        let clock = RealClock::new();
        ask(&mut client, "b").unwrap();
        assert!(clock.monotonic() >= Duration::from_millis(140), "{:?}", clock.monotonic());
    }

    #[tokio::test]
    async fn a_trap_strikes_exactly_before_its_message() {
        let (proxy, mut client) = echo();
        proxy.trap(Side::Server, Kind::Answer, Strike::Cut, 1);
        assert_eq!(ask(&mut client, "a").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.struck(), 1);
        let mut client = connect(&proxy);
        assert_eq!(ask(&mut client, "b").unwrap(), "HTTP/1.1 b\r\n\r\n");
        proxy.trap(Side::Server, Kind::Answer, Strike::Stall, 1);
        client.write_all(b"c").unwrap();
        eventually("it strikes", async || proxy.struck() == 2).await;
        proxy.heal();
        assert_eq!(hear(&mut client).unwrap(), "HTTP/1.1 c\r\n\r\n");
    }
}
