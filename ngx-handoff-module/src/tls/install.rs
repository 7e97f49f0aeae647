//! Has OpenSSL tell of each connection, once the configuration has been read.

use core::ffi::c_void;
use core::ptr;

use nginx_sys::{
    NGX_LOG_EMERG, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_core_srv_conf_t, ngx_int_t,
};
use ngx::http::{HttpModuleMainConf, NgxHttpCoreModule};
use ngx::ngx_conf_log_error;

use super::observed;
use super::openssl::{self, Lack, object_of};
use super::trust;
use crate::nginx;
use crate::nginx::tls as shim;
use crate::zone::MainConf;

/// `postconfiguration`: every server's context, since the name that a client asks for (SNI) chooses another one; and only if
/// a location hands TLS clients over.
pub fn install(cf: *mut ngx_conf_t) -> ngx_int_t {
    if !MainConf::of_conf(cf).is_some_and(MainConf::hands_over_tls) {
        return nginx::OK;
    }
    // Without that module nobody speaks TLS.
    let Some(index) = ssl_module(cf) else { return nginx::OK };
    if !shim::is_built_in() {
        ngx_conf_log_error!(
            NGX_LOG_EMERG,
            cf,
            "\"ws_handoff_tls on\" needs a module that was built for an nginx with TLS"
        );
        return nginx::ERROR;
    }
    let openssl = match openssl::find() {
        Ok(openssl) => openssl,
        Err(Lack::Function(name)) => {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "\"ws_handoff_tls on\" needs OpenSSL 3, and nginx's TLS library has no {name}()"
            );
            return nginx::ERROR;
        }
        Err(Lack::Scattered(name)) => {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "\"ws_handoff_tls on\" needs nginx's own TLS library, and finds {name}() in another one"
            );
            return nginx::ERROR;
        }
        Err(Lack::Version(version)) => {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "\"ws_handoff_tls on\" needs OpenSSL 3, and nginx's TLS library says that it is {version:#x}"
            );
            return nginx::ERROR;
        }
    };
    if !pin() {
        ngx_conf_log_error!(
            NGX_LOG_EMERG,
            cf,
            "\"ws_handoff_tls on\" cannot keep the module loaded"
        );
        return nginx::ERROR;
    }

    trust::prepare();

    // SAFETY: `cf` is valid while a configuration is read.
    let Some(core) = NgxHttpCoreModule::main_conf(unsafe { &*cf }) else { return nginx::ERROR };
    // SAFETY: nginx's array of pointers to all servers.
    for server in unsafe { core.servers.as_slice::<*mut ngx_http_core_srv_conf_t>() } {
        // SAFETY: a server's context has the configurations of all modules, by index.
        let conf = unsafe { *(*(**server).ctx.cast::<ngx_http_conf_ctx_t>()).srv_conf.add(index) };
        let ctx = shim::context_of_server(conf).cast::<super::openssl::SslCtx>();
        // A server without TLS has none.
        if ctx.is_null() {
            continue;
        }
        // SAFETY: a context of nginx's.
        if !unsafe { openssl::has_made(openssl, ctx) } {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "\"ws_handoff_tls on\" needs nginx's own TLS library, and finds another one"
            );
            return nginx::ERROR;
        }
        // SAFETY: a context of nginx's, which nobody has connected to yet.
        if !unsafe { observed::observe(openssl, ctx) } {
            return nginx::ERROR;
        }
    }
    nginx::OK
}

/// The index of nginx's TLS module, by its name: its symbol does not exist in every nginx.
fn ssl_module(cf: *mut ngx_conf_t) -> Option<usize> {
    // SAFETY: nginx's list of modules, which ends with null; each has a name by now.
    unsafe {
        let mut module = (*(*cf).cycle).modules;
        while let Some(known) = (*module).as_ref() {
            let name = known.name;
            if !name.is_null() && core::ffi::CStr::from_ptr(name) == c"ngx_http_ssl_module" {
                return Some(known.ctx_index);
            }
            module = module.add(1);
        }
    }
    None
}

/// Keeps the module's code in memory: OpenSSL calls it for connections and contexts that outlive a reload whose configuration
/// does not load the module any more.
fn pin() -> bool {
    let here = install as *const c_void;
    let (Some(own), Some(main)) = (object_of(here), object_of(main_program())) else {
        return false;
    };
    if own.dli_fbase == main.dli_fbase {
        return true;
    }
    // Found by its name among what is loaded; only its flag changes. The handle is not closed.
    let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: a name that the linker has given.
    !unsafe { libc::dlopen(own.dli_fname, flags) }.is_null()
}

/// Something that is in nginx's own binary in any case.
fn main_program() -> *const c_void {
    ptr::addr_of!(nginx_sys::ngx_cycle).cast()
}
