//! What `ws_handoff_zone` counts: each scenario moves exactly the counters that it should, by exactly as much as it should.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use crate::support::counting::{counting, fails, site, with_backup};
use crate::support::fake::{ABSENT, FullBacklog, socket_dir, without_handoff};
use crate::support::frame::Frame;
use crate::support::metrics::{self, expect};
use crate::support::nginx::signal_worker;
use crate::support::stuck::{Stuck, Trap};
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, net, proc, process, wait_until,
};

#[test]
fn nothing_at_first() {
    expect(&site("unix:/nowhere"), &[]);
}

#[test]
fn handed_over() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    for _ in 0..3 {
        Client::upgraded(nginx.address(), "/ws").echo("hello");
    }
    expect(&nginx, &["requests ws fd 3", "offers ws 3", "answers ws 3"]);
}

#[test]
fn early_data_is_counted_in_bytes() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let frame = Frame::text("early").masked();
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), frame.clone()].concat());
    client.expect_101();
    let bytes = format!("early_data ws {}", frame.len());
    expect(&nginx, &["requests ws fd 1", "offers ws 1", "answers ws 1", &bytes]);
}

#[test]
fn tunnelled() {
    let backend = FakeBackend::tcp(without_handoff);
    let nginx = site(&backend.address());
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("hello");
    // When the tunnel begins, not when it ends.
    expect(&nginx, &["requests ws tunnel 1", "answers ws 1"]);
    drop(client);
    nginx.wait_inactive();
    expect(&nginx, &["requests ws tunnel 1", "answers ws 1"]);
}

#[test]
fn refused_by_status() {
    let backend = FakeBackend::unix(|mut peer| {
        let head = peer.read_head();
        let status = head.target().rsplit('/').next().expect("a status").to_owned();
        peer.write(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"));
    });
    let nginx = site(&backend.address());
    for status in [403, 403, 404, 302, 200, 599, 777] {
        let mut client = Client::connect(nginx.address());
        let head = client.ask(&Handshake::new(&format!("/ws/{status}")));
        assert_eq!(head.status(), status);
    }
    expect(
        &nginx,
        &[
            "requests ws refused 7",
            "refusals ws 200 1",
            "refusals ws 302 1",
            "refusals ws 403 2",
            "refusals ws 404 1",
            "refusals ws 599 1",
            "refusals ws other 1",
            "answers ws 7",
        ],
    );
}

#[test]
fn refusal_whose_body_takes_long_has_begun() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    expect(&nginx, &["in_progress 1"]);
    peer.write("HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.read_head().status(), 403);
    expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]);
    // Cut short: it was a refusal all the same.
    drop(peer);
    client.expect_end();
    expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]);
}

#[test]
fn refusal_that_leads_to_the_next_peer() {
    let draining = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n");
    });
    let backend = Backend::echo();
    let nginx = with_backup(&[&draining.address()], &backend.address());
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    expect(&nginx, &["requests ws fd 1", "refusals ws 503 1", "offers ws 1", "answers ws 2"]);
}

#[test]
fn intercepted_refusal_is_one() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    });
    let nginx = counting(&backend.address())
        .server("ws_handoff_intercept_errors on; error_page 403 /page; location /page { return 200 page; }")
        .start();
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status(), 403);
    expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]);
}

#[test]
fn connect_failed() {
    let dir = socket_dir();
    let absent = format!("unix:{}/absent", dir.path().display());
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).expect("bind"));
    let full = FullBacklog::new();
    for address in [
        absent,
        format!("unix:{}", dead.display()),
        format!("unix:{}", full.path().display()),
        format!("127.0.0.1:{}", net::free_port()),
    ] {
        let nginx = counting(&address).tolerate(ABSENT).start();
        fails(&nginx, 502);
        expect(&nginx, &["requests ws failed 1", "failures ws connect 1"]);
    }
}

#[test]
fn no_peer_alive() {
    let nginx = counting("unix:/nowhere down").start();
    fails(&nginx, 502);
    expect(&nginx, &["requests ws failed 1", "failures ws connect 1"]);
}

#[test]
fn timed_out() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let nginx = counting(&backend.address()).server("ws_handoff_read_timeout 100ms;").start();
    fails(&nginx, 504);
    expect(&nginx, &["requests ws failed 1", "failures ws timeout 1"]);
}

#[test]
fn closed_after_its_answer() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    // So that nginx hears of both at once.
    signal_worker(nginx.worker(), Signal::SIGSTOP);
    peer.accept();
    process::close(peer);
    signal_worker(nginx.worker(), Signal::SIGCONT);
    assert_eq!(client.read_head().status(), 502);
    expect(&nginx, &["requests ws failed 1", "failures ws send 1", "answers ws 1"]);
}

#[test]
fn request_cannot_be_written() {
    // A peer whose queue nginx's connection waits in, and is lost with, while its buffer holds but half of the head.
    let backend = ManualBackend::unix();
    let nginx = counting(&backend.address())
        .http("client_header_buffer_size 512k; large_client_header_buffers 4 512k;")
        .start();
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").with("Cookie", &"c".repeat(400_000)).bytes());
    let peer = backend.accept();
    wait_until("a part of the request arrives", || peer.has_input());
    nginx.wait_read(&client);
    drop(peer);
    assert_eq!(client.read_head().status(), 502);
    expect(&nginx, &["requests ws failed 1", "failures ws send 1"]);
}

#[test]
fn bad_answers() {
    let too_big = format!("HTTP/1.1 403 No\r\n{}\r\n", "X-Long: aaaaaaaaaaaaaaa\r\n".repeat(500));
    for answer in ["", "HTTP/1.1 101 Swi", "garbage\r\n\r\n", &too_big] {
        let answer = answer.to_owned();
        let backend = FakeBackend::unix(move |mut peer| {
            peer.read_head();
            peer.try_write(&answer);
        });
        let nginx = site(&backend.address());
        fails(&nginx, 502);
        expect(&nginx, &["requests ws failed 1", "failures ws answer 1"]);
    }
}

#[test]
fn refusal_that_nginx_does_not_accept_is_none() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1");
    });
    let nginx = site(&backend.address());
    // Older versions of nginx accept it.
    match Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status() {
        502 => expect(&nginx, &["requests ws failed 1", "failures ws answer 1", "answers ws 1"]),
        403 => expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]),
        status => panic!("{status}"),
    }
}

#[test]
fn behind_the_answer() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\nmore");
        peer.recv_to_end();
    });
    let nginx = site(&backend.address());
    fails(&nginx, 502);
    expect(&nginx, &["requests ws failed 1", "failures ws answer 1", "answers ws 1"]);
}

#[test]
fn client_leaves_while_a_backend_is_asked() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    drop(client);
    peer.recv_to_end();
    expect(&nginx, &["requests ws failed 1", "failures ws client 1"]);
}

#[test]
fn client_leaves_between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(counting(&backend.address())).start();
    let mut trap = Trap::new();
    let stuck = trap.catch(&nginx, &backend, "/ws", b"");
    let before = metrics::value(&nginx, "offers ws");
    assert_eq!(metrics::value(&nginx, "in_progress"), 1);
    stuck.client.reset();
    wait_until("it is counted", || metrics::value(&nginx, "failures ws client") == 1);
    assert_eq!(metrics::value(&nginx, "requests ws failed"), 1);
    assert_eq!(metrics::value(&nginx, "offers ws"), before);
    assert_eq!(metrics::value(&nginx, "in_progress"), 0);
}

#[test]
fn backend_dies_between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(counting(&backend.address())).start();
    let mut trap = Trap::new();
    for n in 1..=3 {
        let Stuck { mut client, peer, offer, .. } = trap.catch(&nginx, &backend, "/ws", b"");
        process::close((peer, offer));
        net::keep_arrivals(client.stream());
        client.expect_end();
        wait_until("it is counted", || metrics::value(&nginx, "failures ws backend") == n);
        assert_eq!(metrics::value(&nginx, "requests ws failed"), n);
    }
    // Those that the trap failed to catch were handed over.
    let offers = metrics::value(&nginx, "offers ws");
    let fd = metrics::value(&nginx, "requests ws fd");
    assert_eq!(offers, fd + 3);
    let requests = metrics::nonzero(&nginx);
    assert!(!requests.iter().any(|sample| sample.starts_with("in_progress")), "{requests:#?}");
}

#[test]
fn nginx_out_of_descriptors() {
    let backend = Backend::echo();
    let nginx = counting(&backend.address()).tolerate("(24: Too many open files)").start();
    let mut client = Client::connect(nginx.address());
    nginx.serve_others();
    let worker = nginx.worker();
    let before = proc::limit_descriptors(worker, 0);
    client.send(&Handshake::new("/ws").bytes());
    assert_eq!(client.read_head().status(), 500);
    proc::limit_descriptors(worker, before);
    expect(&nginx, &["requests ws failed 1", "failures ws local 1"]);
}

#[test]
fn rejected_by_nginx() {
    let nginx = site("unix:/nowhere");
    for (handshake, status) in [
        (Handshake::new("/ws").without("Sec-WebSocket-Key"), 400),
        (Handshake::new("/ws").version("HTTP/1.0"), 400),
        (Handshake::new("/ws").method("POST"), 405),
        (Handshake::new("/ws").without("Upgrade"), 426),
        (Handshake::new("/ws").set("Sec-WebSocket-Version", "8"), 426),
        (Handshake::new("/ws").set("Sec-WebSocket-Version", "9"), 426),
    ] {
        assert_eq!(Client::connect(nginx.address()).ask(&handshake).status(), status);
    }
    expect(
        &nginx,
        &["rejected handshake 400 2", "rejected handshake 405 1", "rejected handshake 426 3"],
    );
}
