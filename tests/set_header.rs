//! `ws_handoff_set_header`: what nginx itself says in the request head, in place of whatever a client says.

use std::thread;
use std::time::Duration;

use crate::support::{Client, FakeBackend, Handshake, Head, Nginx};

#[test]
fn values_may_hold_variables() {
    let head = seen(
        "ws_handoff_set_header X-Room $arg_room; ws_handoff_set_header X-Fixed 'two words'; \
         ws_handoff_set_header X-Both \"a-${request_method}-b\";",
        "",
        &Handshake::new("/ws?room=7"),
    );
    assert_eq!(head.field("X-Room"), Some("7"));
    assert_eq!(head.field("X-Fixed"), Some("two words"));
    assert_eq!(head.field("X-Both"), Some("a-GET-b"));
    // What it says by itself stays.
    assert_eq!(head.field("X-Real-IP"), Some("127.0.0.1"));
    assert_eq!(head.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(head.field("X-Forwarded-Proto"), Some("http"));
    assert_eq!(head.field("Host"), Some("localhost"));
}

#[test]
fn clients_field_of_that_name_does_not_pass_in_any_spelling() {
    let request = Handshake::new("/ws").with("x-user", "mallory").with("X_User", "mallory");
    let head = seen("ws_handoff_set_header X-User alice;", "underscores_in_headers on;", &request);
    assert_eq!(head.all("X-User"), ["alice"]);
}

#[test]
fn empty_value_removes_the_field() {
    let request = Handshake::new("/ws?empty=")
        .with("X-User", "mallory")
        .with("Cookie", "session=1")
        .with("Origin", "https://example.org");
    let head = seen(
        "ws_handoff_set_header X-User ''; ws_handoff_set_header Cookie $arg_empty; \
         ws_handoff_set_header X_Real_IP ''; ws_handoff_set_header X-None $arg_none;",
        "",
        &request,
    );
    for name in ["X-User", "Cookie", "X-Real-IP", "X-None"] {
        assert_eq!(head.all(name), [""; 0], "{name}");
    }
    assert_eq!(head.field("Origin"), Some("https://example.org"));
    assert_eq!(head.field("X-Forwarded-For"), Some("127.0.0.1"));
}

#[test]
fn own_fields_are_overridden_by_name() {
    let request = Handshake::new("/ws").with("X-Forwarded-For", "192.0.2.1");
    let head = seen(
        "ws_handoff_set_header x-forwarded-for $proxy_add_x_forwarded_for; \
         ws_handoff_set_header X_Real_IP 192.0.2.9; ws_handoff_set_header X-Forwarded-Proto https;",
        "",
        &request,
    );
    assert_eq!(head.field("X-Forwarded-For"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(head.field("X-Real-IP"), Some("192.0.2.9"));
    assert_eq!(head.field("X-Forwarded-Proto"), Some("https"));
}

#[test]
fn host_is_replaced() {
    let request = Handshake::new("/ws").set("Host", "Chat.Example:8080");
    for (value, host) in [
        ("$host", "chat.example"),
        ("$http_host", "Chat.Example:8080"),
        ("backend.internal", "backend.internal"),
        // HTTP/1.1 cannot do without one.
        ("''", ""),
    ] {
        let head = seen(&format!("ws_handoff_set_header Host {value};"), "", &request);
        assert_eq!(head.field("Host"), Some(host), "{value}");
    }
}

#[test]
fn repeated_name_sends_both() {
    let head = seen(
        "ws_handoff_set_header X-Tag a; ws_handoff_set_header X-Tag b; ws_handoff_set_header x-tag '';",
        "",
        &Handshake::new("/ws").with("X-Tag", "c"),
    );
    assert_eq!(head.all("X-Tag"), ["a", "b"]);
}

#[test]
fn level_without_any_inherits_all_and_one_with_any_none() {
    let backend = FakeBackend::echo();
    let address = backend.address();
    let nginx = Nginx::builder()
        .http("ws_handoff_set_header X-Level http;")
        .server(format!(
            "ws_handoff_set_header X-Level server; ws_handoff_set_header X-Server yes; \
             location /inherits {{ ws_handoff {address}; }} \
             location /replaces {{ ws_handoff {address}; ws_handoff_set_header X-Location yes; }} \
             location /if {{ ws_handoff {address}; ws_handoff_set_header X-Location yes; \
                 if ($arg_a) {{ set $b 1; }} }}"
        ))
        .start();
    for (target, level, server, location) in [
        ("/inherits", Some("server"), Some("yes"), None),
        ("/replaces", None, None, Some("yes")),
        ("/if?a=1", None, None, Some("yes")),
    ] {
        Client::connect(nginx.address()).upgrade(target);
        let heads = backend.heads();
        let head = heads.last().expect("a head");
        let found = ["X-Level", "X-Server", "X-Location"].map(|name| head.field(name));
        assert_eq!(found, [level, server, location], "{target}");
    }
}

#[test]
fn value_that_would_end_the_line_refuses_the_request() {
    let backend = FakeBackend::echo();
    for directive in ["ws_handoff_set_header X-Path $uri;", "ws_handoff_set_header Host $uri;"] {
        let nginx = Nginx::start(format!(
            "location /ws {{ ws_handoff {}; {directive} }}",
            backend.address()
        ));
        for end in ["%0D%0AX-Admin:%20yes", "%0AX-Admin:%20yes", "%0D", "%01"] {
            let mut client = Client::connect(nginx.address());
            let head = client.ask(&Handshake::new(&format!("/ws{end}")));
            assert_eq!(head.status(), 400, "{end}");
        }
        let name = directive.split(' ').nth(1).expect("a name");
        assert!(nginx.error_log().contains(&format!(
            "the request for the backend cannot be built: the value of \"{name}\" contains a control \
             character"
        )));
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn variables_are_evaluated_once_for_all_peers() {
    let first = FakeBackend::unix(|mut peer| {
        peer.read_head();
        thread::sleep(Duration::from_millis(50));
    });
    let second = FakeBackend::tcp(crate::support::fake::without_handoff);
    let nginx = Nginx::builder()
        .http(format!(
            "upstream both {{ server {}; server {} backup; }}",
            first.address(),
            second.address()
        ))
        .server("location /ws { ws_handoff both; ws_handoff_set_header X-Time $msec; }")
        .start();
    let mut client = Client::connect(nginx.address());
    client.upgrade("/ws");
    client.echo("the second");
    drop(client);
    let (first, second) = (first.only_head(), second.only_head());
    assert!(first.field("X-Time").is_some());
    assert_eq!(first.field("X-Time"), second.field("X-Time"));
    assert_eq!(second.field("Handoff"), None);
}

/// The head that a backend sees of `request` at a location with `directives`.
fn seen(directives: &str, server: &str, request: &Handshake) -> Head {
    let backend = FakeBackend::echo();
    let nginx = Nginx::start(format!(
        "{server} location /ws {{ ws_handoff {}; {directives} }}",
        backend.address()
    ));
    let mut client = Client::connect(nginx.address());
    client.send(&request.bytes());
    client.expect_101();
    backend.only_head()
}
