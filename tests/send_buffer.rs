//! The client's send buffer is full when the 101 is due: the worker waits without blocking, the 101 arrives
//! whole, and the socket that the backend receives has no trace of what nginx did with it before.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::support::frame::{self, BINARY, Frame, TEXT};
use crate::support::peer::tcp_stream;
use crate::support::stuck::{Stuck, Trap};
use crate::support::{Client, FakeBackend, Handshake, ManualBackend, Nginx, net};

#[test]
fn full_buffer_delays_the_101_and_nobody_else() {
    let backend = ManualBackend::unix();
    let nginx = trap_site(&backend);
    let mut trap = Trap::new();
    for _ in 0..20 {
        let mut stuck = trap.catch(&nginx, &backend, "/ws", b"");
        // Others are served meanwhile, handed-over ones among them.
        let mut other = Client::connect(nginx.address());
        other.send(&Handshake::new("/ws").bytes());
        let (mut peer, offer) = backend.offered();
        peer.recv_commit();
        other.expect_101();
        drop(offer);
        assert!(!stuck.peer.has_input(), "the commit came before the 101");

        stuck.let_off();
        stuck.read_101();
        assert!(stuck.peer.recv_commit().is_empty());
        let mut stream = tcp_stream(stuck.offer);
        stuck.client.send_frame(&Frame::text("at last"));
        assert_eq!(Frame::read(&mut stream).expect("a frame"), Frame::text("at last"));
    }
    nginx.wait_inactive();
}

#[test]
fn many_stuck_clients_at_once() {
    let backend = ManualBackend::unix();
    let nginx = trap_site(&backend);
    let mut trap = Trap::new();
    let mut all: Vec<_> = (0..50).map(|_| trap.catch(&nginx, &backend, "/ws", b"early")).collect();
    all.iter().for_each(Stuck::let_off);
    for stuck in all.iter_mut().rev() {
        stuck.read_101();
        assert_eq!(stuck.peer.recv_commit(), b"early");
    }
    drop(all);
    nginx.wait_inactive();
}

#[test]
fn wait_for_the_client_is_not_charged_to_the_backend() {
    let backend = ManualBackend::unix();
    let silent = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let nginx = Trap::configure(Nginx::builder())
        .server(format!(
            "location /ws {{ ws_handoff_read_timeout 300ms; ws_handoff_send_timeout 300ms; \
                 ws_handoff {}; }} \
             location /slow {{ ws_handoff_read_timeout 900ms; ws_handoff {}; }}",
            backend.address(),
            silent.address()
        ))
        .start();
    let mut stuck = Trap::new().catch(&nginx, &backend, "/ws", b"");
    // By nginx's own clock: a timeout three times as long has passed after this.
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/slow"));
    assert_eq!(head.status(), 504);
    assert!(!stuck.peer.has_input(), "nginx has given up");
    stuck.let_off();
    stuck.read_101();
    assert!(stuck.peer.recv_commit().is_empty());
}

#[test]
fn frames_sent_while_the_101_waits_arrive_in_order() {
    let backend = ManualBackend::unix();
    let nginx = trap_site(&backend);
    let mut stuck =
        Trap::new().catch(&nginx, &backend, "/ws", &Frame::text("with the head").masked());
    stuck.client.send_frame(&Frame::text("while it waits"));
    stuck.client.send_frame(&Frame::new(BINARY, vec![7; 30_000]));
    stuck.let_off();
    stuck.read_101();
    let early = stuck.peer.recv_commit();
    let mut all = std::io::Read::chain(early.as_slice(), tcp_stream(stuck.offer));
    assert_eq!(Frame::read(&mut all).expect("a frame"), Frame::text("with the head"));
    assert_eq!(Frame::read(&mut all).expect("a frame"), Frame::text("while it waits"));
    assert_eq!(Frame::read(&mut all).expect("a frame"), Frame::new(BINARY, vec![7; 30_000]));
}

#[test]
fn tunnel_never_begins_without_its_101() {
    // nginx's own tunnel does not look whether the head has been written, so that the module must.
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start();
    let mut trap = Trap::new();
    drop(trap.catch(&nginx, &backend, "/ws", b""));
    let mut client = trap.pipeline(&nginx, "/ws", &Frame::text("early").masked());
    let mut peer = backend.accept();
    peer.read_head();
    let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    peer.try_write([head.as_slice(), &Frame::text("hello").unmasked()].concat());
    nginx.serve_others();
    trap.let_off(&mut client);
    // Late or refused, but nothing out of order.
    let head = client.read_head();
    if head.status() == 101 {
        client.expect_frame(TEXT, b"hello");
        assert_eq!(Frame::read(peer.stream()).expect("a frame"), Frame::text("early"));
    } else {
        assert_eq!(head.status(), 500);
        client.read_body(&head);
        assert!(client.expect_end().0.is_empty(), "bytes behind the refusal");
    }
}

#[test]
fn large_101_is_written_in_pieces() {
    // Larger than the send buffer: it cannot go out at once even to a client that reads.
    let cookie = "c".repeat(60_000);
    let answer =
        format!("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\nX-Large: {cookie}\r\n\r\n");
    let backend = FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write(&answer);
        let client = peer.recv_offer();
        let early = peer.recv_commit();
        frame::echo(&mut tcp_stream(client), &early);
    });
    let nginx = Nginx::builder()
        .listen("sndbuf=8k")
        .server(format!(
            "ws_handoff_buffer_size 128k; location /ws {{ ws_handoff {}; }}",
            backend.address()
        ))
        .quiet()
        .start();
    let dial = net::Dial { receive_buffer: Some(4096), ..net::Dial::default() };
    let mut client = Client::dial(nginx.address(), dial);
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    let head = client.expect_101();
    assert_eq!(head.field("X-Large").map(str::len), Some(60_000));
    client.expect_frame(TEXT, b"early");
    client.echo("through");
    assert_eq!(nginx.logged("GET /ws").get("bytes"), head.raw.len().to_string());
}

#[test]
fn limit_rate_does_not_hold_the_101_back() {
    // Longer than postpone_output, so that nginx begins to send it before it knows that it is a 101.
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\nX-Long: {}\r\n\r\n",
        "x".repeat(2000)
    );
    let backend = FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write(&answer);
        let client = peer.recv_offer();
        let early = peer.recv_commit();
        frame::echo(&mut tcp_stream(client), &early);
    });
    for limit in ["limit_rate 1;", "limit_rate 1; limit_rate_after 10;", "set $limit_rate 1;"] {
        let nginx =
            Nginx::start(format!("location /ws {{ {limit} ws_handoff {}; }}", backend.address()));
        // At the limit this would take longer than anybody here waits.
        let mut client = Client::upgraded(nginx.address(), "/ws");
        client.echo("at full speed");
    }
}

#[test]
fn handshake_behind_a_limited_response() {
    let backend = FakeBackend::echo();
    // The response goes out at once, and its last 900 bytes or so are above the limit: nginx would write
    // nothing more to this client for most of a second.
    let nginx = Nginx::builder()
        .file("files/blob", vec![b'b'; 30_000])
        .server(format!(
            "location /blob {{ limit_rate 1000; limit_rate_after 29300; }} \
             location /ws {{ ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let mut client = Client::connect(nginx.address());
    let get = b"GET /blob HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    client.send(&[get, Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    let head = client.read_head();
    assert_eq!(client.read_body(&head).len(), 30_000);
    let started = Instant::now();
    client.expect_101();
    let waited = started.elapsed();
    assert!(waited < Duration::from_millis(600), "the 101 took {waited:?}");
    client.expect_frame(TEXT, b"early");
    client.echo("at full speed");
}

#[test]
fn received_socket_is_as_a_new_one() {
    check_options("", b"");
}

#[test]
fn received_socket_is_uncorked_behind_a_static_file_with_tcp_nopush() {
    let get = b"GET /blob HTTP/1.1\r\nHost: localhost\r\n\r\n";
    check_options("sendfile on; tcp_nopush on;", get);
    check_options("sendfile on; tcp_nopush on; tcp_nodelay off;", get);
    check_options("sendfile on; tcp_nopush on; keepalive_timeout 0;", b"");
}

/// Hands a client over that has pipelined `before`, and looks at the received socket.
fn check_options(directives: &str, before: &[u8]) {
    let backend = ManualBackend::unix();
    let nginx = Nginx::builder()
        .file("files/blob", vec![b'b'; 100_000])
        .server(format!("{directives} location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let mut client = Client::connect(nginx.address());
    client.send(&[before, &Handshake::new("/ws").bytes()].concat());
    if !before.is_empty() {
        let head = client.read_head();
        assert_eq!(client.read_body(&head).len(), 100_000);
    }
    let (mut peer, offer) = backend.offered();
    let started = Instant::now();
    client.expect_101();
    // A corked socket keeps a short 101 back for 200 ms.
    let waited = started.elapsed();
    peer.recv_commit();
    let socket = offer.as_fd();
    assert_eq!(net::tcp_option(&socket, libc::TCP_CORK), 0, "TCP_CORK with {directives:?}");
    assert_ne!(net::tcp_option(&socket, libc::TCP_NODELAY), 0, "TCP_NODELAY with {directives:?}");
    assert!(net::is_nonblocking(&socket), "O_NONBLOCK with {directives:?}");
    assert!(waited < Duration::from_millis(150), "the 101 took {waited:?} with {directives:?}");
}

fn trap_site(backend: &ManualBackend) -> Nginx {
    Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start()
}
