//! Tests of the backend without nginx: the library against a fake one, and the program against raw clients.
//!
//! One binary, a module per promise. The end-to-end tests with nginx are the workspace root's.

mod fake; // the other side: nginx on a Unix socket, a client on TCP, frames, the program as a process

mod answer; // every offer gets one, and what is too much gets a 503
#[cfg(feature = "axum")]
mod axum; // offers for an axum router; the feature comes with the examples, which every build of all tests includes
mod handoff; // the 101, the descriptor, the commit, and every way in which they can go wrong
mod head; // what is no offer gets an answer, and holds up nobody
mod refusal; // refusals arrive whole
mod reuse; // one connection brings one client after the other
mod socket; // the listening socket's file: whose it is, who may connect

mod apps; // the program's applications
mod conformance; // what the program does about clients who break RFC 6455
mod descriptors; // none is leaked
mod lifecycle; // starting, draining, socket activation
mod limits; // connections, messages, time
mod manager; // what systemd is told
mod restart; // draining, and the successor that starts meanwhile
mod strict; // RFC 6455 by the byte

mod engine_compression; // permessage-deflate, where it is asked for
mod engine_flow; // none lost, none doubled, none reordered, whatever is sent and however it is cut
mod engine_library; // the engine as a library: what a handler is told, and what it can do
mod engine_limits; // pings, idleness, rates, sizes, the drain
mod engine_many; // thousands of clients end at once, and nothing is left of them
mod engine_slow; // clients that stop reading, flood, or close one direction
mod engine_tls; // clients that speak TLS: all of the above, and what only they can do
