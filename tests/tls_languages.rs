//! wss with the TLS of Go's and Node's standard libraries, and Node's own WebSocket. The real backend serves them.

use std::process::Command;

use crate::support::process;
use crate::support::tls_site::{Site, protection};
use crate::support::{Backend, paths, tls};
use crate::tls_engine::all_were_served;
use crate::tls_handoff::PROTECTIONS;

/// Each function as a test for each of the languages.
macro_rules! tests {
    ($($name:ident)*) => {
        mod in_go {
            use super::Language::Go;
            $(#[test] #[ignore = "needs Go and Node: make test-clients"] fn $name() { super::$name(Go) })*
        }
        mod in_node {
            use super::Language::Node;
            $(#[test] #[ignore = "needs Go and Node: make test-clients"] fn $name() { super::$name(Node) })*
        }
    };
}

tests! {
    messages_up_to_16_mib_and_ten_thousand_small_ones_with_every_version_and_suite
    session_is_resumed_after_its_predecessor_was_handed_over
    each_name_has_a_certificate_of_its_own
    subject_of_the_clients_certificate_reaches_the_backend
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Go,
    Node,
}

fn messages_up_to_16_mib_and_ten_thousand_small_ones_with_every_version_and_suite(
    language: Language,
) {
    for (version, suite) in PROTECTIONS {
        let backend = backend();
        let site = Site::at(&backend.address(), &protection(version, suite));
        language.run(&site, &["--version", short(version)]);
        all_were_served(&site, &backend);
    }
}

fn session_is_resumed_after_its_predecessor_was_handed_over(language: Language) {
    let cases = [("TLSv1.3", "on"), ("TLSv1.3", "off"), ("TLSv1.2", "on"), ("TLSv1.2", "off")];
    // Go's client resumes by tickets only.
    let known = if language == Language::Go { &cases[..3] } else { &cases };
    for (version, tickets) in known {
        let backend = backend();
        let server = format!(
            "ssl_protocols {version}; ssl_session_tickets {tickets}; \
             ssl_session_cache shared:tls:1m;"
        );
        let site = Site::at(&backend.address(), &server);
        language.run(&site, &["--version", short(version), "--visits", "3"]);
        all_were_served(&site, &backend);
    }
}

fn each_name_has_a_certificate_of_its_own(language: Language) {
    let backend = backend();
    let site = Site::with(&backend.address(), "", "", |builder, port| {
        tls::ecdsa_certificate(builder.dir(), "other", "other.example");
        builder.http(format!(
            "server {{ listen 127.0.0.1:{port} ssl; server_name other.example; \
             ssl_certificate other.pem; ssl_certificate_key other.key; \
             location /ws {{ ws_handoff_tls on; ws_handoff ws; }} }}"
        ))
    });
    for (name, file) in [("localhost", "cert.pem"), ("other.example", "other.pem")] {
        // No other certificate would be trusted.
        let trusted = site.nginx.dir().join(file).display().to_string();
        language.run_trusting(&site, &trusted, &["--name", name]);
    }
    all_were_served(&site, &backend);
}

fn subject_of_the_clients_certificate_reaches_the_backend(language: Language) {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let backend = tls::echo();
        let server = format!(
            "ssl_protocols {version}; ssl_verify_client on; ssl_client_certificate client.pem; \
             ws_handoff_set_header X-Subject $ssl_client_s_dn;"
        );
        let site = Site::with(&backend.address(), "", &server, |builder, _| {
            tls::ecdsa_certificate(builder.dir(), "client", "client.example");
            builder
        });
        let file = |name| site.nginx.dir().join(name).display().to_string();
        let (certificate, key) = (file("client.pem"), file("client.key"));
        let own = ["--version", short(version), "--cert", &certificate, "--key", &key];
        language.run(&site, &own);
        assert_eq!(backend.only_head().field("X-Subject"), Some("CN=client.example"));
        site.all_were("tls", "-");
    }
}

#[test]
#[ignore = "needs Go and Node: make test-clients"]
fn nodes_own_websocket_does_not_notice() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let backend = backend();
        let site = Site::at(&backend.address(), &format!("ssl_protocols {version};"));
        let mut command = Command::new("node");
        if (20..22).contains(&node_version()) {
            command.arg("--experimental-websocket");
        }
        command.arg(paths::client_script("node.mjs"));
        command.args(["--builtin", "--port", &site.port.to_string()]);
        command.env("NODE_EXTRA_CA_CERTS", site.certificate());
        let said = process::run("node", command);
        if said.starts_with("no WebSocket") {
            eprintln!("NOT TESTED: {}", said.trim());
            return;
        }
        all_were_served(&site, &backend);
    }
}

impl Language {
    fn run(self, site: &Site, arguments: &[&str]) {
        self.run_trusting(site, &site.certificate(), arguments);
    }

    fn run_trusting(self, site: &Site, certificate: &str, arguments: &[&str]) {
        let mut command = match self {
            Language::Go => Command::new(paths::go_client()),
            Language::Node => {
                let mut node = Command::new("node");
                node.arg(paths::client_script("node.mjs"));
                node
            }
        };
        command.args(["--port", &site.port.to_string(), "--ca", certificate]).args(arguments);
        process::run(if self == Language::Go { "the Go client" } else { "node" }, command);
    }
}

fn backend() -> Backend {
    Backend::start(&["--app", "echo", "--max-message-size", "16m", "--max-queue", "32m"])
}

/// `1.3` of `TLSv1.3`.
fn short(version: &str) -> &str {
    version.trim_start_matches("TLSv")
}

fn node_version() -> u32 {
    let mut command = Command::new("node");
    command.arg("--version");
    let said = process::run("node", command);
    let major = said.trim_start_matches('v').split('.').next().and_then(|word| word.parse().ok());
    major.unwrap_or_else(|| panic!("node's version: {said:?}"))
}
