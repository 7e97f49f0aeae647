//! A commit that does not fit into the Unix socket's buffer. The buffer's size is the kernel's choice
//! (net.core.wmem_default, 208 KiB), so the request head, which the backend leaves unread, takes most
//! of it, and early data the rest.

use nix::sys::signal::Signal;

use super::client::Client;
use super::net;
use super::nginx::{Builder, Nginx, signal_worker};
use super::{Handshake, wait_until};

/// Bytes of early data; two thirds of them fit at most.
pub const EARLY_DATA: usize = 120_000;

const COOKIE: usize = 150_000;

/// nginx that reads so large a head, and all the early data with its end.
pub fn site(address: &str, directives: &str) -> Nginx {
    configure(Nginx::builder(), address, directives).start()
}

/// What makes it one.
pub fn configure(builder: Builder, address: &str, directives: &str) -> Builder {
    builder
        .http("client_header_buffer_size 512k; large_client_header_buffers 4 512k;")
        .listen("rcvbuf=1m")
        .server(format!("location /ws {{ {directives} ws_handoff {address}; }}"))
}

/// Connects and sends a large head with `early` behind it.
pub fn connect(nginx: &Nginx, early: &[u8]) -> Client {
    let head = Handshake::new("/ws").with("Cookie", &"c".repeat(COOKIE)).bytes();
    let (start, end) = head.split_at(head.len() - 4);
    let mut client = Client::connect(nginx.address());
    client.send(start);
    nginx.wait_read(&client);
    send_while_stopped(nginx, &mut client, &[end, early].concat());
    client
}

/// Sends `bytes` to a worker that is stopped, so that it finds all of them in one read.
pub fn send_while_stopped(nginx: &Nginx, client: &mut Client, bytes: &[u8]) {
    signal_worker(nginx.worker(), Signal::SIGSTOP);
    client.send(bytes);
    wait_until("the kernel has taken all", || net::unacknowledged(client.stream()) == 0);
    signal_worker(nginx.worker(), Signal::SIGCONT);
}
