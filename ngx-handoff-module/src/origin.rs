//! `ws_handoff_origin`: which sites' pages may open a WebSocket. The rules themselves are handoff-protocol's.

use core::ffi::{c_char, c_void};

use handoff_protocol::{OriginRule, SentOrigin};
use nginx_sys::{NGX_LOG_EMERG, NGX_LOG_INFO, ngx_command_t, ngx_conf_t};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::ngx_conf_log_error;

use crate::conf::LocationConf;
use crate::head;
use crate::nginx::{self, OutOfMemory, Regex, Request, str_bytes, str_of};

/// A rule as the configuration keeps it.
pub type Rule = OriginRule<'static, Regex>;

/// How much of a refused origin is logged.
const SHOWN: usize = 256;

/// `ws_handoff_origin any | none | null | same-origin | ORIGIN | ~REGEX …`
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the location's structure made by `create_loc_conf`, and nobody else refers to it now.
    let conf = unsafe { &mut *conf.cast::<LocationConf>() };
    // SAFETY: nginx's configuration context, for this and the calls below.
    let [_, words @ ..] = (unsafe { nginx::arguments(cf) }) else { return NGX_CONF_ERROR };

    if !conf.origins.is_unset() {
        return c"is duplicate".as_ptr().cast_mut();
    }
    for &word in words {
        // SAFETY: a word of the configuration, which outlives its rules.
        let text: &'static [u8] = unsafe { str_bytes(word) };
        let parsed = match OriginRule::parse(text) {
            Ok(OriginRule::Any) if words.len() > 1 => {
                ngx_conf_log_error!(
                    NGX_LOG_EMERG,
                    cf,
                    "\"any\" must be the only parameter of \"ws_handoff_origin\" directive"
                );
                return NGX_CONF_ERROR;
            }
            Ok(parsed) => parsed,
            Err(error) => {
                ngx_conf_log_error!(
                    NGX_LOG_EMERG,
                    cf,
                    "invalid value \"{}\" in \"ws_handoff_origin\" directive, {error}",
                    word
                );
                return NGX_CONF_ERROR;
            }
        };
        let compiled = parsed.compile(|regex| {
            // SAFETY: the pattern is the end of the word.
            unsafe {
                Regex::compile(cf, "ws_handoff_origin", str_of(regex.pattern), regex.caseless)
            }
        });
        let Ok(rule) = compiled else { return NGX_CONF_ERROR };
        // SAFETY: see above.
        if unsafe { conf.origins.push(cf, rule) }.is_err() {
            return NGX_CONF_ERROR;
        }
    }
    NGX_CONF_OK
}

/// Whether the request's origin may open a WebSocket here; one that may not has been logged.
pub fn admits(r: Request, conf: &LocationConf) -> Result<bool, OutOfMemory> {
    let rules = conf.origins.as_slice();
    if rules.is_empty() {
        return Ok(true);
    }
    let by_host = rules.iter().any(|rule| matches!(rule, Rule::SameOrigin));
    let host = if by_host { head::host(r)? } else { &[] };
    let sent = SentOrigin::find(r.fields());
    let matches = |regex: &Regex, text: &[u8]| regex.matches(r.log(), text);
    if rules.iter().any(|rule| rule.admits(sent, host, matches)) {
        return Ok(true);
    }

    let (what, text) = match sent {
        SentOrigin::Absent => ("no origin", &[][..]),
        SentOrigin::Repeated => ("more than one origin", &[][..]),
        SentOrigin::Once(text) => ("the origin ", text),
    };
    let quote = if matches!(sent, SentOrigin::Once(_)) { "\"" } else { "" };
    let (shown, more) = match text.get(..SHOWN) {
        Some(start) => (start, "..."),
        None => (text, ""),
    };
    log_errno!(
        NGX_LOG_INFO,
        r.log(),
        0,
        "client sent {what}{quote}{}{more}{quote}, which \"ws_handoff_origin\" does not admit",
        shown.escape_ascii()
    );
    Ok(false)
}
