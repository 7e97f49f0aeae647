//! Socket activation: listening sockets inherited from a service manager, by the convention of sd_listen_fds(3).

use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use crate::error::BindError;

/// A listening stream socket.
pub(crate) enum Listening {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Takes the sockets passed to this process, once.
pub(crate) fn listening_sockets() -> Result<Vec<Listening>, BindError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);

    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // Without a fitting LISTEN_PID they were meant for a parent process, which left the variables behind.
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => return Ok(Vec::new()),
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let last = FIRST_FD.saturating_add_unsigned(count.min(1024));
    (FIRST_FD..last).map(take).collect()
}

/// SD_LISTEN_FDS_START
const FIRST_FD: RawFd = 3;

fn take(number: RawFd) -> Result<Listening, BindError> {
    // SAFETY: only borrowed for a call that fails with EBADF if there is no such descriptor.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(probe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|_| BindError::NotListening(number))?;
    // SAFETY: it is open, and the environment says that it was passed to this process for this purpose;
    // `listening_sockets` gets here once in a process.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };

    let stream = getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream);
    let listening = getsockopt(&fd, sockopt::AcceptConn) == Ok(true);
    let family =
        getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok().and_then(|address| address.family());
    match family {
        Some(AddressFamily::Unix) if stream && listening => {
            Ok(Listening::Unix(UnixListener::from(fd)))
        }
        Some(AddressFamily::Inet | AddressFamily::Inet6) if stream && listening => {
            Ok(Listening::Tcp(TcpListener::from(fd)))
        }
        _ => Err(BindError::NotListening(number)),
    }
}
