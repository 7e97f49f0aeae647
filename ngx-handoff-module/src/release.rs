//! nginx lets a socket go. The order of the steps is the one that proved clean under epoll and poll; each comment says
//! what goes wrong without its step.

use core::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::OnceLock;

use nginx_sys::NGX_LOG_ERR;
use rustix::io::{DupFlags, Errno, dup3};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::context::{Context, Phase};
use crate::nginx::{OutOfMemory, Request};

/// One end, per worker, of a socketpair whose other end is closed.
static DUMMY: OnceLock<OwnedFd> = OnceLock::new();

/// Creates the dummy. Once per process; later calls do nothing.
pub fn create_dummy() -> Result<(), Errno> {
    if DUMMY.get().is_none() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (end, _closed_here) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let _ = DUMMY.set(end);
    }
    Ok(())
}

/// Installs what must happen at the end of a request whose socket was offered. Once per request; before the offer.
pub fn install_cleanup(r: Request, context: &Context) -> Result<(), OutOfMemory> {
    if !context.cleanup_installed.get() {
        r.on_end(at_end, context.as_data())?;
        context.cleanup_installed.set(true);
    }
    Ok(())
}

/// Makes nginx forget the client's socket, which is the backend's now. The request is finalized by the caller.
pub fn release(r: Request, context: &Context) {
    let client = r.connection();

    // A registration with epoll belongs to the open file description, which lives on in the backend: left behind, it
    // would wake this worker for a stranger's traffic, and hit whoever gets the connection slot next.
    client.stop_watching();

    // From here on, whatever nginx does to that number (shutdown, SO_LINGER, recv) ends at the dummy.
    match DUMMY.get().map(|dummy| replace(client.fd(), dummy.as_fd())) {
        Some(Ok(())) => {}
        Some(Err(errno)) => {
            log_errno!(NGX_LOG_ERR, r.log(), errno.raw_os_error(), "ws_handoff: dup3() failed");
        }
        None => log_errno!(NGX_LOG_ERR, r.log(), 0, "ws_handoff: the worker has no dummy socket"),
    }

    // The early data went with the commit. No keep-alive, no lingering close: straight to close(2).
    r.drop_early_data();
    client.pretend_eof();
    context.phase.set(Phase::Released);
}

/// Makes the number of `place` refer to what `substitute` refers to.
fn replace(place: BorrowedFd<'_>, substitute: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: an open descriptor, wrapped for the length of this call only: it is given up again below, and stays
    // nginx's to close.
    let mut owned = unsafe { OwnedFd::from_raw_fd(place.as_raw_fd()) };
    let result = dup3(substitute, &mut owned, DupFlags::CLOEXEC);
    let _ = owned.into_raw_fd();
    result
}

/// Runs when the request's pool is destroyed, just before nginx closes the connection.
unsafe extern "C" fn at_end(data: *mut c_void) {
    // SAFETY: `install_cleanup` registered the context's own pointer with the pool that it lives in.
    let Some(context) = (unsafe { Context::from_data(data) }) else { return };
    match context.phase.get() {
        Phase::Asking => {}
        // Offered but not committed: the backend holds a duplicate that it may not touch, so that close(2) here would
        // leave the client connected to nobody.
        Phase::Offered | Phase::Committing => context.client.hang_up(),
        // A post_action or a lingering close has registered the dummy: the event loop would keep it for ever.
        Phase::Released => context.client.stop_watching(),
    }
}
