//! A RabbitMQ of our own: with its own name, home, port mapper and data, so that no other on this machine notices.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::{Server, free_port, program};

/// Virtual hosts that every server has from the start, one for each test that wants its own.
const VHOSTS: usize = 48;
/// In this virtual host, a queue is full with so many messages.
pub(crate) const SMALL: &str = "small";
pub(crate) const SMALL_MESSAGES_MAX: usize = 5;

/// Where it keeps its data, within its folder.
const DATA: &str = "data";

/// A private RabbitMQ.
pub(crate) struct Rabbit {
    server: Server,
    pub(crate) port: u16,
    environment: Vec<(&'static str, OsString)>,
    vhosts_taken: AtomicUsize,
}

/// The server that tests share, each with a virtual host of its own.
pub(crate) fn shared() -> &'static Rabbit {
    static SHARED: OnceLock<Rabbit> = OnceLock::new();
    SHARED.get_or_init(Rabbit::start)
}

impl Rabbit {
    /// A new one, running. It takes about six seconds.
    pub(crate) fn start() -> Rabbit {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        configure(folder.path(), port);
        let environment = environment(folder.path());
        let (server, mapper) = (server_program(), program("epmd", "rabbitmq-server", &[]));
        let known = environment.clone();
        let start = move |_: &Path| {
            // The port mapper in the background and the server in the foreground, in one process group.
            let mut command = Command::new("sh");
            command.args(["-c", "\"$1\" -address 127.0.0.1 & exec \"$0\" -noinput"]).arg(&server).arg(&mapper);
            command.envs(known.clone());
            command
        };
        let server = Server::new("RabbitMQ", folder, start);
        let mut rabbit = Rabbit { server, port, environment, vhosts_taken: AtomicUsize::new(0) };
        rabbit.start_again();
        rabbit
    }

    /// Starts it again over what it left.
    pub(crate) fn start_again(&mut self) {
        let port = self.port;
        self.server.start(|| greets(port));
    }

    /// Ends it the hard way.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Removes everything that a killed one left: messages, queues and bindings. Users and virtual hosts come again.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.server.folder().join(DATA)).unwrap();
    }

    /// Stops it where it stands.
    pub(crate) fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.server.resume();
    }

    /// Runs `rabbitmqctl` with these arguments; that takes about two seconds.
    pub(crate) fn control(&self, arguments: &[&str]) {
        let control = program("rabbitmqctl", "rabbitmq-server", PROGRAMS);
        let output = Command::new(control).args(arguments).envs(self.environment.clone()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// The URL of this virtual host.
    pub(crate) fn url(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.port)
    }

    /// The URL of a virtual host that no other test has.
    pub(crate) fn own_url(&self) -> String {
        let next = self.vhosts_taken.fetch_add(1, Ordering::Relaxed);
        assert!(next < VHOSTS, "more tests than virtual hosts");
        self.url(&format!("v{next}"))
    }
}

/// The scripts in the path may insist on a system user; these do not.
const PROGRAMS: &[&str] = &["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"];

fn server_program() -> PathBuf {
    program("rabbitmq-server", "rabbitmq-server", PROGRAMS)
}

fn configure(folder: &Path, port: u16) {
    let definitions = folder.join("definitions.json");
    let mut config = String::new();
    writeln!(config, "listeners.tcp.1 = 127.0.0.1:{port}").unwrap();
    writeln!(config, "load_definitions = {}", definitions.display()).unwrap();
    config.push_str("log.console = true\nlog.console.level = warning\nlog.file = false\n");
    config.push_str("disk_free_limit.absolute = 1MB\n");
    fs::write(folder.join("rabbitmq.conf"), config).unwrap();
    fs::write(folder.join("enabled_plugins"), "[].").unwrap();
    let vhosts: Vec<String> = (0..VHOSTS).map(|number| format!("v{number}")).chain([SMALL.to_owned()]).collect();
    let all =
        |vhost| serde_json::json!({"user": "guest", "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"});
    let small = serde_json::json!({
        "name": "small", "vhost": SMALL, "pattern": r"^sluice\.claims\.", "apply-to": "queues",
        "definition": {"max-length": SMALL_MESSAGES_MAX}, "priority": 0
    });
    let json = serde_json::json!({
        "users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}],
        "vhosts": vhosts.iter().map(|name| serde_json::json!({"name": name})).collect::<Vec<_>>(),
        "permissions": vhosts.iter().map(all).collect::<Vec<_>>(),
        "policies": [small],
    });
    fs::write(definitions, json.to_string()).unwrap();
}

/// What makes it a server of its own.
fn environment(folder: &Path) -> Vec<(&'static str, OsString)> {
    let within = |name: &str| folder.join(name).into_os_string();
    let port = || free_port().to_string().into();
    vec![
        ("HOME", folder.into()),
        ("ERL_EPMD_PORT", port()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODENAME", "sluice@localhost".into()),
        ("RABBITMQ_DIST_PORT", port()),
        ("RABBITMQ_MNESIA_BASE", within(DATA)),
        ("RABBITMQ_LOG_BASE", within("log")),
        ("RABBITMQ_CONFIG_FILE", within("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", within("none")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", within("enabled_plugins")),
        ("RABBITMQ_FEATURE_FLAGS_FILE", within("feature_flags")),
        ("RABBITMQ_PID_FILE", within("pid")),
        // The script becomes the server, instead of watching over it.
        ("RABBITMQ_ALLOW_INPUT", "1".into()),
        // Idle schedulers sleep: the tests need the processor.
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none".into()),
    ]
}

/// Whether a RabbitMQ greets there.
fn greets(port: u16) -> bool {
    let greeting = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok::<bool, std::io::Error>(first == [1])
    };
    greeting().unwrap_or(false)
}
