//! TLS clients that the real backend serves on, without nginx. Its engine `tasks` carries no session on: there they are tunnelled.
//! With `make test-ktls` the kernel carries the sessions.

use handoff_tls::{Alert, Closed};

use crate::support::backend::{changes_keys, is_strict, kernel_carries};
use crate::support::frame::Frame;
use crate::support::s_client::SClient;
use crate::support::sealing_client::SealingClient;
use crate::support::tls_site::{Site, echo, protection, upgrade};
use crate::support::{Backend, python, wait_until};
use crate::tls_handoff::PROTECTIONS;

/// Every WebSocket so far was served by the way that the engine has, and nothing is left of them.
pub fn all_were_served(site: &Site, backend: &Backend) {
    backend.wait_active(0);
    wait_until("a WebSocket is logged", || {
        site.nginx.access_log().iter().any(|line| line.get("request").starts_with("GET /ws"))
    });
    site.nginx.wait_inactive();
    let expected = if is_strict() { "tls" } else { "tunnel" };
    let lines = site.nginx.access_log();
    let sockets = lines.iter().filter(|line| line.get("request").starts_with("GET /ws"));
    let results: Vec<_> = sockets.map(|line| line.get("result")).collect();
    assert!(!results.is_empty() && results.iter().all(|one| *one == expected), "{results:?}");
    if kernel_carries() {
        // Of a client that has left by then the kernel takes none.
        let by =
            |who| backend.metric(&format!("websocket_tls_sessions_total{{carrier=\"{who}\"}}"));
        assert!(by("kernel") > by("user"), "{}", backend.log());
    }
}

#[test]
fn messages_of_any_size_are_echoed_with_every_version_and_suite() {
    for (version, suite) in PROTECTIONS {
        let backend = Backend::start(&["--app", "echo", "--max-message-size", "16m"]);
        let site = Site::at(&backend.address(), &protection(version, suite));
        let url = format!("wss://127.0.0.1:{}/ws", site.port);
        python::run("echo.py", &[&url, "--cafile", &site.certificate()]);
        all_were_served(&site, &backend);
        let by_client = backend.metric("websocket_closed_total{by=\"client\"}");
        assert_eq!(by_client, 1.0, "{version} {suite}");
    }
}

#[test]
fn frames_behind_the_handshake_reach_the_engine_once_and_in_order() {
    for (version, suite) in [PROTECTIONS[1], PROTECTIONS[3], PROTECTIONS[5]] {
        let backend = Backend::echo();
        let site = Site::at(&backend.address(), &protection(version, suite));
        for part in ["same_record", "other_records", "pipelined", "split", "flood", "long_records"]
        {
            site.run(part, &[]);
        }
        for part in ["split_handshake", "third_request", "talk"] {
            site.run(part, &[]);
        }
        all_were_served(&site, &backend);
    }
}

#[test]
fn resumed_sessions_are_served() {
    let kinds = [("TLSv1.3", "on"), ("TLSv1.3", "off"), ("TLSv1.2", "on"), ("TLSv1.2", "off")];
    for (protocol, tickets) in kinds {
        let backend = Backend::echo();
        let directives = format!(
            "ssl_protocols {protocol}; ssl_session_tickets {tickets}; \
             ssl_session_cache shared:tls:1m;"
        );
        let site = Site::at(&backend.address(), &directives);
        site.run("resumed", &[]);
        all_were_served(&site, &backend);
    }
}

#[test]
fn client_that_reads_late_gets_all_and_an_orderly_end() {
    if !is_strict() {
        eprintln!("NOT TESTED: nginx says goodbye to those whom it tunnels, in its own way");
        return;
    }
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let backend = Backend::echo();
        let server = format!("ssl_protocols {protocol};");
        let site = Site::with(&backend.address(), "sndbuf=16k", &server, |builder, _| builder);
        site.run("last_words", &[]);
        all_were_served(&site, &backend);
        assert_eq!(backend.metric("websocket_closed_total{by=\"lost\"}"), 0.0, "{protocol}");
    }
}

#[test]
fn records_that_make_no_sense_end_their_session_alone() {
    if !is_strict() {
        eprintln!("NOT TESTED: it is nginx that sees the records of those whom it tunnels");
        return;
    }
    for (version, suite) in [PROTECTIONS[1], PROTECTIONS[2], PROTECTIONS[4], PROTECTIONS[5]] {
        let backend = Backend::echo();
        let site = Site::at(&backend.address(), &protection(version, suite));
        let mut other = site.s_client(&[]);
        upgrade(&mut other, "before");
        for part in ["broken", "replayed", "oversized", "misled", "truncated"] {
            site.run(part, &[]);
        }
        backend.wait_active(1);
        assert_eq!(backend.metric("websocket_closed_total{by=\"lost\"}"), 5.0, "{version} {suite}");
        echo(&mut other, "after");
        other.quit();
        all_were_served(&site, &backend);
    }
}

#[test]
fn records_without_data_are_borne_for_a_while() {
    if !is_strict() {
        eprintln!("NOT TESTED: it is nginx that sees the records of those whom it tunnels");
        return;
    }
    let backend = Backend::echo();
    let site = Site::at(&backend.address(), "ssl_protocols TLSv1.2;");
    let mut client = SealingClient::upgraded(&site);
    for _ in 0..3 {
        (0..32).for_each(|_| client.seal_alert(Alert::NoRenegotiation));
        client.seal(&Frame::text("data").masked());
    }
    client.send();
    let echoes = b"\x81\x04data".repeat(3);
    assert_eq!(client.read(echoes.len()), (echoes, None));
    (0..100).for_each(|_| client.seal_alert(Alert::NoRenegotiation));
    client.send();
    let [_, unexpected_message] = Alert::UnexpectedMessage.to_bytes();
    assert_eq!(client.read(1), (Vec::new(), Some(Closed::Alert(unexpected_message))));
    drop(client);
    all_were_served(&site, &backend);
    assert_eq!(backend.metric("websocket_closed_total{by=\"lost\"}"), 1.0);
}

#[test]
fn alert_of_the_clients_is_not_answered() {
    if !is_strict() {
        eprintln!("NOT TESTED: nginx answers those whom it tunnels, in its own way");
        return;
    }
    let backend = Backend::echo();
    let site = Site::at(&backend.address(), "ssl_protocols TLSv1.2;");
    let mut client = SealingClient::upgraded(&site);
    client.seal_alert(Alert::BadRecordMac);
    client.send();
    assert_eq!(client.read(1), (Vec::new(), None), "an end of file, and nothing before");
    all_were_served(&site, &backend);
    assert_eq!(backend.metric("websocket_closed_total{by=\"lost\"}"), 1.0);
}

#[test]
fn engine_follows_key_updates_and_needs_no_nginx() {
    let backend = Backend::echo();
    let mut site = Site::at(&backend.address(), "ssl_protocols TLSv1.3;");
    let mut client = site.s_client(&[]);
    let mut updates = 0;
    let mut update = |client: &mut SClient, command: &[u8]| {
        updates += 1;
        client.send(command);
        wait_until("s_client has updated its keys", || {
            client.output().matches("KEYUPDATE").count() >= updates
        });
    };
    // Just before the upgrade: the answer is owed, and is the backend's if nginx has not given it.
    update(&mut client, b"K\n");
    upgrade(&mut client, "upgraded");
    if is_strict() {
        site.nginx.stop_fast();
    }
    if kernel_carries() && !changes_keys(&backend) {
        // Closed in order, as one that is to come again; and counted.
        update(&mut client, b"k\n");
        client.wait_for("TLS keys cannot be changed");
        client.wait_for("closed");
        backend.wait_active(0);
        assert_eq!(backend.metric("websocket_limited_total{limit=\"tls_keys\"}"), 1.0);
        site.nginx.start_again();
        return;
    }
    for (command, word) in [(b"K\n", "requested"), (b"k\n", "unasked"), (b"K\n", "again")] {
        update(&mut client, command);
        echo(&mut client, word);
    }
    client.quit();
    backend.wait_active(0);
    if is_strict() {
        site.nginx.start_again();
    }
}

/// The engine `parked` behind nginx, with a client by Python's ssl that plays this part of tests/python/tls_engine.py, with each
/// version.
fn play(arguments: &[&str], part: &str) -> Vec<(Site, Backend)> {
    let play = |protocol| {
        let backend = Backend::start(arguments);
        let server = format!("ssl_protocols {protocol};");
        let site = Site::with(&backend.address(), "", &server, |builder, _| {
            builder.server("location /ws { ws_handoff ws; }")
        });
        let plain = site.nginx.address().port().to_string();
        let pid = backend.pid().to_string();
        site.run_of("tls_engine.py", part, &["--plain", &plain, "--backend", &pid]);
        backend.wait_active(0);
        (site, backend)
    };
    ["TLSv1.3", "TLSv1.2"].map(play).into()
}

#[test]
fn members_of_a_room_may_speak_tls_or_not() {
    if !is_strict() {
        return;
    }
    for (_site, backend) in play(&["--app", "broadcast", "--max-queue", "64m"], "room") {
        assert_eq!(backend.metric("websocket_messages_dropped_total"), 0.0);
    }
}

#[test]
fn clients_that_do_not_read_hold_nobody_up() {
    if !is_strict() {
        return;
    }
    for (site, backend) in play(&["--workers", "1"], "deaf") {
        all_were_served(&site, &backend);
    }
}

#[test]
fn messages_within_records_are_compressed() {
    if !is_strict() {
        return;
    }
    for (site, backend) in play(&["--compression"], "compressed") {
        all_were_served(&site, &backend);
    }
}

#[test]
fn limits_close_in_order_and_with_a_goodbye() {
    if !is_strict() {
        return;
    }
    for (arguments, part, code) in [
        (["--max-message-size", "1000"], "large", "1009"),
        (["--max-message-rate", "20"], "hasty", "1008"),
        (["--idle-timeout", "2"], "silent", "1001"),
    ] {
        for (site, backend) in play(&arguments, part) {
            all_were_served(&site, &backend);
            let closed = format!("websocket_closed_total{{by=\"{code}\"}}");
            assert_eq!(backend.metric(&closed), 1.0, "{part}");
        }
    }
}

#[test]
fn ends_that_are_none_lose_the_client() {
    if !is_strict() {
        return;
    }
    for part in ["truncated", "forged"] {
        for (site, backend) in play(&[], part) {
            all_were_served(&site, &backend);
            assert_eq!(backend.metric("websocket_closed_total{by=\"lost\"}"), 1.0, "{part}");
        }
    }
}

#[test]
fn drain_says_goodbye() {
    if !is_strict() {
        return;
    }
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let mut backend = Backend::start(&["--drain-timeout", "20"]);
        let site = Site::at(&backend.address(), &format!("ssl_protocols {protocol};"));
        let pid = backend.pid().to_string();
        site.run_of("tls_engine.py", "drained", &["--backend", &pid]);
        backend.drain();
        wait_until("it has ended", || backend.has_ended());
    }
}
