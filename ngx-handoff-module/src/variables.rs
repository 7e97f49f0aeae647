//! `$ws_handoff_result`, `$ws_handoff_error` and `$ws_handoff_time`.

use core::fmt::Write as _;

use handoff_metrics::{Outcome, Page};
use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_get_variable_pt,
    ngx_http_request_t, ngx_int_t, ngx_str_t, ngx_uint_t, ngx_variable_value_t,
};
use ngx::ngx_string;

use crate::ledger::Ledger;
use crate::nginx::{self, OutOfMemory, Request};

/// `2147483.647`, with room to spare.
const TIME_LEN: usize = 32;

/// Tells nginx of the variables, before it reads the configuration that uses them.
pub unsafe extern "C" fn add(cf: *mut ngx_conf_t) -> ngx_int_t {
    let variables: [(ngx_str_t, ngx_http_get_variable_pt); 3] = [
        (ngx_string!("ws_handoff_result"), Some(result)),
        (ngx_string!("ws_handoff_error"), Some(error)),
        (ngx_string!("ws_handoff_time"), Some(time)),
    ];
    for (mut name, get) in variables {
        // Their values change while a request is served.
        let flags = NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t;
        // SAFETY: `cf` is nginx's configuration context; the name's text lives for ever.
        match unsafe { ngx_http_add_variable(cf, &mut name, flags).as_mut() } {
            Some(variable) => variable.get_handler = get,
            None => return nginx::ERROR,
        }
    }
    nginx::OK
}

unsafe extern "C" fn result(
    r: *mut ngx_http_request_t,
    v: *mut ngx_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes the request and the value that it wants.
    unsafe { get(r, v, |_, ledger| Ok(ledger.outcome().map(Outcome::name).map(str::as_bytes))) }
}

unsafe extern "C" fn error(
    r: *mut ngx_http_request_t,
    v: *mut ngx_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: as in `result`.
    unsafe { get(r, v, |_, ledger| Ok(ledger.error().map(str::as_bytes))) }
}

unsafe extern "C" fn time(
    r: *mut ngx_http_request_t,
    v: *mut ngx_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: as in `result`.
    unsafe {
        get(r, v, |r, ledger| {
            let Some(elapsed) = ledger.elapsed() else { return Ok(None) };
            let room = r.pool().bytes(TIME_LEN)?;
            let mut page = Page::new(room);
            let written = write!(page, "{}.{:03}", elapsed / 1000, elapsed % 1000);
            let len = page.len();
            written.map_err(|_| OutOfMemory)?;
            Ok(room.get(..len))
        })
    }
}

/// Sets the value to what `read` finds in the request's books, or to "not found".
///
/// # Safety
///
/// nginx passed both pointers to the callback that calls this.
unsafe fn get(
    r: *mut ngx_http_request_t,
    v: *mut ngx_variable_value_t,
    read: impl FnOnce(Request, &Ledger) -> Result<Option<&'static [u8]>, OutOfMemory>,
) -> ngx_int_t {
    // SAFETY: by the contract.
    let (Some(r), Some(v)) = (unsafe { (Request::from_raw(r), v.as_mut()) }) else {
        return nginx::ERROR;
    };
    let found = match Ledger::find(r).map(|ledger| read(r, ledger)).transpose() {
        Ok(found) => found.flatten(),
        Err(OutOfMemory) => return nginx::ERROR,
    };
    match found {
        Some(text) => {
            v.data = text.as_ptr().cast_mut();
            v.set_len(u32::try_from(text.len()).unwrap_or(0));
            v.set_valid(1);
            v.set_no_cacheable(0);
            v.set_not_found(0);
        }
        None => v.set_not_found(1),
    }
    nginx::OK
}
