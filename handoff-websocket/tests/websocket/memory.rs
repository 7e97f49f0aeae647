//! What a connection costs, in bytes and in time.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use handoff_websocket::{DecodeOptions, Decoder, Event, Message};

use crate::client::*;

/// Feeds `bytes` in pieces of `len` and returns the messages' lengths and the most memory that the decoder held.
fn feed(
    decoder: &mut Decoder,
    bytes: &[u8],
    len: usize,
    max_message: usize,
) -> (Vec<usize>, usize) {
    let (mut lengths, mut most) = (Vec::new(), decoder.memory());
    let mut options = DecodeOptions { max_message, inflater: None };
    for piece in bytes.to_vec().chunks_mut(len) {
        let used = decoder.decode(piece, &mut options, &mut |event| {
            if let Event::Message(message) = event {
                lengths.push(message.len());
            }
            ControlFlow::Continue(())
        });
        assert_eq!(used, Ok(piece.len()));
        most = most.max(decoder.memory());
    }
    (lengths, most)
}

const OWN: usize = size_of::<Decoder>();

#[test]
fn a_decoder_is_small() {
    const { assert!(OWN <= 128) };
    assert_eq!(Decoder::default().memory(), OWN);
}

#[test]
fn whole_frames_take_no_memory() {
    let bytes = [frame(FIN | TEXT, &[b'a'; 70000]), frame(FIN | PING, b"?")].concat();
    let mut decoder = Decoder::default();
    assert_eq!(feed(&mut decoder, &bytes, bytes.len(), 1 << 20), (vec![70000], OWN));
    assert!(decoder.is_idle());
}

#[test]
fn a_decoder_is_idle_between_messages_only() {
    let mut decoder = Decoder::default();
    let bytes = [frame(TEXT, b"ab"), frame(FIN | PING, b"cd"), frame(FIN | CONTINUATION, b"ef")];
    let bytes = bytes.concat();
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(decoder.is_idle(), at == 0);
        feed(&mut decoder, &[*byte], 1, 100);
    }
    assert!(decoder.is_idle());
    assert_eq!(decoder.memory(), OWN);
}

#[test]
fn nothing_is_reserved_for_what_is_only_announced() {
    for first in [FIN | BINARY, BINARY] {
        let mut decoder = Decoder::default();
        feed(&mut decoder, &head(first, 1 << 30), 100, 1 << 30);
        assert_eq!(decoder.memory(), OWN);
        feed(&mut decoder, &[0; 1000], 1000, 1 << 30);
        assert!(decoder.memory() <= OWN + 2 * 1000);
        feed(&mut decoder, &[0; 1_000_000], 1000, 1 << 30);
        assert!(decoder.memory() <= OWN + 2 * 1_001_000);
    }
}

#[test]
fn memory_stays_within_the_limit() {
    // Without FIN nobody knows how much will come: doubling stops at the limit.
    let mut decoder = Decoder::default();
    let bytes = frame(BINARY, &[0; 99_000]);
    let (_, most) = feed(&mut decoder, &bytes, 1000, 100_000);
    assert!(most <= OWN + 100_000, "{most}");
    // With FIN, at the message's end.
    let mut decoder = Decoder::default();
    let (_, most) = feed(&mut decoder, &frame(FIN | BINARY, &[0; 70_000]), 1000, 100_000);
    assert!(most <= OWN + 70_000, "{most}");
    assert_eq!(decoder.memory(), OWN, "a finished message is freed");
}

#[test]
fn a_close_or_a_violation_frees_everything() {
    for last in [frame(FIN | CLOSE, b""), vec![0xff]] {
        let mut decoder = Decoder::default();
        feed(&mut decoder, &frame(BINARY, &[0; 1000]), 100, 1000);
        let mut options = DecodeOptions { max_message: 1000, inflater: None };
        let mut last = last;
        let _ = decoder.decode(&mut last, &mut options, &mut |_| ControlFlow::Continue(()));
        assert_eq!(decoder.memory(), OWN);
    }
}

#[test]
fn ten_thousand_fragments_of_a_byte_are_one_message() {
    let mut bytes = frame(TEXT, b"a");
    for _ in 0..9_998 {
        bytes.extend(frame(CONTINUATION, b"a"));
    }
    bytes.extend(frame(FIN | CONTINUATION, b"a"));
    for len in [1, 7, 4096, bytes.len()] {
        let mut decoder = Decoder::default();
        let (lengths, most) = feed(&mut decoder, &bytes, len, 1 << 20);
        assert_eq!(lengths, [10_000]);
        assert!(most <= OWN + 20_000);
    }
}

#[test]
fn a_byte_at_a_time_takes_linear_time() {
    // Quadratic would be 10^12 steps.
    let begun = Instant::now();
    for opcode in [TEXT, BINARY] {
        let mut decoder = Decoder::default();
        let text = "ä".repeat(500_000);
        let bytes = frame(FIN | opcode, text.as_bytes());
        assert_eq!(feed(&mut decoder, &bytes, 1, 1 << 20).0, [1_000_000]);
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn breaking_off_leaves_the_rest_to_the_next_call() {
    let mut bytes =
        [frame(FIN | TEXT, b"a"), frame(BINARY, b"b"), frame(FIN | PING, b"c")].concat();
    bytes.extend(frame(FIN | CONTINUATION, b"d"));
    bytes.extend(frame(FIN | TEXT, b"e"));
    bytes.extend([FIN | PONG, 0x80, 1]);
    let mut decoder = Decoder::default();
    let mut options = DecodeOptions { max_message: 100, inflater: None };
    let (mut events, mut ends, mut rest) = (Vec::new(), Vec::new(), bytes.as_mut_slice());
    while !rest.is_empty() {
        let used = decoder.decode(rest, &mut options, &mut |event| {
            events.push(match event {
                Event::Message(Message::Text(text)) => text.as_bytes().to_vec(),
                Event::Message(Message::Binary(bytes)) | Event::Ping(bytes) => bytes.to_vec(),
                other => panic!("{other:?}"),
            });
            ControlFlow::Break(())
        });
        let used = used.expect("valid");
        ends.push(used);
        rest = &mut rest[used..];
    }
    assert_eq!(events, [&b"a"[..], b"c", b"bd", b"e"]);
    assert_eq!(ends, [7, 14, 7, 7, 3]);
    assert!(!decoder.is_idle());
}
