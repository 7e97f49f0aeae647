//! TLS clients that the real backend serves on, without nginx. Its engine `tasks` carries no session on: there they are tunnelled.

use crate::support::backend::is_strict;
use crate::support::s_client::SClient;
use crate::support::tls_site::{Site, echo, protection, upgrade};
use crate::support::{Backend, python, wait_until};
use crate::tls_handoff::PROTECTIONS;

/// Every WebSocket so far was served by the way that the engine has, and nothing is left of them.
fn all_were_served(site: &Site, backend: &Backend) {
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
        all_were_served(&site, &backend);
    }
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
