//! wss with a client that shares no code with OpenSSL, or with this project: tungstenite over rustls. The real backend serves it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::{Resumption, Tls12Resumption};
use rustls::{ClientConfig, HandshakeKind};

use crate::support::backend::{changes_keys, is_strict, kernel_carries};
use crate::support::frame::{BINARY, CLOSE, Frame};
use crate::support::nginx::{Builder, version};
use crate::support::rustls_client::{self, RawClient, RustlsClient, all_suites};
use crate::support::tls_site::{HANDSHAKE, Site};
use crate::support::{Backend, tls};
use crate::tls_engine::all_were_served;

const MIB: usize = 1 << 20;

#[test]
fn every_suite_carries_messages_of_any_size() {
    let backend = backend();
    let site = Site::with(&backend.address(), "", TWO_KEYS, two_keys);
    let suites = all_suites();
    assert_eq!(suites.len(), 9, "three of TLS 1.3, and of TLS 1.2 with RSA and with ECDSA");
    for suite in suites {
        let config = Arc::new(rustls_client::config(&both(&site), &[suite]));
        let mut client = RustlsClient::connect(site.port, "localhost", &config);
        assert_eq!(client.tls().negotiated_cipher_suite(), Some(suite));
        for size in [0, 1, 125, 126, 16_384, 65_535, 65_536, MIB, 16 * MIB] {
            client.echo(size);
        }
        client.close();
    }
    all_were_served(&site, &backend);
}

#[test]
fn ten_thousand_small_messages_come_back_in_order() {
    let backend = backend();
    let site = Site::with(&backend.address(), "", TWO_KEYS, two_keys);
    for suite in all_suites() {
        let config = Arc::new(rustls_client::config(&both(&site), &[suite]));
        let mut client = RustlsClient::connect(site.port, "localhost", &config);
        client.echo_many(10_000);
        client.close();
    }
    all_were_served(&site, &backend);
}

#[test]
fn keys_are_updated_between_messages() {
    let backend = backend();
    let site = Site::at(&backend.address(), "");
    let mut client = RustlsClient::connect(site.port, "localhost", &Arc::new(any(&site)));
    if kernel_carries() && !changes_keys(&backend) {
        client.tls().refresh_traffic_keys().expect("TLS 1.3");
        client.is_closed(1001, "TLS keys cannot be changed");
        return all_were_served(&site, &backend);
    }
    for size in [10, 100, 100_000, MIB] {
        // rustls asks for new keys of the other side, too.
        client.tls().refresh_traffic_keys().expect("TLS 1.3");
        client.echo(size);
        client.echo_many(100);
    }
    client.close();
    all_were_served(&site, &backend);
}

/// What s_client cannot do: new keys for each record of what nginx gets at once, and a record that is cut.
#[test]
fn keys_are_updated_behind_the_handshake() {
    let backend = backend();
    let site = Site::at(&backend.address(), "");
    let may_close = kernel_carries() && !changes_keys(&backend);
    let texts = ["one", "two", "three", "four"];
    let mut cuts = vec![None];
    cuts.extend((1..400).step_by(7).map(Some));
    for cut in cuts {
        let mut client = RawClient::connect(site.port, Arc::new(any(&site)));
        client.write(HANDSHAKE);
        for text in texts {
            client.update_keys();
            client.write(&Frame::text(text).masked());
        }
        client.send(cut);
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "cut at {cut:?}: {head}");
        // Some of the KeyUpdates are nginx's affair, as the cut has it.
        if !texts.iter().all(|text| client.comes_back(&Frame::text(text), may_close)) {
            continue;
        }
        client.write(&Frame::new(CLOSE, [3, 232]).masked());
        client.send(None);
        assert_eq!(client.read_frame(), Frame::new(CLOSE, [3, 232]));
    }
    all_were_served(&site, &backend);
}

/// The rest of the request's record, and all behind it, is OpenSSL's to hold, which has a buffer of its own for each generation
/// of keys from 3.2 on, and hands on to the next what is left in one.
#[test]
fn keys_are_updated_behind_more_than_nginx_reads_at_once() {
    let backend = backend();
    let site = Site::at(&backend.address(), "");
    let may_close = kernel_carries() && !changes_keys(&backend);
    for size in [900, 4000] {
        for updates in 1..=3 {
            let mut client = RawClient::connect(site.port, Arc::new(any(&site)));
            let mut frames = vec![Frame::new(BINARY, vec![7; size])];
            client.write(&[HANDSHAKE, &frames[0].masked()].concat());
            for text in ["one", "two", "three"] {
                for _ in 0..updates {
                    client.update_keys();
                }
                for frame in [Frame::text(text), Frame::text("more")] {
                    client.write(&frame.masked());
                    frames.push(frame);
                }
            }
            client.send(None);
            let head = client.read_head();
            assert!(head.starts_with("HTTP/1.1 101 "), "{size}, {updates}: {head}");
            if frames.iter().all(|frame| client.comes_back(frame, may_close)) {
                client.write(&Frame::new(CLOSE, [3, 232]).masked());
                client.send(None);
                assert_eq!(client.read_frame(), Frame::new(CLOSE, [3, 232]));
            }
        }
    }
    all_were_served(&site, &backend);
}

#[test]
fn session_is_resumed_with_tickets_and_without() {
    let kinds = [("TLSv1.3", "on"), ("TLSv1.3", "off"), ("TLSv1.2", "on"), ("TLSv1.2", "off")];
    for (protocol, tickets) in kinds {
        let backend = backend();
        let server = format!(
            "ssl_protocols {protocol}; ssl_session_tickets {tickets}; \
             ssl_session_cache shared:tls:1m;"
        );
        let site = Site::at(&backend.address(), &server);
        let mut config = any(&site);
        let by_identity = Tls12Resumption::SessionIdOnly;
        let by_ticket = Tls12Resumption::SessionIdOrTickets;
        config.resumption = Resumption::in_memory_sessions(8)
            .tls12_resumption(if tickets == "on" { by_ticket } else { by_identity });
        let config = Arc::new(config);
        for visit in 0..4 {
            let mut client = RustlsClient::connect(site.port, "localhost", &config);
            let expected = if visit == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(client.tls().handshake_kind(), Some(expected), "{protocol}, visit {visit}");
            client.echo(100_000);
            client.close();
        }
        all_were_served(&site, &backend);
    }
}

#[test]
fn each_name_has_a_certificate_of_its_own() {
    let names = ["localhost", "one.example", "two.example", "three.example"];
    let backend = backend();
    let site = Site::with(&backend.address(), "", "", |mut builder, port| {
        for name in &names[1..] {
            tls::ecdsa_certificate(builder.dir(), name, name);
            builder = builder.http(format!(
                "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; \
                 ssl_certificate {name}.pem; ssl_certificate_key {name}.key; \
                 location /ws {{ ws_handoff_tls on; ws_handoff ws; }} }}"
            ));
        }
        builder
    });
    for name in names {
        // No other certificate would be trusted.
        let file = if name == "localhost" { "cert.pem".to_owned() } else { format!("{name}.pem") };
        let trusted = site.nginx.dir().join(file);
        let config = Arc::new(rustls_client::config(&[trusted], &all_suites()));
        let mut client = RustlsClient::connect(site.port, name, &config);
        client.echo(1000);
        client.close();
    }
    all_were_served(&site, &backend);
}

#[test]
fn subject_of_the_clients_certificate_reaches_the_backend() {
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let backend = tls::echo();
        let server = format!(
            "ssl_protocols {protocol}; ssl_verify_client on; ssl_client_certificate client.pem; \
             ws_handoff_set_header X-Subject $ssl_client_s_dn; \
             ws_handoff_set_header X-Verified $ssl_client_verify;"
        );
        let site = Site::with(&backend.address(), "", &server, |builder, _| {
            tls::ecdsa_certificate(builder.dir(), "client", "client.example");
            builder
        });
        let dir = site.nginx.dir();
        let server = [dir.join("cert.pem")];
        let config = rustls_client::config_with_certificate(&server, dir, "client");
        let mut client = RustlsClient::connect(site.port, "localhost", &Arc::new(config));
        client.echo(1000);
        client.close();
        let head = backend.only_head();
        assert_eq!(head.field("X-Subject"), Some("CN=client.example"));
        assert_eq!(head.field("X-Verified"), Some("SUCCESS"));
        site.all_were("tls", "-");
    }
}

#[test]
fn http_1_1_is_negotiated_by_alpn() {
    let backend = backend();
    // As a browser does for a WebSocket, where the server speaks HTTP/2 as well; and what others offer where it does not.
    for (http2, offered) in
        [(true, &["http/1.1"][..]), (false, &["http/1.1"]), (false, &["h2", "http/1.1"])]
    {
        let (listen, server) = match http2 {
            true if version() < (1, 25, 1) => ("http2", ""),
            true => ("", "http2 on;"),
            false => ("", ""),
        };
        let site = Site::with(&backend.address(), listen, server, |builder, _| builder);
        let mut config = any(&site);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = RustlsClient::connect(site.port, "localhost", &Arc::new(config));
        assert_eq!(client.tls().alpn_protocol(), Some(&b"http/1.1"[..]), "{offered:?}");
        client.echo(1000);
        client.close();
        all_were_served(&site, &backend);
    }
}

#[test]
fn clients_of_every_suite_live_on_through_reload_and_stop() {
    if !is_strict() {
        eprintln!("NOT TESTED with this engine: its TLS clients are tunnelled, and are nginx's");
        return;
    }
    let backend = backend();
    let mut site = Site::with(&backend.address(), "", TWO_KEYS, two_keys);
    let connect = |suite| {
        let config = Arc::new(rustls_client::config(&both(&site), &[suite]));
        RustlsClient::connect(site.port, "localhost", &config)
    };
    let mut clients: Vec<RustlsClient> = all_suites().into_iter().map(connect).collect();
    let mut echo = |size| clients.iter_mut().for_each(|client| client.echo(size));
    echo(1000);
    site.nginx.reload();
    echo(100_000);
    site.nginx.stop_fast();
    echo(MIB);
    clients.into_iter().for_each(RustlsClient::close);
    backend.wait_active(0);
    site.nginx.start_again();
}

fn backend() -> Backend {
    Backend::start(&["--app", "echo", "--max-message-size", "16m", "--max-queue", "32m"])
}

/// Whatever both sides can.
fn any(site: &Site) -> ClientConfig {
    rustls_client::config(&[site.nginx.dir().join("cert.pem")], &all_suites())
}

/// A second certificate for the same server, for suites that want another kind of key.
const TWO_KEYS: &str = "ssl_certificate ecdsa.pem; ssl_certificate_key ecdsa.key;";

fn two_keys(builder: Builder, _: u16) -> Builder {
    tls::ecdsa_certificate(builder.dir(), "ecdsa", "localhost");
    builder
}

fn both(site: &Site) -> [PathBuf; 2] {
    ["cert.pem", "ecdsa.pem"].map(|name| site.nginx.dir().join(name))
}
