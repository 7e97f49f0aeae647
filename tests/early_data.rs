//! What a client sends before nginx has let go of it reaches the backend once and in order, whenever it
//! is sent and wherever it is split.

use std::io::{Read, Write};

use crate::support::frame::{BINARY, Frame, TEXT};
use crate::support::peer::tcp_stream;
use crate::support::{Backend, Client, Handshake, ManualBackend, Nginx, large, wait_until};

#[test]
fn frames_in_the_segment_of_the_head_come_back() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), three_frames()].concat());
    client.expect_101();
    expect_three_frames(&mut client);
    client.echo("and more");
}

#[test]
fn every_split_of_head_and_frames() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let bytes = [Handshake::new("/ws").bytes(), three_frames()].concat();
    for at in 1..bytes.len() {
        let mut client = Client::connect(nginx.address());
        client.send(&bytes[..at]);
        client.send(&bytes[at..]);
        client.expect_101();
        expect_three_frames(&mut client);
        client.reset();
    }
    nginx.wait_inactive();
}

#[test]
fn every_split_with_the_first_part_read_before_the_second_is_sent() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let head = Handshake::new("/ws").bytes();
    let bytes = [head.clone(), three_frames()].concat();
    for at in 1..bytes.len() {
        let mut client = Client::connect(nginx.address());
        client.send(&bytes[..at]);
        nginx.wait_read(&client);
        client.send(&bytes[at..]);
        let (mut peer, offer) = backend.offered();
        let early = peer.recv_commit();
        client.expect_101();
        let rest = three_frames().len() - early.len();
        assert_eq!([early, read_exactly(&mut tcp_stream(offer), rest)].concat(), three_frames());
        client.expect_end();
    }
}

#[test]
fn bytes_sent_at_each_step_of_the_handover_arrive_in_order() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), b"with the head, ".to_vec()].concat());

    let mut peer = backend.accept();
    peer.read_head();
    client.send(b"before the answer, ");
    peer.accept();
    client.send(b"around the offer, ");
    let offer = peer.recv_offer();
    client.send(b"around the commit, ");
    let early = peer.recv_commit();
    assert!(early.starts_with(b"with the head, "));
    client.send(b"after the commit");
    client.expect_101();
    client.finish_sending();

    let mut rest = Vec::new();
    tcp_stream(offer).read_to_end(&mut rest).expect("the rest");
    assert_eq!(
        String::from_utf8([early, rest].concat()).expect("ASCII"),
        "with the head, before the answer, around the offer, around the commit, after the commit"
    );
}

#[test]
fn client_that_closes_before_the_answer_is_owed_the_delivery() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    for (with_head, later) in [("with the head", ""), ("", "later"), ("with the head", ", later")] {
        let mut client = Client::connect(nginx.address());
        client.send(&[&Handshake::new("/ws").bytes(), with_head.as_bytes()].concat());
        let mut peer = backend.accept();
        peer.read_head();
        client.send(later.as_bytes());
        client.finish_sending();
        // nginx knows of the end of file, and the backend has not answered yet.
        nginx.wait_read(&client);
        assert!(!peer.has_input(), "given up with {with_head:?}{later:?} undelivered");

        peer.accept();
        let offer = peer.recv_offer();
        let mut all = peer.recv_commit();
        client.expect_101();
        tcp_stream(offer).read_to_end(&mut all).expect("the rest");
        assert_eq!(String::from_utf8_lossy(&all), format!("{with_head}{later}"));
    }
}

#[test]
fn early_data_around_the_size_of_the_header_buffer() {
    const BUFFER: usize = 4096;
    let backend = ManualBackend::unix();
    let nginx = Nginx::builder()
        .http(format!("client_header_buffer_size {BUFFER};"))
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let head = Handshake::new("/ws").bytes();
    for total in [BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 10 * BUFFER] {
        let data: Vec<u8> = (0..total - head.len()).map(|n| n.to_le_bytes()[0] ^ 0x5A).collect();
        let (mut client, early, mut rest) = hand_over(&nginx, &backend, &head, &data);
        let left = read_exactly(&mut rest, data.len() - early.len());
        assert_eq!(early.len(), data.len().min(BUFFER - head.len()), "of {total}");
        assert!([early, left].concat() == data, "of {total}");
        client.expect_101();
    }
}

#[test]
fn head_in_a_large_buffer_with_early_data_behind_it() {
    let backend = ManualBackend::unix();
    let nginx = Nginx::builder()
        .http("client_header_buffer_size 1k; large_client_header_buffers 4 8k;")
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .quiet()
        .start();
    let data = three_frames().repeat(20);
    for cookie in (900..3000).step_by(170) {
        let head = Handshake::new("/ws").with("Cookie", &"c".repeat(cookie)).bytes();
        let (mut client, early, mut rest) = hand_over(&nginx, &backend, &head, &data);
        let left = read_exactly(&mut rest, data.len() - early.len());
        assert!([early, left].concat() == data, "with a cookie of {cookie}");
        client.expect_101();
    }
}

#[test]
fn commit_larger_than_the_socket_buffer_is_resumed() {
    let backend = ManualBackend::unix();
    let nginx = large::site(&backend.address(), "");
    let data: Vec<u8> = (0..large::EARLY_DATA).map(|n| (n / 251).to_le_bytes()[0]).collect();
    let mut client = large::connect(&nginx, &data);
    let mut peer = backend.accept();
    wait_until("the request arrives", || peer.has_input());
    peer.accept();
    client.expect_101();
    // The commit is under way: nothing has been read yet, and the worker serves others.
    nginx.stub_status();
    let offer = peer.recv_head_and_offer();
    assert!(peer.recv_commit() == data);
    tcp_stream(offer).write_all(&Frame::text("x").unmasked()).expect("write to the client");
    client.expect_frame(TEXT, b"x");
}

#[test]
fn real_backend_takes_large_early_data() {
    let backend = Backend::echo();
    let nginx = large::site(&backend.address(), "");
    let payload: Vec<u8> = (0..10_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let frames = Frame::new(BINARY, payload.as_slice()).masked().repeat(5);
    let mut client = Client::connect(nginx.address());
    let bytes = [Handshake::new("/ws").bytes(), frames].concat();
    large::send_while_stopped(&nginx, &mut client, &bytes);
    client.expect_101();
    for _ in 0..5 {
        client.expect_frame(BINARY, &payload);
    }
}

/// Hands over a client that sends all at once: the client, its early data, and the socket.
fn hand_over(
    nginx: &Nginx,
    backend: &ManualBackend,
    head: &[u8],
    data: &[u8],
) -> (Client, Vec<u8>, std::net::TcpStream) {
    let mut client = Client::connect(nginx.address());
    large::send_while_stopped(nginx, &mut client, &[head, data].concat());
    let (mut peer, offer) = backend.offered();
    let early = peer.recv_commit();
    (client, early, tcp_stream(offer))
}

fn site(address: &str) -> Nginx {
    let location = format!("location /ws {{ ws_handoff {address}; }}");
    Nginx::builder().server(location).quiet().start()
}

fn three_frames() -> Vec<u8> {
    ["one", "two", "three"].iter().flat_map(|text| Frame::text(text).masked()).collect()
}

fn expect_three_frames(client: &mut Client) {
    for text in ["one", "two", "three"] {
        client.expect_frame(TEXT, text.as_bytes());
    }
}

fn read_exactly(from: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).expect("so many bytes");
    bytes
}
