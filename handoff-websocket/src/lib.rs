//! The WebSocket protocol after its opening handshake, for a server (RFC 6455 sections 5 to 7, RFC 7692).
//!
//! Pure logic: bytes in, events out, and the other way round. It opens no socket and reads no clock, and between two
//! messages it keeps nothing, so that an idle connection can cost its owner tens of bytes:
//!
//! | what | lives |
//! | --- | --- |
//! | [`Decoder`] | with a connection, but only while [`Decoder::is_idle`] is false |
//! | [`Inflater`], [`Deflater`] | with a thread, which lends them to each call |
//! | [`Agreement`], what [`negotiate`] found | with a connection, in 2 bytes |
//! | [`encode`] and the other encoders | nowhere: they append to a buffer |

#![forbid(unsafe_code)]

mod close;
mod decoder;
mod deflate;
mod encoder;
mod extension;
mod head;
mod message;
mod utf8;
mod violation;

pub use decoder::{DecodeOptions, Decoder};
pub use deflate::{Deflater, Inflater};
pub use encoder::{encode, encode_close, encode_control, frame};
pub use extension::{Agreement, negotiate};
pub use fastwebsockets::OpCode;
pub use message::{Event, Message};
pub use violation::Violation;
