//! The body of an answer that is no 101: it goes to the client like any upstream response.

use core::ffi::c_void;

use handoff_protocol::ChunkedDecoder;
use nginx_sys::{
    NGX_LOG_ERR, NGX_LOG_WARN, ngx_chain_get_free_buf, ngx_chain_t,
    ngx_http_upstream_non_buffered_filter, ngx_int_t,
};

use crate::context::{Context, Fault, Phase};
use crate::nginx::{self, OutOfMemory, Request, Upstream};

/// Sets how much body is to come; called once the answer's head has been sent on.
pub fn begin(u: Upstream) {
    u.set_remaining(match u.status() {
        // RFC 9110 sections 15.3.5 and 15.4.5: no body, whatever the fields say.
        204 | 304 => 0,
        // 1 stands for "not complete": only the last chunk ends a chunked body.
        _ if u.is_chunked() => 1,
        _ => u.content_length(),
    });
}

/// `u->input_filter`: `bytes` more have been read behind `u->buffer.last`.
pub unsafe extern "C" fn input_filter(data: *mut c_void, bytes: isize) -> ngx_int_t {
    // SAFETY: `input_filter_ctx` was set to the request, which is live while its upstream reads.
    let Some(r) = (unsafe { Request::from_raw(data.cast()) }) else { return nginx::ERROR };
    let (Some(u), Some(context)) = (r.upstream(), Context::of(r)) else { return nginx::ERROR };

    if context.phase.get() != Phase::Asking {
        context.fault.set(Fault::Backend);
        log_errno!(
            NGX_LOG_ERR,
            r.log(),
            0,
            "upstream sent data where it was to wait for the client's socket"
        );
        return nginx::ERROR;
    }

    if !u.is_chunked() || u.remaining() == 0 {
        // SAFETY: nginx's own filter, with what it expects: the request, and the count that it was given.
        return unsafe { ngx_http_upstream_non_buffered_filter(data, bytes) };
    }

    let Ok(len) = usize::try_from(bytes) else { return nginx::ERROR };
    let mut decoder = context.chunked.take();
    let result = decode(r, u, &mut decoder, len);
    context.chunked.set(decoder);
    match result {
        Ok(()) => nginx::OK,
        Err(OutOfMemory) => {
            // nginx closes now, whatever waits to be sent. The head usually does (postpone_output): a refusal that is
            // logged as one should be one for the client, too.
            r.send_postponed();
            nginx::ERROR
        }
    }
}

fn decode(
    r: Request,
    u: Upstream,
    decoder: &mut ChunkedDecoder,
    len: usize,
) -> Result<(), OutOfMemory> {
    // SAFETY: nginx has read `len` bytes to `last` and leaves it to the filter to move it.
    let mut input: &[u8] = unsafe {
        let b = &mut (*u.raw()).buffer;
        let start = b.last;
        b.last = b.last.add(len);
        core::slice::from_raw_parts(start, len)
    };

    while !input.is_empty() {
        let decoded = decoder.decode(input).map_err(|error| {
            log_errno!(NGX_LOG_ERR, r.log(), 0, "upstream sent an invalid chunked body: {error}");
            OutOfMemory
        })?;
        if let Some(body) = input.get(decoded.data).filter(|body| !body.is_empty()) {
            append(r, u, body)?;
        }
        input = input.get(decoded.consumed..).unwrap_or_default();
        if decoded.done {
            u.set_remaining(0);
            if !input.is_empty() {
                log_errno!(NGX_LOG_WARN, r.log(), 0, "upstream sent data after the last chunk");
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Appends a run of the body to what goes to the client, without copying it.
fn append(r: Request, u: Upstream, body: &[u8]) -> Result<(), OutOfMemory> {
    // SAFETY: the upstream's chains, handled as ngx_http_upstream_non_buffered_filter() does; the bytes stay where they
    // are until nginx has sent them (`busy_bufs`).
    unsafe {
        let u = &mut *u.raw();
        let link = ngx_chain_get_free_buf(r.pool().as_ptr(), &mut u.free_bufs);
        if link.is_null() {
            return Err(OutOfMemory);
        }
        let mut last: *mut *mut ngx_chain_t = &mut u.out_bufs;
        while !(*last).is_null() {
            last = &mut (**last).next;
        }
        *last = link;

        let range = body.as_ptr_range();
        let buf = &mut *(*link).buf;
        buf.set_flush(1);
        buf.set_memory(1);
        buf.pos = range.start.cast_mut();
        buf.last = range.end.cast_mut();
        buf.tag = u.output.tag;
    }
    Ok(())
}
