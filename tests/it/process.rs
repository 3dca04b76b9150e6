//! The real program as a process.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How long the program may take to say what is waited for.
const SAID_TIME_MAX: Duration = Duration::from_secs(30);

/// Names and values of the environment.
pub(crate) type Env = Vec<(&'static str, String)>;

/// The program over this data folder, with nothing of this process's environment.
pub(crate) fn sluice(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).env_clear().env("SLUICE_DATA", data.join("data")).current_dir(data);
    command
}

#[track_caller]
pub(crate) fn run(data: &Path, args: &[&str], code: i32) -> String {
    let output = sluice(data, args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running process; killed if the test fails, and also if the tests themselves are.
pub(crate) struct Serving {
    child: Child,
    reaper: Child,
    _alive: ChildStdin,
    said: Arc<Said>,
    listener: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

impl Serving {
    /// An embedded server on a free port; ready when this returns.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_at(data, "127.0.0.1:0")
    }

    /// An embedded server at this address; ready when this returns.
    pub(crate) fn start_at(data: &Path, address: &str) -> Self {
        let serving = Self::spawn(data, &["serve", "--listen", address], &Env::new());
        serving.wait_for("/docs/");
        serving
    }

    /// The program with these arguments in this environment, just started.
    pub(crate) fn spawn(data: &Path, args: &[&str], env: &Env) -> Self {
        let mut command = sluice(data, args);
        command.envs(env.iter().map(|(name, value)| (name, value))).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut reaper = Command::new("sh");
        reaper.args(["-c", "cat >/dev/null; kill -s KILL \"$1\"", "reaper", &child.id().to_string()]);
        let mut reaper = reaper.process_group(0).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let alive = reaper.stdin.take().unwrap();
        let messages = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Said::default());
        let listener = thread::spawn({
            let said = said.clone();
            move || said.listen(messages)
        });
        Self { child, reaper, _alive: alive, said, listener: Some(listener) }
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let said = self.said.text.lock().unwrap();
        let not_yet = |said: &mut String| !said.contains(text) && !said.contains(Said::END);
        let (said, _) = self.said.more.wait_timeout_while(said, SAID_TIME_MAX, not_yet).unwrap();
        assert!(said.contains(text), "it does not say {text:?}: {said}");
    }

    /// Everything that it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.text.lock().unwrap().clone()
    }

    /// The address at which it says that it answers.
    #[track_caller]
    pub(crate) fn address(&self) -> String {
        self.wait_for("\n  address  ");
        let said = self.said();
        let after = said.split("\n  address  ").nth(1).and_then(|rest| rest.split_once('\n'));
        after.expect("a whole line").0.trim().to_owned()
    }

    /// The kernel's letter for it: `T` if it stands still, `Z` if it is dead.
    pub(crate) fn condition(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name before it stands in brackets, and may hold anything.
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap()
    }

    /// Stops it where it stands.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "could not send {signal}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it the hard way.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; answers with its exit code, everything it said, and everything it printed.
    pub(crate) fn stop(self) -> (Option<i32>, String, String) {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for its end; answers with its exit code, everything it said, and everything it printed.
    pub(crate) fn ended(mut self) -> (Option<i32>, String, String) {
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        let code = self.child.wait().unwrap().code();
        self.listener.take().unwrap().join().unwrap();
        (code, self.said().replace(Said::END, ""), printed)
    }
}

impl Said {
    /// Stands at the end of what a process said once it has ended.
    const END: &'static str = "\0";

    fn listen(&self, mut messages: impl BufRead) {
        let mut line = Vec::new();
        while messages.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            self.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        self.add(Self::END);
    }

    fn add(&self, text: &str) {
        self.text.lock().unwrap().push_str(text);
        self.more.notify_all();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // First the reaper: once its process is waited for, the number may become another's.
        let _ended_already = self.reaper.kill();
        let _ended = self.reaper.wait();
        let _ended_already = self.child.kill();
        let _ended = self.child.wait();
    }
}
