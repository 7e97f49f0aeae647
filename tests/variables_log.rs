//! `$ws_handoff_result`, `$ws_handoff_error` and `$ws_handoff_time` in the access log, for each way in which a request can
//! end.

use std::thread;
use std::time::Duration;

use crate::support::fake::{ABSENT, without_handoff};
use crate::support::stuck::{Stuck, Trap};
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, net, process, wait_for,
};

#[test]
fn handed_over() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    logged(&nginx, "fd", "-", Some(0.0));
}

#[test]
fn time_runs_from_asking_to_the_release() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        thread::sleep(Duration::from_millis(300));
        drop(peer.take_over());
    });
    let nginx = site(&backend.address());
    let _client = Client::upgraded(nginx.address(), "/ws");
    let line = logged(&nginx, "fd", "-", Some(0.3));
    // Milliseconds, as nginx writes them.
    let (_, fraction) = line.split_once('.').expect("a point");
    assert_eq!(fraction.len(), 3, "{line}");
}

#[test]
fn tunnelled() {
    let backend = FakeBackend::unix(without_handoff);
    let nginx = site(&backend.address());
    let mut client = Client::upgraded(nginx.address(), "/ws");
    thread::sleep(Duration::from_millis(1200));
    client.echo("hello");
    drop(client);
    // To its beginning, not its end.
    let time: f64 = logged(&nginx, "tunnel", "-", Some(0.0)).parse().expect("a time");
    assert!(time < 1.0, "{time}");
}

#[test]
fn refused() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    });
    let nginx = site(&backend.address());
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status(), 403);
    logged(&nginx, "refused", "-", Some(0.0));
}

#[test]
fn refused_by_nginx() {
    let nginx = site("unix:/nowhere");
    let wrong = Handshake::new("/ws").without("Upgrade");
    assert_eq!(Client::connect(nginx.address()).ask(&wrong).status(), 426);
    logged(&nginx, "refused", "handshake", None);
}

#[test]
fn failed_to_connect() {
    let nginx = Nginx::builder()
        .server("location /ws { ws_handoff unix:/nowhere; }")
        .tolerate(ABSENT)
        .start();
    ask(&nginx, 502);
    logged(&nginx, "failed", "connect", Some(0.0));
}

#[test]
fn timed_out() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let nginx = Nginx::start(format!(
        "location /ws {{ ws_handoff_read_timeout 200ms; ws_handoff {}; }}",
        backend.address()
    ));
    ask(&nginx, 504);
    logged(&nginx, "failed", "timeout", Some(0.2));
}

#[test]
fn bad_answer() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.try_write("garbage\r\n\r\n");
    });
    let nginx = site(&backend.address());
    ask(&nginx, 502);
    logged(&nginx, "failed", "answer", Some(0.0));
}

#[test]
fn client_gone() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    drop(client);
    peer.recv_to_end();
    logged(&nginx, "failed", "client", Some(0.0));
}

#[test]
fn backend_died_between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!("location /stuck {{ ws_handoff {}; }}", backend.address()))
        .start();
    let Stuck { mut client, peer, offer, .. } = Trap::new().catch(&nginx, &backend, "/stuck", b"");
    process::close((peer, offer));
    net::keep_arrivals(client.stream());
    client.expect_end();
    // Those that were not caught, if any, were handed over.
    let line = wait_for("it is logged", || {
        nginx.access_log().into_iter().find(|line| line.get("result") == "failed")
    });
    assert_eq!(line.get("error"), "backend");
    assert_eq!(line.get("upstream_status"), "502");
}

#[test]
fn last_attempt_tells_the_cause() {
    let garbage = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.try_write("garbage\r\n\r\n");
    });
    let nginx = Nginx::builder()
        .http(format!(
            "upstream ws {{ server unix:/nowhere; server {} backup; }}",
            garbage.address()
        ))
        .server("location /ws { ws_handoff ws; }")
        .tolerate(ABSENT)
        .start();
    ask(&nginx, 502);
    logged(&nginx, "failed", "answer", Some(0.0));
}

#[test]
fn known_after_an_internal_redirect() {
    let nginx = Nginx::builder()
        .server(
            "location /ws { ws_handoff unix:/nowhere; error_page 502 = @page; } \
             location @page { add_header X-Why $ws_handoff_error always; return 503 later; }",
        )
        .tolerate(ABSENT)
        .start();
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), head.field("X-Why")), (503, Some("connect")));
    logged(&nginx, "failed", "connect", Some(0.0));
}

#[test]
fn latest_visit_counts_where_there_are_several() {
    let backend = Backend::echo();
    let nginx = Nginx::builder()
        .server(format!(
            "location /ws {{ ws_handoff unix:/nowhere; error_page 502 = @other; }} \
             location @other {{ ws_handoff {}; }}",
            backend.address()
        ))
        .tolerate(ABSENT)
        .start();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    logged(&nginx, "fd", "-", Some(0.0));
}

#[test]
fn nothing_to_do_with_it() {
    let nginx = Nginx::start(
        "location /other { return 200 \"<$ws_handoff_result$ws_handoff_error$ws_handoff_time>\"; }",
    );
    let mut client = Client::connect(nginx.address());
    let (_, body) = client.get("/other");
    assert_eq!(body, b"<>");
    let line = nginx.logged("GET /other");
    for name in ["result", "error", "handoff_time"] {
        assert_eq!(line.get(name), "-");
    }
}

fn site(address: &str) -> Nginx {
    Nginx::start(format!("location /ws {{ ws_handoff {address}; }}"))
}

fn ask(nginx: &Nginx, status: u16) {
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status(), status);
}

/// What the access log says of the only request; a time is at least as long as given. The time.
fn logged(nginx: &Nginx, result: &str, error: &str, time: Option<f64>) -> String {
    let line = nginx.logged("GET /ws");
    assert_eq!((line.get("result"), line.get("error")), (result, error), "{line:?}");
    match time {
        Some(least) => {
            let time = line.seconds("handoff_time");
            assert!((least - 0.02..least + 10.0).contains(&time), "{time}");
        }
        None => assert_eq!(line.get("handoff_time"), "-"),
    }
    line.get("handoff_time").to_owned()
}
