//! Connections, messages, and time.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, PONG, frame};
use crate::fake::nginx::Nginx;
use crate::fake::program::{Program, is_strict, wait_until};
use crate::fake::{field, is_at_end, status};

#[test]
fn clients_past_the_limit_are_refused_503() {
    let program = Program::start(&["--max-connections", "2"]);
    let first = Client::connect(program.listen, "/");
    let _second = Client::connect(program.listen, "/");
    let (_, head) = Client::handshake(program.listen, "/", "");
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "Retry-After").or(field(&head, "retry-after")), Some("5"));
    let mut nginx = Nginx::offering(&program.socket(), "/", "");
    assert_eq!(status(&nginx.head()), 503);
    first.close();
    wait_until("there is room again", || {
        status(&Client::handshake(program.listen, "/", "").1) == 101
    });
    assert!(program.metric("websocket_offers_total{outcome=\"refused\",detail=\"503\"}") >= 2.0);
}

#[test]
fn clients_past_their_addresss_limit_are_refused_429() {
    let program = Program::start(&["--max-connections-per-ip", "1"]);
    let one = "X-Real-IP: 192.0.2.1\r\n";
    let (_held, head) = Client::handshake(program.listen, "/", one);
    assert_eq!(status(&head), 101);
    assert_eq!(status(&Client::handshake(program.listen, "/", one).1), 429);
    let mut nginx = Nginx::offering(&program.socket(), "/", one);
    assert_eq!(status(&nginx.head()), 429, "by whatever way");
    let mut nginx = Nginx::offering(&program.socket(), "/", "X-Real-IP: 192.0.2.2\r\n");
    assert_eq!(status(&nginx.head()), 101, "another address");
}

#[test]
fn a_failed_offer_gives_its_place_back() {
    let program = Program::start(&["--max-connections", "1"]);
    drop(Nginx::accepted(&program.socket()));
    wait_until("its place is free", || {
        status(&Client::handshake(program.listen, "/", "").1) == 101
    });
    let failed =
        program.metric("websocket_offers_total{outcome=\"failed\",detail=\"closed_before_offer\"}");
    assert_eq!(failed, 1.0);
}

#[test]
fn messages_past_the_limit_are_closed_with_1009() {
    let program = Program::start(&["--max-message-size", "1000"]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&frame(FIN | BINARY, &[1; 1000]));
    assert_eq!(client.receive().1.len(), 1000, "the limit itself is allowed");
    client.raw(&frame(FIN | BINARY, &[1; 1001]));
    assert_eq!(client.receive_close(), 1009);
    assert!(is_at_end(&mut client.stream));

    let mut client = Client::connect(program.listen, "/");
    client.raw(&frame(BINARY, &[1; 600]));
    client.raw(&frame(FIN, &[1; 401]));
    assert_eq!(client.receive_close(), 1009, "all fragments together");

    let mut client = Client::connect(program.listen, "/");
    client.raw(&[FIN | BINARY, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
    // Its highest bit is set, which RFC 6455 5.2 forbids.
    let code = if is_strict() { 1002 } else { 1009 };
    assert_eq!(client.receive_close(), code, "a length that nobody has");
}

#[test]
fn the_close_arrives_though_the_client_goes_on_sending() {
    let program = Program::start(&["--max-message-size", "1000"]);
    for _ in 0..10 {
        let mut client = Client::connect(program.listen, "/");
        client.raw(&frame(FIN | BINARY, &vec![1; 1 << 20]));
        assert_eq!(client.receive_close(), 1009);
    }
}

#[test]
fn a_small_limit_is_not_for_control_frames() {
    let program = Program::start(&["--max-message-size", "10"]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&frame(FIN | PING, &[7; 125]));
    assert_eq!(client.receive(), (FIN | PONG, vec![7; 125]));
    client.raw(&frame(FIN | BINARY, &[7; 11]));
    assert_eq!(client.receive_close(), 1009);
}

#[test]
fn silent_clients_are_pinged_and_kept_while_they_answer() {
    let program = Program::start(&["--ping-interval", "1", "--idle-timeout", "4"]);
    let mut client = Client::connect(program.listen, "/");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        let (first, payload) = client.receive();
        assert_eq!(first, FIN | PING);
        client.raw(&frame(FIN | PONG, &payload));
    }
    // No more answers.
    let mut last = client.receive();
    while last.0 == FIN | PING {
        last = client.receive();
    }
    assert_eq!(last, (FIN | CLOSE, b"\x03\xe9idle".to_vec()), "1001");
    client.raw(&frame(FIN | CLOSE, &1001u16.to_be_bytes()));
    assert!(is_at_end(&mut client.stream));
}

#[test]
fn a_client_in_the_middle_of_a_message_is_not_idle() {
    let program = Program::start(&["--ping-interval", "0", "--idle-timeout", "2"]);
    let mut fragments = Client::connect(program.listen, "/");
    let mut slow = Client::connect(program.listen, "/");
    let whole = frame(FIN | BINARY, &[7; 8]);
    fragments.raw(&frame(BINARY, b""));
    for byte in &whole[..8] {
        std::thread::sleep(Duration::from_millis(500));
        fragments.raw(&frame(0, b"x"));
        slow.raw(&[*byte]);
    }
    fragments.raw(&frame(FIN, b""));
    assert_eq!(fragments.receive(), (FIN | BINARY, vec![b'x'; 8]));
    slow.raw(&whole[8..]);
    assert_eq!(slow.receive(), (FIN | BINARY, vec![7; 8]));
    assert_eq!(slow.receive_close(), 1001, "and then it is");
}

#[test]
fn a_client_that_takes_something_is_not_hung_up_on() {
    let program = Program::start(&["--send-timeout", "1", "--max-message-size", "64m"]);
    let mut client = Client::connect(program.listen, "/");
    let len = 48 << 20;
    client.raw(&frame(FIN | BINARY, &vec![0; len]));
    let mut left = len;
    let mut piece = vec![0; 8 << 20];
    while left > 0 {
        std::thread::sleep(Duration::from_millis(500));
        let wanted = piece.len().min(left);
        client.stream.read_exact(&mut piece[..wanted]).expect("the next piece");
        left -= wanted;
    }
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let program = Program::start_with_descriptors(64, &[]);
    let _idle: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(program.listen).expect("connect")).collect();
    let begin = Instant::now();
    let mut client = Client::connect(program.listen, "/");
    client.text("still there");
    assert_eq!(client.receive_text(), "still there");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_client_that_takes_nothing_is_hung_up_on() {
    let program = Program::start(&["--send-timeout", "1", "--max-message-size", "16m"]);
    let mut client = Client::connect(program.listen, "/");
    client.raw(&frame(FIN | BINARY, &vec![0; 16 << 20]));
    wait_until("it is counted as lost", || {
        program.metric("websocket_closed_total{by=\"lost\"}") == 1.0
    });
    assert_eq!(program.metric("websocket_connections_active"), 0.0);
}
