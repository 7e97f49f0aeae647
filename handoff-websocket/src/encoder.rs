//! From messages and control frames to a server's bytes, which are never masked and never fragmented (RFC 6455 section 5.1).

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload};

use crate::{Message, close, head};

/// Appends `message` to `out`, as one frame.
pub fn encode(out: &mut Vec<u8>, message: Message<'_>) {
    put(out, message.opcode(), message.payload());
}

/// Appends a control frame. Of a payload longer than the 125 bytes that one may have, the rest is left out.
pub fn encode_control(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let payload = payload.get(..usize::from(head::MAX_CONTROL)).unwrap_or(payload);
    put(out, opcode, payload);
}

/// Appends a close frame. A reason longer than the 123 bytes that one may have is cut off between two characters. Without
/// a code there is no reason either, nor with one that must not be sent (RFC 6455 section 7.4).
pub fn encode_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code.filter(|&code| close::may_be_sent(code)) else {
        return put(out, OpCode::Close, &[]);
    };
    let end = (0..=MAX_REASON).rfind(|&at| reason.is_char_boundary(at));
    let reason =
        if reason.len() > MAX_REASON { reason.get(..end.unwrap_or(0)) } else { Some(reason) };
    let payload = [&code.to_be_bytes(), reason.unwrap_or_default().as_bytes()].concat();
    put(out, OpCode::Close, &payload);
}

/// `message` as one frame, encoded once for all the connections that it goes to.
#[must_use]
pub fn frame(message: Message<'_>) -> Bytes {
    let mut out = Vec::with_capacity(MAX_HEAD + message.len());
    encode(&mut out, message);
    Bytes::from(out)
}

/// In bytes: what the code leaves of 125.
const MAX_REASON: usize = 123;

/// Of a server's head: two bytes, eight of length.
pub(crate) const MAX_HEAD: usize = 10;

/// The head of an uncompressed frame, and its length.
#[inline]
pub(crate) fn head(opcode: OpCode, payload: &[u8]) -> ([u8; MAX_HEAD], usize) {
    let mut head = [0; MAX_HEAD];
    let len = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    (head, len)
}

fn put(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let (head, len) = head(opcode, payload);
    out.reserve(len.saturating_add(payload.len()));
    out.extend_from_slice(head.get(..len).unwrap_or_default());
    out.extend_from_slice(payload);
}
