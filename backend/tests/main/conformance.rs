//! What the program does about clients who break RFC 6455, and for those who use its odder permissions.

use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, PONG, TEXT, frame};
use crate::fake::is_at_end;
use crate::fake::program::{Program, is_strict};

/// Sends bytes: the code of the close that must follow, and then the end.
fn closes(program: &Program, bytes: &[u8]) -> u16 {
    let mut client = Client::connect(program.listen, "/");
    client.raw(bytes);
    let code = client.receive_close();
    assert!(is_at_end(&mut client.stream));
    code
}

#[test]
fn protocol_errors_are_closed_with_1002() {
    let program = Program::start(&[]);
    let unmasked = |first: u8| vec![first, 2, b'h', b'i'];
    let two = |one: Vec<u8>, other: Vec<u8>| [one, other].concat();
    for (what, bytes) in [
        ("unmasked text", unmasked(FIN | TEXT)),
        ("unmasked ping", unmasked(FIN | PING)),
        ("reserved bit", frame(FIN | 0x40 | TEXT, b"x")),
        ("reserved opcode", frame(FIN | 3, b"x")),
        ("reserved control opcode", frame(FIN | 11, b"")),
        ("fragmented ping", frame(PING, b"")),
        ("long ping", frame(FIN | PING, &[0; 126])),
        ("long pong", frame(FIN | PONG, &[0; 126])),
        ("long close", frame(FIN | CLOSE, &[3; 126])),
        ("close of one byte", frame(FIN | CLOSE, &[3])),
        ("close code 1005", frame(FIN | CLOSE, &1005u16.to_be_bytes())),
        ("close code 0", frame(FIN | CLOSE, &0u16.to_be_bytes())),
        ("continuation of nothing", frame(FIN, b"x")),
        ("message within a message", two(frame(TEXT, b"a"), frame(FIN | TEXT, b"b"))),
    ] {
        assert_eq!(closes(&program, &bytes), 1002, "{what}");
    }
    assert_eq!(program.metric("websocket_closed_total{by=\"1002\"}"), 14.0);
}

#[test]
fn text_that_is_not_utf8_is_closed_with_1007() {
    let program = Program::start(&[]);
    let euro = "€".as_bytes();
    for (what, bytes) in [
        ("in one frame", frame(FIN | TEXT, b"\xff")),
        ("cut off", frame(FIN | TEXT, &euro[..2])),
        ("at once, in a fragment", frame(TEXT, b"\xc3\x28")),
        ("cut off over fragments", [frame(TEXT, &euro[..1]), frame(FIN, &euro[1..2])].concat()),
        ("a close's reason", frame(FIN | CLOSE, b"\x03\xe8\xff")),
    ] {
        assert_eq!(closes(&program, &bytes), 1007, "{what}");
    }
}

#[test]
fn fragments_make_one_message() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    // Within a character, with a ping between.
    client.raw(&frame(TEXT, b"\xe2"));
    client.raw(&frame(0, b""));
    client.raw(&frame(0, b"\x82"));
    client.raw(&frame(FIN | PING, b"still there?"));
    assert_eq!(client.receive(), (FIN | PONG, b"still there?".to_vec()));
    client.raw(&frame(FIN, b"\xac"));
    assert_eq!(client.receive_text(), "€");
    client.raw(&frame(BINARY, b"\xff"));
    client.raw(&frame(FIN, b"\xfe"));
    assert_eq!(client.receive(), (FIN | BINARY, b"\xff\xfe".to_vec()));
    client.close();
}

#[test]
fn frames_may_come_byte_by_byte() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    for byte in frame(FIN | TEXT, "x".repeat(130).as_bytes()) {
        client.raw(&[byte]);
    }
    assert_eq!(client.receive_text(), "x".repeat(130));
}

/// RFC 6455 5.2. fastwebsockets does not tell: with it, nothing behind such a frame is lost.
#[test]
fn a_length_in_more_bytes_than_needed_is_refused() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    let mut bytes = vec![FIN | TEXT, 0x80 | 126, 0, 2, 0, 0, 0, 0, b'h', b'i'];
    bytes.extend(frame(FIN | TEXT, b"next"));
    client.raw(&bytes);
    if is_strict() {
        assert_eq!(client.receive_close(), 1002);
        return;
    }
    assert_eq!(client.receive_text(), "hi");
    assert_eq!(client.receive_text(), "next");
    client.text("and on");
    assert_eq!(client.receive_text(), "and on");
}

#[test]
fn closes_are_answered_in_kind() {
    let program = Program::start(&[]);
    for payload in [&b""[..], b"\x03\xe8", b"\x0f\xa0why"] {
        let mut client = Client::connect(program.listen, "/");
        client.raw(&frame(FIN | CLOSE, payload));
        let code = payload.get(..2).unwrap_or_default();
        assert_eq!(client.receive(), (FIN | CLOSE, code.to_vec()));
        assert!(is_at_end(&mut client.stream));
    }
}

#[test]
fn an_unsolicited_pong_is_nothing() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&frame(FIN | PONG, b"x"));
    client.text("next");
    assert_eq!(client.receive_text(), "next");
}
