//! A TLS client's session leaves nginx with its socket: `ws_handoff_tls on`.
//!
//! `install` has OpenSSL tell of every connection, `observed` keeps what it tells, `drain` takes what OpenSSL has read
//! already before a backend is asked, `trust` decides whether that backend may have it, `export` writes the session's state
//! into the commit. What is not fit for that (`refusal`) is tunnelled. `openssl` is the only place that knows OpenSSL's functions.
//!
//! From the drain on nobody reads from the client through OpenSSL, so that what was clean stays clean; nginx's own watch over
//! a client that leaves peeks at the socket beneath. The 101 is OpenSSL's last record.

mod drain;
mod export;
mod install;
mod observed;
mod openssl;
mod recent;
mod refusal;
pub mod trust;

use handoff_protocol::tls::State;

pub use drain::drain;
pub use install::install;
pub use observed::Sent;
pub use refusal::{Reason, Refusal};
pub use trust::is_trusted;

use crate::nginx::Connection;

/// Encodes the state of the client's session into `out`, and returns its length. The caller zeroes it, and the stack
/// ([`handoff_protocol::tls::cleanse_stack`]).
///
/// # Errors
///
/// [`Refusal`]: somebody has read from the client since it was drained, or the 101 has not been a record since `before_the_101`.
pub fn export(
    client: Connection,
    before_the_101: Sent,
    out: &mut [u8; State::MAX_LEN],
) -> Result<usize, Refusal> {
    let openssl = openssl::get().ok_or(Refusal::Secrets)?;
    let ssl = client.tls().ok_or(Refusal::Closed)?;
    export::export(openssl, ssl.as_ptr().cast(), before_the_101, out)
}

/// How far the records to a client are.
pub fn sent(client: Connection) -> Sent {
    let known = match (openssl::get(), client.tls()) {
        (Some(openssl), Some(ssl)) => observed::of(openssl, ssl.as_ptr().cast()),
        _ => None,
    };
    known.map(observed::Observed::sent).unwrap_or_default()
}

/// OpenSSL reads ahead again, as nginx has it do: the session stays.
pub fn keep(client: Connection) {
    if let (Some(openssl), Some(ssl)) = (openssl::get(), client.tls()) {
        drain::read_ahead(openssl, ssl.as_ptr().cast(), true);
    }
}
