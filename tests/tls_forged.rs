//! Records that the client's TLS has not sealed, from someone between it and the server: behind the hand-over, and behind the
//! handshake, where nginx may still be the one to open them. They end that client's connection with the alert of RFC 8446 section 6.2
//! (RFC 5246 section 7.2.2), and do nothing to another's.

use std::path::PathBuf;
use std::sync::Arc;

use handoff_tls::Alert;
use nix::sys::signal::Signal;
use rustls::{AlertDescription, ClientConfig};

use crate::support::Backend;
use crate::support::frame::Frame;
use crate::support::nginx::{Builder, signal_worker};
use crate::support::rustls_client::{self, RawClient, RustlsClient, all_suites};
use crate::support::sealing_client::SealingClient;
use crate::support::tls_site::{HANDSHAKE, Site};

/// What someone makes of two sealed records.
type Forge = fn(&[u8], &[u8]) -> Vec<u8>;

/// With the alert for it.
const FORGERIES: [(&str, Forge, AlertDescription); 5] = [
    ("tampered", tampered, AlertDescription::BadRecordMac),
    ("replayed", |first, _| [first, first].concat(), AlertDescription::BadRecordMac),
    ("reordered", |first, second| [second, first].concat(), AlertDescription::BadRecordMac),
    ("oversized", oversized, AlertDescription::RecordOverflow),
    ("in the clear", in_the_clear, AlertDescription::BadRecordMac),
];

#[test]
fn forged_records_end_their_connection_alone() {
    each_version(
        |builder| builder,
        |site, config| {
            let mut other = RustlsClient::connect(site.port, "localhost", config);
            for (name, forge, alert) in FORGERIES {
                let mut client = RawClient::connect(site.port, Arc::clone(config));
                client.write(HANDSHAKE);
                client.send(None);
                assert!(client.read_head().starts_with("HTTP/1.1 101 "));
                let [first, second] = records(&mut client);
                client.send_bytes(&forge(&first, &second));
                assert_eq!(client.read_alert(), Some(alert), "{name}");
                other.echo(1000);
            }
            other.close();
        },
    );
}

#[test]
fn forged_records_behind_the_handshake_end_their_connection_alone() {
    each_version(
        // nginx itself says so at crit where it does not know what OpenSSL calls it (1.22 with any, 1.28 with 3.5), when it reads
        // the record together with the request.
        |builder| builder.tolerate("SSL_read() failed"),
        |site, config| {
            let mut other = RustlsClient::connect(site.port, "localhost", config);
            for (name, forge, alert) in FORGERIES {
                let mut client = RawClient::connect(site.port, Arc::clone(config));
                client.write(HANDSHAKE);
                let handshake = client.records();
                let [first, second] = records(&mut client);
                client.send_bytes(&[handshake, forge(&first, &second)].concat());
                assert_eq!(client.read_alert(), Some(alert), "{name}");
                other.echo(1000);
            }
            other.close();
            site.nginx.wait_inactive();
            let log = site.nginx.access_log();
            let broken: Vec<_> = log.iter().filter(|line| line.get("status") == "499").collect();
            assert_eq!(broken.len(), FORGERIES.len(), "{log:?}");
            assert!(broken.iter().all(|line| line.get("error") == "client"), "{broken:?}");
        },
    );
}

#[test]
fn forged_record_behind_the_handshake_of_a_session_that_would_stay_ends_it() {
    let backend = Backend::echo();
    // Nobody else carries on CBC.
    let server = "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-SHA256;";
    let site = Site::with(&backend.address(), "", server, |builder, _| {
        // As above; at crit it may say no more.
        builder.tolerate("SSL_read() failed")
    });
    site.run("broken_flight", &[]);
    site.nginx.wait_inactive();
    let line = site.nginx.logged("GET /ws");
    assert_eq!((line.get("status"), line.get("error")), ("499", "client"));
}

#[test]
fn alert_behind_the_handshake_ends_its_connection_alone() {
    let backend = Backend::echo();
    let site = Site::at(&backend.address(), "ssl_protocols TLSv1.2;");
    let mut other = SealingClient::upgraded(&site);
    let worker = site.nginx.worker();
    // In the socket together when nginx reads, and one after the other.
    for together in [true, false] {
        let mut client = SealingClient::connected(&site);
        client.seal(HANDSHAKE);
        if together {
            signal_worker(worker, Signal::SIGSTOP);
        } else {
            client.send();
            assert!(client.read(1).0.starts_with(b"HTTP/1.1 101 "));
        }
        client.seal_alert(Alert::UnexpectedMessage);
        client.send();
        if together {
            signal_worker(worker, Signal::SIGCONT);
        }
        // Nothing is answered to an alert that ends the session (RFC 5246 section 7.2.2).
        assert_eq!(client.read(1), (Vec::new(), None));
        other.seal(&Frame::text("another").masked());
        other.send();
        let (echo, end) = other.read("another".len());
        assert!(echo.ends_with(b"another") && end.is_none());
    }
    drop(other);
    backend.wait_active(0);
    site.nginx.wait_inactive();
    let log = site.nginx.access_log();
    let of_sockets = log.iter().filter(|line| line.get("request").starts_with("GET /ws"));
    let mut statuses: Vec<_> = of_sockets.map(|line| line.get("status")).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, ["101", "101", "499"]);
}

#[test]
fn connection_that_is_cut_within_a_record_is_forgotten() {
    each_version(
        |builder| builder,
        |site, config| {
            let mut client = RawClient::connect(site.port, Arc::clone(config));
            client.write(HANDSHAKE);
            client.send(None);
            client.read_head();
            let [first, _] = records(&mut client);
            client.send_bytes(&first[..first.len() - 1]);
        },
    );
}

/// With TLS 1.2 and 1.3; afterwards neither nginx nor the backend holds anything.
fn each_version(more: impl Fn(Builder) -> Builder, run: impl Fn(&Site, &Arc<ClientConfig>)) {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let backend = Backend::echo();
        let server = format!("ssl_protocols {version};");
        let site = Site::with(&backend.address(), "", &server, |builder, _| more(builder));
        let trusted = [PathBuf::from(site.certificate())];
        run(&site, &Arc::new(rustls_client::config(&trusted, &all_suites())));
        backend.wait_active(0);
        site.nginx.wait_inactive();
    }
}

/// Two that the client has sealed and not sent: a text in each.
fn records(client: &mut RawClient) -> [Vec<u8>; 2] {
    ["first", "second"].map(|text| {
        client.write(&Frame::text(text).masked());
        client.records()
    })
}

/// A bit of its text is another.
fn tampered(first: &[u8], _: &[u8]) -> Vec<u8> {
    let mut record = first.to_vec();
    let middle = record.len() / 2;
    record[middle] ^= 1;
    record
}

/// More than RFC 8446 section 5.2 and RFC 5246 section 6.2.3 allow.
fn oversized(first: &[u8], _: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 5 + (1 << 14) + 2049];
    record[..3].copy_from_slice(&first[..3]);
    record[3..5].copy_from_slice(&((1_u16 << 14) + 2049).to_be_bytes());
    record
}

/// Of someone who has no keys.
fn in_the_clear(_: &[u8], _: &[u8]) -> Vec<u8> {
    let plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    [&[0x17, 3, 3, 0, plain.len() as u8], &plain[..]].concat()
}
