//! nginx lets a socket go. The order of the steps is the one that proved clean under epoll and poll; each comment says
//! what goes wrong without its step.

use core::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use handoff_metrics::Cause;
use nginx_sys::{
    NGX_HTTP_BAD_GATEWAY, NGX_HTTP_GATEWAY_TIME_OUT, NGX_LOG_ERR, dup3, ngx_errno,
    ngx_http_request_t, ngx_int_t,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::context::{Context, Fault, Phase};
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
pub fn install_cleanup(r: Request, context: Context) -> Result<(), OutOfMemory> {
    if !context.cleanup_installed.get() {
        r.on_end(at_end, context.as_data())?;
        context.cleanup_installed.set(true);
    }
    Ok(())
}

/// Makes nginx forget the client's socket, which is the backend's now. The request is finalized by the caller.
pub fn release(r: Request, context: Context) {
    let client = r.connection();

    // What the access log may want to know ($server_addr, $server_port) and the dummy could not tell.
    client.learn_local_address();

    // A registration with epoll belongs to the open file description, which lives on in the backend: left behind, it
    // would wake this worker for a stranger's traffic, and hit whoever gets the connection slot next.
    client.stop_watching();

    // Nor a goodbye to the client in TLS.
    context.forget_commit();
    client.keep_tls_quiet();

    // From here on, whatever nginx does to that number (shutdown, SO_LINGER, recv) ends at the dummy.
    match DUMMY.get() {
        Some(dummy) => {
            if !replace(client.raw_fd(), dummy.as_raw_fd()) {
                log_errno!(NGX_LOG_ERR, r.log(), ngx_errno(), "ws_handoff: dup3() failed");
            }
        }
        None => log_errno!(NGX_LOG_ERR, r.log(), 0, "ws_handoff: the worker has no dummy socket"),
    }

    context.ledger.handed_over(r.early_data().len(), context.offered.get());

    // The early data went with the commit. No keep-alive, no lingering close: straight to close(2).
    r.drop_early_data();
    client.pretend_eof();
    context.phase.set(Phase::Released);
}

/// Makes the number `place` refer to what `substitute` refers to; the number stays nginx's to close.
fn replace(place: RawFd, substitute: RawFd) -> bool {
    let close_on_exec = rustix::io::DupFlags::CLOEXEC.bits() as i32;
    // SAFETY: two open descriptors, of which the first is not wrapped in a Rust type that would own it.
    unsafe { dup3(substitute, place, close_on_exec) != -1 }
}

/// `u->finalize_request`: nginx is done with the upstream, for whatever reason `rc` tells, and is going to finish the
/// request. That can take long (a post_action, a mirror), so that a hand-over that failed ends here and not later.
pub unsafe extern "C" fn finalize_request(r: *mut ngx_http_request_t, rc: ngx_int_t) {
    // SAFETY: nginx passes the request whose upstream it finalizes.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return };

    let cause = match context.phase.get() {
        // The client may have sent frames for whoever was to serve them: what follows on this connection, after
        // this response, must not be parsed as a request. Once a head has left, that has been decided
        // (`answer::refuse`), and the client may have gone on to its next request already.
        Phase::Asking => {
            if !r.head_sent() {
                r.disable_keepalive_after_frames();
            }
            None
        }
        Phase::Promised | Phase::Offered | Phase::Committing => {
            abort(context);
            let verdict = [NGX_HTTP_BAD_GATEWAY, NGX_HTTP_GATEWAY_TIME_OUT].map(|s| s as ngx_int_t);
            let blamed = match context.fault.get() {
                Fault::Backend => true,
                Fault::Unknown => verdict.contains(&rc),
                Fault::Client => false,
            };
            if blamed {
                u.blame_peer();
            }
            Some(if blamed { Cause::Backend } else { Cause::Client })
        }
        Phase::Released | Phase::Aborted => None,
    };
    context.ledger.close(r, rc, cause);
}

/// Ends a client whose socket was offered and not committed, or promised and not sent. The backend may hold a duplicate that it may not touch: close(2)
/// would leave the client connected to nobody, and its registration with epoll to whoever gets the slot next.
fn abort(context: Context) {
    let client = context.client;
    context.forget_commit();
    client.stop_watching();
    client.hang_up();
    client.set_error();
    client.pretend_eof();
    context.phase.set(Phase::Aborted);
}

/// Runs when the request's pool is destroyed, just before nginx closes the connection.
unsafe extern "C" fn at_end(data: *mut c_void) {
    // SAFETY: `install_cleanup` registered the context's own pointer with the pool that it lives in.
    let Some(context) = (unsafe { Context::from_data(data) }) else { return };
    match context.phase.get() {
        Phase::Asking => {}
        Phase::Promised | Phase::Offered | Phase::Committing => abort(context),
        // A post_action or a lingering close has registered the descriptor again. What it refers to is not closed with
        // it, so that the event loop would keep it for ever.
        Phase::Released | Phase::Aborted => context.client.stop_watching(),
    }
}
