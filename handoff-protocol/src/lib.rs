//! What nginx and a WebSocket backend must agree on when a client's socket is handed over.
//!
//! The conversation runs over one Unix stream socket per client; `docs/protocol.md` specifies it. This
//! crate is the part of it that is pure logic: bytes in, bytes or verdicts out. It opens no socket,
//! reads no clock and passes no descriptor, so that every rule can be tested without nginx.
//!
//! | step | nginx's side | backend's side |
//! | --- | --- | --- |
//! | the client's opening handshake | [`validate`] | – |
//! | which sites may ask | [`OriginRule`] | – |
//! | request head | [`RequestHead`] | [`parse_request`] |
//! | answer head | [`parse_answer`] | [`encode_answer`] |
//! | body of a refusal | [`ChunkedDecoder`] | – |
//! | offer | [`OFFER`] | [`OFFER`] |
//! | commit | [`commit_len`], [`encode_commit`] | [`CommitDecoder`] |
//! | a TLS session, in the commit | [`tls::State`] | [`tls::State`] |
//! | who is trusted with one | [`trust::Walk`] | [`trust::TrustedUsers`] |
//!
//! What nginx's side uses is called from `extern "C"` callbacks, where a panic would take down every
//! client of the worker: none of it allocates, and none of it panics, whatever the input.

#![forbid(unsafe_code)]

mod address;
mod answer;
mod chunked;
pub mod commit;
mod field;
mod handshake;
mod origin;
mod request;
pub mod tls;
pub mod trust;

pub use address::{AddressError, check_address};
pub use answer::{AnswerError, AnswerHead, AnswerKind, encode_answer, parse_answer};
pub use chunked::{ChunkedDecoder, ChunkedError, Decoded};
pub use commit::{
    COMMIT, Commit, CommitDecoder, CommitError, Feed, OFFER, commit_len, encode_commit, section,
};
pub use field::{FieldName, Way, has_token, same_field_name, tokens};
pub use handshake::{HandshakeError, OpeningHandshake, RequestLine, accept_key, validate};
pub use origin::{OriginPattern, OriginRule, OriginRuleError, RegexSource, SentOrigin};
pub use request::{
    Request, RequestHead, RequestHeadError, RequestParseError, check_set_field, check_value,
    is_reserved_field, parse_request,
};
