//! What nginx's TLS connections and servers have for this module. The C compiler says where, as in `request_flags`.

use core::ffi::{c_int, c_void};

use nginx_sys::ngx_connection_t;

unsafe extern "C" {
    fn ngx_http_ws_handoff_tls_built_in() -> c_int;
    fn ngx_http_ws_handoff_tls_connection(c: *mut ngx_connection_t) -> *mut c_void;
    fn ngx_http_ws_handoff_tls_context(conf: *mut c_void) -> *mut c_void;
    fn ngx_http_ws_handoff_tls_quiet(c: *mut ngx_connection_t);
}

/// Whether nginx was configured with TLS when the module was built for it.
pub fn is_built_in() -> bool {
    // SAFETY: returns a constant.
    unsafe { ngx_http_ws_handoff_tls_built_in() != 0 }
}

/// The `SSL` of a connection; null if it does not speak TLS.
///
/// # Safety
///
/// `c` is a live connection.
pub unsafe fn connection(c: *mut ngx_connection_t) -> *mut c_void {
    // SAFETY: by the contract.
    unsafe { ngx_http_ws_handoff_tls_connection(c) }
}

/// Has nginx free the `SSL` of a connection without a word to the client, if there is one.
///
/// # Safety
///
/// `c` is a live connection.
pub unsafe fn keep_quiet(c: *mut ngx_connection_t) {
    // SAFETY: by the contract.
    unsafe { ngx_http_ws_handoff_tls_quiet(c) }
}

/// The `SSL_CTX` of a server, by the TLS module's configuration of it; null if it has none.
pub fn context_of_server(conf: *mut c_void) -> *mut c_void {
    if conf.is_null() {
        return conf;
    }
    // SAFETY: a configuration of the TLS module's.
    unsafe { ngx_http_ws_handoff_tls_context(conf) }
}
