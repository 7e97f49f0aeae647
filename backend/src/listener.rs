//! The listening socket, and the readers of request heads that run while the next connection is awaited.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::activation;
use crate::error::{AcceptError, BindError};
use crate::head;
use crate::offer::answer::Unanswered;
use crate::offer::{Offer, Permits};
use crate::options::{OfferOptions, Options};
use crate::peer::{AllowedPeers, Peer};
use crate::reuse::{Reuse, Reused};
use crate::slots::Slots;
use crate::socket_file::SocketFile;
use crate::stream::Socket;

/// Listens for offers.
///
/// Dropping it closes the socket, removes its file if it is still the one that was created, and answers 503 to
/// connections whose head is still being read. Offers already given out go on.
#[derive(Debug)]
pub struct HandoffListener {
    acceptor: Option<Acceptor>,
    file: Option<SocketFile>,
    /// Somebody else made the socket, and has it still: its queue is for whoever serves it next.
    shared: bool,
    retired: Option<Instant>,
    paused_until: Option<Instant>,
    /// Accepted, and waiting for room to have its head read.
    next: Option<(Unanswered, Peer)>,
    readers: JoinSet<Result<Offer, AcceptError>>,
    slots: Slots,
    handovers: Arc<Semaphore>,
    turning_away: Arc<Semaphore>,
    /// Of connections that come back; `None` over TCP, where each is a client's.
    reuse: Option<Reuse>,
    reused: Reused,
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
        let most = Semaphore::MAX_PERMITS;
        let options = Arc::new(options);
        let slots = Slots::new(options.max_pending.clamp(1, most));
        let handovers = Arc::new(Semaphore::new(options.max_handovers.clamp(1, most)));
        let (reuse, reused) =
            Reuse::new(Arc::clone(&slots.permits), Arc::clone(&handovers), Arc::clone(&options));
        let reuse = matches!(acceptor, Acceptor::Unix(_)).then_some(reuse);
        HandoffListener {
            acceptor: Some(acceptor),
            file: None,
            shared,
            retired: None,
            paused_until: None,
            next: None,
            readers: JoinSet::new(),
            slots,
            handovers,
            turning_away: Arc::new(Semaphore::new(TURNING_AWAY)),
            reuse,
            reused,
            allowed: Arc::new(AllowedPeers::new(options.allow_uids.clone())),
            options,
        }
    }

    /// The next offer whose head is complete. Cancel-safe.
    ///
    /// Heads are read by tasks of their own, so that a slow peer holds up nobody. Where
    /// [`OfferOptions::max_pending`] offers are in hand, the slowest gives way.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] after [`retire`](Self::retire). Every other error concerns one connection that did not
    /// become an offer; call again.
    pub async fn accept(&mut self) -> Result<Offer, AcceptError> {
        loop {
            let accepting = self.acceptor.is_some() && self.next.is_none();
            let has_read = !self.readers.is_empty() || !self.reused.next.is_empty();
            if !accepting && self.next.is_none() && !has_read {
                return Err(AcceptError::Closed);
            }
            let has_next = self.next.is_some();
            // Where there is room nobody gives way, however long its head takes: both branches would be ready below.
            let is_full = has_next && self.slots.permits.available_permits() == 0;
            let displace_at = self.slots.displace_at().filter(|_| is_full);
            let end_readers_at = self.retired.map(|at| at + RETIRED_HEAD_TIMEOUT);
            tokio::select! {
                Some(read) = self.readers.join_next(), if !self.readers.is_empty() => {
                    self.slots.reader_ended();
                    return read.unwrap_or_else(|error| {
                        Err(if error.is_cancelled() { AcceptError::Displaced } else { AcceptError::Internal })
                    });
                }
                // Over TCP there is no sender, and nothing to come.
                Some(next) = self.reused.next.recv() => return next,
                permit = Arc::clone(&self.slots.permits).acquire_owned(), if has_next => {
                    if let (Some((socket, peer)), Ok(permit)) = (self.next.take(), permit) {
                        self.spawn_reader(socket, peer, permit);
                    }
                }
                () = at(displace_at), if displace_at.is_some() => self.slots.displace(),
                () = at(end_readers_at), if end_readers_at.is_some() && !self.readers.is_empty() => {
                    self.readers.abort_all();
                }
                accepted = next_connection(self.acceptor.as_ref(), self.paused_until, self.retired),
                    if accepting => match accepted {
                    Some(Ok(socket)) => {
                        self.paused_until = None;
                        self.admit(socket)?;
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
    /// and another process can take the path; what the kernel has queued is still accepted, heads that are not
    /// complete within a second are answered 503, and then [`accept`](Self::accept) ends with
    /// [`AcceptError::Closed`]. A socket that somebody else made, by [`from_unix`](Self::from_unix) or
    /// [`from_environment`](Self::from_environment), is left with its queue for the next process.
    pub fn retire(&mut self) {
        self.retired.get_or_insert_with(Instant::now);
        self.reused.open = None;
        self.file = None;
        if self.shared {
            self.acceptor = None;
        }
    }

    /// Keeps a connection until there is room to read its head, unless its peer may not connect at all.
    fn admit(&mut self, socket: Socket) -> Result<(), AcceptError> {
        let peer = match &socket {
            Socket::Unix(unix) => self.allowed.admit(unix),
            Socket::Tcp(_) => Ok(Peer::default()),
        };
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => return self.turn_away(socket, error),
        };
        self.next = Some((Unanswered::new(socket), peer));
        Ok(())
    }

    /// Takes nothing from those who may connect: past a few at a time they are just closed.
    fn turn_away(&mut self, mut socket: Socket, error: AcceptError) -> Result<(), AcceptError> {
        let Ok(permit) = Arc::clone(&self.turning_away).try_acquire_owned() else {
            return Err(error);
        };
        let options = Arc::clone(&self.options);
        self.readers.spawn(async move {
            head::turn_away(&mut socket, &error, &options).await;
            drop(permit);
            Err(error)
        });
        Ok(())
    }

    fn spawn_reader(
        &mut self,
        mut connection: Unanswered,
        peer: Peer,
        pending: OwnedSemaphorePermit,
    ) {
        let options = Arc::clone(&self.options);
        let permits = Permits { pending, handovers: Arc::clone(&self.handovers) };
        let reuse = self.reuse.clone();
        let reader = self.readers.spawn(async move {
            let Some(socket) = connection.socket() else {
                return Err(AcceptError::Internal);
            };
            match head::read(socket, Bytes::new(), &options).await {
                Ok(head) => Ok(Offer::new(head, connection, peer, options, permits, reuse)),
                Err(error) => {
                    // It has been answered, or has left.
                    connection.take();
                    Err(error)
                }
            }
        });
        self.slots.reader_began(reader);
    }

    /// The connection stays in the kernel's queue, and accept(2) would fail again at once.
    fn pause_if_short(&mut self, error: &io::Error) {
        let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if error.raw_os_error().is_some_and(|errno| short.contains(&errno)) {
            self.paused_until = Some(Instant::now() + Duration::from_millis(100));
        }
    }
}

/// Peers at a time who are told that they may not connect.
const TURNING_AWAY: usize = 16;

/// How long a retired listener waits for heads.
const RETIRED_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a retired TCP listener accepts: its port still answers, so its queue might never be empty.
const RETIRED_ACCEPT: Duration = Duration::from_millis(100);

async fn at(instant: Option<Instant>) {
    if let Some(instant) = instant {
        sleep_until(instant).await;
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

/// The next connection; `None` when a retired listener's queue is empty.
async fn next_connection(
    acceptor: Option<&Acceptor>,
    paused_until: Option<Instant>,
    retired: Option<Instant>,
) -> Option<io::Result<Socket>> {
    at(paused_until).await;
    let acceptor = acceptor?;
    let Some(retired) = retired else {
        return Some(acceptor.accept().await);
    };
    if matches!(acceptor, Acceptor::Tcp(_)) && retired.elapsed() >= RETIRED_ACCEPT {
        return None;
    }
    // Not zero: the runtime may not have asked epoll about what was queued a moment ago.
    timeout(Duration::from_millis(20), acceptor.accept()).await.ok()
}
