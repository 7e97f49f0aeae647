//! nginx reloads, stops, starts, loses a worker: handed-over connections live on, and no old worker waits
//! for them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::fake::without_handoff;
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, PROMPTLY, proc, wait_for_within,
    wait_until,
};

const CLIENTS: usize = 50;

#[test]
fn reload() {
    let backend = Backend::echo();
    let nginx = site(&backend, 1);
    let mut clients = connect(&nginx);
    for _ in 0..3 {
        let old = nginx.worker();
        nginx.reload();
        assert_ne!(nginx.worker(), old);
        all_talk(&mut clients);
        clients.push(Client::upgraded(nginx.address(), "/ws"));
    }
    backend.wait_active(clients.len());
}

#[test]
fn reload_with_several_workers() {
    let backend = Backend::echo();
    let nginx = site(&backend, 3);
    let mut clients = connect(&nginx);
    nginx.reload();
    all_talk(&mut clients);
}

#[test]
fn stop_and_start_again() {
    let backend = Backend::echo();
    let mut nginx = site(&backend, 1);
    let mut clients = connect(&nginx);
    nginx.stop_fast();
    all_talk(&mut clients);
    // The sockets that live on do not keep the port.
    nginx.start_again();
    all_talk(&mut clients);
    Client::upgraded(nginx.address(), "/ws").echo("new");
}

#[test]
fn graceful_quit() {
    let backend = Backend::echo();
    let nginx = site(&backend, 1);
    let mut clients = connect(&nginx);
    let worker = nginx.worker();
    nginx.signal(Signal::SIGQUIT);
    wait_for_within("the worker exits", *PROMPTLY, || (!proc::alive(worker)).then_some(()));
    all_talk(&mut clients);
}

#[test]
fn worker_killed() {
    let backend = Backend::echo();
    let nginx = Nginx::builder()
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .tolerate("exited on signal 9")
        .start();
    let mut clients = connect(&nginx);
    let worker = nginx.worker();
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("kill the worker");
    wait_until("another worker runs", || {
        let workers = nginx.workers();
        workers.len() == 1 && workers[0] != worker
    });
    all_talk(&mut clients);
    Client::upgraded(nginx.address(), "/ws").echo("new");
}

#[test]
fn reload_in_the_middle_of_a_handshake() {
    let backend = ManualBackend::unix();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let old = nginx.worker();
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    nginx.signal(Signal::SIGHUP);
    wait_until("a new worker runs", || nginx.workers().iter().any(|pid| *pid != old));
    assert!(proc::alive(old), "it owes a client an answer");
    let taken = peer.take_over();
    client.expect_101();
    wait_for_within("the old worker exits", *PROMPTLY, || (!proc::alive(old)).then_some(()));
    drop(taken);
    client.expect_end();
}

#[test]
fn tunnelled_client_keeps_its_worker_until_it_leaves() {
    // The contrast, and the limit that the documentation names.
    let backend = FakeBackend::unix(without_handoff);
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let mut client = Client::upgraded(nginx.address(), "/ws");
    let old = nginx.worker();
    nginx.signal(Signal::SIGHUP);
    wait_until("a new worker runs", || nginx.workers().iter().any(|pid| *pid != old));
    client.echo("still there");
    assert!(proc::alive(old));
    drop(client);
    wait_for_within("the old worker exits", *PROMPTLY, || (!proc::alive(old)).then_some(()));
}

#[test]
fn reloads_under_load_lose_nobody() {
    let backend = Backend::echo();
    let nginx = site(&backend, 2);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut client = Client::upgraded(nginx.address(), "/ws");
                    client.echo("through all of it");
                    client.reset();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            let before = served.load(Ordering::Relaxed);
            nginx.reload();
            wait_until("clients are served on", || served.load(Ordering::Relaxed) > before + 20);
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn site(backend: &Backend, workers: usize) -> Nginx {
    Nginx::builder()
        .workers(workers)
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start()
}

fn connect(nginx: &Nginx) -> Vec<Client> {
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    all_talk(&mut clients);
    nginx.wait_inactive();
    clients
}

fn all_talk(clients: &mut [Client]) {
    for (n, client) in clients.iter_mut().enumerate() {
        client.echo(&format!("client {n}"));
    }
}
