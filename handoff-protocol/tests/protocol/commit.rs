//! The commit: what is written, and what a decoder makes of other things.

use handoff_protocol::{
    COMMIT, CommitDecoder, CommitError, Feed, commit_len, encode_commit, section,
};

fn decode(bytes: &[u8], limit: usize) -> Result<Option<Vec<u8>>, CommitError> {
    let mut decoder = CommitDecoder::new(limit);
    decoder.feed(bytes)?;
    Ok(decoder.into_commit().map(|commit| commit.early_data))
}

#[test]
fn lengths_and_short_buffers() {
    assert_eq!(commit_len(&[]), Some(6));
    assert_eq!(commit_len(&[(section::EARLY_DATA, b"abc")]), Some(14));
    assert_eq!(commit_len(&[(section::END, b"")]), None);
    let sections: &[(u8, &[u8])] = &[(section::EARLY_DATA, b"abc"), (section::TLS_STATE, b"")];
    let len = commit_len(sections).unwrap();
    let mut out = [0xff; 32];
    for short in 0..len {
        assert_eq!(encode_commit(sections, &mut out[..short]), None);
    }
    assert_eq!(encode_commit(sections, &mut out), Some(len));
    assert!(out[len..].iter().all(|&byte| byte == 0xff));
}

#[test]
fn any_other_first_byte_is_an_error_that_names_it() {
    for first in 0..=u8::MAX {
        let decoded = decode(&[first], 0);
        if first == COMMIT {
            assert_eq!(decoded, Ok(None));
        } else {
            assert_eq!(decoded, Err(CommitError::UnexpectedByte(first)));
        }
    }
    let message = CommitError::UnexpectedByte(b'X').to_string();
    assert_eq!(message, "expected a commit (0x43) after the offer, got byte 0x58");
}

#[test]
fn the_early_data_limit_counts_all_sections_and_holds_before_the_data_arrives() {
    let two = b"C\x01\0\0\0\x02ab\x01\0\0\0\x02cd\0\0\0\0\0";
    assert_eq!(decode(two, 4), Ok(Some(b"abcd".to_vec())));
    assert_eq!(decode(two, 3), Err(CommitError::EarlyDataTooLong { limit: 3 }));
    let announced = b"C\x01\xff\xff\xff\xff";
    assert_eq!(decode(announced, 65536), Err(CommitError::EarlyDataTooLong { limit: 65536 }));
    assert_eq!(decode(b"C\x01\0\0\0\0\0\0\0\0\0", 0), Ok(Some(Vec::new())));
}

#[test]
fn sections_of_unknown_type_are_skipped_whatever_their_length() {
    let mut decoder = CommitDecoder::new(0);
    decoder.feed(b"C\xee\0\x10\0\0").unwrap();
    for _ in 0..0x10 {
        let fed = decoder.feed(&[0; 0x1_0000]).unwrap();
        assert_eq!(fed, Feed { consumed: 0x1_0000, done: false });
    }
    assert!(decoder.feed(b"\x03\0\0\0\0\0\0\0\0\0").unwrap().done);
    assert_eq!(decoder.into_commit().unwrap().early_data, b"");
}

/// Taking records for frames would be worse than to hang up.
#[test]
fn a_tls_session_that_was_not_asked_for_is_refused() {
    for len in [0, 1] {
        let announced = [b'C', section::TLS_STATE, 0, 0, 0, len];
        assert_eq!(decode(&announced, 0), Err(CommitError::UnexpectedTls));
    }
    let message = CommitError::UnexpectedTls.to_string();
    assert_eq!(message, "the commit carries a TLS session, though the answer did not say fd-tls");
}

#[test]
fn the_closing_section_is_empty() {
    assert_eq!(decode(b"C\0\0\0\x01\0", 0), Err(CommitError::EndNotEmpty(256)));
}

#[test]
fn nothing_is_consumed_behind_the_end() {
    let mut decoder = CommitDecoder::new(0);
    assert_eq!(decoder.feed(b""), Ok(Feed { consumed: 0, done: false }));
    assert_eq!(decoder.feed(b"C\0\0\0\0\0C"), Ok(Feed { consumed: 6, done: true }));
    assert_eq!(decoder.feed(b"C"), Ok(Feed { consumed: 0, done: true }));
    assert!(decoder.into_commit().is_some());
}

#[test]
fn an_error_stays() {
    let mut decoder = CommitDecoder::new(0);
    assert!(decoder.feed(b"X").is_err());
    assert_eq!(decoder.feed(b"C\0\0\0\0\0"), Err(CommitError::UnexpectedByte(b'X')));
    assert_eq!(decoder.feed(b""), Err(CommitError::UnexpectedByte(b'X')));
    assert!(decoder.into_commit().is_none());
}

#[test]
fn a_commit_cut_short_is_none() {
    let whole = b"C\x01\0\0\0\x02ab\0\0\0\0\0";
    for partial in 0..whole.len() {
        assert_eq!(decode(&whole[..partial], 2), Ok(None), "{partial}");
    }
}
