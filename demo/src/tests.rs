//! The HTTP interface, and its clients at a WebSocket server that counts them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, upgrade};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api;
use crate::cli::ListenAddress;
use crate::clients::Clients;
use crate::listen::Listener;
use crate::memory::Nginx;

#[tokio::test]
async fn clients_open_up_to_the_count_and_close_all_together() {
    let server = Server::start().await;
    let demo = Demo::start(&server.address).await;

    let (status, state) = demo.post("/demo/clients?way=ws_handoff&count=120").await;
    assert_eq!((status, &state["clients"]), (StatusCode::OK, &open(120, 0)));
    let (_, state) = demo.post("/demo/clients?way=ws_handoff&count=120").await;
    assert_eq!(state["clients"], open(120, 0), "there are as many already");
    let (_, state) = demo.post("/demo/clients?way=ws_handoff&count=130").await;
    assert_eq!(state["clients"], open(130, 0));
    server.wait_for("130 clients that answered a ping", |seen| seen.here == 130).await;

    let (status, state) = demo.send(Method::DELETE, "/demo/clients", true).await;
    assert_eq!((status, &state["clients"]), (StatusCode::OK, &open(0, 0)));
    server.wait_for("130 closing handshakes", |seen| seen.closed_with_1000 == 130).await;
    let (_, state) = demo.post("/demo/clients?way=ws_handoff&count=1").await;
    assert_eq!(state["clients"], open(1, 0), "and it can begin again");
}

#[tokio::test]
async fn a_client_that_the_server_closes_is_not_counted() {
    let server = Server::start().await;
    let demo = Demo::start(&server.address).await;
    demo.post("/demo/clients?way=ws_handoff&count=3").await;
    server.wait_for("3 clients", |seen| seen.here == 3).await;

    server.hang_up.send_replace(());
    timeout(DEADLINE, async {
        while demo.get("/demo/state").await.1["clients"] != open(0, 0) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the count falls");
}

#[tokio::test]
async fn a_failure_is_told_with_what_is_open() {
    let server = Server::start().await;
    let demo = Demo::start(&server.address).await;
    demo.post("/demo/clients?way=ws_handoff&count=2").await;

    let (status, state) = demo.post("/demo/clients?way=proxy_pass&count=5").await;
    assert_eq!((status, &state["clients"]), (StatusCode::BAD_GATEWAY, &open(2, 0)));
    let error = state["error"].as_str().expect("a message");
    assert!(error.contains("/proxy/echo with status 503"), "{error}");
    assert!(error.contains("2 handed over, 0 proxied"), "{error}");

    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = nobody.local_addr().expect("address").to_string();
    drop(nobody);
    let (status, state) =
        Demo::start(&address).await.post("/demo/clients?way=ws_handoff&count=1").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let error = state["error"].as_str().expect("a message");
    assert!(error.contains(&format!("connecting to {address}")), "{error}");
}

#[tokio::test]
async fn a_request_that_is_wrong_changes_nothing() {
    let server = Server::start().await;
    let demo = Demo::start(&server.address).await;
    let clients = "/demo/clients?way=ws_handoff&count=1";
    for (method, uri, from_the_page, expected) in [
        (Method::POST, clients, false, StatusCode::FORBIDDEN),
        (Method::DELETE, "/demo/clients", false, StatusCode::FORBIDDEN),
        (Method::POST, "/demo/clients?way=ws_handoff&count=501", true, StatusCode::BAD_REQUEST),
        (Method::POST, "/demo/clients", true, StatusCode::BAD_REQUEST),
        (Method::GET, clients, true, StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/demo/state", true, StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/", true, StatusCode::NOT_FOUND),
    ] {
        let (status, answer) = demo.send(method.clone(), uri, from_the_page).await;
        assert_eq!(status, expected, "{method} {uri}");
        assert!(answer["error"].is_string(), "{method} {uri}: {answer}");
    }
    assert_eq!(demo.get("/demo/healthz").await.0, StatusCode::OK);
    let (status, state) = demo.get("/demo/state").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(state, json!({"nginx": null, "clients": open(0, 0)}));
}

const DEADLINE: Duration = Duration::from_secs(20);

fn open(ws_handoff: usize, proxy_pass: usize) -> Value {
    json!({"ws_handoff": ws_handoff, "proxy_pass": proxy_pass})
}

/// The program, on a Unix socket of its own. There is no nginx: its pid file does not exist.
struct Demo {
    directory: tempfile::TempDir,
}

impl Demo {
    async fn start(target: &str) -> Demo {
        let directory = tempfile::tempdir().expect("a directory");
        let address = ListenAddress::Unix(directory.path().join("demo.sock"));
        let listener = Listener::bind(&address).expect("binds");
        let demo = Arc::new(api::Demo {
            clients: Arc::new(Clients::new(target.to_owned())),
            nginx: Nginx::new(directory.path().join("nginx.pid")),
        });
        tokio::spawn(async move { api::serve(&listener, demo).await });
        Demo { directory }
    }

    async fn get(&self, uri: &str) -> (StatusCode, Value) {
        self.send(Method::GET, uri, false).await
    }

    async fn post(&self, uri: &str) -> (StatusCode, Value) {
        self.send(Method::POST, uri, true).await
    }

    async fn send(&self, method: Method, uri: &str, from_the_page: bool) -> (StatusCode, Value) {
        let path = self.directory.path().join("demo.sock");
        let stream = tokio::net::UnixStream::connect(path).await.expect("connects");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("starts");
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(uri).header("host", "demo");
        if from_the_page {
            request = request.header("x-demo", "1");
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        timeout(DEADLINE, async {
            let response = sender.send_request(request).await.expect("an answer");
            let status = response.status();
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            (status, serde_json::from_slice(&body).expect("JSON"))
        })
        .await
        .expect("an answer in time")
    }
}

/// A WebSocket server at /ws/echo, which refuses everything else with 503.
struct Server {
    address: String,
    seen: watch::Sender<Seen>,
    hang_up: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Clients that answered a ping.
    here: usize,
    closed_with_1000: usize,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address").to_string();
        let server =
            Server { address, seen: watch::Sender::default(), hang_up: watch::Sender::default() };
        let (seen, hang_up) = (server.seen.clone(), server.hang_up.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, seen.clone(), hang_up.clone()));
            }
        });
        server
    }

    async fn wait_for(&self, what: &str, reached: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let result = timeout(DEADLINE, seen.wait_for(|seen| reached(seen))).await;
        assert!(result.is_ok(), "{what}: {:?}", self.seen.borrow());
    }
}

async fn connection(stream: TcpStream, seen: watch::Sender<Seen>, hang_up: watch::Sender<()>) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let (seen, hang_up) = (seen.clone(), hang_up.clone());
        async move {
            if request.uri().path() != "/ws/echo" {
                let mut response = Response::new(Empty::new());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(response);
            }
            let (response, upgraded) = upgrade::upgrade(&mut request)?;
            tokio::spawn(conversation(upgraded, seen, hang_up));
            Ok::<_, fastwebsockets::WebSocketError>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn conversation(
    upgraded: upgrade::UpgradeFut,
    seen: watch::Sender<Seen>,
    hang_up: watch::Sender<()>,
) {
    let mut hang_up = hang_up.subscribe();
    let mut client = upgraded.await.expect("upgrades");
    let ping = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"here?"));
    client.write_frame(ping).await.expect("pings");
    let conversation = async {
        while let Ok(frame) = client.read_frame().await {
            match frame.opcode {
                OpCode::Pong if *frame.payload == *b"here?" => seen.send_modify(|s| s.here += 1),
                OpCode::Close if frame.payload.starts_with(&1000_u16.to_be_bytes()) => {
                    seen.send_modify(|s| s.closed_with_1000 += 1);
                }
                _ => (),
            }
        }
    };
    tokio::select! {
        () = conversation => (),
        _ = hang_up.changed() => (),
    }
}
