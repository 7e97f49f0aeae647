//! RFC 6455 sections 5 to 7 by the byte: what is refused, with which code, how early, and how a connection ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, PONG, TEXT, frame};
use crate::fake::program::{Program, is_strict};

/// What must be refused whichever engine serves, each after the last byte that it needs to be wrong.
fn breaches() -> Vec<(&'static str, Vec<u8>, u16)> {
    let two = |one: Vec<u8>, other: Vec<u8>| [one, other].concat();
    let mut euro_in_two = frame(TEXT, b"\xe2\x82");
    euro_in_two.extend(frame(FIN, b""));
    vec![
        ("an unmasked text", vec![FIN | TEXT, 0, 0], 1002),
        ("an unmasked fragment", two(frame(TEXT, b"a"), vec![FIN, 1, b'b']), 1002),
        ("an unmasked close", vec![FIN | CLOSE, 0, 0], 1002),
        ("RSV1 without an extension", frame(FIN | 0x40 | TEXT, b"x"), 1002),
        ("RSV2", frame(FIN | 0x20 | BINARY, b"x"), 1002),
        ("RSV3 on a ping", frame(FIN | 0x10 | PING, b""), 1002),
        ("opcode 3", frame(FIN | 3, b""), 1002),
        ("opcode 7", frame(FIN | 7, b"x"), 1002),
        ("opcode 11", frame(FIN | 11, b""), 1002),
        ("opcode 15", frame(FIN | 15, b""), 1002),
        ("a ping of 126 bytes", frame(FIN | PING, &[0; 126]), 1002),
        ("a pong of 126 bytes", frame(FIN | PONG, &[0; 126]), 1002),
        ("a close of 126 bytes", frame(FIN | CLOSE, &[3; 126]), 1002),
        ("a fragmented ping", frame(PING, b"a"), 1002),
        ("a fragmented pong", frame(PONG, b""), 1002),
        ("a fragmented close", frame(CLOSE, &1000u16.to_be_bytes()), 1002),
        ("a continuation of nothing", frame(FIN, b"x"), 1002),
        ("a continuation after a whole message", two(frame(FIN | PONG, b""), frame(0, b"")), 1002),
        ("a text inside a text", two(frame(TEXT, b"a"), frame(FIN | TEXT, b"b")), 1002),
        ("a binary inside a text", two(frame(TEXT, b"a"), frame(BINARY, b"b")), 1002),
        ("a close of one byte", frame(FIN | CLOSE, &[3]), 1002),
        ("a close whose reason is not UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xc3\x28"), 1007),
        ("a text that is not UTF-8", frame(FIN | TEXT, b"\xff"), 1007),
        ("a text with half a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("a text beyond U+10FFFF", frame(FIN | TEXT, b"\xf4\x90\x80\x80"), 1007),
        ("a text in too long a form", frame(FIN | TEXT, b"\xc0\xaf"), 1007),
        ("a text that ends inside a character", frame(FIN | TEXT, b"ok\xe2\x82"), 1007),
        ("fragments that end inside a character", euro_in_two, 1007),
        ("a fragment that is not UTF-8", frame(TEXT, b"ok\xfe"), 1007),
        ("a message over the limit", frame(FIN | BINARY, &[0; 5001]), 1009),
        ("fragments over it", two(frame(BINARY, &[0; 5000]), frame(0, b"x")), 1009),
    ]
}

#[test]
fn every_breach_is_closed_with_its_code_and_then_the_end() {
    let program = Program::start(&["--max-message-size", "5000"]);
    for (what, bytes, code) in breaches() {
        let mut direct = Client::connect(program.listen, "/");
        direct.raw(&bytes);
        expect_close_and_end(&mut direct, code, what);
        // As early data, in the same turn as the connection begins.
        let mut handed_over = Client::handed_over(&program.socket(), "/", &bytes);
        expect_close_and_end(&mut handed_over, code, what);
    }
}

#[test]
fn a_breach_is_seen_though_every_byte_comes_by_itself() {
    let program = Program::start(&["--max-message-size", "5000"]);
    for (what, bytes, code) in breaches().into_iter().filter(|(_, bytes, _)| bytes.len() < 200) {
        let mut client = Client::handed_over(&program.socket(), "/", b"");
        for byte in &bytes {
            // The head may have been enough: the rest then finds nobody.
            let _ = client.stream.write_all(&[*byte]);
        }
        expect_close_and_end(&mut client, code, what);
    }
}

#[test]
fn what_came_before_a_breach_is_answered_first() {
    let program = Program::start(&[]);
    for (what, breach, code) in breaches() {
        if code == 1009 {
            continue; // Not over the limit here.
        }
        let mut client = Client::connect(program.listen, "/");
        client.raw(&[frame(FIN | TEXT, b"fine"), frame(FIN | PING, b"?"), breach].concat());
        assert_eq!(client.receive_text(), "fine", "{what}");
        assert_eq!(client.receive(), (FIN | PONG, b"?".to_vec()), "{what}");
        expect_close_and_end(&mut client, code, what);
    }
}

/// RFC 6455 5.2: "the minimal number of bytes MUST be used". fastwebsockets does not tell.
#[test]
fn a_length_has_one_form() {
    if !is_strict() {
        // `conformance` has what the other engine does instead.
        return;
    }
    let program = Program::start(&[]);
    let sixteen = |len: u16| [&[FIN | BINARY, 0x80 | 126][..], &len.to_be_bytes()].concat();
    let sixty_four = |len: u64| [&[FIN | BINARY, 0x80 | 127][..], &len.to_be_bytes()].concat();
    for (what, head) in [
        ("0 in 16 bits", sixteen(0)),
        ("125 in 16 bits", sixteen(125)),
        ("0 in 64 bits", sixty_four(0)),
        ("125 in 64 bits", sixty_four(125)),
        ("65,535 in 64 bits", sixty_four(65_535)),
        ("the top bit", sixty_four(1 << 63)),
        ("the top bit, else a short length", sixty_four(1 << 63 | 70_000)),
    ] {
        let mut client = Client::connect(program.listen, "/");
        client.raw(&head);
        expect_close_and_end(&mut client, 1002, what);
    }
    for len in [126, 65_535, 65_536] {
        let mut client = Client::connect(program.listen, "/");
        client.raw(&frame(FIN | BINARY, &vec![1; len]));
        assert_eq!(client.receive().1.len(), len, "the shortest form");
    }
}

/// RFC 6455 8.1 and the Autobahn suite's 6.4: not when the frame has come, but at the byte that nothing can repair.
/// fastwebsockets hands out whole frames only.
#[test]
fn a_text_that_nothing_can_make_valid_is_refused_within_its_frame() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    for wrong in [&b"\xff"[..], b"\xc3\x28", b"\xe2\x28", b"\xed\xa0", b"\xf4\x90", b"\xe0\x80"] {
        let text = [&b"k\xc3\xb6\xc5\x82"[..], wrong].concat();
        let begun = text.len();
        let whole = frame(FIN | TEXT, &[&text[..], &[b'x'; 500]].concat());
        // Head and mask are 8 bytes.
        let (valid, invalid) = whole[..8 + begun].split_at(8 + begun - 1);
        let mut client = Client::connect(program.listen, "/");
        client.raw(valid);
        expect_silence(&mut client);
        client.raw(invalid);
        expect_close_and_end(&mut client, 1007, "mid-frame");

        let mut client = Client::connect(program.listen, "/");
        let begin = frame(TEXT, &text[..begun - 1]);
        client.raw(&[begin, frame(FIN | PING, b"")].concat());
        assert_eq!(client.receive(), (FIN | PONG, vec![]), "valid so far");
        client.raw(&frame(0, &[&text[begun - 1..], &[b'x'; 500]].concat())[..9]);
        expect_close_and_end(&mut client, 1007, "in the next fragment's first byte");
    }
}

#[test]
fn what_is_too_long_is_refused_by_its_head() {
    let program = Program::start(&["--max-message-size", "1000"]);
    let large = frame(FIN | BINARY, &[0; 1001]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&large[..8]);
    expect_close_and_end(&mut client, 1009, "no byte of it has come");
    let ping = frame(FIN | PING, &[0; 126]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&ping[..8]);
    if is_strict() {
        expect_close_and_end(&mut client, 1002, "no byte of it has come");
    } else {
        // fastwebsockets wants all of it first.
        client.raw(&ping[8..]);
        expect_close_and_end(&mut client, 1002, "all of it");
    }
}

#[test]
fn a_close_code_is_answered_if_it_may_be_sent() {
    let program = Program::start(&[]);
    let registered: [u16; 11] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013];
    // Registered since, which fastwebsockets does not know.
    let later: &[u16] = if is_strict() { &[1014] } else { &[] };
    for code in registered.iter().chain(later).chain(&[3000, 3999, 4000, 4999]) {
        let mut client = Client::connect(program.listen, "/");
        client
            .raw(&frame(FIN | CLOSE, &[&code.to_be_bytes()[..], "adieu, née".as_bytes()].concat()));
        assert_eq!(rest(&mut client), [&[FIN | CLOSE, 2][..], &code.to_be_bytes()].concat());
    }
    let forbidden: [u16; 13] =
        [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in forbidden {
        let mut client = Client::connect(program.listen, "/");
        client.raw(&frame(FIN | CLOSE, &code.to_be_bytes()));
        expect_close_and_end(&mut client, 1002, &format!("close code {code}"));
    }
}

#[test]
fn what_follows_a_close_is_ignored() {
    let program = Program::start(&[]);
    let close = frame(FIN | CLOSE, &1000u16.to_be_bytes());
    for behind in [
        frame(FIN | TEXT, b"too late"),
        frame(FIN | PING, b"too late"),
        close.clone(),
        b"\xff\xff\xff\xff no frame at all".to_vec(),
        vec![0x55; 200_000],
    ] {
        let mut client = Client::connect(program.listen, "/");
        // In the same segment, and in later ones.
        client.raw(&[frame(FIN | TEXT, b"in time"), close.clone(), behind.clone()].concat());
        let _ = client.stream.write_all(&behind);
        assert_eq!(client.receive_text(), "in time");
        assert_eq!(rest(&mut client), [FIN | CLOSE, 2, 3, 232], "one close, and nothing else");
    }
    assert_eq!(program.metric("websocket_messages_received_total"), 5.0);
}

/// The client's close is the answer to this side's, and not answered itself.
#[test]
fn a_close_that_answers_is_not_answered() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&frame(FIN | 3, b""));
    client.raw(&frame(FIN | CLOSE, &1002u16.to_be_bytes()));
    let answer = rest(&mut client);
    assert_eq!(answer[..4], [FIN | CLOSE, answer[1], 3, 234]);
    assert_eq!(answer.len(), 2 + usize::from(answer[1]), "one close, and nothing else");
}

#[test]
fn ten_thousand_fragments_of_one_byte_are_one_message() {
    let program = Program::start(&[]);
    let mut client = Client::handed_over(&program.socket(), "/", b"");
    let text = "zwölf € 🚀 ".repeat(10_000 / 16);
    let bytes = text.as_bytes();
    assert_eq!(bytes.len(), 10_000);
    let last = bytes.len() - 1;
    let mut wire = Vec::new();
    for (n, byte) in bytes.iter().enumerate() {
        let opcode = if n == 0 { TEXT } else { 0 };
        let fin = if n == last { FIN } else { 0 };
        wire.extend(frame(fin | opcode, &[*byte]));
        if n % 1000 == 0 {
            wire.extend(frame(FIN | PING, &[n as u8]));
        }
    }
    client.raw(&wire);
    for n in (0..10_000).step_by(1000) {
        assert_eq!(client.receive(), (FIN | PONG, vec![n as u8]));
    }
    assert!(client.receive_text() == text);
    client.close();
}

#[test]
fn every_byte_may_come_in_a_segment_of_its_own() {
    let program = Program::start(&[]);
    // Nagle's algorithm is off at both ends.
    let mut client = Client::handed_over(&program.socket(), "/", b"");
    let large = frame(FIN | BINARY, &[9; 300]);
    let parts = [
        frame(FIN | TEXT, "größer".as_bytes()),
        frame(FIN | PING, b"ping"),
        frame(TEXT, b"\xe2"),
        frame(FIN | PING, b""),
        frame(FIN, b"\x82\xac"),
        frame(FIN | BINARY, b""),
        large,
    ];
    for byte in parts.concat() {
        client.raw(&[byte]);
    }
    assert_eq!(client.receive_text(), "größer");
    assert_eq!(client.receive(), (FIN | PONG, b"ping".to_vec()));
    assert_eq!(client.receive(), (FIN | PONG, vec![]));
    assert_eq!(client.receive_text(), "€");
    assert_eq!(client.receive(), (FIN | BINARY, vec![]));
    assert_eq!(client.receive(), (FIN | BINARY, vec![9; 300]));
    client.close();
}

/// Bytes that nobody reads make the kernel answer with a reset, which would destroy the close on its way.
#[test]
fn the_close_and_the_end_arrive_though_the_client_goes_on_sending() {
    let program = Program::start(&["--max-message-size", "1000"]);
    for (code, bytes) in [
        (1002, frame(FIN | 3, b"")),
        (1007, frame(FIN | TEXT, b"\xff")),
        (1009, frame(FIN | BINARY, &[0; 1001])),
        (1000, frame(FIN | CLOSE, &1000u16.to_be_bytes())),
    ] {
        let mut client = Client::handed_over(&program.socket(), "/", b"");
        let mut flood = client.stream.try_clone().expect("clone");
        let flood = thread::spawn(move || {
            flood.write_all(&bytes).expect("write");
            // Until the client's end is closed, too.
            while flood.write_all(&[0x81; 16 << 10]).is_ok() {}
        });
        expect_close_and_end(&mut client, code, "while the client sends");
        client.stream.shutdown(std::net::Shutdown::Both).expect("shutdown");
        flood.join().expect("flood");
    }
}

/// The next frame must be a close with this code, and then the end of file: no reset.
fn expect_close_and_end(client: &mut Client<TcpStream>, code: u16, what: &str) {
    let (first, payload) = client.receive();
    assert_eq!(first, FIN | CLOSE, "{what}");
    assert_eq!(payload[..2], code.to_be_bytes(), "{what}: {}", String::from_utf8_lossy(&payload));
    assert!(std::str::from_utf8(&payload[2..]).is_ok(), "{what}");
    match client.stream.read(&mut [0]) {
        Ok(0) => (),
        other => panic!("{what}: {other:?} in place of the end"),
    }
}

/// All that comes until the end.
fn rest(client: &mut Client<TcpStream>) -> Vec<u8> {
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).expect("the end, and no reset");
    rest
}

/// Nothing comes: for as long as a refusal takes many times over.
fn expect_silence(client: &mut Client<TcpStream>) {
    client.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    let error = client.stream.read(&mut [0]).expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    client.stream.set_read_timeout(Some(crate::fake::PATIENCE)).expect("timeout");
}
