//! nginx has let go, for good: what becomes of a handed-over client disturbs nobody, and handing over
//! leaves nothing behind however often it is done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::support::frame::{BINARY, Frame};
use crate::support::proc::Weight;
use crate::support::stuck::Trap;
use crate::support::{
    Backend, Client, FakeBackend, Handshake, Head, ManualBackend, Nginx, PATIENCE, Peer, net, proc,
    wait_until,
};

#[test]
fn closing_client_does_not_disturb_those_who_use_its_slot() {
    let backend = FakeBackend::echo();
    let slow = Slow::new();
    // Few slots: all are used again and again.
    let nginx = Nginx::builder()
        .events("worker_connections 128;")
        .server(format!("location /ws {{ ws_handoff {}; }} {}", backend.address(), slow.location()))
        .quiet()
        .start();
    for round in 0..10 {
        let mut leaving: Vec<Client> =
            (0..EACH).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
        nginx.wait_inactive();
        slow.undisturbed_by(&nginx, || {
            leaving.iter_mut().for_each(|client| client.echo("so long"));
            for (n, client) in leaving.drain(..).enumerate() {
                if (n + round) % 2 == 0 { client.reset() } else { drop(client) }
            }
            backend.wait_idle();
        });
    }
    assert!(nginx.access_log().iter().all(|line| ["101", "200"].contains(&line.get("status"))));
}

#[test]
fn client_of_a_failed_handover_does_not_disturb_those_who_use_its_slot() {
    // Its socket is alive in the backend, which took it and then broke the connection to nginx.
    let backend = ManualBackend::unix();
    let slow = Slow::new();
    let nginx = Trap::configure(Nginx::builder())
        .events("worker_connections 128;")
        .server(format!("location /ws {{ ws_handoff {}; }} {}", backend.address(), slow.location()))
        .start();
    let mut trap = Trap::new();
    for _ in 0..10 {
        let mut failed: Vec<_> = (0..EACH)
            .map(|_| {
                let stuck = trap.catch(&nginx, &backend, "/ws", b"");
                drop(stuck.peer);
                (stuck.client, stuck.offer)
            })
            .collect();
        nginx.wait_inactive();
        slow.undisturbed_by(&nginx, || {
            for (client, offer) in failed.drain(..) {
                client.reset();
                drop(offer);
            }
        });
    }
}

#[test]
fn lingering_close_does_not_touch_the_client() {
    // nginx shuts a connection down and reads on before it closes: always, or when bytes are unread. Here
    // either would end the client, or keep the connection for a minute.
    let backend = FakeBackend::echo();
    for lingering in ["always", "on"] {
        let nginx = Nginx::start(format!(
            "lingering_close {lingering}; lingering_time 60s; lingering_timeout 60s; \
             location /ws {{ ws_handoff {}; }}",
            backend.address()
        ));
        let mut client = Client::connect(nginx.address());
        // More than the header buffer holds: a part is unread when nginx lets go.
        let frames = Frame::new(BINARY, vec![3; 1000]).masked().repeat(40);
        client.send(&[Handshake::new("/ws").bytes(), frames].concat());
        client.expect_101();
        nginx.wait_inactive();
        for _ in 0..40 {
            client.expect_frame(BINARY, &[3; 1000]);
        }
        client.echo("still here");
    }
}

#[test]
fn more_clients_than_worker_connections() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .events("worker_connections 16;")
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let mut clients: Vec<Client> = (0..300)
        .map(|n| {
            let mut client = Client::connect_from(net::source(n), nginx.address());
            client.upgrade("/ws");
            client
        })
        .collect();
    clients.iter_mut().for_each(|client| client.echo("all of us"));
}

#[test]
fn twenty_thousand_handovers_leave_nothing_behind() {
    let backend = Backend::echo();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    // The allocator's and nginx's own caches fill first.
    churn(&nginx, 2_000);
    backend.wait_active(0);
    nginx.wait_inactive();
    let worker = nginx.worker();
    let descriptors = proc::descriptors(worker);
    let held = proc::descriptors(backend.pid()).len();
    let weight = Weight::of(worker);
    let accepted = nginx.stub_status().accepts;

    churn(&nginx, 20_000);
    backend.wait_active(0);
    nginx.wait_inactive();
    assert_eq!(nginx.worker(), worker, "the worker has been replaced");
    assert!(nginx.stub_status().accepts > accepted + 20_000);
    wait_until("the worker holds as many descriptors as before", || {
        proc::descriptors(worker).len() == descriptors.len()
    });
    backend.wait_descriptors(held);
    // 14 bytes left behind by each would show.
    weight.has_grown_by_less_than(280_000, "20,000 handovers");
    assert_eq!(backend.metric("websocket_connections_total"), 22_000.0);
    let handed_over = nginx.access_log().iter().filter(|line| line.get("status") == "101").count();
    assert_eq!(handed_over, 22_000);
}

/// Hands over so many clients, a few at a time, from many addresses; each says something and leaves.
fn churn(nginx: &Nginx, count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let mut client = Client::connect_from(net::source(n), nginx.address());
                    client.upgrade("/ws");
                    client.echo("here and gone");
                    if n % 4 == 0 { drop(client) } else { client.reset() }
                }
            });
        }
    });
}

/// Clients at a time.
const EACH: usize = 20;

/// Ordinary requests, proxied to an upstream that takes its time.
struct Slow {
    upstream: FakeBackend,
    requests: mpsc::Receiver<Peer>,
}

impl Slow {
    fn new() -> Slow {
        let (arrived, requests) = mpsc::channel();
        let upstream = FakeBackend::tcp(move |peer| arrived.send(peer).expect("the test waits"));
        Slow { upstream, requests }
    }

    fn location(&self) -> String {
        format!(
            "location /slow {{ proxy_buffering off; proxy_pass http://{}; }}",
            self.upstream.address()
        )
    }

    /// Has `EACH` requests under way, half of their bodies delivered, while `commotion` happens; all of them
    /// must end as if it had not. Each takes two slots of nginx's, the ones released last first.
    fn undisturbed_by(&self, nginx: &Nginx, commotion: impl FnOnce()) {
        let mut clients: Vec<Client> = (0..EACH)
            .map(|_| {
                let mut client = Client::connect(nginx.address());
                client.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
                client
            })
            .collect();
        let mut peers: Vec<Peer> = (0..EACH)
            .map(|_| {
                let mut peer = self.requests.recv_timeout(*PATIENCE).expect("a proxied request");
                peer.read_head();
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
                peer
            })
            .collect();
        let heads: Vec<Head> = clients.iter_mut().map(Client::read_head).collect();
        commotion();
        // The worker has seen whatever it was going to see.
        nginx.serve_others();
        peers.iter_mut().for_each(|peer| peer.write("third"));
        for (client, head) in clients.iter_mut().zip(&heads) {
            assert_eq!(client.read_body(head), b"firstthird");
        }
    }
}
