//! The binary of a running nginx is replaced: USR2 starts the new one beside the old, WINCH ends the old one's
//! workers, QUIT the old master. Nobody who was handed over notices.

use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::{Daemon, check_log, wait_gone};
use crate::support::nginx::Builder;
use crate::support::s_client::SClient;
use crate::support::tls_site::{echo, upgrade as upgrade_tls};
use crate::support::{
    Backend, Client, Handshake, ManualBackend, Nginx, net, proc, tls, wait_until,
};

#[test]
fn handed_over_clients_live_on() {
    let backend = Backend::echo();
    let (site, old) = site(&backend.address());
    let mut clients: Vec<Client> =
        (0..30).map(|_| Client::upgraded(site.address(), "/ws")).collect();
    let old_workers = old.workers();
    let new = upgrade(&site, &old);

    // Both accept now.
    clients.extend((0..10).map(|_| Client::upgraded(site.address(), "/ws")));
    old.signal(Signal::SIGWINCH);
    wait_gone(&old_workers);
    clients.iter_mut().for_each(|client| client.echo("without the old workers"));
    clients.push(Client::upgraded(site.address(), "/ws"));

    old.quit();
    assert!(proc::alive(new.pid()));
    clients.push(Client::upgraded(site.address(), "/ws"));
    backend.wait_active(clients.len());
    new.quit();
    clients.iter_mut().for_each(|client| client.echo("without any nginx"));
    check_log(&site);
}

#[test]
fn the_old_one_can_go_on() {
    let backend = Backend::echo();
    let (site, old) = site(&backend.address());
    let mut clients = vec![Client::upgraded(site.address(), "/ws")];
    let old_workers = old.workers();
    let new = upgrade(&site, &old);
    old.signal(Signal::SIGWINCH);
    wait_gone(&old_workers);
    clients.push(Client::upgraded(site.address(), "/ws"));
    // The way back: the old master starts workers again, the new one quits.
    old.signal(Signal::SIGHUP);
    old.wait_workers(2);
    new.quit();
    clients.push(Client::upgraded(site.address(), "/ws"));
    clients.iter_mut().for_each(|client| client.echo("still here"));
    old.quit();
    check_log(&site);
}

#[test]
fn tls_clients_that_were_handed_over_live_on() {
    let backend = tls::echo();
    let port = net::free_port();
    let site = Nginx::builder().main("daemon on;").workers(2).http(format!(
        "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate cert.pem; ssl_certificate_key cert.key; \
         location /ws {{ ws_handoff_tls on; ws_handoff {}; }} }}",
        backend.address()
    ));
    tls::certificate(site.dir(), "cert", "localhost");
    let old = Daemon::start(&site);
    old.wait_workers(2);
    let mut first = SClient::connect(port, &[]);
    upgrade_tls(&mut first, "first");
    let new = upgrade(&site, &old);
    old.quit();
    let mut second = SClient::connect(port, &[]);
    upgrade_tls(&mut second, "second");
    new.quit();
    echo(&mut first, "without any nginx");
    echo(&mut second, "without any nginx");
    check_log(&site);
}

#[test]
fn handshake_under_way_is_finished_by_the_old_worker() {
    let backend = ManualBackend::unix();
    let (site, old) = site(&backend.address());
    let mut client = Client::connect(site.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    let old_workers = old.workers();
    let _new = upgrade(&site, &old);
    old.signal(Signal::SIGWINCH);
    wait_until("one worker has nothing left to do", || old.workers().len() == 1);
    let taken = peer.take_over();
    client.expect_101();
    wait_gone(&old_workers);
    drop(taken);
    client.expect_end();
    old.quit();
}

#[test]
fn workers_killed_one_after_the_other_lose_nobody() {
    let backend = Backend::echo();
    let nginx = Nginx::builder()
        .workers(2)
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .tolerate("exited on signal 9")
        .start();
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..4 {
        clients.extend((0..10).map(|_| Client::upgraded(nginx.address(), "/ws")));
        nginx.wait_inactive();
        for victim in nginx.workers() {
            kill(Pid::from_raw(victim), Signal::SIGKILL).expect("kill a worker");
        }
        wait_until("two other workers run", || nginx.workers().len() == 2);
    }
    clients.iter_mut().for_each(|client| client.echo("still here"));
    backend.wait_active(clients.len());
}

#[test]
fn listening_unix_socket_outlives_either_master() {
    let backend = Backend::echo();
    let site = Nginx::builder().main("daemon on;").workers(2);
    let socket = site.dir().join("listen");
    let listen = format!("listen unix:{};", socket.display());
    let location = format!("location /ws {{ ws_handoff {}; }}", backend.address());
    let site = site.server(listen).server(location);
    let mut clients: Vec<Client> = Vec::new();
    let mut another = || {
        let mut client = Client::over(UnixStream::connect(&socket).expect("connect"));
        client.upgrade("/ws");
        clients.push(client);
        clients.iter_mut().for_each(|client| client.echo("still here"));
    };
    let old = Daemon::start(&site);
    old.wait_workers(2);
    another();
    let new = upgrade(&site, &old);
    another();
    old.quit();
    another();
    // The way back from an upgrade that failed: the newest goes at once, and leaves the name of the socket there.
    let newest = upgrade(&site, &new);
    another();
    newest.signal(Signal::SIGTERM);
    wait_gone(&[newest.pid()]);
    another();
    new.quit();
    clients.iter_mut().for_each(|client| client.echo("without any nginx"));
    check_log(&site);
}

/// Two workers that hand over to `backend`.
fn site(backend: &str) -> (Builder, Daemon) {
    // A master that is not a daemon takes the program that started it for an nginx being replaced, and ignores USR2.
    let site = Nginx::builder()
        .main("daemon on;")
        .workers(2)
        .server(format!("location /ws {{ ws_handoff {backend}; }}"));
    let old = Daemon::start(&site);
    old.wait_workers(2);
    (site, old)
}

/// Starts the new binary, which is the same file, and waits until it has its workers.
fn upgrade(site: &Builder, old: &Daemon) -> Daemon {
    let pid_file = site.dir().join("nginx.pid");
    old.signal(Signal::SIGUSR2);
    wait_until("the old pid file is renamed", || site.dir().join("nginx.pid.oldbin").is_file());
    let new = Daemon::of(&pid_file);
    assert_ne!(new.pid(), old.pid());
    new.wait_workers(2);
    new
}
