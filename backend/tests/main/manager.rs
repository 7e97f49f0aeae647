//! What the service manager is told: readiness, the number of clients, the drain, and signs of life for its watchdog.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::fake::client::{CLOSE, Client, FIN, frame};
use crate::fake::program::{Program, command, engine};
use crate::fake::stopped::StoppedThreads;
use crate::fake::{PATIENCE, is_at_end};

/// Stands in for the manager: its socket, and the program that was started with it.
struct Managed {
    messages: UnixDatagram,
    program: Program,
}

impl Managed {
    fn start(environment: &[(&str, &str)], arguments: &[&str]) -> Managed {
        let directory = tempfile::tempdir().expect("directory");
        let messages = socket(&directory);
        let mut command = command();
        command
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .envs(environment.iter().copied())
            .args(["--listen", "127.0.0.1:0", "--workers", "2", "--socket"])
            .arg(directory.path().join("socket"))
            .args(arguments);
        Managed { messages, program: Program::spawn(command, directory) }
    }

    fn message(&self) -> String {
        receive(&self.messages).expect("a message")
    }

    /// The next message with this line; those before it are not looked at.
    fn wait_for(&self, line: &str) {
        let begin = Instant::now();
        while !self.message().lines().any(|found| found == line) {
            assert!(begin.elapsed() < PATIENCE, "no {line}");
        }
    }

    /// How many signs of life come within a time.
    fn signs_within(&self, time: Duration) -> usize {
        let begin = Instant::now();
        let mut signs = 0;
        while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            self.messages.set_read_timeout(Some(left)).expect("timeout");
            signs += usize::from(
                receive(&self.messages).is_some_and(|message| message.contains("WATCHDOG=1")),
            );
        }
        self.messages.set_read_timeout(Some(PATIENCE)).expect("timeout");
        signs
    }
}

fn socket(directory: &TempDir) -> UnixDatagram {
    let messages = UnixDatagram::bind(directory.path().join("notify")).expect("bind");
    messages.set_read_timeout(Some(PATIENCE)).expect("timeout");
    messages
}

fn receive(messages: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 4096];
    let len = messages.recv(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..len].to_vec()).expect("text"))
}

/// Of the watchdog that the tests ask for; a sign of life comes at least twice in that time.
const WATCHDOG: Duration = Duration::from_millis(400);
const WATCHED: (&str, &str) = ("WATCHDOG_USEC", "400000");

#[test]
fn it_is_ready_when_it_listens() {
    let directory = tempfile::tempdir().expect("directory");
    let messages = socket(&directory);
    let mut command = command();
    let path = directory.path().join("socket");
    command.env("NOTIFY_SOCKET", directory.path().join("notify")).arg("--socket").arg(&path);
    let _program = std::thread::scope(|scope| {
        let program =
            scope.spawn(|| Program::spawn(command, tempfile::tempdir().expect("directory")));
        let first = receive(&messages).expect("a message");
        assert!(UnixStream::connect(&path).is_ok(), "ready, and not listening");
        assert_eq!(first, "READY=1\nSTATUS=Serving 0 clients\n");
        program.join().expect("a program")
    });
}

#[test]
fn it_says_whom_it_serves_and_that_it_drains() {
    let mut managed = Managed::start(&[WATCHED], &["--drain-timeout", "10"]);
    managed.wait_for("STATUS=Serving 0 clients");
    let mut client = Client::connect(managed.program.listen, "/");
    managed.wait_for("STATUS=Serving 1 client");
    let second = Client::connect(managed.program.listen, "/");
    managed.wait_for("STATUS=Serving 2 clients");
    drop(second);
    managed.wait_for("STATUS=Serving 1 client");
    managed.program.signal(Signal::SIGTERM);
    managed.wait_for("STOPPING=1");
    assert_eq!(client.receive_close(), 1001);
    assert!(managed.signs_within(2 * WATCHDOG) >= 2, "the watchdog waits in a drain, too");
    client.raw(&frame(FIN | CLOSE, &1001u16.to_be_bytes()));
    assert!(is_at_end(&mut client.stream));
    assert!(managed.program.status().success());
}

#[test]
fn a_watchdog_is_served_only_if_it_is_this_programs() {
    let managed = Managed::start(&[WATCHED], &[]);
    assert!(managed.signs_within(4 * WATCHDOG) >= 4);
    for environment in [&[] as &[_], &[WATCHED, ("WATCHDOG_PID", "1")]] {
        let managed = Managed::start(environment, &[]);
        managed.wait_for("READY=1");
        assert_eq!(managed.signs_within(3 * WATCHDOG), 0);
    }
}

#[test]
fn a_thread_that_hangs_keeps_the_watchdog_waiting() {
    let mut managed = Managed::start(&[WATCHED], &[]);
    assert!(managed.signs_within(2 * WATCHDOG) >= 2);
    // One of the engine's threads is enough; tasks go to whichever is free.
    let threads = if engine() == "parked" { "engine-1" } else { "ws-handoff" };
    let stopped = StoppedThreads::named(managed.program.pid(), threads);
    // What was under way when it stopped.
    managed.signs_within(WATCHDOG);
    assert_eq!(managed.signs_within(3 * WATCHDOG), 0, "no sign of life of a program that hangs");
    stopped.resume();
    assert!(managed.signs_within(2 * WATCHDOG) >= 2, "it lives again");
    if engine() == "parked" {
        managed.program.wait_for_log("a thread that serves clients does not respond");
    }
}

#[test]
fn a_manager_that_does_not_read_holds_up_nothing() {
    let mut managed = Managed::start(&[("WATCHDOG_USEC", "2000")], &["--drain-timeout", "5"]);
    let queued: usize = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(512);
    // A message a millisecond: until the socket's queue is full.
    std::thread::sleep(Duration::from_millis(500 + 2 * queued as u64));
    let mut client = Client::connect(managed.program.listen, "/");
    client.text("still there?");
    assert_eq!(client.receive_text(), "still there?");
    drop(client);
    managed.program.signal(Signal::SIGTERM);
    assert!(managed.program.status().success());
}

#[test]
fn a_manager_that_is_gone_does_not_matter() {
    let mut managed = Managed::start(&[WATCHED], &[]);
    let Managed { messages, program } = &mut managed;
    let elsewhere = UnixDatagram::unbound().expect("a socket");
    drop(std::mem::replace(messages, elsewhere));
    program.wait_for_log("NOTIFY_SOCKET: ");
    let mut client = Client::connect(program.listen, "/");
    client.text("on");
    assert_eq!(client.receive_text(), "on");
}
