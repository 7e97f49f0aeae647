//! The chunked coding: what is decoded, and what is refused.

use handoff_protocol::{ChunkedDecoder, ChunkedError};

/// The body, and how many bytes of the input belong to it; `None` if it is not complete.
fn decode(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ChunkedError> {
    let (mut decoder, mut body, mut at) = (ChunkedDecoder::default(), Vec::new(), 0);
    loop {
        let rest = &input[at..];
        let decoded = decoder.decode(rest)?;
        assert!(decoded.done || rest.is_empty() || decoded.consumed > 0, "no progress at {at}");
        body.extend_from_slice(&rest[decoded.data]);
        at += decoded.consumed;
        if decoded.done {
            return Ok(Some((body, at)));
        }
        if at == input.len() {
            return Ok(None);
        }
    }
}

#[test]
fn bodies() {
    for (input, body) in [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("A\r\n0123456789\r\n00a\r\n0123456789\r\n000\r\n\r\n", "01234567890123456789"),
        ("3;name=value;x=\"y\"\r\nabc\r\n0;last\r\n\r\n", "abc"),
        ("3  \r\nabc\r\n0\t;x\r\n\r\n", "abc"),
        ("1\r\na\r\n0\r\nTrailer: 1\r\nOther: 2\r\n\r\n", "a"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    ] {
        let expected = (body.as_bytes().to_vec(), input.len());
        assert_eq!(decode(input.as_bytes()), Ok(Some(expected.clone())), "{input:?}");
        assert_eq!(decode(format!("{input}next").as_bytes()), Ok(Some(expected)), "{input:?}");
        for partial in 0..input.len() {
            assert_eq!(decode(&input.as_bytes()[..partial]), Ok(None), "{input:?} {partial}");
        }
    }
}

#[test]
fn malformed_bodies() {
    use ChunkedError::{LineEnd, Size, SizeTooLong};
    for (input, error) in [
        ("\r\n", Size(b'\r')),
        ("x", Size(b'x')),
        ("-1", Size(b'-')),
        ("0x1", Size(b'x')),
        ("1 1\r\n", Size(b'1')),
        (" 1\r\n", Size(b' ')),
        ("1\n", Size(b'\n')),
        ("1;a\n", LineEnd(b'\n')),
        ("1;a\rb", LineEnd(b'b')),
        ("1\rX", LineEnd(b'X')),
        ("1\r\nab", LineEnd(b'b')),
        ("1\r\na\n", LineEnd(b'\n')),
        ("1\r\na\rb", LineEnd(b'b')),
        ("0\r\n\n", LineEnd(b'\n')),
        ("0\r\n\rx", LineEnd(b'x')),
        ("0\r\nA: b\n", LineEnd(b'\n')),
        ("0\r\nA: b\rc", LineEnd(b'c')),
        ("00000000000000001\r\n", SizeTooLong),
        ("fffffffffffffffff", SizeTooLong),
    ] {
        assert_eq!(decode(input.as_bytes()), Err(error), "{input:?}");
    }
}

#[test]
fn the_largest_size_is_no_overflow() {
    let mut decoder = ChunkedDecoder::default();
    let head = decoder.decode(b"ffffffffffffffff\r\n").unwrap();
    assert_eq!(head.consumed, 18);
    let data = decoder.decode(&[b'x'; 4096]).unwrap();
    assert_eq!((data.consumed, data.data, data.done), (4096, 0..4096, false));
}

#[test]
fn extensions_and_trailers_are_bounded_over_the_whole_body() {
    let limit = 16 * 1024;
    let error = Err(ChunkedError::TooMuchMetadata { limit });
    assert_eq!(decode(format!("1;{}", "a".repeat(limit)).as_bytes()), error);
    assert_eq!(decode(format!("1{}", " ".repeat(limit + 1)).as_bytes()), error);
    assert_eq!(decode(format!("0\r\n{}", "A: b\r\n".repeat(limit / 4 + 1)).as_bytes()), error);
    assert_eq!(decode("1;aaa\r\nx\r\n".repeat(limit / 4 + 1).as_bytes()), error);
    let fits = format!("0;{}\r\n\r\n", "a".repeat(limit - 1));
    assert!(decode(fits.as_bytes()).unwrap().is_some());
}

#[test]
fn an_error_stays_and_so_does_the_end() {
    let mut decoder = ChunkedDecoder::default();
    assert!(decoder.decode(b"x").is_err());
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(ChunkedError::Size(b'x')));
    assert_eq!(decoder.decode(b""), Err(ChunkedError::Size(b'x')));

    let mut decoder = ChunkedDecoder::default();
    assert!(decoder.decode(b"0\r\n\r\n").unwrap().done);
    let after = decoder.decode(b"1\r\n").unwrap();
    assert_eq!((after.consumed, after.data, after.done), (0, 0..0, true));
}
