//! The golden vectors: what this crate writes and reads, and what the specification prints.

use std::fs;

use handoff_protocol::tls::{Secret, State, Version};
use handoff_protocol::{
    AnswerKind, CommitDecoder, OFFER, RequestHead, RequestLine, Way, encode_answer, encode_commit,
    parse_answer, parse_request, section, validate,
};

use crate::vectors;

#[test]
fn the_request_head_is_written_as_specified() {
    let head = RequestHead {
        target: b"/chat/room?x=1",
        host: b"example.com",
        client_fields: [
            (b"Host".as_slice(), b"example.com".as_slice()),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Protocol", b"chat, superchat"),
            (b"Origin", b"http://example.com"),
        ]
        .into_iter(),
        set_fields: &[
            (b"X-Real-IP", b"192.0.2.7"),
            (b"X-Forwarded-For", b"192.0.2.7"),
            (b"X-Forwarded-Proto", b"http"),
        ],
        offer: Some(Way::Fd),
    };
    let mut out = [0; 1024];
    let len = head.encode(&mut out).unwrap();
    assert_eq!(out[..len].escape_ascii().to_string(), ascii(vectors::REQUEST_OFFER));

    let line = RequestLine { method: b"GET", version: (1, 1), has_body: false };
    assert_eq!(&validate(&line, head.client_fields).unwrap().accept, vectors::ACCEPT);
}

#[test]
fn the_request_head_is_read_as_specified() {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let request = parse_request(vectors::REQUEST_OFFER, &mut headers).unwrap().unwrap();
    assert_eq!(request.len, vectors::REQUEST_OFFER.len());
    assert_eq!((request.method, request.target), ("GET", "/chat/room?x=1"));
    assert_eq!(request.fields.len(), 11);
    assert!(request.offers_descriptor);
}

#[test]
fn answers_are_read_as_specified() {
    for (bytes, status, kind) in [
        (vectors::ANSWER_HANDOFF, 101, AnswerKind::Handoff(Way::Fd)),
        (vectors::ANSWER_TUNNEL, 101, AnswerKind::Tunnel),
        (vectors::ANSWER_REFUSAL, 403, AnswerKind::Refusal),
    ] {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let answer = parse_answer(bytes, &mut headers).unwrap().unwrap();
        assert_eq!((answer.len, answer.status, answer.kind), (bytes.len(), status, kind));
    }
}

#[test]
fn the_handoff_answer_is_written_as_specified() {
    let fields: [(&str, &[u8]); 4] = [
        ("Upgrade", b"websocket"),
        ("Connection", b"Upgrade"),
        ("Handoff", b"fd"),
        ("Sec-WebSocket-Protocol", b"chat"),
    ];
    let mut out = Vec::new();
    encode_answer(&mut out, 101, "Switching Protocols", fields.into_iter()).unwrap();
    assert_eq!(ascii(&out), ascii(vectors::ANSWER_HANDOFF));
}

type Sections<'a> = &'a [(u8, &'a [u8])];

#[test]
fn commits_are_written_and_read_as_specified() {
    let (first, second) = vectors::FRAME.split_at(4);
    let cases: [(&[u8], Sections<'_>, &[u8]); 3] = [
        (vectors::COMMIT_EMPTY, &[], b""),
        (vectors::COMMIT_EARLY_DATA, &[(section::EARLY_DATA, vectors::FRAME)], vectors::FRAME),
        (
            vectors::COMMIT_UNKNOWN_SECTION,
            &[(section::EARLY_DATA, first), (0x7f, &[0xaa, 0xbb]), (section::EARLY_DATA, second)],
            vectors::FRAME,
        ),
    ];
    for (bytes, sections, early_data) in cases {
        let mut out = [0; 64];
        let len = encode_commit(sections, &mut out).unwrap();
        assert_eq!(&out[..len], bytes);

        let mut decoder = CommitDecoder::new(64);
        let fed = decoder.feed(bytes).unwrap();
        assert!(fed.done && fed.consumed == bytes.len());
        assert_eq!(decoder.into_commit().unwrap().early_data, early_data);
    }
}

#[test]
fn tls_sessions_are_written_and_read_as_specified() {
    let secret = |first: u8| Secret::new(&(first..).take(32).collect::<Vec<_>>()).unwrap();
    let state = State {
        version: Version::Tls13,
        suite: 0x1303,
        rx_seq: 2,
        tx_seq: 5,
        rx_secret: secret(0x10),
        tx_secret: secret(0x50),
        owes_key_update: true,
    };
    let mut encoded = [0; State::MAX_LEN];
    let len = state.encode(&mut encoded);
    let sections = [(section::TLS_STATE, &encoded[..len]), (section::EARLY_DATA, vectors::FRAME)];
    let mut out = [0; 256];
    let len = encode_commit(&sections, &mut out).unwrap();
    assert_eq!(ascii(&out[..len]), ascii(vectors::COMMIT_TLS_STATE));

    let mut decoder = CommitDecoder::new(64).with_tls();
    let fed = decoder.feed(vectors::COMMIT_TLS_STATE).unwrap();
    assert!(fed.done && fed.consumed == vectors::COMMIT_TLS_STATE.len());
    let commit = decoder.into_commit().unwrap();
    assert_eq!(commit.early_data, vectors::FRAME);
    assert_eq!(commit.tls.as_deref(), Some(&state));
}

#[test]
fn the_specification_prints_the_same_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let specification = fs::read_to_string(path).unwrap();
    for (name, bytes) in [
        ("request-offer", vectors::REQUEST_OFFER),
        ("answer-handoff", vectors::ANSWER_HANDOFF),
        ("answer-tunnel", vectors::ANSWER_TUNNEL),
        ("answer-refusal", vectors::ANSWER_REFUSAL),
    ] {
        let printed: String =
            block(&specification, name).map(|line| format!("{line}\r\n")).collect();
        assert_eq!(ascii(printed.as_bytes()), ascii(bytes), "{name}");
    }
    for (name, bytes) in [
        ("offer", vectors::OFFER),
        ("commit-empty", vectors::COMMIT_EMPTY),
        ("commit-early-data", vectors::COMMIT_EARLY_DATA),
        ("commit-unknown-section", vectors::COMMIT_UNKNOWN_SECTION),
        ("commit-tls-state", vectors::COMMIT_TLS_STATE),
    ] {
        let printed: Vec<u8> = block(&specification, name)
            .flat_map(|line| line.split(';').next().unwrap().split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        assert_eq!(printed, bytes, "{name}");
    }
    assert_eq!(vectors::OFFER, [OFFER]);
}

/// The lines of the fenced block behind `<!-- vector: name -->`.
fn block<'s>(specification: &'s str, name: &str) -> impl Iterator<Item = &'s str> {
    let marker = format!("<!-- vector: {name} -->");
    let (_, behind) = specification.split_once(&marker).unwrap_or_else(|| panic!("no {marker}"));
    let fence = |line: &&str| !line.trim_start().starts_with("```");
    behind.lines().skip_while(fence).skip(1).take_while(fence)
}

fn ascii(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
