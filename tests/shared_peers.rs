//! An upstream that `proxy_pass` uses as well, with connections kept for later requests (`keepalive`, the default from
//! 1.29.7 on): one that ordinary requests have left there may carry a handover, and one to a backend that does not stay
//! leaves none.

use crate::support::frame::{Frame, TEXT};
use crate::support::{Client, Handshake, ManualBackend, Nginx};

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";

#[test]
fn handover_on_a_connection_that_served_pages() {
    let (backend, nginx) = site("keepalive 4;");
    let mut client = Client::connect(nginx.address());
    let mut peer = served_page(&backend, &mut client);

    let early = Frame::text("early").masked();
    client.send(&[Handshake::new("/ws").bytes(), early.clone()].concat());
    let head = peer.read_head();
    assert_eq!(head.field("Handoff"), Some("fd; v=1"));
    let taken = peer.take_over();
    client.expect_101();
    assert_eq!(taken.early_data, early);
    assert!(backend.try_accept().is_none(), "a connection beside the one that was kept");
    nginx.wait_inactive();
}

#[test]
fn kept_connection_that_is_closed_upon_the_handshake_costs_nothing() {
    // A backend closes what was idle for long, while the request is on its way: nobody's failure.
    let (backend, nginx) = site("keepalive 4;");
    let mut client = Client::connect(nginx.address());
    let mut peer = served_page(&backend, &mut client);

    client.send(&[Handshake::new("/ws").bytes(), Frame::text("early").masked()].concat());
    peer.read_head();
    drop(peer);
    let mut peer = backend.accept();
    peer.read_head();
    let taken = peer.take_over();
    client.expect_101();
    let mut early = taken.early_data.as_slice();
    assert_eq!(Frame::read(&mut early).expect("a frame"), Frame::new(TEXT, "early"));
}

#[test]
fn nothing_is_kept_of_a_handover_a_refusal_or_a_tunnel() {
    for keepalive in ["", "keepalive 4;"] {
        let (backend, nginx) = site(keepalive);
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(nginx.address())).collect();

        clients[0].send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        // Insists on end of file behind the commit.
        let _taken = peer.take_over();
        clients[0].expect_101();

        clients[1].send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        peer.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno!\n");
        let head = clients[1].read_head();
        assert_eq!((head.status(), clients[1].read_body(&head)), (403, b"no!\n".to_vec()));
        assert!(peer.recv_to_end().is_empty());

        clients[2].send(&Handshake::new("/ws").bytes());
        let mut peer = backend.accept();
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        clients[2].expect_101();
        drop(clients);
        assert!(peer.recv_to_end().is_empty());
    }
}

/// A backend that serves pages to `proxy_pass` and takes clients of `ws_handoff`.
fn site(keepalive: &str) -> (ManualBackend, Nginx) {
    let backend = ManualBackend::unix();
    let nginx = Nginx::builder()
        .http(format!("upstream peers {{ server {}; {keepalive} }}", backend.address()))
        .server(
            "location /page { proxy_http_version 1.1; proxy_set_header Connection ''; \
                 proxy_pass http://peers; } \
             location /ws { ws_handoff peers; }",
        )
        .start();
    (backend, nginx)
}

/// The connection that nginx keeps after a page.
fn served_page(backend: &ManualBackend, client: &mut Client) -> crate::support::Peer {
    client.send(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut peer = backend.accept();
    peer.read_head();
    peer.write(PAGE);
    let head = client.read_head();
    assert_eq!(client.read_body(&head), b"page");
    peer
}
