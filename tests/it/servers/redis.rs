//! Redis, for tests: one server that many tests share, or one of their own that they may kill.

use std::net::TcpStream;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{ConnectionLike, FromRedisValue};

use super::{Server, free_port, program};

/// Databases of the shared server; each test takes one.
const DATABASES: u32 = 4_096;

/// A Redis server of this test alone.
pub(crate) struct RedisServer {
    pub(crate) server: Server,
    pub(crate) port: u16,
}

impl RedisServer {
    /// Starts one, without persistence unless the arguments say otherwise.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut redis = Self::new(args);
        redis.start_again();
        redis
    }

    fn new(args: &[&str]) -> Self {
        let (port, args) = (free_port(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        let server = Server::new("redis-server", tempfile::tempdir().unwrap(), move |folder| {
            let mut command = Command::new(program("redis-server", "redis-server", &[]));
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder);
            command.args(["--databases", &DATABASES.to_string()]).args(&args);
            command
        });
        Self { server, port }
    }

    /// Starts it over what it left on disk.
    pub(crate) fn start_again(&mut self) {
        let port = self.port;
        self.server.start(|| answers(port));
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// Whether the server there has read its data and talks, even if only to ask for a password.
pub(crate) fn answers(port: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut answer = [0; 64];
    let read = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut answer)).unwrap_or(0);
    let answer = &answer[..read];
    answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH")
}

/// The URL of an empty database on a server that all tests of this process share.
pub(crate) fn fresh_database() -> String {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < DATABASES, "more tests than databases");
    format!("{}/{number}", SHARED.get_or_init(|| RedisServer::start(&[])).url())
}

/// Says this to a server, and answers what it says.
pub(crate) fn say<T: FromRedisValue>(url: &str, words: &[&str]) -> T {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut command = redis::Cmd::new();
    command.arg(words);
    let answer = connection.req_command(&command).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    redis::from_redis_value(answer).unwrap()
}
