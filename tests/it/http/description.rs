//! The API's description is made from the code, is the committed one, and tells the truth about its guards.

use serde_json::{Value, json};

use super::{SHOP, Server};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

fn description() -> Value {
    serde_json::to_value(sluice::http::openapi()).unwrap()
}

/// Every operation: method, path, and the tokens it takes.
fn operations() -> Vec<(String, String, Vec<String>)> {
    let description = description();
    let mut operations = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let schemes = operation["security"].as_array().into_iter().flatten();
            let tokens = schemes.flat_map(|scheme| scheme.as_object().unwrap().keys().cloned()).collect();
            operations.push((method.to_uppercase(), path.clone(), tokens));
        }
    }
    operations
}

fn filled(path: &str) -> String {
    path.replace("{sale}", "s").replace("{sku}", "ps5").replace("{id}", &format!("ord_{}", "0".repeat(32)))
}

#[test]
fn the_committed_description_is_the_present_one() {
    let present = serde_json::to_string_pretty(&sluice::http::openapi()).unwrap() + "\n";
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(committed == present, "run: cargo run -- openapi > docs/openapi.json");
    assert_eq!(description()["openapi"], "3.1.0");
}

#[test]
fn the_description_has_every_route_of_the_design() {
    let all: Vec<String> = operations().into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    for route in [
        "GET /v1/sales",
        "GET /v1/sales/{sale}",
        "POST /v1/sales",
        "POST /v1/sales/{sale}/orders",
        "GET /v1/sales/{sale}/orders",
        "GET /v1/orders/{id}",
        "POST /v1/orders/{id}/confirm",
        "POST /v1/orders/{id}/cancel",
        "POST /v1/sales/{sale}/open",
        "POST /v1/sales/{sale}/pause",
        "POST /v1/sales/{sale}/resume",
        "POST /v1/sales/{sale}/close",
        "POST /v1/sales/{sale}/items/{sku}/adjustments",
        "GET /v1/sales/{sale}/stock",
        "GET /v1/sales/{sale}/audit",
        "GET /v1/sales/{sale}/journal",
        "GET /v1/sales/{sale}/live",
        "GET /v1/orders/{id}/timeline",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
    ] {
        assert!(all.iter().any(|known| known == route), "{route} is missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_these_routes_do_without_a_token() {
    let open = [
        ("GET", "/v1/sales"),
        ("GET", "/v1/sales/{sale}"),
        ("POST", "/v1/sales/{sale}/orders"),
        ("GET", "/v1/orders/{id}"),
        ("POST", "/v1/orders/{id}/cancel"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    ];
    let server = Server::start().await;
    server.open_sale("s", 1, json!({})).await;
    let shop = format!("Bearer {SHOP}");
    for (method, path, tokens) in operations() {
        let is_open = open.contains(&(method.as_str(), path.as_str()));
        assert_eq!(tokens.is_empty(), is_open, "{method} {path} is described as taking {tokens:?}");
        let without = server.ask(&method, &filled(&path), &[], None).await;
        let stranger = server.ask(&method, &filled(&path), &[("authorization", "Bearer x")], None).await;
        let with_shop = server.ask(&method, &filled(&path), &[("authorization", &shop)], None).await;
        if is_open {
            assert_ne!(without.status, 401, "{method} {path}");
            continue;
        }
        without.problem(401, "unauthorized");
        stranger.problem(401, "unauthorized");
        if tokens == ["admin"] {
            with_shop.problem(403, "forbidden");
        } else {
            assert_eq!(tokens, ["admin", "shop"], "{method} {path}");
            with_shop.problem(404, "not-found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_served_by_the_binary() {
    let server = Server::start().await;
    assert_eq!(server.get("/openapi.json").await.json(), description());
    let docs = server.get("/docs/").await;
    assert!(docs.status == 200 && docs.text.contains("swagger"), "{}", docs.text);
    assert!(server.get("/docs/swagger-ui.css").await.status == 200);
    let page = server.get("/problems/sold-out").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("What to do") && !page.text.contains("http"), "{}", page.text);
    server.get("/problems/no-such-slug").await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_files_stay_with_their_page() {
    let server = Server::start().await;
    let file = server.get("/ui/vendor/preact.js").await;
    assert_eq!((file.status, file.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    assert_eq!(file.header("content-security-policy"), Some(policy));
    assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(file.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(file.header("cache-control"), Some("no-cache"));
    let etag = file.header("etag").unwrap();
    let again = server.ask("GET", "/ui/vendor/preact.js", &[("if-none-match", etag)], None).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    for strange in ["/ui/vendor/no-such.js", "/ui/../Cargo.toml", "/ui/%2e%2e/Cargo.toml", "/ui/"] {
        server.get(strange).await.problem(404, "not-found");
    }
}
