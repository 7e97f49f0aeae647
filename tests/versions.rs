//! What newer versions of nginx can be told to do with any request, or do with any upstream.

use crate::support::frame::{self, Frame, TEXT};
use crate::support::nginx::version;
use crate::support::{Client, FakeBackend, Handshake, Nginx};

#[test]
fn body_that_is_read_early() {
    if !since((1, 31, 5), "client_body_early_read") {
        return;
    }
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .http("client_body_early_read 1;")
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start();
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    client.expect_101();
    client.expect_frame(TEXT, b"early");
    client.echo("no body");
    let mut client = Client::connect(nginx.address());
    client
        .send(&[&Handshake::new("/ws").with("Content-Length", "4").bytes(), &b"body"[..]].concat());
    assert_eq!(client.read_head().status(), 400);
    drop(client);
    nginx.wait_inactive();
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn early_hints_are_not_the_clients() {
    if !since((1, 29, 0), "early_hints") {
        return;
    }
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
        let mut taken = peer.take_over();
        frame::echo(&mut taken.stream, &taken.early_data);
    });
    let nginx = Nginx::builder()
        .http("early_hints 1;")
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start();
    // The first that a WebSocket client reads is its 101: RFC 6455 knows of nothing before it.
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("hinted");
    drop(client);
    nginx.wait_inactive();
}

/// Whether the nginx under test has a `feature` that came with `first`; says so if not.
fn since(first: (u32, u32, u32), feature: &str) -> bool {
    let has = version() >= first;
    if !has {
        eprintln!("NOT TESTED: nginx {:?} has no `{feature}`", version());
    }
    has
}
