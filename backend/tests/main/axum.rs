//! An axum router answers offers: what its handlers see of them, and what their responses become.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::ws::Message;
use ::axum::extract::{ConnectInfo, Extension, Path, Request};
use ::axum::http::{HeaderMap, StatusCode, header};
use ::axum::middleware::{self, Next};
use ::axum::response::{IntoResponse, Response};
use ::axum::routing::{any, get};
use bytes::Bytes;
use futures_util::stream;
use nix::unistd::{getpid, getuid};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ws_handoff_backend::axum::{HandoffUpgrade, WebSocket, serve};
use ws_handoff_backend::{HandoffListener, Options, PeerCredentials, Source};

use crate::fake::client::{Client, FIN, TEXT, frame};
use crate::fake::nginx::{Nginx, tcp_pair};
use crate::fake::{PATIENCE, field, is_at_end, status};

struct Served {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<std::io::Result<()>>,
    _directory: TempDir,
}

impl Served {
    fn by(app: Router) -> Served {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("socket");
        let listener = HandoffListener::bind(Options::new(&path)).expect("bind");
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let ended = tokio::spawn(serving.into_future());
        Served { path, stop: Some(stop), ended, _directory: directory }
    }

    /// The answer to an offer that is no 101: head and body.
    fn refusal(&self, target: &str, fields: &str) -> (String, Vec<u8>) {
        let mut nginx = Nginx::offering(&self.path, target, fields);
        (nginx.head(), nginx.rest())
    }
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await.expect("sent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_what_nginx_said_and_who_it_is() {
    async fn tell(
        ConnectInfo(address): ConnectInfo<SocketAddr>,
        Extension(peer): Extension<PeerCredentials>,
        Path(name): Path<String>,
        headers: HeaderMap,
        upgrade: HandoffUpgrade,
    ) -> Response {
        assert!(upgrade.is_offered());
        assert_eq!(address, "192.0.2.7:0".parse().expect("address"));
        assert_eq!((peer.uid, peer.pid), (getuid().as_raw(), Some(getpid().as_raw())));
        assert_eq!(name, "blue");
        assert_eq!(headers["host"], "example.org");
        assert!(!headers.contains_key("handoff"));
        let requested: Vec<_> = upgrade.requested_protocols().cloned().collect();
        assert_eq!(requested, ["b", "a"]);
        let upgrade = upgrade.protocols(["nothing", "a", "b"]);
        assert_eq!(upgrade.selected_protocol().expect("chosen"), "a");
        upgrade.on_upgrade(|socket| async move {
            assert_eq!(socket.protocol().expect("chosen"), "a");
            assert_eq!(socket.source(), Source::Handoff);
            echo(socket).await;
        })
    }
    let served = Served::by(Router::new().route("/rooms/{name}", any(tell)));
    let (mut client, held) = tcp_pair();
    let fields = "X-Real-IP: 192.0.2.7\r\nSec-WebSocket-Protocol: b, a\r\n";
    let mut nginx = Nginx::offering(&served.path, "/rooms/blue?x=1", fields);
    let head = nginx.head();
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(field(&head, "Handoff").map(|value| value.starts_with("fd")), Some(true));
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("a"));
    nginx.offer(&held);
    nginx.commit(&frame(FIN | TEXT, b"early")[..4]);
    client.write_all(&frame(FIN | TEXT, b"early")[4..]).expect("write");
    let mut client = Client { stream: client };
    assert_eq!(client.receive_text(), "early");
    client.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnelled_client_has_the_same_handler() {
    async fn upgrade(upgrade: HandoffUpgrade) -> Response {
        upgrade.on_upgrade(|socket| async move {
            assert_eq!(socket.source(), Source::Tunnel);
            echo(socket).await;
        })
    }
    let served = Served::by(Router::new().route("/", any(upgrade)));
    let mut client = Client::tunnelled(&served.path, "/");
    client.text("through nginx");
    assert_eq!(client.receive_text(), "through nginx");
    client.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_response_is_the_refusal() {
    let forbidden = || async {
        let fields = [(header::SET_COOKIE, "a=1"), (header::CONNECTION, "keep-alive")];
        (StatusCode::FORBIDDEN, fields, "not you\n")
    };
    let streamed = || async {
        let parts = ["in ", "parts\n"].map(|part| Ok::<_, Infallible>(Bytes::from(part)));
        Body::from_stream(stream::iter(parts))
    };
    let app = Router::new().route("/forbidden", get(forbidden)).route("/streamed", get(streamed));
    let served = Served::by(app);

    let (head, body) = served.refusal("/forbidden", "");
    assert_eq!((status(&head), body.as_slice()), (403, b"not you\n".as_slice()));
    assert_eq!(field(&head, "Set-Cookie"), Some("a=1"));
    assert_eq!(field(&head, "Connection"), Some("close"));
    assert_eq!(field(&head, "Content-Length"), Some("8"));

    let (head, body) = served.refusal("/streamed", "");
    assert_eq!((status(&head), body.as_slice()), (200, b"in parts\n".as_slice()));
    assert_eq!(field(&head, "Content-Length"), Some("9"));

    assert_eq!(status(&served.refusal("/nowhere", "").0), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_is_a_500() {
    let app = Router::new()
        .route(
            "/panics",
            any(|| async { panic!("a handler's panic, as the test wants it") as Response }),
        )
        .route("/handmade", any(|| async { StatusCode::SWITCHING_PROTOCOLS }))
        .route("/large", any(|| async { vec![b'x'; (1 << 20) + 1] }))
        .route("/right", any(|| async { vec![b'x'; 1 << 20] }));
    let served = Served::by(app);
    for target in ["/panics", "/handmade", "/large"] {
        assert_eq!(status(&served.refusal(target, "").0), 500, "{target}");
    }
    let (head, body) = served.refusal("/right", "");
    assert_eq!((status(&head), body.len()), (200, 1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_replaces_the_101_refuses() {
    async fn overrule(request: Request, next: Next) -> Response {
        assert_eq!(next.run(request).await.status(), StatusCode::SWITCHING_PROTOCOLS);
        (StatusCode::TOO_MANY_REQUESTS, "later\n").into_response()
    }
    let upgrade = |upgrade: HandoffUpgrade| async { upgrade.on_upgrade(echo) };
    let app = Router::new().route("/", any(upgrade)).layer(middleware::from_fn(overrule));
    let (head, body) = Served::by(app).refusal("/", "");
    assert_eq!((status(&head), body.as_slice()), (429, b"later\n".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_client_is_told_that_it_does_not_come() {
    let (failed, mut failures) = mpsc::unbounded_channel();
    let upgrade = move |upgrade: HandoffUpgrade| async move {
        upgrade
            .on_failed_upgrade(move |error: ::axum::Error| {
                failed.send(error.to_string()).expect("listens")
            })
            .on_upgrade(|_| async { panic!("there is no client") })
    };
    let served = Served::by(Router::new().route("/", any(upgrade)));
    let mut nginx = Nginx::offering(&served.path, "/", "");
    assert_eq!(status(&nginx.head()), 101);
    drop(nginx);
    let error = timeout(PATIENCE, failures.recv()).await.expect("in time").expect("an error");
    assert!(error.contains("closed before it sent the descriptor"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_an_offered_client() {
    let upgrade = |upgrade: HandoffUpgrade| async {
        upgrade.max_message_size(100).read_buffer_size(4096).on_upgrade(echo)
    };
    let served = Served::by(Router::new().route("/", any(upgrade)));
    let mut client = Client::handed_over(&served.path, "/", b"");
    client.text(&"x".repeat(100));
    assert_eq!(client.receive_text().len(), 100);
    client.text(&"x".repeat(101));
    assert!(is_at_end(&mut client.stream));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_upgrade_leaves_ordinary_requests_alone() {
    async fn either(upgrade: Option<HandoffUpgrade>) -> Response {
        match upgrade {
            Some(upgrade) => upgrade.on_upgrade(echo),
            None => "a page\n".into_response(),
        }
    }
    let app = Router::new().route("/", any(either));
    let served = Served::by(app.clone());
    let mut client = Client::handed_over(&served.path, "/", b"");
    client.text("a WebSocket");
    assert_eq!(client.receive_text(), "a WebSocket");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(::axum::serve(listener, app).into_future());
    let mut direct = Client::connect(address, "/");
    direct.text("directly");
    assert_eq!(direct.receive_text(), "directly");
    let mut page = std::net::TcpStream::connect(address).expect("connect");
    page.set_read_timeout(Some(PATIENCE)).expect("timeout");
    page.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("write");
    let mut text = String::new();
    page.read_to_string(&mut text).expect("read");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("a page\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_before_the_end_is_answered() {
    let (entered, mut handlers) = mpsc::unbounded_channel();
    let slow = move |upgrade: HandoffUpgrade| {
        let (release, released) = oneshot::channel::<()>();
        entered.send(release).expect("listens");
        async {
            released.await.expect("released");
            upgrade.on_upgrade(echo)
        }
    };
    let mut served = Served::by(Router::new().route("/", any(slow)));
    let mut nginx = Nginx::offering(&served.path, "/", "");
    let release = timeout(PATIENCE, handlers.recv()).await.expect("in time").expect("a handler");
    drop(served.stop.take());
    // Gone: nginx takes the next peer from here on.
    while served.path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!served.ended.is_finished(), "an offer is in hand");
    release.send(()).expect("waits");
    assert_eq!(status(&nginx.head()), 101);
    let (client, held) = tcp_pair();
    nginx.offer(&held);
    nginx.commit(b"");
    timeout(PATIENCE, served.ended).await.expect("in time").expect("no panic").expect("served");
    // Whom it has accepted is served on.
    let mut client = Client { stream: client };
    client.text("still here");
    assert_eq!(client.receive_text(), "still here");
    client.close();
}
