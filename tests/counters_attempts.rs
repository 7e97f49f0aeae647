//! What `ws_handoff_zone` counts where there are several attempts, several upstreams, or none.

use crate::support::bare::BareBackend;
use crate::support::counting::{counting, fails, with_backup};
use crate::support::fake::{ABSENT, socket_dir, without_handoff};
use crate::support::metrics::{self, LOCATION, ZONE, expect};
use crate::support::{Backend, Client, FakeBackend, Handshake, Nginx};

#[test]
fn every_attempt_counts_where_it_failed() {
    let dir = socket_dir();
    let absent = |name| format!("unix:{}/{name}", dir.path().display());
    let garbage = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.try_write("garbage\r\n\r\n");
    });
    let silent = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let draining = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n");
    });
    let backend = Backend::echo();
    let failing = [
        absent("a"),
        garbage.address(),
        absent("b"),
        silent.address(),
        draining.address(),
        absent("c"),
    ];
    let failing: Vec<&str> = failing.iter().map(String::as_str).collect();
    let attempts =
        "failures ws connect 3,failures ws answer 1,failures ws timeout 1,refusals ws 503 1";

    let nginx = with_backup(&failing, &backend.address());
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    let mut expected: Vec<&str> = attempts.split(',').collect();
    expected.extend(["requests ws fd 1", "offers ws 1", "answers ws 2"]);
    expect(&nginx, &expected);

    // The last one's failure is the request's.
    let nginx = with_backup(&failing, &absent("d"));
    fails(&nginx, 502);
    let mut expected: Vec<&str> = attempts.split(',').collect();
    expected[0] = "failures ws connect 4";
    expected.extend(["requests ws failed 1", "answers ws 1"]);
    expect(&nginx, &expected);
}

#[test]
fn request_that_comes_again_by_error_page_is_two() {
    let backend = Backend::echo();
    let nginx = counting("unix:/nowhere")
        .http(format!("upstream other {{ server {}; }}", backend.address()))
        .server("error_page 502 = @other; location @other { ws_handoff other; }")
        .tolerate(ABSENT)
        .start();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    expect(
        &nginx,
        &[
            "requests ws failed 1",
            "failures ws connect 1",
            "requests other fd 1",
            "offers other 1",
            "answers other 1",
        ],
    );
}

#[test]
fn upstreams_are_counted_apart() {
    let handed = Backend::echo();
    let tunnelled = FakeBackend::tcp(without_handoff);
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {}; }}", handed.address()))
        .server(LOCATION)
        .server(format!(
            "location /a {{ ws_handoff ws; }} location /b {{ ws_handoff {}; }} \
             location /c {{ ws_handoff {}; }} location /d {{ if ($arg_x) {{ ws_handoff WS; }} }}",
            handed.address(),
            tunnelled.address()
        ))
        .start();
    for target in ["/a", "/a", "/b", "/c", "/d?x=1"] {
        Client::upgraded(nginx.address(), target).echo("hello");
    }
    let (unix, tcp) = (handed.address(), tunnelled.address());
    let mut expected =
        vec!["requests ws fd 3".to_owned(), "offers ws 3".into(), "answers ws 3".into()];
    expected.extend(
        ["requests {} fd 1", "offers {} 1", "answers {} 1"].map(|s| s.replace("{}", &unix)),
    );
    expected.extend(["requests {} tunnel 1", "answers {} 1"].map(|s| s.replace("{}", &tcp)));
    expect(&nginx, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn upstreams_that_variables_name() {
    let backend = Backend::echo();
    let path = backend.address();
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {path}; }} upstream unused {{ server {path}; }}"))
        .server(LOCATION)
        .server(format!(
            "location /ws {{ ws_handoff $arg_to; }} location /path {{ set $path {path}; ws_handoff $path; }}",
        ))
        .start();
    Client::upgraded(nginx.address(), "/ws?to=ws").echo("hello");
    Client::upgraded(nginx.address(), "/path").echo("hello");
    Client::upgraded(nginx.address(), "/path").echo("hello");
    assert_eq!(
        Client::connect(nginx.address()).ask(&Handshake::new("/ws?to=no/such")).status(),
        500
    );
    expect(
        &nginx,
        &[
            "requests ws fd 1",
            "offers ws 1",
            "answers ws 1",
            "requests variable fd 2",
            "offers variable 2",
            "answers variable 2",
            "requests variable failed 1",
            "failures variable local 1",
        ],
    );
    let text = metrics::text(&nginx);
    assert!(text.contains("upstream=\"unused\""), "{text}");
}

#[test]
fn origin_that_is_not_admitted() {
    let nginx = counting("unix:/nowhere").server("ws_handoff_origin https://example.org;").start();
    let other = Handshake::new("/ws").with("Origin", "https://example.com");
    assert_eq!(Client::connect(nginx.address()).ask(&other).status(), 403);
    expect(&nginx, &["rejected origin 403 1"]);
    let line = nginx.logged("GET /ws");
    assert_eq!((line.get("result"), line.get("error")), ("refused", "origin"));
}

#[test]
fn bare_backend_is_offered_a_socket_and_answers_nothing() {
    let backend = BareBackend::echo();
    let nginx = counting(&backend.address()).server("ws_handoff_protocol bare;").start();
    drop(Client::upgraded(nginx.address(), "/ws"));
    expect(&nginx, &["requests ws fd 1", "offers ws 1"]);
}
