//! Before a backend is asked: what OpenSSL has read from the client already is decrypted and becomes early data, up to the end
//! of a record. What cannot be drained in time, or is too much, stays in nginx.

use core::ffi::c_int;

use handoff_metrics::Cause;
use nginx_sys::{
    NGX_HTTP_CLIENT_CLOSED_REQUEST, NGX_LOG_INFO, ngx_http_block_reading,
    ngx_http_finalize_request, ngx_http_request_t, ngx_int_t, ngx_msec_t,
};

use super::export;
use super::openssl::{self, OpenSsl, Ssl};
use super::refusal::Refusal;
use crate::context::Context;
use crate::handler;
use crate::nginx::Request;

/// How long nginx waits for the rest of a record, in milliseconds: it is on its way, since clients write records whole.
const PATIENCE: ngx_msec_t = 2_000;

/// The most early data, in bytes: what a backend should accept (docs/protocol.md).
const MOST: usize = 64 * 1024;

/// The longest plaintext of a record, in bytes.
const RECORD: usize = 16 * 1024;

/// `SSL_ERROR_WANT_READ`
const WANT_READ: c_int = 2;
/// `SSL_ERROR_ZERO_RETURN`
const ZERO_RETURN: c_int = 6;

/// Why a session is not drained.
enum Stop {
    /// It stays in nginx.
    Keep(Refusal),
    /// It is over: a record that cannot be opened, or a connection that is gone. OpenSSL has sent its alert.
    Broken,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Keep(refusal)
    }
}

/// Drains the client's session, if it is one that can be handed over, then goes on with `handler::drained`; at once, or once
/// the rest of a record is there. The request may be gone afterwards.
pub fn drain(r: Request, context: Context) {
    match step(r) {
        Ok(true) => handler::drained(r, context, None),
        Ok(false) => {
            let client = r.connection();
            r.replace_read_handler(Some(readable));
            // Once, so that a client that sends a byte at a time does not get more.
            if !client.read().timer_set() {
                client.read().start_timer(PATIENCE);
            }
            if !client.read().wait_readable() {
                done(r, context, Refusal::Closed);
            }
        }
        Err(stop) => stopped(r, context, stop),
    }
}

/// Whether OpenSSL reads more than a record at a time from the socket.
pub fn read_ahead(openssl: &OpenSsl, ssl: *mut Ssl, yes: bool) {
    // SAFETY: a live connection.
    unsafe { (openssl.SSL_set_read_ahead)(ssl, yes.into()) };
}

/// `r->read_event_handler` while the rest of a record is waited for.
unsafe extern "C" fn readable(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that the event belongs to.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return };
    let Some(context) = Context::of(r) else { return };
    if r.connection().read().timed_out() {
        r.connection().read().clear_timed_out();
        done(r, context, Refusal::Slow);
        return;
    }
    match step(r) {
        Ok(true) => {
            stop_waiting(r);
            handler::drained(r, context, None);
        }
        Ok(false) => {
            if !r.connection().read().wait_readable() {
                done(r, context, Refusal::Closed);
            }
        }
        Err(stop) => stopped(r, context, stop),
    }
}

fn stopped(r: Request, context: Context, stop: Stop) {
    match stop {
        Stop::Keep(refusal) => done(r, context, refusal),
        Stop::Broken => {
            stop_waiting(r);
            log_errno!(
                NGX_LOG_INFO,
                r.log(),
                0,
                "client broke its TLS session off before it was handed over"
            );
            // Nothing more is written to it: OpenSSL would fail, and nginx log that as critical.
            r.connection().set_error();
            context.ledger.fail_request(Cause::Client);
            let status = NGX_HTTP_CLIENT_CLOSED_REQUEST as ngx_int_t;
            // SAFETY: releases the reference that was taken for the upstream, which has not been started.
            unsafe { ngx_http_finalize_request(r.raw(), status) };
        }
    }
}

fn stop_waiting(r: Request) {
    r.connection().read().cancel_timer();
    r.replace_read_handler(Some(ngx_http_block_reading));
}

fn done(r: Request, context: Context, refusal: Refusal) {
    stop_waiting(r);
    super::keep(r.connection());
    // A tunnel reads what OpenSSL may hold, of which the socket says nothing.
    r.connection().read().make_ready();
    handler::drained(r, context, Some(refusal));
}

/// Reads up to the end of a record; false if its rest has not arrived.
fn step(r: Request) -> Result<bool, Stop> {
    let openssl = openssl::get().ok_or(Refusal::Secrets)?;
    let ssl: *mut Ssl = r.connection().tls().ok_or(Refusal::Closed)?.as_ptr().cast();
    if let Err(refusal) = export::check(openssl, ssl) {
        return Err(refused(r, openssl, ssl, refusal));
    }

    // Stops as soon as it can: a client that sends without a pause would never be drained otherwise.
    while !export::is_between_records(openssl, ssl) {
        if !read(r, openssl, ssl)? {
            // A KeyUpdate or the like is no data.
            return Ok(export::is_between_records(openssl, ssl));
        }
    }
    Ok(true)
}

/// A session that cannot be handed over is not tunnelled either if OpenSSL has given it up, upon an alert or a bad record: it would
/// write nothing more.
fn refused(r: Request, openssl: &OpenSsl, ssl: *mut Ssl, refusal: Refusal) -> Stop {
    if !export::may_be_broken(openssl, ssl) {
        return Stop::Keep(refusal);
    }
    match refusal {
        Refusal::Closed => Stop::Broken,
        // What comes is early data of a tunnel.
        _ => match read(r, openssl, ssl) {
            Err(Stop::Broken) => Stop::Broken,
            _ => Stop::Keep(refusal),
        },
    }
}

/// Reads of one record at most; false if nothing has come.
fn read(r: Request, openssl: &OpenSsl, ssl: *mut Ssl) -> Result<bool, Stop> {
    let (place, room) = r.early_room(MOST).map_err(|_| Refusal::Flood)?;
    let len = room.min(RECORD);
    if len == 0 {
        return Err(Refusal::Flood.into());
    }
    // Anew each time, since a KeyUpdate turns it on.
    read_ahead(openssl, ssl, false);
    // SAFETY: a live connection, and room for `len` bytes, which is at most 2^14. c->recv would go on to the next record.
    let (read, error) = unsafe {
        (openssl.ERR_clear_error)();
        let read = (openssl.SSL_read)(ssl, place.cast(), len as c_int);
        let error = if read > 0 { 0 } else { (openssl.SSL_get_error)(ssl, read) };
        (openssl.ERR_clear_error)();
        (read, error)
    };
    match usize::try_from(read) {
        Ok(read) if read > 0 => {
            r.add_early_data(read);
            Ok(true)
        }
        _ if error == WANT_READ => Ok(false),
        _ if error == ZERO_RETURN => Err(Refusal::Closed.into()),
        _ => Err(Stop::Broken),
    }
}
