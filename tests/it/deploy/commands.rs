//! Every command line and every variable in deploy/ and load/k6/ is one that the program, Compose or the script takes.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};
use sluice::cli::Cli;

use super::{compose, names, ours, root, services, strings, text};

/// The words of a command line, as a shell parts them, up to a redirection or a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#' | '<' | '>') if word.is_none() => return words,
            (..) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "an open quote: {line}");
    words.extend(word);
    words
}

/// The commands in the fenced parts of a page.
fn commands(page: &str) -> Vec<Vec<String>> {
    let text = text(page);
    let fenced = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let commands: Vec<_> = fenced.flat_map(str::lines).map(words).filter(|words| !words.is_empty()).collect();
    assert!(!commands.is_empty(), "{page} has no commands");
    commands
}

/// Whether the program takes these arguments.
#[track_caller]
fn taken(args: &[String]) {
    let args = args.iter().map(String::as_str);
    if let Err(error) = Cli::try_parse_from(std::iter::once("sluice").chain(args)) {
        panic!("{error}");
    }
}

/// The variables that any of the program's commands reads.
fn variables() -> BTreeSet<String> {
    fn collect(command: &clap::Command, into: &mut BTreeSet<String>) {
        into.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())));
        command.get_subcommands().for_each(|command| collect(command, into));
    }
    let mut found = BTreeSet::new();
    collect(&Cli::command(), &mut found);
    assert!(found.contains("SLUICE_LISTEN") && found.contains("DB_PORT"), "{found:?}");
    found
}

/// The variables that the k6 script reads.
fn k6_variables() -> BTreeSet<String> {
    let script = text("load/k6/flash-sale.js");
    let direct = script
        .split("__ENV.")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>());
    let numbers = script.split("number('").skip(1).map(|rest| rest.split('\'').next().unwrap().to_owned());
    direct.chain(numbers).collect()
}

#[test]
fn our_containers_run_commands_that_the_program_takes() {
    let mut roles = BTreeSet::new();
    for (_, service) in ours() {
        let command = strings(&service["command"]);
        taken(&command);
        roles.insert(command.join(" "));
        let check = strings(&service["healthcheck"]["test"]);
        if let [cmd, program, args @ ..] = &check[..] {
            assert_eq!((cmd.as_str(), program.as_str()), ("CMD", "sluice"));
            taken(args);
        }
    }
    assert_eq!(roles, ["migrate", "serve --role api --no-migrate", "worker --no-migrate"].map(String::from).into());
    let dockerfile = text("deploy/Dockerfile").replace("\\\n", " ");
    let json = |line: &str| -> Vec<String> { serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap() };
    let line = |word: &str| json(dockerfile.lines().find(|line| line.starts_with(word)).unwrap());
    assert_eq!(line("ENTRYPOINT"), ["sluice"]);
    taken(&line("CMD"));
    assert_eq!(line("HEALTHCHECK")[0], "sluice");
    taken(&line("HEALTHCHECK")[1..]);
}

#[test]
fn every_variable_is_read_by_somebody() {
    let ours_read = variables();
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap().split(':').next().unwrap().to_owned();
        let read: BTreeSet<String> = match image.as_str() {
            "sluice" => ours_read.clone(),
            "postgres" => {
                ["POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS"].map(String::from).into()
            }
            "rabbitmq" | "redis" => {
                let variable = format!("{}_URL", name.to_uppercase());
                assert!(text(&format!("deploy/{name}/start.sh")).contains(&format!("${{{variable}#")));
                [variable].into()
            }
            "grafana/k6" => k6_variables().into_iter().chain(["K6_NO_USAGE_REPORT".to_owned()]).collect(),
            "grafana/grafana" => [
                "GF_AUTH_ANONYMOUS_ENABLED",
                "GF_AUTH_ANONYMOUS_ORG_ROLE",
                "GF_AUTH_DISABLE_LOGIN_FORM",
                "GF_AUTH_BASIC_ENABLED",
                "GF_ANALYTICS_REPORTING_ENABLED",
                "GF_ANALYTICS_CHECK_FOR_UPDATES",
                "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH",
            ]
            .map(String::from)
            .into(),
            _ => BTreeSet::new(),
        };
        for variable in names(&service["environment"]) {
            assert!(read.contains(&variable), "nobody in {name} reads {variable}");
        }
    }
    let dockerfile = text("deploy/Dockerfile").replace("\\\n", " ");
    let env = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    for (variable, _) in env.split_whitespace().map(|pair| pair.split_once('=').unwrap()) {
        assert!(ours_read.contains(variable), "{variable}");
    }
}

#[test]
fn an_api_and_a_worker_are_told_of_every_server_and_migrate_of_the_database() {
    let database = ["DB_USER", "DB_HOST", "DB_NAME", "DB_PASSWORD", "DB_PORT"];
    for (name, service) in ours() {
        let told = names(&service["environment"]);
        let all = database.iter().all(|variable| told.contains(*variable));
        let others = ["REDIS_URL", "RABBITMQ_URL"].iter().all(|variable| told.contains(*variable));
        assert!(all && (others || name == "migrate"), "{name} is told {told:?}");
        assert_eq!(told.contains("SLUICE_ADMIN_TOKEN"), name == "api", "{name}");
    }
}

#[test]
fn every_command_of_the_pages_works_as_it_is_written() {
    for page in ["deploy/README.md", "load/k6/README.md"] {
        for command in commands(page) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            match &words[..] {
                ["docker", "compose", "-f", file, rest @ ..] => {
                    assert!(root().join(file).exists(), "{file}");
                    compose_command(rest);
                }
                ["docker", "build", "-f", file, "-t", image, "."] => {
                    assert!(root().join(file).exists(), "{file}");
                    assert_eq!(ours()["api"]["image"], *image);
                }
                ["docker", "run", rest @ ..] => docker_run(rest),
                ["docker", "exec", "sluice", rest @ ..] => within_ours(rest),
                ["docker", "volume", "rm", volume] => {
                    let name = volume.strip_prefix("sluice_").expect("the project's volume");
                    assert_eq!(compose()["name"], "sluice");
                    assert!(names(&compose()["volumes"]).contains(name), "{volume}");
                }
                ["k6", "run", rest @ ..] => {
                    let (variables, rest) = k6_arguments(rest);
                    assert!(variables.is_subset(&k6_variables()), "{variables:?}");
                    assert!(rest.len() == 1 && root().join(rest[0]).exists(), "{rest:?}");
                }
                [script] if script.starts_with("deploy/") => super::scripts::assert_executable(script),
                other => panic!("{page}: nobody checks {other:?}"),
            }
        }
    }
}

/// The names given by `-e NAME=value` or `-e NAME`, and the other arguments.
fn k6_arguments<'a>(args: &[&'a str]) -> (BTreeSet<String>, Vec<&'a str>) {
    let (mut variables, mut others, mut args) = (BTreeSet::new(), Vec::new(), args.iter());
    while let Some(arg) = args.next() {
        if *arg == "-e" {
            variables.insert(args.next().unwrap().split('=').next().unwrap().to_owned());
        } else {
            others.push(*arg);
        }
    }
    (variables, others)
}

fn within_ours(args: &[&str]) {
    assert_eq!(args[0], "sluice", "the image has nothing else");
    taken(&args[1..].iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
}

fn docker_run(args: &[&str]) {
    let (variables, rest) = k6_arguments(args);
    assert!(variables.is_subset(&super::commands::variables()), "{variables:?}");
    let port = rest.iter().position(|arg| *arg == "-p").unwrap() + 1;
    assert_eq!(rest[port], "127.0.0.1:8080:8080");
    let image = rest.iter().position(|arg| ours()["api"]["image"] == **arg).expect("the image of compose.yaml");
    taken(&rest[image + 1..].iter().map(|&arg| arg.to_owned()).chain(["serve".to_owned()]).collect::<Vec<_>>());
}

/// The arguments of `docker compose -f deploy/compose.yaml`.
fn compose_command(args: &[&str]) {
    let services = services();
    let known = |name: &str| services.contains_key(name);
    let (profile, args) = match args {
        ["--profile", profile, rest @ ..] => (Some(*profile), rest),
        _ => (None, args),
    };
    let in_profile = |service: &str| strings(&services[service]["profiles"]);
    assert!(profile.is_none_or(|profile| services.keys().any(|name| in_profile(name).contains(&profile.to_owned()))));
    match args {
        ["exec", "-T", service, rest @ ..] | ["exec", service, rest @ ..] => {
            assert!(known(service), "{service}");
            if ours().contains_key(*service) {
                within_ours(rest);
            } else {
                assert!(["sh", "rabbitmqctl"].contains(&rest[0]), "{rest:?}");
            }
        }
        ["run", "--rm", rest @ ..] => {
            let (variables, service) = k6_arguments(rest);
            assert!(service.len() == 1 && known(service[0]), "{service:?}");
            assert!(variables.is_subset(&k6_variables()), "{variables:?}");
            assert!(in_profile(service[0]).iter().all(|needed| Some(needed.as_str()) == profile));
        }
        [verb @ ("up" | "down" | "ps" | "logs" | "build"), rest @ ..] => {
            let mut rest = rest.iter();
            while let Some(arg) = rest.next() {
                match *arg {
                    "-d" | "--build" | "--wait" | "--no-recreate" if *verb == "up" => {}
                    "--scale" if *verb == "up" => {
                        let (service, count) = rest.next().unwrap().split_once('=').unwrap();
                        assert!(known(service) && count.parse::<u8>().is_ok());
                    }
                    "--since" if *verb == "logs" => drop(rest.next().unwrap()),
                    service => assert!(known(service), "{verb} {service}"),
                }
            }
        }
        other => panic!("nobody checks docker compose {other:?}"),
    }
}

#[test]
fn the_page_of_k6_lists_every_variable_and_threshold_of_the_script() {
    let (page, script) = (text("load/k6/README.md"), text("load/k6/flash-sale.js"));
    for variable in k6_variables() {
        assert!(page.contains(&format!("`{variable}`")), "{variable} is not in the page");
    }
    let thresholds = script.split("thresholds: {").nth(1).unwrap().split("\n  },").next().unwrap();
    let thresholds = thresholds.lines().filter_map(|line| line.trim().split_once(": ["));
    let thresholds: Vec<_> = thresholds.map(|(name, _)| name.trim_matches('\'')).collect();
    assert_eq!(thresholds.len(), 11, "{thresholds:?}");
    for threshold in thresholds {
        assert!(page.contains(&format!("`{threshold}`")), "{threshold} is not in the page");
    }
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    for page in ["deploy/README.md", "load/k6/README.md", "README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = text(page);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let path = link.split('#').next().unwrap();
            let there = path.starts_with("http") || root().join(page).parent().unwrap().join(path).exists();
            assert!(there, "{page}: {link}");
        }
    }
}

#[test]
fn words_are_parted_as_by_a_shell() {
    assert_eq!(words("a -b 'c d' \"e # f\"  # g"), ["a", "-b", "c d", "e # f"]);
    assert_eq!(words("a \"$(b c)\" > d"), ["a", "$(b c)"]);
    assert_eq!(words("  # nothing"), Vec::<String>::new());
}
