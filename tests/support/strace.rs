//! What system calls a process makes.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::{PATIENCE, fake, wait_until};

/// strace attached to a process.
pub struct Strace {
    process: Process,
    dir: TempDir,
}

impl Strace {
    /// Attaches to `pid` and its threads.
    pub fn attach(pid: i32) -> Strace {
        let dir = fake::socket_dir();
        let messages = fs::File::create(dir.path().join("messages")).expect("create a file");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-o"]).arg(dir.path().join("trace"));
        command.stdin(Stdio::null()).stderr(messages);
        // strace detaches from what it traces when it is interrupted.
        let mut process = Process::spawn("strace", &mut command, Signal::SIGINT);
        wait_until("strace has attached", || {
            let messages = fs::read_to_string(dir.path().join("messages")).unwrap_or_default();
            assert!(process.exited().is_none(), "strace: {messages}");
            messages.contains("attached")
        });
        Strace { process, dir }
    }

    /// The system calls seen.
    pub fn detach(mut self) -> Vec<String> {
        assert!(self.process.stop(Signal::SIGINT, *PATIENCE), "strace does not detach");
        let trace = fs::read_to_string(self.dir.path().join("trace")).expect("read the trace");
        trace.lines().map(str::to_owned).collect()
    }
}
