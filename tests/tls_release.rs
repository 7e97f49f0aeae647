//! Nothing stays behind of TLS clients that are handed over, or that leave before they are: OpenSSL's state of each, and what is kept
//! account of beside it, ends with nginx's part.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::ClientConfig;

use crate::support::backend::is_strict;
use crate::support::proc::{self, Weight};
use crate::support::rustls_client::{self, RawClient, RustlsClient, all_suites};
use crate::support::tls_site::{HANDSHAKE, Site};
use crate::support::{Backend, wait_until};

/// Of which every fourth leaves before it is handed over.
const CLIENTS: usize = 4000;

#[test]
fn four_thousand_clients_leave_nothing_behind() {
    let backend = Backend::echo();
    let site = Site::at(&backend.address(), "");
    let config = config(&site);
    // The allocator's and nginx's own caches fill first.
    churn(&site, &config, CLIENTS / 4);
    backend.wait_active(0);
    site.nginx.wait_inactive();
    let worker = site.nginx.worker();
    let descriptors = proc::descriptors(worker).len();
    let held = proc::descriptors(backend.pid()).len();
    let weight = Weight::of(worker);

    churn(&site, &config, CLIENTS);
    backend.wait_active(0);
    site.nginx.wait_inactive();
    assert_eq!(site.nginx.worker(), worker, "the worker has been replaced");
    wait_until("the worker holds as many descriptors as before", || {
        proc::descriptors(worker).len() == descriptors
    });
    backend.wait_descriptors(held);
    // What is kept account of for each is larger than 100 bytes.
    weight.has_grown_by_less_than(100 * CLIENTS as u64, "4,000 clients");
    let result = if is_strict() { "tls" } else { "tunnel" };
    let served = site.nginx.access_log().iter().filter(|l| l.get("result") == result).count();
    assert_eq!(served, (CLIENTS + CLIENTS / 4) / 4 * 3);
}

/// So many clients, a few at a time: of four, two close in order, or not at all, and one has sent its handshake and does not wait;
/// the fourth leaves in the midst of the TLS handshake, or behind it.
fn churn(site: &Site, config: &Arc<ClientConfig>, count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    visit(site.port, config, n);
                }
            });
        }
    });
}

fn visit(port: u16, config: &Arc<ClientConfig>, n: usize) {
    let upgraded = || {
        let mut client = RustlsClient::connect(port, "localhost", config);
        client.echo(100);
        client
    };
    match n % 8 {
        0 | 4 => upgraded().close(),
        1 | 5 => drop(upgraded()),
        2 | 6 => {
            let mut client = RawClient::connect(port, Arc::clone(config));
            client.write(HANDSHAKE);
            client.send(None);
            client.read_head();
        }
        3 => drop(RawClient::connect(port, Arc::clone(config))),
        _ => drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect")),
    }
}

fn config(site: &Site) -> Arc<ClientConfig> {
    let mut config = rustls_client::config(&[PathBuf::from(site.certificate())], &all_suites());
    // Each handshake is a whole one.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}
