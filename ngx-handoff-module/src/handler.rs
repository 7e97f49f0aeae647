//! The content handler: checks the opening handshake and starts the upstream.

use core::ptr;

use handoff_metrics::{Cause, Rejection};
use handoff_protocol::{HandshakeError, RequestLine, Way, validate};
use nginx_sys::{
    NGX_HTTP_FORBIDDEN, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_NOT_IMPLEMENTED,
    NGX_HTTP_SPECIAL_RESPONSE, NGX_LOG_ERR, NGX_LOG_INFO, ngx_http_finalize_request,
    ngx_http_request_t, ngx_http_upstream_init, ngx_int_t,
};
use ngx::ngx_string;

use crate::conf::{FALLBACK_OFF, LocationConf, PROTOCOL_BARE, TLS_OFF, TLS_TUNNEL};
use crate::context::Context;
use crate::ledger::Ledger;
use crate::nginx::{self, OutOfMemory, Request, Upstream};
use crate::{answer, bare, client, head, origin, refusal, release, takeover, target, tls};

/// nginx's entry for a request in a location with `ws_handoff`.
pub unsafe extern "C" fn handle(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request that it is processing.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return nginx::ERROR };

    if !r.is_main() {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "\"ws_handoff\" cannot serve a subrequest or a post_action"
        );
        return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    }

    // Reached by "error_page 404 /ws": the client is owed that status, and a 101 would not even be sent as one, since
    // ngx_http_send_header() puts err_status in its place.
    if r.error_status() != 0 {
        return refuse_error_page(r);
    }

    let line =
        RequestLine { method: r.method(), version: r.http_version(), has_body: r.has_body() };
    let accept = match validate(&line, r.fields()) {
        Ok(handshake) => handshake.accept,
        Err(error) => return reject(r, &error),
    };

    let Some(conf) = r.conf() else { return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t };
    match origin::admits(r, conf) {
        Ok(true) => {}
        Ok(false) => {
            r.disable_keepalive_after_frames();
            Ledger::reject(r, Rejection::Origin);
            return NGX_HTTP_FORBIDDEN as ngx_int_t;
        }
        Err(OutOfMemory) => {
            Ledger::lost(r);
            return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
        }
    }
    let bare = conf.protocol == PROTOCOL_BARE;
    if let Some(status) = if bare { bare::refusal(r) } else { None } {
        Ledger::reject(r, Rejection::Fallback);
        return status;
    }
    let is_tls = r.connection().is_tls() && !bare;
    if is_tls && conf.tls == TLS_OFF {
        log_errno!(NGX_LOG_INFO, r.log(), 0, "client speaks TLS and \"ws_handoff_tls\" is off");
        Ledger::reject(r, Rejection::Fallback);
        return NGX_HTTP_NOT_IMPLEMENTED as ngx_int_t;
    }
    if is_tls && conf.tls == TLS_TUNNEL && conf.fallback == FALLBACK_OFF {
        log_fallback_off(r);
        Ledger::reject(r, Rejection::Fallback);
        return NGX_HTTP_NOT_IMPLEMENTED as ngx_int_t;
    }

    if !r.create_upstream() {
        Ledger::lost(r);
        return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    }
    let Ok(context) = Context::create(r, accept) else {
        Ledger::lost(r);
        return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    };
    if let Err(status) = if bare { Ok(()) } else { head::prepare(r) } {
        if status < NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t {
            context.ledger.turn_away(r, Rejection::Malformed);
        } else {
            context.ledger.fail_request(Cause::Local);
        }
        return status;
    }
    let Some(u) = r.upstream() else { return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t };
    if target::resolve(r, u, conf).is_err() {
        context.ledger.fail_request(Cause::Local);
        return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    }
    configure_upstream(r, u, conf);

    // There is no body to read, which is where other upstream modules take this reference.
    r.hold();
    if context.way.get() == Some(Way::FdTls) {
        tls::drain(r, context);
    } else {
        start(r, context, bare);
    }
    nginx::DONE
}

/// A TLS client's session can be handed over, or cannot be. The request may be gone afterwards.
pub fn drained(r: Request, context: Context, refusal: Option<tls::Refusal>) {
    if let Some(refusal) = refusal {
        let reason = tls::Reason(refusal);
        log_errno!(NGX_LOG_INFO, r.log(), 0, "the TLS session stays in nginx: {reason}");
        context.way.set(None);
        context.ledger.keeps_tls(r, refusal);
        if r.conf().is_some_and(|conf| conf.fallback == FALLBACK_OFF) {
            log_fallback_off(r);
            context.ledger.turn_away(r, Rejection::Fallback);
            let status = NGX_HTTP_NOT_IMPLEMENTED as ngx_int_t;
            // SAFETY: releases the reference that was taken for the upstream, which has not been started.
            unsafe { ngx_http_finalize_request(r.raw(), status) };
            return;
        }
    }
    start(r, context, false);
}

fn start(r: Request, context: Context, bare: bool) {
    // A bare backend waits for the socket, perhaps with all else that it does, from the connection on.
    if (context.way.get() == Some(Way::Fd) && !bare) || r.connection().has_room() {
        start_upstream(r);
    } else {
        client::wait_for_room(r);
    }
}

fn log_fallback_off(r: Request) {
    log_errno!(
        NGX_LOG_ERR,
        r.log(),
        0,
        "a TLS connection cannot be handed over and \"ws_handoff_fallback\" is off"
    );
}

/// Connects to a backend and asks it. The request may be gone afterwards.
pub fn start_upstream(r: Request) {
    // SAFETY: the request is live, its upstream is complete, and the reference that it releases has been taken.
    unsafe { ngx_http_upstream_init(r.raw()) };
}

fn refuse_error_page(r: Request) -> ngx_int_t {
    let status = r.error_status();
    log_errno!(
        NGX_LOG_ERR,
        r.log(),
        0,
        "\"ws_handoff\" cannot serve the page of an error, {status}"
    );
    // Not once more through error_page, which has led here.
    r.end_error_pages();
    // A "=200" has no response here that it could stand for.
    if status >= NGX_HTTP_SPECIAL_RESPONSE as usize {
        status as ngx_int_t
    } else {
        NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t
    }
}

fn reject(r: Request, error: &HandshakeError) -> ngx_int_t {
    log_errno!(NGX_LOG_INFO, r.log(), 0, "client sent an invalid WebSocket handshake: {error}");
    Ledger::reject(r, Rejection::of_handshake(error.status()));

    // Streams of HTTP/2 and 3 share a connection, whose bytes are not this request's.
    if r.http_version().0 < 2 {
        r.disable_keepalive_after_frames();
    }

    if add_response_fields(r, error).is_err() {
        return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    }
    error.status() as ngx_int_t
}

fn add_response_fields(r: Request, error: &HandshakeError) -> Result<(), OutOfMemory> {
    if let Some((name, value)) = error.response_field() {
        if name != "Upgrade" {
            r.add_response_field(name, value)?;
        }
    }
    // RFC 9110 section 15.5.22: a 426 says what to upgrade to, which section 7.8 has Connection nominate. Neither field
    // exists in HTTP/2 and 3.
    if error.status() == 426 && r.http_version().0 < 2 {
        r.add_response_field("Upgrade", "websocket")?;
        r.add_response_field("Connection", "Upgrade")?;
    }
    Ok(())
}

fn configure_upstream(r: Request, u: Upstream, conf: &'static LocationConf) {
    // SAFETY: a fresh upstream of this request. nginx writes to the configuration only while it starts, although
    // it asks for a pointer to mutable.
    unsafe {
        let u = &mut *u.raw();
        u.conf = ptr::addr_of!(conf.upstream).cast_mut();
        u.schema = ngx_string!("ws_handoff://");
        u.output.tag = ptr::addr_of_mut!(crate::ngx_http_ws_handoff_module).cast();
        u.output.output_filter = Some(head::output_filter);
        u.output.filter_ctx = r.raw().cast();
        u.set_buffering(0);
        u.create_request = Some(head::create_request);
        u.reinit_request = Some(head::reinit_request);
        u.process_header = Some(answer::process_header);
        u.finalize_request = Some(release::finalize_request);
        u.input_filter_init = Some(takeover::input_filter_init);
        u.input_filter = Some(refusal::input_filter);
        u.input_filter_ctx = r.raw().cast();
        if conf.protocol == PROTOCOL_BARE {
            u.output.output_filter = Some(bare::output_filter);
            u.process_header = Some(bare::process_header);
        }
    }
}
