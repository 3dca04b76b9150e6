//! Shows on stderr how far the crowd is: a bar for a person, a line now and then for a log.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::engine::Tally;
use super::record::Outcome;
use super::summary::grouped;
use crate::clock::Clock;

/// How often the bar is drawn.
const DRAW: Duration = Duration::from_millis(100);
/// How often a log gets a line.
const LINE: Duration = Duration::from_secs(5);

/// Whether anybody watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Nobody.
    Silent,
    /// Whoever sees stderr.
    Stderr,
}

/// Shows the counts until the future is dropped.
pub async fn show(watch: Watch, tally: &Tally, total: u64, clock: &dyn Clock) {
    match watch {
        Watch::Silent => std::future::pending().await,
        Watch::Stderr if std::io::stderr().is_terminal() => bar(tally, total, clock).await,
        Watch::Stderr => lines(tally, total, clock).await,
    }
}

async fn bar(tally: &Tally, total: u64, clock: &dyn Clock) {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let line = if plain { "{bar:30} {percent:>3}% {msg}" } else { "{bar:30.cyan} {percent:>3}% {msg}" };
    let style = ProgressStyle::with_template(line).expect("the template is well formed");
    let bar = Cleared(ProgressBar::new(total).with_style(style));
    loop {
        bar.0.set_message(counts(tally));
        bar.0.set_position(tally.done());
        clock.sleep(DRAW).await;
    }
}

async fn lines(tally: &Tally, total: u64, clock: &dyn Clock) {
    loop {
        clock.sleep(LINE).await;
        eprintln!("{} of {} requests: {}", grouped(tally.done()), grouped(total), counts(tally));
    }
}

fn counts(tally: &Tally) -> String {
    let shown = Outcome::ALL.into_iter().map(|outcome| (outcome.words(), tally.count(outcome)));
    let shown: Vec<String> =
        shown.filter(|(_, count)| *count > 0).map(|(words, count)| format!("{words} {}", grouped(count))).collect();
    shown.join(" · ")
}

/// A bar that leaves no trace.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
