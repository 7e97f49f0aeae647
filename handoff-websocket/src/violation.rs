//! The rules that a client can break.

/// A broken rule: the connection is to be closed with [`code`](Self::code) and, as the reason, what `Display` says, which
/// is short enough for a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// RSV1, 2 or 3 is set, but no extension was negotiated that gives it a meaning there (RFC 6455 section 5.2).
    #[error("reserved bit set")]
    ReservedBits,
    /// An opcode that nobody has defined (section 5.2).
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client's frame must be masked (section 5.1).
    #[error("frame not masked")]
    NotMasked,
    /// A control frame without FIN (section 5.5).
    #[error("control frame fragmented")]
    ControlFragmented,
    /// A control frame of more than 125 bytes (section 5.5).
    #[error("control frame too long")]
    ControlTooLong,
    /// A length in the 16-bit or 64-bit form that has a shorter one (section 5.2).
    #[error("length in more bytes than needed")]
    LengthNotMinimal,
    /// A 64-bit length whose top bit is set (section 5.2).
    #[error("length of more than 63 bits")]
    LengthTopBit,
    /// A continuation frame where no message had begun (section 5.4).
    #[error("continuation of nothing")]
    UnexpectedContinuation,
    /// A text or binary frame before the last message's end (section 5.4).
    #[error("message within a message")]
    ExpectedContinuation,
    /// A close whose payload is half a code (section 5.5.1).
    #[error("close of one byte")]
    CloseTooShort,
    /// A close code that must not be sent (section 7.4).
    #[error("invalid close code")]
    CloseCode,
    /// A text message (section 8.1) or the reason of a close that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A compressed message that is no deflate stream (RFC 7692 section 7.2.2).
    #[error("message is not deflated")]
    NotDeflated,
    /// A message longer than the limit, once inflated if it is compressed.
    #[error("message too long")]
    TooLong,
}

impl Violation {
    /// The close code that says so: 1002, 1007 or 1009 (RFC 6455 section 7.4.1).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::NotUtf8 | Self::NotDeflated => 1007,
            Self::TooLong => 1009,
            _ => 1002,
        }
    }
}
