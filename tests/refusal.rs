//! A backend says no, and the client sees exactly that: status, fields and body, however the body is
//! delimited; then the connection goes on, unless frames are under way.

use crate::support::frame::Frame;
use crate::support::{Client, FakeBackend, Handshake, ManualBackend, Nginx};

const BODY: &str = "{\"error\": \"no such room\"}\n";

#[test]
fn refusal_with_content_length() {
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nX-Reason: room\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let (backend, nginx) = refusing(&answer);
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!(head.line, "HTTP/1.1 403 Forbidden");
    assert_eq!(head.field("Content-Type"), Some("application/json"));
    assert_eq!(head.field("Content-Length"), Some(BODY.len().to_string().as_str()));
    assert_eq!(head.field("X-Reason"), Some("room"));
    assert_eq!(head.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(head.field("Upgrade"), None);
    assert_eq!(head.field("Sec-WebSocket-Accept"), None);
    assert_eq!(client.read_body(&head), BODY.as_bytes());
    assert_eq!(backend.descriptors(), 0);

    let line = nginx.logged("GET /ws");
    assert_eq!((line.get("status"), line.get("upstream_status")), ("403", "403"));
    assert_eq!(line.get("body_bytes"), BODY.len().to_string());
}

#[test]
fn refusal_in_chunks() {
    // Chunks of 1, 2, 3... bytes, one with an extension, and a trailer.
    let mut answer =
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nX-Reason: a\r\n\r\n".to_owned();
    let (mut rest, mut size) = (BODY, 1);
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(size.min(rest.len()));
        let extension = if size == 2 { ";why=not" } else { "" };
        answer.push_str(&format!("{:X}{extension}\r\n{chunk}\r\n", chunk.len()));
        (rest, size) = (left, size + 1);
    }
    answer.push_str("0\r\nX-Trailer: t\r\n\r\n");
    seen_as_403(&answer, true);
}

#[test]
fn large_chunked_refusal() {
    let body: String = (0..40_000).map(|n| format!("{n}\n")).collect();
    let mut answer =
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned().into_bytes();
    for chunk in body.as_bytes().chunks(7919) {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    let backend = FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write(&answer);
        peer.recv_to_end();
    });
    let nginx = site(&backend);
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!(head.status(), 403);
    assert!(client.read_body(&head) == body.as_bytes());
}

#[test]
fn refusal_to_the_end_of_file() {
    seen_as_403(&format!("HTTP/1.1 403 Forbidden\r\nX-Reason: a\r\n\r\n{BODY}"), false);
}

#[test]
fn refusal_by_an_http_1_0_backend() {
    seen_as_403(&format!("HTTP/1.0 403 Forbidden\r\nX-Reason: a\r\n\r\n{BODY}"), false);
}

#[test]
fn refusal_byte_by_byte() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        let answer = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n\
                      5\r\nhello\r\n0\r\n\r\n";
        answer.bytes().for_each(|byte| peer.write([byte]));
        peer.recv_to_end();
    });
    let nginx = site(&backend);
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), client.read_body(&head)), (403, b"hello".to_vec()));
}

#[test]
fn refusal_without_a_body() {
    for status in ["204 No Content", "304 Not Modified"] {
        let (_backend, nginx) = refusing(&format!("HTTP/1.1 {status}\r\nX-Reason: a\r\n\r\n"));
        let mut client = Client::connect(nginx.address());
        let head = client.ask(&Handshake::new("/ws"));
        assert_eq!(head.line, format!("HTTP/1.1 {status}"));
        assert_eq!(head.field("X-Reason"), Some("a"));
        // No body follows: the next response does.
        assert_eq!(client.get("/stub_status").0.status(), 200);
    }
}

#[test]
fn refusal_without_a_body_does_not_wait_for_the_backend_to_close() {
    let backend = ManualBackend::unix();
    let nginx = Nginx::start(format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    for status in ["204 No Content", "304 Not Modified"] {
        let mut client = Client::connect(nginx.address());
        client.send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        peer.write(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n"));
        assert_eq!(client.read_head().line, format!("HTTP/1.1 {status}"));
        assert_eq!(client.get("/stub_status").0.status(), 200);
        assert!(peer.recv_to_end().is_empty());
    }
}

#[test]
fn redirect_passes_as_it_is() {
    let answer = "HTTP/1.1 302 Found\r\nLocation: http://other.example/login?next=%2Fws\r\n\
                  Content-Length: 0\r\n\r\n";
    let (_backend, nginx) = refusing(answer);
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!(head.status(), 302);
    assert_eq!(head.field("Location"), Some("http://other.example/login?next=%2Fws"));
}

#[test]
fn ordinary_response_of_200_is_a_refusal_too() {
    let (backend, nginx) = refusing("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), client.read_body(&head)), (200, b"ok".to_vec()));
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn handoff_in_a_refusal_hands_nothing_over() {
    let answer = "HTTP/1.1 403 Forbidden\r\nHandoff: fd\r\nContent-Length: 0\r\n\r\n";
    let (backend, nginx) = refusing(answer);
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!(head.status(), 403);
    assert_eq!(head.field("Handoff"), None);
    drop(nginx);
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn refused_client_goes_on_with_the_same_connection() {
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
    let (backend, nginx) = refusing(&answer);
    let mut client = Client::connect(nginx.address());
    for _ in 0..3 {
        let head = client.ask(&Handshake::new("/ws"));
        assert_eq!((head.status(), client.read_body(&head)), (403, BODY.into()));
    }
    assert_eq!(client.get("/stub_status").0.status(), 200);
    assert_eq!(backend.accepted(), 3);
}

#[test]
fn frames_behind_a_refused_handshake_are_not_taken_for_a_request() {
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
    let (_backend, nginx) = refusing(&answer);
    let frame = Frame::text("GET /stub_status HTTP/1.1\r\nHost: a\r\n\r\n").unmasked();
    for beyond in [frame.as_slice(), b"GET /stub_status HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::connect(nginx.address());
        client.send(&[&Handshake::new("/ws").bytes(), beyond].concat());
        let head = client.read_head();
        assert_eq!((head.status(), client.read_body(&head)), (403, BODY.into()));
        client.finish_sending();
        let (rest, _) = client.expect_end();
        assert!(rest.is_empty(), "a second response: {:?}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn refusal_can_be_replaced_by_an_error_page() {
    let (_backend, nginx) = refusing_at(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        "ws_handoff_intercept_errors on; error_page 403 = @sorry;",
        "location @sorry { return 418 sorry; }",
    );
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), client.read_body(&head)), (418, b"sorry".to_vec()));
}

#[test]
fn hidden_fields_stay_hidden_and_passed_ones_pass() {
    let (_backend, nginx) = refusing_at(
        "HTTP/1.1 403 Forbidden\r\nX-Internal: 1\r\nServer: mine\r\nContent-Length: 0\r\n\r\n",
        "ws_handoff_hide_header X-Internal; ws_handoff_pass_header Server;",
        "",
    );
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!(head.field("X-Internal"), None);
    assert_eq!(head.field("Server"), Some("mine"));
}

/// A backend that answers with these bytes and closes, and its nginx.
fn refusing(answer: &str) -> (FakeBackend, Nginx) {
    refusing_at(answer, "", "")
}

fn refusing_at(answer: &str, directives: &str, server: &str) -> (FakeBackend, Nginx) {
    let answer = answer.to_owned();
    let backend = FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write(&answer);
    });
    let location =
        format!("location /ws {{ {directives} ws_handoff {}; }} {server}", backend.address());
    let nginx = Nginx::builder().server(location).quiet().start();
    (backend, nginx)
}

fn site(backend: &FakeBackend) -> Nginx {
    let location = format!("location /ws {{ ws_handoff {}; }}", backend.address());
    Nginx::builder().server(location).quiet().start()
}

/// The client gets 403 with `BODY`. `left_open`: the backend does not close, so that the end must be
/// found in the body itself.
fn seen_as_403(answer: &str, left_open: bool) {
    let answer = answer.to_owned();
    let backend = FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write(&answer);
        if left_open {
            peer.recv_to_end();
        }
    });
    let nginx = site(&backend);
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/ws"));
    assert_eq!(head.line, "HTTP/1.1 403 Forbidden");
    assert_eq!(head.field("X-Reason"), Some("a"));
    assert_eq!(String::from_utf8_lossy(&client.read_body(&head)), BODY);
    // Delimited for the client, too: the next response follows.
    assert_eq!(client.get("/stub_status").0.status(), 200);
}
