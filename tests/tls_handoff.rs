//! `ws_handoff_tls on`: the TLS session moves with the socket, and clients that nobody here wrote do not notice.

use crate::support::metrics::{self, LOCATION, ZONE};
use crate::support::nginx::Builder;
use crate::support::{FakeBackend, Nginx, net, python, tls};

/// nginx's directives for each protection that can move, and how it is called.
const PROTECTIONS: [(&str, &str); 6] = [
    ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305"),
];

#[test]
fn python_client_does_not_notice_with_any_version_and_suite() {
    for (version, suite) in PROTECTIONS {
        let backend = tls::echo();
        let site = Site::new(&backend, &protection(version, suite));
        let url = format!("wss://127.0.0.1:{}/ws", site.port);
        python::run("echo.py", &[&url, "--cafile", &site.certificate()]);
        let head = backend.only_head();
        assert_eq!(head.field("Handoff"), Some("fd-tls; v=1"), "{version} {suite}");
        assert_eq!(head.field("X-Forwarded-Proto"), Some("https"));
        assert_eq!(backend.descriptors(), 1);
        let line = site.nginx.logged("GET /ws");
        assert_eq!((line.get("status"), line.get("result")), ("101", "tls"), "{version} {suite}");
        site.nginx.wait_inactive();
        metrics::expect(&site.nginx, &["answers ws 1", "offers ws 1", "requests ws tls 1"]);
    }
}

fn protection(version: &str, suite: &str) -> String {
    if version == "TLSv1.3" {
        format!("ssl_protocols {version}; ssl_conf_command Ciphersuites {suite};")
    } else {
        format!("ssl_protocols {version}; ssl_ciphers {suite};")
    }
}

/// nginx with a TLS server whose clients are handed over.
struct Site {
    nginx: Nginx,
    port: u16,
}

impl Site {
    /// `server` goes into the TLS server.
    fn new(backend: &FakeBackend, server: &str) -> Site {
        Site::with(backend, server, |builder| builder)
    }

    fn with(backend: &FakeBackend, server: &str, more: impl FnOnce(Builder) -> Builder) -> Site {
        let port = net::free_port();
        let builder = Nginx::builder().http(ZONE).server(LOCATION).http(format!(
            "upstream ws {{ server {address}; }} \
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate cert.pem; \
             ssl_certificate_key cert.key; {server} \
             location = /other {{ return 200 other; }} \
             location /ws {{ ws_handoff_tls on; ws_handoff ws; }} }}",
            address = backend.address()
        ));
        tls::certificate(builder.dir(), "cert", "localhost");
        Site { nginx: more(builder).start(), port }
    }

    fn certificate(&self) -> String {
        self.nginx.dir().join("cert.pem").display().to_string()
    }
}
