//! A client that has been accepted and is here: its stream, and what its request said.

use std::net::IpAddr;

use fastwebsockets::{Role, WebSocket};
use http::{HeaderMap, Uri};

use crate::offer::subprotocols;
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
    source: Source,
    uri: Uri,
    headers: HeaderMap,
    client_addr: Option<IpAddr>,
    protocol: Option<String>,
}

impl Client {
    pub(crate) fn new(
        stream: ClientStream,
        source: Source,
        uri: Uri,
        headers: HeaderMap,
        client_addr: Option<IpAddr>,
        protocol: Option<String>,
    ) -> Client {
        Client { stream, source, uri, headers, client_addr, protocol }
    }

    /// By which way it came.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The request target.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The request's fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// As [`Offer::client_addr`](crate::Offer::client_addr).
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.client_addr
    }

    /// The subprotocols that the client had offered.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        subprotocols(&self.headers)
    }

    /// The subprotocol that was chosen.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
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
