//! Where clients come from: IPv6, a Unix socket, a proxy that speaks the PROXY protocol.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;

use crate::support::fake::without_handoff;
use crate::support::frame::{Frame, TEXT};
use crate::support::{Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, net, proc};

#[test]
fn ipv6() {
    // A machine without ::1 fails here, and says so: nginx cannot listen.
    let (port, echo) = (net::free_port(), Backend::echo());
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .server(format!(
            "listen [::1]:{port}; location /ws {{ ws_handoff {}; }} location /echo {{ ws_handoff {}; }}",
            backend.address(),
            echo.address()
        ))
        .quiet()
        .start();
    let connect =
        || Client::over(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("connect"));
    let mut client = connect();
    client.send(&Handshake::new("/ws").set("Host", "[::1]:8080").bytes());
    client.expect_101();
    client.echo("hello");
    let head = backend.only_head();
    assert_eq!(head.field("X-Real-IP"), Some("::1"));
    assert_eq!(head.field("X-Forwarded-For"), Some("::1"));
    assert_eq!(head.field("Host"), Some("[::1]:8080"));
    assert_eq!(nginx.logged("GET /ws").get("client"), "::1");

    let mut client = connect();
    client.upgrade("/echo");
    client.echo("hello");
    nginx.wait_inactive();
}

#[test]
fn unix_client_is_handed_over() {
    let backend = FakeBackend::echo();
    let (nginx, connect) = unix_site(&backend.address());
    let before = proc::descriptors(nginx.worker()).len();
    let mut clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = connect();
            let early = Frame::text("early").masked();
            client.send(&[Handshake::new("/ws").bytes(), early].concat());
            client.expect_101();
            client.expect_frame(TEXT, b"early");
            client
        })
        .collect();
    nginx.wait_inactive();
    assert_eq!(proc::descriptors(nginx.worker()).len(), before);
    assert_eq!(backend.descriptors(), 20);
    // nginx's own name for a client that has no address.
    for head in backend.heads() {
        assert_eq!(head.field("X-Real-IP"), Some("unix:"));
        assert_eq!(head.field("X-Forwarded-For"), Some("unix:"));
    }
    assert_eq!(nginx.logged("GET /ws").get("client"), "unix:");
    nginx.reload();
    clients.iter_mut().for_each(|client| client.echo("still here"));
}

#[test]
fn unix_client_of_the_real_backend() {
    let backend = Backend::echo();
    let (nginx, connect) = unix_site(&backend.address());
    let mut client = connect();
    client.upgrade("/ws");
    client.echo("hello");
    client.send_frame(&Frame::text(&"x".repeat(100_000)));
    client.expect_frame(TEXT, "x".repeat(100_000).as_bytes());
    backend.wait_active(1);
    nginx.wait_inactive();
    drop(client);
    backend.wait_active(0);
}

#[test]
fn unix_client_hears_when_its_backend_leaves() {
    let backend = ManualBackend::unix();
    let (nginx, connect) = unix_site(&backend.address());
    let mut client = connect();
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\n");
    let offer = peer.recv_offer();
    peer.recv_commit();
    client.expect_101();
    // nginx has let go, so that a close is enough.
    drop(offer);
    client.expect_end();
    nginx.wait_inactive();
}

#[test]
fn unix_client_is_tunnelled_to_a_peer_without_handoff() {
    let backend = FakeBackend::unix(without_handoff);
    let (nginx, connect) = unix_site(&backend.address());
    let mut client = connect();
    client.upgrade("/ws");
    client.echo("hello");
    drop(client);
    nginx.wait_inactive();
}

#[test]
fn proxy_protocol() {
    let port = net::free_port();
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .server(format!(
            "listen 127.0.0.1:{port} proxy_protocol; set_real_ip_from 127.0.0.0/8; \
             real_ip_header proxy_protocol; location /ws {{ ws_handoff {}; }}",
            backend.address()
        ))
        .quiet()
        .start();
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let version_1 = b"PROXY TCP4 198.51.100.7 203.0.113.1 51000 80\r\n".to_vec();
    let version_2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[198, 51, 100, 7, 203, 0, 113, 1, 0xc7, 0x38, 0, 80],
    ]
    .concat();
    let request = Handshake::new("/ws").bytes();
    let frame = Frame::text("early").masked();
    for header in [version_1, version_2] {
        // In one piece, and with a pause behind each.
        let mut client = Client::over(connect());
        client.send(&[header.as_slice(), &request, &frame].concat());
        client.expect_101();
        client.expect_frame(TEXT, b"early");
        client.echo("hello");

        let mut stream = connect();
        for part in [&header, &request, &frame] {
            stream.write_all(part).expect("send");
            nginx.serve_others();
        }
        let mut client = Client::over(stream);
        client.expect_101();
        client.expect_frame(TEXT, b"early");
        client.echo("hello");
    }
    // FakeBackend insists that the head, and each frame, is where it must be.
    for head in backend.heads() {
        assert!(head.line.starts_with("GET /ws "), "{head:?}");
        assert_eq!(head.field("X-Real-IP"), Some("198.51.100.7"));
    }
    assert_eq!(backend.heads().len(), 4);
    assert_eq!(nginx.logged("GET /ws").get("client"), "198.51.100.7");
    nginx.wait_inactive();
}

#[test]
fn frames_behind_a_proxy_protocol_header_are_the_first_that_the_backend_reads() {
    // The socket itself, as the backend gets it: its first unread byte is the frame's.
    let port = net::free_port();
    let backend = ManualBackend::unix();
    let _nginx = Nginx::start(format!(
        "listen 127.0.0.1:{port} proxy_protocol; location /ws {{ ws_handoff {}; }}",
        backend.address()
    ));
    let mut client = Client::over(TcpStream::connect(("127.0.0.1", port)).expect("connect"));
    client.send(b"PROXY TCP4 198.51.100.7 203.0.113.1 51000 80\r\n");
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    client.send_frame(&Frame::text("late"));
    let taken = peer.take_over();
    client.expect_101();
    let mut all = Read::chain(taken.early_data.as_slice(), taken.stream);
    assert_eq!(Frame::read(&mut all).expect("a frame"), Frame::text("late"));
}

/// An nginx that also listens on a Unix socket, and what connects to that.
fn unix_site(address: &str) -> (Nginx, impl Fn() -> Client + use<>) {
    let builder = Nginx::builder();
    let socket = builder.dir().join("listen");
    let nginx = builder
        .server(format!(
            "listen unix:{}; location /ws {{ ws_handoff {address}; }}",
            socket.display()
        ))
        .quiet()
        .start();
    (nginx, move || Client::over(UnixStream::connect(&socket).expect("connect")))
}
