//! Frames to a client, without a buffer of their own: head and payload go to the kernel as they are.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use fastwebsockets::{Frame, OpCode, Payload};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::stream::WriteHalf;

/// Writes frames; the send timeout is for a client that takes nothing at all.
pub(crate) struct FrameWriter<'s> {
    half: WriteHalf<'s>,
    send_timeout: Duration,
    /// Part of a frame is out and the rest will never be: nothing may follow it.
    broken: bool,
}

impl<'s> FrameWriter<'s> {
    pub(crate) fn new(half: WriteHalf<'s>, send_timeout: Duration) -> FrameWriter<'s> {
        FrameWriter { half, send_timeout, broken: false }
    }

    pub(crate) async fn send(&mut self, opcode: OpCode, payload: &[u8]) -> io::Result<()> {
        let mut head = [0; 16];
        let head_len = head_of(opcode, payload, &mut head);
        self.write(&head[..head_len], payload).await
    }

    /// Sends what [`encode`] made.
    pub(crate) async fn send_encoded(&mut self, frame: &[u8]) -> io::Result<()> {
        self.write(frame, &[]).await
    }

    /// Sends a close; without a code if the client gave none.
    pub(crate) async fn close(&mut self, code: Option<u16>, reason: &str) -> io::Result<()> {
        let mut payload = Vec::new();
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        self.send(OpCode::Close, &payload).await
    }

    async fn write(&mut self, first: &[u8], second: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Stays so if this future is dropped, or fails, halfway.
        self.broken = true;
        let mut rest = first.chain(second);
        while rest.has_remaining() {
            let mut parts = [IoSlice::new(&[]); 2];
            let count = rest.chunks_vectored(&mut parts);
            let write = self.half.write_vectored(&parts[..count]);
            match timeout(self.send_timeout, write).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => rest.advance(len?),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        self.broken = false;
        Ok(())
    }
}

/// A message as bytes on the wire, to be sent to many.
pub(crate) fn encode(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut head = [0; 16];
    let head_len = head_of(opcode, payload, &mut head);
    let mut frame = Vec::with_capacity(head_len + payload.len());
    frame.extend_from_slice(&head[..head_len]);
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

/// The head's length: at most 10 bytes, since a server does not mask.
fn head_of(opcode: OpCode, payload: &[u8], head: &mut [u8; 16]) -> usize {
    Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(head)
}
