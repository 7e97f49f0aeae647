//! The client's byte stream: its own TCP or Unix socket where nginx handed it over, the connection to nginx where nginx
//! tunnels, or a TCP connection accepted here. Callers cannot tell.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

/// A WebSocket client's connection, after the opening handshake.
///
/// What the client had sent before the handshake was over is read first. Dropping it hangs up: where nginx has just
/// handed the socket over, it may not have let go of the open file description yet, and close(2) alone would then
/// leave the client connected; so shutdown(2) comes first.
#[derive(Debug)]
pub struct ClientStream {
    early: Bytes,
    socket: Socket,
}

impl ClientStream {
    pub(crate) fn new(socket: Socket, early: Bytes) -> ClientStream {
        ClientStream { early, socket }
    }

    /// A half to read from and one to write to, for use at the same time within one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        let (read, write) = match &mut self.socket {
            Socket::Tcp(tcp) => {
                let (read, write) = tcp.split();
                (ReadSocket::Tcp(read), WriteSocket::Tcp(write))
            }
            Socket::Unix(unix) => {
                let (read, write) = unix.split();
                (ReadSocket::Unix(read), WriteSocket::Unix(write))
            }
        };
        (ReadHalf { early: &mut self.early, socket: read }, WriteHalf { socket: write })
    }

    /// The other end's address, where it is a TCP socket: for a tunnelled client there is none.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        // ENOTCONN: the client has hung up first.
        let _ = shutdown(self.socket.as_fd().as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if take_early(&mut this.early, buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The half of a [`ClientStream`] to read from; early data comes first.
#[derive(Debug)]
pub struct ReadHalf<'a> {
    early: &'a mut Bytes,
    socket: ReadSocket<'a>,
}

#[derive(Debug)]
enum ReadSocket<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Unix(unix::ReadHalf<'a>),
}

impl ReadHalf<'_> {
    /// Waits until there is something to read, the end of the stream included. Cancel-safe.
    ///
    /// # Errors
    ///
    /// What the runtime says.
    pub async fn readable(&self) -> io::Result<()> {
        if !self.early.is_empty() {
            return Ok(());
        }
        match &self.socket {
            ReadSocket::Tcp(half) => half.readable().await,
            ReadSocket::Unix(half) => half.readable().await,
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if take_early(this.early, buf) {
            return Poll::Ready(Ok(()));
        }
        match &mut this.socket {
            ReadSocket::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            ReadSocket::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

/// The half of a [`ClientStream`] to write to. Dropping it does nothing.
#[derive(Debug)]
pub struct WriteHalf<'a> {
    socket: WriteSocket<'a>,
}

#[derive(Debug)]
enum WriteSocket<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Unix(unix::WriteHalf<'a>),
}

/// Calls the same method on whichever socket it is.
macro_rules! either {
    ($kind:ident, $socket:expr, $half:ident => $call:expr) => {
        match $socket {
            $kind::Tcp($half) => $call,
            $kind::Unix($half) => $call,
        }
    };
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(WriteSocket, &mut self.socket, half => Pin::new(half).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(WriteSocket, &mut self.socket, half => Pin::new(half).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(WriteSocket, &mut self.socket, half => Pin::new(half).poll_shutdown(cx))
    }
}

fn take_early(early: &mut Bytes, buf: &mut ReadBuf<'_>) -> bool {
    if early.is_empty() || buf.remaining() == 0 {
        return false;
    }
    let taken = early.len().min(buf.remaining());
    buf.put_slice(&early[..taken]);
    early.advance(taken);
    if early.is_empty() {
        // An empty `Bytes` still keeps its allocation.
        *early = Bytes::new();
    }
    true
}

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Takes it away from the runtime.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        either!(Socket, self, socket => socket.into_std().map(OwnedFd::from))
    }

    /// The other end's IP address; `None` for a Unix socket.
    pub(crate) fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Socket::Tcp(tcp) => tcp.peer_addr().ok().map(|addr| addr.ip().to_canonical()),
            Socket::Unix(_) => None,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(Socket, self, socket => socket.as_fd())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(Socket, &mut *self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(Socket, &mut *self, socket => Pin::new(socket).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(Socket, &mut *self, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(Socket, &mut *self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}
