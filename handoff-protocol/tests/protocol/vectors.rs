//! Golden vectors: the exact bytes of every message. `docs/protocol.md` prints the same bytes, and
//! `golden.rs` holds the two together.

/// A request head in which nginx offers the descriptor.
pub const REQUEST_OFFER: &[u8] = b"GET /chat/room?x=1 HTTP/1.1\r\n\
    Host: example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Handoff: fd; v=1\r\n\
    X-Real-IP: 192.0.2.7\r\n\
    X-Forwarded-For: 192.0.2.7\r\n\
    X-Forwarded-Proto: http\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Origin: http://example.com\r\n\
    \r\n";

/// The `Sec-WebSocket-Accept` that belongs to the key in [`REQUEST_OFFER`].
pub const ACCEPT: &[u8; 28] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An answer that asks for the descriptor and chooses a subprotocol.
pub const ANSWER_HANDOFF: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Handoff: fd\r\n\
    Sec-WebSocket-Protocol: chat\r\n\
    \r\n";

/// An answer of an ordinary WebSocket server.
pub const ANSWER_TUNNEL: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    \r\n";

/// The head of a refusal; its body, `no entry` and a newline, follows.
pub const ANSWER_REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 9\r\n\
    \r\n";

/// The byte that carries the descriptor.
pub const OFFER: &[u8] = &[0x46];

/// A commit without early data.
pub const COMMIT_EMPTY: &[u8] = &[0x43, 0, 0, 0, 0, 0];

/// The masked text frame `Hello` of RFC 6455 section 5.7.
pub const FRAME: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

/// A commit with [`FRAME`] as early data.
pub const COMMIT_EARLY_DATA: &[u8] = &[
    0x43, 0x01, 0x00, 0x00, 0x00, 0x0b, 0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51,
    0x58, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// A commit with [`FRAME`] as early data in two sections, around a section of unknown type 0x7f.
pub const COMMIT_UNKNOWN_SECTION: &[u8] = &[
    0x43, 0x01, 0x00, 0x00, 0x00, 0x04, 0x81, 0x85, 0x37, 0xfa, 0x7f, 0x00, 0x00, 0x00, 0x02, 0xaa,
    0xbb, 0x01, 0x00, 0x00, 0x00, 0x07, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, 0x00, 0x00, 0x00,
    0x00, 0x00,
];
