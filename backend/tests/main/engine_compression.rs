//! permessage-deflate (RFC 7692), where `--compression` asks for it: the answer's head, frames made by hand, bombs.

use std::net::TcpStream;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::fake::client::{BINARY, Client, FIN, PING, PONG, TEXT, frame};
use crate::fake::program::{Program, fails, is_strict, wait_until};
use crate::fake::{field, is_at_end, status};

pub const RSV1: u8 = 0x40;
pub const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A message's payload as a client compresses it (RFC 7692 7.2.1).
pub fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 1000);
    let mut codec = Compress::new(Compression::best(), false);
    codec.compress_vec(message, &mut out, FlushCompress::Sync).expect("deflate");
    assert_eq!(codec.total_in(), message.len() as u64);
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

/// What a compressed message was, by a codec that knows nothing of those before it.
pub fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(4 << 20);
    let mut codec = Decompress::new(false);
    codec.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("inflate");
    assert_eq!(codec.total_in(), whole.len() as u64);
    out
}

/// A client that has agreed to compress.
fn compressing(program: &Program, target: &str) -> Client {
    let (client, head) = Client::handshake(program.listen, target, OFFER);
    assert_eq!(field(&head, "Sec-WebSocket-Extensions"), Some(AGREED), "{head}");
    client
}

/// The next message, inflated if its frame says so; and its first byte.
fn receive(client: &mut Client<TcpStream>) -> (u8, Vec<u8>) {
    let (first, payload) = client.receive();
    let payload = if first & RSV1 == 0 { payload } else { inflated(&payload) };
    (first, payload)
}

fn prose(len: usize) -> Vec<u8> {
    b"It was the best of times, it was the worst of times. "
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect()
}

/// Compression is the parked engine's.
#[test]
fn the_other_engine_refuses_the_option() {
    let said = fails(&["--engine", "tasks", "--compression", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("--compression needs --engine parked"), "{said}");
}

#[test]
fn without_the_option_no_extension_is_answered_and_none_may_be_used() {
    let program = Program::start(&[]);
    let (mut client, head) = Client::handshake(program.listen, "/", OFFER);
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "Sec-WebSocket-Extensions"), None);
    client.raw(&frame(FIN | RSV1 | TEXT, &deflated(b"hello")));
    assert_eq!(client.receive_close(), 1002);
}

#[test]
fn an_offer_is_answered_as_rfc_7692_says() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--compression"]);
    let bits = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                server_max_window_bits=10";
    for (offered, answer) in [
        ("", None),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", Some(AGREED)),
        ("sec-websocket-extensions: x-webkit, permessage-deflate\r\n", Some(AGREED)),
        (
            "Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
            Some(AGREED),
        ),
        ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n", Some(bits)),
        // What cannot be kept is declined; the client's next choice then counts.
        ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n", None),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; nonsense, permessage-deflate\r\n",
            Some(AGREED),
        ),
        ("Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n", None),
    ] {
        let (mut client, head) = Client::handshake(program.listen, "/", offered);
        assert_eq!(status(&head), 101);
        assert_eq!(field(&head, "Sec-WebSocket-Extensions"), answer, "{offered}");
        // Whatever was agreed on, frames need not be compressed.
        client.text("plain");
        assert_eq!(client.receive_text(), "plain");
    }
}

#[test]
fn messages_go_compressed_both_ways() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--compression"]);
    let mut client = compressing(&program, "/");
    for len in [0, 1, 63, 64, 125, 126, 1000, 65_536, 1 << 20] {
        let message = prose(len);
        client.raw(&frame(FIN | RSV1 | TEXT, &deflated(&message)));
        let (first, answer) = receive(&mut client);
        assert!(answer == message, "{len} bytes");
        assert_eq!(first & !RSV1, FIN | TEXT);
        assert_eq!(first & RSV1 != 0, len >= 64, "{len} bytes: compressed where it is worth it");
    }
    // RSV1 is on the first fragment only, whatever the cuts; control frames between are plain.
    let message = prose(100_000);
    let compressed = deflated(&message);
    let (one, rest) = compressed.split_at(3);
    let (two, three) = rest.split_at(rest.len() / 2);
    client.raw(&frame(RSV1 | BINARY, one));
    client.raw(&frame(FIN | PING, b"between"));
    client.raw(&frame(0, two));
    client.raw(&frame(0, b""));
    client.raw(&frame(FIN, three));
    assert_eq!(client.receive(), (FIN | PONG, b"between".to_vec()));
    let (first, answer) = receive(&mut client);
    assert_eq!(first, FIN | RSV1 | BINARY);
    assert!(answer == message);
    // One byte at a time.
    for byte in frame(FIN | RSV1 | TEXT, &deflated("größer".as_bytes())) {
        client.raw(&[byte]);
    }
    assert_eq!(client.receive_text(), "größer");
    client.close();
    // Counted as the application sees them.
    let bytes: usize = [0, 1, 63, 64, 125, 126, 1000, 65_536, 1 << 20, 100_000, 8].iter().sum();
    assert_eq!(program.metric("websocket_received_bytes_total"), bytes as f64);
    assert_eq!(program.metric("websocket_sent_bytes_total"), bytes as f64);
}

#[test]
fn wrong_uses_of_compression_are_refused() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--compression"]);
    let hello = deflated(b"hello");
    for (what, bytes, code) in [
        (
            "a continuation with RSV1",
            [frame(RSV1 | TEXT, &hello[..2]), frame(FIN | RSV1, &hello[2..])].concat(),
            1002,
        ),
        ("a ping with RSV1", frame(FIN | RSV1 | PING, b""), 1002),
        ("RSV2", frame(FIN | RSV1 | 0x20 | TEXT, &hello), 1002),
        ("no deflate stream", frame(FIN | RSV1 | BINARY, &[0xff; 20]), 1007),
        ("half a stream", frame(FIN | RSV1 | BINARY, &deflated(&prose(5000))[..20]), 1007),
        ("text that is not UTF-8", frame(FIN | RSV1 | TEXT, &deflated(b"ok\xff")), 1007),
    ] {
        let mut client = compressing(&program, "/");
        client.raw(&bytes);
        let (_, payload) = client.receive();
        assert_eq!(payload[..2], u16::to_be_bytes(code), "{what}");
        assert!(is_at_end(&mut client.stream), "{what}");
    }
}

#[test]
fn a_message_is_as_long_as_what_it_inflates_to() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--compression", "--max-message-size", "1m", "--workers", "1"]);
    let mut client = compressing(&program, "/");
    client.raw(&frame(FIN | RSV1 | BINARY, &deflated(&vec![0; 1 << 20])));
    assert!(receive(&mut client).1 == vec![0; 1 << 20], "the limit itself");
    client.raw(&frame(FIN | RSV1 | BINARY, &deflated(&vec![0; (1 << 20) + 1])));
    assert_eq!(client.receive_close(), 1009);
    assert!(is_at_end(&mut client.stream));

    // 256 MiB in 256 KiB: no memory is ever taken for them.
    let before = program.memory();
    let bomb = frame(FIN | RSV1 | BINARY, &deflated(&vec![0; 256 << 20]));
    for _ in 0..10 {
        let mut client = compressing(&program, "/");
        client.raw(&bomb);
        assert_eq!(client.receive_close(), 1009);
    }
    let grown = program.memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    assert_eq!(program.metric("websocket_limited_total{limit=\"message_size\"}"), 11.0);
}

/// Each is sent what it has agreed to, whoever speaks, on whichever thread.
#[test]
fn a_room_may_have_members_of_both_kinds() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--compression", "--app", "broadcast", "--workers", "2"]);
    let small = OFFER.replace("client_max_window_bits", "server_max_window_bits=9");
    let mut members: Vec<Client> = (0..9)
        .map(|n| match n % 3 {
            0 => compressing(&program, "/room"),
            1 => Client::connect(program.listen, "/room"),
            _ => Client::handshake(program.listen, "/room", &small).0,
        })
        .collect();
    wait_until("all are in", || program.metric("websocket_connections_active") == 9.0);
    for speaker in 0..9 {
        let message = [prose(40_000), vec![speaker as u8]].concat();
        if speaker % 3 == 1 {
            members[speaker].raw(&frame(FIN | BINARY, &message));
        } else {
            members[speaker].raw(&frame(FIN | RSV1 | BINARY, &deflated(&message)));
        }
        for (n, member) in members.iter_mut().enumerate() {
            let (first, heard) = receive(member);
            assert!(heard == message, "member {n} hears {speaker}");
            match n % 3 {
                0 => assert_eq!(first, FIN | RSV1 | BINARY),
                1 => assert_eq!(first, FIN | BINARY, "it has not agreed to any"),
                _ => assert_eq!(first & !RSV1, FIN | BINARY),
            }
        }
    }
}
