//! The program as a process of its own, which ends with the test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{PATIENCE, read_head};

/// A running `ws-handoff-backend` with a socket, a TCP port and an admin port.
pub struct Program {
    child: Child,
    directory: TempDir,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

impl Program {
    /// Starts it and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Program {
        Program::start_as(command(), arguments)
    }

    /// As [`Program::start`], with this RLIMIT_NOFILE.
    pub fn start_with_descriptors(limit: u32, arguments: &[&str]) -> Program {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!(r#"ulimit -n {limit}; exec "$0" "$@""#)])
            .arg(env!("CARGO_BIN_EXE_ws-handoff-backend"))
            .env("NO_COLOR", "1")
            .env("WS_HANDOFF_ENGINE", engine());
        Program::start_as(shell, arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Program {
        let directory = tempfile::tempdir().expect("directory");
        command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "debug"])
            .arg("--socket")
            .arg(directory.path().join("socket"))
            .args(arguments);
        Program::spawn(command, directory)
    }

    /// Runs a command that logs where it listens.
    pub fn spawn(mut command: Command, directory: TempDir) -> Program {
        let log = File::create(directory.path().join("log")).expect("log");
        let child = command.stderr(log).spawn().expect("spawn");
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program = Program { child, directory, listen: unknown, admin: unknown };
        program.wait_for_log(" ready");
        let log = program.log();
        let address = |line: &str| {
            let found = log.lines().find(|text| text.contains(line))?;
            found.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        program.listen = address(" listening").unwrap_or(unknown);
        program.admin = address(" admin endpoint").unwrap_or(unknown);
        program
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("log")
    }

    pub fn wait_for_log(&mut self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || {
            let log = self.log();
            let ended = self.child.try_wait().expect("wait");
            assert!(ended.is_none() || log.contains(text), "{ended:?}:\n{log}");
            log.contains(text)
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pid");
        kill(Pid::from_raw(pid), signal).expect("kill");
    }

    /// Waits for its end.
    pub fn status(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("ended")
    }

    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(path).expect("descriptors").count()
    }

    /// Bytes of memory that it has (VmRSS).
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|rest| rest.trim().strip_suffix(" kB"));
        kilobytes.and_then(|number| number.parse::<usize>().ok()).expect("VmRSS") << 10
    }

    /// GET on the admin port: the head and the body.
    pub fn admin(&self, path: &str) -> (String, String) {
        get(TcpStream::connect(self.admin).expect("connect"), path)
    }

    /// One metric's value.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log\n{}", self.log());
        }
    }
}

/// The program, without an environment that could change what it does.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-handoff-backend"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).env("NO_COLOR", "1");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WS_HANDOFF_")) {
        command.env_remove(name);
    }
    command.env("WS_HANDOFF_ENGINE", engine());
    if let Ok(carrier) = std::env::var("WS_HANDOFF_TEST_TLS") {
        command.env("WS_HANDOFF_TLS", carrier);
    }
    command
}

/// Which engine the tests are for: `parked`, unless `WS_HANDOFF_TEST_ENGINE` says otherwise.
pub fn engine() -> String {
    std::env::var("WS_HANDOFF_TEST_ENGINE").unwrap_or_else(|_| "parked".to_owned())
}

/// Whether that is the one that tells every breach of RFC 6455.
pub fn is_strict() -> bool {
    engine() == "parked"
}

/// Starts it where it cannot: its exit status and what it says.
pub fn fails(arguments: &[&str]) -> String {
    let mut child = command().args(arguments).stderr(Stdio::piped()).spawn().expect("spawn");
    let begin = Instant::now();
    while child.try_wait().expect("wait").is_none() && begin.elapsed() < PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // One that does start would go on for ever; it has no status then.
    let _ = child.kill();
    let output = child.wait_with_output().expect("output");
    assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// HTTP GET over any stream.
pub fn get(mut stream: impl Read + Write, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("write");
    let head = read_head(&mut stream);
    let mut body = String::new();
    stream.read_to_string(&mut body).expect("body");
    (head, body)
}

/// Polls for a fact.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Whether anything has this name.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
