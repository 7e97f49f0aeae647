//! What a server sends.

use handoff_websocket::{Message, OpCode, encode, encode_close, encode_control, frame};

fn encoded(message: Message<'_>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    encode(&mut out, message);
    let encoded = out.split_off(6);
    assert_eq!(out, b"before");
    assert_eq!(frame(message), encoded);
    encoded
}

#[test]
fn messages_are_single_unmasked_frames() {
    // RFC 6455 section 5.7.
    assert_eq!(encoded(Message::Text("Hello")), b"\x81\x05Hello");
    assert_eq!(encoded(Message::Binary(b"\0\xff")), b"\x82\x02\0\xff");
    assert_eq!(encoded(Message::Text("")), b"\x81\0");
}

#[test]
fn lengths_are_as_short_as_can_be() {
    for (len, head) in [
        (125, &b"\x82\x7d"[..]),
        (126, b"\x82\x7e\0\x7e"),
        (256, b"\x82\x7e\x01\0"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        let payload = vec![7; len];
        assert_eq!(encoded(Message::Binary(&payload)), [head, &payload].concat());
    }
}

#[test]
fn a_message_knows_its_opcode_and_length() {
    let (text, binary) = (Message::Text("ä"), Message::Binary(b""));
    assert_eq!((text.opcode(), text.payload(), text.len()), (OpCode::Text, "ä".as_bytes(), 2));
    assert_eq!((binary.opcode(), binary.len(), binary.is_empty()), (OpCode::Binary, 0, true));
}

#[test]
fn a_pong_repeats_a_pings_payload() {
    let mut out = Vec::new();
    encode_control(&mut out, OpCode::Ping, b"");
    encode_control(&mut out, OpCode::Pong, b"Hello");
    assert_eq!(out, b"\x89\0\x8a\x05Hello");
    out.clear();
    encode_control(&mut out, OpCode::Pong, &[b'x'; 126]);
    assert_eq!(out, [&b"\x8a\x7d"[..], &[b'x'; 125]].concat());
}

fn close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_close(&mut out, code, reason);
    out
}

#[test]
fn a_close_has_a_code_and_a_reason_or_nothing() {
    assert_eq!(close(Some(1000), "bye"), b"\x88\x05\x03\xe8bye");
    assert_eq!(close(Some(4999), ""), b"\x88\x02\x13\x87");
    assert_eq!(close(None, "lost"), b"\x88\0");
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(close(Some(code), "must not be sent"), b"\x88\0");
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let fits = "x".repeat(123);
    assert_eq!(close(Some(1000), &fits), [b"\x88\x7d\x03\xe8", fits.as_bytes()].concat());
    assert_eq!(close(Some(1000), &"x".repeat(124)), close(Some(1000), &fits));
    // 41 characters of three bytes are 123, of two bytes 61 are 122, of four bytes 30 are 120.
    for (char, count) in [("€", 41), ("ä", 61), ("🦀", 30)] {
        assert_eq!(close(Some(1000), &char.repeat(100)), close(Some(1000), &char.repeat(count)));
    }
}
