//! From the backend's 101 to the commit: the offer, the wait for the client to have its 101, the commit, the release.
//!
//! nginx's unbuffered response path is used up to the point where it would begin to read a body: `input_filter_init` is
//! called once the head has been given to the client's connection, and takes over from there.

use core::ffi::c_void;

use handoff_metrics::Cause;
use handoff_protocol::tls::{State, cleanse_stack};
use handoff_protocol::{Way, commit_len, encode_commit, section};
use nginx_sys::{NGX_LOG_ERR, NGX_LOG_INFO, ngx_http_request_t, ngx_http_upstream_t, ngx_int_t};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::answer::Unusable;
use crate::context::{Context, Fault, Phase};
use crate::nginx::{self, Connection, OutOfMemory, Request, Upstream};
use crate::{bare, descriptor, refusal, release, tls};

/// Offers the client's socket to a backend that has answered that it wants it.
pub fn offer(r: Request, u: Upstream, context: Context) -> Result<(), Unusable> {
    let client = r.connection();
    let Some(backend) = u.connection() else { return Err(Unusable::Internal(Cause::Local)) };

    if backend.read().pending_eof() {
        log_errno!(NGX_LOG_ERR, r.log(), 0, "upstream closed the connection after its answer");
        return Err(Unusable::Peer(Cause::Send));
    }
    prepare(r, context)?;

    if let Err(errno) = descriptor::send_offer(backend.fd(), client.fd()) {
        log_failed_offer(r, errno);
        if !descriptor::is_local(errno) {
            return Err(Unusable::Peer(Cause::Send));
        }
        u.excuse_peer();
        return Err(Unusable::Peer(Cause::Local));
    }
    context.ledger.offered();

    if context.offered.get() == Some(Way::FdTls) {
        context.before_the_101.set(tls::sent(client));
    }
    begin(r, context, Phase::Offered);
    Ok(())
}

/// The 101 follows.
pub fn begin(r: Request, context: Context, phase: Phase) {
    context.phase.set(phase);
    r.prepare_takeover();
    r.lift_rate_limit();
}

/// What can fail, and so comes before anything that cannot be taken back.
pub fn prepare(r: Request, context: Context) -> Result<(), Unusable> {
    if let Err(errno) = r.connection().prepare_for_small_writes() {
        log_errno!(
            NGX_LOG_INFO,
            r.log(),
            errno.raw_os_error(),
            "setsockopt() on the client's socket failed"
        );
        return Err(Unusable::Internal(Cause::Client));
    }
    release::install_cleanup(r, context)?;
    Ok(())
}

/// Says that, and why, the socket could not be sent.
pub fn log_failed_offer(r: Request, errno: Errno) {
    log_errno!(
        NGX_LOG_ERR,
        r.log(),
        errno.raw_os_error(),
        "sendmsg() of the client's socket to the upstream failed{}",
        if errno == Errno::TOOMANYREFS { ", raise worker_rlimit_nofile" } else { "" }
    );
}

/// `u->input_filter_init`: the head has been given to the client's connection.
pub unsafe extern "C" fn input_filter_init(data: *mut c_void) -> ngx_int_t {
    // SAFETY: `input_filter_ctx` was set to the request, which is live while its response is sent.
    let Some(r) = (unsafe { Request::from_raw(data.cast()) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };

    if context.phase.get().awaits_101() {
        context.nginx_write.set(r.replace_write_handler(Some(client_writable)));
        // "More is to come": nginx must neither finish nor wait for the client to be written to before the handler
        // just installed has run. Its read handler stays, so that a backend that closes ends the client.
        u.set_remaining(1);
        r.connection().write().post();
    } else {
        context.ledger.refusal_sent();
        refusal::begin(u);
    }
    nginx::OK
}

/// `r->write_event_handler` from the takeover on.
unsafe extern "C" fn client_writable(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that the event belongs to.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return };
    let client = r.connection();

    if client.write().timed_out() {
        context.resume_nginx(r);
        return;
    }
    // While the commit is on its way there is nothing to be written to the client. A level-triggered event loop has to
    // be told, or it would report the client as writable for ever.
    if !context.phase.get().awaits_101() {
        if !client.write().wait_writable(0) {
            fail(r, u, context, Fault::Client);
        }
        return;
    }

    if r.output_pending() && !r.flush() {
        fail(r, u, context, Fault::Client);
        return;
    }
    if r.output_pending() {
        wait_for_client(r, u, context, client);
        return;
    }

    client.write().cancel_timer();
    if context.phase.get() == Phase::Promised {
        bare::deliver(r, u, context);
        return;
    }
    if begin_commit(r, u, context).is_err() {
        context.ledger.fail_attempt(Cause::Local);
        fail(r, u, context, Fault::Unknown);
    }
}

/// The client's send buffer is full: waits until it takes more, for as long as `send_timeout` says. The backend, which
/// has nothing to say meanwhile, is not timed.
fn wait_for_client(r: Request, u: Upstream, context: Context, client: Connection) {
    let Some(core) = r.core_conf() else { return fail(r, u, context, Fault::Client) };
    if let Some(backend) = u.connection() {
        backend.read().cancel_timer();
    }
    client.write().start_timer(core.send_timeout);
    if !client.write().wait_writable(core.send_lowat) {
        fail(r, u, context, Fault::Client);
    }
}

/// A function of its own, so that what is left on its stack lies where `cleanse_stack`, which is called next, overwrites it.
#[inline(never)]
fn encode_commit_of(r: Request, context: Context) -> Result<(), OutOfMemory> {
    let mut room = Zeroizing::new([0; State::MAX_LEN]);
    let is_tls = context.offered.get() == Some(Way::FdTls);
    let state = if is_tls { tls_state(r, context, &mut room)? } else { &[] };
    let early = r.early_data();
    let sections = [(section::TLS_STATE, state), (section::EARLY_DATA, early)];
    let sections = match (is_tls, early.is_empty()) {
        (true, false) => sections.as_slice(),
        (true, true) => sections.get(..1).unwrap_or_default(),
        (false, false) => sections.get(1..).unwrap_or_default(),
        (false, true) => &[],
    };
    let buffer = r.pool().bytes(commit_len(sections).ok_or(OutOfMemory)?)?;
    let encoded = encode_commit(sections, buffer);
    context.set_commit(buffer, is_tls);
    encoded.ok_or(OutOfMemory).map(|_| ())
}

fn begin_commit(r: Request, u: Upstream, context: Context) -> Result<(), OutOfMemory> {
    let encoded = encode_commit_of(r, context);
    if context.offered.get() == Some(Way::FdTls) {
        cleanse_stack();
    }
    encoded?;
    context.phase.set(Phase::Committing);
    u.set_write_handler(Some(backend_writable));
    continue_commit(r, u, context);
    Ok(())
}

/// The state of the client's session, now that the 101 was the last that nginx has to say in it.
fn tls_state(
    r: Request,
    context: Context,
    room: &mut [u8; State::MAX_LEN],
) -> Result<&[u8], OutOfMemory> {
    match tls::export(r.connection(), context.before_the_101.get(), room) {
        Ok(len) => Ok(room.get(..len).unwrap_or_default()),
        Err(refusal) => {
            let reason = tls::Reason(refusal);
            log_errno!(
                NGX_LOG_ERR,
                r.log(),
                0,
                "the TLS session cannot be handed over any more: {reason}"
            );
            Err(OutOfMemory)
        }
    }
}

/// `u->write_event_handler` while the commit is written.
unsafe extern "C" fn backend_writable(r: *mut ngx_http_request_t, _u: *mut ngx_http_upstream_t) {
    // SAFETY: nginx passes the request whose upstream the event belongs to.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return };

    if u.connection().is_none_or(|backend| backend.write().timed_out()) {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            Errno::TIMEDOUT.raw_os_error(),
            "upstream timed out while the hand-over was being committed"
        );
        fail(r, u, context, Fault::Backend);
        return;
    }
    continue_commit(r, u, context);
}

/// Writes as much of the commit as the backend's socket takes; releases the client once all of it is written.
fn continue_commit(r: Request, u: Upstream, context: Context) {
    let Some(backend) = u.connection() else { return fail(r, u, context, Fault::Backend) };

    while !context.commit.get().is_empty() {
        let rest = context.commit.get();
        let sent = backend.send(rest);
        if sent == nginx::AGAIN {
            backend.read().cancel_timer();
            backend.write().start_timer(u.send_timeout());
            if !backend.write().wait_writable(0) {
                fail(r, u, context, Fault::Backend);
            }
            return;
        }
        match usize::try_from(sent) {
            Ok(n) if n > 0 => context.commit.set(rest.get(n..).unwrap_or_default()),
            // c->send() has logged the cause.
            _ => return fail(r, u, context, Fault::Backend),
        }
    }

    release::release(r, context);
    // Nothing is under way on it any more: an upstream{} with `keepalive` may use it for the next client.
    if context.keepalive.get() {
        u.keep_connection();
    }
    finish(r, u, context);
}

/// Ends a request whose socket has been let go of. It is gone afterwards.
pub fn finish(r: Request, u: Upstream, context: Context) {
    u.set_remaining(0);
    r.set_header_only();
    log_debug!(r.log(), "ws_handoff: the client's socket was handed over");
    // Finalizes and writes the access log.
    context.resume_nginx(r);
}

/// Ends a hand-over that cannot be completed: nginx finalizes the upstream, which hangs up on the client
/// (`release::finalize_request`).
pub fn fail(r: Request, u: Upstream, context: Context, fault: Fault) {
    context.fault.set(fault);
    r.connection().set_error();
    u.set_error();
    context.resume_nginx(r);
}
