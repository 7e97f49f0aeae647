//! `ws_handoff_origin`: a page of another site cannot open a WebSocket with its visitor's cookies.

use crate::support::frame::Frame;
use crate::support::{Client, FakeBackend, Handshake, Nginx};

#[test]
fn only_named_origins_are_asked_for() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::start(format!(
        "location /ws {{ ws_handoff {}; \
             ws_handoff_origin https://example.org *.example.org:8443 ~^https://[ab]\\.test$ \
                 ~*^https://case\\.test$; }}",
        backend.address()
    ));
    for origin in [
        "https://example.org",
        "HTTPS://EXAMPLE.ORG:443",
        "http://chat.example.org:8443",
        "https://a.test",
        "https://CASE.test",
    ] {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").with("Origin", origin).bytes());
        client.expect_101();
        client.echo(origin);
        drop(client);
    }
    let before = backend.accepted();
    for origin in [
        "https://evil.example",
        "https://evilexample.org",
        "https://example.org@evil.example",
        "http://example.org",
        "https://example.org:8443",
        "https://c.test",
        "https://A.test",
        "https://a.test.evil.example",
        "https://evil.example https://a.test",
        "null",
        "",
    ] {
        assert_eq!(ask(&nginx, &Handshake::new("/ws").with("Origin", origin)), 403, "{origin}");
    }
    let twice = Handshake::new("/ws")
        .with("Origin", "https://example.org")
        .with("Origin", "https://example.org");
    assert_eq!(ask(&nginx, &twice), 403);
    assert_eq!(ask(&nginx, &Handshake::new("/ws")), 403);
    assert_eq!(backend.accepted(), before);

    let log = nginx.error_log();
    let refused = "which \"ws_handoff_origin\" does not admit, client: 127.0.0.1";
    for what in [
        "the origin \"https://evil.example\"",
        "the origin \"null\"",
        "more than one origin",
        "no origin",
    ] {
        let line = format!("client sent {what}, {refused}");
        assert!(log.lines().any(|l| l.contains(" [info] ") && l.contains(&line)), "{line}\n{log}");
    }
    assert_eq!(nginx.logged("GET /ws").get("status"), "101");
}

#[test]
fn any_none_null_and_the_same_origin() {
    let backend = FakeBackend::echo();
    let location = |name: &str, directive: &str| {
        format!("location /{name} {{ ws_handoff {}; {directive} }}", backend.address())
    };
    let nginx = Nginx::start(
        location("default", "")
            + &location("any", "ws_handoff_origin any;")
            + &location("none", "ws_handoff_origin none https://example.org;")
            + &location("null", "ws_handoff_origin null;")
            + &location("same", "ws_handoff_origin same-origin;"),
    );
    let absent = Handshake::new("");
    let null = absent.clone().with("Origin", "null");
    let named = absent.clone().with("Origin", "https://example.org");
    let own =
        absent.clone().set("Host", "chat.example:8080").with("Origin", "http://chat.example:8080");
    let twice = null.clone().with("Origin", "null");
    for (name, admitted) in [
        ("default", [true, true, true, true, true]),
        ("any", [true, true, true, true, true]),
        ("none", [true, false, true, false, false]),
        ("null", [false, true, false, false, false]),
        ("same", [false, false, false, true, false]),
    ] {
        for (request, admitted) in [&absent, &null, &named, &own, &twice].into_iter().zip(admitted)
        {
            let request = request.clone().target(&format!("/{name}"));
            let status = if admitted { 101 } else { 403 };
            let text = String::from_utf8(request.bytes()).expect("ASCII");
            assert_eq!(ask(&nginx, &request), status, "{text}");
        }
    }
}

#[test]
fn levels_replace_each_other() {
    let backend = FakeBackend::echo();
    let address = backend.address();
    let nginx = Nginx::builder()
        .http("ws_handoff_origin https://http.example;")
        .server(format!(
            "location /inherits {{ ws_handoff {address}; }} \
             location /replaces {{ ws_handoff {address}; ws_handoff_origin https://location.example; }} \
             location /opens {{ ws_handoff {address}; ws_handoff_origin any; }} \
             location /if {{ ws_handoff {address}; if ($arg_a) {{ set $b 1; }} }}"
        ))
        .start();
    for (target, http, location) in [
        ("/inherits", 101, 403),
        ("/replaces", 403, 101),
        ("/opens", 101, 101),
        ("/if?a=1", 101, 403),
    ] {
        for (origin, status) in
            [("https://http.example", http), ("https://location.example", location)]
        {
            let request = Handshake::new(target).with("Origin", origin);
            assert_eq!(ask(&nginx, &request), status, "{target} from {origin}");
        }
    }
}

#[test]
fn refused_connection_goes_on_unless_frames_follow() {
    let nginx = Nginx::start(
        "location /ws { ws_handoff unix:/absent; ws_handoff_origin same-origin; \
             error_page 403 = @page; } \
         location @page { return 200 'not from there'; } location /page { return 200 page; }",
    );
    let foreign = Handshake::new("/ws").with("Origin", "https://evil.example");
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&foreign);
    assert_eq!((head.status(), client.read_body(&head)), (200, b"not from there".to_vec()));
    assert_eq!(client.get("/page").1, b"page");

    let mut client = Client::connect(nginx.address());
    client.send(&[foreign.bytes(), Frame::text("GET / HTTP/1.1").masked()].concat());
    let head = client.read_head();
    assert_eq!(head.field("Connection"), Some("close"));
    client.read_body(&head);
    client.expect_end();
}

#[test]
fn a_long_origin_is_cut_and_escaped_in_the_log() {
    let nginx = Nginx::start("location /ws { ws_handoff unix:/absent; ws_handoff_origin none; }");
    let origin = format!("https://\u{e4}\"\\{}", "a".repeat(600));
    assert_eq!(ask(&nginx, &Handshake::new("/ws").with("Origin", &origin)), 403);
    let expected =
        format!("the origin \"https://\\xc3\\xa4\\\"\\\\{}...\", which", "a".repeat(244));
    assert!(nginx.error_log().contains(&expected), "{}", nginx.error_log());
}

#[test]
fn what_is_no_handshake_is_told_that_first() {
    let nginx =
        Nginx::start("location /ws { ws_handoff unix:/absent; ws_handoff_origin same-origin; }");
    let request = Handshake::new("/ws").without("Upgrade").with("Origin", "https://evil.example");
    assert_eq!(ask(&nginx, &request), 426);
}

/// The status that `request` gets, on a connection of its own.
fn ask(nginx: &Nginx, request: &Handshake) -> u16 {
    Client::connect(nginx.address()).ask(request).status()
}
