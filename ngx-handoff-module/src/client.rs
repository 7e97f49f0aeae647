//! A client that closes its side while a backend is being asked, or has no room for an answer.

use handoff_metrics::Cause;
use handoff_protocol::Way;
use nginx_sys::{
    NGX_HTTP_REQUEST_TIME_OUT, NGX_LOG_INFO, ngx_http_finalize_request, ngx_http_request_t,
    ngx_int_t,
};
use rustix::io::Errno;

use crate::context::Context;
use crate::handler;
use crate::nginx::{Connection, Request};

/// `r->read_event_handler` until the socket is released, in front of nginx's own (which finalizes with 499).
///
/// A client that has sent frames and then closed is owed their delivery: it is handed over like any other, and the
/// backend reads the frames and then end of file. Only one that has left nothing unread, or that has reset the
/// connection, is given up.
pub unsafe extern "C" fn readable(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that the event belongs to.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let Some(context) = Context::of(r) else { return };
    let client = r.connection();

    if !client.error() && client.may_be_closed() && owes_frames(r, context) {
        log_debug!(r.log(), "ws_handoff: the client has closed, but bytes of it are unread");
        client.read().quiet_read();
        return;
    }

    if let Some(handler) = context.nginx_read.get() {
        // SAFETY: nginx's own handler for this request and event.
        unsafe { handler(r.raw()) };
    }
}

/// Whether there is something that a backend could still read. What nginx has decrypted counts; of unread records only those
/// that a backend will get, and not if there is but an alert that says goodbye.
fn owes_frames(r: Request, context: Context) -> bool {
    let client = r.connection();
    let unread = !r.early_data().is_empty()
        || match context.way.get() {
            Some(Way::Fd) => client.has_unread_bytes(),
            Some(Way::FdTls) => has_unread_records(client),
            None => false,
        };
    unread && !client.was_reset()
}

/// Whether there is more than one alert. TLS 1.3 hides which records are alerts, but no other one is as short: two bytes,
/// their type and the tag. The shortest frame of a client has six.
fn has_unread_records(client: Connection) -> bool {
    const ALERT_TLS13: [u8; 5] = [23, 3, 3, 0, 2 + 1 + 16];
    const ALERT: u8 = 21;
    let mut room = [0; ALERT_TLS13.len() + 19 + 1];
    match client.peek(&mut room) {
        [] | [ALERT, ..] => false,
        bytes => !(bytes.starts_with(&ALERT_TLS13) && bytes.len() < ALERT_TLS13.len() + 20),
    }
}

/// Waits until the client's send buffer has room for a response head, then starts the upstream; for connections that nginx is
/// going to tunnel. Its tunnel would begin with whatever follows a head that it could not write
/// (`ngx_http_upstream_process_upgraded()` does not look at pending output).
pub fn wait_for_room(r: Request) {
    let client = r.connection();
    let Some(core) = r.core_conf() else { return time_out(r) };
    r.replace_write_handler(Some(room));
    client.write().unready();
    client.write().start_timer(core.send_timeout);
    if !client.write().wait_writable(core.send_lowat) {
        time_out(r);
    }
}

/// `r->write_event_handler` during that wait.
unsafe extern "C" fn room(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that the event belongs to.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let client = r.connection();

    if client.write().timed_out() {
        let errno = Errno::TIMEDOUT.raw_os_error();
        log_errno!(NGX_LOG_INFO, r.log(), errno, "client timed out");
        time_out(r);
    } else if client.has_room() {
        client.write().cancel_timer();
        r.replace_write_handler(Some(nginx_sys::ngx_http_request_empty_handler));
        handler::start_upstream(r);
    } else {
        wait_for_room(r);
    }
}

fn time_out(r: Request) {
    r.connection().set_timed_out();
    if let Some(context) = Context::of(r) {
        context.ledger.fail_request(Cause::Client);
    }
    // SAFETY: releases the reference that was taken for the upstream, which has not been started.
    unsafe { ngx_http_finalize_request(r.raw(), NGX_HTTP_REQUEST_TIME_OUT as ngx_int_t) };
}
