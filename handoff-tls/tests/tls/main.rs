//! The record layer against RFC 8448's traces, a peer by others (rustls), and what no peer would send.

mod handshake; // rustls in both roles, and what is left of it

mod kernel; // what a kernel takes of a session, and gives back
mod limits; // how long keys are used, and the end
mod peer; // rustls as the client
mod records; // what a client must not send, and what it may
mod rfc8448; // the traces
mod split; // any split of the input gives the same
