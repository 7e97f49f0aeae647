//! No descriptor is leaked, whichever way a thousand offers go wrong.

use std::os::fd::AsRawFd;

use crate::fake::client::Client;
use crate::fake::nginx::{Nginx, tcp_pair};
use crate::fake::program::{Program, wait_until};

const TIMES: usize = 1000;

/// Does something a thousand times, and waits until the program has as many descriptors as before.
fn leaves_nothing(what: &str, mut attempt: impl FnMut(&Program)) {
    let program = Program::start(&["--log-level", "info"]);
    // Whatever is opened only once is open by now.
    attempt(&program);
    Client::connect(program.listen, "/").close();
    wait_until("it is quiet", || program.metric("websocket_connections_active") == 0.0);
    let before = program.descriptors();
    for _ in 0..TIMES {
        attempt(&program);
    }
    wait_until(&format!("{what}: {before} descriptors again"), || program.descriptors() <= before);
    let mut client = Client::connect(program.listen, "/");
    client.text("still well");
    assert_eq!(client.receive_text(), "still well");
}

#[test]
fn ends_before_and_after_the_head() {
    leaves_nothing("nothing sent", |program| drop(Nginx::connect(&program.socket())));
    leaves_nothing("before the offer", |program| drop(Nginx::accepted(&program.socket())));
}

#[test]
fn ends_between_offer_and_commit() {
    let (_theirs, held) = tcp_pair();
    leaves_nothing("before the commit", |program| {
        Nginx::accepted(&program.socket()).offer(&held);
    });
    leaves_nothing("within the commit", |program| {
        let mut nginx = Nginx::accepted(&program.socket());
        nginx.offer(&held);
        nginx.send(b"C\x01\0\0");
    });
}

#[test]
fn wrong_descriptors() {
    let (_theirs, held) = tcp_pair();
    let (pipe, _writer) = nix::unistd::pipe().expect("pipe");
    leaves_nothing("two", |program| {
        Nginx::accepted(&program.socket()).pass(b"F", &[held.as_raw_fd(); 2]);
    });
    leaves_nothing("too many", |program| {
        Nginx::accepted(&program.socket()).pass(b"F", &[held.as_raw_fd(); 50]);
    });
    leaves_nothing("a pipe", |program| {
        Nginx::accepted(&program.socket()).pass(b"F", &[pipe.as_raw_fd()]);
    });
    leaves_nothing("with the head", |program| {
        let head = crate::fake::nginx::request("/", "Handoff: fd; v=1\r\n");
        Nginx::connect(&program.socket()).pass(head.as_bytes(), &[held.as_raw_fd()]);
    });
    leaves_nothing("bad commits", |program| {
        let mut nginx = Nginx::accepted(&program.socket());
        nginx.offer(&held);
        nginx.send(b"no commit");
    });
}

#[test]
fn clients_that_come_and_go() {
    leaves_nothing("committed, then gone", |program| {
        let (theirs, held) = tcp_pair();
        let mut nginx = Nginx::accepted(&program.socket());
        nginx.offer(&held);
        nginx.commit(b"");
        drop((theirs, held));
    });
}
