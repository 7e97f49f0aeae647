//! limit_conn: a client takes a place until it is handed over, refused or gone, and for as long as it is tunnelled.

use crate::support::fake::without_handoff;
use crate::support::{Client, FakeBackend, Handshake, ManualBackend, Nginx, Peer, wait_until};

/// Clients of one address share their places.
const ZONE: &str = "limit_conn_zone $binary_remote_addr zone=address:1m;";

#[test]
fn client_takes_a_place_until_it_is_handed_over() {
    let backend = ManualBackend::unix();
    let nginx = site("limit_conn address 1;", &backend.address());
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (mut first, mut peer) = ask(&nginx, &backend, "/ws");
        // While it is asked for, there is no place for another.
        assert_eq!(status(&nginx, "/ws"), 503);
        kept.push(peer.take_over());
        first.expect_101();
        // Handed over it has none: a limit on live clients is the backend's to keep.
        nginx.wait_inactive();
        kept.last_mut().map(|taken| &taken.stream).expect("just pushed");
        drop(first);
    }
    assert!(backend.try_accept().is_none(), "a refused client reached the backend");
}

#[test]
fn places_are_those_of_a_zone_and_a_key() {
    let backend = ManualBackend::unix();
    let address = backend.address();
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(
            "limit_conn_zone $binary_remote_addr zone=other:1m; \
             limit_conn_zone $binary_remote_addr$arg_key zone=key:1m;",
        )
        .server(format!(
            "ws_handoff_read_timeout 60s; \
             location /ws {{ limit_conn address 1; ws_handoff {address}; }} \
             location /same {{ limit_conn address 1; ws_handoff {address}; }} \
             location /more {{ limit_conn address 2; ws_handoff {address}; }} \
             location /other {{ limit_conn other 1; ws_handoff {address}; }} \
             location /key {{ limit_conn key 1; ws_handoff {address}; }}"
        ))
        .start();
    let held = ask(&nginx, &backend, "/ws");
    assert_eq!(status(&nginx, "/same"), 503);
    let more = ask(&nginx, &backend, "/more");
    assert_eq!(status(&nginx, "/more"), 503);
    let other = ask(&nginx, &backend, "/other");
    let key = ask(&nginx, &backend, "/key");
    assert_eq!(status(&nginx, "/key"), 503);
    let another_key = ask(&nginx, &backend, "/key?key=2");

    // Clients that leave while they are asked for.
    drop([held, more, other, key, another_key]);
    nginx.wait_inactive();
    for target in ["/same", "/more", "/other", "/key"] {
        drop(ask(&nginx, &backend, target));
        nginx.wait_inactive();
    }
}

#[test]
fn place_is_free_after_a_handshake_that_failed() {
    let backend = ManualBackend::unix();
    let nginx = site("limit_conn address 1; ws_handoff_read_timeout 300ms;", &backend.address());
    let failures = [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        ("garbage\r\n\r\n", 502),
        ("", 504),
    ];
    for (n, (answer, verdict)) in failures.into_iter().enumerate() {
        let (mut client, mut peer) = ask(&nginx, &backend, "/ws");
        peer.write(answer);
        assert_eq!(client.read_head().status(), verdict);
        // The client stays: it is the request that had the place.
        let (mut next, mut peer) = ask(&nginx, &backend, "/ws");
        drop(peer.take_over());
        next.expect_101();
        // The place goes with the request, in the same event as the line is written.
        wait_until("it is logged", || {
            let log = nginx.access_log();
            log.iter().filter(|line| line.get("status") == "101").count() == n + 1
        });
    }
    // The same for a connection between nginx and its backend that breaks behind the offer.
    let (client, mut peer) = ask(&nginx, &backend, "/ws");
    peer.accept();
    drop((peer.recv_offer(), peer, client));
    nginx.wait_inactive();
    drop(ask(&nginx, &backend, "/ws"));
}

#[test]
fn tunnelled_client_keeps_its_place() {
    let plain = FakeBackend::unix(without_handoff);
    let nginx = site("limit_conn address 1;", &plain.address());
    for _ in 0..2 {
        let mut client = Client::upgraded(nginx.address(), "/ws");
        client.echo("through nginx");
        assert_eq!(status(&nginx, "/ws"), 503);
        client.echo("not concerned");
        drop(client);
        nginx.wait_inactive();
    }
}

#[test]
fn status_log_level_and_dry_run() {
    let backend = ManualBackend::unix();
    let address = backend.address();
    let nginx = Nginx::builder()
        .http(ZONE)
        .http("log_format limits '$uri $limit_conn_status $status';")
        .server(format!(
            "add_header X-Limit $limit_conn_status always; access_log limits.log limits; \
             limit_conn_log_level info; limit_conn_status 429; limit_conn address 1; \
             location /ws {{ ws_handoff {address}; }} \
             location /dry {{ limit_conn_dry_run on; ws_handoff {address}; }}"
        ))
        .quiet()
        .start();
    let (mut held, mut peer) = ask(&nginx, &backend, "/ws");
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), head.field("X-Limit")), (429, Some("REJECTED")));

    let (mut dry, mut dry_peer) = ask(&nginx, &backend, "/dry");
    drop(dry_peer.take_over());
    assert_eq!(dry.expect_101().field("X-Limit"), Some("REJECTED_DRY_RUN"));
    drop(peer.take_over());
    assert_eq!(held.expect_101().field("X-Limit"), Some("PASSED"));

    let log = nginx.error_log();
    for line in ["limiting connections by zone \"address\"", "limiting connections, dry run"] {
        let logged = log.lines().any(|text| text.contains("[info]") && text.contains(line));
        assert!(logged, "{line}\n{log}");
    }
    let expected = ["/ws REJECTED 429", "/dry REJECTED_DRY_RUN 101", "/ws PASSED 101"];
    wait_until("all are logged", || {
        let text = std::fs::read_to_string(nginx.dir().join("limits.log")).expect("a log");
        expected.iter().all(|line| text.lines().any(|logged| logged == *line))
    });
}

/// A location `/ws` with these directives.
fn site(directives: &str, address: &str) -> Nginx {
    Nginx::builder()
        .http(ZONE)
        .server(format!("location /ws {{ {directives} ws_handoff {address}; }}"))
        .start()
}

/// A client for whom the backend is being asked.
fn ask(nginx: &Nginx, backend: &ManualBackend, target: &str) -> (Client, Peer) {
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new(target).bytes());
    let mut peer = backend.accept();
    peer.read_head();
    (client, peer)
}

fn status(nginx: &Nginx, target: &str) -> u16 {
    Client::connect(nginx.address()).ask(&Handshake::new(target)).status()
}
