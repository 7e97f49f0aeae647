//! A server's side of an established TLS session, carried on from its keys and record counters.
//!
//! nginx does the handshake, with its certificates, tickets and client certificates, and passes on what is left of it once it
//! is over: a [`State`]. A [`Session`] made of it opens the client's records and seals the server's, for TLS 1.3 (RFC 8446)
//! and TLS 1.2 (RFC 5246) with the AEAD suites of both: key updates, alerts and the limits of each cipher included.
//!
//! Where a kernel carries a session on, it takes a [`RecordKey`] for each direction, and gives [`Control`] records back.
//!
//! Nothing is read or written here, and nothing is buffered but some bytes of a split handshake message: a session costs
//! about 240 bytes.

#![forbid(unsafe_code)]

mod alert;
mod half;
mod kernel;
mod open;
mod schedule;
mod seal;
mod session;
mod suite;

pub use handoff_protocol::tls::{Secret, State, StateError, Suite, Version};

pub use self::alert::{Alert, Closed};
pub use self::kernel::{Control, KEY_UPDATE_ANSWER, RecordKey, Secrets};
pub use self::open::{MOST_IDLE_RECORDS, Opened};
pub use self::seal::SealError;
pub use self::session::Session;

/// The longest plaintext of a record, in bytes (RFC 8446 section 5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;
