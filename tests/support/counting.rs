//! An nginx that counts.

use std::fs;

use super::fake::ABSENT;
use super::metrics::{LOCATION, ZONE};
use super::nginx::Builder;
use super::{Client, Handshake, Nginx};

/// An upstream `ws` of one server, and a zone.
pub fn counting(server: &str) -> Builder {
    Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {server}; }}"))
        .server(LOCATION)
        .server("location /ws { ws_handoff ws; }")
}

pub fn site(server: &str) -> Nginx {
    counting(server).start()
}

/// An upstream `ws` whose last peer is asked when all others have failed.
pub fn with_backup(servers: &[&str], backup: &str) -> Nginx {
    let servers: String =
        servers.iter().map(|server| format!("server {server} max_fails=0; ")).collect();
    Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ {servers} server {backup} backup; }}"))
        .server(LOCATION)
        // Long for the one that is silent, so that the others have time on a busy machine.
        .server("location /ws { ws_handoff_read_timeout 1s; ws_handoff ws; }")
        .tolerate(ABSENT)
        .start()
}

pub fn fails(nginx: &Nginx, status: u16) {
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status(), status);
}

/// Changes nginx.conf; what is replaced occurs there.
pub fn edit(nginx: &Nginx, from: &str, to: &str) {
    let path = nginx.dir().join("nginx.conf");
    let text = fs::read_to_string(&path).expect("read nginx.conf");
    assert!(text.contains(from), "no {from} in {text}");
    fs::write(path, text.replace(from, to)).expect("write nginx.conf");
}
