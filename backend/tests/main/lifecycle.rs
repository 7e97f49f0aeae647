//! Starting, being asked how it is, and ending.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fake::client::{CLOSE, Client, FIN, frame};
use crate::fake::nginx::Nginx;
use crate::fake::program::{Program, command, exists, fails, get, wait_until};
use crate::fake::{field, is_at_end, status};

#[test]
fn health_and_metrics_are_there() {
    let program = Program::start(&[]);
    let (head, body) = program.admin("/healthz");
    assert_eq!((status(&head), body.as_str()), (200, "ok\n"));
    assert_eq!(status(&program.admin("/readyz").0), 200);
    assert_eq!(status(&program.admin("/").0), 404);
    let (head, body) = program.admin("/metrics");
    assert!(
        field(&head, "Content-Type")
            .is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
    assert!(body.ends_with("# EOF\n"));
    assert!(program.metric("process_resident_memory_bytes") > 1e6);
    assert!(program.metric("process_open_fds") > 5.0);
    assert!(program.metric("process_max_fds") > 5.0);
}

#[test]
fn the_admin_endpoint_may_be_a_unix_socket() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("admin");
    let _program = Program::start(&["--admin", &format!("unix:{}", path.display())]);
    let (head, _) = get(UnixStream::connect(&path).expect("connect"), "/healthz");
    assert_eq!(status(&head), 200);
}

#[test]
fn every_option_can_come_from_the_environment() {
    let directory = tempfile::tempdir().expect("directory");
    let mut command = command();
    command
        .env("WS_HANDOFF_SOCKET", directory.path().join("socket"))
        .env("WS_HANDOFF_LISTEN", "127.0.0.1:0")
        .env("WS_HANDOFF_APP", "demo")
        .env("WS_HANDOFF_SUBPROTOCOL", "a,b")
        .env("WS_HANDOFF_LOG_LEVEL", "info");
    let program = Program::spawn(command, directory);
    let offered = "Sec-WebSocket-Protocol: b\r\n";
    let (_, head) = Client::handshake(program.listen, "/echo", offered);
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("b"));
    assert_eq!(status(&Client::handshake(program.listen, "/", "").1), 404);

    let directory = tempfile::tempdir().expect("directory");
    let mut command = crate::fake::program::command();
    for line in command_help().split("[env: ").skip(1) {
        command.env(line.split('=').next().expect("a name"), "");
    }
    command.args(["--listen", "127.0.0.1:0"]);
    let program = Program::spawn(command, directory);
    let (_, head) = Client::handshake(program.listen, "/", "Sec-WebSocket-Protocol: chat\r\n");
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("chat"), "empty is as good as unset");

    let help = command_help();
    let options = help.lines().filter(|line| line.starts_with("      --")).count();
    let variables = help.matches("[env: WS_HANDOFF_").count();
    assert_eq!(options, variables, "{help}");
}

fn command_help() -> String {
    let output = command().arg("--help").stdout(std::process::Stdio::piped()).output();
    String::from_utf8(output.expect("run").stdout).expect("text")
}

#[test]
fn logs_are_json_where_asked_for() {
    let output = command()
        .args(["--log-format", "json"])
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("run");
    let output = String::from_utf8(output.stderr).expect("text");
    let last = output.lines().last().expect("a line");
    assert!(last.starts_with('{') && last.ends_with('}'), "{last}");
    assert!(last.contains("\"level\":\"ERROR\"") && last.contains("nothing to serve"), "{last}");
}

#[test]
fn it_says_what_keeps_it_from_starting() {
    assert!(fails(&[]).contains("nothing to serve: give --socket or --listen"));
    assert!(fails(&["--socket", "/nonexistent/s"]).contains("/nonexistent/s.lock"));
    assert!(
        fails(&["--app", "nonsense", "--listen", "127.0.0.1:0"])
            .contains("echo, hello, broadcast, demo")
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    assert!(fails(&["--listen", &address]).contains(&format!("listen on {address}")));
    assert!(fails(&["--listen", "127.0.0.1:0", "--admin", &address]).contains(&address));

    let program = Program::start(&[]);
    let path = program.socket();
    let said = fails(&["--socket", path.to_str().expect("text")]);
    assert!(said.contains("another process (pid "), "{said}");
}

#[test]
fn sigterm_closes_clients_with_1001_and_ends_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut program = Program::start(&[]);
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(program.listen, "/")).collect();
        program.signal(signal);
        for client in &mut clients {
            assert_eq!(client.receive_close(), 1001);
            client.raw(&frame(FIN | CLOSE, &1001u16.to_be_bytes()));
            assert!(is_at_end(&mut client.stream));
        }
        assert!(program.status().success());
        assert!(!exists(&program.socket()));
    }
}

#[test]
fn while_draining_nothing_new_is_taken() {
    let mut program = Program::start(&["--drain-timeout", "5"]);
    // Does not answer its close, and so keeps the drain going.
    let mut stubborn = Client::connect(program.listen, "/");
    program.signal(Signal::SIGTERM);
    assert_eq!(stubborn.receive_close(), 1001);
    let (head, body) = program.admin("/readyz");
    assert_eq!((status(&head), body.as_str()), (503, "draining\n"));
    assert_eq!(status(&program.admin("/healthz").0), 200);
    wait_until("the socket is gone", || !exists(&program.socket()));
    assert!(UnixStream::connect(program.socket()).is_err());
    wait_until("the port is closed", || std::net::TcpStream::connect(program.listen).is_err());

    // The path is free for the next process.
    let path = program.socket();
    let mut next = command();
    let directory = tempfile::tempdir().expect("directory");
    next.arg("--socket").arg(&path);
    let _next = Program::spawn(next, directory);
    assert!(exists(&path));
    assert!(program.status().success());
    assert!(exists(&path), "the next one's socket");
}

#[test]
fn offers_that_were_queued_are_refused_503() {
    let mut program = Program::start(&["--drain-timeout", "10"]);
    // Its head is not complete when the drain begins.
    let mut nginx = Nginx::connect(&program.socket());
    nginx.send(b"GET / HTTP/1.1\r\nHandoff: fd; v=1\r\n");
    std::thread::sleep(Duration::from_millis(100));
    program.signal(Signal::SIGTERM);
    wait_until("the socket is gone", || !exists(&program.socket()));
    let rest = crate::fake::nginx::request("/", "");
    nginx.send(rest.split_once("\r\n").expect("a line").1.as_bytes());
    assert_eq!(status(&nginx.head()), 503);
    assert!(program.status().success());
}

#[test]
fn the_drain_ends_at_its_timeout() {
    let mut program = Program::start(&["--drain-timeout", "1"]);
    let mut stubborn = Client::connect(program.listen, "/");
    let begin = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(stubborn.receive_close(), 1001);
    assert!(is_at_end(&mut stubborn.stream));
    assert!(program.status().success());
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut program = Program::start(&["--drain-timeout", "60"]);
    let mut stubborn = Client::connect(program.listen, "/");
    program.signal(Signal::SIGTERM);
    assert_eq!(stubborn.receive_close(), 1001);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.status().code(), Some(143));
}

#[test]
fn sockets_may_be_inherited() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("inherited");
    let listener = UnixListener::bind(&path).expect("bind");
    let program = env!("CARGO_BIN_EXE_ws-handoff-backend");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3<&0"#, program])
        .env("NO_COLOR", "1")
        .stdin(OwnedFd::from(listener));
    let mut program = Program::spawn(shell, directory);
    let mut nginx = Nginx::offering(&path, "/", "");
    assert_eq!(status(&nginx.head()), 101);
    drop(nginx);
    program.signal(Signal::SIGTERM);
    assert!(program.status().success());
    assert!(exists(&path), "not this process's to remove");
}
