//! `ws_handoff_protocol bare`: nginx answers the 101 itself, and the backend is sent the socket and nothing else.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::bare::{self, BareBackend, ManualBare};
use crate::support::client::End;
use crate::support::frame::{Frame, TEXT};
use crate::support::nginx::Builder;
use crate::support::process::Process;
use crate::support::stuck::Trap;
use crate::support::{
    Client, FakeBackend, Handshake, ManualBackend, Nginx, fake, proc, wait_until,
};

#[test]
fn frames_flow_and_nginx_forgets() {
    let backend = BareBackend::echo();
    let nginx = site(&backend.address(), "").quiet().start();
    let held = proc::descriptors(nginx.worker()).len();
    let mut clients: Vec<Client> =
        (0..20).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    nginx.wait_inactive();
    for client in &mut clients {
        client.echo("to the backend itself");
    }
    wait_until("nginx holds no descriptor", || proc::descriptors(nginx.worker()).len() == held);
    let line = nginx.logged("GET /ws");
    assert_eq!((line.get("status"), line.get("upstream_status")), ("101", "101"));
    assert_eq!(line.get("upstream"), backend.address());
    assert_eq!(backend.accepted(), 20);
}

#[test]
fn one_byte_and_one_descriptor_and_nothing_else() {
    let backend = ManualBare::new();
    let nginx = site(&backend.address(), "ws_handoff_set_header X-A b;").quiet().start();
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").with("Sec-WebSocket-Protocol", "chat").bytes());
    // The answer does not wait for anything that the backend does.
    let head = client.expect_101();
    assert_eq!(head.fields.len(), 5, "{head:?}");
    let (byte, mut stream) = bare::receive_all(backend.accept());
    assert_eq!(byte, b'F');
    client.send_frame(&Frame::text("hello"));
    assert_eq!(Frame::read(&mut stream).expect("a frame"), Frame::text("hello"));
    drop(stream);
    client.expect_end();
}

#[test]
fn fields_of_the_101_are_the_configurations() {
    let backend = BareBackend::echo();
    let directives = "add_header Sec-WebSocket-Protocol chat always;";
    let nginx = site(&backend.address(), directives).start();
    let head = Client::connect(nginx.address()).upgrade("/ws");
    assert_eq!(head.field("Sec-WebSocket-Protocol"), Some("chat"));
}

#[test]
fn backend_that_cannot_be_connected_to_costs_nothing_but_a_try() {
    let backend = BareBackend::echo();
    let nginx = site("both", "")
        .http(format!(
            "upstream both {{ server unix:/nonexistent; server {}; }}",
            backend.address()
        ))
        .server("location /alone { ws_handoff unix:/nonexistent; ws_handoff_protocol bare; }")
        .tolerate(fake::ABSENT)
        .start();
    for _ in 0..3 {
        let mut client = Client::connect(nginx.address());
        client.upgrade("/ws");
        client.echo("the second");
    }
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/alone")).status(), 502);
    let log = nginx.access_log();
    assert!(log.iter().any(|line| line.get("upstream_status") == "502, 101"), "{log:?}");
    assert_eq!(nginx.logged("GET /alone").get("upstream_status"), "502");
}

#[test]
fn peer_that_is_no_unix_socket_is_a_failed_one() {
    let (tcp, bare) = (FakeBackend::tcp(|mut peer| drop(peer.recv_to_end())), BareBackend::echo());
    let nginx = site("both", "")
        .http(format!(
            "upstream both {{ server {}; server {} backup; }}",
            tcp.address(),
            bare.address()
        ))
        .server(format!(
            "location /alone {{ ws_handoff {}; ws_handoff_protocol bare; }}",
            tcp.address()
        ))
        .start();
    let mut client = Client::connect(nginx.address());
    client.upgrade("/ws");
    client.echo("the other");
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/alone")).status(), 502);
    assert!(
        nginx.error_log().contains(
            "\"ws_handoff_protocol bare\" needs a Unix socket, which upstream is not while"
        )
    );
}

#[test]
fn client_that_does_not_wait_for_its_answer_is_closed() {
    let backend = BareBackend::echo();
    let nginx = site(&backend.address(), "").start();
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    let (bytes, end) = client.expect_end();
    assert_eq!((bytes.as_slice(), end), (&b""[..], End::Eof));
    let len = Frame::text("early").masked().len();
    assert!(nginx.error_log().contains(&format!("[error] {0}#{0}: *", nginx.worker())));
    assert!(nginx.error_log().contains(&format!(
        "client sent {len} bytes before it had an answer, which \"ws_handoff_protocol bare\" cannot pass on"
    )));
    assert_eq!(nginx.logged("GET /ws").get("status"), "444");
    assert_eq!(backend.accepted(), 0);
    nginx.wait_inactive();
}

#[test]
fn failed_sendmsg_behind_the_101_ends_the_client() {
    for (errno, complaint) in [
        ("EPIPE", "failed (32: Broken pipe)"),
        ("ETOOMANYREFS", "failed, raise worker_rlimit_nofile (109: Too many references"),
    ] {
        let backend = ManualBare::new();
        let nginx = site(&backend.address(), "").start();
        let before = proc::registrations(nginx.worker());
        let held = proc::descriptors(nginx.worker()).len();
        let tracer = Tracer::inject(&nginx, errno);
        let mut client = Client::connect(nginx.address());
        client.upgrade("/ws");
        let (bytes, _) = client.expect_end();
        assert_eq!(bytes, b"", "{errno}");
        drop(tracer);
        let log = nginx.error_log();
        assert!(log.contains("sendmsg() of the client's socket to the upstream "), "{log}");
        assert!(log.contains(complaint), "{complaint}\n{log}");
        assert_eq!(nginx.logged("GET /ws").get("upstream_status"), "502");
        nginx.wait_inactive();
        assert_eq!(proc::registrations(nginx.worker()), before);
        assert_eq!(proc::descriptors(nginx.worker()).len(), held);
    }
}

#[test]
fn client_without_room_for_its_101_is_waited_for_before_a_backend_is_asked() {
    let (probe, backend) = (ManualBackend::unix(), BareBackend::echo());
    let nginx = Trap::configure(Nginx::builder())
        .server(format!(
            "location /probe {{ ws_handoff {}; }} \
             location /ws {{ ws_handoff {}; ws_handoff_protocol bare; }}",
            probe.address(),
            backend.address()
        ))
        .start();
    let mut trap = Trap::new();
    drop(trap.catch(&nginx, &probe, "/probe", b""));
    for _ in 0..5 {
        let mut client = trap.pipeline(&nginx, "/ws", b"");
        let before = backend.accepted();
        // The backend, which serves one connection at a time, is not held up.
        Client::upgraded(nginx.address(), "/ws").echo("another");
        trap.let_off(&mut client);
        client.expect_101();
        client.echo("at last");
        assert!(backend.accepted() > before);
        nginx.wait_inactive();
    }
}

#[test]
fn client_that_resets_is_no_ones_fault() {
    let backend = BareBackend::echo();
    let nginx = site(&backend.address(), "").start();
    for _ in 0..50 {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        client.reset();
    }
    nginx.wait_inactive();
    let mut client = Client::connect(nginx.address());
    client.upgrade("/ws");
    client.send_frame(&Frame::text("fine"));
    client.expect_frame(TEXT, b"fine");
}

#[test]
fn two_thousand_leave_nothing_behind() {
    let backend = BareBackend::echo();
    let nginx = site(&backend.address(), "access_log off;").quiet().start();
    Client::upgraded(nginx.address(), "/ws").echo("warm");
    nginx.wait_inactive();
    let held = proc::descriptors(nginx.worker());
    let registered = proc::registrations(nginx.worker());
    for round in 0..2_000 {
        let mut client = Client::upgraded(nginx.address(), "/ws");
        if round % 2 == 0 {
            client.echo("once");
        }
    }
    nginx.wait_inactive();
    assert_eq!(proc::descriptors(nginx.worker()).len(), held.len());
    assert_eq!(proc::registrations(nginx.worker()), registered);
}

fn site(address: &str, directives: &str) -> Builder {
    Nginx::builder().server(format!(
        "location /ws {{ ws_handoff {address}; ws_handoff_protocol bare; {directives} }}"
    ))
}

/// Makes the worker's sendmsg(2) fail, of which it has no other than the one of a descriptor.
struct Tracer(Process);

impl Tracer {
    fn inject(nginx: &Nginx, errno: &str) -> Tracer {
        let messages = nginx.dir().join("strace");
        let file = fs::File::create(&messages).expect("create a file");
        let mut command = Command::new("strace");
        command.args(["-p", &nginx.worker().to_string(), "-o", "/dev/null"]);
        command.args(["-e", "trace=sendmsg", "-e", &format!("inject=sendmsg:error={errno}")]);
        command.stdin(Stdio::null()).stderr(file);
        let process = Process::spawn("strace", &mut command, Signal::SIGINT);
        wait_until("strace has attached", || {
            fs::read_to_string(&messages).is_ok_and(|text| text.contains("attached"))
        });
        Tracer(process)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        assert!(self.0.stop(Signal::SIGINT, *crate::support::PATIENCE), "strace does not detach");
    }
}
