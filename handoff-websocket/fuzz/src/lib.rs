//! What the targets share.

use std::ops::ControlFlow;

use handoff_websocket::{DecodeOptions, Decoder, Inflater};

#[path = "../../tests/websocket/reference.rs"]
pub mod reference;

/// What comes of bytes in these pieces.
pub fn decode<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
    max_message: usize,
    deflate: bool,
) -> reference::Outcome {
    let (mut decoder, mut inflater, mut events) =
        (Decoder::default(), Inflater::default(), Vec::new());
    let mut arrived = 0;
    for piece in pieces {
        let mut input = piece.to_vec();
        let inflater = deflate.then_some(&mut inflater);
        let mut options = DecodeOptions { max_message, inflater };
        let used = decoder.decode(&mut input, &mut options, &mut |event| {
            events.push(event.into());
            ControlFlow::Continue(())
        });
        arrived += piece.len();
        assert!(decoder.memory() <= size_of::<Decoder>() + 2 * arrived, "memory for nothing");
        match used {
            Err(violation) => return (events, Some(violation)),
            Ok(_) if matches!(events.last(), Some(reference::Event::Close(_))) => break,
            Ok(used) => assert_eq!(used, input.len()),
        }
        if decoder.is_idle() {
            assert_eq!(decoder.memory(), size_of::<Decoder>());
            decoder = Decoder::default();
        }
    }
    (events, None)
}

/// `bytes` in pieces of these lengths, over and over; the rest in one if there are none.
pub fn pieces<'b>(mut bytes: &'b [u8], lengths: &[u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(usize::from(length).clamp(1, bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
