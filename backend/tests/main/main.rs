//! Tests of the backend without nginx: the library against a fake one, and the program against raw clients.
//!
//! One binary, a module per promise. The end-to-end tests with nginx are the workspace root's.

mod fake; // the other side: nginx on a Unix socket, a client on TCP, frames, the program as a process

mod answer; // every offer gets one, and what is too much gets a 503
mod handoff; // the 101, the descriptor, the commit, and every way in which they can go wrong
mod head; // what is no offer gets an answer, and holds up nobody
mod refusal; // refusals arrive whole
mod reuse; // one connection brings one client after the other
mod socket; // the listening socket's file: whose it is, who may connect

mod apps; // the program's applications
mod conformance; // what the program does about clients who break RFC 6455
mod descriptors; // none is leaked
mod lifecycle; // starting, draining, socket activation
mod limits;
mod restart; // draining, and the successor that starts meanwhile // connections, messages, time
