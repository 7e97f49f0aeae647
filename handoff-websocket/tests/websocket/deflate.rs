//! permessage-deflate, both ways, against flate2's own streams and the bytes of RFC 7692.

use std::io::Read;
use std::ops::ControlFlow;

use flate2::{Compress, Compression, FlushCompress};
use handoff_websocket::{
    Agreement, DecodeOptions, Decoder, Deflater, Inflater, Message, Violation, encode, negotiate,
};
use proptest::prelude::*;

use crate::client::*;
use crate::distances;
use crate::properties::deflate;
use crate::reference::{Event, Outcome};

const COMPRESSED_TEXT: u8 = FIN | RSV1 | TEXT;

fn text(text: &str) -> Outcome {
    (vec![Event::Text(text.to_owned())], None)
}

fn refused(violation: Violation) -> Outcome {
    (vec![], Some(violation))
}

fn agreement(bits: u8) -> Agreement {
    let offer = format!("permessage-deflate; server_max_window_bits={bits}");
    negotiate([offer.as_bytes()].into_iter()).expect("accepted")
}

#[test]
fn the_examples_of_the_rfc_say_hello() {
    // RFC 7692 section 7.2.3.1, 7.2.3.3 (no compression), 7.2.3.4 (BFINAL), 7.2.3.5 (two blocks).
    for payload in [
        &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ] {
        assert_eq!(decode(&frame(COMPRESSED_TEXT, payload), DEFLATE), text("Hello"));
        let (first, second) = payload.split_at(3);
        let fragments =
            [frame(RSV1 | TEXT, first), frame(CONTINUATION, second), frame(FIN, b"")].concat();
        assert_eq!(decode(&fragments, DEFLATE), text("Hello"));
    }
}

#[test]
fn no_context_is_taken_over() {
    // RFC 7692 section 7.2.3.2: the second message refers to the first, which the answer has forbidden.
    let first = frame(COMPRESSED_TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    let second = frame(COMPRESSED_TEXT, b"\xf2\x00\x11\x00\x00");
    let (events, violation) = decode(&[first.clone(), second].concat(), DEFLATE);
    assert_eq!((events, violation), (text("Hello").0, Some(Violation::NotDeflated)));
    let twice = decode(&[first.clone(), first].concat(), DEFLATE);
    assert_eq!(twice.0.len(), 2);
}

#[test]
fn an_empty_message_may_be_compressed() {
    assert_eq!(decode(&frame(COMPRESSED_TEXT, b"\0"), DEFLATE), text(""));
    assert_eq!(decode(&frame(COMPRESSED_TEXT, b""), DEFLATE), text(""));
    assert_eq!(decode(&frame(COMPRESSED_TEXT, &deflate(b"")), DEFLATE), text(""));
}

#[test]
fn a_message_need_not_be_compressed() {
    assert_eq!(decode(&frame(FIN | TEXT, b"Hello"), DEFLATE), text("Hello"));
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    let violation = Violation::ReservedBits;
    for opcode in [PING, PONG, CLOSE] {
        assert_eq!(decode(&[FIN | RSV1 | opcode], DEFLATE), refused(violation));
    }
    let bytes = [frame(RSV1 | TEXT, b"\xf2"), vec![FIN | RSV1]].concat();
    assert_eq!(decode(&bytes, DEFLATE), refused(violation));
    let bytes = [frame(TEXT, b"a"), vec![FIN | RSV1]].concat();
    assert_eq!(decode(&bytes, DEFLATE), refused(violation));
    assert_eq!(decode(&[COMPRESSED_TEXT], PLAIN), refused(violation));
    assert_eq!(decode(&[FIN | 0x20 | TEXT], DEFLATE), refused(violation));
}

#[test]
fn control_frames_come_between_compressed_fragments_as_they_are() {
    let payload = deflate(b"Hello");
    let bytes = [
        frame(RSV1 | TEXT, &payload[..2]),
        frame(FIN | PING, b"?"),
        frame(FIN | CONTINUATION, &payload[2..]),
    ];
    let events = vec![Event::Ping(b"?".to_vec()), Event::Text("Hello".to_owned())];
    assert_eq!(decode(&bytes.concat(), DEFLATE), (events, None));
}

#[test]
fn blocks_with_bfinal_do_not_end_a_message() {
    let mut payload = Vec::new();
    for part in [&b"Hello, "[..], b"", b"world"] {
        flate2::read::DeflateEncoder::new(part, Compression::fast())
            .read_to_end(&mut payload)
            .expect("deflated");
    }
    assert_eq!(decode(&frame(COMPRESSED_TEXT, &payload), DEFLATE), text("Hello, world"));
    payload.extend(deflate(b"!"));
    assert_eq!(decode(&frame(COMPRESSED_TEXT, &payload), DEFLATE), text("Hello, world!"));
}

#[test]
fn a_damaged_message_is_refused() {
    let payload = deflate(b"Hello, Hello, Hello, Hello");
    let violation = Violation::NotDeflated;
    // Truncated, not flushed, with the tail that is to be left out, a reserved type of block, a bad distance.
    let truncated = &payload[..payload.len() - 3];
    let with_tail = [payload.as_slice(), &[0, 0, 0xff, 0xff]].concat();
    for payload in [truncated, &with_tail, b"\x07", b"\xff\xff", b"\x01\x05\x00\xfa\xffHel"] {
        assert_eq!(decode(&frame(COMPRESSED_TEXT, payload), DEFLATE), refused(violation));
    }
}

#[test]
fn a_text_is_utf_8_once_inflated() {
    for bad in [&b"\xff"[..], b"ok\xc3", b"\xed\xa0\x80"] {
        let frame = frame(COMPRESSED_TEXT, &deflate(bad));
        assert_eq!(decode(&frame, DEFLATE), refused(Violation::NotUtf8));
    }
    let binary = frame(FIN | RSV1 | BINARY, &deflate(b"\xff"));
    assert_eq!(decode(&binary, DEFLATE).0, [Event::Binary(b"\xff".to_vec())]);
}

#[test]
fn the_limit_is_for_the_inflated_message() {
    let longest = "x".repeat(1000);
    assert_eq!(
        decode(&frame(COMPRESSED_TEXT, &deflate(longest.as_bytes())), DEFLATE),
        text(&longest)
    );
    let longer = deflate(&[b'x'; 1001]);
    assert_eq!(decode(&frame(COMPRESSED_TEXT, &longer), DEFLATE), refused(Violation::TooLong));
    // However much room an earlier message has left: damage behind the limit is not reached.
    let mut damaged = deflate(&[b'x'; 1010]);
    let len = damaged.len();
    damaged[len - 1] ^= 0xff;
    let settings = Settings { max_message: 100_000, deflate: true };
    let mut inflater = Inflater::default();
    let large = frame(FIN | RSV1 | BINARY, &deflate(&[b'x'; 50_000]));
    assert_eq!(decode_with(&mut inflater, &large, settings).0.len(), 1);
    let damaged = frame(FIN | RSV1 | BINARY, &damaged);
    assert_eq!(decode_with(&mut inflater, &damaged, DEFLATE), refused(Violation::TooLong));
}

#[test]
fn a_bomb_is_not_inflated() {
    let bomb = frame(FIN | RSV1 | BINARY, &deflate(&vec![0; 10 << 20]));
    assert!(bomb.len() < 16_000);
    let settings = Settings { max_message: 1 << 20, deflate: true };
    assert_eq!(decode_in([bomb.as_slice()], settings), refused(Violation::TooLong));
    let settings = Settings { max_message: 10 << 20, deflate: true };
    assert_eq!(decode_in([bomb.as_slice()], settings).1, None);
}

#[test]
fn compressed_bytes_are_limited_too() {
    // Empty blocks that come to nothing.
    let settings = Settings { max_message: 1000, deflate: true };
    assert_eq!(decode(&head(FIN | RSV1 | BINARY, 1190), settings), refused(Violation::TooLong));
    assert_eq!(decode(&head(FIN | RSV1 | BINARY, 1189), settings).1, None);
    // Stored blocks of an encoder that wastes some.
    let mut stored = Vec::new();
    for _ in 0..20 {
        stored.extend(b"\0\x32\0\xcd\xff");
        stored.extend([b'x'; 50]);
    }
    stored.push(0);
    let bytes = frame(COMPRESSED_TEXT, &stored);
    assert_eq!(decode(&bytes, settings), text(&"x".repeat(1000)));
}

fn decode_with(inflater: &mut Inflater, bytes: &[u8], settings: Settings) -> Outcome {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    let max_message = settings.max_message;
    let mut options = DecodeOptions { max_message, inflater: Some(inflater) };
    let violation = decoder.decode(&mut bytes.to_vec(), &mut options, &mut |event| {
        events.push(event.into());
        ControlFlow::Continue(())
    });
    (events, violation.err())
}

#[test]
fn an_inflater_serves_one_message_after_the_other() {
    let mut inflater = Inflater::default();
    let settings = Settings { max_message: 1 << 20, deflate: true };
    for payload in [vec![b'a'; 1 << 20], vec![b'b'; 10], vec![], vec![b'c'; 100_000]] {
        let bytes = frame(FIN | RSV1 | BINARY, &deflate(&payload));
        let outcome = decode_with(&mut inflater, &bytes, settings);
        assert_eq!(outcome, (vec![Event::Binary(payload)], None));
        let damaged = frame(FIN | RSV1 | BINARY, b"\xf2\x48\xff");
        assert!(decode_with(&mut inflater, &damaged, settings).1.is_some());
        assert!(inflater.memory() <= 64 * 1024, "{}", inflater.memory());
    }
}

/// What a client makes of a server's frame.
fn receive(frame: &[u8]) -> (bool, Vec<u8>) {
    let (first, rest) = (frame[0], &frame[1..]);
    assert_eq!(first & !(FIN | RSV1 | TEXT | BINARY), 0);
    let (len, payload) = match rest[0] {
        126 => (usize::from(u16::from_be_bytes([rest[1], rest[2]])), &rest[3..]),
        127 => (u64::from_be_bytes(rest[1..9].try_into().expect("8")) as usize, &rest[9..]),
        short => (usize::from(short), &rest[1..]),
    };
    assert_eq!(payload.len(), len);
    if first & RSV1 == 0 {
        return (false, payload.to_vec());
    }
    let stream = [payload, &[0, 0, 0xff, 0xff, 3, 0]].concat();
    let mut inflated = Vec::new();
    let mut decoder = flate2::read::DeflateDecoder::new(stream.as_slice());
    decoder.read_to_end(&mut inflated).expect("inflated");
    assert_eq!(decoder.total_in(), stream.len() as u64);
    (true, inflated)
}

fn send(deflater: &mut Deflater, message: Message<'_>, bits: u8) -> Vec<u8> {
    let mut out = b"before".to_vec();
    deflater.encode(&mut out, message, agreement(bits));
    let sent = out.split_off(6);
    assert_eq!(out, b"before");
    sent
}

#[test]
fn a_message_is_compressed_if_that_is_shorter() {
    let mut deflater = Deflater::default();
    let plain = |message| {
        let mut out = Vec::new();
        encode(&mut out, message);
        out
    };
    let long = "Hello, world! ".repeat(10_000);
    let text = Message::Text(&long);
    let sent = send(&mut deflater, text, 15);
    assert_eq!(sent[0], COMPRESSED_TEXT);
    assert!(sent.len() < 2000);
    assert_eq!(receive(&sent), (true, long.clone().into_bytes()));
    assert_eq!(send(&mut deflater, text, 15), sent, "no context is taken over");

    let short = Message::Text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_eq!(send(&mut deflater, short, 15), plain(short));
    // Nothing can be made of these.
    let noise = noise(100_000);
    for len in [64, 1000, 65_535, 65_536, 100_000] {
        let noise = Message::Binary(&noise[..len]);
        assert_eq!(send(&mut deflater, noise, 15), plain(noise));
    }
}

#[test]
fn what_cannot_be_compressed_does_no_harm_to_what_follows() {
    // zlib-rs 0.6.8 panics in the third one if the second ended for want of room.
    let mut deflater = Deflater::default();
    let noise = noise(100_000);
    let masked: Vec<u8> = noise.iter().map(|byte| byte & 0x11).collect();
    for bits in 9..=15 {
        for payload in [&noise[..70_000], &masked, &noise[..500], &masked, &noise, &noise, &masked]
        {
            let sent = send(&mut deflater, Message::Binary(payload), bits);
            assert_eq!(receive(&sent).1, payload);
            let fresh = send(&mut Deflater::default(), Message::Binary(payload), bits);
            assert_eq!(sent, fresh);
        }
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

#[test]
fn a_window_is_no_larger_than_agreed() {
    let mut deflater = Deflater::default();
    for bits in 9..=15 {
        let window = 1usize << bits;
        for distance in [window / 2, window - 262, window - 1, window, window + 1, 2 * window] {
            let payload = noise(distance).repeat(4);
            let sent = send(&mut deflater, Message::Binary(&payload), bits);
            assert_eq!(receive(&sent).1, payload);
            assert!(greatest_distance(&sent) <= window, "{distance} in 2^{bits}");
        }
        let payload: Vec<u8> = noise(100_000).iter().map(|byte| byte & 0x11).collect();
        let sent = send(&mut deflater, Message::Binary(&payload), bits);
        assert!(greatest_distance(&sent) <= window);
        // The window is used: a larger one would be noticed.
        let sent = send(&mut deflater, Message::Binary(&noise(window / 4).repeat(8)), bits);
        assert!((window / 4..=window).contains(&greatest_distance(&sent)));
    }
}

fn greatest_distance(frame: &[u8]) -> usize {
    let payload = &frame[frame.len() - payload_len(frame)..];
    if frame[0] & RSV1 == 0 { 0 } else { distances::greatest(payload) }
}

fn payload_len(frame: &[u8]) -> usize {
    match frame[1] {
        126 => frame.len() - 4,
        127 => frame.len() - 10,
        _ => frame.len() - 2,
    }
}

proptest! {
    #[test]
    fn what_is_deflated_can_be_inflated(
        payloads in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..2000),
                prop::collection::vec(0..4u8, 0..20_000),
                "[a-f ]{0,3000}".prop_map(String::into_bytes),
            ],
            1..5,
        ),
        bits in 9..=15u8,
    ) {
        let mut deflater = Deflater::default();
        for payload in payloads {
            let sent = send(&mut deflater, Message::Binary(&payload), bits);
            prop_assert!(payload_len(&sent) <= payload.len());
            prop_assert_eq!(receive(&sent).1, payload);
        }
    }

    #[test]
    fn what_any_client_deflates_can_be_inflated(
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..2000),
            prop::collection::vec(0..4u8, 0..20_000),
        ],
        level in 0..=9u32,
        bits in 9..=15u8,
        flushes in prop::collection::vec(1..3000usize, 0..5),
        cut in 1..5000usize,
    ) {
        let mut compress = Compress::new_with_window_bits(Compression::new(level), false, bits);
        let mut compressed = Vec::with_capacity(payload.len() + 10_000);
        let mut rest = payload.as_slice();
        for len in flushes {
            let (part, behind) = rest.split_at(len.min(rest.len()));
            compress.compress_vec(part, &mut compressed, FlushCompress::Full).expect("deflated");
            rest = behind;
        }
        compress.compress_vec(rest, &mut compressed, FlushCompress::Sync).expect("deflated");
        if let Some(flushed) = compressed.strip_suffix(&[0, 0, 0xff, 0xff]) {
            let bytes = frame(FIN | RSV1 | BINARY, flushed);
            let settings = Settings { max_message: payload.len(), deflate: true };
            let outcome = decode_in(bytes.chunks(cut), settings);
            prop_assert_eq!(outcome, (vec![Event::Binary(payload)], None));
        }
    }
}
