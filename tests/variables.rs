//! Variables in `ws_handoff`: whom to hand over to may depend on the request, as with `proxy_pass`.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use crate::support::{Client, FakeBackend, Handshake, Nginx, fake};

#[test]
fn unix_socket_by_request() {
    let (red, blue) = (FakeBackend::echo(), FakeBackend::echo());
    let dir = tempfile::tempdir_in("/tmp").expect("a directory");
    for (name, backend) in [("red", &red), ("blue", &blue)] {
        let path = backend.address();
        let path = path.strip_prefix("unix:").expect("a Unix socket");
        std::os::unix::fs::symlink(path, dir.path().join(name)).expect("a link");
    }
    let nginx = Nginx::builder()
        .server(format!(
            "location ~ ^/ws/(?<room>[a-z]+)$ {{ ws_handoff unix:{}/$room; }}",
            dir.path().display()
        ))
        .tolerate(fake::ABSENT)
        .start();
    for (room, backend) in [("red", &red), ("blue", &blue)] {
        let mut client = Client::connect(nginx.address());
        client.upgrade(&format!("/ws/{room}"));
        client.echo(room);
        assert_eq!(backend.descriptors(), 1);
        let address = format!("unix:{}/{room}", dir.path().display());
        assert_eq!(nginx.logged(&format!("/ws/{room}")).get("upstream"), address);
    }
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws/green")).status(), 502);
}

#[test]
fn name_of_an_upstream() {
    let (first, second) =
        (FakeBackend::unix(|mut peer| drop(peer.read_head())), FakeBackend::echo());
    let nginx = site(
        &format!("upstream chat {{ server {}; server {}; }}", first.address(), second.address()),
        "ws_handoff $arg_to;",
    );
    // The whole family of an upstream's directives applies, the next peer among them.
    for _ in 0..3 {
        let mut client = Client::connect(nginx.address());
        client.upgrade("/ws?to=chat");
        client.echo("found");
    }
    assert_eq!(second.descriptors(), 3);
}

#[test]
fn tcp_address_is_tunnelled_to() {
    let backend = FakeBackend::tcp(fake::without_handoff);
    let nginx = site("", "ws_handoff $arg_to;");
    let mut client = Client::connect(nginx.address());
    client.upgrade(&format!("/ws?to={}", backend.address()));
    client.echo("through nginx");
}

#[test]
fn host_name_is_resolved() {
    let backend = FakeBackend::tcp(fake::without_handoff);
    let address = backend.address();
    let port = address.rsplit(':').next().expect("a port");
    let resolver = dns_server();
    let nginx = Nginx::builder()
        .http(format!("resolver {resolver} ipv6=off;"))
        .server(format!("location /ws {{ ws_handoff $arg_host:{port}; }}"))
        .start();
    let mut client = Client::connect(nginx.address());
    client.upgrade("/ws?host=chat.example");
    client.echo("resolved");
    drop(client);
    let absent = Handshake::new("/ws?host=absent.example");
    assert_eq!(Client::connect(nginx.address()).ask(&absent).status(), 502);
    assert!(nginx.error_log().contains("absent.example could not be resolved (3: Host not found)"));

    // A client that leaves while the name is being resolved.
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws?host=silent.example").bytes());
    nginx.wait_read(&client);
    drop(client);
    nginx.wait_inactive();
    assert_eq!(nginx.logged("silent.example").get("status"), "499");
}

/// A name server for which every name is 127.0.0.1, but that "absent" does not exist, and that it is silent about "silent".
fn dns_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut query) {
            let query = &query[..len];
            let asks = |name: &[u8]| query.windows(name.len()).any(|window| window == name);
            if asks(b"silent") {
                continue;
            }
            let mut answer = query.to_vec();
            let found = !asks(b"absent");
            // A response with recursion; NXDOMAIN is 3. One answer.
            answer[2..4].copy_from_slice(&[0x81, if found { 0x80 } else { 0x83 }]);
            answer[7] = u8::from(found);
            if found {
                // The question's name, an address of the Internet, for a minute, in four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&answer, client).expect("answer nginx");
        }
    });
    address
}

#[test]
fn blocks_inside_a_location_keep_it() {
    let backend = FakeBackend::echo();
    let address = backend.address();
    let nginx = Nginx::start(format!(
        "set $backend {address}; \
         location /if {{ ws_handoff $backend; if ($arg_a) {{ set $b 1; }} }} \
         location /limit {{ ws_handoff $backend; limit_except POST {{ allow all; }} }} \
         location /own {{ ws_handoff $backend; if ($arg_a) {{ ws_handoff $arg_absent; }} }}"
    ));
    for target in ["/if", "/if?a=1", "/limit", "/own"] {
        let mut client = Client::connect(nginx.address());
        client.upgrade(target);
        client.echo(target);
    }
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/own?a=1")).status(), 500);
}

#[test]
fn what_is_no_address_is_500_and_says_why() {
    let nginx = site("", "ws_handoff $arg_to;");
    for (to, status, complaint) in [
        ("", 500, "no host in upstream \"\""),
        ("unix:", 500, "no path in the unix domain socket in upstream \"unix:\""),
        ("127.0.0.1:0", 500, "invalid port in upstream \"127.0.0.1:0\""),
        ("unknown", 500, "no port in upstream \"unknown\""),
        ("127.0.0.1", 500, "no port in upstream \"127.0.0.1\""),
        ("unknown:80", 502, "no resolver defined to resolve unknown"),
        (
            "http://127.0.0.1:80",
            500,
            "a \"unix:\" path or the name of an upstream is expected, without a scheme, in \
             \"ws_handoff\", which is \"http://127.0.0.1:80\" here",
        ),
        (
            "unix:/run/a:/chat",
            500,
            "a URI is not allowed after the path of the socket in \"ws_handoff\", which is \
             \"unix:/run/a:/chat\" here",
        ),
        ("127.0.0.1:80/chat", 500, "invalid host in upstream \"127.0.0.1:80/chat\""),
    ] {
        let mut client = Client::connect(nginx.address());
        let head = client.ask(&Handshake::new(&format!("/ws?to={to}")));
        assert_eq!(head.status(), status, "{to}");
        let log = nginx.error_log();
        assert!(log.contains(&format!("{complaint}, client: ")), "{complaint}\n{log}");
    }
    let long = format!("unix:/{}", "a".repeat(200));
    let head = Client::connect(nginx.address()).ask(&Handshake::new(&format!("/ws?to={long}")));
    assert_eq!(head.status(), 500);
    assert!(nginx.error_log().contains("too long path in the unix domain socket in upstream"));
}

/// A server whose location `/ws` has these directives.
fn site(http: &str, directives: &str) -> Nginx {
    Nginx::builder().http(http).server(format!("location /ws {{ {directives} }}")).start()
}
