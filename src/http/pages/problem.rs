//! The pages that problems point to: what a kind of problem means, and what to do.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::response::{Html, IntoResponse, Response};

use crate::http::problems::{KINDS, Kind, Problem};

/// The page of a kind of problem.
pub(in crate::http) async fn problem(slug: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let kind = slug.ok().and_then(|Path(slug)| KINDS.iter().find(|kind| kind.slug == slug));
    let page = page(kind.ok_or_else(|| Problem::not_found("page"))?);
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    Ok(([(CONTENT_SECURITY_POLICY, policy), (CACHE_CONTROL, "max-age=3600")], Html(page)).into_response())
}

fn page(kind: &Kind) -> String {
    let Kind { slug, status, title, meaning, remedy } = kind;
    let (meaning, remedy) = (code(meaning), code(remedy));
    let status = status.as_u16();
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Sluice</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.6 system-ui, sans-serif }}
main {{ max-width: 38rem; margin: 4rem auto; padding: 0 1rem }}
code {{ font-size: .95em }}
</style>
<main>
<p><code>{status} · /problems/{slug}</code></p>
<h1>{title}</h1>
<h2>What it means</h2>
<p>{meaning}</p>
<h2>What to do</h2>
<p>{remedy}</p>
<p><a href="/docs/">The API</a></p>
</main>
</html>
"#
    )
}

/// Sets what stands in backquotes as code.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}
