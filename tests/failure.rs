//! A backend that fails at any step, a thousand times: the client gets a response, or a connection that
//! ends promptly and visibly; worker and backend hold as many descriptors as before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::fake::{ABSENT, socket_dir};
use crate::support::stuck::{Stuck, Trap};
use crate::support::{
    Client, FakeBackend, Handshake, ManualBackend, Nginx, PROMPTLY, Peer, large, net, proc,
    process, wait_for_within, wait_until,
};

/// How often each failure happens.
const TIMES: usize = 1000;

/// How many clients are caught between offer and commit at a time.
const BATCH: usize = 100;

#[test]
fn before_the_offer_backend_down() {
    let dir = socket_dir();
    let nginx = Nginx::builder()
        .server(format!("location /ws {{ ws_handoff unix:{}/absent; }}", dir.path().display()))
        .tolerate(ABSENT)
        .start();
    every_client_gets(&nginx, 502);
}

#[test]
fn before_the_offer_closes_at_once() {
    fails_before_the_offer(drop, 502);
}

#[test]
fn before_the_offer_closes_after_the_head() {
    fails_before_the_offer(
        |mut peer| {
            peer.read_head();
        },
        502,
    );
}

#[test]
fn before_the_offer_closes_inside_the_answer() {
    fails_before_the_offer(
        |mut peer| {
            peer.read_head();
            peer.write("HTTP/1.1 101 Swi");
        },
        502,
    );
}

#[test]
fn before_the_offer_answers_garbage() {
    fails_before_the_offer(
        |mut peer| {
            peer.read_head();
            peer.try_write([0xFF; 100]);
            peer.recv_to_end();
        },
        502,
    );
}

#[test]
fn before_the_offer_writes_behind_the_answer() {
    fails_before_the_offer(
        |mut peer| {
            peer.read_head();
            peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\nmore");
            peer.recv_to_end();
        },
        502,
    );
}

#[test]
fn before_the_offer_never_answers() {
    fails_before_the_offer(
        |mut peer| {
            peer.read_head();
            peer.recv_to_end();
        },
        504,
    );
}

#[test]
fn closes_right_after_its_answer() {
    // The offer meets an open socket or a closed one, as it happens.
    after_the_answer(|mut peer| {
        peer.read_head();
        peer.accept();
    });
}

#[test]
fn closes_with_the_offer_unread() {
    after_the_answer(|mut peer| {
        peer.read_head();
        peer.accept();
        wait_until("the offer is there", || peer.has_input());
    });
}

#[test]
fn closes_after_the_offer() {
    after_the_answer(|mut peer| {
        peer.read_head();
        peer.accept();
        drop(peer.recv_offer());
    });
}

#[test]
fn writes_after_the_offer() {
    after_the_answer(|mut peer| {
        peer.read_head();
        peer.accept();
        let client = peer.recv_offer();
        peer.try_write("?");
        peer.recv_to_end();
        drop(client);
    });
}

#[test]
fn between_offer_and_commit_backend_dies() {
    between_offer_and_commit(|stuck| {
        let Stuck { client, peer, offer, .. } = stuck;
        process::close((peer, offer));
        (client, None)
    });
}

#[test]
fn between_offer_and_commit_backend_closes_but_keeps_the_descriptor() {
    // close(2) by nginx alone would hang nothing up: the description is alive in the other process.
    between_offer_and_commit(|stuck| {
        let Stuck { client, peer, offer, .. } = stuck;
        process::close(peer);
        (client, Some(offer))
    });
}

#[test]
fn between_offer_and_commit_backend_writes() {
    between_offer_and_commit(|mut stuck| {
        stuck.peer.write("HTTP/1.1 200 OK\r\n\r\n");
        assert!(stuck.peer.recv_to_end().is_empty(), "a commit");
        (stuck.client, Some(stuck.offer))
    });
}

#[test]
fn between_offer_and_commit_backend_half_closes() {
    between_offer_and_commit(|mut stuck| {
        stuck.peer.stream().finish_sending();
        assert!(stuck.peer.recv_to_end().is_empty(), "a commit");
        (stuck.client, Some(stuck.offer))
    });
}

#[test]
fn worker_killed_between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let builder = Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .tolerate("exited on signal 9");
    let nginx = builder.start();
    let mut stuck = Trap::new().catch(&nginx, &backend, "/ws", b"");
    let pid = nix::unistd::Pid::from_raw(nginx.worker());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("kill the worker");
    // The backend hears of it at once, and closing its own copy is what ends the client.
    assert!(stuck.peer.recv_to_end().is_empty(), "a commit");
    stuck.let_off();
    drop(stuck.offer);
    stuck.client.expect_end();
    wait_until("another worker runs", || nginx.workers().len() == 1);
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let (mut peer, _offer) = backend.offered();
    peer.recv_commit();
    client.expect_101();
}

#[test]
fn between_offer_and_commit_backend_dies_and_a_post_action_takes_long() {
    // The client is hung up on when the hand-over fails, not when nginx is done with the request.
    let backend = ManualBackend::unix();
    let (arrived, requests) = std::sync::mpsc::channel();
    let slow = FakeBackend::tcp(move |peer: Peer| arrived.send(peer).expect("the test waits"));
    let nginx = Trap::configure(Nginx::builder())
        .server(format!(
            "location /ws {{ ws_handoff {}; }} \
             location /post {{ post_action /after; ws_handoff {}; }} \
             location /after {{ proxy_pass http://{}; }}",
            backend.address(),
            backend.address(),
            slow.address()
        ))
        .start();
    let mut trap = Trap::new();
    drop(trap.catch(&nginx, &backend, "/ws", b""));
    let stuck = trap.catch(&nginx, &backend, "/post", b"");
    let Stuck { mut client, peer, offer, .. } = stuck;
    process::close(peer);
    net::keep_arrivals(client.stream());
    let pending = requests.recv_timeout(*PROMPTLY).expect("the post_action");
    client.expect_end();
    drop((pending, offer));
}

#[test]
fn client_that_does_not_read_the_101_meets_send_timeout() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!(
            "send_timeout 500ms; \
             location /ws {{ ws_handoff_send_timeout 1h; ws_handoff_read_timeout 1h; \
                 ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let before = proc::descriptors(nginx.worker()).len();
    let mut trap = Trap::new();
    for _ in 0..5 {
        let mut stuck = trap.catch(&nginx, &backend, "/ws", b"");
        // The backend keeps its copy and does nothing.
        assert!(stuck.peer.recv_to_end().is_empty(), "a commit");
        stuck.let_off();
        stuck.client.expect_end();
        nginx.wait_inactive();
    }
    wait_descriptors(&nginx, before);
}

#[test]
fn backend_that_stops_reading_after_the_offer_does_not_defeat_send_timeout() {
    let backend = ManualBackend::unix();
    let nginx = large::site(
        &backend.address(),
        "ws_handoff_send_timeout 500ms; ws_handoff_read_timeout 1h; send_timeout 1h;",
    );
    let before = proc::descriptors(nginx.worker()).len();
    for _ in 0..5 {
        let mut client = large::connect(&nginx, &[b'e'; large::EARLY_DATA]);
        let mut peer = backend.accept();
        wait_until("the request arrives", || peer.has_input());
        peer.accept();
        // The 101 is out, and then the connection ends, although the offered descriptor is alive in the
        // socket's queue.
        client.expect_101();
        client.expect_end();
        nginx.wait_inactive();
        wait_descriptors(&nginx, before);
        let offer = peer.recv_head_and_offer();
        assert!(!peer.recv_to_end().ends_with(&[0; 5]), "a whole commit after all");
        drop(offer);
    }
}

/// `TIMES` clients of a backend that runs `script`; each gets `status`, and never a descriptor leaves.
fn fails_before_the_offer(script: impl Fn(Peer) + Send + Sync + 'static, status: u16) {
    let backend = FakeBackend::unix(script);
    // Short only where it is what ends the wait.
    let directives = if status == 504 { "ws_handoff_read_timeout 100ms;" } else { "" };
    let nginx = site(&backend.address(), directives);
    every_client_gets(&nginx, status);
    backend.wait_idle();
    assert_eq!((backend.accepted(), backend.descriptors()), (TIMES, 0));
}

fn every_client_gets(nginx: &Nginx, status: u16) {
    let before = proc::descriptors(nginx.worker()).len();
    repeat(|n| {
        let mut client = Client::connect_from(net::source(n), nginx.address());
        let head = client.ask(&Handshake::new("/ws"));
        assert_eq!(head.status(), status);
        client.read_body(&head);
        client.reset();
    });
    nginx.wait_inactive();
    wait_descriptors(nginx, before);
}

/// `TIMES` clients of a backend that fails once it has said yes: each gets a 101 and then an end, or an
/// error response, or an end alone; never silence.
fn after_the_answer(script: impl Fn(Peer) + Send + Sync + 'static) {
    let backend = FakeBackend::unix(script);
    let nginx = site(&backend.address(), "");
    let before = proc::descriptors(nginx.worker()).len();
    let outcomes = Mutex::new(Vec::new());
    repeat(|n| {
        let mut client = Client::connect_from(net::source(n), nginx.address());
        client.send(&Handshake::new("/ws").set("Connection", "Upgrade, close").bytes());
        let (bytes, end) = client.expect_end();
        let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or("").to_owned();
        let sound = bytes.is_empty()
            || line == "HTTP/1.1 502 Bad Gateway"
            || (line.starts_with("HTTP/1.1 101 ") && bytes.ends_with(b"\r\n\r\n"));
        assert!(sound, "{end:?} after {:?}", String::from_utf8_lossy(&bytes));
        outcomes.lock().unwrap().push(line);
    });
    assert_eq!(outcomes.lock().unwrap().len(), TIMES);
    nginx.wait_inactive();
    wait_descriptors(&nginx, before);
    backend.wait_idle();
}

/// `TIMES` clients caught between offer and commit, each failed by `fail`, which returns the client and what
/// the backend keeps of its descriptor: the connection ends promptly for the client all the same.
fn between_offer_and_commit(fail: impl Fn(Stuck) -> (Client, Option<std::os::fd::OwnedFd>)) {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start();
    let before = proc::descriptors(nginx.worker()).len();
    let mut trap = Trap::new();
    // In batches: a client that is let off waits for what nginx's kernel sends again.
    for _ in 0..TIMES / BATCH {
        let caught: Vec<Stuck> =
            (0..BATCH).map(|_| trap.catch(&nginx, &backend, "/ws", b"")).collect();
        let failed: Vec<_> = caught
            .into_iter()
            .map(|stuck| {
                // Let off before it fails, it could have its 101 if nginx's kernel happened to send again just then.
                let (client, kept) = fail(stuck);
                net::keep_arrivals(client.stream());
                (client, kept)
            })
            .collect();
        for (mut client, kept) in failed {
            let (bytes, _) = client.expect_end();
            let text = String::from_utf8_lossy(&bytes);
            let promised = text.find("HTTP/1.1 101 ").map(|at| &text[at..]);
            // All of it, a part of it, or nothing; but nothing behind it.
            let behind =
                promised.and_then(|head| head.split_once("\r\n\r\n")).map(|(_, rest)| rest);
            assert!(behind.is_none_or(str::is_empty), "behind the 101: {behind:?}");
            drop(kept);
        }
    }
    nginx.wait_inactive();
    wait_descriptors(&nginx, before);
}

/// Runs `once` for 0 to `TIMES`, on as many threads as keep the worker busy.
fn repeat(once: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= TIMES {
                        return;
                    }
                    once(n);
                }
            });
        }
    });
}

fn site(address: &str, directives: &str) -> Nginx {
    Nginx::builder()
        .http(format!("upstream ws {{ server {address} max_fails=0; }}"))
        .server(format!("location /ws {{ {directives} ws_handoff ws; }}"))
        .start()
}

fn wait_descriptors(nginx: &Nginx, before: usize) {
    wait_for_within("the worker holds as many descriptors as before", *PROMPTLY, || {
        (proc::descriptors(nginx.worker()).len() == before).then_some(())
    });
}
