//! WebSocket clients that do nothing but stay: each a task that answers pings until the server or the page ends it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, WebSocket, WebSocketError, handshake};
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The way a client takes through nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    WsHandoff,
    ProxyPass,
}

impl Way {
    pub(crate) fn from_name(name: &str) -> Option<Way> {
        match name {
            "ws_handoff" => Some(Way::WsHandoff),
            "proxy_pass" => Some(Way::ProxyPass),
            _ => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Way::WsHandoff => "/ws/echo",
            Way::ProxyPass => "/proxy/echo",
        }
    }
}

/// Clients that are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Open {
    pub(crate) ws_handoff: usize,
    pub(crate) proxy_pass: usize,
}

impl Open {
    fn get(&self, way: Way) -> usize {
        match way {
            Way::WsHandoff => self.ws_handoff,
            Way::ProxyPass => self.proxy_pass,
        }
    }

    fn get_mut(&mut self, way: Way) -> &mut usize {
        match way {
            Way::WsHandoff => &mut self.ws_handoff,
            Way::ProxyPass => &mut self.proxy_pass,
        }
    }
}

/// Why a client could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("connecting to {target}: {source}")]
    Connect { target: String, source: io::Error },
    #[error("{target} answered a WebSocket handshake on {path} with status {status}")]
    Refused { target: String, path: &'static str, status: u16 },
    #[error("WebSocket handshake with {target} on {path}: {source}")]
    Handshake { target: String, path: &'static str, source: WebSocketError },
    #[error("{target} did not finish a WebSocket handshake on {path} within {} s", TIMEOUT.as_secs())]
    Timeout { target: String, path: &'static str },
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    target: String,
    open: watch::Sender<Open>,
    close: watch::Sender<()>,
    /// Held while clients are being opened or closed: requests to do so are served one after the other.
    changing: Mutex<()>,
}

type Connection = WebSocket<TokioIo<Upgraded>>;

/// Handshakes in flight at a time. Few: each occupies nginx for a moment, and its heap keeps the size of the highest tide,
/// which would be shown as memory that handed-over clients cost.
const PARALLEL: usize = 16;

const TIMEOUT: Duration = Duration::from_secs(10);

/// For the server's half of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Clients {
    pub(crate) fn new(target: String) -> Clients {
        Clients {
            target,
            open: watch::Sender::default(),
            close: watch::Sender::default(),
            changing: Mutex::default(),
        }
    }

    pub(crate) fn open(&self) -> Open {
        *self.open.borrow()
    }

    /// Opens clients until there are `count` that way. The first failure ends the attempt; those that are open stay.
    pub(crate) async fn open_until(
        self: &Arc<Clients>,
        way: Way,
        count: usize,
    ) -> Result<(), OpenError> {
        let _changing = self.changing.lock().await;
        let permits = Arc::new(Semaphore::new(PARALLEL));
        // Aborts what is under way when it is dropped, which happens too when nobody waits for the answer any more.
        let mut opening = JoinSet::new();
        for _ in self.open().get(way)..count {
            let clients = Arc::clone(self);
            let permits = Arc::clone(&permits);
            opening.spawn(async move {
                let _permit = permits.acquire_owned().await;
                clients.open_one(way).await
            });
        }
        while let Some(joined) = opening.join_next().await {
            // A task that panicked is this program's fault and has left its message on standard error.
            joined.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Closes all, and returns when the last is gone.
    pub(crate) async fn close_all(&self) {
        let _changing = self.changing.lock().await;
        let mut open = self.open.subscribe();
        let _ = self.close.send(());
        // The sender is this object's own.
        let _ = open.wait_for(|open| *open == Open::default()).await;
    }

    async fn open_one(self: &Arc<Clients>, way: Way) -> Result<(), OpenError> {
        let connection = match timeout(TIMEOUT, connect(&self.target, way.path())).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(OpenError::Timeout { target: self.target.clone(), path: way.path() });
            }
        };
        let close = self.close.subscribe();
        let counted = Counted::new(Arc::clone(self), way);
        tokio::spawn(stay(connection, close, counted));
        Ok(())
    }
}

/// A client's place in the count, taken until dropped.
struct Counted {
    clients: Arc<Clients>,
    way: Way,
}

impl Counted {
    fn new(clients: Arc<Clients>, way: Way) -> Counted {
        clients.open.send_modify(|open| *open.get_mut(way) += 1);
        Counted { clients, way }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.clients.open.send_modify(|open| *open.get_mut(self.way) -= 1);
    }
}

async fn connect(target: &str, path: &'static str) -> Result<Connection, OpenError> {
    let target = || target.to_owned();
    let stream = TcpStream::connect(target())
        .await
        .map_err(|source| OpenError::Connect { target: target(), source })?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(target())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        .map_err(|source| OpenError::Connect { target: target(), source })?;
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if let Ok(key) = HeaderValue::try_from(handshake::generate_key()) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    match handshake::client(&TokioExecutor::new(), request, stream).await {
        Ok((connection, _)) => Ok(connection),
        Err(WebSocketError::InvalidStatusCode(status)) => {
            Err(OpenError::Refused { target: target(), path, status })
        }
        Err(source) => Err(OpenError::Handshake { target: target(), path, source }),
    }
}

/// Until the server closes the connection, or `close` says to. The socket is closed before it is no longer counted.
async fn stay(mut connection: Connection, mut close: watch::Receiver<()>, counted: Counted) {
    tokio::select! {
        () = read_to_end(&mut connection) => (),
        _ = close.changed() => {
            let _ = timeout(CLOSE_TIMEOUT, async {
                connection.write_frame(Frame::close(1000, b"")).await?;
                read_to_end(&mut connection).await;
                Ok::<_, WebSocketError>(())
            })
            .await;
        }
    }
    drop(connection);
    drop(counted);
}

/// Reading is what answers pings.
async fn read_to_end(connection: &mut Connection) {
    while let Ok(frame) = connection.read_frame().await {
        if frame.opcode == OpCode::Close {
            return;
        }
    }
}
