//! Messages encoded once, for any number of connections.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use handoff_websocket::{Agreement, Deflater, Message};

/// A message as it is on the wire: made once, sent to many. Cloning it copies nothing.
#[derive(Debug, Clone)]
pub struct Prepared(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    plain: Bytes,
    payload_len: usize,
    is_text: bool,
    /// For clients that agreed to permessage-deflate; by the first thread that has one.
    deflated: OnceLock<Bytes>,
}

impl Prepared {
    /// Encodes a message.
    pub fn new(message: Message<'_>) -> Prepared {
        Prepared(Arc::new(Encoded {
            plain: handoff_websocket::frame(message),
            payload_len: message.payload().len(),
            is_text: matches!(message, Message::Text(_)),
            deflated: OnceLock::new(),
        }))
    }

    /// The payload's length in bytes.
    pub fn payload_len(&self) -> usize {
        self.0.payload_len
    }

    /// The frame for a client with this agreement.
    pub(crate) fn bytes(&self, agreement: Option<Agreement>, deflater: &mut Deflater) -> &Bytes {
        // A client that asked for a smaller window than everybody else's is sent it as it is.
        let Some(agreement) = agreement.filter(|agreement| agreement.server_window_bits() == 15)
        else {
            return &self.0.plain;
        };
        self.0.deflated.get_or_init(|| {
            let Some(message) = self.message() else { return self.0.plain.clone() };
            let mut frame = Vec::new();
            deflater.encode(&mut frame, message, agreement);
            Bytes::from(frame)
        })
    }

    fn message(&self) -> Option<Message<'_>> {
        let head = self.0.plain.len().checked_sub(self.0.payload_len)?;
        let payload = self.0.plain.get(head..)?;
        if self.0.is_text {
            // It was text when it was encoded.
            std::str::from_utf8(payload).ok().map(Message::Text)
        } else {
            Some(Message::Binary(payload))
        }
    }
}
