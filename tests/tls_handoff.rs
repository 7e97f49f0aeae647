//! `ws_handoff_tls on`: the TLS session moves with the socket, and clients that nobody here wrote do not notice.

use std::fs;

use handoff_tls::Closed;

use crate::support::frame::{self, Frame};
use crate::support::nginx::configured_with;
use crate::support::s_client::SClient;
use crate::support::tls_site::{HANDSHAKE, Site, echo, protection, upgrade};
use crate::support::{FakeBackend, ManualBackend, metrics, python, tls, wait_until};

/// Each protection that can move: the version, and the suite as OpenSSL calls it.
pub const PROTECTIONS: [(&str, &str); 6] = [
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
        site.nginx.wait_inactive();
        site.all_were("tls", "-");
        metrics::expect(&site.nginx, &["answers ws 1", "offers ws 1", "requests ws tls 1"]);
    }
}

#[test]
fn frames_behind_the_handshake_arrive_once_and_in_order() {
    for (version, suite) in [PROTECTIONS[1], PROTECTIONS[3], PROTECTIONS[5]] {
        let backend = tls::echo();
        let site = Site::new(&backend, &protection(version, suite));
        for part in ["same_record", "other_records", "pipelined", "third_request", "flood"] {
            site.run(part, &[]);
        }
        site.all_were("tls", "-");
    }
}

#[test]
fn handshakes_of_many_clients_at_once_are_told_apart() {
    for (version, suite) in [PROTECTIONS[0], PROTECTIONS[5]] {
        let backend = tls::echo();
        let site = Site::new(&backend, &protection(version, suite));
        for _ in 0..5 {
            site.run("interleaved", &[]);
        }
        site.all_were("tls", "-");
    }
}

#[test]
fn handshake_whose_flight_is_sent_in_pieces_among_others_is_handed_over() {
    let backend = tls::echo();
    let (version, suite) = PROTECTIONS[0];
    let site =
        Site::with(&backend.address(), "sndbuf=4k", &protection(version, suite), |builder, _| {
            // A chain of more than the socket holds.
            let path = builder.dir().join("cert.pem");
            let one = fs::read_to_string(&path).expect("read");
            builder.file("cert.pem", one.repeat(24))
        });
    site.run("slow_flight", &[]);
    site.all_were("tls", "-");
}

#[test]
fn records_split_at_every_offset_arrive_once_and_in_order() {
    for (version, suite) in [PROTECTIONS[0], PROTECTIONS[2], PROTECTIONS[4]] {
        let backend = tls::echo();
        let site = Site::new(&backend, &protection(version, suite));
        for part in ["split", "split_handshake", "long_records"] {
            site.run(part, &[]);
        }
        site.all_were("tls", "-");
    }
}

#[test]
fn session_is_resumed_after_its_predecessor_was_handed_over() {
    let kinds = [("TLSv1.3", "on"), ("TLSv1.3", "off"), ("TLSv1.2", "on"), ("TLSv1.2", "off")];
    for (protocol, tickets) in kinds {
        let backend = tls::echo();
        let directives = format!(
            "ssl_protocols {protocol}; ssl_session_tickets {tickets}; \
             ssl_session_cache shared:tls:1m;"
        );
        let site = Site::new(&backend, &directives);
        site.run("resumed", &[]);
        site.all_were("tls", "-");
    }
}

#[test]
fn server_that_is_chosen_by_name_hands_over_too() {
    let backend = tls::echo();
    let site = Site::with(&backend.address(), "", "", |builder, port| {
        tls::certificate(builder.dir(), "other", "other.example");
        let read = |name| fs::read_to_string(builder.dir().join(name)).expect("read");
        let both = read("cert.pem") + &read("other.pem");
        builder.file("both.pem", both).http(format!(
            "server {{ listen 127.0.0.1:{port} ssl; server_name other.example; \
             ssl_certificate other.pem; ssl_certificate_key other.key; \
             location /ws {{ ws_handoff_tls on; ws_handoff ws; }} }}"
        ))
    });
    let both = site.nginx.dir().join("both.pem").display().to_string();
    let port = site.port.to_string();
    python::run("tls_handoff.py", &[&port, &both, "names", "--other", "other.example"]);
    site.all_were("tls", "-");
}

#[test]
fn every_worker_of_a_reuseport_listener_hands_over() {
    let backend = tls::echo();
    let site = Site::with(&backend.address(), "reuseport", "", |builder, _| builder.workers(2));
    for _ in 0..12 {
        site.run("same_record", &[]);
    }
    site.all_were("tls", "-");
}

#[test]
fn level_triggered_event_loop_hands_over() {
    if !configured_with("--with-poll_module") {
        eprintln!("NOT TESTED: this nginx has no `use poll`");
        return;
    }
    let backend = tls::echo();
    let site = Site::with(&backend.address(), "", "", |builder, _| {
        builder.events("use poll; worker_connections 1024;")
    });
    for part in ["same_record", "split", "third_request"] {
        site.run(part, &[]);
    }
    site.all_were("tls", "-");
}

#[test]
fn client_lives_on_through_reload_and_stop() {
    let backend = tls::echo();
    let mut site = Site::new(&backend, "");
    let mut client = site.s_client(&[]);
    upgrade(&mut client, "before");
    site.nginx.reload();
    echo(&mut client, "reloaded");
    site.nginx.stop_fast();
    echo(&mut client, "stopped");
    drop(client);
    site.nginx.start_again();
}

#[test]
fn reload_that_drops_the_module_crashes_nothing() {
    let backend = tls::echo();
    let site = Site::new(&backend, "");
    site.run("echo", &[]);
    let mut client = site.s_client(&[]);
    upgrade(&mut client, "before");

    // OpenSSL still calls the module's callbacks for each connection of this process.
    let port = site.port;
    let path = site.nginx.dir().join("nginx.conf");
    let with = fs::read_to_string(&path).expect("read");
    let plain_port = site.nginx.address().port();
    let without = format!(
        "daemon off; worker_processes 1; user root; pid nginx.pid; error_log error.log info; \
         events {{}} http {{ access_log off; server {{ listen 127.0.0.1:{plain_port}; \
         location = /stub_status {{ stub_status; }} }} \
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate cert.pem; \
         ssl_certificate_key cert.key; location / {{ return 204; }} }} }}"
    );
    fs::write(&path, without).expect("write");
    site.nginx.reload();
    for _ in 0..3 {
        let mut other = site.s_client(&[]);
        other.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        other.wait_for("204 No Content");
    }
    echo(&mut client, "after");

    fs::write(&path, with).expect("write");
    site.nginx.reload();
    site.run("echo", &[]);
    let log = site.nginx.error_log();
    assert!(!log.contains("exited on signal"), "{log}");
}

#[test]
fn keys_that_were_updated_before_the_upgrade_are_the_ones_that_move() {
    // "K" asks for an update of the server's keys, too; "k" does not.
    for updates in ["K", "k", "KK", "kK", "kkkK"] {
        let backend = tls::echo();
        let site = Site::new(&backend, "ssl_protocols TLSv1.3;");
        let mut client = site.s_client(&[]);
        for (at, update) in updates.chars().enumerate() {
            client.send(format!("{update}\n").as_bytes());
            wait_until("s_client has updated its keys", || {
                client.output().matches("KEYUPDATE").count() > at
            });
        }
        upgrade(&mut client, updates);
        echo(&mut client, "again");
        // Also from now on, which is the backend's.
        client.send(b"K\n");
        wait_until("s_client has updated its keys", || {
            client.output().matches("KEYUPDATE").count() > updates.len()
        });
        echo(&mut client, "updated");
        drop(client);
        site.all_were("tls", "-");
    }
}

#[test]
fn key_update_that_asks_for_an_answer_gets_it() {
    let backend = tls::echo();
    let site = Site::new(&backend, "ssl_protocols TLSv1.3;");
    let mut client = site.s_client(&["-msg"]);
    let answers = |client: &SClient| {
        let output = client.output();
        output.lines().filter(|l| l.starts_with("<<< ") && l.ends_with("KeyUpdate")).count()
    };
    // Just before the upgrade: of nginx's with its 101, or the backend's first record.
    client.send(b"K\n");
    upgrade(&mut client, "updated");
    wait_until("the answer comes", || answers(&client) == 1);
    client.send(b"K\n");
    echo(&mut client, "again");
    wait_until("the backend answers", || answers(&client) == 2);
    // One that does not ask gets none.
    client.send(b"k\n");
    echo(&mut client, "unasked");
    echo(&mut client, "unanswered");
    assert_eq!(answers(&client), 2);
    drop(client);
    site.all_were("tls", "-");
}

#[test]
fn frames_before_an_orderly_close_are_handed_over() {
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let backend = ManualBackend::unix();
        let site = Site::at(&backend.address(), &format!("ssl_protocols {protocol};"));
        let mut client = site.s_client(&[]);
        client.send(HANDSHAKE);
        let mut peer = backend.accept();
        peer.read_head();
        client.send(&Frame::text("last words").masked());
        client.quit();
        site.nginx.serve_others();
        let mut taken = tls::take_over(&mut peer);
        assert_eq!(taken.early_data, b"");
        assert_eq!(Frame::read(&mut taken.stream).expect("a frame"), Frame::text("last words"));
        assert!(Frame::read(&mut taken.stream).is_err());
        assert_eq!(taken.stream.ended(), Some(Closed::Notify), "{protocol}");
        site.all_were("tls", "-");
    }
}

#[test]
fn client_with_a_certificate_is_handed_over() {
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let backend = tls::echo();
        let server = "ssl_verify_client optional_no_ca; \
                      ws_handoff_set_header X-Subject $ssl_client_s_dn;";
        let site = Site::with(
            &backend.address(),
            "",
            &format!("{server} ssl_protocols {protocol};"),
            |builder, _| {
                tls::certificate(builder.dir(), "client", "client.example");
                builder
            },
        );
        let file = |name| site.nginx.dir().join(name).display().to_string();
        let (certificate, key) = (file("client.pem"), file("client.key"));
        let mut client = site.s_client(&["-cert", &certificate, "-key", &key]);
        upgrade(&mut client, "certified");
        assert_eq!(backend.only_head().field("X-Subject"), Some("CN=client.example"));
        drop(client);
        site.all_were("tls", "-");
    }
}

#[test]
fn one_connection_to_a_backend_brings_several_clients() {
    let backend = FakeBackend::unix(|mut peer| {
        for _ in 0..3 {
            peer.read_head();
            let mut taken = tls::take_over_and_stay(&mut peer);
            frame::echo(&mut taken.stream, &taken.early_data);
            taken.stream.close();
        }
    });
    let site = Site::at(&format!("{}; keepalive 4", backend.address()), "");
    for _ in 0..3 {
        site.run("same_record", &[]);
    }
    assert_eq!((backend.accepted(), backend.descriptors()), (1, 3));
    site.all_were("tls", "-");
}

#[test]
fn no_secret_is_logged_at_any_level() {
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let backend = ManualBackend::unix();
        let server = format!("ssl_protocols {protocol};");
        let site = Site::with(&backend.address(), "", &server, |b, _| b.log_level("debug"));
        let mut client = site.s_client(&[]);
        client.send(HANDSHAKE);
        let mut peer = backend.accept();
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd-tls\r\n\r\n");
        let socket = peer.recv_offer();
        let state = peer.recv_tls_commit().tls.expect("a TLS session");
        drop((socket, client));
        site.all_were("tls", "-");
        let log = fs::read(site.nginx.dir().join("error.log")).expect("read");
        let text = String::from_utf8_lossy(&log).to_ascii_lowercase();
        assert!(text.contains("[debug]") || !configured_with("--with-debug"));
        for secret in [&state.rx_secret, &state.tx_secret] {
            // What a part of it is enough to give away.
            let start = &secret.as_bytes()[..8];
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!text.contains(&hex), "{protocol}");
            assert!(!log.windows(start.len()).any(|window| window == start), "{protocol}");
        }
    }
}
