//! Whatever a client sends, and however it is cut: what the reference says.

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use crate::client::*;
use crate::reference;

/// A client's frame or message, as bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![Just(TEXT), Just(BINARY)];
    let control = prop_oneof![8 => Just(PING), 8 => Just(PONG), 1 => Just(CLOSE)];
    prop_oneof![
        4 => (opcode.clone(), payload(), any::<bool>(), prop::collection::vec(0..200usize, 0..4))
            .prop_map(|(opcode, payload, compressed, cuts)| message(opcode, &payload, compressed, &cuts)),
        2 => (control, prop::collection::vec(any::<u8>(), 0..125)).prop_map(|(opcode, mut payload)| {
            if opcode == CLOSE {
                payload = [&[3, 0xe8], payload.to_ascii_lowercase().as_slice()].concat();
                payload.truncate(125);
            }
            frame(FIN | opcode, &payload)
        }),
        // Out of order, as often as not.
        1 => (any::<u8>(), payload()).prop_map(|(first, payload)| frame(first, &payload)),
        1 => (opcode, payload()).prop_map(|(opcode, payload)| frame(FIN | RSV1 | opcode, &payload)),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zöß🦀]{0,80}".prop_map(String::into_bytes),
        "(hello ){0,60}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// In fragments with a ping between them.
fn message(opcode: u8, payload: &[u8], compressed: bool, cuts: &[usize]) -> Vec<u8> {
    let (payload, rsv1) = if compressed { (deflate(payload), RSV1) } else { (payload.to_vec(), 0) };
    let (mut bytes, mut first, mut rest) = (Vec::new(), opcode | rsv1, payload.as_slice());
    for cut in cuts {
        let (fragment, behind) = rest.split_at(*cut.min(&rest.len()));
        bytes.extend(frame(first, fragment));
        bytes.extend(frame(FIN | PING, b"between"));
        (first, rest) = (CONTINUATION, behind);
    }
    bytes.extend(frame(FIN | first, rest));
    bytes
}

pub fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(payload.len() + 100);
    let mut compress = Compress::new(Compression::default(), false);
    compress.compress_vec(payload, &mut compressed, FlushCompress::Sync).expect("deflated");
    compressed.truncate(compressed.len() - 4);
    compressed
}

/// Streams that are mostly valid.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(piece(), 0..6).prop_map(|pieces| pieces.concat())
}

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![0..40usize, Just(300), Just(100_000)], any::<bool>())
        .prop_map(|(max_message, deflate)| Settings { max_message, deflate })
}

/// `bytes` in pieces of these lengths, over and over.
pub fn cut<'b>(bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(*length.min(&rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn check(bytes: &[u8], lengths: &[usize], settings: Settings) -> Result<(), TestCaseError> {
    let expected = reference::decode(bytes, settings.max_message, settings.deflate);
    prop_assert_eq!(&decode_in([bytes], settings), &expected);
    prop_assert_eq!(&decode_in(cut(bytes, lengths), settings), &expected);
    prop_assert_eq!(&decode_in(bytes.chunks(1), settings), &expected);
    // A violation is seen as early as the reference sees it.
    let end = lengths.iter().sum::<usize>().min(bytes.len());
    let begun = &bytes[..end];
    let expected = reference::decode(begun, settings.max_message, settings.deflate);
    prop_assert_eq!(decode_in([begun], settings), expected);
    Ok(())
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..40usize, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn streams_are_what_the_reference_says(
        bytes in stream(), lengths in lengths(), settings in settings(),
    ) {
        check(&bytes, &lengths, settings)?;
    }

    #[test]
    fn damaged_streams_are_what_the_reference_says(
        mut bytes in stream(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        lengths in lengths(),
        settings in settings(),
    ) {
        for (index, byte) in damage {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        check(&bytes, &lengths, settings)?;
    }

    #[test]
    fn random_bytes_are_what_the_reference_says(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        lengths in lengths(),
        settings in settings(),
    ) {
        check(&bytes, &lengths, settings)?;
        // Most would fail at once.
        check(&[&[FIN | BINARY, 0xfe, 0][..], &bytes].concat(), &lengths, settings)?;
        check(&frame(FIN | TEXT, &bytes), &lengths, settings)?;
        check(&frame(FIN | RSV1 | BINARY, &bytes), &lengths, settings)?;
    }
}
