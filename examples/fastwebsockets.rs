//! A service on hyper and fastwebsockets whose clients come both ways: handed over by nginx, and directly.
//!
//! ```sh
//! cargo run --release -p ws-handoff-examples --example fastwebsockets -- /tmp/echo.sock 127.0.0.1:3000
//! ```
//!
//! with `location / { ws_handoff unix:/tmp/echo.sock; }` in nginx. A third argument is the socket's group: one that nginx's
//! workers are in.
//!
//! `/echo` sends back what it gets, in the subprotocol `echo` if the client offers it; `/private/echo` does so for who sends
//! `Authorization: Bearer letmein`, and answers 401 to others.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use fastwebsockets::{FragmentCollector, Frame, OpCode, WebSocket, WebSocketError, upgrade};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE};
use hyper::http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use ws_handoff_backend::{AcceptError, HandoffListener, Offer, Options};

/// Changes when the service is to end. Whoever holds one is waited for.
type Stopping = watch::Receiver<()>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (socket, address, group) = match arguments.as_slice() {
        [socket, address] => (socket, address, None),
        [socket, address, group] => (socket, address, Some(group.as_str())),
        _ => {
            eprintln!("usage: fastwebsockets SOCKET ADDRESS:PORT [GROUP]");
            return ExitCode::FAILURE;
        }
    };
    match run(socket, address, group).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fastwebsockets: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(socket: &str, address: &str, group: Option<&str>) -> Result<(), Box<dyn Error>> {
    let (stop, stopping) = watch::channel(());
    // Before anything can be connected to: from here on a signal ends it in order.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let direct = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let options = Options { group: group.map(Into::into), ..Options::new(socket) };
    let handed_over = HandoffListener::bind(options)?;

    tokio::spawn(take_offers(handed_over, stopping.clone()));
    tokio::spawn(take_connections(direct, stopping));
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    let _ = stop.send(());
    // The clients are told; not for ever.
    let _ = timeout(Duration::from_secs(10), stop.closed()).await;
    Ok(())
}

/// nginx's offers.
async fn take_offers(mut listener: HandoffListener, stopping: Stopping) {
    let mut stop = stopping.clone();
    let mut retired = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed(), if !retired => {
                // What was offered before is still answered.
                listener.retire();
                retired = true;
                continue;
            }
        };
        match accepted {
            Ok(offer) => drop(tokio::spawn(take_offer(offer, stopping.clone()))),
            Err(AcceptError::Closed) => return,
            Err(error) => eprintln!("no offer: {error}"),
        }
    }
}

async fn take_offer(offer: Offer, stopping: Stopping) {
    let protocol = match decide(offer.uri().path(), offer.headers()) {
        Ok(protocol) => protocol,
        Err(status) => {
            let mut refusal = offer.refuse(status).body("no\n");
            if status == StatusCode::UNAUTHORIZED {
                refusal = refusal.header(WWW_AUTHENTICATE, "Bearer");
            }
            if let Err(error) = refusal.await {
                eprintln!("a refusal was not delivered: {error}");
            }
            return;
        }
    };
    let acceptance = match protocol {
        Some(protocol) => offer.accept().protocol(protocol),
        None => offer.accept(),
    };
    match acceptance.send().await {
        // A task of its own: this one is as large as an offer.
        Ok(client) => drop(tokio::spawn(serve(client.into_websocket(), stopping))),
        Err(error) => eprintln!("a client did not come: {error}"),
    }
}

/// Clients that connect by themselves, or through another proxy.
async fn take_connections(listener: TcpListener, stopping: Stopping) {
    let mut stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(take_connection(stream, stopping.clone()))),
            Err(error) => {
                eprintln!("accept: {error}");
                // Out of descriptors, it would come again at once.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn take_connection(stream: TcpStream, stopping: Stopping) {
    let _ = stream.set_nodelay(true);
    let mut stop = stopping.clone();
    let service = service_fn(|request| {
        let response = respond(request, stopping.clone());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error is the client's, which has left.
    tokio::select! {
        _ = connection.with_upgrades() => (),
        _ = stop.changed() => (),
    }
}

fn respond(mut request: Request<Incoming>, stopping: Stopping) -> Response<Full<Bytes>> {
    let protocol = match decide(request.uri().path(), request.headers()) {
        Ok(protocol) => protocol,
        Err(status) => return refusal(status),
    };
    if !upgrade::is_upgrade_request(&request) {
        return refusal(StatusCode::UPGRADE_REQUIRED);
    }
    let Ok((response, upgraded)) = upgrade::upgrade(&mut request) else {
        return refusal(StatusCode::BAD_REQUEST);
    };
    tokio::spawn(async move {
        match upgraded.await {
            Ok(websocket) => serve(websocket, stopping).await,
            Err(error) => eprintln!("a client did not come: {error}"),
        }
    });
    let mut response = response.map(|_| Full::default());
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_static(protocol);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    response
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"no\n")));
    *response.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Whether a client may come, and in which subprotocol: the same for both ways.
fn decide(path: &str, headers: &HeaderMap) -> Result<Option<&'static str>, StatusCode> {
    let token = headers.get("authorization");
    match path {
        "/echo" => (),
        "/private/echo" if token.is_some_and(|token| token == "Bearer letmein") => (),
        "/private/echo" => return Err(StatusCode::UNAUTHORIZED),
        _ => return Err(StatusCode::NOT_FOUND),
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    Ok(offered.any(|protocol| protocol.trim() == "echo").then_some("echo"))
}

/// The service itself, whatever the stream is.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(websocket: WebSocket<S>, stopping: Stopping) {
    match echo(websocket, stopping).await {
        Ok(()) | Err(WebSocketError::UnexpectedEOF | WebSocketError::ConnectionClosed) => (),
        Err(error) => eprintln!("a client was lost: {error}"),
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(
    mut websocket: WebSocket<S>,
    mut stopping: Stopping,
) -> Result<(), WebSocketError> {
    websocket.set_max_message_size(4 << 20);
    let mut websocket = FragmentCollector::new(websocket);
    loop {
        let frame = tokio::select! {
            frame = websocket.read_frame() => frame?,
            // The read, which is given up here, is not taken up again.
            _ = stopping.changed() => {
                return websocket.write_frame(Frame::close(1001, b"going away")).await;
            }
        };
        match frame.opcode {
            OpCode::Text | OpCode::Binary => websocket.write_frame(frame).await?,
            OpCode::Close => return Ok(()),
            // Pings are answered by themselves.
            _ => (),
        }
    }
}
