//! A client at the one moment that is otherwise too short to catch: the descriptor is offered, and the 101
//! cannot be written since the client's send buffer in nginx's kernel is full. It lasts until the client is
//! let off, whose kernel acknowledges nothing before.

use std::os::fd::OwnedFd;

use super::client::Client;
use super::fake::ManualBackend;
use super::net;
use super::nginx::{Builder, Nginx};
use super::peer::Peer;
use super::{Handshake, Head};

/// Catches clients between offer and commit.
pub struct Trap {
    /// How many unread responses fill the buffer, such that not even one more fits; found by trying.
    responses: usize,
}

/// One that was caught.
pub struct Stuck {
    pub client: Client,
    pub peer: Peer,
    pub offer: OwnedFd,
    responses: usize,
}

/// What fills the buffer: each response is shorter than any 101, so that behind the last one that fits no
/// 101 does.
const REQUEST: &[u8] = b"GET /crumb HTTP/1.1\r\nHost: localhost\r\n\r\n";

impl Trap {
    /// What the nginx needs: small send buffers, and something to fill them with.
    pub fn configure(builder: Builder) -> Builder {
        builder
            .listen("sndbuf=8k")
            .http("client_header_buffer_size 64k; keepalive_requests 100000;")
            .server("location = /crumb { access_log off; return 204; }")
    }

    pub fn new() -> Trap {
        Trap { responses: 32 }
    }

    /// A client that has sent its handshake for `target` (and `early` data) behind requests whose responses
    /// nobody acknowledges.
    pub fn catch(
        &mut self,
        nginx: &Nginx,
        backend: &ManualBackend,
        target: &str,
        early: &[u8],
    ) -> Stuck {
        for _ in 0..200 {
            let client = self.pipeline(nginx, target, early);
            let Some(mut peer) = backend.try_accept() else {
                // One of the responses is stuck already.
                self.responses -= 1;
                client.reset();
                continue;
            };
            peer.read_head();
            peer.accept();
            let offer = peer.recv_offer();
            // Had the 101 been written, the commit would have been, too.
            nginx.serve_others();
            if !peer.has_input() {
                return Stuck { client, peer, offer, responses: self.responses };
            }
            self.responses += 1;
            peer.recv_commit();
            client.reset();
        }
        panic!("no number of unread responses fills the buffer exactly");
    }

    /// A client as [`Trap::catch`] makes it, whatever becomes of its handshake; after one was caught, so that
    /// the number of responses is known.
    pub fn pipeline(&self, nginx: &Nginx, target: &str, early: &[u8]) -> Client {
        let mut client = Client::connect(nginx.address());
        net::drop_arrivals(client.stream());
        let mut bytes = REQUEST.repeat(self.responses);
        bytes.extend(Handshake::new(target).bytes());
        bytes.extend_from_slice(early);
        client.send(&bytes);
        nginx.serve_others();
        client
    }

    /// Lets such a client off, and reads what was in the way; the 101 is next.
    pub fn let_off(&self, client: &mut Client) {
        net::keep_arrivals(client.stream());
        read_responses(client, self.responses);
    }
}

impl Stuck {
    /// From now on the client receives.
    pub fn let_off(&self) {
        net::keep_arrivals(self.client.stream());
    }

    /// Reads what was in the way, then the 101.
    pub fn read_101(&mut self) -> Head {
        read_responses(&mut self.client, self.responses);
        self.client.expect_101()
    }
}

fn read_responses(client: &mut Client, count: usize) {
    for _ in 0..count {
        assert_eq!(client.read_head().status(), 204);
    }
}
