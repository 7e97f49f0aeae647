//! The verdict on an answer does not depend on how it arrives, and what is understood can be written again.

#![no_main]

use handoff_protocol::{AnswerError, AnswerKind, encode_answer, parse_answer};
use libfuzzer_sys::fuzz_target;

const FIELDS: usize = 16;

#[derive(Debug, PartialEq)]
struct Answer {
    len: usize,
    status: u16,
    reason: Vec<u8>,
    kind: AnswerKind,
    keepalive: bool,
    fields: Vec<(String, Vec<u8>)>,
}

fn parse(bytes: &[u8]) -> Result<Option<Answer>, AnswerError> {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let answer = parse_answer(bytes, &mut headers)?;
    Ok(answer.map(|answer| Answer {
        len: answer.len,
        status: answer.status,
        reason: answer.reason.to_vec(),
        kind: answer.kind,
        keepalive: answer.keepalive,
        fields: answer.fields.iter().map(|f| (f.name.to_owned(), f.value.to_vec())).collect(),
    }))
}

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    // As nginx's side reads: the same buffer again, with more in it. The first word is the last.
    let step = bytes.len() / 512 + 1;
    for len in (0..bytes.len()).step_by(step) {
        match parse(&bytes[..len]) {
            Ok(None) => assert!(!matches!(&whole, Ok(Some(answer)) if answer.len <= len)),
            early => assert_eq!(early, whole),
        }
    }

    let Ok(Some(answer)) = whole else { return };
    assert!(answer.len <= bytes.len() && answer.fields.len() <= FIELDS);
    assert!(matches!(answer.status, 101 | 200..1000));
    let handoffs: Vec<&Vec<u8>> = answer
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("handoff"))
        .map(|(_, value)| value)
        .collect();
    match (answer.status, answer.kind) {
        (101, AnswerKind::Tunnel) => assert!(handoffs.is_empty()),
        (101, AnswerKind::Handoff(way)) => {
            let text = String::from_utf8_lossy(handoffs[0]).to_ascii_lowercase();
            assert!(handoffs.len() == 1 && text.contains(way.name()));
            assert!(!answer.keepalive || text.contains("keepalive"));
        }
        (_, kind) => assert!(kind == AnswerKind::Refusal && !answer.keepalive),
    }

    let mut again = Vec::new();
    let reason = std::str::from_utf8(&answer.reason).expect("ASCII");
    let fields = answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    encode_answer(&mut again, answer.status, reason, fields).expect("what was read can be written");
    let len = again.len();
    assert_eq!(parse(&again), Ok(Some(Answer { len, ..answer })));
});
