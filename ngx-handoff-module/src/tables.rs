//! The three tables by which `ngx_load_module()` finds what a shared object holds. In a static build, and in one of
//! `--add-dynamic-module`, nginx's own build generates them.

use core::ffi::c_char;
use core::ptr;

use nginx_sys::ngx_module_t;

use crate::ngx_http_ws_handoff_module;

/// NULL-terminated list of the modules in this object.
// SAFETY: nginx looks this symbol up by name and expects an array of module pointers.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_modules: [*const ngx_module_t; 2] =
    [ptr::addr_of!(ngx_http_ws_handoff_module), ptr::null()];

/// Their names, in the same order.
// SAFETY: nginx looks this symbol up by name and expects an array of C strings.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_module_names: [*const c_char; 2] =
    [c"ngx_http_ws_handoff_module".as_ptr(), ptr::null()];

/// Empty: the order among other modules does not matter to a content handler.
// SAFETY: nginx looks this symbol up by name and expects an array of C strings.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_module_order: [*const c_char; 1] = [ptr::null()];
