//! An axum service whose WebSockets come both ways: handed over by nginx, and directly.
//!
//! ```sh
//! cargo run --release -p ws-handoff-examples --example axum -- /tmp/chat.sock 127.0.0.1:3000
//! ```
//!
//! with `location / { ws_handoff unix:/tmp/chat.sock; }` in nginx. A third argument is the socket's group: one that nginx's
//! workers are in.
//!
//! `/echo` sends back what it gets, in the subprotocol `echo.v2` or `echo` if the client offers one; `/rooms/NAME` sends it to
//! everybody in the room; `/private/echo` does so for who sends `Authorization: Bearer letmein`, and answers 401 to others.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use ws_handoff_backend::axum::{HandoffUpgrade, WebSocket};
use ws_handoff_backend::{HandoffListener, Options};

/// What handlers share.
#[derive(Clone)]
struct App {
    rooms: Arc<Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>>,
    /// Changes when the service is to end. Whoever holds one is waited for.
    stopping: watch::Receiver<()>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (socket, address, group) = match arguments.as_slice() {
        [socket, address] => (socket, address, None),
        [socket, address, group] => (socket, address, Some(group.as_str())),
        _ => {
            eprintln!("usage: axum SOCKET ADDRESS:PORT [GROUP]");
            return ExitCode::FAILURE;
        }
    };
    match run(socket, address, group).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(socket: &str, address: &str, group: Option<&str>) -> Result<(), Box<dyn Error>> {
    let (stop, stopping) = watch::channel(());
    let app = router(App { rooms: Arc::default(), stopping: stopping.clone() });
    // Before anything can be connected to: from here on a signal ends it in order.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let direct = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let options = Options { group: group.map(Into::into), ..Options::new(socket) };
    let handed_over = HandoffListener::bind(options)?;

    let stopped = |mut stopping: watch::Receiver<()>| async move {
        let _ = stopping.changed().await;
    };
    let direct = axum::serve(direct, app.clone()).with_graceful_shutdown(stopped(stopping.clone()));
    let handed_over =
        ws_handoff_backend::axum::serve(handed_over, app).with_graceful_shutdown(stopped(stopping));
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        let _ = stop.send(());
        Ok(())
    };
    tokio::try_join!(direct, handed_over, signalled)?;
    // The WebSockets, which are to say goodbye; not for ever.
    let _ = timeout(Duration::from_secs(10), stop.closed()).await;
    Ok(())
}

fn router(app: App) -> Router {
    let private = Router::new().route("/echo", any(echo)).layer(middleware::from_fn(require_token));
    Router::new()
        .route("/echo", any(echo))
        .route("/rooms/{room}", any(room))
        .nest("/private", private)
        .with_state(app)
}

/// Middleware like any other: a client without the token is refused before nginx has promised it anything.
async fn require_token(request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION);
    if token.is_some_and(|token| token == "Bearer letmein") {
        let mut response = next.run(request).await;
        response.headers_mut().insert("x-token", HeaderValue::from_static("accepted"));
        return response;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, "a token is needed\n").into_response()
}

async fn echo(upgrade: HandoffUpgrade, State(app): State<App>) -> Response {
    upgrade
        .protocols(["echo.v2", "echo"])
        .max_message_size(4 << 20)
        // Of each client, for as long as it lives: 128 KiB unless set.
        .read_buffer_size(4096)
        .on_failed_upgrade(|error| eprintln!("a client did not come: {error}"))
        .on_upgrade(move |socket| serve_echo(socket, app))
}

async fn serve_echo(mut socket: WebSocket, mut app: App) {
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                // Pings and closes are answered by themselves.
                Some(Ok(_)) => (),
                Some(Err(_)) | None => return,
            },
            _ = app.stopping.changed() => return go_away(socket).await,
        }
    }
}

async fn room(
    upgrade: HandoffUpgrade,
    Path(name): Path<String>,
    State(app): State<App>,
) -> Response {
    upgrade.read_buffer_size(4096).on_upgrade(move |socket| serve_room(socket, name, app))
}

async fn serve_room(mut socket: WebSocket, name: String, mut app: App) {
    let room = {
        let mut rooms = app.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(name.clone()).or_insert_with(|| broadcast::Sender::new(64)).clone()
    };
    let mut said = room.subscribe();
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => drop(room.send(text)),
                Some(Ok(_)) => (),
                Some(Err(_)) | None => break,
            },
            // A client that is too slow for its room is let go.
            text = said.recv() => match text {
                Ok(text) => {
                    if socket.send(Message::Text(text)).await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            },
            _ = app.stopping.changed() => {
                go_away(socket).await;
                break;
            }
        }
    }
    drop(said);
    let mut rooms = app.rooms.lock().unwrap_or_else(PoisonError::into_inner);
    if room.receiver_count() == 0 {
        rooms.remove(&name);
    }
}

/// Closes, and gives the client a moment to answer.
async fn go_away(mut socket: WebSocket) {
    let close = CloseFrame { code: 1001, reason: Utf8Bytes::from_static("going away") };
    if socket.send(Message::Close(Some(close))).await.is_ok() {
        let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = timeout(Duration::from_secs(5), answered).await;
    }
}
