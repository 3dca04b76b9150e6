//! Whole sales on simulated machines: the real order path, a crowd, operators, and everything that can go wrong, in a
//! sequence that a seed decides. `SLUICE_SIMULATIONS=n` or `m..n` runs more seeds, `SLUICE_SEED=n` repeats one.
//!
//! A run has one process alone, or several APIs and workers over a gate, a broker and a ledger; one sale, or up to three over
//! two shards. Calls are lost, or late; processes die, or stand still for seconds; the gate forgets, comes back with an old
//! dump, or is replaced while some still reach it; the broker crashes, undoes its last bindings, or loses everything; clocks
//! are set by up to an hour. Never in one run: the broker loses everything, and the gate its memory. Nobody could know then
//! what was accepted.

mod checks;
mod clocks;
mod executor;
mod gate;
mod heal;
mod ledger;
mod people;
mod promises;
mod queue;
mod run;
mod sim;
mod troubles;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use promises::{
    BACK, CONFIRMED, FALSE_NO, FOLLOWS, KEPT, LIMIT, ON_TIME, PENDING, RECOUNT, REFUSED, RETRY, SAME_KEY, SELLS, SOON,
    UNASKED, WINDOW,
};
use run::play;
use sim::Violation;
use sluice::clock::{Clock, RealClock};
use world::Bug;

/// Seeds of one test run, unless `SLUICE_SIMULATIONS` says otherwise: always the same, so that a failure comes from a change.
const SEEDS: u64 = 100_000;
/// Seeds in which a planted bug must show; most show within 1,500, the rarest, a late claim that is settled during a reload, at
/// seed 28,317 when this was written. Each test prints its own.
const SEEDS_WITH_BUG: u64 = 200_000;
/// Violations after which a run of many seeds stops.
const VIOLATIONS_MAX: usize = 5;

/// `SLUICE_SEED=7`, `SLUICE_SIMULATIONS=200000` or `SLUICE_SIMULATIONS=200000..300000`.
fn seeds() -> Range<u64> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"));
    if let Ok(seed) = std::env::var("SLUICE_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    let Ok(simulations) = std::env::var("SLUICE_SIMULATIONS") else { return 0..SEEDS };
    let (first, end) = simulations.split_once("..").unwrap_or(("0", &simulations));
    number(first)..number(end)
}

/// What many seeds came to.
#[derive(Default)]
struct Tally {
    seeds: AtomicU64,
    sales: AtomicU64,
    /// The longest way from the last fault to full service, in simulated milliseconds.
    service_ms_max: AtomicU64,
    violations: Mutex<Vec<(u64, Violation)>>,
}

/// Plays the seeds on all processors, until there are so many violations.
fn play_all(seeds: Range<u64>, bug: Option<Bug>, violations_max: usize) -> Tally {
    let (tally, next, enough) = (Tally::default(), AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = play(seed, bug, false);
            tally.seeds.fetch_add(1, Ordering::Relaxed);
            tally.sales.fetch_add(outcome.sales as u64, Ordering::Relaxed);
            let service_ms = u64::try_from(outcome.service_time.as_millis()).unwrap_or(u64::MAX);
            tally.service_ms_max.fetch_max(service_ms, Ordering::Relaxed);
            if let Some(violation) = outcome.sim.violation() {
                if bug.is_none() {
                    // Told at once: a long run may be ended early.
                    println!("seed {seed} breaks \"{}\": {}", violation.invariant, violation.detail);
                }
                let mut violations = tally.violations.lock().unwrap();
                violations.push((seed, violation));
                enough.fetch_or(violations.len() >= violations_max, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    tally.violations.lock().unwrap().sort_by_key(|(seed, _)| *seed);
    tally
}

#[test]
fn every_promise_is_kept() {
    let seeds = seeds();
    let clock = RealClock::new();
    let tally = play_all(seeds, None, VIOLATIONS_MAX);
    let took = clock.monotonic();
    let violations = tally.violations.into_inner().unwrap();
    let (seeds, sales) = (tally.seeds.into_inner(), tally.sales.into_inner());
    println!(
        "{seeds} seeds, {sales} sales, {:.0} seeds a second, {} violations, full service at most {:?} after the last fault",
        seeds as f64 / took.as_secs_f64(),
        violations.len(),
        Duration::from_millis(tally.service_ms_max.into_inner()),
    );
    if let Some((seed, Violation { invariant, detail })) = violations.first() {
        let events = play(*seed, None, true).sim.events();
        panic!("seed {seed} breaks \"{invariant}\": {detail}\nits last events:{events}\nrepeat it: SLUICE_SEED={seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..100 {
        assert_eq!(play(seed, None, true).sim.events(), play(seed, None, true).sim.events(), "seed {seed}");
    }
}

/// The bug must show, as one of these broken promises.
fn shows(bug: Bug, invariants: &[&str]) {
    let tally = play_all(0..SEEDS_WITH_BUG, Some(bug), 1);
    let seeds = tally.seeds.into_inner();
    let violations = tally.violations.into_inner().unwrap();
    let Some((seed, Violation { invariant, detail })) = violations.first() else {
        panic!("none of {seeds} seeds shows {bug:?}");
    };
    println!("{bug:?} shows at seed {seed} as \"{invariant}\"");
    assert!(
        invariants.contains(invariant),
        "seed {seed} shows {bug:?} as \"{invariant}\": {detail}\nits last events:{}",
        play(*seed, Some(bug), true).sim.events()
    );
}

macro_rules! planted {
    ($($test:ident: $bug:ident shows $($invariant:ident)|+;)*) => {
        $(#[test]
        fn $test() {
            shows(Bug::$bug, &[$($invariant),+]);
        })*
    };
}

planted! {
    a_message_acknowledged_before_its_commit_shows: AcknowledgeBeforeCommit shows KEPT | RETRY;
    a_lost_push_answered_as_durable_shows: LostPushAnsweredAsDurable shows KEPT | RETRY;
    a_missing_fence_shows: NoFence shows KEPT | RETRY | SAME_KEY;
    a_loader_that_does_not_wait_shows: NoWait shows KEPT | RETRY | SAME_KEY;
    a_missing_marker_shows: NoMarker shows KEPT | RETRY | SAME_KEY;
    a_marker_trusted_after_its_redelivery_shows: RedeliveredMarkerTrusted shows KEPT | RETRY | SAME_KEY;
    a_closed_epoch_settled_all_the_same_shows: ClosedEpochsSettled shows REFUSED | RECOUNT | FOLLOWS | SAME_KEY;
    a_late_claim_settled_during_a_reload_shows: LateSettledWhileReloading shows REFUSED | RECOUNT | FOLLOWS | SAME_KEY;
    a_gate_live_before_its_epoch_is_bound_shows: LiveBeforeBound shows KEPT | BACK | SELLS | RETRY | SOON;
    an_epoch_ignored_shows: EpochIgnored shows BACK | SELLS | SOON;
    a_stale_memory_trusted_shows: StaleMemoryTrusted shows RETRY | REFUSED | RECOUNT | FOLLOWS | SAME_KEY;
    an_empty_gate_that_says_sold_out_shows: EmptyMeansSoldOut shows FALSE_NO;
    moves_applied_twice_show: MovesAppliedTwice shows FOLLOWS;
    compensating_on_a_timeout_shows: CompensateOnTimeout shows REFUSED | RECOUNT | FOLLOWS | RETRY;
    pending_claims_forgotten_show: PendingForgotten shows PENDING | SOON | SELLS;
    a_gate_that_carries_nothing_over_shows: NothingCarriedOver shows KEPT | RETRY;
    a_fenced_push_taken_for_a_failure_shows: FencedMeansFailed shows SOON | SELLS;
    fences_not_repeated_after_a_crash_show: FencesNotRepeated shows KEPT | RETRY | SAME_KEY | SOON;
    a_process_that_goes_by_its_own_clock_shows: OwnTimeOfDay shows WINDOW | ON_TIME;
    a_ledger_that_forgets_ids_shows: LedgerForgetsIds shows UNASKED;
    a_limit_only_at_the_gate_shows: LimitOnlyAtTheGate shows LIMIT;
    a_confirm_without_a_guard_shows: ConfirmUnguarded shows CONFIRMED;
}
