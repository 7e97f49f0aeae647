//! What runs before the location and beside it: limit_req, access, subrequests, mirrors, `try_files`, `if`.

use std::time::{Duration, Instant};

use crate::support::frame::{Frame, TEXT};
use crate::support::{Client, FakeBackend, Handshake, ManualBackend, Nginx};

#[test]
fn limit_req_delays_and_refuses() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .http("limit_req_zone $binary_remote_addr zone=address:1m rate=2r/s;")
        .server(format!(
            "location /ws {{ limit_req zone=address burst=1; ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let early = Frame::text("early").masked();
    let handshake = [Handshake::new("/ws").bytes(), early].concat();
    let started = Instant::now();
    let mut clients = [(); 3].map(|()| Client::connect(nginx.address()));
    let [first, second, third] = &mut clients;
    for (client, bytes) in [
        (&mut *first, &handshake),
        (&mut *second, &handshake),
        (&mut *third, &Handshake::new("/ws").bytes()),
    ] {
        client.send(bytes);
        nginx.wait_read(client);
    }
    first.expect_101();
    // It has room in the burst, and sends frames while it waits.
    second.send_frame(&Frame::text("while it waits"));
    let head = third.read_head();
    assert_eq!(head.status(), 503);
    third.read_body(&head);
    second.expect_101();
    assert!(started.elapsed() > Duration::from_millis(300), "there was no delay");
    second.expect_frame(TEXT, b"early");
    second.expect_frame(TEXT, b"while it waits");
    second.echo("later");
    assert_eq!(backend.descriptors(), 2);
    drop(clients);
    nginx.wait_inactive();
}

#[test]
fn delayed_client_may_leave() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .http("limit_req_zone $binary_remote_addr zone=address:1m rate=2r/s;")
        .server(format!(
            "location /ws {{ limit_req zone=address burst=1; ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let mut first = Client::upgraded(nginx.address(), "/ws");
    let mut second = Client::connect(nginx.address());
    second.send(&Handshake::new("/ws").bytes());
    nginx.wait_read(&second);
    drop(second);
    nginx.wait_inactive();
    first.echo("not concerned");
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn access_is_decided_before_a_backend_is_asked() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::start(format!(
        "location /ws {{ deny all; ws_handoff {0}; }} \
         location /any {{ satisfy any; deny all; auth_request /yes; ws_handoff {0}; }} \
         location = /yes {{ internal; return 204; }}",
        backend.address()
    ));
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws"));
    assert_eq!((head.status(), backend.accepted()), (403, 0));
    Client::upgraded(nginx.address(), "/any").echo("allowed");
}

#[test]
fn auth_request_that_is_slow_holds_frames_back() {
    let (backend, judge) = (FakeBackend::echo(), ManualBackend::unix());
    let nginx = Nginx::start(format!(
        "location /ws {{ auth_request /auth; ws_handoff {}; }} \
         location = /auth {{ internal; proxy_pass http://{}:; }}",
        backend.address(),
        judge.address()
    ));
    let mut client = Client::connect(nginx.address());
    let early = Frame::text("early").masked();
    client.send(&[Handshake::new("/ws").bytes(), early].concat());
    let mut peer = judge.accept();
    peer.read_head();
    client.send_frame(&Frame::text("later"));
    nginx.wait_read(&client);
    assert_eq!(backend.accepted(), 0);
    peer.write("HTTP/1.1 204 No Content\r\n\r\n");
    drop(peer);
    client.expect_101();
    client.expect_frame(TEXT, b"early");
    client.expect_frame(TEXT, b"later");
    client.echo("authorized");
    nginx.wait_inactive();
}

#[test]
fn mirror_cannot_be_handed_over_but_the_original_is() {
    let (backend, copy) = (FakeBackend::echo(), FakeBackend::echo());
    let nginx = Nginx::start(format!(
        "location /ws {{ mirror /copy; ws_handoff {}; }} \
         location /copy {{ ws_handoff {}; }}",
        backend.address(),
        copy.address()
    ));
    let mut client = Client::connect(nginx.address());
    let early = Frame::text("early").masked();
    client.send(&[Handshake::new("/ws").bytes(), early].concat());
    client.expect_101();
    client.expect_frame(TEXT, b"early");
    client.echo("mirrored");
    nginx.wait_inactive();
    assert_eq!((backend.descriptors(), copy.accepted()), (1, 0));
    assert!(nginx.error_log().contains("\"ws_handoff\" cannot serve a subrequest"));
}

#[test]
fn mirror_that_is_never_answered_does_not_hold_the_client() {
    let (backend, copy) = (FakeBackend::echo(), ManualBackend::unix());
    let nginx = Nginx::start(format!(
        "location /ws {{ mirror /copy; ws_handoff {}; }} \
         location /copy {{ proxy_pass http://{}:; }}",
        backend.address(),
        copy.address()
    ));
    let mut clients: Vec<Client> =
        (0..5).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    let peers: Vec<_> = clients.iter().map(|_| copy.accept()).collect();
    clients.iter_mut().for_each(|client| client.echo("while the copy waits"));
    // nginx is not done with the requests, and holds nothing of the clients.
    let mut gone = clients.pop().expect("a client");
    gone.finish_sending();
    assert!(gone.expect_end().0.is_empty());
    drop(peers);
    nginx.wait_inactive();
    clients.iter_mut().for_each(|client| client.echo("after it"));
}

#[test]
fn subrequest_of_a_page_fails_alone() {
    let backend = FakeBackend::echo();
    let page = "before <!--# include virtual=\"/ws\" --> after";
    let nginx = Nginx::builder()
        .file("files/page.html", page)
        .server(format!(
            "location /page.html {{ ssi on; }} location /ws {{ ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let mut client = Client::connect(nginx.address());
    let head = client.ask(&Handshake::new("/page.html"));
    assert_eq!(head.status(), 200);
    let body = String::from_utf8(client.read_body(&head)).expect("text");
    assert!(body.starts_with("before ") && body.ends_with(" after"), "{body}");
    assert_eq!(backend.accepted(), 0);
    // The connection is none the worse for it.
    client.upgrade("/ws");
    client.echo("now itself");
}

#[test]
fn try_files_falls_through() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::builder()
        .file("files/chat/page.html", "a page")
        .server(format!(
            "location /chat/ {{ try_files $uri /rooms/any?from=$uri; }} \
             location /rooms/ {{ ws_handoff {}; }}",
            backend.address()
        ))
        .start();
    let mut client = Client::connect(nginx.address());
    let (_, body) = client.get("/chat/page.html");
    assert_eq!(body, b"a page");
    client.upgrade("/chat/seven");
    client.echo("fell through");
    assert_eq!(backend.only_head().target(), "/rooms/any?from=/chat/seven");
}

#[test]
fn if_chooses_who_serves() {
    let (backend, other) = (FakeBackend::echo(), FakeBackend::echo());
    let nginx = Nginx::start(format!(
        "location /ws {{ \
             if ($arg_room = seven) {{ ws_handoff {}; }} \
             if ($http_upgrade = '') {{ return 200 'a page'; }} \
             ws_handoff {}; }}",
        other.address(),
        backend.address()
    ));
    let (head, body) = Client::connect(nginx.address()).get("/ws");
    assert_eq!((head.status(), body.as_slice()), (200, b"a page".as_slice()));
    Client::upgraded(nginx.address(), "/ws?room=one").echo("one");
    Client::upgraded(nginx.address(), "/ws?room=seven").echo("seven");
    assert_eq!(backend.only_head().target(), "/ws?room=one");
    assert_eq!(other.only_head().target(), "/ws?room=seven");
}

#[test]
fn internal_location_is_not_reached_from_outside() {
    let backend = FakeBackend::echo();
    let nginx = Nginx::start(format!(
        "location /outside {{ rewrite ^ /inside last; }} \
         location /inside {{ internal; ws_handoff {}; }}",
        backend.address()
    ));
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/inside"));
    assert_eq!((head.status(), backend.accepted()), (404, 0));
    Client::upgraded(nginx.address(), "/outside").echo("inside");
}
