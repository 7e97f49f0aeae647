//! The record layer against RFC 8448's traces, a peer by others (rustls), and what no peer would send.

mod peer; // rustls as the client, its handshake with rustls as the server
mod records; // what a client must not send, and what it may
mod rfc8448; // the traces
mod split; // any split of the input gives the same
