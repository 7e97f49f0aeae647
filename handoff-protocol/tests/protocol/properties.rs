//! What holds for any input: round trips, indifference to how a stream is cut, and no panic on garbage.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_protocol::{
    ChunkedDecoder, CommitDecoder, RequestHead, RequestLine, Way, accept_key, commit_len,
    encode_answer, encode_commit, has_token, parse_answer, parse_request, same_field_name, section,
    tokens, validate,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

type Field = (Vec<u8>, Vec<u8>);

fn borrowed(fields: &[Field]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// A name of nginx's or the protocol's, with its case and its hyphens changed at random.
fn disguised() -> impl Strategy<Value = Vec<u8>> {
    let names = vec!["Handoff", "X-Real-IP", "X-Forwarded-For", "Host", "Connection", "Upgrade"];
    (select(names), any::<u32>()).prop_map(|(name, mask)| {
        let change = |(at, byte): (usize, u8)| match (byte, mask >> at & 1) {
            (_, 0) => byte,
            (b'-', _) => b'_',
            _ => byte ^ 0x20,
        };
        name.bytes().enumerate().map(change).collect()
    })
}

const FORGED: &[&[u8]] = &[b"fd; v=9", b"X-Real-IP, Handoff, Host", b"evil"];

/// Bytes cut into pieces at the given places (modulo the length).
fn pieces<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        vec(select(&b"HTTP/1.01 GET:\r\n\t,;=Cfdvx\0\x01\x7f\xff"[..]), 0..200),
    ]
}

proptest! {
    /// Ordinary fields survive the way to the backend, in order and unchanged.
    #[test]
    fn a_head_is_read_as_it_was_written(
        target in "/[!-~]{0,40}",
        fields in vec(("X[!#-'*+.0-9A-Z^_`a-z|~-]{0,12}", "([!-~][ -~\u{e4}]{0,20}[!-~])?"), 0..20),
        offer in any::<bool>(),
    ) {
        let fields: Vec<Field> =
            fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let head = RequestHead {
            target: target.as_bytes(),
            host: b"example.com",
            client_fields: borrowed(&fields),
            set_fields: &[(b"Y-Set", b"1")],
            offer: offer.then_some(Way::Fd),
        };
        let mut out = vec![0; head.encoded_len().unwrap()];
        prop_assert_eq!(head.encode(&mut out), Ok(out.len()));

        let mut headers = [httparse::EMPTY_HEADER; 32];
        let request = parse_request(&out, &mut headers).unwrap().unwrap();
        prop_assert_eq!(request.len, out.len());
        prop_assert_eq!(request.target, &target);
        prop_assert_eq!(request.offers_descriptor, offer);
        let own = if offer { 5 } else { 4 };
        let read = request.fields[own..].iter().map(|f| (f.name.as_bytes(), f.value));
        prop_assert!(read.eq(borrowed(&fields)));
    }

    /// Whatever a client sends, a backend sees each of nginx's fields once, with nginx's value.
    #[test]
    fn no_field_of_nginx_can_be_forged_or_removed(
        forged in vec((disguised(), select(FORGED)), 0..8),
        noise in vec((vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..40)), 0..4),
        offer in any::<bool>(),
    ) {
        let mut fields: Vec<Field> = noise;
        fields.extend(forged.into_iter().map(|(name, value)| (name, value.to_vec())));
        let head = RequestHead {
            target: b"/",
            host: b"example.com",
            client_fields: borrowed(&fields),
            set_fields: &[(b"X-Real-IP", b"192.0.2.7"), (b"X-Forwarded-For", b"")],
            offer: offer.then_some(Way::Fd),
        };
        let mut out = vec![0; head.encoded_len().unwrap()];
        prop_assert_eq!(head.encode(&mut out), Ok(out.len()));
        let short = out.len() - 1;
        prop_assert!(head.encode(&mut out.clone()[..short]).is_err());

        let mut headers = [httparse::EMPTY_HEADER; 32];
        let request = parse_request(&out, &mut headers).unwrap().unwrap();
        prop_assert_eq!(request.len, out.len());
        prop_assert_eq!(request.offers_descriptor, offer);
        let values = |name: &str| -> Vec<&[u8]> {
            let same = |f: &&httparse::Header<'_>| same_field_name(f.name.as_bytes(), name.as_bytes());
            request.fields.iter().filter(same).map(|f| f.value).collect()
        };
        prop_assert_eq!(values("Host"), [b"example.com"]);
        prop_assert_eq!(values("Upgrade"), [b"websocket"]);
        prop_assert_eq!(values("Connection"), [b"Upgrade"]);
        prop_assert_eq!(values("X-Real-IP"), [b"192.0.2.7"]);
        prop_assert_eq!(values("X-Forwarded-For").len(), 0);
        prop_assert_eq!(values("Handoff").len(), usize::from(offer));
    }

    #[test]
    fn an_answer_is_read_as_it_was_written(
        status in 200_u16..1000,
        reason in "[ -~]{0,20}",
        fields in vec(("[0-9A-Za-z-]{1,12}", "([!-~][ -~]{0,20}[!-~])?"), 0..20),
        interim in vec(select(&[100_u16, 102, 103, 199]), 0..3),
        behind in vec(any::<u8>(), 0..20),
    ) {
        let mut out = Vec::new();
        for status in interim {
            encode_answer(&mut out, status, "", [("Link", b"x".as_slice())].into_iter()).unwrap();
        }
        let written = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        encode_answer(&mut out, status, &reason, written.clone()).unwrap();
        let len = out.len();
        for partial in 0..len {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            prop_assert!(parse_answer(&out[..partial], &mut headers).unwrap().is_none());
        }
        out.extend(behind);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let answer = parse_answer(&out, &mut headers).unwrap().unwrap();
        prop_assert_eq!((answer.len, answer.status), (len, status));
        prop_assert_eq!(answer.reason, reason.as_bytes());
        prop_assert!(answer.fields.iter().map(|f| (f.name, f.value)).eq(written));
    }

    #[test]
    fn a_commit_survives_any_split(
        sections in vec((prop_oneof![Just(section::EARLY_DATA), 3_u8..], vec(any::<u8>(), 0..40)), 0..6),
        cuts in vec(any::<usize>(), 0..8),
        behind in vec(any::<u8>(), 0..8),
    ) {
        let borrowed: Vec<(u8, &[u8])> = sections.iter().map(|(kind, s)| (*kind, &s[..])).collect();
        let len = commit_len(&borrowed).unwrap();
        let mut bytes = vec![0; len];
        prop_assert_eq!(encode_commit(&borrowed, &mut bytes), Some(len));
        let early_data: Vec<u8> = sections
            .iter()
            .filter(|(kind, _)| *kind == section::EARLY_DATA)
            .flat_map(|(_, bytes)| bytes.clone())
            .collect();
        bytes.extend(behind);

        let mut decoder = CommitDecoder::new(early_data.len());
        let mut consumed = 0;
        for piece in pieces(&bytes, &cuts) {
            let fed = decoder.feed(piece).unwrap();
            consumed += fed.consumed;
            prop_assert_eq!(fed.done, consumed == len);
            prop_assert!(fed.done || fed.consumed == piece.len());
        }
        prop_assert_eq!(consumed, len);
        prop_assert_eq!(decoder.into_commit().unwrap().early_data, early_data);
    }

    #[test]
    fn a_chunked_body_survives_any_split(
        chunks in vec((vec(any::<u8>(), 1..40), "(;[a-z=\"]{0,8})?"), 0..6),
        trailers in vec("[A-Za-z]{1,8}: [ -~]{0,8}", 0..3),
        cuts in vec(any::<usize>(), 0..8),
        behind in vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        let mut body = Vec::new();
        for (chunk, extension) in &chunks {
            bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
            body.extend(chunk);
        }
        bytes.extend(b"0\r\n");
        bytes.extend(trailers.iter().flat_map(|line| format!("{line}\r\n").into_bytes()));
        bytes.extend(b"\r\n");
        let len = bytes.len();
        bytes.extend(behind);

        let (mut decoder, mut decoded_body, mut consumed, mut done) =
            (ChunkedDecoder::default(), Vec::new(), 0, false);
        for mut piece in pieces(&bytes, &cuts) {
            while !piece.is_empty() && !done {
                let decoded = decoder.decode(piece).unwrap();
                prop_assert!(decoded.consumed > 0);
                decoded_body.extend_from_slice(&piece[decoded.data]);
                piece = &piece[decoded.consumed..];
                consumed += decoded.consumed;
                done = decoded.done;
            }
        }
        prop_assert!(done);
        prop_assert_eq!(consumed, len);
        prop_assert_eq!(decoded_body, body);
    }

    #[test]
    fn every_key_of_16_bytes_and_no_other_is_accepted(bytes in vec(any::<u8>(), 0..40)) {
        let mut key = [0; 64];
        let len = STANDARD.encode_slice(&bytes, &mut key).unwrap();
        let key = &key[..len];
        let line = RequestLine { method: b"GET", version: (1, 1), has_body: false };
        let fields: [(&[u8], &[u8]); 4] = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"upgrade"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Key", key),
        ];
        let verdict = validate(&line, fields.into_iter());
        prop_assert_eq!(verdict.is_ok(), bytes.len() == 16);
        if let Ok(handshake) = verdict {
            prop_assert_eq!(handshake.accept, accept_key(key));
        }
    }

    #[test]
    fn garbage_panics_nowhere(bytes in garbage(), method in garbage(), other in garbage()) {
        let mut headers = [httparse::EMPTY_HEADER; 4];
        if let Ok(Some(answer)) = parse_answer(&bytes, &mut headers) {
            prop_assert!(answer.len <= bytes.len());
        }
        if let Ok(Some(request)) = parse_request(&bytes, &mut [httparse::EMPTY_HEADER; 4]) {
            prop_assert!(request.len <= bytes.len());
        }
        let mut decoder = CommitDecoder::new(16);
        if let Ok(fed) = decoder.feed(&bytes) {
            prop_assert!(fed.consumed <= bytes.len());
        }
        if let Ok(decoded) = ChunkedDecoder::default().decode(&bytes) {
            prop_assert!(decoded.consumed <= bytes.len() && bytes.get(decoded.data).is_some());
        }
        let _ = has_token(&bytes, &other);
        prop_assert!(tokens(&bytes).all(|token| !token.is_empty()));
        let fields: [(&[u8], &[u8]); 3] =
            [(&bytes, &other), (b"Sec-WebSocket-Key", &bytes), (b"Connection", &other)];
        let line = RequestLine { method: &method, version: (1, 1), has_body: false };
        let _ = validate(&line, fields.into_iter());
        let _ = validate(&RequestLine { method: b"GET", ..line }, fields.into_iter());
        let head = RequestHead {
            target: &bytes,
            host: &other,
            client_fields: fields.into_iter(),
            set_fields: &[(&method, &bytes)],
            offer: Some(Way::Fd),
        };
        let mut out = [0; 64];
        let _ = (head.encoded_len(), head.encode(&mut out));
    }
}
