//! Moments in the way of an order at which a test may strike: the process dies there, or stands still until somebody lets
//! it go on. Only builds with the feature `fault-points` can be struck; in all others [`at`] is nothing.
//!
//! `SLUICE_FAULT=published:kill@3` ends the process, as `kill -9` does, when it comes to that moment for the third time;
//! `freeze` stops it there, as SIGSTOP does. Several are parted by commas.

use clap::ValueEnum;

/// The environment's variable that arms a process.
pub const VARIABLE: &str = "SLUICE_FAULT";

/// A moment between two steps. What a step does, it has done at the first moment after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Moment {
    /// An order has come; the gate was not asked yet.
    BeforeAdmit,
    /// The gate set the units aside; the queue knows nothing.
    Admitted,
    /// A batch of claims is made up; nothing of it was sent to the queue.
    BeforePublish,
    /// The queue has the claims; this process does not know it yet.
    Published,
    /// The order is durable; its customer was told nothing.
    Confirmed,
    /// An answer was handed to the network.
    Answered,
    /// Claims were pulled; the ledger was not asked yet.
    Pulled,
    /// The ledger has decided, its rows are locked; nothing is committed.
    BeforeCommit,
    /// The settlement is committed; the queue still has the claims.
    Committed,
    /// The claims are acknowledged; the gate was told nothing.
    Acknowledged,
    /// The gate has followed the journal.
    Followed,
    /// Somebody wants to confirm or cancel; the ledger was not asked yet.
    BeforeTurn,
    /// The hold is confirmed or cancelled in the ledger; the gate was told nothing.
    Turned,
    /// Due holds were given back in the ledger; the gate was told nothing.
    Lapsed,
    /// A sweep's marker is settled; nothing was pushed again.
    Swept,
    /// Reload: the ledger's epoch is raised.
    Raised,
    /// Reload: the queue is fenced.
    Fenced,
    /// Reload: what was on its way is too late.
    Waited,
    /// Reload: the marker is settled, the epochs before are closed.
    Closed,
    /// Reload: the gate is loaded and shut.
    Loaded,
    /// Reload: the queue takes the new epoch.
    Bound,
    /// Reload: the ledger's epoch is live, the gate still shut.
    Live,
    /// Reload: the gate is open.
    Opened,
}

impl Moment {
    /// As it stands in [`VARIABLE`].
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// This process has come to a moment.
#[cfg(feature = "fault-points")]
pub(crate) fn at(moment: Moment) {
    armed::strike(moment);
}

/// This process has come to a moment, which means nothing in this build.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub(crate) fn at(_: Moment) {}

/// Reads what this process is to meet. A build that cannot be struck says so, instead of passing a test unharmed.
#[cfg(feature = "fault-points")]
pub fn arm() -> anyhow::Result<()> {
    armed::arm()
}

/// Reads what this process is to meet. A build that cannot be struck says so, instead of passing a test unharmed.
#[cfg(not(feature = "fault-points"))]
pub fn arm() -> anyhow::Result<()> {
    anyhow::ensure!(
        std::env::var_os(VARIABLE).is_none(),
        "{VARIABLE} is set, and this build has no fault points: build with --features fault-points, or unset it"
    );
    Ok(())
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::process::Command;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::{Context, anyhow};
    use clap::ValueEnum;

    use super::{Moment, VARIABLE};

    static TRAPS: OnceLock<Vec<Trap>> = OnceLock::new();

    struct Trap {
        moment: Moment,
        signal: &'static str,
        /// Times to come to the moment until it strikes; below one, it has.
        left: AtomicU32,
    }

    pub(super) fn arm() -> anyhow::Result<()> {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let traps = text.split(',').filter(|trap| !trap.is_empty()).map(trap).collect::<anyhow::Result<_>>();
        let traps =
            traps.with_context(|| format!("{VARIABLE}={text}: MOMENT:kill|freeze[@TIMES], parted by commas"))?;
        TRAPS.set(traps).map_err(|_| anyhow!("armed twice"))
    }

    fn trap(text: &str) -> anyhow::Result<Trap> {
        let (moment, strike) = text.split_once(':').context("a colon is missing")?;
        let (strike, times) = strike.split_once('@').unwrap_or((strike, "1"));
        let signal = match strike {
            "kill" => "KILL",
            "freeze" => "STOP",
            other => return Err(anyhow!("neither kill nor freeze: {other}")),
        };
        let moment = Moment::from_str(moment, false).map_err(|_| {
            let all: Vec<String> = Moment::value_variants().iter().map(|moment| moment.name()).collect();
            anyhow!("no such moment: {moment}; there are {}", all.join(" "))
        })?;
        Ok(Trap { moment, signal, left: AtomicU32::new(times.parse().context("how many times?")?) })
    }

    pub(super) fn strike(moment: Moment) {
        for trap in TRAPS.get().into_iter().flatten().filter(|trap| trap.moment == moment) {
            let less = |left: u32| left.checked_sub(1);
            if trap.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) == Ok(1) {
                eprintln!("fault point {}: SIG{}", moment.name(), trap.signal);
                let us = std::process::id().to_string();
                let sent = Command::new("kill").args([&format!("-{}", trap.signal), &us]).status();
                assert!(sent.is_ok_and(|status| status.success()), "could not send SIG{} to itself", trap.signal);
            }
        }
    }
}
