//! An nginx that hands TLS clients over, and its clients.

use super::frame::Frame;
use super::metrics::{self, LOCATION, ZONE};
use super::nginx::Builder;
use super::s_client::SClient;
use super::{FakeBackend, Nginx, net, python, tls, wait_until};

/// The head of a WebSocket.
pub const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Upgrades, and has a first text come back.
pub fn upgrade(client: &mut SClient, text: &str) {
    client.send(HANDSHAKE);
    client.wait_for("101 Switching Protocols");
    echo(client, text);
}

/// Has a text come back.
pub fn echo(client: &mut SClient, text: &str) {
    let text = format!("text-{text}-text");
    client.send(&Frame::text(&text).masked());
    client.wait_for(&text);
}

/// The directives that allow but one version and suite.
pub fn protection(version: &str, suite: &str) -> String {
    if version == "TLSv1.3" {
        format!("ssl_protocols {version}; ssl_conf_command Ciphersuites {suite};")
    } else {
        format!("ssl_protocols {version}; ssl_ciphers {suite};")
    }
}

/// nginx with a TLS server whose clients are handed over.
pub struct Site {
    pub nginx: Nginx,
    pub port: u16,
}

impl Site {
    /// `server` goes into the TLS server.
    pub fn new(backend: &FakeBackend, server: &str) -> Site {
        Site::at(&backend.address(), server)
    }

    pub fn at(address: &str, server: &str) -> Site {
        Site::with(address, "", server, |builder, _| builder)
    }

    pub fn with(
        address: &str,
        listen: &str,
        server: &str,
        more: impl FnOnce(Builder, u16) -> Builder,
    ) -> Site {
        let port = net::free_port();
        // nginx has had no TLS 1.3 by default before 1.23.4.
        let builder = Nginx::builder().http(ZONE).server(LOCATION).http(format!(
            "ssl_protocols TLSv1.2 TLSv1.3; upstream ws {{ server {address}; }} \
             server {{ listen 127.0.0.1:{port} ssl {listen}; ssl_certificate cert.pem; \
             ssl_certificate_key cert.key; {server} \
             location = /other {{ return 200 other; }} \
             location /ws {{ ws_handoff_tls on; ws_handoff ws; }} }}"
        ));
        tls::certificate(builder.dir(), "cert", "localhost");
        Site { nginx: more(builder, port).start(), port }
    }

    pub fn certificate(&self) -> String {
        self.nginx.dir().join("cert.pem").display().to_string()
    }

    /// Runs a part of tests/python/tls_handoff.py.
    pub fn run(&self, part: &str, more: &[&str]) {
        self.run_of("tls_handoff.py", part, more);
    }

    /// Runs a part of another such script.
    pub fn run_of(&self, script: &str, part: &str, more: &[&str]) {
        let (port, certificate) = (self.port.to_string(), self.certificate());
        let arguments = [&[port.as_str(), certificate.as_str(), part], more].concat();
        python::run(script, &arguments);
    }

    pub fn s_client(&self, arguments: &[&str]) -> SClient {
        SClient::connect(self.port, arguments)
    }

    /// Every WebSocket so far ended like this, and nothing is left of them.
    pub fn all_were(&self, result: &str, error: &str) {
        self.nginx.wait_inactive();
        // A client that nginx has not accepted yet is not active either.
        wait_until("a WebSocket is logged", || {
            self.nginx.access_log().iter().any(|line| line.get("request").starts_with("GET /ws"))
        });
        self.nginx.wait_inactive();
        let lines = self.nginx.access_log();
        let sockets: Vec<_> =
            lines.iter().filter(|line| line.get("request").starts_with("GET /ws")).collect();
        for line in sockets {
            assert_eq!((line.get("result"), line.get("error")), (result, error), "{line:?}");
        }
    }

    /// The only client was tunnelled for this reason.
    pub fn was_tunnelled(&self, backend: &FakeBackend, reason: &str) {
        self.all_were("tunnel", reason);
        assert_eq!(backend.only_head().field("Handoff"), None, "{reason}");
        assert_eq!(backend.descriptors(), 0);
        assert_eq!(metrics::value(&self.nginx, &format!("tls_kept {reason}")), 1, "{reason}");
        let log = self.nginx.error_log();
        assert!(log.contains("the TLS session stays in nginx: "), "{log}");
    }
}
