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
    let most = usize::from(head::MAX_CONTROL) - size_of_val(&code);
    let mut reason = reason;
    while reason.len() > most {
        let end = reason.char_indices().map(|(at, _)| at).take_while(|&at| at <= most).last();
        reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    put(out, OpCode::Close, &payload);
}

/// `message` as one frame, encoded once for all the connections that it goes to.
#[must_use]
pub fn frame(message: Message<'_>) -> Bytes {
    let mut out = Vec::with_capacity(MAX_HEAD + message.len());
    encode(&mut out, message);
    Bytes::from(out)
}

/// A server's: two bytes, eight of length. `fmt_head` wants room for a mask, too.
const MAX_HEAD: usize = head::MAX_LEN;

fn put(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let mut head = [0; MAX_HEAD];
    let len = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    out.reserve(len + payload.len());
    out.extend_from_slice(head.get(..len).unwrap_or_default());
    out.extend_from_slice(payload);
}
