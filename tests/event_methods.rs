//! `use poll` and `use select`. They report a descriptor for as long as it is ready, where epoll reports a change: what
//! nobody is going to read or write must not be asked for, or the worker spins. And a closed descriptor that they still ask
//! for is an error of theirs, where epoll forgets it.

use std::io::Read;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::support::fake::without_handoff;
use crate::support::frame::{Frame, TEXT};
use crate::support::nginx::{Builder, configured_with};
use crate::support::peer::tcp_stream;
use crate::support::strace::Strace;
use crate::support::stuck::Trap;
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, large, proc, wait_until,
};

/// A worker that has nothing to do makes a few system calls in so long at most; one that spins, thousands.
const WHILE: Duration = Duration::from_millis(400);

#[test]
fn clients_are_handed_over() {
    with_each_method(|builder| {
        let backend = Backend::echo();
        let nginx = builder
            .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
            .quiet()
            .start();
        drop(Client::upgraded(nginx.address(), "/ws"));
        backend.wait_active(0);
        nginx.wait_inactive();
        let before = proc::descriptors(nginx.worker()).len();

        let mut clients: Vec<Client> = (0..50)
            .map(|n| {
                let mut client = Client::connect(nginx.address());
                let early = Frame::text(&format!("early {n}")).masked();
                client.send(&[Handshake::new("/ws").bytes(), early].concat());
                client.expect_101();
                client.expect_frame(TEXT, format!("early {n}").as_bytes());
                client
            })
            .collect();
        nginx.wait_inactive();
        assert_eq!(proc::descriptors(nginx.worker()).len(), before);
        quiet(&nginx, || {
            clients.iter_mut().for_each(|client| client.echo("without nginx"));
        });
        assert_eq!(nginx.logged("GET /ws").get("status"), "101");

        // The slots and numbers of those who leave are used again, and nobody is disturbed by it.
        for round in 0..300 {
            let mut client = Client::upgraded(nginx.address(), "/ws");
            client.echo("next");
            if round % 2 == 0 {
                client.reset();
            }
        }
        clients.iter_mut().for_each(|client| client.echo("still here"));
        drop(clients);
        backend.wait_active(0);
        nginx.wait_inactive();
    });
}

#[test]
fn full_send_buffer_is_waited_for() {
    with_each_method(|builder| {
        let backend = ManualBackend::unix();
        let nginx = trap_site(builder, &backend);
        let early = Frame::text("early").masked();
        let mut stuck = Trap::new().catch(&nginx, &backend, "/ws", &early);
        // Frames that nobody reads yet, either.
        stuck.client.send_frame(&Frame::text("late"));
        nginx.serve_others();
        quiet(&nginx, || ());
        stuck.let_off();
        stuck.read_101();
        assert_eq!(stuck.peer.recv_commit(), early);
        let mut stream = tcp_stream(stuck.offer);
        assert_eq!(Frame::read(&mut stream).expect("a frame"), Frame::text("late"));
        nginx.wait_inactive();
    });
}

#[test]
fn blocked_commit_does_not_spin() {
    with_each_method(|builder| {
        let backend = ManualBackend::unix();
        let nginx = large::configure(builder, &backend.address(), "").start();
        let data: Vec<u8> = (0..large::EARLY_DATA).map(|n| (n % 251) as u8).collect();
        let mut client = large::connect(&nginx, &data);
        let mut peer = backend.accept();
        wait_until("the request arrives", || peer.has_input());
        peer.accept();
        client.expect_101();
        // The client is writable all the time, and has something to read.
        client.send(b"behind it");
        nginx.wait_read(&client);
        quiet(&nginx, || ());
        let offer = peer.recv_head_and_offer();
        assert_eq!(peer.recv_commit(), data);
        let mut stream = tcp_stream(offer);
        let mut rest = [0; 9];
        stream.read_exact(&mut rest).expect("what was sent meanwhile");
        assert_eq!(&rest, b"behind it");
        nginx.wait_inactive();
    });
}

#[test]
fn failed_handover_hangs_up_although_the_backend_keeps_the_socket() {
    with_each_method(|builder| {
        let backend = ManualBackend::unix();
        let nginx = trap_site(builder, &backend);
        let mut trap = Trap::new();
        let kept: Vec<_> = (0..5)
            .map(|_| {
                let mut stuck = trap.catch(&nginx, &backend, "/ws", b"");
                drop(stuck.peer);
                stuck.client.send_frame(&Frame::text("to nobody"));
                crate::support::net::keep_arrivals(stuck.client.stream());
                stuck.client.expect_end();
                (stuck.client, stuck.offer)
            })
            .collect();
        nginx.wait_inactive();
        quiet(&nginx, || ());
        // Others use their slots.
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        let (mut peer, offer) = backend.offered();
        peer.recv_commit();
        client.expect_101();
        drop((kept, offer));
    });
}

#[test]
fn client_that_has_sent_frames_and_closed_is_handed_over() {
    with_each_method(|builder| {
        let backend = ManualBackend::unix();
        let nginx = builder
            .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
            .quiet()
            .start();
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        let last = Frame::text("last words").masked();
        client.send(&last);
        client.finish_sending();
        nginx.wait_read(&client);
        // An end of file can be read for ever.
        quiet(&nginx, || ());
        let mut taken = peer.take_over();
        client.expect_101();
        let mut bytes = taken.early_data;
        taken.stream.read_to_end(&mut bytes).expect("the rest");
        assert_eq!(bytes, last);
        taken.stream.shutdown(Shutdown::Both).expect("shutdown");
        client.expect_end();
        nginx.wait_inactive();
    });
}

#[test]
fn client_that_leaves_while_a_backend_is_asked_is_noticed() {
    with_each_method(|builder| {
        let backend = ManualBackend::unix();
        let nginx =
            builder.server(format!("location /ws {{ ws_handoff {}; }}", backend.address())).start();
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        drop(client);
        assert!(peer.recv_to_end().is_empty());
        assert_eq!(nginx.logged("GET /ws").get("status"), "499");
        nginx.wait_inactive();
    });
}

#[test]
fn peer_without_handoff_is_tunnelled_to() {
    with_each_method(|builder| {
        let backend = FakeBackend::unix(without_handoff);
        let nginx =
            builder.server(format!("location /ws {{ ws_handoff {}; }}", backend.address())).start();
        let mut client = Client::connect(nginx.address());
        let early = Frame::text("early").masked();
        client.send(&[Handshake::new("/ws").bytes(), early].concat());
        client.expect_101();
        client.expect_frame(TEXT, b"early");
        client.echo("through nginx");
        quiet(&nginx, || ());
        drop(client);
        nginx.wait_inactive();
    });
}

/// Runs `test` with each method that the nginx under test has. Debian's has epoll alone; the one that the build compiles
/// has both, which `.cargo/config.toml` sees to.
fn with_each_method(test: impl Fn(Builder)) {
    for method in ["poll", "select"] {
        if configured_with(&format!("--with-{method}_module")) {
            eprintln!("use {method}");
            test(Nginx::builder().events(format!("worker_connections 512; use {method};")));
        } else {
            assert!(
                std::env::var_os("WS_HANDOFF_TEST_NGINX").is_some(),
                "the build's own nginx lacks --with-{method}_module"
            );
            eprintln!("NOT TESTED: this nginx has no `use {method}`");
        }
    }
}

/// Insists that the worker does next to nothing while `meanwhile` runs, and for a time.
fn quiet(nginx: &Nginx, meanwhile: impl FnOnce()) {
    let trace = Strace::attach(nginx.worker());
    meanwhile();
    thread::sleep(WHILE);
    let calls = trace.detach();
    assert!(calls.len() < 20, "{} system calls of an idle worker: {calls:#?}", calls.len());
}

fn trap_site(builder: Builder, backend: &ManualBackend) -> Nginx {
    Trap::configure(builder)
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start()
}
