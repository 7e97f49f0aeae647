//! The backend's answer: parsed, turned into what nginx's upstream code expects, and decided upon.

use handoff_metrics::Cause;
use handoff_protocol::{AnswerHead, AnswerKind, Way, parse_answer};
use nginx_sys::{NGX_LOG_ERR, ngx_http_request_t, ngx_int_t, ngx_msec_t, ngx_str_t};
use ngx::ngx_string;

use crate::conf::FALLBACK_OFF;
use crate::context::Context;
use crate::nginx::{self, FieldError, OutOfMemory, Request, Upstream};
use crate::{takeover, tls};

/// The most fields that an answer may have.
const MAX_FIELDS: usize = 100;

/// How long a tunnelled backend may be silent before nginx closes, in milliseconds: as long as fits a 32-bit timer
/// (24 days), since a backend that serves the socket itself has no such limit at all.
const TUNNEL_IDLE: ngx_msec_t = i32::MAX as ngx_msec_t;

/// Fields of a 101 that are nginx's own to set, or make no sense in one.
const NOT_FROM_BACKEND_101: [&str; 10] = [
    "Handoff",
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Accept",
    "Keep-Alive",
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
    "Proxy-Connection",
    "Status",
];

/// Why an answer leads nowhere, and as what that is counted.
pub enum Unusable {
    /// Memory ran out, or nginx failed: the client gets a 500.
    Internal(Cause),
    /// The peer is to blame, or could not be used: the next one is tried, else the client gets a 502.
    Peer(Cause),
}

impl From<OutOfMemory> for Unusable {
    fn from(_: OutOfMemory) -> Self {
        Self::Internal(Cause::Local)
    }
}

impl From<FieldError> for Unusable {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::OutOfMemory => Self::Internal(Cause::Local),
            FieldError::Invalid => Self::Peer(Cause::Answer),
        }
    }
}

/// `u->process_header`: called whenever more of the answer has arrived.
pub unsafe extern "C" fn process_header(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request whose upstream it reads.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };

    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let answer = match parse_answer(u.unparsed(), &mut fields) {
        Ok(Some(answer)) => answer,
        Ok(None) => return nginx::AGAIN,
        Err(error) => {
            log_errno!(NGX_LOG_ERR, r.log(), 0, "upstream sent an invalid answer: {error}");
            context.ledger.fail_attempt(Cause::Answer);
            return nginx::INVALID_HEADER;
        }
    };
    log_debug!(r.log(), "ws_handoff answer: {} {:?}", answer.status, answer.kind);

    context.ledger.answered();

    let used = match answer.kind {
        AnswerKind::Handoff(way) => hand_over(r, u, context, &answer, way),
        AnswerKind::Tunnel => tunnel(r, u, context, &answer),
        AnswerKind::Refusal => refuse(r, u, context, &answer),
    };
    let (verdict, cause) = match used {
        Ok(()) => return nginx::OK,
        Err(Unusable::Internal(cause)) => (nginx::ERROR, cause),
        Err(Unusable::Peer(cause)) => (nginx::INVALID_HEADER, cause),
    };
    context.ledger.fail_attempt(cause);
    verdict
}

fn hand_over(
    r: Request,
    u: Upstream,
    context: Context,
    answer: &AnswerHead<'_, '_>,
    way: Way,
) -> Result<(), Unusable> {
    if context.offered.get() != Some(way) {
        log_errno!(NGX_LOG_ERR, r.log(), 0, "upstream wants a socket that it was not offered");
        return Err(Unusable::Peer(Cause::Answer));
    }
    if !u.request_sent() {
        // The offer would end up inside of the head.
        log_errno!(NGX_LOG_ERR, r.log(), 0, "upstream answered before it had read the request");
        return Err(Unusable::Peer(Cause::Answer));
    }
    // All that can fail on this side comes before the offer.
    switching_protocols(r, u, context, answer)?;
    if !u.unparsed().is_empty() {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "upstream sent data after the answer that takes the socket"
        );
        return Err(Unusable::Peer(Cause::Answer));
    }
    context.keepalive.set(answer.keepalive);
    takeover::offer(r, u, context)
}

fn tunnel(
    r: Request,
    u: Upstream,
    context: Context,
    answer: &AnswerHead<'_, '_>,
) -> Result<(), Unusable> {
    if r.conf().is_some_and(|conf| conf.fallback == FALLBACK_OFF) {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "upstream does not take the socket and \"ws_handoff_fallback\" is off"
        );
        return Err(Unusable::Peer(Cause::Answer));
    }
    switching_protocols(r, u, context, answer)?;
    if r.connection().prepare_for_small_writes().is_err() {
        return Err(Unusable::Internal(Cause::Client));
    }
    // A client that could have been handed over has not been waited for (`client::wait_for_room`).
    if !r.connection().has_room() {
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "the client does not read, and upstream does not take its socket: nginx cannot wait with a tunnel"
        );
        return Err(Unusable::Internal(Cause::Client));
    }
    r.lift_rate_limit();
    if context.way.get() == Some(Way::FdTls) {
        tls::keep(r.connection());
    }
    u.tunnel(r, TUNNEL_IDLE)?;
    if context.is_distrusted.get() {
        context.ledger.keeps_tls(r, tls::Refusal::Trust);
    }
    context.ledger.tunnelled();
    Ok(())
}

/// The head of the 101 that the client gets: nginx's own fields, and the backend's for the client.
fn switching_protocols(
    r: Request,
    u: Upstream,
    context: Context,
    answer: &AnswerHead<'_, '_>,
) -> Result<(), Unusable> {
    begin_101(r, u, context)?;
    for field in answer.fields {
        let ours = NOT_FROM_BACKEND_101.iter().any(|name| field.name.eq_ignore_ascii_case(name));
        // X-Accel-* would have nginx do something else with a response that is none.
        let accel = field.name.get(..8).is_some_and(|p| p.eq_ignore_ascii_case("x-accel-"));
        if !ours && !accel {
            u.add_field(r, field.name.as_bytes(), field.value)?;
        }
    }
    u.consume(answer.len);
    Ok(())
}

/// What every 101 says; `Connection` is added by nginx.
pub fn begin_101(r: Request, u: Upstream, context: Context) -> Result<(), Unusable> {
    // nginx's own table of status lines begins with 200.
    u.set_status(101, ngx_string!("101 Switching Protocols"));
    u.add_field(r, b"Upgrade", b"websocket")?;
    u.add_field(r, b"Sec-WebSocket-Accept", &context.accept)?;
    Ok(())
}

fn refuse(
    r: Request,
    u: Upstream,
    context: Context,
    answer: &AnswerHead<'_, '_>,
) -> Result<(), Unusable> {
    u.set_status(answer.status, status_line(r, answer)?);
    for field in answer.fields.iter().filter(|f| !f.name.eq_ignore_ascii_case("handoff")) {
        u.add_field(r, field.name.as_bytes(), field.value)?;
    }
    u.consume(answer.len);
    if u.is_chunked() {
        // RFC 9112 section 6.3: Transfer-Encoding overrides Content-Length.
        u.forget_content_length();
    }
    r.disable_keepalive_after_frames();
    r.lift_rate_limit();
    context.ledger.refused(answer.status);
    Ok(())
}

/// `403 Forbidden`, with the backend's reason phrase.
fn status_line(r: Request, answer: &AnswerHead<'_, '_>) -> Result<ngx_str_t, OutOfMemory> {
    let line = r.pool().bytes(4 + answer.reason.len())?;
    let digits = [100, 10, 1].map(|place| b'0' + (answer.status / place % 10) as u8);
    let source = digits.iter().chain(b" ").chain(answer.reason);
    for (to, from) in line.iter_mut().zip(source) {
        *to = *from;
    }
    Ok(nginx::str_of(line))
}
