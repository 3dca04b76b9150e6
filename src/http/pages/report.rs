//! The report of a sale as one file that needs nothing else: the shell, the styles, the data, and the modules that draw it,
//! put together into one script.

use std::fmt::Write;

use anyhow::{Context, bail};
use serde_json::Value;

use super::text;

const SHELL: &str = "report/shell.html";
const STYLES: [&str; 2] = ["shared/base.css", "report/report.css"];
/// Draws the data: it exports `report`.
const ENTRY: &str = "report/report.js";

/// The report as one HTML file. `title` is its name, `verdict` the line that stands in it even where no script runs, and
/// `data` what [`ENTRY`] says of it. Fails if the files compiled in do not make a report.
pub fn report_file(title: &str, verdict: &str, data: &Value) -> anyhow::Result<String> {
    let mut modules = Vec::new();
    bundle(ENTRY, &mut modules)?;
    let mut script = String::from("<script>\n\"use strict\";\nconst $ = {};\n");
    modules.iter().for_each(|(_, module)| script.push_str(module));
    write!(
        script,
        "document.getElementById(\"report\").innerHTML = \
         $[\"{ENTRY}\"].report(JSON.parse(document.getElementById(\"data\").textContent));\n</script>"
    )?;
    let style: String = STYLES.iter().map(|path| text(path)).collect::<Option<_>>().context("a style is missing")?;
    let body = format!("<main><h1>{}</h1><p>{}</p></main>", escaped(title), escaped(verdict));
    // Within a script element only this sequence could end it.
    let data = data.to_string().replace('<', "\\u003c");
    fill(text(SHELL).context("the report's shell is missing")?, |name| match name {
        "title" => Some(escaped(title)),
        "style" => Some(style.clone()),
        "body" => Some(body.clone()),
        "data" => Some(data.clone()),
        "script" => Some(script.clone()),
        _ => None,
    })
}

/// Puts values where their names stand in double braces.
fn fill(shell: &str, value: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let mut filled = String::new();
    let mut rest = shell;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("the shell has a brace too many")?;
        filled.push_str(before);
        filled.push_str(&value(name).with_context(|| format!("the shell asks for {name}"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Adds a module behind all that it imports. Our own modules are written so that lines tell: an import or an export begins
/// one, and is nothing else.
fn bundle(path: &str, modules: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    if modules.iter().any(|(known, _)| known == path) {
        return Ok(());
    }
    let source = text(path).with_context(|| format!("there is no file {path}"))?;
    let (mut body, mut exports) = (String::new(), Vec::new());
    for line in source.lines() {
        if line.starts_with("import ") {
            let (names, from) = import(line).with_context(|| format!("{path} imports in a way of its own: {line}"))?;
            let from = beside(path, from)?;
            bundle(&from, modules)?;
            let names = names.replace(" as ", ": ");
            writeln!(body, "const {{{names}}} = $[\"{from}\"];")?;
        } else if let Some(export) = line.strip_prefix("export ") {
            exports.push(exported(export).with_context(|| format!("{path} exports in a way of its own: {line}"))?);
            writeln!(body, "{export}")?;
        } else {
            writeln!(body, "{line}")?;
        }
    }
    if body.contains("</script") {
        bail!("{path} would end the script that it stands in");
    }
    let exports = exports.join(", ");
    modules.push((path.to_owned(), format!("$[\"{path}\"] = (() => {{\n{body}return {{ {exports} }};\n}})();\n")));
    Ok(())
}

/// The names between the braces of an import, and where they are from.
fn import(line: &str) -> Option<(&str, &str)> {
    let (names, from) = line.strip_prefix("import {")?.split_once("} from ")?;
    Some((names, from.trim_end_matches(';').trim_matches(['\'', '"'])))
}

/// What an export without its `export` names.
fn exported(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    let named = ["function ", "const ", "class "].iter().find_map(|word| line.strip_prefix(word))?;
    let end = named.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')?;
    (end > 0).then_some(&named[..end])
}

/// The path of a module that is imported as `./name` or `../folder/name`.
fn beside(path: &str, name: &str) -> anyhow::Result<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    match (name.strip_prefix("./"), name.strip_prefix("../")) {
        (Some(name), _) => Ok(format!("{folder}/{name}")),
        (None, Some(name)) if !folder.contains('/') => Ok(name.to_owned()),
        _ => bail!("{path} imports {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_and_exports_are_read() {
        assert_eq!(import("import { a, b as c } from './x.js';"), Some((" a, b as c ", "./x.js")));
        assert_eq!(import("import x from './x.js';"), None);
        assert_eq!(exported("function report(data) {"), Some("report"));
        assert_eq!(exported("async function ask() {"), Some("ask"));
        assert_eq!(exported("const sum = (a) => a;"), Some("sum"));
        assert_eq!(exported("{ a } from './x.js';"), None);
        assert_eq!(beside("report/report.js", "../shared/format.js").unwrap(), "shared/format.js");
        assert_eq!(beside("report/report.js", "./pictures.js").unwrap(), "report/pictures.js");
    }

    #[test]
    fn a_report_is_one_file_with_all_that_it_needs() {
        let data = serde_json::json!({ "snapshot": { "name": "</script><b>" } });
        let file = report_file("a <sale>", "OVERSOLD 0", &data).unwrap();
        assert!(file.contains("<title>a &lt;sale&gt;</title>") && file.contains("<p>OVERSOLD 0</p>"));
        assert!(file.contains("\\u003c/script>\\u003cb>") && file.len() < 200_000, "{}", file.len());
        let script = file.split("<script>").nth(1).unwrap();
        assert!(!script.contains("\nimport ") && !script.contains("\nexport "));
        assert_eq!(file.matches("</script>").count(), 2);
    }

    #[test]
    fn a_shell_is_filled_and_nothing_is_left_open() {
        let value = |name: &str| (name == "a").then(|| "{{b}}".to_owned());
        assert_eq!(fill("x{{a}}y", value).unwrap(), "x{{b}}y");
        assert!(fill("x{{b}}", value).is_err());
    }
}
