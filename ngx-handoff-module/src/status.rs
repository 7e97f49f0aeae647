//! `ws_handoff_status`: a location that shows the counters.

use core::ffi::{c_char, c_void};
use core::ptr;

use handoff_metrics::{Format, Length, Page, Report, Snapshot, Upstream};
use nginx_sys::{
    NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_HTTP_BAD_REQUEST, NGX_HTTP_GET, NGX_HTTP_HEAD,
    NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, NGX_LOG_EMERG, ngx_chain_t, ngx_command_t, ngx_conf_t,
    ngx_http_arg, ngx_http_core_loc_conf_t, ngx_http_discard_request_body, ngx_http_output_filter,
    ngx_http_request_t, ngx_http_send_header, ngx_int_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule};
use ngx::{ngx_conf_log_error, ngx_string};

use crate::conf::LocationConf;
use crate::nginx::{self, OutOfMemory, Request, str_bytes, str_of};
use crate::zone::MainConf;

/// The directive.
pub const DIRECTIVE: ngx_command_t = ngx_command_t {
    name: ngx_string!("ws_handoff_status"),
    type_: (NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1) as ngx_uint_t,
    set: Some(set_status),
    conf: NGX_HTTP_LOC_CONF_OFFSET,
    offset: 0,
    post: ptr::null_mut(),
};

/// What `ws_handoff_status` says of a location.
#[derive(Clone, Copy, Default)]
pub struct StatusConf {
    /// Where it stands; `None` in a location without it.
    place: Option<Place>,
    /// The only format, if one is named.
    format: Option<Format>,
}

/// A line of the configuration.
#[derive(Clone, Copy)]
struct Place {
    file: ngx_str_t,
    line: ngx_uint_t,
}

/// Checks a location's directive once all others are known, and inherits it to the `if` blocks in it.
pub fn merge(
    cf: *mut ngx_conf_t,
    core: &ngx_http_core_loc_conf_t,
    inherited: &StatusConf,
    own: &mut StatusConf,
) -> Result<(), ()> {
    match own.place {
        Some(place) if !MainConf::of_conf(cf).is_some_and(MainConf::has_zone) => {
            // SAFETY: a string that lives as long as the configuration, and the log of whoever reads that.
            let (file, log) = unsafe { (str_bytes(place.file).escape_ascii(), (*cf).log) };
            log_errno!(
                NGX_LOG_EMERG,
                log,
                0,
                "\"ws_handoff_status\" has nothing to show: add \"ws_handoff_zone NAME:SIZE\" to http in {file}:{}",
                place.line
            );
            Err(())
        }
        Some(_) => Ok(()),
        None => {
            if core.noname() != 0 {
                *own = *inherited;
            }
            Ok(())
        }
    }
}

/// `ws_handoff_status [prometheus | json | html]`
unsafe extern "C" fn set_status(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the location's structure made by `create_loc_conf`, and nobody else refers to it now.
    let conf = unsafe { &mut *conf.cast::<LocationConf>() };
    // SAFETY: `cf` is nginx's configuration context; its `args` are the directive's words.
    let args = unsafe { (*(*cf).args).as_slice::<ngx_str_t>() };

    if conf.status.place.is_some() {
        return c"is duplicate".as_ptr().cast_mut();
    }
    let format = match args.get(1).map(|name| (name, Format::of_name(name.as_bytes()))) {
        None => None,
        Some((_, Ok(format))) => Some(format),
        Some((name, Err(_))) => {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "invalid format \"{}\", it must be \"prometheus\", \"json\" or \"html\"",
                name
            );
            return NGX_CONF_ERROR;
        }
    };
    // SAFETY: while a directive is being set, nginx has a file open, or the command line's `-g` in its place.
    let place = unsafe {
        let file = &*(*cf).conf_file;
        Place { file: file.file.name, line: file.line }
    };
    conf.status = StatusConf { place: Some(place), format };

    // SAFETY: `cf` is valid while a directive is being set.
    let Some(core) = NgxHttpCoreModule::location_conf_mut(unsafe { &*cf }) else {
        return NGX_CONF_ERROR;
    };
    core.handler = Some(handle);
    NGX_CONF_OK
}

/// nginx's entry for a request in a location with `ws_handoff_status`.
unsafe extern "C" fn handle(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request that it is processing.
    let Some(r) = (unsafe { Request::from_raw(r) }) else { return nginx::ERROR };

    // SAFETY: a live request.
    if unsafe { (*r.raw()).method } & (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t == 0 {
        return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
    }
    // SAFETY: as above.
    let rc = unsafe { ngx_http_discard_request_body(r.raw()) };
    if rc != nginx::OK {
        return rc;
    }

    let Some(format) = format(r) else { return NGX_HTTP_BAD_REQUEST as ngx_int_t };
    match page(r, format) {
        Ok(page) => send(r, format, page),
        Err(OutOfMemory) => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
    }
}

/// The format that the location, the argument or the client names, in this order; `None` for an argument that names none.
fn format(r: Request) -> Option<Format> {
    if let Some(format) = r.conf().and_then(|conf| conf.status.format) {
        return Some(format);
    }
    let (name, mut value) = (b"format", ngx_str_t::empty());
    // SAFETY: a live request; the name is only read.
    let rc = unsafe { ngx_http_arg(r.raw(), name.as_ptr().cast_mut(), name.len(), &mut value) };
    if rc == nginx::OK {
        // SAFETY: a part of the request's line.
        return Format::of_name(unsafe { str_bytes(value) }).ok();
    }
    let accept = r.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"accept"));
    Some(Format::negotiate(accept.map(|(_, value)| value)))
}

/// The counters at this moment, rendered.
fn page<'a>(r: Request, format: Format) -> Result<&'a mut [u8], OutOfMemory> {
    let main = MainConf::of(r).ok_or(OutOfMemory)?;
    let counted = main.counted();
    let count = counted.clone().count();
    let upstreams = r.pool().slice(count, Upstream { name: &[], counts: Snapshot::default() })?;
    // The latest comes first.
    for (to, (name, counters)) in upstreams.iter_mut().rev().zip(counted) {
        to.name = name;
        counters.snapshot(&mut to.counts);
    }
    let report = Report {
        in_progress: main.in_progress().map_or(0, |gauge| gauge.sum()),
        tls_refused: main.tls_refusals().map(|refusals| refusals.snapshot()).unwrap_or_default(),
        rejected: main.rejections().map(|rejections| rejections.snapshot()).unwrap_or_default(),
        upstreams,
    };

    let mut length = Length::default();
    format.render(&report, &mut length).map_err(|_| OutOfMemory)?;
    let room = r.pool().bytes(length.get())?;
    format.render(&report, &mut Page::new(room)).map_err(|_| OutOfMemory)?;
    Ok(room)
}

fn send(r: Request, format: Format, page: &mut [u8]) -> ngx_int_t {
    let internal = NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
    if r.add_response_field("Cache-Control", "no-store").is_err() {
        return internal;
    }
    let content_type = format.content_type();
    // SAFETY: a live request, whose head has not been sent.
    unsafe {
        let headers = &mut (*r.raw()).headers_out;
        headers.status = NGX_HTTP_OK as ngx_uint_t;
        headers.content_length_n = i64::try_from(page.len()).unwrap_or(-1);
        headers.content_type = str_of(content_type.as_bytes());
        // What `gzip_types` and its like compare ends before the parameters.
        headers.content_type_len = content_type.find(';').unwrap_or(content_type.len());
        headers.content_type_lowcase = ptr::null_mut();
    }

    let Ok(chain) = r.pool().chain(page) else { return internal };
    let main = is_main(r);
    // SAFETY: a fresh chain of one buffer.
    let chain: *mut ngx_chain_t = unsafe {
        let buf = &mut *chain.as_ref().buf;
        buf.set_last_buf(main.into());
        buf.set_last_in_chain(1);
        chain.as_ptr()
    };

    // SAFETY: a live request.
    let rc = unsafe { ngx_http_send_header(r.raw()) };
    if rc == nginx::ERROR || rc > nginx::OK || r.is_header_only() {
        return rc;
    }
    // SAFETY: the chain lives in the request's pool.
    unsafe { ngx_http_output_filter(r.raw(), chain) }
}

fn is_main(r: Request) -> bool {
    // SAFETY: a live request.
    unsafe { (*r.raw()).main == r.raw() }
}
