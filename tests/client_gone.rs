//! The client vanishes at each step, with a FIN or a reset: both sides clean up and nobody complains.

use std::io::Read;
use std::net::Shutdown;

use crate::support::frame::Frame;
use crate::support::peer::tcp_stream;
use crate::support::stuck::Trap;
use crate::support::{
    Backend, Client, Handshake, ManualBackend, Nginx, large, net, proc, process, wait_until,
};

/// How often each is done.
const TIMES: usize = 200;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Fin,
    Reset,
}

const WAYS: [Leave; 2] = [Leave::Fin, Leave::Reset];

#[test]
fn before_the_answer() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let before = proc::descriptors(nginx.worker()).len();
    for leave in WAYS {
        for _ in 0..TIMES {
            let mut client = Client::connect(nginx.address());
            client.send(&Handshake::new("/ws").bytes());
            let mut peer = backend.accept();
            peer.read_head();
            go(client, leave);
            assert!(peer.recv_to_end().is_empty(), "something for a client that is gone");
        }
    }
    // nginx's own words for it.
    assert_eq!(nginx.logged("GET /ws").get("status"), "499");
    cleaned_up(&nginx, before);
}

#[test]
fn before_the_answer_by_a_reset_that_discards_its_frames() {
    // A backend that never answers: only the reset can end this within the patience of a test.
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let before = proc::descriptors(nginx.worker()).len();
    let frame = Frame::text("discarded").masked();
    for behind_the_head in [true, false] {
        let mut client = Client::connect(nginx.address());
        let mut bytes = Handshake::new("/ws").bytes();
        if behind_the_head {
            bytes.extend_from_slice(&frame);
        }
        client.send(&bytes);
        let mut peer = backend.accept();
        peer.read_head();
        if !behind_the_head {
            client.send(&frame);
        }
        client.reset();
        assert!(peer.recv_to_end().is_empty(), "something for a client that is gone");
    }
    cleaned_up(&nginx, before);
}

#[test]
fn between_head_and_answer_with_the_answer_under_way() {
    // Both at once: whichever nginx sees first, the other must do no harm.
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let before = proc::descriptors(nginx.worker()).len();
    for leave in WAYS {
        for _ in 0..TIMES {
            let mut client = Client::connect(nginx.address());
            client.send(&Handshake::new("/ws").bytes());
            let mut peer = backend.accept();
            peer.read_head();
            peer.accept();
            go(client, leave);
            peer.recv_to_end();
        }
    }
    cleaned_up(&nginx, before);
}

#[test]
fn between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let before = proc::descriptors(nginx.worker()).len();
    let mut trap = Trap::new();
    for _ in 0..TIMES {
        let mut stuck = trap.catch(&nginx, &backend, "/ws", b"");
        stuck.client.reset();
        assert!(stuck.peer.recv_to_end().is_empty(), "a commit for a client that is gone");
        drop(stuck.offer);
    }
    cleaned_up(&nginx, before);
}

#[test]
fn half_closed_between_offer_and_commit_is_not_gone() {
    // It has sent all it wants to and reads on: what it sent must arrive, then its end of file.
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let last = Frame::text("last words").masked();
    let mut stuck = Trap::new().catch(&nginx, &backend, "/ws", &last);
    stuck.client.send(&last);
    stuck.client.finish_sending();
    stuck.let_off();
    stuck.read_101();
    let mut bytes = stuck.peer.recv_commit();
    let mut stream = tcp_stream(stuck.offer);
    stream.read_to_end(&mut bytes).expect("the rest");
    assert_eq!(bytes, last.repeat(2));
    stream.shutdown(Shutdown::Both).expect("shutdown");
    stuck.client.expect_end();
    nginx.wait_inactive();
}

#[test]
fn while_the_commit_is_cut_short() {
    let backend = ManualBackend::unix();
    let nginx = large::site(&backend.address(), "");
    let before = proc::descriptors(nginx.worker()).len();
    for leave in WAYS {
        let data = [b'e'; large::EARLY_DATA];
        let mut client = large::connect(&nginx, &data);
        let mut peer = backend.accept();
        wait_until("the request arrives", || peer.has_input());
        peer.accept();
        client.expect_101();
        go(client, leave);
        nginx.stub_status();
        // Whether nginx goes on (what the client sent before it left is not lost) or gives up (it was
        // reset), it does not keep the connection.
        let offer = peer.recv_head_and_offer();
        let rest = peer.recv_to_end();
        if leave == Leave::Fin {
            assert!(rest.ends_with(&[0; 5]), "no commit for a client that said all it had to say");
        }
        drop(offer);
    }
    cleaned_up(&nginx, before);
}

#[test]
fn right_after_the_101() {
    with_the_real_backend(|nginx, leave| {
        let mut client = Client::connect(nginx.address());
        client.upgrade("/ws");
        go(client, leave);
    });
}

#[test]
fn without_waiting_for_the_101() {
    with_the_real_backend(|nginx, leave| {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        go(client, leave);
    });
}

#[test]
fn with_frames_under_way() {
    with_the_real_backend(|nginx, leave| {
        let mut client = Client::connect(nginx.address());
        let frames = Frame::text("hello").masked().repeat(10);
        client.send(&[Handshake::new("/ws").bytes(), frames].concat());
        client.expect_101();
        go(client, leave);
    });
}

#[test]
fn with_half_a_frame_sent() {
    with_the_real_backend(|nginx, leave| {
        let mut client = Client::connect(nginx.address());
        let frame = Frame::text("never finished").masked();
        client.send(&[Handshake::new("/ws").bytes(), frame[..9].to_vec()].concat());
        client.expect_101();
        go(client, leave);
    });
}

#[test]
fn before_its_request_is_whole() {
    with_the_real_backend(|nginx, leave| {
        let mut client = Client::connect(nginx.address());
        client.send(b"GET /ws HTTP/1.1\r\nUpgrade: webso");
        go(client, leave);
    });
}

/// Does it many times in both ways; afterwards nginx and the backend hold what they held before.
fn with_the_real_backend(visit: impl Fn(&Nginx, Leave)) {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    Client::upgraded(nginx.address(), "/ws").reset();
    backend.wait_active(0);
    nginx.wait_inactive();
    let held = proc::descriptors(backend.pid()).len();
    let before = proc::descriptors(nginx.worker()).len();
    for leave in WAYS {
        for _ in 0..TIMES {
            visit(&nginx, leave);
        }
    }
    cleaned_up(&nginx, before);
    backend.wait_active(0);
    backend.wait_descriptors(held);
    // It still serves.
    let mut client = Client::connect_from(net::source(3), nginx.address());
    client.upgrade("/ws");
    client.echo("next");
}

fn go(client: Client, leave: Leave) {
    match leave {
        Leave::Fin => process::close(client),
        Leave::Reset => client.reset(),
    }
}

fn cleaned_up(nginx: &Nginx, before: usize) {
    nginx.wait_inactive();
    wait_until("the worker holds as many descriptors as before", || {
        proc::descriptors(nginx.worker()).len() == before
    });
}

/// `quiet`: whatever clients do here is at most `info`.
fn site(address: &str) -> Nginx {
    let location = format!("location /ws {{ ws_handoff {address}; }}");
    Nginx::builder().server(location).quiet().start()
}
