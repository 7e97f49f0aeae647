//! What an application implements, and what it is told.

use std::net::IpAddr;

use handoff_websocket::{Agreement, Message};
use http::{HeaderMap, Uri};

use super::Context;
use crate::websocket::Source;

/// An application: one for all connections of an [`Engine`](super::Engine).
///
/// Its methods are called on the engine's threads, those of one connection one after the other. They must not block: all
/// connections of the thread wait meanwhile. What takes time belongs in a task, which answers by a
/// [`Sender`](super::Sender).
pub trait Handler: Send + Sync + 'static {
    /// What is kept for each connection. Its size is a part of what a connection costs.
    type Connection: Send + 'static;

    /// What whoever accepts a client passes on to [`on_open`](Self::on_open), by
    /// [`Engine::serve`](super::Engine::serve).
    type Ticket: Send + 'static;

    /// A connection is there. What the request said is gone afterwards, but for what is taken from it here.
    fn on_open(
        &self,
        request: Request,
        ticket: Self::Ticket,
        context: &mut Context<'_>,
    ) -> Self::Connection;

    /// A whole message came. Its bytes are the thread's, and gone afterwards.
    fn on_message(
        &self,
        connection: &mut Self::Connection,
        message: Message<'_>,
        context: &mut Context<'_>,
    );

    /// The conversation is over, for whatever reason: nothing that is sent now would arrive. What is kept of the connection
    /// is dropped once its socket is closed, which can be some seconds later: the client may answer a close.
    fn on_close(&self, connection: &mut Self::Connection, ended: Ended) {
        let _ = (connection, ended);
    }

    /// Called for every connection about once a second, or more often, where [`EngineOptions::sweeps`](super::EngineOptions::sweeps)
    /// asks for it: in place of a timer for each.
    fn on_sweep(&self, connection: &mut Self::Connection, context: &mut Context<'_>) {
        let _ = (connection, context);
    }

    /// What has happened on a thread since it last said so; called after a round of events in which something has.
    fn on_traffic(&self, traffic: &Traffic) {
        let _ = traffic;
    }
}

/// Who came, and what for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request {
    /// The request target.
    pub uri: Uri,
    /// The request's fields.
    pub headers: HeaderMap,
    /// As [`Offer::client_addr`](crate::Offer::client_addr).
    pub client_addr: Option<IpAddr>,
    /// The subprotocol that was chosen.
    pub protocol: Option<String>,
    /// How messages may be compressed, as agreed by [`Acceptance::compress`](crate::Acceptance::compress).
    pub compression: Option<Agreement>,
    /// By which way it came.
    pub source: Source,
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client sent a close, which is answered.
    ByClient,
    /// This side closed, with this code and for this reason.
    ByServer(u16, Cause),
    /// End of file without a close, an error, or a client that took nothing for the send timeout.
    Lost,
}

/// Why this side closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The application said so.
    Application,
    /// The client broke a rule of the protocol.
    Violation,
    /// A message over [`EngineOptions::max_message_size`](super::EngineOptions::max_message_size).
    MessageSize,
    /// More messages than [`EngineOptions::max_message_rate`](super::EngineOptions::max_message_rate).
    MessageRate,
    /// More waits to be sent than [`EngineOptions::max_queue`](super::EngineOptions::max_queue).
    Queue,
    /// Nothing came for [`EngineOptions::idle_timeout`](super::EngineOptions::idle_timeout).
    Idle,
    /// The engine drains.
    Drain,
    /// The keys of the client's TLS session are used up, and there are no others: of TLS 1.2, after 192 GiB, or more than a billion short
    /// messages. Or they would have to be changed, and cannot be: the kernel carries the session
    /// ([`EngineOptions::kernel_tls`](super::EngineOptions::kernel_tls)).
    Keys,
}

/// Counts of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Whole messages that came.
    pub messages_received: u64,
    /// Their payloads' bytes.
    pub bytes_received: u64,
    /// Messages sent, or queued to be sent.
    pub messages_sent: u64,
    /// Their payloads' bytes.
    pub bytes_sent: u64,
    /// Messages to groups that a member did not get because too much waits for it already
    /// ([`SlowReceiver::Drop`](super::SlowReceiver::Drop)), or all members on a thread because that is overloaded.
    pub messages_dropped: u64,
    /// Connections that came.
    pub opened: u64,
    /// Connections whose socket has been closed.
    pub gone: u64,
    /// Connections that came with a TLS session which is carried in user space, or in part.
    pub tls_user: u64,
    /// The same in the kernel.
    pub tls_kernel: u64,
    /// Those in user space that were meant for the kernel ([`EngineOptions::kernel_tls`](super::EngineOptions::kernel_tls)).
    pub tls_fallbacks: TlsFallbacks,
}

/// Counts of TLS sessions that the kernel was to carry and does not, by why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFallbacks {
    /// It has no TLS: its module `tls` is not loaded.
    pub unavailable: u64,
    /// It does not have this version of TLS with this cipher.
    pub suite: u64,
    /// It does not take the session of this client.
    pub socket: u64,
    /// It takes what opens the client's records, and not what seals the server's.
    pub sending: u64,
    /// There was no room for the KeyUpdate that the client was owed.
    pub key_update: u64,
}
