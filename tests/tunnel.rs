//! A peer that cannot be handed over to (it is reached over TCP, or answers without `Handoff`) is tunnelled to,
//! as proxy_pass would, and the client cannot tell.

use std::io::{Read, Write};
use std::thread;

use crate::support::fake::{ABSENT, socket_dir, without_handoff};
use crate::support::frame::{self, BINARY, Frame};
use crate::support::{
    Client, FakeBackend, Handshake, ManualBackend, Nginx, PROMPTLY, net, wait_until,
};

#[test]
fn tcp_peer_is_tunnelled_to() {
    let plain = FakeBackend::tcp(without_handoff);
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", plain.address()));
    talks_through_the_tunnel(&nginx, "/ws");
    // Nothing can be offered there: the kernel would swallow it.
    assert_eq!(plain.only_head().field("Handoff"), None);
}

#[test]
fn unix_peer_without_handoff_is_tunnelled_to() {
    let plain = FakeBackend::unix(without_handoff);
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", plain.address()));
    talks_through_the_tunnel(&nginx, "/ws");
    assert_eq!(plain.only_head().field("Handoff"), Some("fd; v=1"));
    assert_eq!(plain.descriptors(), 0);
}

#[test]
fn backup_tcp_peer_is_tunnelled_to_when_the_unix_one_is_down() {
    let plain = FakeBackend::tcp(without_handoff);
    let dir = socket_dir();
    let nginx = Nginx::builder()
        .http(format!(
            "upstream ws {{ server unix:{}/absent; server {} backup; }}",
            dir.path().display(),
            plain.address()
        ))
        .server("location /ws { ws_handoff ws; }")
        .tolerate(ABSENT)
        .start();
    talks_through_the_tunnel(&nginx, "/ws");
    // Decided per peer, not once for the upstream.
    assert_eq!(plain.only_head().field("Handoff"), None);
    let line = nginx.logged("GET /ws");
    assert_eq!(line.get("upstream_status"), "502, 101");
}

#[test]
fn unix_peer_behind_a_tcp_one_is_handed_over_to() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .http(format!(
            "upstream ws {{ server 127.0.0.1:{}; server {} backup; }}",
            net::free_port(),
            backend.address()
        ))
        .server("location /ws { ws_handoff ws; }")
        .start();
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("handed over");
    assert_eq!(backend.descriptors(), 1);
    assert_eq!(backend.only_head().field("Handoff"), Some("fd; v=1"));
}

#[test]
fn tcp_peer_that_speaks_handoff_gets_no_descriptor() {
    let backend = FakeBackend::tcp(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\n");
        assert!(peer.recv_to_end().is_empty(), "an offer over TCP");
    });
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!(head.status(), 502);
}

#[test]
fn tunnel_forwards_early_data_of_both_sides() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        let hello = Frame::text("hello").unmasked();
        peer.write([b"HTTP/1.1 101 Switching Protocols\r\n\r\n", hello.as_slice()].concat());
        frame::echo(peer.stream(), b"");
    });
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    client.expect_101();
    client.expect_frame(frame::TEXT, b"hello");
    client.expect_frame(frame::TEXT, b"early");
    client.echo("later");
}

#[test]
fn request_is_still_what_it_was_after_early_data_has_gone_through() {
    let backend = ManualBackend::unix();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let mut client = Client::connect(nginx.address());
    let early = Frame::text("with the head").masked();
    client.send(&[Handshake::new("/ws").bytes(), early].concat());
    let mut peer = backend.accept();
    peer.read_head();
    // Of this nginx only knows that it is there: it is read once the first frame has left its buffer.
    client.send(&Frame::text("before the answer").masked());
    peer.write("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    for text in ["with the head", "before the answer"] {
        assert_eq!(Frame::read(peer.stream()).expect("a frame"), Frame::text(text));
    }
    client.expect_101();
    drop(client);
    drop(peer);
    nginx.wait_inactive();
    assert_eq!(nginx.logged("GET /ws").get("request"), "GET /ws HTTP/1.1");
}

#[test]
fn tunnel_behind_a_byte_of_early_data_has_room_for_more() {
    const LEN: usize = 4 << 20;
    let backend = ManualBackend::unix();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let mut client = Client::connect(nginx.address());
    client.send(&[&Handshake::new("/ws").bytes(), &b"x"[..]].concat());
    let mut peer = backend.accept();
    peer.read_head();
    let mut sender = client.stream().try_clone().expect("a descriptor");
    let sending = thread::spawn(move || sender.write_all(&vec![b'x'; LEN]).expect("send"));
    // Some of it is there when the tunnel begins, and then more than it can pass on at once.
    wait_until("the client's data arrives", || net::unacknowledged(client.stream()) > 0);
    peer.write("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    // The kernel counts what it takes to keep a piece, too: of single bytes it would not take a thousand.
    wait_until("much is passed on at once", || peer.queued() > 20_000);
    let mut received = vec![0; LEN + 1];
    peer.stream().read_exact(&mut received).expect("all of it");
    assert!(received.iter().all(|byte| *byte == b'x'));
    sending.join().expect("sent");
}

#[test]
fn tunnel_does_not_end_with_the_timeouts_of_the_handshake() {
    let plain = FakeBackend::unix(without_handoff);
    let silent = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    // The tunnel's handshake must be done within it, however slow nginx is here.
    let timeout = PROMPTLY.as_millis() / 16;
    let nginx = Nginx::start(format!(
        "location /ws {{ ws_handoff_read_timeout {timeout}ms; ws_handoff_send_timeout {timeout}ms; \
             ws_handoff {}; }} \
         location /slow {{ ws_handoff_read_timeout {}ms; ws_handoff {}; }}",
        plain.address(),
        3 * timeout,
        silent.address()
    ));
    let mut client = Client::upgraded(nginx.address(), "/ws");
    // By nginx's own clock: a timeout three times as long has passed after this.
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/slow"));
    assert_eq!(head.status(), 504);
    client.echo("still there");
}

#[test]
fn tunnel_ends_when_either_side_closes() {
    let backend = ManualBackend::unix();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let open = || {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        client.expect_101();
        (client, peer)
    };
    let (client, mut peer) = open();
    drop(client);
    assert!(peer.recv_to_end().is_empty());
    let (mut client, peer) = open();
    drop(peer);
    assert!(client.expect_end().0.is_empty());
    nginx.wait_inactive();
}

fn talks_through_the_tunnel(nginx: &Nginx, target: &str) {
    let mut client = Client::upgraded(nginx.address(), target);
    client.echo("through the tunnel");
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    client.send_frame(&Frame::new(BINARY, large.as_slice()));
    client.expect_frame(BINARY, &large);
    client.echo_in_a_row();
    assert_eq!(nginx.stub_status().active, 2, "the tunnel and the one that asks");
    drop(client);
    nginx.wait_inactive();
}
