//! Who may use whom: the direction that ARCHITECTURE.md promises, read from the `use` lines and paths of the source.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module and its level. A module may use lower levels; on its own level, only itself.
const LEVELS: &[&[&str]] = &[
    &["model", "sync"],
    &["clock", "config", "fault", "remote", "way"],
    &["batcher", "postgres", "sqlite"],
    &["gate", "queue", "ledger"],
    &["shop"],
    &["reconcile"],
    &["checkout", "settlement", "audit"],
    &["adjustment"],
    &["deployment", "load"],
    &["race"],
    &["demo"],
    &["http"],
    &["cli"],
    &["main", "lib"],
];

/// The backends, which only `deployment` chooses.
const BACKENDS: &[&str] = &["MemoryGate", "SqliteQueue", "SqliteLedger", "RedisGate", "RabbitQueue", "PostgresLedger"];

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let first = path.strip_prefix(&root).unwrap().iter().next().unwrap();
                let module = first.to_str().unwrap().trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path, module, text });
            }
        }
    }
    assert!(sources.len() > 20, "the source is not where it was");
    sources
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

/// The modules that a source names: in `crate::…`, in `sluice::…`, and in `super::…` out of its own folder.
fn used(source: &Source) -> Vec<String> {
    let depth = source.path.iter().rev().take_while(|part| *part != "src").count();
    let is_root = source.path.file_name().is_some_and(|name| name == "mod.rs");
    let up = "super::".repeat(depth - usize::from(is_root));
    let mut used = Vec::new();
    for line in source.text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for prefix in ["crate::", "sluice::", up.as_str()].into_iter().filter(|prefix| !prefix.is_empty()) {
            for (at, _) in line.match_indices(prefix) {
                let longer = prefix.starts_with("super") && line[..at].ends_with("super::");
                let rest = &line[at + prefix.len()..];
                if !longer && !rest.starts_with("super") {
                    used.extend(names(rest));
                }
            }
        }
    }
    used
}

/// The name that a path begins with, or each of the names in braces.
fn names(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    match path.strip_prefix('{') {
        Some(list) => list.split(',').map(word).filter(|name| !name.is_empty()).collect(),
        None => vec![word(path)],
    }
}

#[test]
fn every_module_has_its_level() {
    for source in sources() {
        assert!(level(&source.module).is_some(), "{} has no level in this test", source.module);
    }
}

#[test]
fn nobody_uses_what_stands_above_or_beside() {
    let mut wrong = Vec::new();
    for source in sources() {
        for name in used(&source) {
            let Some(other) = level(&name) else { continue };
            if name != source.module && level(&source.module).is_some_and(|own| other >= own) {
                wrong.push(format!("{} uses {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_deployment_names_a_backend() {
    for source in sources() {
        let home = ["gate", "queue", "ledger", "deployment"].contains(&source.module.as_str());
        for backend in BACKENDS {
            assert!(home || !source.text.contains(backend), "{} names {backend}", source.path.display());
        }
    }
}

#[test]
fn the_words_of_a_path_are_found() {
    assert_eq!(names("model::{Sale, Sku};"), ["model"]);
    assert_eq!(names("{reconcile, settlement};"), ["reconcile", "settlement"]);
    assert_eq!(names("ledger::Move) -> u8"), ["ledger"]);
}
