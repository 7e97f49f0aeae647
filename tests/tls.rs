//! wss: nginx keeps the TLS, so it tunnels to the backend's Unix socket, and neither the client nor the
//! backend's application can tell.

use std::io::Read;
use std::process::Command;
use std::sync::mpsc;

use crate::support::frame::{self, BINARY, Frame};
use crate::support::metrics::{self, LOCATION, ZONE};
use crate::support::{
    Backend, FakeBackend, ManualBackend, Nginx, PATIENCE, Peer, net, proc, process, python,
};

#[test]
fn python_client_exchanges_text_and_binary_up_to_1_mib() {
    let backend = Backend::echo();
    let site = Site::new(&backend.address(), "");
    let url = format!("wss://127.0.0.1:{}/ws", site.port);
    python::run("echo.py", &[&url, "--cafile", &site.certificate()]);
    backend.wait_active(0);
    site.nginx.wait_inactive();
    assert_eq!(site.nginx.logged("GET /ws").get("upstream_status"), "101");
}

#[test]
fn real_backend_forgets_a_tunnelled_client() {
    let backend = Backend::echo();
    let site = Site::new(&backend.address(), "");
    let held = proc::descriptors(backend.pid()).len();
    for _ in 0..20 {
        site.run("early", &[]);
    }
    backend.wait_active(0);
    backend.wait_descriptors(held);
    assert_eq!(backend.metric("websocket_connections_total{source=\"tunnel\"}"), 20.0);
}

#[test]
fn nothing_is_offered_for_a_tls_client() {
    let backend = tunnel(|mut peer| frame::echo(peer.stream(), b""));
    let site = Site::new(&backend.address(), "");
    site.run("early", &[]);
    let head = backend.only_head();
    assert_eq!(head.field("Handoff"), None);
    assert_eq!(head.field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn all_that_was_sent_before_the_close_arrives() {
    for how in ["close_notify", "fin"] {
        let (sent, received) = mpsc::channel();
        let backend = tunnel(move |mut peer| {
            let mut bytes = Vec::new();
            peer.stream().read_to_end(&mut bytes).expect("an end of file");
            sent.send(bytes).expect("the test waits");
        });
        let site = Site::new(&backend.address(), "");
        site.run("send", &[how]);
        let bytes = received.recv_timeout(*PATIENCE).expect("the backend sees the end");
        let payload: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let frame = Frame::read(&mut bytes.as_slice()).expect("a whole frame");
        assert!(frame == Frame::new(BINARY, payload), "after {how}");
        site.nginx.wait_inactive();
    }
}

#[test]
fn all_that_the_backend_sent_before_it_closed_arrives() {
    let payload = vec![0xB5; 1 << 20];
    let frame = Frame::new(BINARY, payload).unmasked();
    let len = frame.len();
    let backend = tunnel(move |mut peer| peer.write(&frame));
    let site = Site::new(&backend.address(), "");
    assert_eq!(site.run("receive", &[]).trim(), len.to_string());
    site.nginx.wait_inactive();
}

#[test]
fn orderly_close_while_a_backend_is_asked_ends_the_request() {
    // The alert that says goodbye is not a frame that somebody is owed.
    let backend = ManualBackend::unix();
    let site = Site::new(&backend.address(), "");
    site.run("leave", &[]);
    site.nginx.wait_inactive();
    assert_eq!(site.nginx.logged("GET /ws").get("status"), "499");
}

#[test]
fn handshake_behind_a_response_of_any_size_gets_its_101_whole() {
    // For some of the sizes the response leaves no room for the 101 in the client's send buffer, which a tunnel could
    // not wait for: nginx has to wait before it asks a backend.
    let backend = tunnel(|mut peer| frame::echo(peer.stream(), b""));
    let site = Site::with(&backend.address(), "", "sndbuf=8k", "location = /blob { root .; }");
    site.run("behind", &[]);
}

#[test]
fn fallback_off_answers_501_before_a_backend_is_asked() {
    let backend = FakeBackend::echo();
    let site = Site::new(&backend.address(), "ws_handoff_fallback off;");
    assert_eq!(site.run("status", &[]).trim(), "HTTP/1.1 501 Not Implemented");
    assert_eq!(backend.accepted(), 0);
    metrics::expect(&site.nginx, &["rejected fallback 501 1"]);
    let line = site.nginx.logged("GET /ws");
    assert_eq!((line.get("result"), line.get("error")), ("refused", "fallback"));
}

#[test]
fn bare_mode_answers_501_before_a_backend_is_asked() {
    let backend = FakeBackend::echo();
    let site = Site::new(&backend.address(), "ws_handoff_protocol bare;");
    assert_eq!(site.run("status", &[]).trim(), "HTTP/1.1 501 Not Implemented");
    assert_eq!(backend.accepted(), 0);
    let complaint = "a TLS connection cannot be handed over with \"ws_handoff_protocol bare\"";
    assert!(site.nginx.error_log().contains(complaint));
}

/// A backend that is asked for a tunnel, as over TLS, and what it does with it.
fn tunnel(then: impl Fn(Peer) + Send + Sync + 'static) -> FakeBackend {
    FakeBackend::unix(move |mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        then(peer);
    })
}

/// nginx with a TLS server of its own certificate.
struct Site {
    nginx: Nginx,
    port: u16,
}

impl Site {
    fn new(address: &str, directives: &str) -> Site {
        Site::with(address, directives, "", "")
    }

    fn with(address: &str, directives: &str, listen: &str, server: &str) -> Site {
        let port = net::free_port();
        let builder =
            Nginx::builder().http(ZONE).server(LOCATION).file("blob", vec![b'b'; 1 << 16]).http(
                format!(
                    "server {{ listen 127.0.0.1:{port} ssl {listen}; ssl_certificate cert.pem; \
             ssl_certificate_key key.pem; {server} \
             location /ws {{ {directives} ws_handoff {address}; }} }}"
                ),
            );
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(builder.dir())
            .args("req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem".split(' '))
            .args("-days 2 -subj /CN=localhost".split(' '))
            .args(["-addext", "subjectAltName=IP:127.0.0.1"]);
        let made = process::output(&mut openssl).expect("run openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Site { nginx: builder.start(), port }
    }

    fn certificate(&self) -> String {
        self.nginx.dir().join("cert.pem").display().to_string()
    }

    /// Runs a part of tests/python/tls.py.
    fn run(&self, part: &str, more: &[&str]) -> String {
        let (port, certificate) = (self.port.to_string(), self.certificate());
        python::run("tls.py", &[&[port.as_str(), certificate.as_str(), part], more].concat())
    }
}
