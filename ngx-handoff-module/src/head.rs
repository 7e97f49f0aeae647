//! The request head that the backend is sent.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use handoff_metrics::Cause;
use handoff_protocol::{RequestHead, RequestHeadError, Way};
use nginx_sys::{
    NGX_ESCAPE_URI, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_LOG_ERR, NGX_LOG_INFO, ngx_chain_t,
    ngx_chain_writer, ngx_escape_uri, ngx_http_request_t, ngx_int_t, ngx_uint_t,
};

use crate::client;
use crate::conf::FALLBACK_OFF;
use crate::context::Context;
use crate::nginx::{self, OutOfMemory, Request, Upstream};
use crate::set_header;
use crate::tls;

/// Builds the head before any backend is asked, while it can still be the client's fault with no peer involved. On error,
/// the status for the client.
///
/// The peer is not chosen yet: the head offers the socket if it can be passed at all, and [`output_filter`] sends
/// another one to a peer that cannot take it.
pub fn prepare(r: Request) -> Result<(), ngx_int_t> {
    let internal = NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    let (Some(u), Some(context), Some(conf)) = (r.upstream(), Context::of(r), r.conf()) else {
        return Err(internal);
    };
    context.set_fields.set(set_header::evaluate(r, conf).map_err(|OutOfMemory| internal)?);
    context.head.set(encode(r, u, context, context.way.get())?.as_ptr());
    context.head_way.set(context.way.get());
    Ok(())
}

/// `u->create_request`: the head exists already, but nginx may have put a request body in its place (mirror reads one even
/// where there is none).
pub unsafe extern "C" fn create_request(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request whose upstream it is starting.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };
    // SAFETY: the upstream of this request; the chain lives in its pool.
    unsafe { (*u.raw()).request_bufs = context.head.get() };
    context.ledger.begin(r);
    // nginx has just installed its watch over a client that leaves early.
    context.nginx_read.set(r.replace_read_handler(Some(client::readable)));
    nginx::OK
}

/// `u->reinit_request`: nothing is kept from one peer to the next but what [`output_filter`] sets for each.
pub unsafe extern "C" fn reinit_request(_r: *mut ngx_http_request_t) -> ngx_int_t {
    nginx::OK
}

/// `u->output.output_filter`: the last station before the socket, and the first at which the peer is known.
/// `input` is null when nginx only wants pending output to be written.
pub unsafe extern "C" fn output_filter(data: *mut c_void, input: *mut ngx_chain_t) -> ngx_int_t {
    // SAFETY: `filter_ctx` was set to the request, which is live while its upstream writes.
    let Some(r) = (unsafe { Request::from_raw(data.cast()) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };

    let mut chain = input;
    if !input.is_null() {
        context.ledger.asking(r);
        let fit = context.way.get().filter(|_| u.peer_is_unix());
        // Each time, since the balancer may have chosen another peer, and there may be another socket by now.
        let offer = fit.filter(|way| *way != Way::FdTls || tls::is_trusted(r, u));
        let was_distrusted = context.is_distrusted.replace(offer != fit);
        context.offered.set(offer);
        if offer != fit && r.conf().is_some_and(|conf| conf.fallback == FALLBACK_OFF) {
            // Whatever it answered could not be used, through no fault of its own: others may be served by it.
            if !was_distrusted {
                context.ledger.keeps_tls(r, tls::Refusal::Trust);
            }
            u.excuse_peer();
            context.ledger.fail_attempt(Cause::Local);
            return nginx::ERROR;
        }
        if offer != context.head_way.get() {
            let Ok(other) = encode(r, u, context, offer) else {
                context.ledger.fail_attempt(Cause::Local);
                return nginx::ERROR;
            };
            chain = other.as_ptr();
        }
    }

    // SAFETY: what nginx would have called itself, with the writer that it has prepared for this peer.
    let rc = unsafe { ngx_chain_writer(ptr::addr_of_mut!((*u.raw()).writer).cast(), chain) };
    match rc {
        nginx::OK => context.ledger.asked(),
        nginx::ERROR => context.ledger.fail_attempt(Cause::Send),
        _ => {}
    }
    rc
}

/// The head as a chain of one buffer; on error, the status for the client.
fn encode(
    r: Request,
    u: Upstream,
    context: Context,
    offer: Option<Way>,
) -> Result<NonNull<ngx_chain_t>, ngx_int_t> {
    let internal = |OutOfMemory| NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    let pool = r.pool();
    let target = request_target(r).map_err(internal)?;
    let set = context.set_fields.get();
    let host = match set.host {
        Some(host) => host,
        None => host(r).map_err(internal)?,
    };

    let head =
        RequestHead { target, host, client_fields: r.fields(), set_fields: set.others, offer };

    let complain = |error: RequestHeadError| {
        let level = if error.status() < 500 { NGX_LOG_INFO } else { NGX_LOG_ERR };
        log_errno!(level, r.log(), 0, "the request for the backend cannot be built: {error}");
        error.status() as ngx_int_t
    };
    let bytes = pool.bytes(head.encoded_len().map_err(complain)?).map_err(internal)?;
    head.encode(bytes).map_err(complain)?;
    u.set_log_uri(target);
    log_debug!(r.log(), "ws_handoff request head: {}", bytes.escape_ascii());
    pool.chain(bytes).map_err(internal)
}

/// The target as `ngx_http_proxy_create_request()` builds it for a `proxy_pass` without URI: what the client wrote as
/// long as that is valid, else the rewritten path, escaped again, with its query.
fn request_target<'a>(r: Request) -> Result<&'a [u8], OutOfMemory> {
    let (path, query, unparsed) = r.target_parts();
    if let Some(unparsed) = unparsed {
        return Ok(unparsed);
    }

    let extra = if r.needs_escaping() { escaped_characters(path) } else { 0 };
    let query_len = if query.is_empty() { 0 } else { query.len() + 1 };
    let path_len = path.len() + 2 * extra;
    let target = r.pool().bytes(path_len + query_len)?;

    let Some((path_part, query_part)) = target.split_at_mut_checked(path_len) else {
        return Err(OutOfMemory);
    };
    if extra == 0 {
        copy(path_part, path);
    } else {
        // SAFETY: `path_part` has room for the path and two more bytes for each character that is escaped.
        unsafe {
            let source = path.as_ptr().cast_mut();
            ngx_escape_uri(path_part.as_mut_ptr(), source, path.len(), NGX_ESCAPE_URI as ngx_uint_t)
        };
    }
    if let Some((mark, rest)) = query_part.split_first_mut() {
        *mark = b'?';
        copy(rest, query);
    }
    Ok(target)
}

fn escaped_characters(path: &[u8]) -> usize {
    // SAFETY: with a null destination the function only counts.
    unsafe {
        let source = path.as_ptr().cast_mut();
        ngx_escape_uri(ptr::null_mut(), source, path.len(), NGX_ESCAPE_URI as ngx_uint_t)
    }
}

/// The host that nginx chose the server by, which is the one of an absolute-form target if there is one, with the port
/// that stood beside it.
pub fn host<'a>(r: Request) -> Result<&'a [u8], OutOfMemory> {
    let name = r.server_name();
    let port = match r.after_absolute_host() {
        Some(rest) => leading_port(rest),
        None => {
            let field = r.host_field();
            // An IPv6 literal ends with its bracket; elsewhere the first colon begins the port.
            let end = field.iter().position(|&b| b == b']').map_or(0, |i| i + 1);
            let rest = field.get(end..).unwrap_or_default();
            rest.iter().position(|&b| b == b':').and_then(|i| rest.get(i..)).map_or(
                &[][..],
                |rest| {
                    let port = leading_port(rest);
                    if port.len() == rest.len() { port } else { &[] }
                },
            )
        }
    };

    let host = r.pool().bytes(name.len() + port.len())?;
    if let Some((name_part, port_part)) = host.split_at_mut_checked(name.len()) {
        copy(name_part, name);
        copy(port_part, port);
    }
    Ok(host)
}

/// `:PORT` at the beginning of `rest`, or nothing.
fn leading_port(rest: &[u8]) -> &[u8] {
    let Some(digits) = rest.strip_prefix(b":") else { return &[] };
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || len > 5 { &[] } else { rest.get(..=len).unwrap_or_default() }
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
