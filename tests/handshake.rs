//! The opening handshake, rule by rule (RFC 6455 section 4.2.1): what is refused is refused by nginx, with
//! the status that tells the client what to change, and no backend hears of it.

use std::net::Ipv4Addr;

use crate::support::nginx::version;
use crate::support::{Client, FakeBackend, Handshake, Head, Nginx, net};

#[test]
fn right_handshake_gets_101_with_the_accept_value_of_the_rfc() {
    let (_backend, nginx) = site("");
    let head = Client::connect(nginx.address()).upgrade("/ws");
    assert_eq!(head.field("Content-Length"), None);
    assert_eq!(head.field("Transfer-Encoding"), None);
}

#[test]
fn tokens_are_found_in_lists_in_any_case_and_on_several_lines() {
    accepted(&valid().set("Connection", "keep-alive, Upgrade"));
    accepted(&valid().set("Connection", "UPGRADE").set("Upgrade", "WebSocket"));
    accepted(&valid().set("Upgrade", "h2c, websocket"));
    accepted(&valid().set("Connection", "keep-alive").with("Connection", ",, upgrade"));
    accepted(&valid().set("Upgrade", "h2c").with("upgrade", "websocket"));
}

#[test]
fn content_length_zero_is_no_body() {
    accepted(&valid().with("Content-Length", "0"));
}

#[test]
fn no_upgrade_gets_426_that_names_websocket() {
    let head = refused(&valid().without("Upgrade").without("Connection"), 426);
    assert_eq!(head.field("Upgrade"), Some("websocket"));
    let connection = head.all("Connection").join(",").to_lowercase();
    assert!(connection.contains("upgrade"), "RFC 9110 section 7.8 wants it nominated: {head:?}");
}

#[test]
fn upgrade_to_something_else_gets_426() {
    let head = refused(&valid().set("Upgrade", "h2c"), 426);
    assert_eq!(head.field("Upgrade"), Some("websocket"));
}

#[test]
fn token_inside_another_word_is_no_token() {
    refused(&valid().set("Upgrade", "websockets"), 426);
    refused(&valid().set("Connection", "no-upgrade"), 426);
}

#[test]
fn connection_without_upgrade_gets_426() {
    let head = refused(&valid().set("Connection", "keep-alive"), 426);
    assert_eq!(head.field("Upgrade"), Some("websocket"));
}

#[test]
fn other_websocket_version_gets_426_that_names_13() {
    for version in ["8", "12", "14", "013", "13, 8", ""] {
        let head = refused(&valid().set("Sec-WebSocket-Version", version), 426);
        assert_eq!(head.field("Sec-WebSocket-Version"), Some("13"), "for {version:?}");
    }
}

#[test]
fn missing_version_gets_400() {
    refused(&valid().without("Sec-WebSocket-Version"), 400);
}

#[test]
fn repeated_version_gets_400() {
    refused(&valid().with("Sec-WebSocket-Version", "13"), 400);
}

#[test]
fn missing_key_gets_400() {
    refused(&valid().without("Sec-WebSocket-Key"), 400);
}

#[test]
fn repeated_key_gets_400() {
    refused(&valid().with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), 400);
}

#[test]
fn key_of_another_length_gets_400() {
    refused(&valid().set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA"), 400); // 15 bytes
    refused(&valid().set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA="), 400); // 17 bytes
    refused(&valid().set("Sec-WebSocket-Key", ""), 400);
}

#[test]
fn key_that_is_not_base64_gets_400() {
    refused(&valid().set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j!Q=="), 400);
    refused(&valid().set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ"), 400); // no padding
}

#[test]
fn key_with_an_underscore_in_its_name_is_no_key() {
    let request =
        valid().without("Sec-WebSocket-Key").with("Sec_WebSocket_Key", "dGhlIHNhbXBsZSBub25jZQ==");
    refused_at("underscores_in_headers on;", &request, b"", 400);
}

#[test]
fn other_methods_get_405() {
    for method in ["POST", "HEAD", "PUT", "OPTIONS"] {
        let head = refused(&valid().method(method), 405);
        assert_eq!(head.field("Allow"), Some("GET"), "for {method}");
    }
}

#[test]
fn body_by_length_gets_400() {
    refused_at("", &valid().with("Content-Length", "5"), b"hello", 400);
}

#[test]
fn chunked_body_gets_400() {
    let request = valid().with("Transfer-Encoding", "chunked");
    refused_at("", &request, b"5\r\nhello\r\n0\r\n\r\n", 400);
}

#[test]
fn http_1_0_gets_400() {
    refused(&valid().version("HTTP/1.0"), 400);
}

#[test]
fn http_2_gets_426_without_the_upgrade_field() {
    let backend = FakeBackend::take_and_close();
    // Since 1.25.1 HTTP/2 is a directive beside HTTP/1; before, a listening socket without TLS had the one or the other.
    let port = net::free_port();
    let listen = if version() < (1, 25, 1) {
        format!("listen 127.0.0.1:{port} http2;")
    } else {
        format!("listen 127.0.0.1:{port}; http2 on;")
    };
    let location = format!("location /ws {{ ws_handoff {}; }}", backend.address());
    let nginx = Nginx::builder().http(format!("server {{ {listen} {location} }}")).start();
    let mut client = Client::connect((Ipv4Addr::LOCALHOST, port).into());
    client.send(&http2_request("/ws"));
    // The response's first field, a literal with the static table's name 8, ":status" (RFC 7541).
    let status = b"\x48\x03426";
    let mut seen = Vec::new();
    while !seen.windows(status.len()).any(|window| window == status) {
        seen.extend(client.read_bytes(1));
    }
    let line = nginx.logged("GET /ws");
    assert_eq!(line.get("protocol"), "HTTP/2.0");
    assert_eq!(line.get("status"), "426");
    // Connection-specific there: a client would treat the response as malformed.
    assert_eq!(line.get("upgrade"), "-");
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn refused_client_may_try_again_on_the_same_connection() {
    let (_backend, nginx) = site("");
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&valid().without("Sec-WebSocket-Key"));
    assert_eq!(head.status(), 400);
    client.read_body(&head);
    // nginx closes after some statuses (400 among them) and says so.
    if head.all("Connection").contains(&"close") {
        client = Client::connect(nginx.address());
    }
    let head = client.ask(&valid().without("Upgrade"));
    assert_eq!(head.status(), 426);
    client.read_body(&head);
    client.upgrade("/ws");
}

#[test]
fn frames_behind_a_refused_handshake_are_not_taken_for_a_request() {
    let (_backend, nginx) = site("");
    let mut client = Client::connect(nginx.address());
    let mut bytes = valid().set("Sec-WebSocket-Version", "8").bytes();
    bytes.extend(crate::support::frame::Frame::text("GET /stub_status HTTP/1.1").masked());
    client.send(&bytes);
    let head = client.read_head();
    assert_eq!(head.status(), 426);
    client.read_body(&head);
    let (rest, _) = client.expect_end();
    assert!(rest.is_empty(), "a second response: {:?}", String::from_utf8_lossy(&rest));
}

fn valid() -> Handshake {
    Handshake::new("/ws")
}

fn site(server: &str) -> (FakeBackend, Nginx) {
    let backend = FakeBackend::take_and_close();
    let location = format!("{server} location /ws {{ ws_handoff {}; }}", backend.address());
    let nginx = Nginx::builder().server(location).quiet().start();
    (backend, nginx)
}

fn accepted(request: &Handshake) {
    let (backend, nginx) = site("");
    let mut client = Client::connect(nginx.address());
    client.send(&request.bytes());
    client.expect_101();
    client.expect_end();
    assert_eq!(backend.descriptors(), 1);
}

fn refused(request: &Handshake, status: u16) -> Head {
    refused_at("", request, b"", status)
}

fn refused_at(server: &str, request: &Handshake, body: &[u8], status: u16) -> Head {
    let (backend, nginx) = site(server);
    let mut client = Client::connect(nginx.address());
    let mut bytes = request.bytes();
    bytes.extend_from_slice(body);
    client.send(&bytes);
    let head = client.read_head();
    assert_eq!(head.status(), status, "{head:?}\nfor {}", String::from_utf8_lossy(&bytes));
    assert_eq!(head.all("Sec-WebSocket-Accept"), [""; 0]);
    assert_eq!(backend.accepted(), 0, "the backend was asked");
    head
}

/// Client preface, empty SETTINGS and one HEADERS frame with what a handshake has (RFC 9113).
fn http2_request(path: &str) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let len = u8::try_from(payload.len()).expect("a short frame");
        [&[0, 0, len, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let string = |text: &str| {
        let len = u8::try_from(text.len()).expect("a short string");
        [&[len], text.as_bytes()].concat()
    };
    let fields = [
        vec![0x82, 0x86], // :method GET, :scheme http
        vec![0x04],
        string(path),
        vec![0x01],
        string("localhost"),
        vec![0x00],
        string("sec-websocket-version"),
        string("13"),
        vec![0x00],
        string("sec-websocket-key"),
        string("dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    .concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [preface.as_slice(), &frame(4, 0, 0, &[]), &frame(1, 0x5, 1, &fields)].concat()
}
