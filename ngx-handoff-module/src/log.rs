//! Macros over nginx's error log. Levels follow nginx: `emerg` a refused configuration, `err` a failed peer or request,
//! `warn` something degraded, `info` the client's fault, `debug` under the http mask.

/// Logs at `level` with an errno (0: none), as `ngx_log_error()` does.
macro_rules! log_errno {
    ($level:expr, $log:expr, $errno:expr, $($arg:tt)+) => {{
        let log: *mut nginx_sys::ngx_log_t = $log;
        let level = $level as nginx_sys::ngx_uint_t;
        // SAFETY: a connection's or cycle's log outlives every callback that logs to it.
        if level <= unsafe { (*log).log_level } {
            let mut buf = [const { core::mem::MaybeUninit::<u8>::uninit() }; ngx::log::LOG_BUFFER_SIZE];
            let message = ngx::log::write_fmt(&mut buf, format_args!($($arg)+));
            // SAFETY: the log is valid as above; the message is a slice of `buf`.
            unsafe { ngx::log::log_error(level, log, $errno as nginx_sys::ngx_err_t, message) };
        }
    }};
}

/// Logs at debug level under the http mask, as `ngx_log_debug(NGX_LOG_DEBUG_HTTP, …)` does.
macro_rules! log_debug {
    ($log:expr, $($arg:tt)+) => {{
        let log: *mut nginx_sys::ngx_log_t = $log;
        // SAFETY: a connection's log outlives every callback that logs to it.
        if ngx::log::DEBUG && unsafe { (*log).log_level } & nginx_sys::NGX_LOG_DEBUG_HTTP as usize != 0 {
            let mut buf = [const { core::mem::MaybeUninit::<u8>::uninit() }; ngx::log::LOG_BUFFER_SIZE];
            let message = ngx::log::write_fmt(&mut buf, format_args!($($arg)+));
            // SAFETY: as above.
            unsafe { ngx::log::log_debug(log, 0, message) };
        }
    }};
}
