//! The listening socket, and the readers of request heads that run while the next connection is awaited.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::activation;
use crate::error::{AcceptError, BindError};
use crate::head;
use crate::offer::Offer;
use crate::options::{OfferOptions, Options};
use crate::peer::{AllowedPeers, PeerCredentials};
use crate::socket_file::SocketFile;
use crate::stream::Socket;

/// Listens for offers.
///
/// Dropping it closes the socket, removes its file if it is still the one that was created, and drops connections whose
/// head is still being read. Offers already given out go on.
#[derive(Debug)]
pub struct HandoffListener {
    acceptor: Option<Acceptor>,
    file: Option<SocketFile>,
    /// Somebody else made the socket, and has it still: its queue is for whoever serves it next.
    shared: bool,
    retired: bool,
    paused_until: Option<Instant>,
    readers: JoinSet<Result<Offer, AcceptError>>,
    permits: Arc<Semaphore>,
    options: Arc<OfferOptions>,
    allowed: Arc<AllowedPeers>,
}

impl HandoffListener {
    /// Creates the socket, in place of one that no process serves any more.
    ///
    /// It appears at its path complete: bound under a temporary name with mode 0600, given its group and its mode,
    /// listening, and then renamed. A lock on `PATH.lock` keeps a second process from taking the path over.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`], which names the path and the errno.
    pub fn bind(options: Options) -> Result<HandoffListener, BindError> {
        let (listener, file) = SocketFile::create(&options)?;
        let path = options.path;
        let mut this = HandoffListener::from_unix(listener, options.offers)
            .map_err(|source| BindError::System { call: "epoll_ctl", path, source })?;
        this.file = Some(file);
        this.shared = false;
        Ok(this)
    }

    /// Serves a listening Unix socket that somebody else has made and will remove.
    ///
    /// # Errors
    ///
    /// What registering it with the runtime says.
    pub fn from_unix(
        listener: StdUnixListener,
        options: OfferOptions,
    ) -> io::Result<HandoffListener> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(HandoffListener::new(Acceptor::Unix(listener), true, options))
    }

    /// Serves WebSocket clients over TCP, by the same handshake and with the same [`Offer`]s: an ordinary WebSocket
    /// server. No descriptor can follow: the kernel passes them over Unix sockets only.
    ///
    /// # Errors
    ///
    /// What registering it with the runtime says.
    pub fn from_tcp(
        listener: StdTcpListener,
        options: OfferOptions,
    ) -> io::Result<HandoffListener> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(HandoffListener::new(Acceptor::Tcp(listener), false, options))
    }

    /// The sockets that a service manager passed (`LISTEN_PID`, `LISTEN_FDS`), Unix or TCP, one listener each; none
    /// without those variables. Each descriptor is given once: a second call gives none.
    ///
    /// # Errors
    ///
    /// [`BindError::NotListening`] if one of them is something else.
    pub fn from_environment(options: &OfferOptions) -> Result<Vec<HandoffListener>, BindError> {
        activation::listening_sockets()?
            .into_iter()
            .map(|socket| {
                match socket {
                    activation::Listening::Unix(unix) => {
                        HandoffListener::from_unix(unix, options.clone())
                    }
                    activation::Listening::Tcp(tcp) => {
                        HandoffListener::from_tcp(tcp, options.clone())
                    }
                }
                .map(|listener| HandoffListener { shared: true, ..listener })
                .map_err(|source| BindError::System {
                    call: "epoll_ctl",
                    path: Path::new("LISTEN_FDS").to_owned(),
                    source,
                })
            })
            .collect()
    }

    fn new(acceptor: Acceptor, shared: bool, options: OfferOptions) -> HandoffListener {
        let permits = options.max_pending.clamp(1, Semaphore::MAX_PERMITS);
        HandoffListener {
            acceptor: Some(acceptor),
            file: None,
            shared,
            retired: false,
            paused_until: None,
            readers: JoinSet::new(),
            permits: Arc::new(Semaphore::new(permits)),
            allowed: Arc::new(AllowedPeers::new(options.allow_uids.clone())),
            options: Arc::new(options),
        }
    }

    /// The next offer whose head is complete. Cancel-safe.
    ///
    /// Heads are read by tasks of their own, so that a slow peer holds up nobody. While
    /// [`OfferOptions::max_pending`] offers are in hand, no connection is accepted, and the kernel queues them.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] after [`retire`](Self::retire). Every other error concerns one connection that did not
    /// become an offer; call again.
    pub async fn accept(&mut self) -> Result<Offer, AcceptError> {
        loop {
            let accepting = self.acceptor.is_some();
            if !accepting && self.readers.is_empty() {
                return Err(AcceptError::Closed);
            }
            tokio::select! {
                Some(read) = self.readers.join_next(), if !self.readers.is_empty() => {
                    return read.unwrap_or(Err(AcceptError::Internal));
                }
                accepted = next_connection(
                    self.acceptor.as_ref(),
                    &self.permits,
                    self.paused_until,
                    self.retired,
                ), if accepting => match accepted {
                    Some(Ok((socket, permit))) => {
                        self.paused_until = None;
                        self.spawn_reader(socket, permit);
                    }
                    Some(Err(error)) => {
                        self.pause_if_short(&error);
                        return Err(AcceptError::Accept(error));
                    }
                    None => self.acceptor = None,
                },
            }
        }
    }

    /// Stops listening. A socket file of its own is removed, and its lock released, so that nginx goes to the next peer
    /// and another process can take the path; what the kernel has queued is still accepted, and then
    /// [`accept`](Self::accept) ends with [`AcceptError::Closed`]. A socket that somebody else made, by
    /// [`from_unix`](Self::from_unix) or [`from_environment`](Self::from_environment), is left with its queue for the
    /// next process.
    pub fn retire(&mut self) {
        self.retired = true;
        self.file = None;
        if self.shared {
            self.acceptor = None;
        }
    }

    fn spawn_reader(&mut self, mut socket: Socket, permit: OwnedSemaphorePermit) {
        let options = Arc::clone(&self.options);
        let allowed = Arc::clone(&self.allowed);
        self.readers.spawn(async move {
            let mut peer = None;
            if let Socket::Unix(unix) = &socket {
                peer = PeerCredentials::of(unix);
                if let Err(error) = allowed.check(peer) {
                    head::turn_away(&mut socket, &error, &options).await;
                    return Err(error);
                }
            }
            let head = head::read(&mut socket, &options).await?;
            Ok(Offer::new(head, socket, peer, options, permit))
        });
    }

    /// The connection stays in the kernel's queue, and accept(2) would fail again at once.
    fn pause_if_short(&mut self, error: &io::Error) {
        let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if error.raw_os_error().is_some_and(|errno| short.contains(&errno)) {
            self.paused_until = Some(Instant::now() + Duration::from_millis(100));
        }
    }
}

#[derive(Debug)]
enum Acceptor {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Acceptor {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Acceptor::Unix(unix) => unix.accept().await.map(|(unix, _)| Socket::Unix(unix)),
            Acceptor::Tcp(tcp) => {
                let (tcp, _) = tcp.accept().await?;
                // The connection works without it.
                let _ = tcp.set_nodelay(true);
                Ok(Socket::Tcp(tcp))
            }
        }
    }
}

/// The next connection, once there is room for its offer; `None` when a retired listener's queue is empty.
async fn next_connection(
    acceptor: Option<&Acceptor>,
    permits: &Arc<Semaphore>,
    paused_until: Option<Instant>,
    retired: bool,
) -> Option<io::Result<(Socket, OwnedSemaphorePermit)>> {
    if let Some(until) = paused_until {
        sleep_until(until).await;
    }
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    let acceptor = acceptor?;
    let accepted = if retired {
        // Not zero: the runtime may not have asked epoll about what was queued a moment ago.
        timeout(Duration::from_millis(20), acceptor.accept()).await.ok()?
    } else {
        acceptor.accept().await
    };
    Some(accepted.map(|socket| (socket, permit)))
}
