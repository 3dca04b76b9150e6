//! Data on stdout. A reader that goes away, like `head`, is no failure.

use std::io::{self, ErrorKind, Write};

/// Prints a text as it is.
pub(super) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints JSON for people and machines alike.
pub(super) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(text(&(serde_json::to_string_pretty(value)? + "\n"))?)
}

/// Prints rows whose first is the head, in columns; those of numbers are set to the right.
pub(super) fn table(rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let number = |column: usize| {
        let cells = || rows.iter().skip(1).filter_map(|row| row.get(column)).filter(|cell| *cell != "-");
        cells().next().is_some() && cells().all(|cell| cell.parse::<i64>().is_ok())
    };
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match number(column) {
            true => format!("{cell:>0$}", widths[column]),
            false => format!("{cell:<0$}", widths[column]),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out += &(line.trim_end().to_owned() + "\n");
    }
    text(&out)
}

/// A member of a JSON object as a table shows it.
pub(super) fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".into(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
