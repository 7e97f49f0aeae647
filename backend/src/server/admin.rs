//! `--admin`: metrics and health over HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{
    self as unix, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::cli::AdminAddress;
use crate::error::BindError;
use crate::options::Options;
use crate::socket_file::SocketFile;

/// The admin endpoint's socket.
#[derive(Debug)]
pub(crate) enum Admin {
    Tcp { listener: TcpListener, address: SocketAddr, claim: Option<StdUnixListener> },
    Unix { listener: UnixListener, file: SocketFile },
}

/// Connections at a time; the others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// A connection's whole life: a scrape takes milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

impl Admin {
    /// Must be called within the runtime. A Unix socket is created as [`HandoffListener::bind`] does it, mode 0660.
    ///
    /// [`HandoffListener::bind`]: crate::HandoffListener::bind
    pub(crate) fn bind(address: &AdminAddress) -> Result<Admin, BindError> {
        let failed =
            |call, path: &str, source| BindError::System { call, path: path.into(), source };
        match address {
            AdminAddress::Tcp(address) => {
                let shown = address.to_string();
                let (listener, claim) =
                    listen(*address).map_err(|source| failed("listen on", &shown, source))?;
                let bound = listener
                    .local_addr()
                    .map_err(|source| failed("getsockname", &shown, source))?;
                let claim = claim.or_else(|| claim_of(bound).ok());
                Ok(Admin::Tcp { listener, address: bound, claim })
            }
            AdminAddress::Unix(path) => {
                let (listener, file) = SocketFile::create(&Options::new(path))?;
                let listener = UnixListener::from_std(listener)
                    .map_err(|source| failed("epoll_ctl", &path.to_string_lossy(), source))?;
                Ok(Admin::Unix { listener, file })
            }
        }
    }

    /// Serves until dropped, so that draining can be watched to its end; or, while draining, until a process that is
    /// started with the same address has taken it over.
    pub(crate) async fn serve(mut self, shared: Arc<Shared>) {
        tokio::select! {
            () = self.accept(&shared) => return,
            () = shared.drain.started() => (),
        }
        self.let_go();
        tokio::select! {
            () = self.accept(&shared) => (),
            () = self.taken_over() => tracing::info!("admin endpoint taken over"),
        }
    }

    fn let_go(&mut self) {
        match self {
            Admin::Tcp { listener, claim, .. } => {
                *claim = None;
                let _ = setsockopt(listener, sockopt::ReusePort, &true);
            }
            Admin::Unix { file, .. } => file.let_go(),
        }
    }

    /// A Unix socket's successor takes its name, and all new connections with it. Over TCP the kernel spreads them over
    /// both.
    async fn taken_over(&self) {
        let Admin::Tcp { address, .. } = self else {
            return std::future::pending().await;
        };
        while !is_claimed(*address) {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn accept(&self, shared: &Arc<Shared>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let shared = Arc::clone(shared);
            let accepted = match self {
                Admin::Tcp { listener, .. } => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        connection(stream, shared).await;
                        drop(permit);
                    });
                }),
                Admin::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        connection(stream, shared).await;
                        drop(permit);
                    });
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "admin: accept");
                // EMFILE would come again at once.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Listens on a TCP address, or on that of a process of the same user that is draining: SO_REUSEPORT, which both set, and
/// a claim, because the kernel would go on sharing the port out.
fn listen(address: SocketAddr) -> io::Result<(TcpListener, Option<StdUnixListener>)> {
    let in_use = match bind(address, false) {
        Ok(socket) => return Ok((socket.listen(BACKLOG)?, None)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        Err(error) => return Err(error),
    };
    let Ok(claim) = claim_of(address) else {
        return Err(in_use);
    };
    let listener = bind(address, true)?.listen(BACKLOG)?;
    setsockopt(&listener, sockopt::ReusePort, &false)?;
    Ok((listener, Some(claim)))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Who serves a TCP address and does not drain holds an abstract Unix address: it ends with the process, and belongs to
/// the network namespace, as the port does. Nothing is accepted on it.
fn claim_of(address: SocketAddr) -> io::Result<StdUnixListener> {
    StdUnixListener::bind_addr(&claim_name(address)?)
}

fn is_claimed(address: SocketAddr) -> bool {
    claim_name(address).and_then(|name| StdUnixStream::connect_addr(&name)).is_ok()
}

fn claim_name(address: SocketAddr) -> io::Result<unix::SocketAddr> {
    unix::SocketAddr::from_abstract_name(format!("ws-handoff-backend/admin/{address}"))
}

const BACKLOG: u32 = 128;

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let response = respond(&request, &shared);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, served).await {
        tracing::debug!(%error, "admin: connection");
    }
}

fn respond(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" | "/readyz"
            if shared.engine.as_ref().is_some_and(|engine| !engine.is_alive()) =>
        {
            text(StatusCode::INTERNAL_SERVER_ERROR, "no thread is left that serves clients\n")
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if shared.drain.is_draining() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        "/readyz" => text(StatusCode::OK, "ready\n"),
        "/metrics" => match shared.metrics.encode() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n"),
    }
}

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
