//! `keepalive` in an `upstream {}`: the connection to a backend carries one client after the other, if the backend
//! says so. What cannot be used again is not.

use crate::support::frame::{self, Frame};
use crate::support::peer::{Taken, tcp_stream};
use crate::support::{Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, Peer, proc};

#[test]
fn one_connection_hands_over_one_client_after_the_other() {
    let backend = staying(usize::MAX);
    let nginx = site(&backend.address());
    let mut clients = Vec::new();
    for n in 0..50 {
        let mut client = Client::upgraded(nginx.address(), &format!("/ws/{n}"));
        client.echo("hello");
        // The connection is back with nginx once the request is in the access log.
        nginx.logged(&format!("/ws/{n} "));
        clients.push(client);
    }
    for client in &mut clients {
        client.echo("still here");
    }
    assert_eq!(backend.accepted(), 1);
    assert_eq!(backend.descriptors(), 50);
    let targets: Vec<String> =
        backend.heads().iter().map(|head| head.target().to_owned()).collect();
    let expected: Vec<String> = (0..50).map(|n| format!("/ws/{n}")).collect();
    assert_eq!(targets, expected);
}

#[test]
fn backend_that_does_not_stay_gets_a_connection_for_each() {
    let backend = FakeBackend::echo();
    let nginx = site(&backend.address());
    for n in 0..5 {
        Client::upgraded(nginx.address(), "/ws").echo("hello");
        assert_eq!(backend.accepted(), n + 1);
    }
}

#[test]
fn upstream_without_keepalive_closes_after_each() {
    let backend = ManualBackend::unix();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    peer.accept_and_stay();
    let offer = peer.recv_offer();
    assert!(peer.recv_commit().is_empty(), "nginx closes it behind the commit");
    drop(offer);
}

#[test]
fn connection_that_the_backend_closes_meanwhile_costs_no_client() {
    let backend = staying(1);
    let nginx = site(&backend.address());
    for n in 0..20 {
        // Each time the connection that nginx keeps is being closed, seen by nginx already or not.
        Client::upgraded(nginx.address(), &format!("/ws/{n}")).echo("hello");
    }
    assert_eq!(backend.descriptors(), 20);
}

#[test]
fn handover_that_fails_is_not_followed_by_another_on_its_connection() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws/first").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    peer.accept_and_stay();
    let offer = peer.recv_offer();
    // Between the offer and the end of the commit nothing may be said.
    peer.try_write("x");
    drop(offer);
    let mut other = Client::connect(nginx.address());
    other.send(&Handshake::new("/ws/second").bytes());
    let mut second = backend.accept();
    assert_eq!(second.read_head().target(), "/ws/second");
    second.accept();
    drop(second.recv_offer());
}

#[test]
fn refusal_closes_the_connection() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        peer.recv_to_end();
    });
    let nginx = site(&backend.address());
    for n in 0..3 {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        assert_eq!(client.read_head().status(), 403);
        assert_eq!(backend.accepted(), n + 1);
    }
}

#[test]
fn early_data_goes_with_its_own_client() {
    let backend = staying(usize::MAX);
    let nginx = site(&backend.address());
    for n in 0..10 {
        let text = format!("early {n}");
        let mut client = Client::connect(nginx.address());
        let handshake = Handshake::new(&format!("/ws/{n}")).bytes();
        client.send(&[handshake.as_slice(), &Frame::text(&text).masked()].concat());
        assert_eq!(client.read_head().status(), 101);
        client.expect_frame(frame::TEXT, text.as_bytes());
        nginx.logged(&format!("/ws/{n} "));
    }
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn real_backend_takes_thousands_over_few_connections_and_drains() {
    let mut backend = Backend::echo();
    let nginx = site(&backend.address());
    let before = (proc::descriptors(nginx.worker()).len(), proc::descriptors(backend.pid()).len());
    for _ in 0..2000 {
        Client::upgraded(nginx.address(), "/ws").echo("hello");
    }
    backend.wait_active(0);
    // The one connection that both keep.
    backend.wait_descriptors(before.1 + 1);
    assert!(proc::descriptors(nginx.worker()).len() <= before.0 + 1);
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("hello");
    backend.drain();
    let close = client.read_frame();
    assert_eq!((close.opcode, &close.payload[..2]), (frame::CLOSE, &1001u16.to_be_bytes()[..]));
}

/// Hands over to an upstream that keeps connections.
fn site(address: &str) -> Nginx {
    Nginx::builder()
        .http(format!("upstream kept {{ server {address} max_fails=0; keepalive 8; }}"))
        .server("location /ws { ws_handoff kept; }")
        .start()
}

/// A backend that takes up to `most` clients over each connection and echoes their frames.
fn staying(most: usize) -> FakeBackend {
    FakeBackend::unix(move |mut peer: Peer| {
        for _ in 0..most {
            if peer.at_end() {
                return;
            }
            peer.read_head();
            peer.accept_and_stay();
            let stream = tcp_stream(peer.recv_offer());
            let mut taken = Taken { stream, early_data: peer.recv_kept_commit() };
            std::thread::spawn(move || frame::echo(&mut taken.stream, &taken.early_data));
        }
    })
}
