//! Private servers for the tests: real ones, on free ports, in temporary folders. They can be killed, frozen and started
//! again one by one, and none outlives the tests, however those end. What the machine runs already is left alone.

pub(crate) mod frames;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
pub(crate) mod trio;

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Below the ports that the system gives to clients, so that no connection takes one between our choice and its use.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A server's process and everything it started.
pub(crate) struct Server {
    name: &'static str,
    command: Box<dyn Fn(&Path) -> Command + Send + Sync>,
    folder: TempDir,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Ends the server when this process is gone: a shell that waits for the end of its input.
    reaper: Child,
    _alive: ChildStdin,
}

impl Server {
    /// A server that `command` starts within the given folder; it runs after [`Server::start`].
    pub(crate) fn new(
        name: &'static str,
        folder: TempDir,
        command: impl Fn(&Path) -> Command + Send + Sync + 'static,
    ) -> Self {
        Self { name, command: Box::new(command), folder, running: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[expect(clippy::disallowed_methods, reason = "a test waits for another process in real time")]
    /// Starts it, over whatever it left in its folder, and waits until it answers.
    pub(crate) fn start(&mut self, answers: impl Fn() -> bool) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = (self.command)(self.folder.path());
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        let mut reaper = Command::new("sh");
        // `-s KILL --` is the one spelling that every shell takes. What dies may write into the folder for a moment.
        let script = "cat >/dev/null; kill -s KILL -- \"-$1\"; rm -rf \"$2\" || { sleep 1; rm -rf \"$2\"; }";
        reaper.args(["-c", script, "reaper", &child.id().to_string()]);
        reaper.arg(self.folder.path()).process_group(0).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut reaper = reaper.spawn().unwrap();
        let alive = reaper.stdin.take().unwrap();
        self.running = Some(Running { child, reaper, _alive: alive });
        let started = Instant::now();
        while !answers() {
            let ended = self.running.as_mut().unwrap().child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended ({ended:?}):\n{}", self.name, self.log());
            assert!(started.elapsed() < START_TIME_MAX, "{} does not answer:\n{}", self.name, self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it the hard way, with everything it started; its folder stays.
    pub(crate) fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.signal("KILL");
        running.child.wait().unwrap();
        let _ended_already = running.reaper.kill();
        running.reaper.wait().unwrap();
    }

    /// Stops it where it stands.
    pub(crate) fn freeze(&self) {
        self.running.as_ref().unwrap().signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.running.as_ref().unwrap().signal("CONT");
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        let mut log = String::new();
        let read = File::open(self.log_path()).and_then(|mut file| file.read_to_string(&mut log));
        read.map_or_else(|error| error.to_string(), |_| log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let sent = Command::new("kill").args([&format!("-{signal}"), "--", &group]).status().unwrap();
        assert!(sent.success(), "could not send {signal}");
    }
}

/// A port on loopback that nobody uses.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test processes that run side by side begin at different places.
    let begin = u16::try_from(std::process::id() * 199 % u32::from(count)).unwrap();
    loop {
        let port = PORTS.start + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Whether somebody listens there.
pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether this process may do everything, which PostgreSQL does not like.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A server's program, or what to install.
pub(crate) fn program(name: &str, package: &str, folders: &[&str]) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let candidates = folders.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    let found = candidates.map(|folder| folder.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: on Debian or Ubuntu, apt-get install {package}; ./test does it"))
}

/// A turn among the tests that measure how long a whole deployment takes for something; dropped, it is the next one's.
pub(crate) type Turn = tokio::sync::MutexGuard<'static, ()>;

/// Waits for one's turn: several deployments at once would be measured by what they take from each other.
pub(crate) async fn turn() -> Turn {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}
