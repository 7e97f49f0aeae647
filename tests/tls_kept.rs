//! TLS clients that are not handed over though `ws_handoff_tls` is on: tunnelled as if it were not, for a reason that is told.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::backend::is_strict;
use crate::support::nginx::signal_worker;
use crate::support::s_client::SClient;
use crate::support::tls_site::{HANDSHAKE, Site, echo, upgrade};
use crate::support::{
    Backend, Client, FakeBackend, ManualBackend, fake, metrics, net, tls, wait_until,
};

#[test]
fn what_cannot_be_carried_on_is_tunnelled_and_says_why() {
    let cases = [
        ("suite", "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-SHA256;", vec![]),
        (
            "suite",
            "ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_CCM_SHA256;",
            vec!["-ciphersuites", "TLS_AES_128_CCM_SHA256"],
        ),
        ("suite", "ssl_protocols TLSv1.2; ssl_ciphers AES128-GCM-SHA256;", vec![]),
        (
            "version",
            "ssl_protocols TLSv1.1; ssl_ciphers DEFAULT:@SECLEVEL=0;",
            vec!["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"],
        ),
        ("fragment", "", vec!["-maxfraglen", "1024"]),
        ("fragment", "ssl_protocols TLSv1.2;", vec!["-maxfraglen", "512"]),
    ];
    for (reason, server, arguments) in cases {
        let backend = tls::echo();
        let site = Site::new(&backend, server);
        let mut client = site.s_client(&arguments);
        upgrade(&mut client, reason);
        echo(&mut client, "tunnelled");
        drop(client);
        site.was_tunnelled(&backend, reason);
    }
}

#[test]
fn early_data_of_tls_is_tunnelled() {
    let backend = tls::echo();
    let site = Site::new(&backend, "ssl_protocols TLSv1.3; ssl_early_data on;");
    let dir = site.nginx.dir().display().to_string();
    let (session, request) = (format!("{dir}/session"), format!("{dir}/request"));
    fs::write(&request, HANDSHAKE).expect("write");
    let mut first = site.s_client(&["-sess_out", &session]);
    first.send(b"GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    first.wait_for("other");
    let mut client = site.s_client(&["-sess_in", &session, "-early_data", &request]);
    client.wait_for("101 Switching Protocols");
    assert!(client.output().contains("Early data was accepted"), "{}", client.output());
    echo(&mut client, "tunnelled");
    drop(client);
    site.was_tunnelled(&backend, "early_data");
}

#[test]
fn record_that_does_not_come_whole_is_not_waited_for() {
    let backend = tls::echo();
    let site = Site::new(&backend, "");
    site.run("half", &[]);
    site.was_tunnelled(&backend, "slow");
}

#[test]
fn more_than_a_backend_should_be_given_is_tunnelled() {
    let backend = tls::echo();
    let site = Site::new(&backend, "client_header_buffer_size 256k;");
    let worker = site.nginx.worker().to_string();
    site.run("burst", &["--worker", &worker]);
    site.was_tunnelled(&backend, "flood");
}

#[test]
fn client_that_has_said_goodbye_is_not_handed_over() {
    let backend = tls::echo();
    let site = Site::new(&backend, "");
    site.run("leave", &[]);
    site.nginx.wait_inactive();
    assert_eq!(backend.descriptors(), 0);
    assert_eq!(metrics::value(&site.nginx, "tls_kept closed"), 1);
}

#[test]
fn orderly_close_while_a_backend_is_asked_ends_the_request() {
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let backend = ManualBackend::unix();
        let site = Site::at(&backend.address(), &format!("ssl_protocols {protocol};"));
        let mut client = site.s_client(&[]);
        client.send(HANDSHAKE);
        let mut peer = backend.accept();
        peer.read_head();
        client.quit();
        site.nginx.wait_inactive();
        assert_eq!(site.nginx.logged("GET /ws").get("status"), "499", "{protocol}");
    }
}

#[test]
fn renegotiation_is_refused_before_the_upgrade_and_after() {
    // OpenSSL's client gives up when it is told so.
    let backend = Backend::echo();
    let site = Site::at(&backend.address(), "ssl_protocols TLSv1.2;");
    let mut client = site.s_client(&[]);
    client.send(b"R\n");
    client.wait_for("no renegotiation");
    drop(client);
    site.nginx.wait_inactive();

    // Its ClientHello is there when nginx drains the session.
    let worker = site.nginx.worker();
    let mut client = site.s_client(&[]);
    signal_worker(worker, Signal::SIGSTOP);
    client.send(HANDSHAKE);
    wait_until("the request is there", || net::unread(site.port) > 0);
    let request = net::unread(site.port);
    client.send(b"R\n");
    wait_until("its ClientHello is there", || net::unread(site.port) > request);
    signal_worker(worker, Signal::SIGCONT);
    client.wait_for("no renegotiation");
    drop(client);
    site.nginx.wait_inactive();

    let mut client = site.s_client(&[]);
    upgrade(&mut client, "another");
    // As well where it is the backend's session by now.
    client.send(b"R\n");
    client.wait_for("no renegotiation");
    drop(client);
    backend.wait_active(0);
    site.nginx.wait_inactive();
    let lines = site.nginx.access_log();
    let last = lines.last().expect("a line of the access log");
    assert_eq!(last.get("result"), if is_strict() { "tls" } else { "tunnel" });
}

#[test]
fn session_that_stays_is_refused_where_tunnelling_is_off() {
    let backend = tls::echo();
    let server =
        "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-SHA256; ws_handoff_fallback off;";
    let site = Site::new(&backend, server);
    let mut client = site.s_client(&[]);
    client.send(HANDSHAKE);
    client.wait_for("501 Not Implemented");
    assert_eq!(backend.accepted(), 0);
    metrics::expect(&site.nginx, &["rejected fallback 501 1", "tls_kept suite 1"]);
}

#[test]
fn backend_that_does_not_know_tls_is_tunnelled_to() {
    let backend = FakeBackend::unix(fake::without_handoff);
    let site = Site::new(&backend, "");
    for part in ["same_record", "long_records", "split"] {
        site.run(part, &[]);
    }
    site.all_were("tunnel", "-");
}

#[test]
fn backend_that_takes_only_plain_sockets_is_not_believed() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.accept();
        peer.recv_to_end();
    });
    let site = Site::new(&backend, "");
    let mut client = site.s_client(&[]);
    client.send(HANDSHAKE);
    client.wait_for("502 Bad Gateway");
    assert_eq!(backend.descriptors(), 0);
}

#[test]
fn tls_off_refuses_and_plain_clients_are_served() {
    let backend = tls::echo();
    let port = net::free_port();
    let site = Site::with(&backend.address(), "", "", |builder, _| {
        builder.server("location /ws { ws_handoff_tls off; ws_handoff ws; }").http(format!(
            "server {{ listen 127.0.0.1:{} ssl; ssl_certificate cert.pem; \
             ssl_certificate_key cert.key; location /ws {{ ws_handoff_tls off; ws_handoff ws; }} }}",
            port
        ))
    });
    let mut client = SClient::connect(port, &[]);
    client.send(HANDSHAKE);
    client.wait_for("501 Not Implemented");
    assert_eq!(backend.accepted(), 0);
    Client::upgraded(site.nginx.address(), "/ws").echo("plain");
}

#[test]
fn backend_that_speaks_behind_its_answer_is_a_failed_one() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd-tls\r\n\r\nx");
        peer.recv_to_end();
    });
    let site = Site::new(&backend, "");
    let mut client = site.s_client(&[]);
    client.send(HANDSHAKE);
    client.wait_for("502 Bad Gateway");
    site.nginx.wait_inactive();
}
