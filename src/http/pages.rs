//! The pages and what they are made of: files under `ui/`, compiled in, each in the one table below.

mod problem;
mod report;

use std::io::Write;
use std::sync::OnceLock;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

pub(super) use problem::problem;
pub use report::report_file;

use super::problems::Problem;

/// Nothing from another origin, no script or style within the page, and no page of others around this one.
const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// Smaller files gain nothing by compression.
const GZIP_BYTES_MIN: usize = 512;

/// A file as it is compiled in.
struct File {
    /// Within `ui/`.
    path: &'static str,
    bytes: &'static [u8],
    ready: OnceLock<Ready>,
}

/// What is worked out when somebody first asks for a file.
struct Ready {
    etag: HeaderValue,
    /// The same file compressed has a tag of its own.
    gzip: Option<(Bytes, HeaderValue)>,
}

macro_rules! files {
    ($($path:literal)*) => {
        const FILES_COUNT: usize = [$($path),*].len();
        static FILES: [File; FILES_COUNT] = [$(File {
            path: $path,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/", $path)),
            ready: OnceLock::new(),
        }),*];
    };
}

files! {
    "buyer/buyer.css"
    "buyer/buyer.js"
    "console/console.css"
    "console/controls.js"
    "console/curve.js"
    "console/demo.js"
    "console/funnel.js"
    "console/grid.js"
    "console/hero.js"
    "console/index.html"
    "console/latency.js"
    "console/layers.js"
    "console/log.js"
    "console/main.js"
    "console/model.js"
    "console/order.js"
    "race/index.html"
    "race/lane.js"
    "race/main.js"
    "race/race.css"
    "report/index.html"
    "report/main.js"
    "report/pictures.js"
    "report/report.css"
    "report/report.js"
    "report/shell.html"
    "shared/base.css"
    "shared/format.js"
    "shared/icon.svg"
    "shared/preact.js"
    "shared/sale-state.js"
    "shared/session.js"
    "shared/stream.js"
    "shared/timeline.js"
    "shared/verdict.js"
    "shared/waffle.js"
    "vendor/hooks.js"
    "vendor/htm.js"
    "vendor/preact.js"
    "vendor/signals-core.js"
    "vendor/signals.js"
    "vendor/uplot.css"
    "vendor/uplot.js"
}

/// The addresses of the pages and of their files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = |path: &'static str| routing::get(move |headers: HeaderMap| std::future::ready(file(path, &headers)));
    Router::new()
        .route("/", page("console/index.html"))
        .route("/race", page("race/index.html"))
        .route("/report/{sale}", page("report/index.html"))
        .route("/ui/{*path}", routing::get(named))
}

async fn named(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, Problem> {
    let Path(path) = path.map_err(|_| Problem::not_found("file"))?;
    file(&path, &headers)
}

/// The text of a file under `ui/`; `None` if there is none of that name.
fn text(path: &str) -> Option<&'static str> {
    let file = FILES.iter().find(|file| file.path == path)?;
    std::str::from_utf8(file.bytes).ok()
}

/// A file under `ui/`, or that the browser's copy of it is still good.
fn file(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let file = FILES.iter().find(|file| file.path == path).ok_or_else(|| Problem::not_found("page"))?;
    let ready = file.ready.get_or_init(|| Ready::new(file.bytes));
    let gzip = ready.gzip.as_ref().filter(|_| takes_gzip(headers));
    let etag = gzip.map_or(&ready.etag, |(_, etag)| etag);
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let fresh = known.flat_map(|list| list.split(',')).any(|tag| tag.trim().as_bytes() == etag.as_bytes());
    let body = match gzip {
        _ if fresh => Bytes::new(),
        Some((bytes, _)) => bytes.clone(),
        None => Bytes::from_static(file.bytes),
    };
    let mut response = body.into_response();
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    answer.insert(ETAG, etag.clone());
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    } else if gzip.is_some() {
        answer.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    guarded(&mut response);
    Ok(response)
}

/// With the headers that keep a page to itself.
pub(super) fn guarded(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

impl Ready {
    fn new(bytes: &[u8]) -> Self {
        let hash = blake3::hash(bytes).to_hex();
        let tag = |end: &str| {
            let tag = format!("\"{}{end}\"", &hash[..16]);
            HeaderValue::try_from(tag).expect("a hash is plain text")
        };
        let gzip = gzip(bytes).filter(|small| small.len() < bytes.len()).map(|small| (small, tag("-gz")));
        Self { etag: tag(""), gzip }
    }
}

fn gzip(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < GZIP_BYTES_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = quality.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file that a browser may ask for: not licences, checksums, tools and the templates of the buyer's page.
    fn in_the_folder() -> Vec<String> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let (mut folders, mut found) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let served = [".html", ".js", ".css", ".svg"].iter().any(|end| name.ends_with(end));
                if served && !(name.starts_with("buyer/") && name.ends_with(".html")) {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_file_of_the_pages_is_in_the_table() {
        let mut table: Vec<&str> = FILES.iter().map(|file| file.path).collect();
        table.sort_unstable();
        assert_eq!(table, in_the_folder());
    }

    #[test]
    fn the_libraries_are_those_that_were_checked() {
        let sums = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/vendor/SHA256SUMS"));
        assert!(sums.lines().count() >= 7, "{sums}");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/ui/vendor");
        let output = std::process::Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_browser_gets_what_it_takes() {
        let headers = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        for (value, gzip) in [("gzip, br", true), ("br;q=1, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false)] {
            assert_eq!(takes_gzip(&headers(ACCEPT_ENCODING, value)), gzip, "{value}");
        }
        let path = "vendor/preact.js";
        let plain = file(path, &HeaderMap::new()).unwrap();
        assert_eq!(plain.status(), StatusCode::OK);
        let small = file(path, &headers(ACCEPT_ENCODING, "gzip")).unwrap();
        assert_eq!(small.headers()[CONTENT_ENCODING], "gzip");
        assert_ne!(plain.headers()[ETAG], small.headers()[ETAG]);
        let tags = HeaderMap::from_iter([(IF_NONE_MATCH, plain.headers()[ETAG].clone())]);
        assert_eq!(file(path, &tags).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert!(file("vendor/../../Cargo.toml", &HeaderMap::new()).is_err());
    }
}
