//! The one file that receives descriptors: the offer, the commit, and the checks on what came.
//!
//! Until the commit the client belongs to nginx, and its flags and options live on the open file description that nginx
//! is still using. So up to then the descriptor is only looked at (its type, its domain) and at worst closed, which
//! nginx does not notice; that the connection to nginx ends is what makes nginx hang up. From the commit on, every
//! way out goes through shutdown(2); so it does after a commit that makes no sense.

use std::io;
use std::mem;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::ptr;

use bytes::Bytes;
use handoff_protocol::tls::cleanse_stack;
use handoff_protocol::{Commit, CommitDecoder, CommitError, OFFER};
use handoff_tls::Session;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname,
    getsockopt, setsockopt, shutdown, sockopt,
};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroize;

use crate::error::HandoffError;
use crate::options::OfferOptions;
use crate::stream::{ClientStream, Socket};

/// Waits for the client that nginx was promised by a 101: the offer, then the commit. Also returns the bytes behind the
/// commit, which begin nginx's next request.
///
/// Dropping the future closes whatever has come.
pub(crate) async fn client(
    nginx: &UnixStream,
    has_tls: bool,
    options: &OfferOptions,
) -> Result<(Taken, Bytes), HandoffError> {
    let descriptor = timeout(options.offer_timeout, offer(nginx))
        .await
        .map_err(|_| HandoffError::OfferTimeout(options.offer_timeout))??;
    let family = inspect(descriptor.as_fd())?;
    let committed =
        timeout(options.commit_timeout, commit(nginx, has_tls, options.early_data_limit))
            .await
            .map_err(|_| HandoffError::CommitTimeout(options.commit_timeout))?;
    let owned = match committed {
        // nginx may have let go already: nobody else would hang up.
        Ok(_) | Err(HandoffError::Commit(_)) => Owned::new(descriptor),
        Err(error) => return Err(error),
    };
    let (Committed { early, tls }, behind) = committed?;
    prepare(owned.as_fd().ok_or(HandoffError::ClientGone)?, family)?;
    Ok((Taken { owned, family, early, tls }, behind))
}

/// A client that is this process's, and that no runtime knows yet.
#[derive(Debug)]
pub(crate) struct Taken {
    owned: Owned,
    family: AddressFamily,
    early: Bytes,
    /// The session that the client's bytes belong to, if it speaks TLS.
    tls: Option<Box<Session>>,
}

impl Taken {
    /// Registers it with the runtime.
    ///
    /// A client with a TLS session is refused: a stream of its bytes would be one of records. (None is asked for by who attaches.)
    pub(crate) fn attach(mut self) -> Result<ClientStream, HandoffError> {
        if self.tls.is_some() {
            return Err(HandoffError::Commit(CommitError::UnexpectedTls));
        }
        let fd = self.owned.take().ok_or(HandoffError::ClientGone)?;
        // If epoll has no room, tokio closes the socket itself, without shutdown(2): nginx's dup3(2) then hangs up.
        let socket = if self.family == AddressFamily::Unix {
            UnixStream::from_std(StdUnixStream::from(fd)).map(Socket::Unix)
        } else {
            TcpStream::from_std(StdTcpStream::from(fd)).map(Socket::Tcp)
        }
        .map_err(|source| HandoffError::Client { call: "epoll_ctl", source })?;
        Ok(ClientStream::new(socket, self.early))
    }

    pub(crate) fn detach(self) -> (Owned, Bytes, Option<Box<Session>>) {
        (self.owned, self.early, self.tls)
    }
}

/// What one recvmsg(2) gave.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes written to the buffer; 0 is end of file.
    pub(crate) len: usize,
    /// Descriptors in SCM_RIGHTS, close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// MSG_CTRUNC: there were more, and the kernel has closed them.
    pub(crate) truncated: bool,
}

/// Receives bytes and descriptors; cancel-safe.
pub(crate) async fn receive(stream: &UnixStream, buf: &mut [u8]) -> io::Result<Received> {
    stream.async_io(Interest::READABLE, || recvmsg(stream.as_fd(), buf)).await
}

/// One byte only: the kernel gives descriptors with the first byte of the message they were sent with.
async fn offer(nginx: &UnixStream) -> Result<OwnedFd, HandoffError> {
    let mut byte = [0];
    let mut received = receive(nginx, &mut byte).await.map_err(HandoffError::Receive)?;
    if received.truncated {
        return Err(HandoffError::Truncated);
    }
    if received.len == 0 {
        return Err(HandoffError::ClosedBeforeOffer);
    }
    if byte != [OFFER] {
        return Err(HandoffError::NotAnOffer(byte[0]));
    }
    match (received.descriptors.pop(), received.descriptors.len()) {
        (Some(descriptor), 0) => Ok(descriptor),
        (None, _) => Err(HandoffError::DescriptorCount(0)),
        (Some(_), others) => Err(HandoffError::DescriptorCount(others + 1)),
    }
}

/// Reads up to the end of the commit: the early data, and what has come behind. Further descriptors are closed.
async fn commit(
    nginx: &UnixStream,
    has_tls: bool,
    early_data_limit: usize,
) -> Result<(Committed, Bytes), HandoffError> {
    let decoder = CommitDecoder::new(early_data_limit);
    let mut decoder = if has_tls { decoder.with_tls() } else { decoder };
    let mut buf = Wiped { bytes: vec![0; 4096], used: 0 };
    loop {
        let received = receive(nginx, &mut buf.bytes).await.map_err(HandoffError::Receive)?;
        if received.len == 0 {
            return Err(HandoffError::ClosedBeforeCommit);
        }
        buf.used = buf.used.max(received.len);
        let input = buf.bytes.get(..received.len).unwrap_or_default();
        let fed = decoder.feed(input)?;
        if fed.done {
            let behind = Bytes::copy_from_slice(input.get(fed.consumed..).unwrap_or_default());
            let committed = committed(decoder);
            if has_tls {
                cleanse_stack();
            }
            return Ok((committed.map_err(HandoffError::Commit)?, behind));
        }
    }
}

/// What a commit holds.
struct Committed {
    early: Bytes,
    /// Its secrets stay where they are from now on.
    tls: Option<Box<Session>>,
}

/// A function of its own, so that what is left of secrets on its stack lies where [`cleanse_stack`], called next, overwrites it.
#[inline(never)]
fn committed(decoder: CommitDecoder) -> Result<Committed, CommitError> {
    let Commit { early_data, tls } = decoder.into_commit().unwrap_or_default();
    let tls = tls.map(|state| Session::new(&state).map(Box::new)).transpose()?;
    Ok(Committed { early: early_data.into(), tls })
}

/// What bytes are received into that may be secrets: those that came are wiped, which is a few hundred of 4096. On the heap,
/// since it would be part of the task for as long as the task lives.
struct Wiped {
    bytes: Vec<u8>,
    used: usize,
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.bytes.truncate(self.used);
        self.bytes.as_mut_slice().zeroize();
    }
}

/// Looks at the descriptor without changing anything about it.
fn inspect(descriptor: BorrowedFd<'_>) -> Result<AddressFamily, HandoffError> {
    match getsockopt(&descriptor, sockopt::SockType) {
        Ok(SockType::Stream) => (),
        Ok(_) => return Err(HandoffError::NotAClient("a socket of another type")),
        Err(Errno::ENOTSOCK) => return Err(HandoffError::NotAClient("not a socket")),
        Err(errno) => return Err(client_error("getsockopt", errno)),
    }
    if getsockopt(&descriptor, sockopt::AcceptConn).unwrap_or(false) {
        return Err(HandoffError::NotAClient("a listening socket"));
    }
    // A stream socket of another family can be one that nix does not know the address of.
    let family = getsockname::<SockaddrStorage>(descriptor.as_raw_fd())
        .ok()
        .and_then(|address| address.family());
    match family {
        Some(family @ (AddressFamily::Inet | AddressFamily::Inet6 | AddressFamily::Unix)) => {
            Ok(family)
        }
        _ => Err(HandoffError::NotAClient("a socket of another address family")),
    }
}

/// A client that is this process's to serve or to hang up on: not served, it is shut down before it is closed, because
/// nginx's dup3(2), which drops its own reference, may be microseconds away.
#[derive(Debug)]
pub(crate) struct Owned(Option<OwnedFd>);

impl Owned {
    pub(crate) fn new(fd: OwnedFd) -> Owned {
        Owned(Some(fd))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// For whoever hangs up from now on.
    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        self.0.take()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(fd) = &self.0 {
            let _ = shutdown(fd.as_raw_fd(), Shutdown::Both);
        }
    }
}

/// Checks what could not be checked while the client was nginx's, and sets what serving it takes.
fn prepare(fd: BorrowedFd<'_>, family: AddressFamily) -> Result<(), HandoffError> {
    // ENOTCONN: the client has reset the connection. (A client that has only sent its FIN is still connected.)
    match getpeername::<SockaddrStorage>(fd.as_raw_fd()) {
        Ok(_) => (),
        Err(Errno::ENOTCONN) => return Err(HandoffError::ClientGone),
        Err(errno) => return Err(client_error("getpeername", errno)),
    }
    // nginx's sockets are nonblocking and, after a WebSocket's 101, have TCP_NODELAY; another sender's may not.
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|errno| client_error("fcntl", errno))?;
    let flags = OFlag::from_bits_retain(flags);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
            .map_err(|errno| client_error("fcntl", errno))?;
    }
    if family != AddressFamily::Unix && !getsockopt(&fd, sockopt::TcpNoDelay).unwrap_or(true) {
        // Without it the connection works all the same.
        let _ = setsockopt(&fd, sockopt::TcpNoDelay, &true);
    }
    Ok(())
}

fn client_error(call: &'static str, errno: Errno) -> HandoffError {
    HandoffError::Client { call, source: errno.into() }
}

/// One descriptor is due; room for a few more tells "two came" from MSG_CTRUNC.
const MAX_DESCRIPTORS: u32 = 8;

// SAFETY: CMSG_SPACE is pure arithmetic.
const CONTROL_LEN: usize =
    unsafe { libc::CMSG_SPACE(MAX_DESCRIPTORS * size_of::<RawFd>() as u32) } as usize;

/// A control buffer aligned as `cmsghdr` has to be.
#[repr(C)]
union Control {
    _align: libc::cmsghdr,
    bytes: [u8; CONTROL_LEN],
}

/// recvmsg(2) with MSG_CMSG_CLOEXEC. Not nix's, whose `RecvMsg::cmsgs` fails as a whole on MSG_CTRUNC: the
/// descriptors that did arrive would leak.
fn recvmsg(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Received> {
    let mut control = Control { bytes: [0; CONTROL_LEN] };
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: `msghdr` is plain data for which all zeros means "nothing".
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(&mut part);
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(&mut control).cast();
    message.msg_controllen = CONTROL_LEN as _; // u32 with musl

    // SAFETY: `message` points to `part`, which describes `buf`, and to `control`; all three outlive the call.
    let result = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    let len = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just filled in `message`, whose buffers are still there.
    let descriptors = unsafe { take_descriptors(&message) };
    Ok(Received { len, descriptors, truncated: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Takes possession of every descriptor in a received message.
///
/// # Safety
///
/// `message` must be as recvmsg(2) left it, its control buffer still valid, and this be called once for it.
unsafe fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: per this function's contract, `msg_control` and `msg_controllen` delimit what the kernel wrote.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return pointers to whole, aligned headers within the buffer, or null.
        let header = unsafe { &*next };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic.
            let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (header.cmsg_len as usize).saturating_sub(overhead) / size_of::<RawFd>();
            // SAFETY: as `header`.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: `cmsg_len` bytes of this control message are in the buffer: the kernel lowers it when it
                // truncates. Each number in it was installed in this process by this very call, and has no other owner.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: as CMSG_FIRSTHDR; `next` is the header it or the last CMSG_NXTHDR returned.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    descriptors
}
