//! Before the offer nothing has been promised: whatever is wrong with a backend, the client gets the next
//! peer, else 502 or 504.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use crate::support::fake::{ABSENT, FullBacklog, socket_dir, without_handoff};
use crate::support::frame::{self, Frame};
use crate::support::nginx::signal_worker;
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, Peer, net, process, wait_until,
};

#[test]
fn backend_down() {
    let dir = socket_dir();
    let absent = format!("unix:{}/absent", dir.path().display());
    goes_to_the_next(&absent, 502);
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).expect("bind"));
    goes_to_the_next(&format!("unix:{}", dead.display()), 502);
}

#[test]
fn tcp_backend_down() {
    goes_to_the_next(&format!("127.0.0.1:{}", net::free_port()), 502);
}

#[test]
fn backlog_full() {
    let full = FullBacklog::new();
    goes_to_the_next(&format!("unix:{}", full.path().display()), 502);
}

#[test]
fn backend_closes_at_once() {
    scripted_goes_to_the_next(drop, 502);
}

#[test]
fn backend_closes_after_the_head() {
    scripted_goes_to_the_next(
        |mut peer| {
            peer.read_head();
        },
        502,
    );
}

#[test]
fn backend_closes_inside_its_answer() {
    answer_goes_to_the_next("HTTP/1.1 101 Switching Protocols\r\nHando", 502);
}

#[test]
fn backend_answers_garbage() {
    for garbage in ["\0\0\0\0\0\0\0\0", "SSH-2.0-OpenSSH_9.2\r\n", "F", "HTTP/1.1 two\r\n\r\n"] {
        answer_goes_to_the_next(garbage, 502);
    }
}

#[test]
fn backend_answers_more_than_the_buffer_holds() {
    let fields = format!("X-Long: {}\r\n", "a".repeat(200)).repeat(50);
    answer_goes_to_the_next(&format!("HTTP/1.1 403 No\r\n{fields}\r\n"), 502);
}

#[test]
fn bytes_behind_an_acceptance_are_a_protocol_error() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\nx");
        peer.recv_to_end();
    });
    goes_to_the_next(&backend.address(), 502);
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn acceptance_with_an_unknown_handoff_is_a_protocol_error() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: carrier-pigeon\r\n\r\n");
        peer.recv_to_end();
    });
    goes_to_the_next(&backend.address(), 502);
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn backend_accepts_and_closes_before_the_offer() {
    let backend = ManualBackend::unix();
    let (next, nginx) = pair(&backend.address(), "");
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    // Stopped, so that nginx finds the answer and the end of file at once.
    signal_worker(nginx.worker(), Signal::SIGSTOP);
    peer.accept();
    process::close(peer);
    signal_worker(nginx.worker(), Signal::SIGCONT);
    client.expect_101();
    client.echo("from the next");
    assert_eq!(next.descriptors(), 1);
}

#[test]
fn backend_shuts_down_its_side_instead_of_answering() {
    scripted_goes_to_the_next(
        |mut peer| {
            peer.read_head();
            peer.stream().finish_sending();
            peer.recv_to_end();
        },
        502,
    );
}

#[test]
fn backend_never_answers() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let (next, nginx) = pair(&backend.address(), "ws_handoff_read_timeout 200ms;");
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("from the next");
    assert_eq!(next.descriptors(), 1);
    let line = nginx.logged("GET /ws");
    assert_eq!(line.get("upstream_status"), "504, 101");
    drop(client);

    let head = Client::connect(nginx.address()).ask(&Handshake::new("/alone"));
    assert_eq!(head.status(), 504);
}

#[test]
fn draining_backend_sends_to_the_next() {
    let draining = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\ndraining";
    let backend = answering(draining);
    let (next, nginx) = pair(&backend.address(), "");
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("from the next");
    assert_eq!(next.descriptors(), 1);
    assert_eq!(nginx.logged("GET /ws").get("upstream_status"), "503, 101");

    // Without a next one the client sees the backend's own words.
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/alone"));
    assert_eq!((head.status(), client.read_body(&head)), (503, b"draining".to_vec()));
}

#[test]
fn real_backend_that_drains_sends_to_the_next_and_closes_with_1001() {
    let mut first = Backend::start(&["--app", "echo", "--drain-timeout", "2"]);
    let (next, nginx) = pair(&first.address(), "");
    let mut served = Client::upgraded(nginx.address(), "/ws");
    served.echo("before");
    first.drain();
    wait_until("the backend drains", || {
        let mut client = Client::upgraded(nginx.address(), "/ws");
        client.echo("from one of them");
        next.descriptors() > 0
    });
    let farewell = served.read_frame();
    assert_eq!((farewell.opcode, &farewell.payload[..2]), (frame::CLOSE, [0x03, 0xE9].as_slice()));
}

#[test]
fn refusal_does_not_go_to_the_next() {
    let backend = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let (next, nginx) = pair(&backend.address(), "");
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), next.accepted()), (403, 0));
}

#[test]
fn next_upstream_off_keeps_to_the_first() {
    let backend = FakeBackend::unix(drop);
    let (next, nginx) = pair(&backend.address(), "ws_handoff_next_upstream off;");
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), next.accepted()), (502, 0));
}

#[test]
fn early_data_survives_the_way_to_the_next() {
    let backend = FakeBackend::unix(drop);
    let (_next, nginx) = pair(&backend.address(), "");
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    client.expect_101();
    client.expect_frame(frame::TEXT, b"early");
}

#[test]
fn requests_are_balanced_over_backends() {
    let backends: Vec<FakeBackend> = (0..3).map(|_| FakeBackend::echo()).collect();
    let servers: String =
        backends.iter().map(|backend| format!("server {};", backend.address())).collect();
    let nginx = Nginx::builder()
        .http(format!("upstream ws {{ {servers} }}"))
        .server("location /ws { ws_handoff ws; }")
        .quiet()
        .start();
    let mut clients: Vec<Client> =
        (0..9).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    clients.iter_mut().for_each(|client| client.echo("hello"));
    assert!(backends.iter().all(|backend| backend.descriptors() == 3));
}

#[test]
fn error_page_falls_back() {
    let dir = socket_dir();
    let server = format!(
        "location /ws {{ error_page 502 503 = @fallback; ws_handoff unix:{}/absent; }} \
         location @fallback {{ return 200 fallback; }}",
        dir.path().display()
    );
    let nginx = Nginx::builder().server(server).tolerate(ABSENT).start();
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), client.read_body(&head)), (200, b"fallback".to_vec()));
}

#[test]
fn error_page_falls_back_to_proxy_pass() {
    let plain = FakeBackend::tcp(without_handoff);
    let dir = socket_dir();
    let server = format!(
        "location /ws {{ error_page 502 503 504 = @proxy; ws_handoff unix:{}/absent; }} \
         location @proxy {{ proxy_pass http://{}; proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
        dir.path().display(),
        plain.address()
    );
    let nginx = Nginx::builder().server(server).tolerate(ABSENT).start();
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("through proxy_pass");
}

#[test]
fn fallback_off_takes_a_peer_without_handoff_for_a_failed_one() {
    for plain in [FakeBackend::tcp(without_handoff), FakeBackend::unix(without_handoff)] {
        let (next, nginx) = pair(&plain.address(), "ws_handoff_fallback off;");
        let mut client = Client::upgraded(nginx.address(), "/ws");
        client.echo("from the next");
        assert_eq!(next.descriptors(), 1);
        let head = Client::connect(nginx.address()).ask(&Handshake::new("/alone"));
        assert_eq!(head.status(), 502);
    }
}

/// With a good backend behind `address`, /ws is served by that; /alone, with `address` only, is answered
/// with `status`.
fn goes_to_the_next(address: &str, status: u16) {
    let (next, nginx) = pair(address, "");
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("from the next");
    assert_eq!(next.descriptors(), 1);
    let line = nginx.logged("GET /ws");
    assert_eq!(line.get("status"), "101");
    assert_eq!(line.get("upstream"), format!("{address}, {}", next.address()));
    assert_eq!(line.get("upstream_status"), format!("{status}, 101"));
    drop(client);

    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/alone"));
    assert_eq!(head.status(), status);
    client.read_body(&head);
    drop(client);
    nginx.wait_inactive();
}

fn scripted_goes_to_the_next(script: impl Fn(Peer) + Send + Sync + 'static, status: u16) {
    let backend = FakeBackend::unix(script);
    goes_to_the_next(&backend.address(), status);
    assert_eq!((backend.accepted(), backend.descriptors()), (2, 0));
}

fn answer_goes_to_the_next(answer: &str, status: u16) {
    let backend = answering(answer);
    goes_to_the_next(&backend.address(), status);
    assert_eq!((backend.accepted(), backend.descriptors()), (2, 0), "for {answer:?}");
}

/// A backend that answers with these bytes and closes.
fn answering(answer: &str) -> FakeBackend {
    let answer = answer.to_owned();
    FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.try_write(&answer);
    })
}

/// nginx where /ws goes to `first` and then to an echoing backend, and /alone to `first` only.
fn pair(first: &str, directives: &str) -> (FakeBackend, Nginx) {
    let next = FakeBackend::echo();
    let nginx = Nginx::builder()
        .http(format!(
            "upstream both {{ server {first} max_fails=0; server {} backup; }} \
             upstream alone {{ server {first} max_fails=0; }}",
            next.address()
        ))
        .server(format!(
            "{directives} location /ws {{ ws_handoff both; }} \
             location /alone {{ ws_handoff alone; }}"
        ))
        .tolerate(ABSENT)
        .start();
    (next, nginx)
}
