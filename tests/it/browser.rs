//! The pages of the real program in a real Chromium: tests/browser, run by node. ./test installs what they need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// One browser at a time: on a small machine two of them would only wait for each other.
static BROWSER: Mutex<()> = Mutex::new(());

/// Runs one file of tests; what it says is shown if it fails.
fn in_the_browser(file: &str) {
    let _one_at_a_time = BROWSER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = root.join("target/tools/browser");
    assert!(tools.join("node_modules/playwright-core").is_dir(), "playwright is not installed: ./test does it");
    let mut node = Command::new("node");
    node.arg(root.join("tests/browser").join(file)).current_dir(root);
    node.env("SLUICE_BIN", env!("CARGO_BIN_EXE_sluice")).env("SLUICE_NODE_TOOLS", &tools);
    node.env("SLUICE_TESTS", std::env::current_exe().unwrap());
    node.env("SLUICE_CHROMIUM", chromium()).env("SLUICE_TEST_LIVES", "1");
    // Held open as long as this process lives: if it dies, so do node, its browser and its servers.
    let mut child =
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("node runs");
    let alive = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(alive);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let passed = told.lines().filter_map(|line| line.strip_prefix("# pass ").or(line.strip_prefix("ℹ pass "))).next();
    assert!(
        passed.is_some_and(|count| count.trim().parse::<u32>().is_ok_and(|count| count > 2)),
        "no test ran:\n{told}"
    );
}

/// The one that `SLUICE_CHROMIUM` names, or the first of the usual names in the PATH.
fn chromium() -> PathBuf {
    if let Some(named) = std::env::var_os("SLUICE_CHROMIUM") {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let found =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|at| at.is_file());
    found.expect("no Chromium: ./test installs it, or SLUICE_CHROMIUM names one")
}

/// Nothing is vendored without a checksum, and nothing without its licence.
#[test]
fn every_library_has_its_licence() {
    let vendor = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/vendor");
    let sums = std::fs::read_to_string(vendor.join("SHA256SUMS")).unwrap();
    let mut listed: Vec<&str> = sums.lines().filter_map(|line| line.split_once("  ").map(|(_, name)| name)).collect();
    let entries = std::fs::read_dir(&vendor).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<String> = entries.filter(|name| name != "SHA256SUMS" && name != "update").collect();
    listed.sort_unstable();
    there.sort_unstable();
    assert_eq!(listed, there);
    for library in ["preact", "htm", "preact-signals", "preact-signals-core", "uplot"] {
        assert!(listed.contains(&format!("LICENSE-{library}").as_str()), "{library} has no licence");
    }
}

#[test]
fn the_pages_count_right() {
    in_the_browser("modules.mjs");
}

#[test]
fn the_console_shows_what_is() {
    in_the_browser("console.mjs");
}

#[test]
fn a_demo_adds_up_under_chaos() {
    in_the_browser("demo.mjs");
}

#[test]
fn a_buyer_buys() {
    in_the_browser("buyer.mjs");
}

#[test]
fn a_report_stands_alone() {
    in_the_browser("report.mjs");
}
