//! What it costs to be watched: a hundred consoles on the live stream of one sale, against the same sale unwatched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::figures::{BUYERS, CONNECTIONS, Effort, ask, plenty, sold_out_sale};
use crate::machine::Meter;
use crate::report::Report;
use crate::results::{Bar, Series};
use crate::scene::Scene;
use crate::wrk::Burst;

const WATCHERS: usize = 100;
/// A second brings five ticks, each a few hundred bytes at least.
const BYTES_PER_SECOND_MIN: usize = 1_000;

/// Open streams that are read and thrown away; dropped, they close.
struct Watchers {
    readers: JoinSet<()>,
    read: Vec<Arc<AtomicUsize>>,
}

impl Watchers {
    async fn open(scene: &Scene, sale: &str) -> anyhow::Result<Self> {
        let (mut readers, mut read) = (JoinSet::new(), Vec::new());
        for _watcher in 0..WATCHERS {
            let mut stream = TcpStream::connect(scene.address()).await?;
            stream.write_all(scene.live_request(sale).as_bytes()).await?;
            let mut buffer = vec![0; 64 * 1024];
            let count = stream.read(&mut buffer).await?;
            ensure!(buffer[..count].starts_with(b"HTTP/1.1 200 "), "a watcher is not let in");
            let bytes = Arc::new(AtomicUsize::new(0));
            read.push(bytes.clone());
            readers.spawn(async move {
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    bytes.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { readers, read })
    }

    /// Closes them all; an error if one of them saw next to nothing within so many seconds.
    async fn close(mut self, seconds: u32) -> anyhow::Result<()> {
        let least = self.read.iter().map(|bytes| bytes.load(Ordering::Relaxed)).min().unwrap_or(0);
        ensure!(least >= BYTES_PER_SECOND_MIN * seconds as usize, "a watcher has read {least} bytes in {seconds} s");
        self.readers.shutdown().await;
        Ok(())
    }
}

/// Refusals of a sold-out sale, or accepts of an open one.
pub(crate) async fn measure(name: &str, refused: bool, effort: &Effort, report: &mut Report) -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let (what, connections) = if refused { ("sold-out answers", CONNECTIONS) } else { ("durable accepts", BUYERS) };
    let mut figure = report.figure(name, &format!("{what} before {WATCHERS} watchers, embedded"), "/s");
    (figure.bar, figure.control) = (Some(Bar::RatioMin(0.95)), Some(Series::new("the same unwatched")));
    let closed = sold_out_sale(&scene, 1).await?;
    for turn in 0..=effort.turns {
        let mut bursts = [Burst::default(), Burst::default()];
        // The ledger grows from burst to burst, so either comes first in its turn.
        let first = turn % 2 == 1;
        for watched in [first, !first] {
            let sale = if refused { closed.clone() } else { plenty(&scene).await? };
            let watchers = if watched { Some(Watchers::open(&scene, &sale).await?) } else { None };
            let pids = scene.pids();
            let meter = Meter::start(&pids)?;
            let burst = ask(&scene.target.url, &sale, &pids, connections, effort)?;
            ensure!(burst.refused == if refused { burst.answers } else { 0 }, "somebody was told something else");
            if let Some(watchers) = watchers {
                watchers.close(effort.seconds).await?;
            }
            scene.settled(&sale).await?;
            bursts[usize::from(watched)] = if refused { burst } else { burst.metered(&meter)? };
        }
        // The first turn warms everything up.
        if turn > 0 {
            let [theirs, ours] = bursts;
            figure.subject.add(ours);
            figure.control.iter_mut().for_each(|series| series.add(theirs.clone()));
        }
    }
    scene.audit(None).await?;
    report.put(figure)
}
