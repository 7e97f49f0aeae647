//! From the bytes of a client to events, however the bytes are cut.

use core::ops::ControlFlow;

use fastwebsockets::{OpCode, unmask};

use crate::deflate::compressed_limit;
use crate::head::{self, Begun, Context, Head};
use crate::{Event, Inflater, Message, Violation, close, utf8};

/// What a call of [`Decoder::decode`] is lent.
#[derive(Debug)]
pub struct DecodeOptions<'a> {
    /// How many bytes a message may have, once joined and inflated. Control frames are no messages.
    pub max_message: usize,
    /// Some if and only if permessage-deflate was negotiated for this connection. Which one it is may change from call to
    /// call.
    pub inflater: Option<&'a mut Inflater>,
}

/// Where a connection is between two reads.
///
/// A default one is idle. One that [is idle](Self::is_idle) again may be dropped, and a default one take its place.
///
/// ```
/// # use core::ops::ControlFlow;
/// # use handoff_websocket::{DecodeOptions, Decoder, Event, Message};
/// let mut input = *b"\x81\x85\x01\x02\x03\x04Igohn";
/// let mut options = DecodeOptions { max_message: 1 << 20, inflater: None };
/// let mut decoder = Decoder::default();
/// let decoded = decoder.decode(&mut input, &mut options, &mut |event| {
///     assert_eq!(event, Event::Message(Message::Text("Hello")));
///     ControlFlow::Continue(())
/// });
/// assert_eq!(decoded, Ok(11));
/// assert!(decoder.is_idle());
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    head: Begun,
    /// The frame whose head is complete and whose payload is not.
    frame: Option<Frame>,
    /// The message that has begun and not ended.
    message: Option<Begin>,
    /// What has come of it.
    payload: Vec<u8>,
    /// Up to where it is known to be UTF-8, if it is to be.
    valid: usize,
    /// What has come of the control frame that `frame` is.
    control: Vec<u8>,
}

/// How a message began.
#[derive(Clone, Copy, Debug)]
struct Begin {
    is_text: bool,
    compressed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    fin: bool,
    /// Rotated: its first byte is for the next byte of payload.
    mask: [u8; 4],
    /// Bytes of payload that have not come.
    left: u64,
}

impl Decoder {
    /// Decodes `input`, the bytes that have come since the last call, and calls `on_event` for each event.
    ///
    /// Payloads of messages and control frames that are whole in `input` are unmasked there, and neither copied nor
    /// allocated for; afterwards `input` is of no use. Returns how many bytes were used: all, unless `on_event` has broken
    /// off, in which case the rest is to be given to the next call, or a close has come. Nothing may follow a close: what
    /// does is to be ignored, and the decoder not to be called again.
    ///
    /// # Errors
    ///
    /// The first rule that `input` breaks, after the events before it, as early as it is certain; the decoder is not to be
    /// called again.
    pub fn decode(
        &mut self,
        input: &mut [u8],
        options: &mut DecodeOptions<'_>,
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<usize, Violation> {
        let len = input.len();
        let mut rest = input;
        while !rest.is_empty() {
            match self.step(&mut rest, options, on_event) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(violation) => {
                    *self = Self::default();
                    return Err(violation);
                }
            }
        }
        Ok(len - rest.len())
    }

    /// Between messages and frames: nothing is kept, a default decoder would go on as well.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.head.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// Bytes held: its own and those that it has allocated.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.payload.capacity() + self.control.capacity()
    }

    /// One frame, or what has come of it.
    #[inline]
    fn step(
        &mut self,
        rest: &mut &mut [u8],
        options: &mut DecodeOptions<'_>,
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.head(rest, options)? {
                Some(head) => self.begin(&head),
                None => return Ok(ControlFlow::Continue(())),
            },
        };
        let wanted = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let payload = take(rest, wanted);
        unmask(payload, frame.mask);
        if payload.len() < wanted {
            frame.left -= payload.len() as u64;
            frame.mask.rotate_left(payload.len() % 4);
            self.frame = Some(frame);
            self.keep(&frame, payload, options)?;
            return Ok(ControlFlow::Continue(()));
        }
        if head::is_control_frame(frame.opcode) {
            return self.control(&frame, payload, on_event);
        }
        if !frame.fin {
            self.keep(&frame, payload, options)?;
            return Ok(ControlFlow::Continue(()));
        }
        self.end_message(payload, options, on_event)
    }

    /// The head of the next frame, if it is complete; else all of `rest` is used up.
    #[inline]
    fn head(
        &mut self,
        rest: &mut &mut [u8],
        options: &DecodeOptions<'_>,
    ) -> Result<Option<Head>, Violation> {
        let context = self.context(options);
        if self.head.is_empty() {
            if let Some((head, len)) = head::parse(rest, &context)? {
                take(rest, len);
                return Ok(Some(head));
            }
        }
        while let [byte] = take(rest, 1) {
            self.head.push(*byte);
            if let Some((head, _)) = head::parse(self.head.bytes(), &context)? {
                self.head = Begun::default();
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    #[inline]
    fn context(&self, options: &DecodeOptions<'_>) -> Context {
        let limit = options.max_message;
        let compressed_limit = compressed_limit(limit);
        let of_this = match self.message {
            Some(Begin { compressed: true, .. }) => compressed_limit,
            _ => limit,
        };
        Context {
            in_message: self.message.is_some(),
            deflate: options.inflater.is_some(),
            room: of_this.saturating_sub(self.payload.len()) as u64,
            limit: limit as u64,
            compressed_limit: compressed_limit as u64,
        }
    }

    #[inline]
    fn begin(&mut self, head: &Head) -> Frame {
        if matches!(head.opcode, OpCode::Text | OpCode::Binary) {
            let is_text = head.opcode == OpCode::Text;
            self.message = Some(Begin { is_text, compressed: head.compressed });
        }
        Frame { opcode: head.opcode, fin: head.fin, mask: head.mask, left: head.len }
    }

    /// Keeps what has come of a frame or a message that is not complete.
    fn keep(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        options: &DecodeOptions<'_>,
    ) -> Result<(), Violation> {
        if head::is_control_frame(frame.opcode) {
            append(&mut self.control, payload, usize::from(head::MAX_CONTROL));
            if frame.opcode == OpCode::Close {
                close::check_begun(&self.control)?;
            }
            return Ok(());
        }
        let Some(begin) = self.message else { return Ok(()) };
        let limit = match begin.compressed {
            true => compressed_limit(options.max_message),
            false => options.max_message,
        };
        // The message's length is known once its last frame has begun.
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let len = self.payload.len().saturating_add(payload.len());
        let most = if frame.fin { len.saturating_add(left) } else { limit };
        append(&mut self.payload, payload, most);
        if begin.is_text && !begin.compressed {
            self.valid = utf8::valid_up_to(&self.payload, self.valid)?;
        }
        Ok(())
    }

    #[inline]
    fn control(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let mut kept = core::mem::take(&mut self.control);
        let payload = if kept.is_empty() {
            payload
        } else {
            kept.extend_from_slice(payload);
            &kept
        };
        match frame.opcode {
            OpCode::Ping => Ok(on_event(Event::Ping(payload))),
            OpCode::Pong => Ok(on_event(Event::Pong(payload))),
            _ => {
                *self = Self::default();
                let _ = on_event(Event::Close(close::parse(payload)?));
                Ok(ControlFlow::Break(()))
            }
        }
    }

    /// Reports the message that `payload` ends.
    #[inline]
    fn end_message(
        &mut self,
        payload: &[u8],
        options: &mut DecodeOptions<'_>,
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let Some(begin) = self.message.take() else { return Ok(ControlFlow::Continue(())) };
        let mut kept = core::mem::take(&mut self.payload);
        self.valid = 0;
        let payload = if kept.is_empty() {
            payload
        } else {
            let len = kept.len().saturating_add(payload.len());
            append(&mut kept, payload, len);
            &kept
        };
        if !begin.compressed {
            return Ok(on_event(Event::Message(message(begin, payload)?)));
        }
        let Some(inflater) = options.inflater.as_deref_mut() else {
            return Err(Violation::ReservedBits);
        };
        let inflated = inflater.inflate(payload, options.max_message)?;
        let flow = message(begin, inflated).map(|message| on_event(Event::Message(message)));
        inflater.shrink();
        flow
    }
}

#[inline]
fn message(begin: Begin, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(if begin.is_text { Message::Text(utf8::whole(payload)?) } else { Message::Binary(payload) })
}

/// Appends; room is at least doubled where there is too little, which keeps many small pieces linear, but never beyond
/// `most`.
fn append(kept: &mut Vec<u8>, piece: &[u8], most: usize) {
    let len = kept.len().saturating_add(piece.len());
    if len > kept.capacity() {
        let wanted = kept.capacity().saturating_mul(2).min(most).max(len);
        kept.reserve_exact(wanted - kept.len());
    }
    kept.extend_from_slice(piece);
}

/// Splits up to `len` bytes off the start of `rest`.
#[inline]
fn take<'r>(rest: &mut &'r mut [u8], len: usize) -> &'r mut [u8] {
    let all = core::mem::take(rest);
    let len = len.min(all.len());
    let (start, behind) = all.split_at_mut(len);
    *rest = behind;
    start
}
