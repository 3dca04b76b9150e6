//! The scripts of deploy/, run for real.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{env_example, root};
use crate::servers::{Server, free_port, listens, program};

pub(super) fn assert_executable(path: &str) {
    let metadata = std::fs::metadata(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(metadata.permissions().mode() & 0o111, 0o111, "{path} cannot be executed");
}

#[test]
fn scripts_can_be_executed_and_parsed() {
    for script in ["test", "deploy/check", "deploy/new-env", "deploy/redis/start.sh", "deploy/rabbitmq/start.sh"] {
        assert_executable(script);
        let source = std::fs::read_to_string(root().join(script)).unwrap();
        let shell = if source.starts_with("#!/bin/sh\n") { "sh" } else { "bash" };
        assert!(Command::new(shell).arg("-n").arg(root().join(script)).status().unwrap().success(), "{script}");
    }
}

#[test]
fn new_secrets_are_fresh_and_never_overwritten() {
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        for file in ["new-env", ".env.example"] {
            std::fs::copy(root().join("deploy").join(file), folder.path().join(file)).unwrap();
        }
        let script = folder.path().join("new-env");
        assert!(Command::new(&script).output().unwrap().status.success());
        let made = std::fs::read_to_string(folder.path().join(".env")).unwrap();
        let mode = std::fs::metadata(folder.path().join(".env")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Command::new(&script).output().unwrap().status.code(), Some(1));
        assert_eq!(std::fs::read_to_string(folder.path().join(".env")).unwrap(), made, "it was overwritten");
        made
    };
    let (one, other) = (make(), make());
    let lines = |text: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap());
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut secrets = std::collections::HashSet::new();
    for ((name, template), values) in env_example().into_iter().zip(lines(&one).into_iter().zip(lines(&other))) {
        for (named, value) in [values.0, values.1] {
            assert_eq!(named, name);
            let Some((before, after)) = template.split_once("CHANGE_ME") else {
                assert_eq!(value, template);
                continue;
            };
            let secret = value.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).unwrap();
            assert!(secret.len() == 48 && secret.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
            assert!(secrets.insert(secret.to_owned()), "{name} is a secret that was there before");
        }
    }
    assert_eq!(secrets.len(), 8);
}

/// A folder with the image's `docker-entrypoint.sh`, which runs this.
fn entrypoint(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker-entrypoint.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn path_with(folders: &[&Path]) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap()
}

#[test]
fn redis_starts_with_its_password_and_keeps_nothing() {
    let redis = program("redis-server", "redis-server", &[]);
    let (entrypoint, port) = (entrypoint("exec \"$@\""), free_port());
    let path = path_with(&[entrypoint.path(), redis.parent().unwrap()]);
    let mut server = Server::new("redis", tempfile::tempdir().unwrap(), move |folder| {
        let mut command = Command::new(root().join("deploy/redis/start.sh"));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).current_dir(folder);
        command.env("PATH", &path).env("REDIS_URL", "redis://:s3cretWord@redis:6379/0");
        command
    });
    server.start(|| listens(port));
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut ask = |command: &str, lines: usize| {
        write!(stream.get_mut(), "{command}\r\n").unwrap();
        let mut answer = String::new();
        (0..lines).for_each(|_| assert!(stream.read_line(&mut answer).unwrap() > 0));
        answer.replace("\r\n", " ")
    };
    assert!(ask("PING", 1).starts_with("-NOAUTH"));
    assert_eq!(ask("AUTH s3cretWord", 1), "+OK ");
    assert!(ask("CONFIG GET maxmemory-policy", 5).ends_with("noeviction "));
    assert!(ask("CONFIG GET appendonly", 5).ends_with("no "));
    assert_eq!(ask("CONFIG GET save", 5), "*2 $4 save $0  ");
    assert!(ask("CONFIG GET maxmemory", 5).ends_with("1073741824 "));
    let pid = ask("INFO server", 20).split("process_id:").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let shown = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!shown.is_empty() && !shown.contains("s3cretWord"), "the list of processes shows {shown}");
}

fn start(layer: &str, url: &str, entrypoint: &Path) -> Output {
    let mut command = Command::new(root().join(format!("deploy/{layer}/start.sh")));
    command.env("PATH", path_with(&[entrypoint])).env(format!("{}_URL", layer.to_uppercase()), url);
    command.output().unwrap()
}

#[test]
fn rabbitmq_starts_with_the_user_of_its_address() {
    let entrypoint = entrypoint("echo \"$*|$RABBITMQ_DEFAULT_USER|$RABBITMQ_DEFAULT_PASS\"");
    let output = start("rabbitmq", "amqp://sluice:s3cret@rabbitmq:5672/%2f", entrypoint.path());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rabbitmq-server|sluice|s3cret\n");
}

#[test]
fn an_address_without_a_password_is_refused() {
    let entrypoint = entrypoint("echo started");
    for (layer, url) in [("redis", "redis://redis:6379/0"), ("rabbitmq", "amqp://rabbitmq:5672/%2f")] {
        let output = start(layer, url, entrypoint.path());
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]), "{layer}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("has no") && said.contains("password"), "{said}");
    }
}
