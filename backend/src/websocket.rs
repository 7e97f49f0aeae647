//! A client that has been accepted and is here: its stream, and what its request said.

use std::net::IpAddr;

use std::os::fd::OwnedFd;

use bytes::Bytes;
use fastwebsockets::{Role, WebSocket};
use handoff_tls::Session;
use http::{HeaderMap, Uri};

use crate::engine::Request;
use crate::offer::subprotocols;
use crate::receive::Owned;
use crate::stream::ClientStream;

/// By which way a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// nginx passed its socket.
    Handoff,
    /// Through nginx, or another proxy, on a Unix socket.
    Tunnel,
    /// Over TCP, from a client or a proxy.
    Direct,
}

/// An accepted WebSocket client. The opening handshake is over: the next bytes either way are frames.
#[derive(Debug)]
pub struct Client {
    stream: ClientStream,
    request: Request,
}

impl Client {
    pub(crate) fn new(stream: ClientStream, request: Request) -> Client {
        Client { stream, request }
    }

    /// All that its request said.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// By which way it came.
    pub fn source(&self) -> Source {
        self.request.source
    }

    /// The request target.
    pub fn uri(&self) -> &Uri {
        &self.request.uri
    }

    /// The request's fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.request.headers
    }

    /// As [`Offer::client_addr`](crate::Offer::client_addr).
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.request.client_addr
    }

    /// The subprotocols that the client had offered.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        subprotocols(&self.request.headers)
    }

    /// The subprotocol that was chosen.
    pub fn protocol(&self) -> Option<&str> {
        self.request.protocol.as_deref()
    }

    /// The bare stream; what the request said is dropped.
    pub fn into_stream(self) -> ClientStream {
        self.stream
    }

    /// A WebSocket server on the stream; what the request said is dropped.
    ///
    /// Pings and closes are answered by themselves; a *frame* may have up to 16 MiB
    /// ([`set_max_message_size`](WebSocket::set_max_message_size)); messages in several frames come as such, unless
    /// it is wrapped in a [`FragmentCollector`](fastwebsockets::FragmentCollector). fastwebsockets 0.10 accepts
    /// unmasked frames, which RFC 6455 5.1 does not.
    pub fn into_websocket(self) -> WebSocket<ClientStream> {
        let mut websocket = WebSocket::after_handshake(self.stream, Role::Server);
        websocket.set_auto_close(true);
        websocket.set_auto_pong(true);
        websocket.set_max_message_size(16 << 20);
        websocket
    }
}

/// An accepted WebSocket client that no runtime watches yet: for an [`Engine`](crate::engine::Engine), or an event loop
/// of one's own. The opening handshake is over: the next bytes either way are frames.
#[derive(Debug)]
pub struct DetachedClient {
    socket: Owned,
    early: Bytes,
    request: Request,
    tls: Option<Box<Session>>,
}

impl DetachedClient {
    pub(crate) fn new(
        socket: Owned,
        early: Bytes,
        request: Request,
        tls: Option<Box<Session>>,
    ) -> DetachedClient {
        DetachedClient { socket, early, request, tls }
    }

    /// What its request said.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether the client speaks TLS, and its session came along ([`carry_tls`](crate::Acceptance::carry_tls)).
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The client's socket, nonblocking (its own, or the connection through which nginx tunnels); what it has sent
    /// already, which comes before anything that is read; and what its request said.
    ///
    /// To hang up, call shutdown(2) before close(2): nginx may not have let go of the socket yet. (Dropping the whole does
    /// that.) `None` for a client with a TLS session, which an engine can serve and a bare socket cannot: it is hung up on.
    pub fn into_parts(mut self) -> Option<(OwnedFd, Bytes, Request)> {
        if self.tls.is_some() {
            return None;
        }
        Some((self.socket.take()?, self.early, self.request))
    }

    pub(crate) fn into_owned(self) -> (Owned, Bytes, Request, Option<Box<Session>>) {
        (self.socket, self.early, self.request, self.tls)
    }
}
