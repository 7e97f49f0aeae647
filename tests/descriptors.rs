//! Descriptors run out: in a worker, in flight between nginx and a backend, in the backend. Who cannot be served is told so;
//! nobody who was served notices, nothing is lost, and all is well once there are descriptors again.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::fake::without_handoff;
use crate::support::metrics::{LOCATION, Snapshot, ZONE};
use crate::support::nginx::{Builder, signal_worker};
use crate::support::{
    Backend, Client, FakeBackend, Handshake, Nginx, Peer, proc, swarm, wait_until,
};

/// What nginx says itself where accept(2) or socket(2) fails.
const SHORT: &str = "(24: Too many open files)";

#[test]
fn worker_without_descriptors_answers_500_and_recovers() {
    const CLIENTS: usize = 200;
    let backend = Backend::echo();
    let nginx = site(&backend.address()).tolerate(SHORT).start();
    let worker = nginx.worker();
    let before = proc::descriptors(worker).len();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(nginx.address())).collect();
    nginx.serve_others();

    // All at once, so that the few descriptors that are left have no time to come back.
    signal_worker(worker, Signal::SIGSTOP);
    for client in &mut clients {
        client.send(&Handshake::new("/ws").bytes());
    }
    let limit = proc::leave_descriptors(worker, 4);
    signal_worker(worker, Signal::SIGCONT);
    let (mut served, mut failed) = (0, 0);
    for client in &mut clients {
        match client.read_head().status() {
            101 => {
                client.echo("hello");
                served += 1;
            }
            500 => failed += 1,
            status => panic!("{status}"),
        }
    }
    assert!(served >= 4 && failed > 0, "{served} served, {failed} failed");
    proc::limit_descriptors(worker, limit);
    let counted = Snapshot::at_rest(&nginx);
    assert_eq!(
        (counted.sum("requests", "fd"), counted.sum("requests", "failed")),
        (served, failed)
    );
    assert_eq!(counted.sum("failures", "local"), failed);

    assert_eq!(swarm::run(nginx.address(), "/ws", CLIENTS, 0, |_| ()).served, CLIENTS);
    drop(clients);
    nginx.wait_inactive();
    wait_descriptors(worker, before);
}

#[test]
fn client_that_a_worker_cannot_accept_is_served_once_it_can() {
    let backend = Backend::echo();
    let nginx = site(&backend.address()).tolerate(SHORT).start();
    let worker = nginx.worker();
    let before = proc::descriptors(worker).len();
    let limit = proc::leave_descriptors(worker, 0);
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    wait_until("nginx fails to accept", || nginx.error_log().contains("accept4() failed (24"));
    proc::limit_descriptors(worker, limit);
    client.expect_101();
    client.echo("hello");
    wait_descriptors(worker, before);
}

#[test]
fn client_whose_descriptor_is_beyond_a_lowered_limit_is_served() {
    // dup3(2) refuses such a number. A connection that nginx keeps to the backend takes no descriptor.
    let backend = Backend::echo();
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {}; keepalive 1; }}", backend.address()))
        .server(LOCATION)
        .server("location /ws { ws_handoff ws; }")
        .start();
    let worker = nginx.worker();
    let before = proc::descriptors(worker).len();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    nginx.logged("GET /ws");
    let mut client = Client::connect(nginx.address());
    nginx.serve_others();
    let limit = proc::limit_descriptors(worker, 3);
    client.upgrade("/ws");
    client.echo("hello");
    wait_until("nginx has let go", || nginx.access_log().len() == 2);
    client.echo("still there");
    proc::limit_descriptors(worker, limit);
    // The connection to the backend.
    wait_descriptors(worker, before + 1);
    drop(client);
    backend.wait_active(0);
    assert_eq!(Snapshot::at_rest(&nginx).sum("requests", "fd"), 2);
}

#[test]
fn too_many_descriptors_in_flight() {
    // Of each user the kernel counts those that were sent and that nobody has received (unix(7): ETOOMANYREFS).
    const LIMIT: usize = 64;
    let unread = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::clone(&unread);
    let backend = FakeBackend::unix(move |mut peer: Peer| {
        wait_until("the request arrives", || peer.has_input());
        peer.accept();
        queue.lock().unwrap().push(peer);
    });
    backend.admit_everybody();
    let other = FakeBackend::tcp(without_handoff);
    let nginx = Nginx::builder()
        .unprivileged()
        .main(format!("worker_rlimit_nofile {LIMIT};"))
        .events("worker_connections 48;")
        .http(ZONE)
        // With nginx's default of max_fails, 1: a failure that is the peer's would be seen to be held against it.
        .http(format!(
            "upstream both {{ server {0}; server {1} backup; }} \
             upstream twice {{ server {0}; server {0}; }}",
            backend.address(),
            other.address()
        ))
        .server(LOCATION)
        .server("location /both { ws_handoff both; } location /twice { ws_handoff twice; }")
        .start();
    let worker = nginx.worker();
    let before = proc::descriptors(worker).len();

    let mut promised = Vec::new();
    let mut tunnelled = loop {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/both").bytes());
        client.expect_101();
        if other.accepted() > 0 {
            break client;
        }
        promised.push(client);
        assert!(promised.len() <= LIMIT + 1, "more are in flight than may be");
    };
    tunnelled.echo("by the other peer");
    drop(tunnelled);
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/twice")).status(), 502);
    let log = nginx.error_log();
    let message = "sendmsg() of the client's socket to the upstream failed, raise worker_rlimit_nofile \
                   (109: Too many references: cannot splice)";
    assert_eq!(log.matches(message).count(), 3, "{log}");
    nginx.wait_inactive();
    let counted = Snapshot::at_rest(&nginx);
    assert_eq!(counted.sum("failures", "local"), 3, "{counted:#?}");
    assert_eq!(counted.sum("requests", "fd"), promised.len(), "{counted:#?}");
    assert_eq!(counted.sum("requests", "failed"), 1, "{counted:#?}");
    assert_eq!(proc::descriptors(worker).len(), before);

    // Once they are received, each is its client's, and there is room again at the same peers.
    backend.wait_idle();
    for mut peer in unread.lock().unwrap().drain(..) {
        peer.recv_to_end();
    }
    assert_eq!(backend.descriptors(), promised.len());
    for client in &mut promised {
        client.expect_end();
    }
    for target in ["/both", "/twice", "/twice"] {
        Client::upgraded(nginx.address(), target);
    }
    backend.wait_idle();
    unread.lock().unwrap().clear();
    assert_eq!(other.accepted(), 1);
    nginx.wait_inactive();
    wait_descriptors(worker, before);
}

#[test]
fn backend_at_its_limit_refuses_and_serves_on() {
    let backend = Backend::start_limited(64);
    let nginx = site(&backend.address()).start();
    let before = proc::descriptors(backend.pid()).len();
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        let mut client = Client::connect(nginx.address());
        match client.ask(&Handshake::new("/ws")).status() {
            101 => served.push(client),
            503 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(served.len() >= 16 && refused > 0, "{} served, {refused} refused", served.len());
    for client in &mut served {
        client.echo("hello");
    }
    let counted = Snapshot::at_rest(&nginx);
    assert_eq!(counted.sum("requests", "fd"), served.len());
    assert_eq!(counted.sum("requests", "refused"), refused);
    let room = served.len();
    served.clear();
    backend.wait_active(0);
    for _ in 0..room {
        let mut client = Client::upgraded(nginx.address(), "/ws");
        client.echo("hello");
        served.push(client);
    }
    drop(served);
    backend.wait_descriptors(before);
}

#[test]
fn backend_that_cannot_accept_costs_a_504_and_no_cpu_time() {
    let backend = Backend::echo();
    let nginx = site(&backend.address()).start();
    let before = proc::descriptors(backend.pid()).len();
    let mut earlier = Client::upgraded(nginx.address(), "/ws");
    earlier.echo("hello");
    backend.wait_descriptors(before + 1);

    let limit = proc::leave_descriptors(backend.pid(), 0);
    let (begin, used) = (Instant::now(), proc::cpu_time(backend.pid()));
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(nginx.address())).collect();
    for client in &mut clients {
        client.send(&Handshake::new("/ws").bytes());
    }
    for client in &mut clients {
        assert_eq!(client.read_head().status(), 504);
        earlier.echo("still there");
    }
    // As many attempts to accept as there are in that time would take all of it.
    let (elapsed, used) = (begin.elapsed(), proc::cpu_time(backend.pid()) - used);
    assert!(used < elapsed / 10, "{used:?} in {elapsed:?}");
    let complaints = backend.log().lines().filter(|line| line.contains("ERROR")).count();
    assert!((1..=2 + elapsed.as_secs() as usize).contains(&complaints), "{}", backend.log());

    proc::limit_descriptors(backend.pid(), limit);
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    earlier.echo("still there");
    backend.wait_active(1);
    backend.wait_descriptors(before + 1);
    let counted = Snapshot::at_rest(&nginx);
    assert_eq!(counted.sum("failures", "timeout"), 50, "{counted:#?}");
}

#[test]
fn backend_that_cannot_receive_a_descriptor_hangs_up() {
    // The offer arrives without what was sent with it: MSG_CTRUNC.
    const CLIENTS: usize = 20;
    let backend = Backend::echo();
    let nginx = site(&backend.address()).start();
    let before = proc::descriptors(backend.pid()).len();
    let mut earlier = Client::upgraded(nginx.address(), "/ws");
    earlier.echo("hello");
    backend.wait_descriptors(before + 1);

    // For the connection, and not for the client that comes over it.
    let limit = proc::leave_descriptors(backend.pid(), 1);
    let mut promised = 0;
    for _ in 0..CLIENTS {
        let mut client = Client::connect(nginx.address());
        match client.ask(&Handshake::new("/ws")).status() {
            101 => {
                client.expect_end();
                promised += 1;
            }
            502 | 504 => (),
            status => panic!("{status}"),
        }
        earlier.echo("still there");
    }
    proc::limit_descriptors(backend.pid(), limit);
    assert!(promised > 0);

    Client::upgraded(nginx.address(), "/ws").echo("hello");
    earlier.echo("still there");
    backend.wait_active(1);
    backend.wait_descriptors(before + 1);
    let counted = Snapshot::at_rest(&nginx);
    let (fd, broken) = (counted.sum("requests", "fd") - 2, counted.sum("failures", "backend"));
    // A commit that the backend has not read before it closes is one that nginx has written.
    assert_eq!(fd + broken, promised, "{counted:#?}");
    assert_eq!(counted.sum("requests", "failed") - broken, CLIENTS - promised, "{counted:#?}");
}

/// An upstream `ws` of this backend, and counters.
fn site(address: &str) -> Builder {
    Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {address} max_fails=0; }}"))
        .server(LOCATION)
        .server("location /ws { ws_handoff_read_timeout 1s; ws_handoff ws; }")
}

fn wait_descriptors(pid: i32, before: usize) {
    wait_until("it holds as many descriptors as before", || proc::descriptors(pid).len() == before);
}
