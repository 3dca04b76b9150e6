//! PostgreSQL: one server for all contract tests, each with a database of its own, and servers that a test may kill.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::{Server, free_port, is_root, program};

/// The user of every server.
const USER: &str = "sluice";
const PASSWORD: &str = "canary pass/word";

/// A PostgreSQL server of the tests' own.
pub(crate) struct Postgres {
    server: Server,
    pub(crate) port: u16,
    databases: AtomicU32,
}

/// The server that tests share, each with a database of its own.
pub(crate) fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(&[]))
}

impl Postgres {
    /// A new server with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_in(new_folder(), settings)
    }

    /// A new server that offers TLS with this key.
    pub(crate) fn start_with_tls(key: &Path, certificate: &Path) -> Self {
        let folder = new_folder();
        let mut settings = vec!["ssl=on".to_owned()];
        for (from, name) in [(key, "server.key"), (certificate, "server.crt")] {
            let to = folder.path().join(name);
            fs::write(&to, fs::read(from).unwrap()).unwrap();
            fs::set_permissions(&to, PermissionsExt::from_mode(0o600)).unwrap();
            own(&to);
            let setting = if name.ends_with("key") { "ssl_key_file" } else { "ssl_cert_file" };
            settings.push(format!("{setting}={}", to.display()));
        }
        Self::start_in(folder, &settings.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn start_in(folder: TempDir, settings: &[&str]) -> Self {
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let server = Server::new("PostgreSQL", folder, move |folder| {
            let mut command = as_user(&binary("postgres"));
            command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
            command.args(["-c", "unix_socket_directories=", "-c", "max_connections=300"]);
            command.args(settings.iter().flat_map(|setting| ["-c", setting]));
            command
        });
        let mut postgres = Self { server, port, databases: AtomicU32::new(0) };
        postgres.start_again();
        postgres
    }

    /// Starts it again over what it left.
    pub(crate) fn start_again(&mut self) {
        let port = self.port.to_string();
        self.server.start(|| {
            let mut ready = Command::new(binary("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap().success()
        });
    }

    /// Ends it the hard way. Its children are no members of its process group, so they are ended one by one.
    #[expect(clippy::disallowed_methods, reason = "a test waits for other processes in real time")]
    pub(crate) fn kill(&mut self) {
        let pid = fs::read_to_string(self.server.folder().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        self.server.kill();
        for child in children.split_whitespace() {
            let _gone_already = Command::new("kill").args(["-KILL", child]).stderr(Stdio::null()).status().unwrap();
            while Path::new(&format!("/proc/{child}/fd/0")).exists() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Stops it without waiting for its clients, as an operator does: they are told.
    pub(crate) fn stop_fast(&mut self) {
        let mut stop = as_user(&binary("pg_ctl"));
        stop.args(["stop", "-s", "-m", "fast", "-D"]).arg(self.server.folder().join("data")).current_dir("/");
        assert!(stop.status().unwrap().success(), "it does not stop");
        self.server.kill();
    }

    /// The address of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("create database {name}"));
        self.url(&name)
    }

    /// The address of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let password = PASSWORD.replace(' ', "%20").replace('/', "%2F");
        format!("postgres://{USER}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs a statement by hand, and answers what it says.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.by_hand(database, sql).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{sql}: {err}");
        out.trim().to_owned()
    }

    /// A client that runs a statement by hand, not yet started.
    pub(crate) fn by_hand(&self, database: &str, sql: &str) -> Command {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(self.url(database));
        psql
    }

    /// Where everything of it lies; the server may write there.
    pub(crate) fn folder(&self) -> &Path {
        self.server.folder()
    }
}

/// A folder with an empty cluster in it.
fn new_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    own(folder.path());
    own(&password);
    let mut initdb = as_user(&binary("initdb"));
    initdb.arg("-D").arg(folder.path().join("data")).args([
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ]);
    initdb.arg("--no-sync").arg("--pwfile").arg(&password).current_dir("/");
    let output = initdb.output().unwrap();
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// Gives a file to the user that the server runs as.
pub(crate) fn own(path: &Path) {
    if is_root() {
        chown(path, Some(nobody()), None).unwrap();
    }
}

/// PostgreSQL does not run for root, so root runs it for somebody who may do nothing else.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &nobody().to_string(), "--clear-groups"]).arg(program);
    command
}

fn nobody() -> u32 {
    65_534
}

fn binary(name: &str) -> PathBuf {
    static FOLDERS: OnceLock<Vec<String>> = OnceLock::new();
    let folders = FOLDERS.get_or_init(|| {
        let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let mut folders: Vec<String> = found.map(|entry| entry.path().join("bin").display().to_string()).collect();
        folders.sort();
        folders.reverse();
        folders
    });
    program(name, "postgresql", &folders.iter().map(String::as_str).collect::<Vec<_>>())
}
