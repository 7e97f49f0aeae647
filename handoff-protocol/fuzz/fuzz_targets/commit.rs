//! A commit is the same however it is cut, and takes no more memory than what has arrived.

#![no_main]

use handoff_protocol::{COMMIT, CommitDecoder, CommitError, commit_len, encode_commit, section};
use handoff_protocol_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

/// The early data if it is complete, and how many bytes of the input it took.
type Outcome = Result<(Option<Vec<u8>>, usize), CommitError>;

fn decode<'b>(limit: usize, pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let mut decoder = CommitDecoder::new(limit);
    let (mut consumed, mut done) = (0, false);
    for piece in pieces {
        let fed = decoder.feed(piece).inspect_err(|&error| {
            assert_eq!(decoder.feed(&[COMMIT, 0, 0, 0, 0, 0]), Err(error));
        })?;
        assert!(!done || (fed.done && fed.consumed == 0));
        assert!(fed.done || fed.consumed == piece.len());
        consumed += fed.consumed;
        done = fed.done;
    }
    let commit = decoder.into_commit();
    assert_eq!(commit.is_some(), done);
    let early_data = commit.map(|commit| commit.early_data);
    if let Some(early_data) = &early_data {
        assert!(early_data.len() <= limit);
        assert!(early_data.capacity() <= 2 * early_data.len() + 64, "memory for nothing");
    }
    Ok((early_data, consumed))
}

/// The sections of a complete commit, by slices.
fn sections(bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut rest = bytes.strip_prefix(&[COMMIT])?;
    let mut sections = Vec::new();
    loop {
        let (&[kind, a, b, c, d], content) = rest.split_first_chunk()?;
        let (content, behind) =
            content.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
        if kind == section::END {
            return Some(sections);
        }
        sections.push((kind, content));
        rest = behind;
    }
}

fuzz_target!(|input: &[u8]| {
    let [limit, count, input @ ..] = input else { return };
    let limit = usize::from(*limit) * 8;
    let (lengths, bytes) = input.split_at(input.len().min(usize::from(count % 8)));
    let whole = decode(limit, [bytes]);
    assert_eq!(whole, decode(limit, pieces(bytes, lengths)));
    assert_eq!(whole, decode(limit, bytes.chunks(1)));

    let Ok((Some(early_data), consumed)) = whole else { return };
    let sections = sections(bytes).expect("a complete commit");
    let of_early_data = sections.iter().filter(|(kind, _)| *kind == section::EARLY_DATA);
    assert_eq!(early_data, of_early_data.flat_map(|(_, b)| b.to_vec()).collect::<Vec<u8>>());
    let mut again = vec![0; commit_len(&sections).expect("it fits")];
    assert_eq!(encode_commit(&sections, &mut again), Some(consumed));
    assert_eq!(again, bytes[..consumed]);
});
