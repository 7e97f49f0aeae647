//! nginx dynamic module `ngx_http_ws_handoff_module`.
//!
//! This file owns the module table and the wiring to nginx's life cycle; everything else has a file of its own:
//! `conf` (directives), `handler` (the opening handshake), `head` (the request to the backend), `answer` (its answer),
//! `refusal` (the body of one), `takeover` (offer, 101, commit), `release` (nginx lets the socket go), `client` (a
//! client that leaves early), `descriptor` (the one file that sends a descriptor), `zone` (shared memory for counters),
//! `ledger` (what is counted of a request), `tls` (the session of a TLS client), `status` (the counters shown), `variables`, `tables` (what a shared object
//! exports) and `nginx` (views of nginx's structures).

use core::ptr;

use nginx_sys::{
    NGX_HTTP_MODULE, NGX_LOG_EMERG, ngx_conf_t, ngx_cycle_t, ngx_http_module_t, ngx_int_t,
    ngx_module_t, ngx_uint_t,
};
use ngx::core::Status;
use ngx::http::{HttpModule, HttpModuleLocationConf, HttpModuleMainConf};

use crate::conf::LocationConf;
use crate::zone::MainConf;

#[macro_use]
mod log;

mod answer;
mod bare;
mod client;
mod conf;
mod context;
mod descriptor;
mod handler;
mod head;
mod ledger;
mod nginx;
mod origin;
mod refusal;
mod release;
mod set_header;
mod status;
#[cfg(feature = "export-modules")]
mod tables;
mod takeover;
mod target;
mod tls;
mod variables;
mod zone;

/// The module, as the `ngx` crate's configuration traits see it.
struct HandoffModule;

impl HttpModule for HandoffModule {
    fn module() -> &'static ngx_module_t {
        // SAFETY: nginx writes to the table only while it loads the module, before any callback runs.
        unsafe { &*ptr::addr_of!(ngx_http_ws_handoff_module) }
    }
}

// SAFETY: `create_loc_conf` below, from the trait's default, allocates exactly this type.
unsafe impl HttpModuleLocationConf for HandoffModule {
    type LocationConf = LocationConf;
}

// SAFETY: `create_main_conf` below, from the trait's default, allocates exactly this type.
unsafe impl HttpModuleMainConf for HandoffModule {
    type MainConf = MainConf;
}

static MODULE_CTX: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(variables::add),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(HandoffModule::create_main_conf),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(HandoffModule::create_loc_conf),
    merge_loc_conf: Some(conf::merge_loc_conf),
};

/// The module's entry in nginx's module list.
// SAFETY: nginx's own modules are named in the same way; in a static build its generated list refers to this one.
#[unsafe(no_mangle)]
#[used]
#[allow(non_upper_case_globals)]
pub static mut ngx_http_ws_handoff_module: ngx_module_t = ngx_module_t {
    ctx: ptr::addr_of!(MODULE_CTX).cast_mut().cast(),
    commands: ptr::addr_of_mut!(conf::COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_process: Some(init_process),
    ..ngx_module_t::default()
};

/// Once the configuration has been read.
unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    match zone::postconfiguration(cf) {
        nginx::OK => tls::install(cf),
        error => error,
    }
}

/// Creates what each worker needs once. A failure here stops the worker before it accepts anybody.
unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the cycle that it is starting.
    zone::start_worker(unsafe { &*cycle });
    match release::create_dummy() {
        Ok(()) => Status::NGX_OK.into(),
        Err(errno) => {
            // SAFETY: nginx passes the cycle that it is starting, whose log is set.
            let log = unsafe { (*cycle).log };
            log_errno!(NGX_LOG_EMERG, log, errno.raw_os_error(), "ws_handoff: socketpair() failed");
            Status::NGX_ERROR.into()
        }
    }
}
