//! The program's applications, each by every way in which a client can come.

use std::time::{Duration, Instant};

use crate::fake::client::{BINARY, Client, FIN, TEXT, frame};
use crate::fake::nginx::{Nginx, tcp_pair};
use crate::fake::program::{Program, wait_until};
use crate::fake::{field, status};

#[test]
fn echo_returns_each_message_as_it_was() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
        for opcode in [TEXT, BINARY] {
            let payload = vec![b'a' + opcode; len];
            client.raw(&frame(FIN | opcode, &payload));
            assert!(client.receive() == (FIN | opcode, payload), "{len} bytes");
        }
    }
    client.close();
    assert_eq!(program.metric("websocket_messages_sent_total"), 16.0);
    assert_eq!(program.metric("websocket_messages_received_total"), 16.0);
    let bytes = 2.0 * (1 + 125 + 126 + 127 + 65_535 + 65_536 + (1 << 20)) as f64;
    assert_eq!(program.metric("websocket_received_bytes_total"), bytes);
    assert_eq!(program.metric("websocket_sent_bytes_total"), bytes);
    wait_until("the client is counted out", || {
        program.metric("websocket_connections_active") == 0.0
    });
    assert_eq!(program.metric("websocket_closed_total{by=\"client\"}"), 1.0);
}

#[test]
fn a_client_may_be_handed_over_tunnelled_or_direct() {
    let program = Program::start(&[]);
    let (theirs, held) = tcp_pair();
    let mut nginx = Nginx::accepted(&program.socket());
    nginx.offer(&held);
    nginx.commit(&frame(FIN | TEXT, b"early"));
    drop((nginx, held));
    let mut handed_over = Client { stream: theirs };
    assert_eq!(handed_over.receive_text(), "early");

    let mut nginx = Nginx::connect(&program.socket());
    nginx.send(crate::fake::nginx::request("/", "").as_bytes());
    assert_eq!(status(&nginx.head()), 101);
    let mut tunnelled = Client { stream: nginx.stream };

    let mut direct = Client::connect(program.listen, "/");

    handed_over.text("a");
    assert_eq!(handed_over.receive_text(), "a");
    tunnelled.text("b");
    assert_eq!(tunnelled.receive_text(), "b");
    direct.text("c");
    assert_eq!(direct.receive_text(), "c");
    assert_eq!(program.metric("websocket_connections_active"), 3.0);
    for source in ["handoff", "tunnel", "direct"] {
        let name = format!("websocket_connections_total{{source=\"{source}\"}}");
        assert_eq!(program.metric(&name), 1.0, "{source}");
    }
    handed_over.close();
    tunnelled.close();
    direct.close();
}

#[test]
fn pipelined_messages_come_back_in_order() {
    let program = Program::start(&[]);
    let mut client = Client::connect(program.listen, "/");
    let all: Vec<u8> =
        (0..1000).flat_map(|n| frame(FIN | TEXT, n.to_string().as_bytes())).collect();
    client.raw(&all);
    for n in 0..1000 {
        assert_eq!(client.receive_text(), n.to_string());
    }
}

#[test]
fn the_first_known_subprotocol_is_chosen() {
    let none = Program::start(&["--subprotocol", ""]);
    let offered = "Sec-WebSocket-Protocol: chat\r\n";
    let (_client, head) = Client::handshake(none.listen, "/", offered);
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), None);
    let program = Program::start(&["--subprotocol", "v2", "--subprotocol", "v1"]);
    for (offered, chosen) in [
        ("Sec-WebSocket-Protocol: v1, v2\r\n", Some("v2")),
        ("Sec-WebSocket-Protocol: soap\r\nSec-WebSocket-Protocol: v1\r\n", Some("v1")),
        ("Sec-WebSocket-Protocol: soap\r\n", None),
        ("", None),
    ] {
        let (_client, head) = Client::handshake(program.listen, "/", offered);
        assert_eq!(status(&head), 101);
        assert_eq!(field(&head, "Sec-WebSocket-Protocol"), chosen, "{offered}");
    }
}

#[test]
fn hello_logs_texts_and_sends_one_every_five_seconds() {
    let mut program = Program::start(&["--app", "hello"]);
    let begin = Instant::now();
    let mut client = Client::connect(program.listen, "/");
    client.text("good\nmorning");
    client.raw(&frame(FIN | crate::fake::client::PING, b"?"));
    assert_eq!(client.receive(), (FIN | crate::fake::client::PONG, b"?".to_vec()));
    program.wait_for_log(r#"text="good\nmorning""#);
    assert_eq!(client.receive_text(), "Hello number 1 from the backend");
    assert!(begin.elapsed() >= Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn broadcast_reaches_everyone_in_the_room() {
    let program = Program::start(&["--app", "broadcast"]);
    let mut a1 = Client::connect(program.listen, "/a");
    let mut a2 = Client::connect(program.listen, "/a?x");
    let mut b = Client::connect(program.listen, "/b");
    // A member's place is taken once the 101 is there or just after: talk until all have heard.
    wait_until("all are in", || program.metric("websocket_connections_active") == 3.0);
    a1.text("for a");
    b.text("for b");
    assert_eq!(a1.receive_text(), "for a");
    assert_eq!(a2.receive_text(), "for a");
    assert_eq!(b.receive_text(), "for b");
    let large = vec![1; 300_000];
    a2.raw(&frame(FIN | BINARY, &large));
    assert!(a1.receive() == (FIN | BINARY, large.clone()));
    assert!(a2.receive() == (FIN | BINARY, large));
}

#[test]
fn a_slow_receiver_does_not_hold_up_the_room() {
    let program = Program::start(&["--app", "broadcast"]);
    let _slow = Client::connect(program.listen, "/");
    let mut quick = Client::connect(program.listen, "/");
    wait_until("both are in", || program.metric("websocket_connections_active") == 2.0);
    let message = vec![0; 1 << 18];
    for _ in 0..200 {
        quick.raw(&frame(FIN | BINARY, &message));
        assert_eq!(quick.receive().1.len(), message.len());
    }
    assert_eq!(program.metric("websocket_slow_receivers_total"), 1.0);
}

#[test]
fn what_waits_for_a_slow_receiver_is_bounded_and_discarded() {
    let program = Program::start(&["--app", "broadcast"]);
    let mut slow = Client::connect(program.listen, "/");
    let mut quick = Client::connect(program.listen, "/");
    wait_until("both are in", || program.metric("websocket_connections_active") == 2.0);
    // Fewer messages than a queue has places; what the sockets hold is less than half of it.
    let message = frame(FIN | BINARY, &vec![0; 1 << 20]);
    for _ in 0..40 {
        quick.raw(&message);
        quick.receive();
    }
    assert_eq!(program.metric("websocket_slow_receivers_total"), 1.0);
    let mut received = 0;
    let last = loop {
        match slow.receive() {
            (first, _) if first == FIN | BINARY => received += 1,
            last => break last,
        }
    };
    assert_eq!(&last.1[..2], &1008u16.to_be_bytes());
    assert!(received < 38, "{received}");
}

#[test]
fn demo_goes_by_the_end_of_the_path() {
    let program = Program::start(&["--app", "demo"]);
    let mut echo = Client::connect(program.listen, "/ws/echo");
    echo.text("x");
    assert_eq!(echo.receive_text(), "x");
    let mut room = Client::connect(program.listen, "/ws/rooms/one");
    room.text("y");
    assert_eq!(room.receive_text(), "y");
    let (mut none, head) = Client::handshake(program.listen, "/ws/nothing", "");
    assert_eq!(status(&head), 404);
    assert!(crate::fake::field(&head, "Content-Length").is_some());
    let mut body = String::new();
    std::io::Read::read_to_string(&mut none.stream, &mut body).expect("body");
    assert_eq!(body, "404 Not Found\n");
    assert_eq!(program.metric("websocket_offers_total{outcome=\"refused\",detail=\"404\"}"), 1.0);
}
