//! Which processes there are, how they accept, and what else they do: none of it changes what becomes of a client.

use std::thread::available_parallelism;

use crate::support::daemon::{Daemon, check_log};
use crate::support::frame::{Frame, TEXT};
use crate::support::nginx::Builder;
use crate::support::{Backend, Client, Handshake, Nginx, proc};

#[test]
fn one_worker_for_each_processor() {
    let workers = available_parallelism().expect("processors").get();
    serves(Nginx::builder().main("worker_processes auto;").workers(workers));
}

#[test]
fn listening_sockets_of_each_worker() {
    serves(Nginx::builder().workers(3).listen("reuseport"));
}

#[test]
fn workers_that_take_turns_in_accepting_all_there_is() {
    serves(Nginx::builder().workers(2).events(
        "worker_connections 1024; accept_mutex on; accept_mutex_delay 20ms; multi_accept on;",
    ));
}

#[test]
fn deferred_accept() {
    // Between accept(2) and the first byte no event: the worker reads at once.
    serves(Nginx::builder().listen("deferred"));
}

#[test]
fn one_process_without_a_master() {
    serves(Nginx::builder().main("master_process off;"));
}

#[test]
fn file_read_by_a_thread_before_the_handshake() {
    let backend = Backend::echo();
    for sending in ["sendfile off;", "sendfile on; sendfile_max_chunk 64k;", "directio 4k;"] {
        let nginx = Nginx::builder()
            .file("files/blob", vec![b'b'; 1_000_000])
            .http("aio threads; aio_write on; output_buffers 2 32k;")
            .server(format!("{sending} location /ws {{ ws_handoff {}; }}", backend.address()))
            .start();
        let get = b"GET /blob HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut client = Client::connect(nginx.address());
        let early = Frame::text("early").masked();
        client.send(&[get.as_slice(), &Handshake::new("/ws").bytes(), &early].concat());
        let head = client.read_head();
        assert_eq!(client.read_body(&head).len(), 1_000_000, "{sending}");
        client.expect_101();
        client.expect_frame(TEXT, b"early");
        client.echo("behind the file");
        nginx.wait_inactive();
    }
}

#[test]
fn daemon() {
    let backend = Backend::echo();
    let builder = Nginx::builder()
        .main("daemon on;")
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let nginx = Daemon::start(&builder);
    let mut client = Client::upgraded(builder.address(), "/ws");
    client.echo("hello");
    let workers = nginx.workers();
    nginx.quit();
    assert!(workers.iter().all(|pid| !proc::alive(*pid)), "workers of a daemon that is gone");
    client.echo("without nginx");
    check_log(&builder);
}

/// Clients are handed over, talk, survive a reload (which an nginx without a master cannot do), and leave nothing behind.
fn serves(builder: Builder) {
    let backend = Backend::echo();
    let nginx = builder
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let mut clients: Vec<Client> = (0..40)
        .map(|n| {
            let mut client = Client::connect(nginx.address());
            let early = Frame::text(&format!("early {n}")).masked();
            client.send(&[Handshake::new("/ws").bytes(), early].concat());
            client.expect_101();
            client.expect_frame(TEXT, format!("early {n}").as_bytes());
            client
        })
        .collect();
    backend.wait_active(clients.len());
    nginx.wait_inactive();
    if nginx.workers() != [nginx.master()] {
        nginx.reload();
    }
    clients.iter_mut().for_each(|client| client.echo("still here"));
    clients.push(Client::upgraded(nginx.address(), "/ws"));
    drop(clients);
    backend.wait_active(0);
}
