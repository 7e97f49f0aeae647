//! The backends of `examples/` in other languages do what docs/protocol.md says: behind nginx, and byte by byte.

use std::fs;
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tempfile::TempDir;

use crate::support::fake::socket_dir;
use crate::support::frame::{CLOSE, Frame, PING, PONG, TEXT};
use crate::support::process::Process;
use crate::support::{
    Client, Handshake, Nginx, PATIENCE, PROMPTLY, paths, proc, python, wait_until,
};

/// Each function as a test for each of the languages.
macro_rules! tests {
    ($($name:ident)*) => {
        mod in_python {
            $(#[test] fn $name() { super::$name(&super::Program::python()) })*
        }
        mod in_go {
            $(#[test] #[ignore = "needs Go: make test-docs"] fn $name() { super::$name(&super::Program::go()) })*
        }
    };
}

tests! {
    websocket_client_is_handed_over_and_exchanges_up_to_1_mib
    what_was_sent_early_comes_first
    refusal_reaches_the_client
    leaves_no_descriptor_behind
    head_and_commit_arrive_byte_by_byte
    no_socket_without_an_offer_of_version_1
    head_that_is_too_large_is_answered
    end_of_file_instead_of_a_commit_closes_without_a_shutdown
    malformed_commit_hangs_up
    offer_of_two_descriptors_is_closed
}

fn websocket_client_is_handed_over_and_exchanges_up_to_1_mib(program: &Program) {
    let nginx = program.nginx();
    python::run("echo.py", &[&format!("ws://{}/ws/echo", nginx.address())]);
    assert_eq!(nginx.logged("GET /ws/echo").get("result"), "fd");
}

fn what_was_sent_early_comes_first(program: &Program) {
    let nginx = program.nginx();
    let mut client = Client::connect(nginx.address());
    let frames = [Frame::text("early").masked(), Frame::text("too").masked()].concat();
    let (whole, cut) = frames.split_at(frames.len() - 2);
    client.send(&[&Handshake::new("/ws/echo").bytes(), whole].concat());
    client.expect_101();
    client.expect_frame(TEXT, b"early");
    client.send(cut);
    client.expect_frame(TEXT, b"too");
    client.send_frame(&Frame::new(PING, "alive?"));
    client.expect_frame(PONG, b"alive?");
    client.send_frame(&Frame::new(CLOSE, [3, 232]));
    client.expect_frame(CLOSE, &[3, 232]);
    assert_eq!(client.expect_end().0, b"");
}

fn refusal_reaches_the_client(program: &Program) {
    let nginx = program.nginx();
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws/other"));
    assert_eq!(head.status(), 404);
    assert_eq!(client.read_body(&head), b"no echo\n");
    assert_eq!(nginx.logged("GET /ws/other").get("result"), "refused");
}

fn leaves_no_descriptor_behind(program: &Program) {
    let nginx = program.nginx();
    // What a runtime keeps for itself (an epoll, say) is there after the first client.
    Client::upgraded(nginx.address(), "/ws/echo").echo("first");
    let idle = || proc::descriptors(program.process.pid()).len();
    wait_until("the first client is forgotten", || idle() <= program.idle);
    for n in 0..50 {
        let mut client = Client::upgraded(nginx.address(), "/ws/echo");
        client.echo("one of many");
        if n % 2 == 0 { client.reset() } else { drop(client) }
    }
    wait_until("all clients are forgotten", || idle() <= program.idle);
}

fn head_and_commit_arrive_byte_by_byte(program: &Program) {
    let mut nginx = program.play_nginx("fd; v=1");
    let (mut client, passed) = UnixStream::pair().expect("a socket pair");
    nginx.offer(&[&passed]);
    drop(passed);
    let frame = Frame::text("Hello").masked();
    let (first, second) = frame.split_at(4);
    // Early data in two sections, around one of a type that version 1 does not know.
    let commit = [
        b"C".to_vec(),
        section(1, first),
        section(0x7f, b"??"),
        section(1, second),
        section(0, b""),
    ]
    .concat();
    for byte in &commit {
        nginx.stream.write_all(&[*byte]).expect("write");
    }
    client.set_read_timeout(Some(*PATIENCE)).expect("a deadline");
    assert_eq!(Frame::read(&mut client).expect("a frame"), Frame::text("Hello"));
}

fn no_socket_without_an_offer_of_version_1(program: &Program) {
    for (handoff, takes) in [
        (None, false),
        (Some("fd; v=2"), false),
        (Some("tls"), false),
        (Some("fd"), true),
        (Some("tls, FD;V=1;x=y"), true),
        (Some("fd; v=2, fd; v=1"), true),
    ] {
        let mut nginx = program.connect();
        nginx.ask("/ws/echo", handoff);
        let answer = nginx.answer().to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{handoff:?}: {answer}");
        assert_eq!(answer.contains("\r\nhandoff: fd\r\n"), takes, "{handoff:?}: {answer}");
        if !takes {
            nginx.stream.write_all(&Frame::text("tunnelled").masked()).expect("write");
            assert_eq!(Frame::read(&mut nginx.stream).expect("a frame"), Frame::text("tunnelled"));
        }
    }
}

fn head_that_is_too_large_is_answered(program: &Program) {
    let mut nginx = program.connect();
    let head = Handshake::new("/ws/echo").with("Cookie", &"c".repeat(70_000)).bytes();
    // It may answer, and close, before it has read all.
    let _ = nginx.stream.write_all(&head);
    assert!(nginx.answer().starts_with("HTTP/1.1 431 "));
}

fn end_of_file_instead_of_a_commit_closes_without_a_shutdown(program: &Program) {
    for begun in [&b""[..], b"C", b"C\x01\0\0", b"C\x01\0\0\0\x05He"] {
        let mut nginx = program.play_nginx("fd; v=1");
        let (mut client, passed) = UnixStream::pair().expect("a socket pair");
        nginx.offer(&[&passed]);
        nginx.stream.write_all(begun).expect("write");
        drop(nginx);
        wait_until("it forgets the client", || {
            proc::descriptors(program.process.pid()).len() <= program.idle
        });
        // Nobody has hung up: what is written here arrives at the description that is held here as well.
        (&passed).write_all(b"still open").expect("write");
        let mut bytes = [0; 10];
        client.read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"still open", "after {begun:?}");
    }
}

fn malformed_commit_hangs_up(program: &Program) {
    let too_much = [b"C", &section(1, &vec![b'x'; 65_537])[..]].concat();
    for commit in [&b"X"[..], b"C\0\0\0\0\x01?", &too_much] {
        let mut nginx = program.play_nginx("fd; v=1");
        let (mut client, passed) = UnixStream::pair().expect("a socket pair");
        nginx.offer(&[&passed]);
        // It may close before it has read all.
        let _ = nginx.stream.write_all(commit);
        client.set_read_timeout(Some(*PROMPTLY)).expect("a deadline");
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("an end, though the socket is open here");
        assert_eq!(bytes, b"", "of the client that it must not serve");
    }
}

fn offer_of_two_descriptors_is_closed(program: &Program) {
    let mut nginx = program.play_nginx("fd; v=1");
    let (_client, passed) = UnixStream::pair().expect("a socket pair");
    nginx.offer(&[&passed, &passed]);
    let mut bytes = Vec::new();
    nginx.stream.read_to_end(&mut bytes).expect("the connection's end");
    wait_until("both are closed", || {
        proc::descriptors(program.process.pid()).len() <= program.idle
    });
}

/// A section of a commit.
fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).expect("a length that fits");
    [&[kind], &len.to_be_bytes()[..], content].concat()
}

/// An example that runs.
struct Program {
    process: Process,
    dir: TempDir,
    /// Descriptors that it has when it serves nobody.
    idle: usize,
}

impl Program {
    fn python() -> Program {
        let mut command = Command::new(paths::python());
        // Without site-packages: the standard library alone.
        command.args(["-B", "-S"]).arg(paths::example_file("python/backend.py"));
        Program::start("python", command)
    }

    fn go() -> Program {
        Program::start("the Go backend", Command::new(paths::go_backend()))
    }

    fn start(name: &'static str, mut command: Command) -> Program {
        let dir = socket_dir();
        let path = dir.path().join("ws");
        let log = fs::File::create(dir.path().join("log")).expect("create a log");
        command.arg(&path).stdin(Stdio::null()).stderr(log);
        let mut process = Process::spawn(name, &mut command, Signal::SIGKILL);
        wait_until("the example listens", || {
            assert_eq!(process.exited(), None, "{name} ended");
            UnixStream::connect(&path).is_ok()
        });
        let mut program = Program { process, dir, idle: usize::MAX };
        // Go opens its epoll with the first connection. With one that is served to its end nothing else is open.
        let mut nginx = program.connect();
        nginx.ask("/ws/other", Some("fd; v=1"));
        assert!(nginx.answer().starts_with("HTTP/1.1 404 "), "the refusal");
        drop(nginx);
        let descriptors = || proc::descriptors(program.process.pid());
        wait_until("it serves nobody", || {
            descriptors().iter().filter(|(_, target)| target.starts_with("socket:")).count() == 1
        });
        program.idle = descriptors().len();
        program
    }

    /// nginx with `/ws` handed over to it.
    fn nginx(&self) -> Nginx {
        Nginx::start(format!("location /ws {{ ws_handoff unix:{}; }}", self.path().display()))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ws")
    }

    fn connect(&self) -> PlayedNginx {
        let stream = UnixStream::connect(self.path()).expect("connect");
        stream.set_read_timeout(Some(*PATIENCE)).expect("a deadline");
        PlayedNginx { stream }
    }

    /// Up to the answer that takes the socket.
    fn play_nginx(&self, handoff: &str) -> PlayedNginx {
        let mut nginx = self.connect();
        nginx.ask("/ws/echo", Some(handoff));
        let answer = nginx.answer();
        assert!(answer.contains("\r\nHandoff: fd\r\n"), "{answer}");
        nginx
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("the example said:\n{log}");
        }
    }
}

/// The test in nginx's place.
struct PlayedNginx {
    stream: UnixStream,
}

impl PlayedNginx {
    /// The request head, a byte at a time.
    fn ask(&mut self, target: &str, handoff: Option<&str>) {
        let mut head = Handshake::new(target);
        if let Some(value) = handoff {
            head = head.with("Handoff", value);
        }
        for byte in head.bytes() {
            self.stream.write_all(&[byte]).expect("write");
        }
    }

    /// The head of the answer.
    fn answer(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        String::from_utf8(head).expect("ASCII")
    }

    fn offer(&mut self, sockets: &[&UnixStream]) {
        let numbers: Vec<i32> = sockets.iter().map(|socket| socket.as_fd().as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let sent = sendmsg::<()>(
            self.stream.as_raw_fd(),
            &[IoSlice::new(b"F")],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        assert_eq!(sent, Ok(1), "the offer");
    }
}

impl Drop for PlayedNginx {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
