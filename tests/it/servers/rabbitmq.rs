//! A RabbitMQ of our own: with its own name, home, port mapper and data, so that no other on this machine notices.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tempfile::TempDir;

use super::{Server, free_port, program};

/// Virtual hosts that every server has from the start, one for each test that wants its own.
const VHOSTS: usize = 48;
/// In this virtual host, a queue is full with so many messages.
pub(crate) const SMALL: &str = "small";
pub(crate) const SMALL_MESSAGES_MAX: usize = 5;

/// A private RabbitMQ.
pub(crate) struct Rabbit {
    pub(crate) server: Server,
    port: u16,
    vhosts_taken: AtomicUsize,
}

impl Rabbit {
    /// A new one, running. It takes about six seconds.
    pub(crate) fn start() -> Rabbit {
        let folder = TempDir::new().unwrap();
        // Its files are nobody else's business, and a server that runs as another user must still reach them.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let port = free_port();
        configure(folder.path(), port);
        let (mapper, distribution) = (free_port(), free_port());
        let programs = (server_program(), program("epmd", "rabbitmq-server", &[]));
        let start = move |folder: &Path| command(folder, &programs.0, &programs.1, mapper, distribution);
        let mut rabbit =
            Rabbit { server: Server::new("RabbitMQ", folder, start), port, vhosts_taken: AtomicUsize::new(0) };
        rabbit.again();
        rabbit
    }

    /// Starts it after a kill, over the data it left.
    pub(crate) fn again(&mut self) {
        let port = self.port;
        self.server.start(|| greets(port));
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

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// A virtual host of its own on the one server that the tests of this program share.
pub(crate) fn shared_url() -> String {
    static SHARED: OnceLock<Mutex<Rabbit>> = OnceLock::new();
    SHARED.get_or_init(|| Mutex::new(Rabbit::start())).lock().unwrap().own_url()
}

fn server_program() -> PathBuf {
    // The one in the path may be a script that insists on a system user.
    program("rabbitmq-server", "rabbitmq-server", &["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"])
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

/// The port mapper in the background and the server in the foreground, in one process group.
fn command(folder: &Path, server: &Path, mapper: &Path, mapper_port: u16, distribution: u16) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$1\" -address 127.0.0.1 & exec \"$0\" -noinput"]).arg(server).arg(mapper);
    command
        .env("ERL_EPMD_PORT", mapper_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("HOME", folder)
        .env("RABBITMQ_NODENAME", "sluice@localhost")
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_FEATURE_FLAGS_FILE", folder.join("feature_flags"))
        .env("RABBITMQ_PID_FILE", folder.join("pid"))
        // The script becomes the server, instead of watching over it.
        .env("RABBITMQ_ALLOW_INPUT", "1")
        // Idle schedulers sleep: the tests need the processor.
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none");
    command
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
