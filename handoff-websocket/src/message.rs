//! What a decoder reports and an encoder takes.

use fastwebsockets::OpCode;

/// What came from a client, in the order in which it became complete. What it refers to is gone after the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message, its fragments joined and inflated.
    Message(Message<'a>),
    /// To be answered with a pong of the same payload, at most 125 bytes (RFC 6455 section 5.5.2).
    Ping(&'a [u8]),
    /// At most 125 bytes.
    Pong(&'a [u8]),
    /// The last event: the client's code, which is one that may be sent, and its reason, if it gave any (section 5.5.1).
    Close(Option<(u16, &'a str)>),
}

/// A whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Of opcode 1.
    Text(&'a str),
    /// Of opcode 2.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// [`OpCode::Text`] or [`OpCode::Binary`].
    #[must_use]
    pub fn opcode(&self) -> OpCode {
        match self {
            Self::Text(_) => OpCode::Text,
            Self::Binary(_) => OpCode::Binary,
        }
    }

    /// Its bytes, without any framing.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload's length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload().len()
    }

    /// Whether the payload has no bytes, which is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload().is_empty()
    }
}
