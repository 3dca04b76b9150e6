//! docs/BENCHMARKS.md, written anew from all results after every run.

use std::fmt::Write as _;

use crate::machine;
use crate::report::{number, short};
use crate::results::{Bar, Figure, Growth, GrowthLine, Results, Series};

const HEAD: &str = "# Benchmarks

This page is written by `./bench/run`; do not edit it. The numbers are of one machine, on which the load generator and all
servers share the processors, and on which one second may be half as fast as the next. So a rate alone says little: what
counts is the **ratio to a control that took turns with it**, second by second; it is the median over all turns. Every run
ends with `sluice audit`, and fails unless that is exact. Everything is as durable as it is shipped: `fsync` on, publisher
confirms on, SQLite with `synchronous=FULL`.

";

const CONTROLS: &str = "
## What stands beside what

- **The fixed answer** (`bench/src/fixed.rs`): hyper on tokio, one task that accepts, one per connection, as in
  `src/http/server.rs`, but without limits, timers, parsing or routing. It reads the POST and answers the same bytes, headers
  included, that Sluice answered a moment before: what HTTP alone costs on this stack. Sluice may pass it: an order that
  arrives whole is answered without hyper (`src/http/lane.rs`).
- **The plain architecture** (`bench/src/plain.rs`): the same three servers, one by one: a script call per order in Redis, a
  message with a confirm per order to a durable quorum queue, a transaction per order that locks the item's row, and
  as many workers, of 1, 2, 4 and 8, as settle most in a trial; each holds 32 messages. Same libraries, multiplexed Redis,
  prepared statements. It has no holds, journal, limits or epochs, so its transactions write less than Sluice's.
- **Raw SQL** (`bench/src/ceilings.rs`): 1,000 orders a transaction into Sluice's own tables with six statements in two trips,
  with nothing to read from a queue, nothing to decide and no hash to compute.

The load comes from `wrk` (one thread, `bench/orders.lua`: every request another customer under another key; 64 connections,
and 500 where orders are accepted or settled) and, where the moment counts at which a request was due, from `sluice load`.
*µs/order* is the processor time of Sluice's own processes per answered order, and goes on until the accepted ones are settled;
what the plain architecture has not settled is thrown away, uncounted. *Its control* is that of the control's per answer;
*load* that of the generator; *machine* that of everything that ran, the three servers and the generator included.
";

/// Why a line is not flat: the name of its chart, its own, and the reason. Shown where it is not.
const REASONS: [(&str, &str, &str); 6] = [
    (
        "growth-connections",
        "refusals",
        "Refusals: each connection has a state of its own, in the kernel, in tokio and in `src/http/lane.rs`, which answers \
         these orders without hyper. Among ten thousand, it has left the processor's caches when the next request comes. \
         The control, asked over as many connections, shows how much of this is the stack's and not Sluice's.",
    ),
    (
        "growth-connections",
        "accepts",
        "Accepts: the same state is needed twice, when the order comes and when the queue has it.",
    ),
    (
        "growth-sales",
        "refusals",
        "Refusals: each live sale is compared with the ledger four times a second, and each request meets another sale, \
         whose state has left the processor's caches.",
    ),
    (
        "growth-sales",
        "accepts",
        "Accepts: a batch reads and writes the rows of each of its sales once, and an order is written beside the earlier \
         ones of its sale. The more sales share a batch, the fewer orders share those rows and pages: among a thousand, hardly \
         two.",
    ),
    (
        "growth-units",
        "accepts",
        "Accepts: whose units are sold are past orders as well, and cost what past orders cost, below.",
    ),
    (
        "growth-past",
        "accepts",
        "Accepts: an order's id is a hash, so its place in the index of ids is anywhere. The larger the index, the more of \
         its pages a batch writes.",
    ),
];
/// What else has to be said about a chart, by its name.
const REMARKS: [(&str, &str); 2] = [
    (
        "growth-connections",
        "Few connections are dear: one connection sends its next order only after the answer, so with one of them every \
         wake-up serves one order, and every `fsync` keeps one. The fixed cost of a batch falls on that order alone; over \
         more connections, more orders share it.",
    ),
    (
        "growth-units",
        "The accepts are of the same sale, with more units added to it. They are units sold as well, so their points stand \
         at the middle of their runs.",
    ),
];

/// The whole page.
pub(crate) fn page(results: &Results) -> String {
    let mut page = HEAD.to_owned();
    summary(&mut page, results);
    steep(&mut page, &results.growth);
    page += "![Each figure against its bar](bench/bars.svg)\n\n";
    table(&mut page, &results.figures);
    notes(&mut page, &results.figures);
    page += CONTROLS;
    growth(&mut page, &results.growth);
    repeat(&mut page, results);
    page
}

fn put(page: &mut String, line: &str) {
    writeln!(page, "{line}").expect("a string takes everything");
}

fn summary(page: &mut String, results: &Results) {
    let barred: Vec<&Figure> = results.figures.iter().filter(|figure| figure.bar.is_some()).collect();
    let missed: Vec<&str> =
        barred.iter().filter(|figure| figure.reached() == Some(false)).map(|figure| figure.title.as_str()).collect();
    let reached = barred.len() - missed.len();
    put(
        page,
        &format!(
            "**{reached} of {} bars of the table are reached.**{}\n",
            barred.len(),
            match missed.is_empty() {
                true => String::new(),
                false => format!(" Missed: {}.", missed.join("; ")),
            }
        ),
    );
}

/// Which lines are not flat.
fn steep(page: &mut String, growth: &[Growth]) {
    let lines = growth.iter().flat_map(|one| one.lines.iter().map(move |line| (one, line)));
    let steep = lines.filter(|(_, line)| line.flat() == Some(false));
    let named = steep.map(|(one, line)| format!("{} by {} ({:.2})", line.name, axis(one), line.factor()));
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        put(
            page,
            &format!(
                "Cost per order [grows](#how-the-cost-of-an-order-grows) by more than 1.20: {}.\n",
                named.join("; ")
            ),
        );
    }
}

/// What grows, in one or two words.
fn axis(growth: &Growth) -> &str {
    growth.axis.split(',').next().unwrap_or_default()
}

fn table(page: &mut String, figures: &[Figure]) {
    put(
        page,
        "| figure | Sluice (lowest to highest) | control | ratio | bar | | µs/order | its control | load | machine |",
    );
    put(page, "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|");
    for figure in figures {
        let range = |series: &Series| {
            let median = number(series.median(), &figure.unit);
            match series.values.len() {
                0 | 1 => median,
                _ => format!("{median} ({} to {})", number(series.min(), ""), number(series.max(), "")),
            }
        };
        let control = figure.control.as_ref().map(|control| format!("{}: {}", control.name, range(control)));
        let ratio = figure.ratio().map(|ratio| format!("**{ratio:.2}**")).unwrap_or_default();
        let bar = match figure.bar {
            Some(Bar::RatioMin(least)) => format!("≥ {least:.2}"),
            Some(Bar::Max(most)) => format!("≤ {}", number(most, &figure.unit)),
            None => String::new(),
        };
        let sign = figure.reached().map_or("", |reached| if reached { "✓" } else { "✗" });
        let us = |us: Option<f64>| us.map(|us| format!("{us:.1}")).unwrap_or_default();
        let [server, theirs, generator, machine] = [
            figure.subject.of(|burst| burst.server_us),
            figure.control.as_ref().and_then(|control| control.of(|burst| burst.server_us)).filter(|us| *us > 0.0),
            figure.subject.of(|burst| burst.generator_us).filter(|us| *us > 0.0),
            figure.subject.of(|burst| burst.machine_us),
        ]
        .map(us);
        let (ours, control) = (range(&figure.subject), control.unwrap_or_default());
        put(
            page,
            &format!(
                "| {} | {ours} | {control} | {ratio} | {bar} | {sign} | {server} | {theirs} | {generator} | {machine} |",
                figure.title
            ),
        );
    }
}

fn notes(page: &mut String, figures: &[Figure]) {
    put(page, "");
    for figure in figures.iter().filter(|figure| !figure.notes.is_empty()) {
        put(page, &format!("- {}: {}.", figure.title, figure.notes.join("; ")));
    }
}

fn growth(page: &mut String, growth: &[Growth]) {
    if growth.is_empty() {
        return;
    }
    put(page, "\n## How the cost of an order grows\n");
    put(
        page,
        "The processor time of Sluice's processes per order. *Grows* is the largest factor between a point and the",
    );
    put(page, "cheapest point before it, so a cost that falls does not grow; 1.20 is the bar.\n");
    for one in growth {
        put(page, &format!("![{}](bench/{}.svg)\n", one.title, one.name));
        for lines in one.lines.chunk_by(|line, next| places(line).eq(places(next))) {
            costs(page, one, lines);
        }
        for (_, remark) in REMARKS.iter().filter(|(chart, _)| *chart == one.name) {
            put(page, &format!("{remark}\n"));
        }
        let steep = |name: &str| one.lines.iter().any(|line| line.name == name && line.flat() == Some(false));
        for (_, _, reason) in REASONS.iter().filter(|(chart, line, _)| *chart == one.name && steep(line)) {
            put(page, &format!("{reason}\n"));
        }
    }
}

fn places(line: &GrowthLine) -> impl Iterator<Item = f64> {
    line.points.iter().map(|point| point.x)
}

/// A table of lines whose points stand at the same places.
fn costs(page: &mut String, growth: &Growth, lines: &[GrowthLine]) {
    let heads: Vec<String> = lines.first().map(places).into_iter().flatten().map(short).collect();
    put(page, &format!("| µs per order, by {} | {} | grows |", growth.axis, heads.join(" | ")));
    put(page, &format!("|---|{}--:|", "--:|".repeat(heads.len())));
    for line in lines {
        let costs: Vec<String> = line.points.iter().map(|point| format!("{:.1}", point.server_us)).collect();
        let sign = line.flat().map_or("", |flat| if flat { " ✓" } else { " ✗" });
        put(page, &format!("| {} | {} | {:.2}{sign} |", line.name, costs.join(" | "), line.factor()));
    }
    put(page, "");
}

fn repeat(page: &mut String, results: &Results) {
    put(page, "\n## Repeat it\n");
    put(
        page,
        "```\n./bench/run            # everything, about an hour\n./bench/run --quick    # smaller and shorter\n./bench/run sold-out   # figures by name; --list names them\n```\n",
    );
    put(
        page,
        "It needs Rust, `wrk`, PostgreSQL, Redis and RabbitMQ (`apt-get install wrk postgresql redis-server rabbitmq-server`);",
    );
    put(page, "it starts servers of its own on free ports and touches no other. Every single run is in");
    put(page, "[bench/results.json](bench/results.json).\n");
    put(
        page,
        &format!(
            "Measured on {}; Redis {}; {}.\n",
            machine::describe(),
            redis_version(&machine::version("redis-server", &["--version"])),
            machine::version("wrk", &["-v"])
        ),
    );
    put(page, "| measured | commit | at |");
    put(page, "|---|---|---|");
    let figures = results.figures.iter().map(|figure| (&figure.name, &figure.run));
    for (name, run) in figures.chain(results.growth.iter().map(|growth| (&growth.name, &growth.run))) {
        let quick = if run.quick { ", quick" } else { "" };
        put(page, &format!("| {name}{quick} | {} | {} |", run.commit, run.at));
    }
}

/// The number in what Redis says: `Redis server v=7.0.15 sha=...`.
fn redis_version(said: &str) -> &str {
    said.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_named_by_its_number() {
        assert_eq!(redis_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"), "7.0.15");
    }

    #[test]
    fn the_results_of_this_repository_are_still_read() {
        let known = include_str!("../../docs/bench/results.json");
        let page = page(&serde_json::from_str(known).unwrap());
        assert!(page.contains("bars of the table are reached"), "{page}");
    }
}
