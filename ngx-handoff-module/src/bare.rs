//! `ws_handoff_protocol bare`: for backends that know nothing but to receive a descriptor. nginx connects, answers the 101
//! itself, sends one byte with the client's socket beside it, and closes. No head is sent, and nothing is read.
//!
//! nginx's upstream code is driven as for any backend: peers, `connect_timeout` and `next_upstream` are its own. Its
//! request is empty (`u->request_bufs` is null), so that [`output_filter`] is called once the connection stands, with
//! nothing to write. The code then expects an answer, which it reads through `c->recv`, the place where nginx itself puts
//! what stands between a connection and its reader (TLS, for one). There [`answered_at_once`] stands for one call and
//! says that something has arrived, and [`process_header`] makes the 101 of it. From there on the path is the ordinary
//! one: nginx sends the head, `takeover` waits until it has left, and calls [`deliver`] in place of a commit.
//!
//! The backend has the socket only after the client has its 101: what fails in between ends the client visibly
//! (`release::finalize_request`), since no other answer can be given any more.

use core::ffi::c_void;

use handoff_metrics::Cause;
use nginx_sys::{
    NGX_HTTP_CLOSE, NGX_HTTP_NOT_IMPLEMENTED, NGX_LOG_ERR, ngx_chain_t, ngx_connection_t,
    ngx_http_request_t, ngx_int_t, u_char,
};

use crate::answer::{self, Unusable};
use crate::context::{Context, Fault, Phase};
use crate::nginx::{self, Request, Upstream};
use crate::{descriptor, release, takeover};

/// What cannot be handed over in this mode, whatever the backend: the status that refuses it.
pub fn refusal(r: Request) -> Option<ngx_int_t> {
    if r.connection().is_tls() {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "a TLS connection cannot be handed over with \"ws_handoff_protocol bare\""
        );
        return Some(NGX_HTTP_NOT_IMPLEMENTED as ngx_int_t);
    }
    // What nginx has not read yet is still in the socket, and goes with it.
    if has_early_data(r) {
        return Some(NGX_HTTP_CLOSE as ngx_int_t);
    }
    None
}

fn has_early_data(r: Request) -> bool {
    let early = r.early_data().len();
    if early != 0 {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "client sent {early} bytes before it had an answer, which \"ws_handoff_protocol bare\" cannot pass on"
        );
    }
    early != 0
}

/// `u->output.output_filter`: the connection stands, and there is nothing to write.
pub unsafe extern "C" fn output_filter(data: *mut c_void, _input: *mut ngx_chain_t) -> ngx_int_t {
    // SAFETY: `filter_ctx` was set to the request, which is live while its upstream writes.
    let Some(r) = (unsafe { Request::from_raw(data.cast()) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };
    context.ledger.asking(r);
    let Some(backend) = u.connection() else { return nginx::ERROR };

    if !u.peer_is_unix() {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "\"ws_handoff_protocol bare\" needs a Unix socket, which upstream is not"
        );
        context.ledger.fail_attempt(Cause::Local);
        return nginx::ERROR;
    }
    context.ledger.asked();
    backend.replace_recv(Some(answered_at_once));
    nginx::OK
}

/// `c->recv` for one call: one byte that stands for an answer.
unsafe extern "C" fn answered_at_once(
    c: *mut ngx_connection_t,
    buf: *mut u_char,
    size: usize,
) -> isize {
    // SAFETY: nginx passes the connection that it reads, whose `data` is the upstream's request.
    let Some(r) = (unsafe { Request::from_raw((*c).data.cast()) }) else { return nginx::ERROR };
    let Some(backend) = r.upstream().and_then(Upstream::connection) else { return nginx::ERROR };
    // Should the backend say or close something, it is noticed from now on.
    backend.restore_recv();
    if size == 0 {
        return nginx::ERROR;
    }
    // SAFETY: nginx passes room for `size` bytes.
    unsafe { *buf = 0 };
    1
}

/// `u->process_header`: the answer is the 101.
pub unsafe extern "C" fn process_header(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request whose upstream it reads.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };

    u.consume(u.unparsed().len());
    u.forget_received();
    let (verdict, cause) = match promise(r, u, context) {
        Ok(()) => return nginx::OK,
        Err(Unusable::Internal(cause)) => (nginx::ERROR, cause),
        Err(Unusable::Peer(cause)) => (nginx::INVALID_HEADER, cause),
    };
    context.ledger.fail_attempt(cause);
    verdict
}

fn promise(r: Request, u: Upstream, context: Context) -> Result<(), Unusable> {
    answer::begin_101(r, u, context)?;
    takeover::prepare(r, context)?;
    takeover::begin(r, context, Phase::Promised);
    Ok(())
}

/// Sends the socket of a client that has its 101, and lets go of it. The request may be gone afterwards.
pub fn deliver(r: Request, u: Upstream, context: Context) {
    if has_early_data(r) {
        return takeover::fail(r, u, context, Fault::Client);
    }
    let Some(backend) = u.connection() else {
        return takeover::fail(r, u, context, Fault::Backend);
    };
    if let Err(errno) = descriptor::send_offer(backend.fd(), r.connection().fd()) {
        takeover::log_failed_offer(r, errno);
        if descriptor::is_local(errno) {
            u.excuse_peer();
            context.ledger.fail_attempt(Cause::Local);
        } else {
            context.ledger.fail_attempt(Cause::Send);
        }
        return takeover::fail(r, u, context, Fault::Unknown);
    }
    context.ledger.offered();
    release::release(r, context);
    takeover::finish(r, u, context);
}
