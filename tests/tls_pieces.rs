//! A KeyUpdate in pieces, of which nginx has some when it is asked to hand the client over: TLS lets a message be spread over
//! records (RFC 8446 section 5.1), and OpenSSL keeps the pieces where nobody sees them.

use std::thread;
use std::time::Duration;

use rustls::ContentType;

use crate::support::frame::Frame;
use crate::support::metrics;
use crate::support::tls_site::{HANDSHAKE, Site};
use crate::support::tls13_client::{NO_TICKETS, Tls13Client};
use crate::support::{Backend, wait_until};

/// One that asks for nothing.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

#[test]
fn rest_of_a_message_is_waited_for() {
    for cut in 1..KEY_UPDATE.len() {
        let (site, _backend, mut client) = half_sent(cut);
        // Nothing tells that nginx waits; far less than it would, and more than it needs to get there.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(site.nginx.access_log().len(), 0, "it waits");
        finish(&mut client, cut);
        site.nginx.wait_inactive();
        site.all_were("tls", "-");
    }
}

#[test]
fn session_whose_message_does_not_come_whole_is_tunnelled() {
    let (site, _backend, mut client) = half_sent(2);
    wait_until("it is tunnelled", || metrics::value(&site.nginx, "tls_kept slow") == 1);
    finish(&mut client, 2);
    drop(client);
    site.all_were("tunnel", "slow");
}

/// A client that has sent its request, and behind it so many bytes of a KeyUpdate.
fn half_sent(cut: usize) -> (Site, Backend, Tls13Client) {
    let backend = Backend::start(&["--app", "echo", "--engine", "parked"]);
    let site = Site::at(&backend.address(), NO_TICKETS);
    let mut client = Tls13Client::connected(&site);
    client.seal(ContentType::ApplicationData, HANDSHAKE);
    client.seal(ContentType::Handshake, &KEY_UPDATE[..cut]);
    client.send();
    (site, backend, client)
}

/// The rest of it, and a frame under the new keys, which comes back.
fn finish(client: &mut Tls13Client, cut: usize) {
    client.seal(ContentType::Handshake, &KEY_UPDATE[cut..]);
    client.next_keys();
    client.seal(ContentType::ApplicationData, &Frame::text("new keys").masked());
    client.send();
    let data = client.read_to(b"new keys");
    assert!(data.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&data));
}
