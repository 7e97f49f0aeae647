//! One connection from nginx brings one client after the other.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use ws_handoff_backend::{AcceptError, Client, HandoffListener, OfferOptions, Options};

use crate::fake::nginx::{Nginx, commit, request, tcp_pair};
use crate::fake::program::{Program, wait_until};
use crate::fake::{PATIENCE, field, is_at_end, status};

const OFFERS: &str = "Handoff: fd; v=1\r\n";

fn bind(directory: &TempDir, offers: OfferOptions) -> HandoffListener {
    let options = Options { offers, ..Options::new(directory.path().join("socket")) };
    HandoffListener::bind(options).expect("bind")
}

/// Accepts as many clients as come, until retired.
fn serve(mut listener: HandoffListener) -> JoinHandle<Vec<Client>> {
    tokio::spawn(async move {
        let mut clients = Vec::new();
        loop {
            match listener.accept().await {
                Ok(offer) if offer.uri() == "/last" => {
                    clients.push(offer.accept().send().await.expect("a client"));
                    return clients;
                }
                Ok(offer) => clients.push(offer.accept().send().await.expect("a client")),
                Err(error) => panic!("{error}"),
            }
        }
    })
}

/// The second half of a hand-over, whose request has been sent; the client's far end.
fn take(nginx: &mut Nginx, early_data: &[u8]) -> TcpStream {
    let head = nginx.head();
    assert_eq!(field(&head, "Handoff"), Some("fd; keepalive"), "{head}");
    let (far, held) = tcp_pair();
    nginx.offer(&held);
    nginx.commit(early_data);
    far
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_brings_many_clients() {
    let directory = tempfile::tempdir().expect("directory");
    let listener = bind(&directory, OfferOptions::default());
    let serving = serve(listener);
    let path = directory.path().join("socket");
    let (mut nginx, far) = tokio::task::spawn_blocking(move || {
        let mut nginx = Nginx::offering(&path, "/0", "");
        let mut far = vec![take(&mut nginx, b"early")];
        for n in 1..20 {
            let target = if n == 19 { "/last".to_owned() } else { format!("/{n}") };
            nginx.send(request(&target, OFFERS).as_bytes());
            far.push(take(&mut nginx, b""));
        }
        (nginx, far)
    })
    .await
    .expect("no panic");
    let clients = serving.await.expect("no panic");
    assert_eq!(clients.len(), 20);
    for (n, (client, mut far)) in clients.into_iter().zip(far).enumerate() {
        let expected = if n == 19 { "/last".to_owned() } else { format!("/{n}") };
        assert_eq!(client.uri(), expected.as_str(), "each socket with its own request");
        let mut stream = client.into_stream();
        tokio::io::AsyncWriteExt::write_all(&mut stream, expected.as_bytes()).await.expect("write");
        let mut bytes = vec![0; expected.len()];
        far.read_exact(&mut bytes).expect("bytes");
        assert_eq!(bytes, expected.as_bytes());
    }
    assert!(is_at_end(&mut nginx.stream), "the listener is gone, and nothing waits any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_may_come_right_behind_the_commit() {
    let directory = tempfile::tempdir().expect("directory");
    let serving = serve(bind(&directory, OfferOptions::default()));
    let path = directory.path().join("socket");
    tokio::task::spawn_blocking(move || {
        let (_far, held) = tcp_pair();
        let mut nginx = Nginx::offering(&path, "/first", "");
        nginx.head();
        nginx.offer(&held);
        // In one piece, and then the rest: what was read with the commit must not be lost.
        let next = request("/last", OFFERS);
        let (begin, rest) = next.as_bytes().split_at(17);
        nginx.send(&[&commit(b""), begin].concat());
        nginx.send(rest);
        take(&mut nginx, b"")
    })
    .await
    .expect("no panic");
    let clients = serving.await.expect("no panic");
    let uris: Vec<_> = clients.iter().map(|client| client.uri().to_string()).collect();
    assert_eq!(uris, ["/first", "/last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_connections_are_closed_by_retiring_and_one_that_asks_is_answered() {
    let directory = tempfile::tempdir().expect("directory");
    let mut listener = bind(&directory, OfferOptions::default());
    let path = directory.path().join("socket");
    let nginx = tokio::task::spawn_blocking(move || {
        let mut waiting = Nginx::offering(&path, "/waiting", "");
        let far = take(&mut waiting, b"");
        (waiting, far)
    });
    let offer = listener.accept().await.expect("an offer");
    let _client = offer.accept().send().await.expect("a client");
    let (mut waiting, _far) = nginx.await.expect("no panic");
    listener.retire();
    let closed = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time");
    assert!(matches!(closed, Err(AcceptError::Closed)), "{closed:?}");
    let at_end = tokio::task::spawn_blocking(move || is_at_end(&mut waiting.stream)).await;
    assert!(at_end.expect("no panic"), "nginx is not left with a connection that nobody serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_a_connection_serves_once() {
    let directory = tempfile::tempdir().expect("directory");
    let mut listener = bind(&directory, OfferOptions { max_idle: 0, ..OfferOptions::default() });
    let path = directory.path().join("socket");
    let nginx = tokio::task::spawn_blocking(move || {
        let (_far, held) = tcp_pair();
        let mut nginx = Nginx::offering(&path, "/", "");
        assert_eq!(field(&nginx.head(), "Handoff"), Some("fd"));
        nginx.offer(&held);
        nginx.commit(b"");
        is_at_end(&mut nginx.stream)
    });
    let offer = listener.accept().await.expect("an offer");
    offer.accept().send().await.expect("a client");
    assert!(nginx.await.expect("no panic"));
}

#[test]
fn garbage_behind_a_commit_is_answered_and_costs_the_client_nothing() {
    let mut program = Program::start(&["--app", "echo"]);
    let (far, mut nginx) = handed_over(&program.socket());
    nginx.send(b"GARBAGE\r\n\r\n");
    assert_eq!(status(&nginx.head()), 400);
    nginx.rest();
    let mut far = crate::fake::client::Client { stream: far };
    far.text("still here");
    assert_eq!(far.receive_text(), "still here");
    assert!(!program.log().contains("panicked"));
    drop(far);
    wait_until("the client is gone", || program.metric("websocket_connections_active") == 0.0);
    program.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(program.status().success());
}

#[test]
fn connections_that_end_after_one_client_leave_nothing_behind() {
    let program = Program::start(&["--app", "echo"]);
    let before = program.descriptors();
    for _ in 0..500 {
        drop(handed_over(&program.socket()));
    }
    wait_until("all descriptors are closed", || program.descriptors() <= before);
}

fn handed_over(path: &Path) -> (TcpStream, Nginx) {
    let mut nginx = Nginx::offering(path, "/", "");
    let far = take(&mut nginx, b"");
    (far, nginx)
}
