//! A decoder as RFC 6455 and RFC 7692 describe one: slow, from all the bytes at once, to compare the other with.

use flate2::{Decompress, FlushDecompress, Status};
use handoff_websocket::Violation;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<handoff_websocket::Event<'_>> for Event {
    fn from(event: handoff_websocket::Event<'_>) -> Self {
        use handoff_websocket::{Event as Borrowed, Message};
        match event {
            Borrowed::Message(Message::Text(text)) => Self::Text(text.to_owned()),
            Borrowed::Message(Message::Binary(bytes)) => Self::Binary(bytes.to_vec()),
            Borrowed::Ping(payload) => Self::Ping(payload.to_vec()),
            Borrowed::Pong(payload) => Self::Pong(payload.to_vec()),
            Borrowed::Close(close) => {
                Self::Close(close.map(|(code, text)| (code, text.to_owned())))
            }
        }
    }
}

/// The events, and the rule that is broken behind them.
pub type Outcome = (Vec<Event>, Option<Violation>);

struct Message {
    is_text: bool,
    is_compressed: bool,
    payload: Vec<u8>,
}

/// All that can be said of the first bytes of a client.
pub fn decode(input: &[u8], max_message: usize, deflate: bool) -> Outcome {
    let mut events = Vec::new();
    let violation = decode_frames(input, max_message, deflate, &mut events).err();
    (events, violation)
}

fn decode_frames(
    mut rest: &[u8],
    max_message: usize,
    deflate: bool,
    events: &mut Vec<Event>,
) -> Result<(), Violation> {
    let mut message = None;
    loop {
        let Some(head) = head(rest, message.as_ref(), max_message, deflate)? else { return Ok(()) };
        rest = &rest[head.len..];
        let here = usize::try_from(head.payload_len).unwrap_or(usize::MAX).min(rest.len());
        let payload: Vec<u8> =
            rest[..here].iter().enumerate().map(|(i, byte)| byte ^ head.mask[i % 4]).collect();
        let is_whole = here as u64 == head.payload_len;
        rest = &rest[here..];

        match head.opcode {
            8 => {
                let close = close(&payload, is_whole)?;
                if is_whole {
                    events.push(Event::Close(close));
                    return Ok(());
                }
            }
            9 if is_whole => events.push(Event::Ping(payload)),
            10 if is_whole => events.push(Event::Pong(payload)),
            9 | 10 => {}
            _ => {
                let mut so_far = message.take().unwrap_or(Message {
                    is_text: head.opcode == 1,
                    is_compressed: head.rsv1,
                    payload: Vec::new(),
                });
                so_far.payload.extend(payload);
                let is_end = head.fin && is_whole;
                if is_end && so_far.is_compressed {
                    so_far.payload = inflate(&so_far.payload, max_message)?;
                }
                if so_far.is_text && (is_end || !so_far.is_compressed) {
                    check_utf8(&so_far.payload, is_end)?;
                }
                match (is_end, so_far.is_text) {
                    (false, _) => message = Some(so_far),
                    (true, false) => events.push(Event::Binary(so_far.payload)),
                    (true, true) => {
                        events.push(Event::Text(String::from_utf8(so_far.payload).expect("UTF-8")));
                    }
                }
            }
        }
        if !is_whole {
            return Ok(());
        }
    }
}

struct Head {
    fin: bool,
    rsv1: bool,
    opcode: u8,
    payload_len: u64,
    mask: [u8; 4],
    len: usize,
}

/// Judges one byte after the other, as far as there are any.
fn head(
    bytes: &[u8],
    message: Option<&Message>,
    max_message: usize,
    deflate: bool,
) -> Result<Option<Head>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (fin, rsv1, opcode) = (first & 0x80 != 0, first & 0x40 != 0, first & 0x0f);
    if first & 0x30 != 0 || (rsv1 && !deflate) {
        return Err(Violation::ReservedBits);
    }
    if (3..8).contains(&opcode) || opcode > 10 {
        return Err(Violation::ReservedOpcode);
    }
    let is_control = opcode >= 8;
    if opcode == 0 && message.is_none() {
        return Err(Violation::UnexpectedContinuation);
    }
    if (opcode == 1 || opcode == 2) && message.is_some() {
        return Err(Violation::ExpectedContinuation);
    }
    if rsv1 && opcode != 1 && opcode != 2 {
        return Err(Violation::ReservedBits);
    }
    if is_control && !fin {
        return Err(Violation::ControlFragmented);
    }

    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if second < 0x80 {
        return Err(Violation::NotMasked);
    }
    let short = second & 0x7f;
    if is_control && short > 125 {
        return Err(Violation::ControlTooLong);
    }
    if opcode == 8 && short == 1 {
        return Err(Violation::CloseTooShort);
    }
    let is_compressed = message.map_or(rsv1, |message| message.is_compressed);
    let limit = if is_compressed { max_message + max_message / 8 + 64 } else { max_message };
    let room = (limit - message.map_or(0, |message| message.payload.len())) as u128;
    let is_too_long = |len: u128| !is_control && len > room;

    let (width, least) = match short {
        126 => (2, 126),
        127 => (8, 65536),
        _ => (0, 0),
    };
    if width == 0 && is_too_long(u128::from(short)) {
        return Err(Violation::TooLong);
    }
    let length = &bytes[2..bytes.len().min(2 + width)];
    for known in 1..=length.len() {
        // What it will be at least, and at most.
        let with = |unknown: u8| {
            let missing = std::iter::repeat_n(&unknown, width - known);
            length[..known].iter().chain(missing).fold(0, |len, &byte| len << 8 | u128::from(byte))
        };
        if with(0) >= 1 << 63 {
            return Err(Violation::LengthTopBit);
        }
        if with(0xff) < least {
            return Err(Violation::LengthNotMinimal);
        }
        if is_too_long(with(0)) {
            return Err(Violation::TooLong);
        }
    }
    let Some(&[a, b, c, d]) = bytes.get(2 + width..2 + width + 4) else { return Ok(None) };
    let payload_len = match width {
        0 => u64::from(short),
        _ => length.iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
    };
    Ok(Some(Head { fin, rsv1, opcode, payload_len, mask: [a, b, c, d], len: 2 + width + 4 }))
}

fn close(payload: &[u8], is_whole: bool) -> Result<Option<(u16, String)>, Violation> {
    if payload.len() < 2 {
        return Ok(None);
    }
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    let is_defined = (1000..=1014).contains(&code) && ![1004, 1005, 1006].contains(&code);
    if !is_defined && !(3000..5000).contains(&code) {
        return Err(Violation::CloseCode);
    }
    check_utf8(&payload[2..], is_whole)?;
    Ok(Some((code, String::from_utf8_lossy(&payload[2..]).into_owned())))
}

fn check_utf8(text: &[u8], is_whole: bool) -> Result<(), Violation> {
    match std::str::from_utf8(text) {
        Err(error) if is_whole || error.error_len().is_some() => Err(Violation::NotUtf8),
        _ => Ok(()),
    }
}

/// Byte by byte, up to the first one that is too many.
fn inflate(payload: &[u8], max_message: usize) -> Result<Vec<u8>, Violation> {
    let mut inflated = Vec::new();
    if payload.is_empty() {
        return Ok(inflated);
    }
    let mut input = [payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    loop {
        let mut stream = Decompress::new(false);
        loop {
            let (used, inflated_so_far, mut byte) = (stream.total_in(), stream.total_out(), [0]);
            let rest = &input[used as usize..];
            let status = stream.decompress(rest, &mut byte, FlushDecompress::None);
            // There may be a byte even if the next one is an error.
            if stream.total_out() > inflated_so_far {
                inflated.push(byte[0]);
            }
            if inflated.len() > max_message {
                return Err(Violation::TooLong);
            }
            match status {
                Ok(Status::StreamEnd) => break,
                Ok(_) if stream.total_in() > used || stream.total_out() > inflated_so_far => {}
                Ok(_) | Err(_) => return Err(Violation::NotDeflated),
            }
        }
        let used = stream.total_in() as usize;
        match input.len() - used {
            // It ended with what was added, or with what the client sent.
            0 | 9 => return Ok(inflated),
            1..9 => return Err(Violation::NotDeflated),
            _ => input.drain(..used),
        };
    }
}
