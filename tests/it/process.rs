//! The real program as a process.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

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

/// A serving process; killed if the test fails.
pub(crate) struct Serving {
    child: Child,
    messages: BufReader<ChildStderr>,
    said: String,
}

impl Serving {
    /// Starts it on a free port and waits for its banner.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_at(data, "127.0.0.1:0")
    }

    /// Starts it at this address and waits for its banner.
    pub(crate) fn start_at(data: &Path, address: &str) -> Self {
        let mut command = sluice(data, &["serve", "--listen", address]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("/docs/") {
            assert!(messages.read_line(&mut said).unwrap() > 0, "it does not start: {said}");
        }
        Self { child, messages, said }
    }

    /// Ends it the hard way.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; answers with its exit code, everything it said, and everything it printed.
    pub(crate) fn stop(mut self) -> (Option<i32>, String, String) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        self.messages.read_to_string(&mut self.said).unwrap();
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.said), printed)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended = self.child.wait();
    }
}
