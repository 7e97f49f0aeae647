//! What stub_status shows of a client at each step, and what it has counted in the end.

use std::cell::Cell;

use crate::support::fake::without_handoff;
use crate::support::nginx::StubStatus;
use crate::support::{Client, FakeBackend, Handshake, ManualBackend, Nginx, wait_until};

#[test]
fn client_is_active_until_it_is_handed_over() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let watch = Watch::new(&nginx);
    let mut client = Client::connect(nginx.address());
    watch.shows(State { waiting: 1, ..State::of(1) });

    let handshake = Handshake::new("/ws").bytes();
    let (start, end) = handshake.split_at(40);
    client.send(start);
    watch.shows(State { reading: 1, ..State::of(1) });

    client.send(end);
    let mut peer = backend.accept();
    peer.read_head();
    watch.shows(State { writing: 1, ..State::of(1) });

    let taken = peer.take_over();
    let head = client.expect_101();
    // nginx's own variables tell the same of the moment at which the head is written.
    let told = ["X-Active", "X-Reading", "X-Writing", "X-Waiting"].map(|name| head.field(name));
    assert_eq!(told, [Some("1"), Some("0"), Some("1"), Some("0")]);
    watch.shows(State::of(0));
    watch.counted(1, 1);
    drop((client, taken));
    watch.shows(State::of(0));
    watch.counted(1, 1);
}

#[test]
fn tunnelled_client_is_active_until_it_leaves() {
    let plain = FakeBackend::unix(without_handoff);
    let nginx = site(&plain.address());
    let watch = Watch::new(&nginx);
    let mut client = Client::upgraded(nginx.address(), "/ws");
    for _ in 0..3 {
        client.echo("through nginx");
        watch.shows(State { writing: 1, ..State::of(1) });
    }
    drop(client);
    watch.shows(State::of(0));
    watch.counted(1, 1);
}

#[test]
fn refused_client_that_stays_is_waiting() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let watch = Watch::new(&nginx);
    let mut client = Client::connect(nginx.address());
    for requests in 1..4 {
        // A status behind which nginx keeps the connection.
        let head = client.ask(&Handshake::new("/ws").without("Upgrade"));
        client.read_body(&head);
        watch.shows(State { waiting: 1, ..State::of(1) });
        watch.counted(1, requests);
    }
    // The connection is handed over in the end: one more request, and none that is left.
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    watch.shows(State { writing: 1, ..State::of(1) });
    let _taken = peer.take_over();
    client.expect_101();
    watch.shows(State::of(0));
    watch.counted(1, 4);
}

#[test]
fn every_client_is_counted_once_however_it_ends() {
    let (echo, dead) = (FakeBackend::echo(), FakeBackend::unix(|mut peer| drop(peer.read_head())));
    let nginx = Nginx::start(format!(
        "location /ws {{ ws_handoff {}; }} location /dead {{ ws_handoff {}; }}",
        echo.address(),
        dead.address()
    ));
    let watch = Watch::new(&nginx);
    let mut kept = Vec::new();
    for n in 0..30 {
        match n % 3 {
            0 => kept.push(Client::upgraded(nginx.address(), "/ws")),
            1 => Client::upgraded(nginx.address(), "/ws").reset(),
            _ => {
                let head = Client::connect(nginx.address()).ask(&Handshake::new("/dead"));
                assert_eq!(head.status(), 502);
            }
        }
    }
    watch.shows(State::of(0));
    watch.counted(30, 30);
    kept.iter_mut().for_each(|client| client.echo("not nginx's"));
    watch.counted(30, 30);
}

/// nginx with a location `/ws` that tells the client what stub_status would.
fn site(address: &str) -> Nginx {
    Nginx::start(format!(
        "add_header X-Active $connections_active always; \
         add_header X-Reading $connections_reading always; \
         add_header X-Writing $connections_writing always; \
         add_header X-Waiting $connections_waiting always; \
         location /ws {{ ws_handoff {address}; }}"
    ))
}

/// Asks for the status, and keeps apart what comes of asking.
struct Watch<'a> {
    nginx: &'a Nginx,
    asked: Cell<u64>,
    first: StubStatus,
}

/// The connections that are there, without the one that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    active: u64,
    reading: u64,
    writing: u64,
    waiting: u64,
}

impl State {
    fn of(active: u64) -> State {
        State { active, reading: 0, writing: 0, waiting: 0 }
    }
}

impl Watch<'_> {
    fn new(nginx: &Nginx) -> Watch<'_> {
        nginx.wait_inactive();
        Watch { nginx, asked: Cell::new(0), first: nginx.stub_status() }
    }

    /// Waits until nginx shows this.
    fn shows(&self, expected: State) {
        wait_until(&format!("stub_status shows {expected:?}"), || {
            let now = self.ask();
            let (active, writing) = (now.active - 1, now.writing - 1);
            State { active, reading: now.reading, writing, waiting: now.waiting } == expected
        });
    }

    /// Insists on so many connections and requests since the beginning.
    fn counted(&self, connections: u64, requests: u64) {
        let (now, first) = (self.ask(), self.first);
        let own = self.asked.get();
        assert_eq!(now.accepts - first.accepts - own, connections);
        assert_eq!(now.handled - first.handled - own, connections);
        assert_eq!(now.requests - first.requests - own, requests);
    }

    fn ask(&self) -> StubStatus {
        self.asked.set(self.asked.get() + 1);
        self.nginx.stub_status()
    }
}
