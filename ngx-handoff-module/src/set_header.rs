//! `ws_handoff_set_header`: the fields that nginx itself sets in the request head, and its own `X-` fields.

use core::ffi::{c_char, c_void};

use handoff_protocol::{check_set_field, check_value, same_field_name};
use nginx_sys::{NGX_LOG_EMERG, ngx_command_t, ngx_conf_t, ngx_str_t};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::ngx_conf_log_error;

use crate::conf::LocationConf;
use crate::nginx::{self, ComplexValue, OutOfMemory, Request, str_bytes};

/// One `ws_handoff_set_header`.
#[derive(Clone, Copy)]
pub struct SetHeader {
    name: ngx_str_t,
    value: ComplexValue,
}

/// A field's name and value.
pub type Field = (&'static [u8], &'static [u8]);

/// What the directives say of one request.
#[derive(Clone, Copy)]
pub struct SetFields {
    /// `Host`, if one was set.
    pub host: Option<&'static [u8]>,
    /// The others; an empty value says that the backend sees no such field at all.
    pub others: &'static [Field],
}

impl SetHeader {
    fn name(&self) -> &'static [u8] {
        // SAFETY: a word of the configuration, which outlives requests.
        unsafe { str_bytes(self.name) }
    }

    /// `Host` has a place of its own in a head.
    fn is_host(&self) -> bool {
        self.name().eq_ignore_ascii_case(b"Host")
    }
}

/// `ws_handoff_set_header NAME VALUE`
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the location's structure made by `create_loc_conf`, and nobody else refers to it now.
    let conf = unsafe { &mut *conf.cast::<LocationConf>() };
    // SAFETY: nginx's configuration context, for this and the calls below.
    let &[_, name, value] = (unsafe { nginx::arguments(cf) }) else { return NGX_CONF_ERROR };
    let (name_bytes, value_bytes) = (name.as_bytes(), value.as_bytes());

    let is_host = name_bytes.eq_ignore_ascii_case(b"Host");
    // What variables add is checked when they have a value.
    let checked = if is_host {
        check_value(name_bytes, value_bytes)
    } else {
        check_set_field(name_bytes, value_bytes)
    };
    if let Err(error) = checked {
        ngx_conf_log_error!(NGX_LOG_EMERG, cf, "{error} in \"ws_handoff_set_header\" directive");
        return NGX_CONF_ERROR;
    }
    // Others may be repeated; with two of these a request is invalid (RFC 9112 section 3.2).
    if is_host && conf.set_headers.as_slice().iter().any(SetHeader::is_host) {
        ngx_conf_log_error!(
            NGX_LOG_EMERG,
            cf,
            "\"Host\" is set twice in \"ws_handoff_set_header\" directive"
        );
        return NGX_CONF_ERROR;
    }

    // SAFETY: `value` is one of the directive's words.
    let Ok(value) = (unsafe { ComplexValue::compile(cf, value) }) else { return NGX_CONF_ERROR };
    // SAFETY: see above.
    match unsafe { conf.set_headers.push(cf, SetHeader { name, value }) } {
        Ok(()) => NGX_CONF_OK,
        Err(OutOfMemory) => NGX_CONF_ERROR,
    }
}

/// The fields for a request. Once per request: a variable may have side effects, or another value when asked again.
pub fn evaluate(r: Request, conf: &LocationConf) -> Result<SetFields, OutOfMemory> {
    let set = conf.set_headers.as_slice();
    let scheme: &[u8] = if r.connection().is_tls() { b"https" } else { b"http" };
    let address = r.connection().addr_text();
    let defaults: [Field; 3] =
        [(b"X-Real-IP", address), (b"X-Forwarded-For", address), (b"X-Forwarded-Proto", scheme)];

    let fields = r.pool().slice::<Field>(defaults.len() + set.len(), (b"", b""))?;
    let mut host = None;
    let mut len = 0;
    let mut add = |field| {
        if let Some(slot) = fields.get_mut(len) {
            *slot = field;
            len += 1;
        }
    };
    for default in defaults {
        if !set.iter().any(|header| same_field_name(header.name(), default.0)) {
            add(default);
        }
    }
    for header in set {
        let value = header.value.evaluate(r)?;
        if header.is_host() {
            host = Some(value);
        } else {
            add((header.name(), value));
        }
    }
    Ok(SetFields { host, others: fields.get(..len).unwrap_or_default() })
}
