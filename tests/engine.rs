//! The backend's engine behind nginx: what it promises holds for clients that were handed over, from their first byte on,
//! some of which nginx has read and some of which it has not.

use std::io::Write;
use std::thread;

use crate::support::backend::is_strict;
use crate::support::client::End;
use crate::support::frame::{BINARY, CLOSE, Frame, PING, PONG, TEXT};
use crate::support::{Backend, Client, Handshake, Nginx};

#[test]
fn breaches_are_closed_with_their_code_and_then_the_end() {
    let backend = Backend::start(&["--max-message-size", "1000"]);
    let nginx = site(&backend.address());
    let breaches = [
        (1002, vec![0x81, 2, b'h', b'i']),
        (1002, Frame::new(PING, [0; 126]).masked()),
        (
            1002,
            [Frame { fin: false, ..Frame::text("a") }, Frame::text("b")]
                .map(|f| f.masked())
                .concat(),
        ),
        (1007, Frame::new(TEXT, [0xff]).masked()),
        (1007, Frame::new(TEXT, "€".as_bytes()[..2].to_vec()).masked()),
        (1009, Frame::new(BINARY, [0; 1001]).masked()),
    ];
    for (code, breach) in breaches {
        let bytes = [Frame::text("fine").masked(), breach].concat();
        // All behind the head; all after the 101; and from the one to the other.
        for early in [bytes.len(), 0, bytes.len() - 3] {
            let mut client = Client::connect(nginx.address());
            client.send(&[&Handshake::new("/ws").bytes(), &bytes[..early]].concat());
            client.expect_101();
            client.send(&bytes[early..]);
            client.expect_frame(TEXT, b"fine");
            let close = client.read_frame();
            assert_eq!((close.opcode, &close.payload[..2]), (CLOSE, &u16::to_be_bytes(code)[..]));
            assert_eq!(client.expect_end(), (vec![], End::Eof));
        }
    }
    backend.wait_active(0);
}

/// The engine of the parked connections alone has compression.
#[test]
fn compression_is_agreed_on_through_nginx() {
    if !is_strict() {
        return;
    }
    let backend = Backend::start(&["--compression"]);
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    let offer = Handshake::new("/ws")
        .with("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
    // RFC 7692 7.2.3.1's example, as early data.
    let mut hello = Frame::new(TEXT, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]).masked();
    hello[0] |= 0x40;
    client.send(&[offer.bytes(), hello.clone()].concat());
    let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(client.expect_101().field("Sec-WebSocket-Extensions"), Some(answer));
    client.expect_frame(TEXT, b"Hello");
    client.send(&hello);
    client.expect_frame(TEXT, b"Hello");

    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&offer.bytes());
    assert_eq!(client.expect_101().field("Sec-WebSocket-Extensions"), None);
}

/// Each client's first messages are behind its head, and go on in the middle of a frame while it is handed over.
#[test]
fn pipelined_messages_come_back_once_and_in_order() {
    const EACH: usize = 3000;
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    thread::scope(|scope| {
        for client in 0..4 {
            let address = nginx.address();
            scope.spawn(move || {
                let messages = || (0..EACH).map(move |n| message(client, n));
                let mut early: Vec<u8> = messages().flat_map(|frame| fragmented(&frame)).collect();
                let late = early.split_off(1000 + 37 * client);
                let mut client = Client::connect(address);
                client.send(&[Handshake::new("/ws").bytes(), early].concat());
                let mut writer = client.stream().try_clone().unwrap();
                scope.spawn(move || writer.write_all(&late).unwrap());
                client.expect_101();
                for frame in messages() {
                    client.expect_frame(PONG, &frame.payload[..4]);
                    assert!(client.read_frame() == frame);
                }
            });
        }
    });
}

#[test]
fn of_two_thousand_clients_that_end_at_once_nothing_is_left() {
    const CLIENTS: usize = 2000;
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let connect = |count: usize| -> Vec<Client> {
        (0..count).map(|_| Client::upgraded(nginx.address(), "/ws")).collect()
    };
    connect(20).into_iter().for_each(Client::reset);
    backend.wait_active(0);
    let before = crate::support::proc::descriptors(backend.pid()).len();
    let clients = connect(CLIENTS);
    backend.wait_active(CLIENTS);
    for (n, mut client) in clients.into_iter().enumerate() {
        match n % 4 {
            0 => client.reset(),
            1 => drop(client),
            2 => client.send(&Frame::new(BINARY, [1; 100]).masked()[..50]),
            _ => client.send_frame(&Frame::new(CLOSE, [3, 232])),
        }
    }
    backend.wait_active(0);
    backend.wait_descriptors(before);
    nginx.wait_inactive();
}

/// Binary, of a length and with a content that only it has.
fn message(client: usize, n: usize) -> Frame {
    let len = if n % 500 == 499 { 70_000 } else { 4 + n * 7 % 300 };
    let stamp = u32::try_from(client * 1_000_000 + n).unwrap().to_be_bytes();
    Frame::new(BINARY, stamp.into_iter().cycle().take(len).collect::<Vec<u8>>())
}

/// In two fragments, with a ping between them.
fn fragmented(frame: &Frame) -> Vec<u8> {
    let (one, other) = frame.payload.split_at(frame.payload.len() / 3);
    let first = Frame { fin: false, ..Frame::new(BINARY, one) };
    let last = Frame::new(0, other);
    [first, Frame::new(PING, &frame.payload[..4]), last].map(|frame| frame.masked()).concat()
}

fn site(backend: &str) -> Nginx {
    Nginx::start(format!("location /ws {{ ws_handoff {backend}; }}"))
}
