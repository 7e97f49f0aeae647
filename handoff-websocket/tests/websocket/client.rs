//! A client's bytes, and everything that comes of them.

use std::ops::ControlFlow;

use handoff_websocket::{DecodeOptions, Decoder, Inflater};

use crate::reference::{self, Outcome};

pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A masked frame: its first byte, and its payload before masking.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len());
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The head of a masked frame.
pub fn head(first: u8, len: usize) -> Vec<u8> {
    let mut head = vec![first];
    match len {
        0..126 => head.push(0x80 | len as u8),
        126..65536 => {
            head.push(0x80 | 126);
            head.extend((len as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend((len as u64).to_be_bytes());
        }
    }
    head.extend(MASK);
    head
}

/// How a connection is served.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub max_message: usize,
    pub deflate: bool,
}

pub const PLAIN: Settings = Settings { max_message: 1000, deflate: false };
pub const DEFLATE: Settings = Settings { max_message: 1000, deflate: true };

/// What comes of `bytes` in one piece. Panics if it is something else in any other pieces, if the reference says something
/// else, or if a violation is seen later than it could be.
pub fn decode(bytes: &[u8], settings: Settings) -> Outcome {
    let whole = decode_in([bytes], settings);
    assert_eq!(whole, reference::decode(bytes, settings.max_message, settings.deflate));
    assert_eq!(whole, decode_in(bytes.chunks(1), settings), "byte by byte");
    for at in 0..=bytes.len().min(100) {
        let (start, rest) = bytes.split_at(at);
        assert_eq!(whole, decode_in([start, rest], settings), "cut at {at}");
        let seen = decode_in([start], settings).1;
        assert_eq!(seen, reference::decode(start, settings.max_message, settings.deflate).1);
    }
    whole
}

/// What comes of bytes in these pieces.
pub fn decode_in<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, settings: Settings) -> Outcome {
    let mut inflater = Inflater::default();
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut options = DecodeOptions {
            max_message: settings.max_message,
            inflater: settings.deflate.then_some(&mut inflater),
        };
        let used = decoder.decode(&mut input, &mut options, &mut |event| {
            events.push(event.into());
            ControlFlow::Continue(())
        });
        match used {
            Err(violation) => return (events, Some(violation)),
            Ok(_) if matches!(events.last(), Some(reference::Event::Close(_))) => break,
            Ok(used) => assert_eq!(used, input.len()),
        }
        if decoder.is_idle() {
            decoder = Decoder::default();
        }
    }
    (events, None)
}
