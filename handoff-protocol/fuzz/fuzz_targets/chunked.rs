//! A chunked body is the same however it is cut, and what RFC 9112 says it is.

#![no_main]

use handoff_protocol::{ChunkedDecoder, ChunkedError};
use handoff_protocol_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

/// The body, how many bytes of the input it took, and whether it ended there.
type Outcome = (Vec<u8>, usize, bool, Option<ChunkedError>);

fn decode<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let mut decoder = ChunkedDecoder::default();
    let (mut body, mut consumed) = (Vec::new(), 0);
    for mut piece in pieces {
        loop {
            let decoded = match decoder.decode(piece) {
                Ok(decoded) => decoded,
                Err(error) => {
                    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(error));
                    return (body, consumed, false, Some(error));
                }
            };
            body.extend_from_slice(&piece[decoded.data]);
            consumed += decoded.consumed;
            piece = &piece[decoded.consumed..];
            if decoded.done {
                assert_eq!(decoder.decode(piece).expect("it stays done").consumed, 0);
                return (body, consumed, true, None);
            }
            if piece.is_empty() {
                break;
            }
            assert!(decoded.consumed > 0);
        }
    }
    (body, consumed, false, None)
}

/// By whole lines, for what is complete: the body, and what is behind it.
fn reference(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let line = |rest: &mut &[u8]| -> Option<Vec<u8>> {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = rest[..end].to_vec();
        *rest = &rest[end + 2..];
        Some(line)
    };
    let mut body = Vec::new();
    loop {
        let head = String::from_utf8_lossy(&line(&mut rest)?).into_owned();
        let digits = head.split(';').next()?.trim_end_matches([' ', '\t']);
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            while !line(&mut rest)?.is_empty() {}
            return Some((body, rest));
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fuzz_target!(|input: &[u8]| {
    let [count, input @ ..] = input else { return };
    let (lengths, bytes) = input.split_at(input.len().min(usize::from(count % 8)));
    let (body, consumed, done, error) = decode([bytes]);
    let (cut_body, cut_consumed, cut_done, cut_error) = decode(pieces(bytes, lengths));
    let (one_body, one_consumed, one_done, one_error) = decode(bytes.chunks(1));
    assert_eq!((&body, done, error), (&cut_body, cut_done, cut_error));
    assert_eq!((&body, done, error), (&one_body, one_done, one_error));
    if error.is_none() {
        assert_eq!((consumed, consumed), (cut_consumed, one_consumed));
        assert!(done || consumed == bytes.len());
    }
    if done {
        assert_eq!(reference(bytes), Some((body, &bytes[consumed..])));
    }
});
