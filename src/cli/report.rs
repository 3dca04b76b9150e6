//! Writes the report of a sale after a crowd has gone: one HTML file that needs nothing else.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};

use crate::http::report_file;
use crate::load::summary::Summary;
use crate::load::wire::Target;

/// Where a report goes, and whom it asks.
pub(super) struct Report {
    pub(super) file: PathBuf,
    pub(super) target: Target,
    pub(super) token: String,
    /// The command that makes it, for its reader.
    pub(super) by: &'static str,
}

impl Report {
    /// Asks for the sale's snapshot and audit, and writes the file.
    pub(super) async fn write(&self, summary: &Summary) -> anyhow::Result<()> {
        let sale = &summary.sale;
        let ask = async |what: &str| {
            let path = format!("/v1/sales/{sale}/{what}");
            self.target.ask::<Value>(Method::GET, &path, Some(&self.token), None).await
        };
        let (snapshot, audit) = (ask("live").await?, ask("audit").await?);
        let title = format!("{} · report", snapshot["name"].as_str().unwrap_or(sale.as_str()));
        let data = json!({
            "made_at": snapshot["server_time"], "by": self.by, "snapshot": snapshot, "audit": audit, "crowd": summary,
        });
        let verdict = summary.verdict().unwrap_or_else(|| "NOT CHECKED".to_owned());
        write(&self.file, &report_file(&title, &verdict, &data)?)
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write the report to {}", file.display()))?;
    eprintln!("report    {} ({} kB)", file.display(), text.len().div_ceil(1_000));
    Ok(())
}
