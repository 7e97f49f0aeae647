//! A client is handed over, talks to the backend, and nginx has forgotten it: no system call, no
//! descriptor, no active connection; only the line in the access log.

use crate::support::frame::{BINARY, CLOSE, Frame, PING, PONG};
use crate::support::strace::Strace;
use crate::support::{
    Backend, Client, FakeBackend, Nginx, PATIENCE, net, proc, python, wait_until,
};

#[test]
fn python_client_exchanges_text_and_binary_up_to_1_mib() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    python::run("echo.py", &[&format!("ws://{}/ws", nginx.address())]);
    assert_eq!(backend.metric("websocket_connections_total{source=\"handoff\"}"), 1.0);
    assert_eq!(nginx.logged("GET /ws").get("upstream_status"), "101");
}

#[test]
fn raw_frames_of_every_kind_pass() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("a");
    let large = vec![0xA5; 1 << 20];
    client.send_frame(&Frame::new(BINARY, large.as_slice()));
    client.expect_frame(BINARY, &large);
    client.send_frame(&Frame::new(PING, "are you there"));
    client.expect_frame(PONG, b"are you there");
    client.echo_in_a_row();
    client.send_frame(&Frame::new(CLOSE, 1000u16.to_be_bytes()));
    let answer = client.read_frame();
    assert_eq!((answer.opcode, &answer.payload[..2]), (CLOSE, [0x03, 0xE8].as_slice()));
    client.expect_end();
    backend.wait_active(0);
}

#[test]
fn subprotocol_chosen_by_the_backend_reaches_the_client() {
    let backend = FakeBackend::unix(|mut peer| {
        let head = peer.read_head();
        assert_eq!(head.field("Sec-WebSocket-Protocol"), Some("chat, superchat"));
        peer.write(
            "HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\
             Sec-WebSocket-Protocol: superchat\r\n\r\n",
        );
        let client = peer.recv_offer();
        let early_data = peer.recv_commit();
        crate::support::frame::echo(&mut crate::support::peer::tcp_stream(client), &early_data);
    });
    let nginx = site(&backend.address());
    let url = format!("ws://{}/ws", nginx.address());
    let arguments = [&url, "--subprotocol", "chat", "--subprotocol", "superchat"];
    let chosen = python::run("echo.py", &arguments);
    assert_eq!(chosen.trim(), "superchat");
}

#[test]
fn real_backend_chooses_a_subprotocol() {
    let backend = Backend::start(&["--app", "echo", "--subprotocol", "superchat"]);
    let nginx = site(&backend.address());
    let url = format!("ws://{}/ws", nginx.address());
    let arguments = [&url, "--subprotocol", "chat", "--subprotocol", "superchat"];
    assert_eq!(python::run("echo.py", &arguments).trim(), "superchat");
}

#[test]
fn fields_of_the_101_reach_the_client_but_the_handshakes_are_nginx_own() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write(
            "HTTP/1.1 101 Sure\r\nHandoff: fd\r\nUpgrade: tea\r\nConnection: close\r\n\
             Sec-WebSocket-Accept: bogus\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\nX-Room: 7\r\n\r\n",
        );
        drop((peer.recv_offer(), peer.recv_commit()));
    });
    let nginx = site(&backend.address());
    let head = Client::connect(nginx.address()).upgrade("/ws");
    assert_eq!(head.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(head.field("Sec-WebSocket-Extensions"), Some("permessage-deflate"));
    assert_eq!(head.field("X-Room"), Some("7"));
    assert_eq!(head.field("Handoff"), None);
}

#[test]
fn interim_responses_before_the_101_are_skipped() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        let mut taken = peer.take_over();
        crate::support::frame::echo(&mut taken.stream, &taken.early_data);
    });
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    assert_eq!(client.upgrade("/ws").field("Link"), None);
    client.echo("after the hints");
}

#[test]
fn answer_may_arrive_byte_by_byte() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        for byte in b"HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\nX-Slow: yes\r\n\r\n" {
            peer.write([*byte]);
        }
        let client = peer.recv_offer();
        assert!(peer.recv_commit().is_empty());
        crate::support::frame::echo(&mut crate::support::peer::tcp_stream(client), b"");
    });
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    assert_eq!(client.upgrade("/ws").field("X-Slow"), Some("yes"));
    client.echo("slowly");
}

#[test]
fn access_log_line_tells_what_happened() {
    let backend = FakeBackend::echo();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    let head = client.upgrade("/ws?a=1");
    client.echo("not counted");
    let line = nginx.logged("GET /ws?a=1 HTTP/1.1");
    assert_eq!(line.get("status"), "101");
    assert_eq!(line.get("bytes"), head.raw.len().to_string());
    assert_eq!(line.get("body_bytes"), "0");
    assert_eq!(line.get("upstream"), backend.address());
    assert_eq!(line.get("upstream_status"), "101");
    let (connect, header) = (line.seconds("connect"), line.seconds("header"));
    let (response, total) = (line.seconds("response"), line.seconds("time"));
    assert!(connect <= header && header <= response, "{line:?}");
    // By another clock of nginx's, and both are rounded to milliseconds.
    assert!(response <= total + 0.002 && total < PATIENCE.as_secs_f64(), "{line:?}");
    drop(client);
    nginx.wait_inactive();
    assert_eq!(nginx.access_log().len(), 1, "one line per handover, written once");
}

#[test]
fn worker_makes_no_system_call_for_clients_that_talk() {
    let backend = Backend::echo();
    // Attaching interrupts epoll_wait(), about which nginx would write a line at info.
    let nginx = Nginx::builder()
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .log_level("notice")
        .start();
    let mut clients: Vec<Client> =
        (0..100).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    nginx.wait_inactive();

    let trace = Strace::attach(nginx.worker());
    for round in 0..5 {
        for client in &mut clients {
            client.echo(&format!("round {round}"));
        }
    }
    for client in clients.drain(..50) {
        client.reset();
    }
    drop(clients);
    backend.wait_active(0);
    // The tracer works: this one is seen.
    nginx.stub_status();
    let lines = trace.detach();

    let accept = lines.iter().position(|line| line.contains("accept4("));
    let accept = accept.unwrap_or_else(|| panic!("the control was not seen: {lines:#?}"));
    let before = &lines[..accept];
    let stranger = before.iter().find(|line| !line.contains("epoll_wait"));
    assert_eq!(stranger, None, "of {before:#?}");
    assert!(before.len() <= 2, "woken by strangers' traffic: {before:#?}");
}

#[test]
fn worker_holds_nothing_while_clients_stay() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    drop(Client::upgraded(nginx.address(), "/ws"));
    nginx.wait_inactive();
    let before = proc::descriptors(nginx.worker());

    let mut clients: Vec<Client> =
        (0..200).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    nginx.wait_inactive();
    backend.wait_active(200);
    wait_until("the worker holds the descriptors that it held before", || {
        kinds(&proc::descriptors(nginx.worker())) == kinds(&before)
    });
    for client in &mut clients {
        client.echo("still here");
    }
}

#[test]
fn received_socket_is_the_clients_connection() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        let taken = peer.take_over();
        let remote = taken.stream.peer_addr().expect("connected");
        let mut stream = taken.stream;
        crate::support::frame::echo(
            &mut stream,
            &Frame::text(&format!("you are {remote}")).unmasked(),
        );
    });
    let nginx = site(&backend.address());
    let mut client = Client::connect_from(net::source(7), nginx.address());
    client.upgrade("/ws");
    let own = client.stream().local_addr().unwrap();
    assert_eq!(client.read_frame().payload, format!("you are {own}").as_bytes());
}

fn site(address: &str) -> Nginx {
    let location = format!("location /ws {{ ws_handoff {address}; }}");
    Nginx::builder().server(location).quiet().start()
}

/// What descriptors refer to, without the numbers of sockets, sorted.
fn kinds(descriptors: &[(u32, String)]) -> Vec<String> {
    let mut kinds: Vec<String> = descriptors
        .iter()
        .map(|(_, target)| match target.strip_prefix("socket:") {
            Some(_) => "socket".to_owned(),
            None => target.clone(),
        })
        .collect();
    kinds.sort();
    kinds
}
