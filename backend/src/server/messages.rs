//! Messages from a client: frames by fastwebsockets, and what RFC 6455 asks beyond what it checks.
//!
//! fastwebsockets 0.10 checks reserved bits, opcodes, fragmented control frames, long pings, a frame's length against a
//! limit, and the UTF-8 of a text in one frame. Added here: frames must be masked, every control frame is at most 125
//! bytes long, a close's payload is well-formed, the limit holds for a message and not for each of its fragments,
//! fragments come in order, and a text in fragments is UTF-8 as a whole. What its interface hides, and so passes: lengths
//! in more bytes than needed, and that room for a frame of permitted length is reserved before its bytes are there.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use fastwebsockets::{CloseCode, Frame, OpCode, Payload, Role, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::arrivals::Arrivals;
use crate::stream::ReadHalf;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Text, and so valid UTF-8; else binary.
    pub(crate) is_text: bool,
    pub(crate) payload: Bytes,
}

impl Message {
    pub(crate) fn opcode(&self) -> OpCode {
        if self.is_text { OpCode::Text } else { OpCode::Binary }
    }
}

/// What came.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Message),
    Ping(Bytes),
    Pong,
    /// With the code to answer with: the client's, or none if it gave none.
    Close(Option<u16>),
}

/// Why nothing more will come.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The client broke a rule: to be closed with this code and reason.
    Violation(u16, &'static str),
    /// End of file without a close, or an error.
    Gone(Option<io::Error>),
}

/// Reads messages. [`next`](Self::next) is not cancel-safe: fastwebsockets forgets half a header.
///
/// A `WebSocket` has a read buffer of 8 kB, which grows with the messages: it exists only from when bytes have come until
/// all of them are used.
pub(crate) struct MessageReader<'s> {
    stream: Stream<'s>,
    max_message_size: usize,
    // Boxed: few connections are in the middle of a fragmented message.
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    payload: Vec<u8>,
    /// Up to where the text is known to be UTF-8.
    valid: usize,
}

impl<'s> MessageReader<'s> {
    /// `arrivals` is told of every byte, long before a message is whole.
    pub(crate) fn new(
        half: ReadHalf<'s>,
        arrivals: &'s Arrivals,
        max_message_size: usize,
    ) -> MessageReader<'s> {
        let stream = Stream::Parked(ReadOnly { half, arrivals });
        MessageReader { stream, max_message_size, partial: None }
    }

    pub(crate) async fn next(&mut self) -> Result<Event, ReadError> {
        loop {
            // fastwebsockets refuses a frame of just this length too, and control frames are not messages.
            let max_frame_size = self.max_message_size.max(MAX_CONTROL) + 1;
            let reading = self.stream.reading(max_frame_size).await?;
            let mut frame = reading.websocket.read_frame().await?;
            reading.used += head_len(&mut frame)? + frame.payload.len() as u64;
            let (fin, opcode) = (frame.fin, frame.opcode);
            let payload = into_bytes(frame.payload);
            self.stream.park_if_used_up();
            match opcode {
                OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                    if let Some(message) = self.data(fin, opcode, payload)? {
                        return Ok(Event::Message(message));
                    }
                }
                _ if payload.len() > MAX_CONTROL => {
                    return Err(ReadError::Violation(1002, "control frame too long"));
                }
                OpCode::Ping => return Ok(Event::Ping(payload)),
                OpCode::Pong => return Ok(Event::Pong),
                OpCode::Close => return close(&payload).map(Event::Close),
            }
        }
    }

    fn data(
        &mut self,
        fin: bool,
        opcode: OpCode,
        payload: Bytes,
    ) -> Result<Option<Message>, ReadError> {
        let too_long = ReadError::Violation(1009, "message too long");
        if payload.len() > self.max_message_size {
            return Err(too_long);
        }
        let is_text = opcode == OpCode::Text;
        match (opcode, &mut self.partial) {
            (OpCode::Continuation, None) => {
                Err(ReadError::Violation(1002, "continuation of nothing"))
            }
            (OpCode::Continuation, Some(partial)) => {
                if payload.len() > self.max_message_size.saturating_sub(partial.payload.len()) {
                    return Err(too_long);
                }
                partial.payload.extend_from_slice(&payload);
                partial.check(fin)?;
                if !fin {
                    return Ok(None);
                }
                Ok(self.partial.take().map(|partial| Message {
                    is_text: partial.is_text,
                    payload: Bytes::from(partial.payload),
                }))
            }
            (_, Some(_)) => Err(ReadError::Violation(1002, "message within a message")),
            (_, None) if fin => Ok(Some(Message { is_text, payload })),
            (_, None) => {
                let mut partial =
                    Box::new(Partial { is_text, payload: payload.to_vec(), valid: 0 });
                partial.check(false)?;
                self.partial = Some(partial);
                Ok(None)
            }
        }
    }
}

impl Partial {
    /// Fails as soon as no continuation could make the text valid, or at its end.
    fn check(&mut self, is_whole: bool) -> Result<(), ReadError> {
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(self.payload.get(self.valid..).unwrap_or_default()) {
            Ok(_) => self.valid = self.payload.len(),
            Err(error) if error.error_len().is_some() || is_whole => return Err(NOT_UTF8),
            Err(error) => self.valid += error.valid_up_to(),
        }
        Ok(())
    }
}

/// RFC 6455 5.5
const MAX_CONTROL: usize = 125;

const NOT_UTF8: ReadError = ReadError::Violation(1007, "text is not UTF-8");

/// The length of a frame's head, if it is masked as a client's must be. The mask is private, but a frame still knows it
/// after unmasking, and formatting its head again shows it.
fn head_len(frame: &mut Frame<'_>) -> Result<u64, ReadError> {
    let mut head = [0; 16];
    let len = frame.fmt_head(&mut head);
    if head[1] & 0x80 == 0 {
        return Err(ReadError::Violation(1002, "frame not masked"));
    }
    Ok(len as u64)
}

fn into_bytes(payload: Payload<'_>) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes.freeze(),
        other => Bytes::from(Vec::from(other)),
    }
}

/// RFC 6455 5.5.1: nothing, or a code and a reason in UTF-8.
fn close(payload: &[u8]) -> Result<Option<u16>, ReadError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(ReadError::Violation(1002, "close of one byte")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !CloseCode::from(code).is_allowed() {
        return Err(ReadError::Violation(1002, "invalid close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(NOT_UTF8);
    }
    Ok(Some(code))
}

impl From<WebSocketError> for ReadError {
    fn from(error: WebSocketError) -> ReadError {
        match error {
            WebSocketError::UnexpectedEOF => ReadError::Gone(None),
            WebSocketError::IoError(error) => ReadError::Gone(Some(error)),
            WebSocketError::InvalidUTF8 => NOT_UTF8,
            WebSocketError::FrameTooLarge => ReadError::Violation(1009, "message too long"),
            WebSocketError::ReservedBitsNotZero => ReadError::Violation(1002, "reserved bit set"),
            WebSocketError::InvalidValue => ReadError::Violation(1002, "reserved opcode"),
            WebSocketError::ControlFrameFragmented => {
                ReadError::Violation(1002, "control frame fragmented")
            }
            WebSocketError::PingFrameTooLarge => {
                ReadError::Violation(1002, "control frame too long")
            }
            _ => ReadError::Violation(1002, "protocol error"),
        }
    }
}

enum Stream<'s> {
    /// Nothing has come that was not used.
    Parked(ReadOnly<'s>),
    Reading(Reading<'s>),
    /// Only while one becomes the other.
    Moving,
}

struct Reading<'s> {
    websocket: WebSocket<ReadOnly<'s>>,
    arrivals: &'s Arrivals,
    /// Bytes that had come when it was last parked.
    begin: u64,
    /// Bytes of the frames read since it was parked. A head in more bytes than needed counts as fewer than it had: then
    /// the stream is never parked again, but neither are unused bytes thrown away.
    used: u64,
}

impl<'s> Stream<'s> {
    /// Waits until there is something to read.
    async fn reading(&mut self, max_frame_size: usize) -> Result<&mut Reading<'s>, ReadError> {
        if let Stream::Parked(parked) = self {
            parked.half.readable().await.map_err(|error| ReadError::Gone(Some(error)))?;
        }
        *self = match std::mem::replace(self, Stream::Moving) {
            Stream::Parked(half) => {
                let arrivals = half.arrivals;
                let begin = arrivals.bytes();
                let mut websocket = WebSocket::after_handshake(half, Role::Server);
                // Written by the session, which also writes while a read is under way.
                websocket.set_auto_close(false);
                websocket.set_auto_pong(false);
                websocket.set_max_message_size(max_frame_size);
                Stream::Reading(Reading { websocket, arrivals, begin, used: 0 })
            }
            other => other,
        };
        match self {
            Stream::Reading(reading) => Ok(reading),
            Stream::Parked(_) | Stream::Moving => Err(ReadError::Gone(None)),
        }
    }

    fn park_if_used_up(&mut self) {
        *self = match std::mem::replace(self, Stream::Moving) {
            Stream::Reading(reading)
                if reading.used == reading.arrivals.bytes() - reading.begin =>
            {
                Stream::Parked(reading.websocket.into_inner())
            }
            other => other,
        };
    }
}

/// fastwebsockets asks for a stream it can write to, but only writes what is switched off here.
struct ReadOnly<'s> {
    half: ReadHalf<'s>,
    arrivals: &'s Arrivals,
}

impl AsyncRead for ReadOnly<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.half).poll_read(cx, buf))?;
        self.arrivals.add((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadOnly<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::UnixStream;

    use super::*;
    use crate::stream::{ClientStream, Socket};

    /// A client's frame whose mask is zero, so that its payload can be read.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        if payload.len() < 126 {
            frame.push(0x80 | payload.len() as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        frame
    }

    /// Everything that comes of bytes, the first of which are early data, sent in two pieces.
    fn read_all(bytes: &[u8], early: usize, pause: usize) -> (Vec<Event>, ReadError) {
        let early = early.min(bytes.len());
        let (early, rest) = bytes.split_at(early);
        let (first, second) = rest.split_at(pause.min(rest.len()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.expect("runtime").block_on(async {
            let (ours, theirs) = UnixStream::pair().expect("pair");
            let mut stream = ClientStream::new(Socket::Unix(ours), Bytes::copy_from_slice(early));
            let (half, _) = stream.split();
            let arrivals = Arrivals::new();
            let mut reader = MessageReader::new(half, &arrivals, 1000);
            let mut events = Vec::new();
            let read = async {
                loop {
                    match reader.next().await {
                        Ok(event) => events.push(event),
                        Err(error) => return error,
                    }
                }
            };
            let write = async {
                for piece in [first, second] {
                    assert_eq!(theirs.try_write(piece).unwrap_or(0), piece.len());
                    tokio::task::yield_now().await;
                }
                drop(theirs);
            };
            let (error, ()) = tokio::join!(read, write);
            (events, error)
        })
    }

    proptest! {
        #[test]
        fn hostile_bytes_come_to_an_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            early in 0..300usize,
            pause in 0..300usize,
        ) {
            let (events, _) = read_all(&bytes, early, pause);
            prop_assert!(events.len() <= bytes.len() / 6);
        }

        #[test]
        fn messages_are_whole_wherever_they_are_split(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 1..6),
            early in 0..600usize,
            pause in 0..600usize,
        ) {
            // Each in two fragments, with a ping between.
            let mut bytes = Vec::new();
            for payload in &payloads {
                let (first, second) = payload.split_at(payload.len() / 2);
                bytes.extend(frame(2, first));
                bytes.extend(frame(0x89, b"?"));
                bytes.extend(frame(0x80, second));
            }
            let (events, error) = read_all(&bytes, early, pause);
            prop_assert!(matches!(error, ReadError::Gone(None)), "{:?}", error);
            let (mut pings, mut messages) = (0, Vec::new());
            for event in events {
                match event {
                    Event::Ping(_) => pings += 1,
                    Event::Message(message) => messages.push(message.payload.to_vec()),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(pings, payloads.len());
            prop_assert_eq!(messages, payloads);
        }
    }
}
