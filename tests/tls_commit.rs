//! The commit that carries a TLS session, where it does not arrive at once, or not at all.

use std::thread;

use crate::support::tls_site::Site;
use crate::support::{ManualBackend, frame, tls, wait_until};

/// More than the request's head: a part of the commit is behind it, and the socket is full.
const HEAD: usize = 190_000 + 1_000;

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nHandoff: fd-tls\r\n\r\n";

fn site(backend: &ManualBackend) -> Site {
    let large = "client_header_buffer_size 512k; large_client_header_buffers 4 512k;";
    Site::with(&backend.address(), "rcvbuf=1m", large, |builder, _| builder)
}

#[test]
fn session_in_a_commit_that_takes_several_writes_is_carried_on() {
    let backend = ManualBackend::unix();
    let site = site(&backend);
    let worker = site.nginx.worker().to_string();
    thread::scope(|scope| {
        let client = scope.spawn(|| site.run("large", &["--worker", &worker]));
        let mut peer = backend.accept();
        wait_until("the request arrives", || peer.has_input());
        peer.write(ACCEPTED);
        wait_until("the commit is under way", || peer.queued() > HEAD);
        // It waits, and the worker serves others.
        site.nginx.stub_status();
        let mut taken = tls::take_late(&mut peer);
        assert!(taken.early_data.len() > 60_000, "{}", taken.early_data.len());
        frame::echo(&mut taken.stream, &taken.early_data);
        taken.stream.close();
        client.join().expect("the client is content");
    });
    site.all_were("tls", "-");
}

#[test]
fn session_whose_backend_goes_away_meanwhile_ends() {
    let backend = ManualBackend::unix();
    let site = site(&backend);
    let worker = site.nginx.worker().to_string();
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            std::panic::catch_unwind(|| site.run("large", &["--worker", &worker])).is_err()
        });
        let peer = {
            let mut peer = backend.accept();
            wait_until("the request arrives", || peer.has_input());
            peer.write(ACCEPTED);
            wait_until("the commit is under way", || peer.queued() > HEAD);
            peer
        };
        drop(peer);
        assert!(client.join().expect("joined"), "the client was served by nobody");
    });
    site.nginx.wait_inactive();
    assert_eq!(site.nginx.logged("GET /ws").get("result"), "failed");
}
