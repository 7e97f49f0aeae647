//! What an access log can be told to write, and where to: of a client that is no longer nginx's when the line is
//! written, and of one that is tunnelled.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::fake::without_handoff;
use crate::support::frame::{BINARY, Frame, TEXT};
use crate::support::{Client, FakeBackend, Handshake, Nginx, net, wait_until};

#[test]
fn tunnel_is_logged_with_the_bytes_that_it_carried() {
    let plain = FakeBackend::unix(without_handoff);
    let nginx = site("$request_length $bytes_sent $body_bytes_sent $sent_http_connection", &plain);
    let handshake = Handshake::new("/ws").bytes();
    let mut client = Client::connect(nginx.address());
    client.send(&[handshake.as_slice(), &Frame::text("early").masked()].concat());
    let head = client.expect_101();
    let payload = vec![7; 100_000];
    client.expect_frame(TEXT, b"early");
    client.send_frame(&Frame::new(BINARY, payload.as_slice()));
    client.expect_frame(BINARY, &payload);
    drop(client);
    let carried =
        Frame::text("early").unmasked().len() + Frame::new(BINARY, payload).unmasked().len();
    let sent = head.raw.len() + carried;
    // The frames are not the request's.
    let line = format!("{} {sent} {carried} upgrade", handshake.len());
    logged(&nginx, "some.log", 0, &line);
}

#[test]
fn handover_is_logged_with_the_bytes_of_its_heads() {
    let backend = FakeBackend::echo();
    let format = "$request_length $bytes_sent $body_bytes_sent $sent_http_connection $tcpinfo_rtt";
    let nginx = site(format, &backend);
    let handshake = Handshake::new("/ws").bytes();
    let mut client = Client::connect(nginx.address());
    client.send(&[handshake.as_slice(), &Frame::text("early").masked()].concat());
    let head = client.expect_101();
    client.expect_frame(TEXT, b"early");
    // What only the client's socket could tell is nobody's to tell any more.
    let line = format!("{} {} 0 upgrade -", handshake.len(), head.raw.len());
    logged(&nginx, "some.log", 0, &line);
}

#[test]
fn addresses_of_both_ends() {
    // nginx asks the socket for its own address when somebody wants to know, if it listens on any: here when the
    // line is written, and the socket is the backend's.
    let (backend, plain) = (FakeBackend::echo(), FakeBackend::unix(without_handoff));
    let (any, any6) = (net::free_port(), net::free_port());
    let nginx = Nginx::builder()
        .http("log_format some '$remote_addr $remote_port $server_addr $server_port';")
        .server(format!(
            "listen {any}; listen [::]:{any6}; access_log some.log some; \
             location /ws {{ ws_handoff {}; }} location /plain {{ ws_handoff {}; }}",
            backend.address(),
            plain.address()
        ))
        .quiet()
        .start();
    let addresses: [SocketAddr; 3] =
        [nginx.address(), ([127, 0, 0, 1], any).into(), (Ipv6Addr::LOCALHOST, any6).into()];
    for (n, address) in addresses.into_iter().flat_map(|address| [address; 2]).enumerate() {
        let target = ["/ws", "/plain"][n % 2];
        let stream = TcpStream::connect(address).expect("connect");
        let own = stream.local_addr().expect("an address");
        let mut client = Client::over(stream);
        client.upgrade(target);
        client.echo("hello");
        drop(client);
        let line = format!("{} {} {} {}", own.ip(), own.port(), address.ip(), address.port());
        logged(&nginx, "some.log", n, &line);
    }
}

#[test]
fn pipelined_behind_a_page() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .http("log_format some '$uri $status $pipe $connection_requests $connection';")
        .server(format!(
            "access_log some.log some; location /page {{ return 204; }} \
             location /ws {{ ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let mut client = Client::connect(nginx.address());
    let page = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(&[page, Handshake::new("/ws").bytes().as_slice()].concat());
    assert_eq!(client.read_head().status(), 204);
    client.expect_101();
    client.echo("behind a page");
    // Frames behind a handshake are no pipeline.
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    client.expect_101();
    wait_until("three lines are logged", || lines(&nginx, "some.log").len() == 3);
    let logged = lines(&nginx, "some.log");
    let (facts, connections): (Vec<&str>, Vec<&str>) =
        logged.iter().map(|line| line.rsplit_once(' ').expect("a connection")).unzip();
    assert_eq!(facts, ["/page 204 . 1", "/ws 101 p 2", "/ws 101 . 1"]);
    assert!(connections[0] == connections[1] && connections[1] != connections[2], "{logged:?}");
}

#[test]
fn times_are_those_of_the_handover() {
    let backend = FakeBackend::echo();
    let nginx = site("$msec\t$time_iso8601\t$time_local\t$request_time", &backend);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let before = now();
    let mut client = Client::upgraded(nginx.address(), "/ws");
    wait_until("a line is logged", || lines(&nginx, "some.log").len() == 1);
    let after = now();
    client.echo("goes on");
    let line = lines(&nginx, "some.log").remove(0);
    let [msec, iso8601, local, took] = line.split('\t').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    let number = |text: &str| text.parse::<f64>().expect("a number");
    // nginx reads its clock once for all events that it is told together.
    let (msec, took) = (number(msec), number(took));
    assert!((before - 0.1..=after).contains(&msec), "{before} {msec} {after}");
    assert!(took <= after - before + 0.1, "{took}");
    let digits = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "0");
    assert_eq!(digits(iso8601).replace('-', "+"), "0000+00+00T00:00:00+00:00");
    let local = digits(local).replace('-', "+");
    let (day, rest) = local.split_once('/').expect("a month");
    let (month, rest) = rest.split_once('/').expect("a year");
    assert_eq!((day, month.len(), rest), ("00", 3, "0000:00:00:00 +0000"));
}

#[test]
fn logs_of_every_kind() {
    let backend = FakeBackend::echo();
    let address = backend.address();
    let nginx = Nginx::builder()
        .http(
            "log_format some '$uri $status $ws_handoff_result'; \
             log_format raw escape=none '$uri'; log_format json escape=json '$uri'; \
             log_format binary $binary_remote_addr;",
        )
        .server(format!(
            "location /combined {{ access_log combined.log; ws_handoff {address}; \
                 location /combined/off {{ access_log off; ws_handoff {address}; }} }} \
             location /if {{ access_log if.log some if=$arg_log; ws_handoff {address}; }} \
             location /buffer {{ access_log buffer.log some buffer=16k flush=100ms; ws_handoff {address}; }} \
             location /name {{ access_log name_$arg_name.log some; ws_handoff {address}; }} \
             location /several {{ access_log first.log some; access_log binary.log binary; \
                 ws_handoff {address}; }} \
             location /escape {{ access_log raw.log raw; access_log json.log json; \
                 ws_handoff {address}; }}"
        ))
        .quiet()
        .start();
    let mut clients: Vec<Client> = [
        "/combined",
        "/combined/off",
        "/if?log=0",
        "/if?log=",
        "/if/right?log=1",
        "/buffer",
        "/name?name=one",
        "/name?name=two",
        "/several",
        "/escape/%22%1B%22",
    ]
    .iter()
    .map(|target| Client::upgraded(nginx.address(), target))
    .collect();
    clients.iter_mut().for_each(|client| client.echo("hello"));
    nginx.wait_inactive();
    // All but the buffered one have been written by the time that the client was let go.
    let combined = lines(&nginx, "combined.log");
    assert!(combined.len() == 1 && combined[0].starts_with("127.0.0.1 - - ["), "{combined:?}");
    assert!(
        combined[0].ends_with("] \"GET /combined HTTP/1.1\" 101 0 \"-\" \"-\""),
        "{combined:?}"
    );
    for (name, line) in [
        ("if.log", "/if/right 101 fd"),
        ("name_one.log", "/name 101 fd"),
        ("name_two.log", "/name 101 fd"),
        ("first.log", "/several 101 fd"),
        ("binary.log", "\\x7F\\x00\\x00\\x01"),
        ("raw.log", "/escape/\"\u{1b}\""),
        ("json.log", "/escape/\\\"\\u001B\\\""),
        ("buffer.log", "/buffer 101 fd"),
    ] {
        logged(&nginx, name, 0, line);
        assert_eq!(lines(&nginx, name).len(), 1, "{name}");
    }
}

/// A location `/ws` whose log has this format.
fn site(format: &str, backend: &FakeBackend) -> Nginx {
    Nginx::builder()
        .http(format!("log_format some '{format}';"))
        .server(format!(
            "access_log some.log some; location /ws {{ ws_handoff {}; }}",
            backend.address()
        ))
        .quiet()
        .start()
}

/// Waits for the `n`th line of a log in nginx's directory, from 0, and insists on what it is.
fn logged(nginx: &Nginx, name: &str, n: usize, expected: &str) {
    wait_until(&format!("{name} has a line {n}"), || lines(nginx, name).len() > n);
    assert_eq!(lines(nginx, name)[n], expected, "{name}");
}

fn lines(nginx: &Nginx, name: &str) -> Vec<String> {
    let text = fs::read_to_string(nginx.dir().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
