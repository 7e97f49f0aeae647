//! The services of `examples/`: one handler serves the clients that nginx hands over and those that connect directly,
//! with the same subprotocols, refusals and limits; nothing that came early is lost; and all are told of the end.

use std::io::Write;
use std::net::SocketAddr;

use crate::support::counting::counting;
use crate::support::frame::{BINARY, CLOSE, Frame, PING, PONG, TEXT};
use crate::support::head::Head;
use crate::support::{Client, Handshake, Nginx, Service, large, metrics, proc, python, wait_until};

const EXAMPLES: [&str; 2] = ["axum", "fastwebsockets"];

#[test]
fn independent_client_exchanges_text_and_binary_up_to_1_mib_either_way() {
    for name in EXAMPLES {
        let (service, nginx) = start(name);
        for address in [nginx.address(), service.address()] {
            let url = format!("ws://{address}/echo");
            let arguments = [&url, "--subprotocol", "chat", "--subprotocol", "echo"];
            assert_eq!(python::run("echo.py", &arguments).trim(), "echo", "{name} at {address}");
        }
        metrics::expect(&nginx, &["answers ws 1", "offers ws 1", "requests ws fd 1"]);
        assert_eq!(nginx.logged("GET /echo").get("upstream_status"), "101");
    }
}

#[test]
fn nginx_holds_nothing_of_a_client_that_talks() {
    for name in EXAMPLES {
        let (service, nginx) = start(name);
        let mut client = Client::upgraded(nginx.address(), "/echo");
        nginx.wait_inactive();
        client.echo_in_a_row();
        client.send_frame(&Frame::new(PING, "are you there"));
        client.expect_frame(PONG, b"are you there");
        client.send_frame(&Frame::new(CLOSE, 1000u16.to_be_bytes()));
        let answer = client.read_frame();
        assert_eq!((answer.opcode, &answer.payload[..2]), (CLOSE, [0x03, 0xE8].as_slice()));
        client.expect_end();
        drop(service);
    }
}

#[test]
fn subprotocol_is_chosen_among_those_offered() {
    for (name, offered, chosen) in [
        ("axum", "echo, echo.v2", Some("echo.v2")),
        ("axum", "chat, echo", Some("echo")),
        ("axum", "chat", None),
        ("fastwebsockets", "chat, echo", Some("echo")),
        ("fastwebsockets", "chat", None),
    ] {
        let (service, nginx) = start(name);
        for address in [nginx.address(), service.address()] {
            let request = Handshake::new("/echo").with("Sec-WebSocket-Protocol", offered);
            let mut client = Client::connect(address);
            client.send(&request.bytes());
            let head = client.expect_101();
            assert_eq!(head.field("Sec-WebSocket-Protocol"), chosen, "{name} at {address}");
            client.echo("agreed");
        }
    }
}

#[test]
fn refusal_of_the_service_is_the_same_either_way() {
    for name in EXAMPLES {
        let (service, nginx) = start(name);
        let [through_nginx, direct] = [nginx.address(), service.address()].map(|address| {
            let mut client = Client::connect(address);
            let head = client.ask(&Handshake::new("/private/echo"));
            let body = client.read_body(&head);
            assert_eq!(head.status(), 401, "{name} at {address}");
            assert_eq!(head.field("WWW-Authenticate"), Some("Bearer"));
            (head.field("Content-Type").map(str::to_owned), body)
        });
        assert_eq!(through_nginx, direct, "{name}");
        assert!(!direct.1.is_empty());
        for address in [nginx.address(), service.address()] {
            let head = Client::connect(address).ask(&Handshake::new("/nowhere"));
            assert_eq!(head.status(), 404, "{name} at {address}");
        }
        metrics::expect(
            &nginx,
            &["answers ws 2", "refusals ws 401 1", "refusals ws 404 1", "requests ws refused 2"],
        );

        for address in [nginx.address(), service.address()] {
            let request = Handshake::new("/private/echo").with("Authorization", "Bearer letmein");
            let mut client = Client::connect(address);
            client.send(&request.bytes());
            client.expect_101();
            client.echo("let in");
        }
    }
}

#[test]
fn what_middleware_adds_to_the_101_reaches_the_client() {
    let (service, nginx) = start("axum");
    for address in [nginx.address(), service.address()] {
        let request = Handshake::new("/private/echo").with("Authorization", "Bearer letmein");
        let mut client = Client::connect(address);
        client.send(&request.bytes());
        assert_eq!(client.expect_101().field("x-token"), Some("accepted"), "{address}");
    }
}

#[test]
fn rejections_of_a_direct_client_are_axums_own() {
    let service = Service::start("axum");
    let ask = |request: &Handshake| -> (Head, String) {
        let mut client = Client::connect(service.address());
        let head = client.ask(request);
        let body = String::from_utf8(client.read_body(&head)).expect("UTF-8");
        (head, body)
    };
    let right = Handshake::new("/echo");
    for (request, status, body) in [
        (right.clone().without("Upgrade"), 400, "`Upgrade` header did not include 'websocket'"),
        (right.clone().without("Connection"), 400, "Connection header did not include 'upgrade'"),
        (
            right.clone().set("Sec-WebSocket-Version", "8"),
            400,
            "`Sec-WebSocket-Version` header did not include '13'",
        ),
        (right.clone().without("Sec-WebSocket-Key"), 400, "`Sec-WebSocket-Key` header missing"),
        (right.clone().method("POST"), 405, "Request method must be `GET`"),
    ] {
        let (head, said) = ask(&request);
        assert_eq!((head.status(), said.as_str()), (status, body));
    }
}

#[test]
fn frames_behind_the_head_are_not_lost() {
    for name in EXAMPLES {
        let (service, nginx) = start(name);
        let payload: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0]).collect();
        let frames =
            [Frame::text("early").masked(), Frame::new(BINARY, payload.as_slice()).masked()];
        let bytes = [Handshake::new("/echo").bytes(), frames.concat()].concat();

        let mut handed_over = Client::connect(nginx.address());
        // So that nginx has read some of it, and the rest is in the socket.
        large::send_while_stopped(&nginx, &mut handed_over, &bytes);
        let mut direct = Client::connect(service.address());
        direct.send(&bytes);
        for client in [&mut handed_over, &mut direct] {
            client.expect_101();
            client.expect_frame(TEXT, b"early");
            client.expect_frame(BINARY, &payload);
            client.echo("late");
        }
        let early = metrics::value(&nginx, "early_data ws");
        assert!(early > 0, "{name}: nothing came early");
    }
}

#[test]
fn message_over_the_limit_ends_the_client() {
    for name in EXAMPLES {
        let (service, nginx) = start(name);
        for address in [nginx.address(), service.address()] {
            let mut client = Client::upgraded(address, "/echo");
            let most = vec![b'x'; (4 << 20) - 1];
            client.send_frame(&Frame::new(BINARY, most.as_slice()));
            client.expect_frame(BINARY, &most);
            let too_long = Frame::new(BINARY, vec![b'x'; (4 << 20) + 1]).masked();
            // Whoever hangs up at its head resets the connection.
            let _ = client.stream().write_all(&too_long);
            client.expect_end();
        }
    }
}

#[test]
fn room_has_members_that_came_either_way() {
    let (service, nginx) = start("axum");
    let mut handed_over = Client::upgraded(nginx.address(), "/rooms/blue");
    let mut direct = Client::upgraded(service.address(), "/rooms/blue");
    let mut elsewhere = Client::upgraded(nginx.address(), "/rooms/red");
    // A member once it hears itself: a 101 alone does not say so.
    for client in [&mut handed_over, &mut direct, &mut elsewhere] {
        hear_own(client);
    }
    direct.send_frame(&Frame::text("hello"));
    for client in [&mut handed_over, &mut direct] {
        while client.read_frame().payload != b"hello" {}
    }
    elsewhere.send_frame(&Frame::text("nobody?"));
    assert_eq!(elsewhere.read_frame().payload, b"nobody?");
}

#[test]
fn end_of_the_service_closes_everybody_with_1001() {
    for name in EXAMPLES {
        let (mut service, nginx) = start(name);
        let mut clients: Vec<Client> = [nginx.address(), service.address()]
            .into_iter()
            .cycle()
            .take(20)
            .map(talking)
            .collect();
        service.terminate();
        for client in &mut clients {
            let close = client.read_frame();
            assert_eq!(
                (close.opcode, &close.payload[..2]),
                (CLOSE, 1001u16.to_be_bytes().as_slice())
            );
            client.send_frame(&close);
            client.expect_end();
        }
        service.wait_end();
        assert!(!service.is_offering(), "{name} has left its socket behind");
        assert!(!service.log().contains("client"), "{name}: {}", service.log());
    }
}

#[test]
fn nothing_is_left_of_clients_that_have_gone() {
    for name in EXAMPLES {
        let (service, nginx) = start(name);
        drop(talking(nginx.address()));
        let settled = || proc::descriptors(service.pid()).len();
        wait_until("the first has gone", || settled() > 0);
        let before = settled();
        for round in 0..200 {
            let client = talking(nginx.address());
            if round % 2 == 0 { client.reset() } else { drop(client) }
        }
        wait_until("the service holds as many descriptors as before", || settled() <= before);
    }
}

#[test]
fn client_that_is_proxied_to_the_socket_has_the_same_handler() {
    // What becomes of a TLS client, whose socket cannot move, is the same: no descriptor follows.
    for name in EXAMPLES {
        let service = Service::start(name);
        let nginx = Nginx::start(format!(
            "location / {{ proxy_pass http://{}; proxy_http_version 1.1;
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
            service.unix_address()
        ));
        let mut client = Client::connect(nginx.address());
        client.send(&[Handshake::new("/echo").bytes(), Frame::text("early").masked()].concat());
        client.expect_101();
        client.expect_frame(TEXT, b"early");
        client.echo_in_a_row();
        drop(client);
    }
}

/// A service, and an nginx that hands its clients over to it.
fn start(name: &'static str) -> (Service, Nginx) {
    let service = Service::start(name);
    let nginx =
        counting(&service.unix_address()).server("location / { ws_handoff ws; }").quiet().start();
    (service, nginx)
}

fn talking(address: SocketAddr) -> Client {
    let mut client = Client::upgraded(address, "/echo");
    client.echo("hello");
    client
}

fn hear_own(client: &mut Client) {
    client.send_frame(&Frame::text("me"));
    client.expect_frame(TEXT, b"me");
}
