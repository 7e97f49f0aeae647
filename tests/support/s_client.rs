//! `openssl s_client`, whose standard input is what it sends, and its commands at the beginning of a line.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::fake::socket_dir;
use super::process::Process;
use super::{PATIENCE, net, wait_for, wait_until};

/// A running one.
pub struct SClient {
    process: Process,
    input: File,
    output: PathBuf,
    _dir: TempDir,
}

impl SClient {
    /// Connects to a port of 127.0.0.1, with these arguments besides, and waits for the handshake.
    pub fn connect(port: u16, arguments: &[&str]) -> SClient {
        let dir = socket_dir();
        let output = dir.path().join("output");
        let out = File::create(&output).expect("create a file");
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
            .args(arguments)
            .stdin(read)
            .stdout(out.try_clone().expect("a descriptor"))
            .stderr(out);
        let process = Process::spawn("openssl", &mut command, Signal::SIGKILL);
        // Its ends of the pipe and of the file are open in there.
        drop(command);
        let client = SClient { process, input: File::from(write), output, _dir: dir };
        client.wait_for("Verify return code");
        client
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).expect("read the output")).into_owned()
    }

    /// Waits until it has said so.
    pub fn wait_for(&self, text: &str) {
        wait_for(&format!("s_client says {text:?}"), || self.output().contains(text).then_some(()));
    }

    /// Sends bytes, or gives a command. It has read them afterwards, and does not take what comes next for a part of them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("write to s_client");
        wait_until("s_client reads its input", || net::queued(self.input.as_fd()) == 0);
    }

    /// Says goodbye in TLS and closes.
    pub fn quit(mut self) {
        self.send(b"Q\n");
        assert!(self.process.wait(*PATIENCE).success());
    }
}
