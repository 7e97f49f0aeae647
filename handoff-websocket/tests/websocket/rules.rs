//! RFC 6455, rule by rule, from raw bytes.

use handoff_websocket::Violation;

use crate::client::*;
use crate::reference::{Event, Outcome};

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

#[track_caller]
fn assert_refused(bytes: &[u8], violation: Violation) {
    assert_eq!(decode(bytes, PLAIN), (vec![], Some(violation)));
}

/// Refused with the last of these bytes, and not before.
#[track_caller]
fn assert_refused_at_last(bytes: &[u8], violation: Violation) {
    assert_refused(bytes, violation);
    assert_eq!(decode(&bytes[..bytes.len() - 1], PLAIN).1, None);
}

#[track_caller]
fn assert_events(bytes: &[u8], events: Vec<Event>) -> Outcome {
    let outcome = decode(bytes, PLAIN);
    assert_eq!(outcome, (events, None));
    outcome
}

#[test]
fn a_masked_text_is_unmasked() {
    // RFC 6455 section 5.7.
    assert_events(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", vec![text("Hello")]);
}

#[test]
fn every_form_of_length_is_read() {
    for len in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let settings = Settings { max_message: 1 << 20, deflate: false };
        let outcome = decode_in([frame(FIN | BINARY, &payload).as_slice()], settings);
        assert_eq!(outcome, (vec![Event::Binary(payload)], None));
    }
}

#[test]
fn the_reserved_bits_are_zero() {
    for bit in [0x10, 0x20, 0x40] {
        for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
            assert_refused_at_last(&[FIN | bit | opcode], Violation::ReservedBits);
        }
    }
}

#[test]
fn the_reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_refused_at_last(&[FIN | opcode], Violation::ReservedOpcode);
        assert_refused_at_last(&[opcode], Violation::ReservedOpcode);
    }
}

#[test]
fn every_frame_is_masked() {
    for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
        assert_refused_at_last(&[FIN | opcode, 0], Violation::NotMasked);
        assert_refused_at_last(&[FIN | opcode, 127], Violation::NotMasked);
    }
}

#[test]
fn a_control_frame_is_not_fragmented() {
    for opcode in [CLOSE, PING, PONG] {
        assert_refused_at_last(&[opcode], Violation::ControlFragmented);
    }
}

#[test]
fn a_control_frame_has_at_most_125_bytes() {
    let longest = [b'?'; 125];
    assert_events(&frame(FIN | PING, &longest), vec![Event::Ping(longest.to_vec())]);
    assert_events(&frame(FIN | PONG, &longest), vec![Event::Pong(longest.to_vec())]);
    for opcode in [CLOSE, PING, PONG] {
        assert_refused_at_last(&[FIN | opcode, 0x80 | 126], Violation::ControlTooLong);
        assert_refused_at_last(&[FIN | opcode, 0x80 | 127], Violation::ControlTooLong);
    }
}

#[test]
fn a_length_is_as_short_as_can_be() {
    let violation = Violation::LengthNotMinimal;
    assert_refused_at_last(&[FIN | TEXT, 0x80 | 126, 0, 125], violation);
    assert_refused_at_last(&[FIN | TEXT, 0x80 | 126, 0, 0], violation);
    // The last two bytes do not matter any more.
    assert_refused_at_last(&[FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0], violation);
    assert_refused(&[FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], violation);
    assert_eq!(decode(&[FIN | TEXT, 0x80 | 126, 0, 126], PLAIN).1, None);
}

#[test]
fn a_64_bit_length_has_63() {
    assert_refused_at_last(&[FIN | TEXT, 0x80 | 127, 0x80], Violation::LengthTopBit);
    assert_refused_at_last(&[FIN | BINARY, 0x80 | 127, 0xff], Violation::LengthTopBit);
}

#[test]
fn fragments_are_joined() {
    let mut bytes = frame(TEXT, b"Hel");
    bytes.extend(frame(CONTINUATION, b""));
    bytes.extend(frame(CONTINUATION, b"l"));
    bytes.extend(frame(FIN | CONTINUATION, b"o"));
    bytes.extend(frame(BINARY, b""));
    bytes.extend(frame(FIN | CONTINUATION, b""));
    assert_events(&bytes, vec![text("Hello"), Event::Binary(vec![])]);
}

#[test]
fn control_frames_may_come_between_fragments() {
    let mut bytes = frame(TEXT, b"a");
    bytes.extend(frame(FIN | PING, b"1"));
    bytes.extend(frame(CONTINUATION, b"b"));
    bytes.extend(frame(FIN | PONG, b""));
    bytes.extend(frame(FIN | CONTINUATION, b"c"));
    let events = vec![Event::Ping(b"1".to_vec()), Event::Pong(vec![]), text("abc")];
    assert_events(&bytes, events);
}

#[test]
fn a_close_may_come_between_fragments() {
    let bytes = [frame(TEXT, b"a"), frame(FIN | CLOSE, &[])].concat();
    assert_events(&bytes, vec![Event::Close(None)]);
}

#[test]
fn a_continuation_continues_something() {
    assert_refused_at_last(&[FIN | CONTINUATION], Violation::UnexpectedContinuation);
    assert_refused_at_last(&[CONTINUATION], Violation::UnexpectedContinuation);
    let bytes = [frame(FIN | TEXT, b"a"), frame(FIN | CONTINUATION, b"b")].concat();
    let violation = Some(Violation::UnexpectedContinuation);
    assert_eq!(decode(&bytes, PLAIN), (vec![text("a")], violation));
}

#[test]
fn a_message_ends_before_the_next() {
    for opcode in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
        let bytes = [frame(TEXT, b"a"), vec![opcode]].concat();
        assert_refused_at_last(&bytes, Violation::ExpectedContinuation);
    }
}

#[test]
fn a_text_is_utf_8_across_fragments() {
    let rest = "ö🦀".as_bytes();
    let mut bytes = frame(TEXT, &rest[..1]);
    for byte in &rest[1..] {
        bytes.extend(frame(CONTINUATION, &[*byte]));
    }
    bytes.extend(frame(FIN | CONTINUATION, b""));
    assert_events(&bytes, vec![text("ö🦀")]);
}

#[test]
fn a_text_fails_at_its_first_bad_byte() {
    // Autobahn 6.4.3 and 6.4.4: F4 90 is beyond U+10FFFF, whatever follows.
    let bad =
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80\x65\x64\x69\x74\x65\x64";
    let bytes = frame(FIN | TEXT, bad);
    assert_refused_at_last(&bytes[..6 + 13], Violation::NotUtf8);
    let bytes = [frame(TEXT, &bad[..11]), frame(CONTINUATION, &bad[11..])].concat();
    assert_refused_at_last(&bytes[..6 + 11 + 6 + 2], Violation::NotUtf8);
    for bad in [&b"\x80"[..], b"\xc0", b"\xff", b"a\xc3\x28", b"\xed\xa0", b"\xf0\x80", b"\xe0\x9f"]
    {
        let bytes = frame(TEXT, &[bad, b"more"].concat());
        assert_refused_at_last(&bytes[..6 + bad.len()], Violation::NotUtf8);
    }
}

#[test]
fn a_text_does_not_end_within_a_character() {
    for text in [&b"\xc3"[..], b"\xe2\x82", b"ok\xf0\x9f\xa6"] {
        assert_refused_at_last(&frame(FIN | TEXT, text), Violation::NotUtf8);
        let bytes = [frame(TEXT, text), frame(FIN | CONTINUATION, b"")].concat();
        assert_refused_at_last(&bytes, Violation::NotUtf8);
    }
}

#[test]
fn a_binary_message_is_anything() {
    assert_events(&frame(FIN | BINARY, b"\xff\xc0"), vec![Event::Binary(b"\xff\xc0".to_vec())]);
}

#[test]
fn a_message_as_long_as_the_limit_passes() {
    let longest = vec![b'a'; 1000];
    assert_events(&frame(FIN | BINARY, &longest), vec![Event::Binary(longest.clone())]);
    let bytes = [frame(BINARY, &longest[..400]), frame(FIN | CONTINUATION, &longest[400..])];
    assert_events(&bytes.concat(), vec![Event::Binary(longest)]);
}

#[test]
fn a_head_that_announces_too_much_is_enough() {
    assert_refused_at_last(&[FIN | BINARY, 0x80 | 126, 0x03, 0xe9], Violation::TooLong);
    assert_refused_at_last(&[FIN | BINARY, 0x80 | 126, 0x04], Violation::TooLong);
    assert_refused_at_last(&[FIN | BINARY, 0x80 | 127, 0x01], Violation::TooLong);
    let mut bytes = vec![FIN | BINARY, 0x80 | 127];
    bytes.extend((u64::MAX >> 1).to_be_bytes());
    assert_refused(&bytes, Violation::TooLong);
}

#[test]
fn the_limit_is_for_all_fragments_together() {
    let mut bytes = frame(BINARY, &[0; 500]);
    bytes.extend(frame(FIN | PING, &[0; 125]));
    bytes.extend(frame(CONTINUATION, &[0; 400]));
    bytes.extend(frame(CONTINUATION, &[]));
    let events = vec![Event::Ping(vec![0; 125])];
    let second = [bytes.clone(), vec![CONTINUATION, 0x80 | 101]].concat();
    assert_eq!(decode(&second, PLAIN), (events.clone(), Some(Violation::TooLong)));
    // Sums do not overflow.
    bytes.extend([FIN | CONTINUATION, 0x80 | 127]);
    bytes.extend((u64::MAX >> 1).to_be_bytes());
    assert_eq!(decode(&bytes, PLAIN), (events, Some(Violation::TooLong)));
}

#[test]
fn control_frames_are_no_messages() {
    let settings = Settings { max_message: 0, deflate: false };
    let bytes = [frame(FIN | PING, b"ping"), frame(FIN | TEXT, b"")].concat();
    let events = vec![Event::Ping(b"ping".to_vec()), text("")];
    assert_eq!(decode(&bytes, settings), (events.clone(), None));
    let bytes = [bytes, frame(FIN | TEXT, b"a")].concat();
    assert_eq!(decode(&bytes, settings), (events, Some(Violation::TooLong)));
}

#[test]
fn no_limit_is_a_limit_too() {
    let settings = Settings { max_message: usize::MAX / 2, deflate: false };
    let mut bytes = frame(BINARY, b"a");
    bytes.extend([CONTINUATION, 0x80 | 127]);
    bytes.extend((u64::MAX >> 1).to_be_bytes());
    assert_eq!(decode(&bytes, settings).1, Some(Violation::TooLong));
}

#[test]
fn a_close_has_nothing_or_a_code_and_a_reason() {
    assert_events(&frame(FIN | CLOSE, b""), vec![Event::Close(None)]);
    let close = vec![Event::Close(Some((1000, String::new())))];
    assert_events(&frame(FIN | CLOSE, b"\x03\xe8"), close);
    let close = vec![Event::Close(Some((4999, "tschüß".to_owned())))];
    assert_events(&frame(FIN | CLOSE, &[&[0x13, 0x87], "tschüß".as_bytes()].concat()), close);
    let longest = [b"\x03\xe8".to_vec(), vec![b'x'; 123]].concat();
    let close = vec![Event::Close(Some((1000, "x".repeat(123))))];
    assert_events(&frame(FIN | CLOSE, &longest), close);
    assert_refused_at_last(&[FIN | CLOSE, 0x80 | 1], Violation::CloseTooShort);
}

#[test]
fn a_close_has_a_code_that_may_be_sent() {
    let valid = (1000..=1003).chain(1007..=1014).chain(3000..=4999);
    let valid: Vec<u16> = valid.collect();
    for code in (0..=5100).chain([u16::MAX]) {
        let bytes = frame(FIN | CLOSE, &code.to_be_bytes());
        let outcome = decode_in([bytes.as_slice()], PLAIN);
        if valid.contains(&code) {
            assert_eq!(outcome, (vec![Event::Close(Some((code, String::new())))], None));
        } else {
            assert_eq!(outcome, (vec![], Some(Violation::CloseCode)), "{code}");
        }
    }
    // The reason need not be waited for.
    let bytes = frame(FIN | CLOSE, b"\x03\xed, because");
    assert_refused_at_last(&bytes[..8], Violation::CloseCode);
}

#[test]
fn the_reason_of_a_close_is_utf_8() {
    let bytes = frame(FIN | CLOSE, b"\x03\xe8ok\xff...");
    assert_refused_at_last(&bytes[..6 + 5], Violation::NotUtf8);
    assert_refused_at_last(&frame(FIN | CLOSE, b"\x03\xe8\xc3"), Violation::NotUtf8);
}

#[test]
fn nothing_comes_after_a_close() {
    let bytes = [frame(FIN | CLOSE, b""), frame(FIN | TEXT, b"a"), vec![0xff; 20]].concat();
    assert_events(&bytes, vec![Event::Close(None)]);
}

#[test]
fn what_comes_before_a_violation_counts() {
    let bytes = [frame(FIN | TEXT, b"a"), frame(FIN | PING, b"b"), vec![0xff]].concat();
    let events = vec![text("a"), Event::Ping(b"b".to_vec())];
    assert_eq!(decode(&bytes, PLAIN), (events, Some(Violation::ReservedBits)));
}

#[test]
fn a_violation_has_a_code_and_a_reason_that_fits() {
    use Violation::*;
    let of_1002 = [
        ReservedBits,
        ReservedOpcode,
        NotMasked,
        ControlFragmented,
        ControlTooLong,
        LengthNotMinimal,
        LengthTopBit,
        UnexpectedContinuation,
        ExpectedContinuation,
        CloseTooShort,
        CloseCode,
    ];
    let codes = of_1002.map(|violation| (violation, 1002)).into_iter();
    for (violation, code) in codes.chain([(NotUtf8, 1007), (NotDeflated, 1007), (TooLong, 1009)]) {
        assert_eq!(violation.code(), code);
        assert!((1..=123).contains(&violation.to_string().len()));
    }
}
