//! Clients that send a byte now and then, backends that answer so, or that never come to an end: each is ended by the
//! timeout or the buffer that is meant for it, and costs little memory until then.

use std::io::Write;
use std::time::Duration;

use crate::support::proc::Weight;
use crate::support::{
    Backend, Client, FakeBackend, Handshake, Nginx, PATIENCE, Peer, net, proc, wait_until,
};

/// How much a worker may grow by a few clients that are held up in it, or by what passes through it.
const GROWTH: u64 = 2 << 20;

#[test]
fn client_that_sends_its_handshake_byte_by_byte_is_served() {
    let backend = Backend::echo();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let mut client = Client::connect(nginx.address());
    for byte in Handshake::new("/ws").bytes() {
        client.send(&[byte]);
        nginx.wait_read(&client);
    }
    client.expect_101();
    client.echo("hello");
}

#[test]
fn clients_that_stop_in_mid_head_are_closed_after_client_header_timeout() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::start(format!(
        "client_header_timeout 1s; location /ws {{ ws_handoff {}; }}",
        backend.address()
    ));
    let worker = nginx.worker();
    let (before, weight) = (proc::descriptors(worker).len(), Weight::of(worker));
    let handshake = Handshake::new("/ws").bytes();
    let mut clients: Vec<Client> = (1..handshake.len())
        .cycle()
        .take(500)
        .enumerate()
        .map(|(n, len)| {
            let mut client = Client::connect_from(net::source(n), nginx.address());
            client.send(&handshake[..len]);
            client
        })
        .collect();
    nginx.serve_others();
    weight.has_grown_by_less_than(8 << 20, "500 heads");
    Client::upgraded(nginx.address(), "/ws").echo("in the meantime");
    for client in &mut clients {
        let (bytes, _) = client.expect_end();
        assert!(bytes.is_empty(), "{:?}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(backend.accepted(), 1);
    wait_until("the worker holds as many descriptors as before", || {
        proc::descriptors(worker).len() == before
    });
}

#[test]
fn client_that_goes_on_sending_its_head_is_closed_after_client_header_timeout() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::start(format!(
        "client_header_timeout 1s; location /ws {{ ws_handoff {}; }}",
        backend.address()
    ));
    let client = Client::connect(nginx.address());
    let mut stream = client.stream();
    stream.write_all(b"GET /ws HTTP/1.1\r\nX-Slow: ").expect("the head's begin");
    drip(|byte| stream.write_all(byte).is_ok());
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn backend_that_answers_byte_by_byte_gets_the_client() {
    let backend = FakeBackend::unix(|mut peer: Peer| {
        peer.read_head();
        for byte in b"HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\n" {
            peer.write([*byte]);
            // So that nginx reads it before the next one comes.
            std::thread::sleep(Duration::from_millis(1));
        }
        drop((peer.recv_offer(), peer.recv_commit()));
    });
    let nginx = site(&backend, "ws_handoff_read_timeout 10s;");
    Client::upgraded(nginx.address(), "/ws").expect_end();
}

#[test]
fn answers_that_drip_meet_the_read_timeout() {
    ends_with(504, |peer| drip(|byte| peer.stream().write_all(byte).is_ok()));
}

#[test]
fn answers_without_an_end_meet_the_buffer_size() {
    for line in ["X-Long: and\r\n", "andon"] {
        ends_with(502, move |peer| pour(peer, line));
    }
}

#[test]
fn interim_answers_without_an_end_meet_the_buffer_size() {
    ends_with(502, |peer| pour(peer, "Via: x\r\n\r\nHTTP/1.1 100 Continue\r\n"));
}

#[test]
fn refusal_without_an_end_is_streamed_to_a_client_that_reads() {
    const READ: usize = 64 << 20;
    for (field, piece) in [
        ("Connection: close", "x".repeat(4096)),
        ("Transfer-Encoding: chunked", format!("1000\r\n{}\r\n", "x".repeat(4096))),
        ("Content-Length: 1000000000000", "x".repeat(4096)),
    ] {
        let backend = refusing(field, move |peer| pour(peer, &piece));
        let nginx = site(&backend, "");
        let weight = Weight::of(nginx.worker());
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        assert_eq!(client.read_head().status(), 403);
        for _ in 0..READ / (1 << 20) {
            client.read_bytes(1 << 20);
        }
        weight.has_grown_by_less_than(GROWTH, field);
        // That it has left ends it for the backend, too.
        client.reset();
        backend.wait_idle();
    }
}

#[test]
fn refusal_without_an_end_waits_for_a_client_that_does_not_read() {
    let backend = refusing("Connection: close", |peer| pour(peer, &"x".repeat(4096)));
    let nginx = site(&backend, "send_timeout 500ms;");
    let weight = Weight::of(nginx.worker());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    wait_until("the backend is asked", || backend.accepted() == 1);
    // nginx has given up; what is left is what the kernel's buffers hold.
    backend.wait_idle();
    weight.has_grown_by_less_than(GROWTH, "a body that waits");
    assert_eq!(client.read_head().status(), 403);
    client.expect_end();
}

#[test]
fn refusal_that_falls_silent_meets_the_read_timeout() {
    let backend = refusing("Content-Length: 10", |peer| {
        peer.write("12345");
        peer.recv_to_end();
    });
    let nginx = site(&backend, "ws_handoff_read_timeout 500ms;");
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    assert_eq!(client.read_head().status(), 403);
    assert_eq!(client.expect_end().0, b"12345");
}

#[test]
fn chunks_that_say_nothing_without_an_end_are_an_error() {
    for (begin, more) in [("1;", "extension="), ("0\r\n", "Trailer: x\r\n"), ("", "0")] {
        let backend = refusing("Transfer-Encoding: chunked", move |peer| {
            peer.try_write(begin);
            pour(peer, more);
        });
        let nginx = site(&backend, "");
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        let (bytes, _) = client.expect_end();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 403 ") && text.ends_with("\r\n\r\n"), "{text:?}");
        backend.wait_idle();
    }
}

/// Fifty clients at a time of a backend that answers with `answer` behind the status line of an interim answer: each gets `status`, soon.
fn ends_with(status: u16, answer: impl Fn(&mut Peer) + Send + Sync + 'static) {
    let backend = FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.try_write("HTTP/1.1 100 Continue\r\n");
        answer(&mut peer);
    });
    let nginx = site(&backend, "ws_handoff_read_timeout 500ms;");
    let worker = nginx.worker();
    let (before, weight) = (proc::descriptors(worker).len(), Weight::of(worker));
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(nginx.address())).collect();
    for client in &mut clients {
        client.send(&Handshake::new("/ws").bytes());
    }
    for client in &mut clients {
        assert_eq!(client.read_head().status(), status);
    }
    weight.has_grown_by_less_than(GROWTH, "50 answers");
    drop(clients);
    wait_until("the worker holds as many descriptors as before", || {
        proc::descriptors(worker).len() == before
    });
}

/// A backend that refuses with 403 and this field, and whose body is `body`'s to write.
fn refusing(field: &str, body: impl Fn(&mut Peer) + Send + Sync + 'static) -> FakeBackend {
    let head = format!("HTTP/1.1 403 Forbidden\r\n{field}\r\n\r\n");
    FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write(&head);
        body(&mut peer);
    })
}

fn site(backend: &FakeBackend, directives: &str) -> Nginx {
    Nginx::start(format!("location /ws {{ {directives} ws_handoff {}; }}", backend.address()))
}

/// Writes as much as nginx takes, until it has closed.
fn pour(peer: &mut Peer, text: &str) {
    while peer.stream().write_all(text.as_bytes()).is_ok() {}
}

/// Sends a byte now and then, until that fails: the other side has closed.
fn drip(mut send: impl FnMut(&[u8]) -> bool) {
    let most = PATIENCE.as_millis() / 20;
    for _ in 0..most {
        if !send(b"a") {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("still taken after {:?}", *PATIENCE);
}
