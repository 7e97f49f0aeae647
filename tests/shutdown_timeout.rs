//! `worker_shutdown_timeout`: what still has a connection of an old worker's when the time is over is ended, promptly and
//! visibly. Who was handed over is none of it.

use std::thread;

use nix::sys::signal::Signal;

use crate::support::daemon::wait_gone;
use crate::support::fake::without_handoff;
use crate::support::nginx::Builder;
use crate::support::stuck::Trap;
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, large, wait_until,
};

#[test]
fn tunnelled_client_is_ended_and_one_handed_over_is_not() {
    let (backend, plain) = (Backend::echo(), FakeBackend::unix(without_handoff));
    let nginx = impatient()
        .server(format!(
            "location /ws {{ ws_handoff {}; }} location /plain {{ ws_handoff {}; }}",
            backend.address(),
            plain.address()
        ))
        .start();
    let mut handed_over: Vec<Client> =
        (0..10).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    let mut tunnelled = Client::upgraded(nginx.address(), "/plain");
    tunnelled.echo("through nginx");
    // Insists on the end of the old worker, whatever it holds.
    nginx.reload();
    assert!(tunnelled.expect_end().0.is_empty());
    plain.wait_idle();
    assert_eq!(nginx.logged("GET /plain").get("status"), "101");
    handed_over.iter_mut().for_each(|client| client.echo("still here"));
    backend.wait_active(handed_over.len());
}

#[test]
fn backend_that_does_not_answer_is_not_waited_for() {
    let backend = ManualBackend::unix();
    let nginx =
        impatient().server(format!("location /ws {{ ws_handoff {}; }}", backend.address())).start();
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    nginx.reload();
    assert!(client.expect_end().0.is_empty());
    assert!(peer.recv_to_end().is_empty());
}

#[test]
fn client_between_offer_and_commit_is_hung_up_on() {
    // Its socket lives on in the backend: nothing but a shutdown ends the connection.
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(impatient())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start();
    let mut trap = Trap::new();
    let mut stuck = trap.catch(&nginx, &backend, "/ws", b"");
    nginx.reload();
    stuck.let_off();
    stuck.client.expect_end();
    assert!(stuck.peer.recv_to_end().is_empty(), "a commit");
    drop(stuck.offer);
}

#[test]
fn client_whose_commit_is_cut_short_is_hung_up_on() {
    let backend = ManualBackend::unix();
    let nginx = large::configure(impatient(), &backend.address(), "").start();
    let mut client = large::connect(&nginx, &vec![7; large::EARLY_DATA]);
    let mut peer = backend.accept();
    wait_until("the request arrives", || peer.has_input());
    peer.accept();
    client.expect_101();
    nginx.reload();
    client.expect_end();
    let offer = peer.recv_head_and_offer();
    // What was written of it, and then no more.
    assert!(peer.recv_to_end().len() < large::EARLY_DATA);
    drop(offer);
}

#[test]
fn request_that_outlives_its_handover_is_ended_without_the_client() {
    // The copy that nobody answers keeps the request, and its connection, whose socket is a dummy now.
    let (backend, copy) = (FakeBackend::echo(), ManualBackend::unix());
    let nginx = impatient()
        .server(format!(
            "location /ws {{ mirror /copy; ws_handoff {}; }} \
             location /copy {{ proxy_pass http://{}:; }}",
            backend.address(),
            copy.address()
        ))
        .start();
    let mut client = Client::upgraded(nginx.address(), "/ws");
    let peer = copy.accept();
    nginx.reload();
    client.echo("none of nginx's");
    drop(peer);
    let line = nginx.logged("GET /ws");
    assert_eq!((line.get("status"), line.get("result")), ("101", "fd"));
}

#[test]
fn quit_does_not_wait_for_tunnels() {
    let plain = FakeBackend::unix(without_handoff);
    let nginx = impatient()
        .workers(2)
        .server(format!("location /ws {{ ws_handoff {}; }}", plain.address()))
        .start();
    let mut clients: Vec<Client> =
        (0..10).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    let workers = nginx.workers();
    nginx.signal(Signal::SIGQUIT);
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| client.expect_end());
        }
    });
    wait_gone(&workers);
}

/// An nginx whose old workers have a moment left.
fn impatient() -> Builder {
    Nginx::builder().main("worker_shutdown_timeout 200ms;")
}
