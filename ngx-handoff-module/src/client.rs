//! A client that closes its side while a backend is being asked.

use nginx_sys::ngx_http_request_t;

use crate::context::Context;
use crate::nginx::Request;

/// `r->read_event_handler` until the socket is released, in front of nginx's own (which finalizes with 499).
///
/// A client that has sent frames and then closed is owed their delivery: it is handed over like any other, and the
/// backend reads the frames and then end of file. Only one that has left nothing unread is given up.
pub unsafe extern "C" fn readable(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that the event belongs to.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let Some(context) = Context::of(r) else { return };
    let client = r.connection();

    if !client.error() && client.may_be_closed() && r.has_bytes_after_head() {
        log_debug!(r.log(), "ws_handoff: the client has closed, but bytes of it are unread");
        client.read().quiet_read();
        return;
    }

    if let Some(handler) = context.nginx_read.get() {
        // SAFETY: nginx's own handler for this request and event.
        unsafe { handler(r.raw()) };
    }
}
