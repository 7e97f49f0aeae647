//! The real backend program.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::client::Client;
use super::fake::socket_dir;
use super::process::Process;
use super::{PATIENCE, PROMPTLY, net, paths, proc, wait_until};

const NAME: &str = "ws-handoff-backend";

/// A running `ws-handoff-backend` with its Unix socket and its admin port.
pub struct Backend {
    process: Process,
    command: Command,
    dir: TempDir,
    admin: SocketAddr,
    /// Whether the test has told it to.
    ends: bool,
}

impl Backend {
    /// Starts it with these arguments besides `--socket` and `--admin`.
    pub fn start(arguments: &[&str]) -> Backend {
        Backend::spawn(arguments, |_| ())
    }

    /// Serves an echo, with so many descriptors at most.
    pub fn start_limited(descriptors: u64) -> Backend {
        Backend::spawn(&["--app", "echo"], move |command| {
            // SAFETY: setrlimit(2) is async-signal-safe and nothing is allocated between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)
                        .map_err(io::Error::from)
                });
            }
        })
    }

    fn spawn(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Backend {
        let dir = socket_dir();
        let admin: SocketAddr = (Ipv4Addr::LOCALHOST, net::free_port()).into();
        let log = fs::File::create(dir.path().join("log")).expect("create the backend's log");
        let mut command = Command::new(paths::backend());
        command
            .arg("--socket")
            .arg(dir.path().join("ws"))
            .args(["--admin", &admin.to_string()])
            .args(arguments)
            .env("WS_HANDOFF_ENGINE", engine())
            .env("WS_HANDOFF_TLS", tls())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's descriptor"))
            .stderr(log);
        prepare(&mut command);
        let process = Process::spawn(NAME, &mut command, Signal::SIGKILL);
        let mut backend = Backend { process, command, dir, admin, ends: false };
        backend.wait_listening();
        backend
    }

    /// Kills it: SIGKILL.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(*PATIENCE);
        self.ends = true;
    }

    /// Starts it once more, as it was started, where it has ended.
    pub fn start_again(&mut self) {
        self.process = Process::spawn(NAME, &mut self.command, Signal::SIGKILL);
        self.ends = false;
        self.wait_listening();
    }

    fn wait_listening(&mut self) {
        wait_until("the backend listens", || {
            if let Some(status) = self.process.exited() {
                panic!("the backend exited: {status}\n{}", self.log());
            }
            // One that was killed has left its socket's file behind, which refuses connections.
            UnixStream::connect(self.socket()).is_ok() && TcpStream::connect(self.admin).is_ok()
        });
    }

    /// Serves an echo.
    pub fn echo() -> Backend {
        Backend::start(&["--app", "echo"])
    }

    /// As nginx's configuration names it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default())
            .into_owned()
    }

    /// The value of a sample (`name` or `name{label="value"}`), or the sum of all with that name; panics if
    /// there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, body) = Client::connect(self.admin).get("/metrics");
        let text = String::from_utf8(body).expect("UTF-8");
        let values: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(sample, _)| {
                *sample == name || sample.split_once('{').is_some_and(|(start, _)| start == name)
            })
            .map(|(_, value)| value.parse().expect("a number"))
            .collect();
        assert!(!values.is_empty(), "no {name} in\n{text}");
        values.iter().sum()
    }

    /// Tells it to drain and exit.
    pub fn drain(&mut self) {
        self.process.signal(Signal::SIGTERM);
        self.ends = true;
    }

    /// Whether it has exited since.
    pub fn has_ended(&mut self) -> bool {
        self.process.exited().is_some()
    }

    /// Waits until it serves exactly `count` clients.
    pub fn wait_active(&self, count: usize) {
        wait_until(&format!("the backend serves {count} clients"), || {
            self.metric("websocket_connections_active") == count as f64
        });
    }

    /// Waits until it holds no more descriptors than `before`.
    pub fn wait_descriptors(&self, before: usize) {
        wait_until("the backend holds as many descriptors as before", || {
            proc::descriptors(self.pid()).len() <= before
        });
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("ws")
    }
}

/// Which engine serves: `parked`, unless `WS_HANDOFF_TEST_ENGINE` says otherwise.
pub fn engine() -> String {
    std::env::var("WS_HANDOFF_TEST_ENGINE").unwrap_or_else(|_| "parked".to_owned())
}

/// Who carries TLS sessions on: the program, unless `WS_HANDOFF_TEST_TLS` says otherwise (`kernel`: `make test-ktls`).
pub fn tls() -> String {
    std::env::var("WS_HANDOFF_TEST_TLS").unwrap_or_else(|_| "user".to_owned())
}

/// Whether it is the kernel that does.
pub fn kernel_carries() -> bool {
    tls() == "kernel" && is_strict()
}

/// Whether that kernel changes keys (Linux 6.14), by what the program has found out.
pub fn changes_keys(backend: &Backend) -> bool {
    let log = backend.log();
    assert!(log.contains("giving TLS sessions to the kernel"), "{log}");
    log.contains("changes_keys=true")
}

/// Whether that is the one that tells every breach of RFC 6455, and has the options that come with it.
pub fn is_strict() -> bool {
    engine() == "parked"
}

impl Drop for Backend {
    fn drop(&mut self) {
        let exited = self.process.exited();
        let stopped = self.process.stop(Signal::SIGTERM, *PROMPTLY);
        if thread::panicking() || exited.is_some() || !stopped {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("backend:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        if !thread::panicking() {
            let expected = self.ends || exited.is_none();
            assert!(expected, "the backend had exited: {exited:?}");
        }
    }
}
