//! The report: a table as the run goes on, docs/BENCHMARKS.md, its charts and its raw results.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sluice::clock::{Clock, RealClock};

use crate::results::{Bar, Figure, Growth, Results, Run, Series};
use crate::{chart, document};

/// Collects results and writes them.
pub(crate) struct Report {
    results: Results,
    run: Run,
    dry: bool,
    headed: bool,
    missed: Vec<String>,
}

impl Report {
    /// Over what the last run left, unless this one is dry.
    pub(crate) fn open(quick: bool, dry: bool) -> anyhow::Result<Self> {
        let known = fs::read_to_string(results_path());
        let results = match known {
            Ok(text) if !dry => serde_json::from_str(&text)?,
            _ => Results::default(),
        };
        let commit = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"]).output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let run = Run { commit, at: RealClock::new().now().to_string(), quick };
        Ok(Self { results, run, dry, headed: false, missed: Vec::new() })
    }

    /// An empty figure of this run.
    pub(crate) fn figure(&self, name: &str, title: &str, unit: &str) -> Figure {
        Figure {
            name: name.to_owned(),
            title: title.to_owned(),
            unit: unit.to_owned(),
            subject: Series::new("Sluice"),
            control: None,
            bar: None,
            notes: Vec::new(),
            run: self.run.clone(),
        }
    }

    /// Empty growth of this run.
    pub(crate) fn growth(&self, name: &str, title: &str, axis: &str) -> Growth {
        Growth {
            name: name.to_owned(),
            title: title.to_owned(),
            axis: axis.to_owned(),
            lines: Vec::new(),
            run: self.run.clone(),
        }
    }

    /// Shows a figure and keeps it.
    pub(crate) fn put(&mut self, figure: Figure) -> anyhow::Result<()> {
        if !self.headed {
            println!(
                "{:<48} {:>14} {:>14} {:>7} {:>9}  {:>9} {:>9} {:>9}",
                "figure", "Sluice", "control", "ratio", "bar", "µs/order", "its ctrl", "load µs"
            );
            self.headed = true;
        }
        println!("{}", row(&figure));
        for note in &figure.notes {
            println!("    {note}");
        }
        if figure.reached() == Some(false) {
            self.missed.push(figure.name.clone());
        }
        self.results.put(figure);
        self.write()
    }

    /// Shows how something grows and keeps it.
    pub(crate) fn put_growth(&mut self, growth: Growth) -> anyhow::Result<()> {
        println!("{}", growth.title);
        for line in &growth.lines {
            let points = line.points.iter().map(|point| format!("{}: {:.1} µs", short(point.x), point.server_us));
            let points: Vec<String> = points.collect();
            println!("    {:<18} {}  (grows {:.2} times)", line.name, points.join("  "), line.factor());
        }
        self.results.put_growth(growth);
        self.write()
    }

    fn write(&self) -> anyhow::Result<()> {
        if self.dry {
            return Ok(());
        }
        let path = results_path();
        fs::create_dir_all(path.parent().expect("it is in a folder"))?;
        fs::write(&path, serde_json::to_string_pretty(&self.results)? + "\n")?;
        fs::write(path.with_file_name("bars.svg"), chart::bars(&self.results.figures))?;
        for growth in &self.results.growth {
            fs::write(path.with_file_name(format!("{}.svg", growth.name)), chart::growth(growth))?;
        }
        Ok(fs::write(docs().join("BENCHMARKS.md"), document::page(&self.results))?)
    }

    /// Says which bars were missed.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        if self.missed.is_empty() {
            println!("every bar was reached");
        } else {
            println!("bars missed: {}", self.missed.join(", "));
        }
        Ok(())
    }
}

fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
}

fn results_path() -> PathBuf {
    docs().join("bench/results.json")
}

fn row(figure: &Figure) -> String {
    let mut row = format!("{:<48} {:>14}", figure.title, number(figure.subject.median(), &figure.unit));
    let control = figure.control.as_ref().map(|control| number(control.median(), &figure.unit));
    let ratio = figure.ratio().map(|ratio| format!("{ratio:.2}"));
    let bar = figure.bar.map(|bar| match bar {
        Bar::RatioMin(least) => format!(">= {least:.2}"),
        Bar::Max(most) => format!("<= {most:.0}"),
    });
    let us = |what: Option<f64>| what.map(|us| format!("{us:.1}")).unwrap_or_default();
    let server = us(figure.subject.of(|burst| burst.server_us));
    let theirs = us(figure.control.as_ref().and_then(|control| control.of(|burst| burst.server_us)));
    let generator = us(figure.subject.of(|burst| burst.generator_us).filter(|us| *us > 0.0));
    write!(
        row,
        " {:>14} {:>7} {:>9}  {server:>9} {theirs:>9} {generator:>9} {}",
        control.unwrap_or_default(),
        ratio.unwrap_or_default(),
        bar.unwrap_or_default(),
        match figure.reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        }
    )
    .expect("a string takes everything");
    row
}

/// A number for people, with its unit.
pub(crate) fn number(value: f64, unit: &str) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let space = if unit.starts_with('/') || unit.is_empty() { "" } else { " " };
    format!("{grouped}{rest}{space}{unit}")
}

/// A number in few characters.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6).replace(".0M", "M"),
        value if value >= 1e3 => format!("{:.0}k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_short() {
        assert_eq!(number(1_234_567.8, "/s"), "1,234,568/s");
        assert_eq!(number(12.345, "ms"), "12.3 ms");
        assert_eq!(number(100.0, "MB"), "100 MB");
        assert_eq!([0.0, 10.0, 1_000.0, 163_412.0, 1e6, 1.34e6].map(short), ["0", "10", "1k", "163k", "1M", "1.3M"]);
    }
}
