//! Connections over which a client has come, and nginx's next request on them.
//!
//! Connecting and accepting is a good part of what a hand-over costs both sides. nginx keeps a connection where its
//! `upstream {}` has `keepalive`; where not, it has closed it by the time that anybody looks here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::AcceptError;
use crate::head;
use crate::offer::answer::Unanswered;
use crate::offer::{Offer, Permits};
use crate::options::OfferOptions;
use crate::peer::Peer;
use crate::stream::Socket;

/// What a connection's next request becomes.
pub(crate) type Next = Result<Offer, AcceptError>;

/// Where connections go once their client has been taken over.
#[derive(Debug, Clone)]
pub(crate) struct Reuse {
    /// Room for connections that wait for a request.
    idle: Arc<Semaphore>,
    pending: Arc<Semaphore>,
    handovers: Arc<Semaphore>,
    options: Arc<OfferOptions>,
    next: mpsc::Sender<Next>,
    closed: CancellationToken,
}

/// The listener's end.
#[derive(Debug)]
pub(crate) struct Reused {
    pub(crate) next: mpsc::Receiver<Next>,
    /// Dropped, it closes the connections that wait for a request.
    pub(crate) open: Option<DropGuard>,
}

/// Offers that the listener has not asked for yet; their connections wait meanwhile.
const QUEUE: usize = 64;

impl Reuse {
    pub(crate) fn new(
        pending: Arc<Semaphore>,
        handovers: Arc<Semaphore>,
        options: Arc<OfferOptions>,
    ) -> (Reuse, Reused) {
        let (next, receiver) = mpsc::channel(QUEUE);
        let closed = CancellationToken::new();
        let open = Some(closed.clone().drop_guard());
        let idle = Arc::new(Semaphore::new(options.max_idle.min(Semaphore::MAX_PERMITS)));
        let reuse = Reuse { idle, pending, handovers, options, next, closed };
        (reuse, Reused { next: receiver, open })
    }

    /// Whether a connection would be kept: nginx is told so before the client comes.
    pub(crate) fn has_room(&self) -> bool {
        !self.closed.is_cancelled() && self.idle.available_permits() > 0
    }

    /// Waits for the next request on a connection, or closes it if there is no room. `begun` has been read of it already.
    pub(crate) fn keep(&self, nginx: UnixStream, peer: Peer, begun: Bytes) {
        if let (false, Ok(idle)) =
            (self.closed.is_cancelled(), Arc::clone(&self.idle).try_acquire_owned())
        {
            tokio::spawn(self.clone().request(nginx, peer, begun, idle));
        }
    }

    async fn request(
        self,
        nginx: UnixStream,
        peer: Peer,
        begun: Bytes,
        idle: OwnedSemaphorePermit,
    ) {
        if begun.is_empty() {
            tokio::select! {
                more = has_more(&nginx) => if !more {
                    return;
                },
                // nginx sees that it is closed, or, if its next request crosses, asks again over a new connection.
                () = self.closed.cancelled() => return,
            }
        }
        drop(idle);
        let mut connection = Unanswered::new(Socket::Unix(nginx));
        let Ok(pending) = Arc::clone(&self.pending).acquire_owned().await else {
            return;
        };
        let Some(socket) = connection.socket() else {
            return;
        };
        let read = head::read(socket, begun, &self.options).await;
        if read.is_err() {
            // It has been answered, or has left.
            connection.take();
        }
        // Without a listener the connection is answered 503.
        let Ok(place) = self.next.clone().reserve_owned().await else {
            return;
        };
        place.send(read.map(|head| {
            let permits = Permits { pending, handovers: Arc::clone(&self.handovers) };
            let options = Arc::clone(&self.options);
            Offer::new(head, connection, peer, options, permits, Some(self))
        }));
    }
}

/// Waits until there is something to read; false at the end of the connection. Nothing is read: a descriptor that
/// should not be there is for the reader of the head to find.
async fn has_more(nginx: &UnixStream) -> bool {
    let peek = || -> io::Result<usize> {
        Ok(recv(nginx.as_fd().as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)?)
    };
    nginx.async_io(Interest::READABLE, peek).await.is_ok_and(|len| len > 0)
}
