//! `ws_handoff`: whom to hand over to, known to the configuration or made of variables for each request.

use core::ffi::{c_char, c_void};
use core::mem::MaybeUninit;

use handoff_protocol::check_address;
use nginx_sys::{
    NGX_LOG_EMERG, NGX_LOG_ERR, ngx_command_t, ngx_conf_t, ngx_http_core_loc_conf_t,
    ngx_http_upstream_add, ngx_url_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule};
use ngx::ngx_conf_log_error;

use crate::conf::LocationConf;
use crate::handler;
use crate::nginx::{self, AddressFault, ComplexValue, OutOfMemory, Request, Upstream};

/// `ws_handoff unix:PATH | NAME | $VARIABLE`
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the location's structure made by `create_loc_conf`, and nobody else refers to it now.
    let conf = unsafe { &mut *conf.cast::<LocationConf>() };
    // SAFETY: nginx's configuration context, for this and the calls below.
    let &[_, address] = (unsafe { nginx::arguments(cf) }) else { return NGX_CONF_ERROR };

    if is_set(conf) {
        return c"is duplicate".as_ptr().cast_mut();
    }
    // Of one with variables, what stands between them.
    if let Err(error) = check_address(address.as_bytes()) {
        ngx_conf_log_error!(NGX_LOG_EMERG, cf, "{error} in \"ws_handoff {}\"", address);
        return NGX_CONF_ERROR;
    }

    // SAFETY: `address` is one of the directive's words.
    let Ok(value) = (unsafe { ComplexValue::compile(cf, address) }) else { return NGX_CONF_ERROR };
    if value.is_variable() {
        conf.target = Some(value);
    } else {
        // SAFETY: integers and nullable pointers, for which zero is valid; as nginx's modules do with ngx_memzero().
        let mut parsed: ngx_url_t = unsafe { MaybeUninit::zeroed().assume_init() };
        parsed.url = address;
        parsed.set_no_resolve(1);
        // SAFETY: `parsed` lives through the call, which copies what it keeps and logs its errors.
        conf.upstream.upstream = unsafe { ngx_http_upstream_add(cf, &mut parsed, 0) };
        if conf.upstream.upstream.is_null() {
            return NGX_CONF_ERROR;
        }
    }

    // SAFETY: `cf` is valid while a directive is being set.
    let Some(core) = NgxHttpCoreModule::location_conf_mut(unsafe { &*cf }) else {
        return NGX_CONF_ERROR;
    };
    core.handler = Some(handler::handle);
    if core.name.as_bytes().last() == Some(&b'/') {
        core.set_auto_redirect(1);
    }
    NGX_CONF_OK
}

fn is_set(conf: &LocationConf) -> bool {
    !conf.upstream.upstream.is_null() || conf.target.is_some()
}

/// `if` and `limit_except` blocks inside a location keep its `ws_handoff`, as they keep a `proxy_pass`.
pub fn inherit(core: &mut ngx_http_core_loc_conf_t, own: &mut LocationConf, from: &LocationConf) {
    if core.noname() != 0 && !is_set(own) {
        own.upstream.upstream = from.upstream.upstream;
        own.target = from.target;
    }
    if core.lmt_excpt() != 0 && core.handler.is_none() && is_set(own) {
        core.handler = Some(handler::handle);
    }
}

/// Tells the upstream whom to ask, where that depends on the request. What is wrong has been logged.
pub fn resolve(r: Request, u: Upstream, conf: &LocationConf) -> Result<(), OutOfMemory> {
    let Some(target) = &conf.target else { return Ok(()) };
    let address = target.evaluate(r)?;
    log_debug!(r.log(), "ws_handoff to \"{}\"", address.escape_ascii());

    if let Err(error) = check_address(address) {
        let shown = address.escape_ascii();
        log_errno!(NGX_LOG_ERR, r.log(), 0, "{error} in \"ws_handoff\", which is \"{shown}\" here");
        return Err(OutOfMemory);
    }
    u.resolve(r, address).map_err(|fault| {
        if let AddressFault::Invalid(fault) = fault {
            let (fault, shown) = (fault.to_bytes().escape_ascii(), address.escape_ascii());
            log_errno!(NGX_LOG_ERR, r.log(), 0, "{fault} in upstream \"{shown}\"");
        }
        OutOfMemory
    })
}
