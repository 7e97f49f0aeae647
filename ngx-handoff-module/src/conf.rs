//! The directives of the `ws_handoff` family and the location configuration they fill. Follows nginx's conventions:
//! fields start unset, are inherited by `merge`, and are set by nginx's stock setters wherever there is one.

use core::cell::Cell;
use core::ffi::{c_char, c_void};
use core::mem::{MaybeUninit, offset_of};
use core::ptr;

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_BITMASK_SET, NGX_CONF_FLAG, NGX_CONF_TAKE1, NGX_CONF_TAKE2,
    NGX_HTTP_LIF_CONF, NGX_HTTP_LMT_CONF, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF, NGX_HTTP_UPSTREAM_FT_ERROR,
    NGX_HTTP_UPSTREAM_FT_HTTP_403, NGX_HTTP_UPSTREAM_FT_HTTP_404, NGX_HTTP_UPSTREAM_FT_HTTP_429,
    NGX_HTTP_UPSTREAM_FT_HTTP_500, NGX_HTTP_UPSTREAM_FT_HTTP_502, NGX_HTTP_UPSTREAM_FT_HTTP_503,
    NGX_HTTP_UPSTREAM_FT_HTTP_504, NGX_HTTP_UPSTREAM_FT_INVALID_HEADER, NGX_HTTP_UPSTREAM_FT_OFF,
    NGX_HTTP_UPSTREAM_FT_TIMEOUT, ngx_cacheline_size, ngx_command_t, ngx_conf_bitmask_t,
    ngx_conf_enum_t, ngx_conf_set_bitmask_slot, ngx_conf_set_enum_slot, ngx_conf_set_flag_slot,
    ngx_conf_set_msec_slot, ngx_conf_set_num_slot, ngx_conf_set_size_slot,
    ngx_conf_set_str_array_slot, ngx_conf_t, ngx_flag_t, ngx_hash_init_t, ngx_http_core_loc_conf_t,
    ngx_http_upstream_conf_t, ngx_http_upstream_hide_headers_hash, ngx_msec_t, ngx_pagesize,
    ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule};
use ngx::ngx_string;

use crate::nginx::{ComplexValue, List, OutOfMemory};
use crate::set_header::{self, SetHeader};
use crate::status::{self, StatusConf};
use crate::zone::{self, MainConf, Tally};
use crate::{handler, origin, target, tls};

/// What `ws_handoff` and its companions set for a location.
#[repr(C)]
pub struct LocationConf {
    /// nginx's own upstream configuration: peers, timeouts, next_upstream, hidden headers.
    pub upstream: ngx_http_upstream_conf_t,
    /// The address in `ws_handoff` if it has variables; else `upstream.upstream` tells.
    pub target: Option<ComplexValue>,
    /// `ws_handoff_fallback`: [`FALLBACK_TUNNEL`] or [`FALLBACK_OFF`].
    pub fallback: ngx_uint_t,
    /// `ws_handoff_set_header`: those of this level, or all of the one above if it has none.
    pub set_headers: List<SetHeader>,
    /// `ws_handoff_origin`; nothing admits all.
    pub origins: List<origin::Rule>,
    /// `ws_handoff_protocol`: [`PROTOCOL_HTTP`] or [`PROTOCOL_BARE`].
    pub protocol: ngx_uint_t,
    /// `ws_handoff_tls`: [`TLS_TUNNEL`], [`TLS_ON`] or [`TLS_OFF`].
    pub tls: ngx_uint_t,
    /// `ws_handoff_tls_trust`: whose sockets lead to backends that may have TLS sessions, besides root's and nginx's own.
    pub tls_trust: List<u32>,
    /// Whether this worker has warned of a socket that is not trusted.
    pub is_distrust_known: Cell<bool>,
    /// Where its requests are counted; null if nowhere, or if a variable names the upstream.
    pub tally: *const Tally,
    /// `ws_handoff_status`.
    pub status: StatusConf,
}

/// A connection whose socket cannot be passed is tunnelled through nginx.
pub const FALLBACK_TUNNEL: ngx_uint_t = 1;
/// A connection whose socket cannot be passed is answered 501.
pub const FALLBACK_OFF: ngx_uint_t = 0;

/// The backend is asked first, in HTTP (docs/protocol.md).
pub const PROTOCOL_HTTP: ngx_uint_t = 0;
/// The backend is sent the socket and nothing else.
pub const PROTOCOL_BARE: ngx_uint_t = 1;

/// A TLS client is tunnelled through nginx.
pub const TLS_TUNNEL: ngx_uint_t = 0;
/// A TLS client is handed over with its session, if that is possible.
pub const TLS_ON: ngx_uint_t = 1;
/// A TLS client is answered 501.
pub const TLS_OFF: ngx_uint_t = 2;

const UNSET_FLAG: ngx_flag_t = -1;
const UNSET_UINT: ngx_uint_t = ngx_uint_t::MAX;
const UNSET_MSEC: ngx_msec_t = ngx_msec_t::MAX;
const UNSET_SIZE: usize = usize::MAX;

impl Default for LocationConf {
    fn default() -> Self {
        // SAFETY: the structure consists of integers, nullable pointers and bit fields, all valid as zero; nginx's own
        // modules start from ngx_pcalloc() in the same way.
        let mut upstream: ngx_http_upstream_conf_t = unsafe { MaybeUninit::zeroed().assume_init() };
        let unset_ptr = ptr::without_provenance_mut(usize::MAX);

        upstream.connect_timeout = UNSET_MSEC;
        upstream.send_timeout = UNSET_MSEC;
        upstream.read_timeout = UNSET_MSEC;
        upstream.next_upstream_timeout = UNSET_MSEC;
        upstream.next_upstream_tries = UNSET_UINT;
        upstream.buffer_size = UNSET_SIZE;
        upstream.intercept_errors = UNSET_FLAG;
        upstream.hide_headers = unset_ptr;
        upstream.pass_headers = unset_ptr;
        upstream.module = ngx_string!("ws_handoff");

        Self {
            upstream,
            target: None,
            fallback: UNSET_UINT,
            set_headers: List::UNSET,
            origins: List::UNSET,
            protocol: UNSET_UINT,
            tls: UNSET_UINT,
            tls_trust: List::UNSET,
            is_distrust_known: Cell::new(false),
            tally: ptr::null(),
            status: StatusConf::default(),
        }
    }
}

const ANYWHERE: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

type Setter = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

const fn command(
    name: ngx_str_t,
    context_and_arguments: u32,
    set: Setter,
    offset: usize,
    post: *mut c_void,
) -> ngx_command_t {
    ngx_command_t {
        name,
        type_: context_and_arguments as ngx_uint_t,
        set: Some(set),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset,
        post,
    }
}

/// The directive table.
pub static mut COMMANDS: [ngx_command_t; 20] = [
    command(
        ngx_string!("ws_handoff"),
        NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF | NGX_CONF_TAKE1,
        target::set,
        0,
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_connect_timeout"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_msec_slot,
        offset_of!(LocationConf, upstream.connect_timeout),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_send_timeout"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_msec_slot,
        offset_of!(LocationConf, upstream.send_timeout),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_read_timeout"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_msec_slot,
        offset_of!(LocationConf, upstream.read_timeout),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_buffer_size"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_size_slot,
        offset_of!(LocationConf, upstream.buffer_size),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_next_upstream"),
        ANYWHERE | NGX_CONF_1MORE,
        ngx_conf_set_bitmask_slot,
        offset_of!(LocationConf, upstream.next_upstream),
        ptr::addr_of_mut!(NEXT_UPSTREAM).cast(),
    ),
    command(
        ngx_string!("ws_handoff_next_upstream_tries"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_num_slot,
        offset_of!(LocationConf, upstream.next_upstream_tries),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_next_upstream_timeout"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_msec_slot,
        offset_of!(LocationConf, upstream.next_upstream_timeout),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_intercept_errors"),
        ANYWHERE | NGX_CONF_FLAG,
        ngx_conf_set_flag_slot,
        offset_of!(LocationConf, upstream.intercept_errors),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_hide_header"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_str_array_slot,
        offset_of!(LocationConf, upstream.hide_headers),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_pass_header"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_str_array_slot,
        offset_of!(LocationConf, upstream.pass_headers),
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_fallback"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_enum_slot,
        offset_of!(LocationConf, fallback),
        ptr::addr_of_mut!(FALLBACKS).cast(),
    ),
    command(
        ngx_string!("ws_handoff_set_header"),
        ANYWHERE | NGX_CONF_TAKE2,
        set_header::set,
        0,
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_origin"),
        ANYWHERE | NGX_CONF_1MORE,
        origin::set,
        0,
        ptr::null_mut(),
    ),
    command(
        ngx_string!("ws_handoff_protocol"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_enum_slot,
        offset_of!(LocationConf, protocol),
        ptr::addr_of_mut!(PROTOCOLS).cast(),
    ),
    command(
        ngx_string!("ws_handoff_tls"),
        ANYWHERE | NGX_CONF_TAKE1,
        ngx_conf_set_enum_slot,
        offset_of!(LocationConf, tls),
        ptr::addr_of_mut!(TLS).cast(),
    ),
    command(
        ngx_string!("ws_handoff_tls_trust"),
        ANYWHERE | NGX_CONF_1MORE,
        tls::trust::set,
        0,
        ptr::null_mut(),
    ),
    zone::DIRECTIVE,
    status::DIRECTIVE,
    ngx_command_t::empty(),
];

const fn mask(name: ngx_str_t, mask: u32) -> ngx_conf_bitmask_t {
    ngx_conf_bitmask_t { name, mask: mask as ngx_uint_t }
}

static mut NEXT_UPSTREAM: [ngx_conf_bitmask_t; 12] = [
    mask(ngx_string!("error"), NGX_HTTP_UPSTREAM_FT_ERROR),
    mask(ngx_string!("timeout"), NGX_HTTP_UPSTREAM_FT_TIMEOUT),
    mask(ngx_string!("invalid_header"), NGX_HTTP_UPSTREAM_FT_INVALID_HEADER),
    mask(ngx_string!("http_403"), NGX_HTTP_UPSTREAM_FT_HTTP_403),
    mask(ngx_string!("http_404"), NGX_HTTP_UPSTREAM_FT_HTTP_404),
    mask(ngx_string!("http_429"), NGX_HTTP_UPSTREAM_FT_HTTP_429),
    mask(ngx_string!("http_500"), NGX_HTTP_UPSTREAM_FT_HTTP_500),
    mask(ngx_string!("http_502"), NGX_HTTP_UPSTREAM_FT_HTTP_502),
    mask(ngx_string!("http_503"), NGX_HTTP_UPSTREAM_FT_HTTP_503),
    mask(ngx_string!("http_504"), NGX_HTTP_UPSTREAM_FT_HTTP_504),
    mask(ngx_string!("off"), NGX_HTTP_UPSTREAM_FT_OFF),
    mask(ngx_str_t::empty(), 0),
];

static mut FALLBACKS: [ngx_conf_enum_t; 3] = [
    ngx_conf_enum_t { name: ngx_string!("tunnel"), value: FALLBACK_TUNNEL },
    ngx_conf_enum_t { name: ngx_string!("off"), value: FALLBACK_OFF },
    ngx_conf_enum_t { name: ngx_str_t::empty(), value: 0 },
];

static mut PROTOCOLS: [ngx_conf_enum_t; 3] = [
    ngx_conf_enum_t { name: ngx_string!("http"), value: PROTOCOL_HTTP },
    ngx_conf_enum_t { name: ngx_string!("bare"), value: PROTOCOL_BARE },
    ngx_conf_enum_t { name: ngx_str_t::empty(), value: 0 },
];

static mut TLS: [ngx_conf_enum_t; 4] = [
    ngx_conf_enum_t { name: ngx_string!("tunnel"), value: TLS_TUNNEL },
    ngx_conf_enum_t { name: ngx_string!("on"), value: TLS_ON },
    ngx_conf_enum_t { name: ngx_string!("off"), value: TLS_OFF },
    ngx_conf_enum_t { name: ngx_str_t::empty(), value: 0 },
];

/// What nginx's upstream modules hide by default.
static mut HIDE_HEADERS: [ngx_str_t; 9] = [
    ngx_string!("Date"),
    ngx_string!("Server"),
    ngx_string!("X-Pad"),
    ngx_string!("X-Accel-Expires"),
    ngx_string!("X-Accel-Redirect"),
    ngx_string!("X-Accel-Limit-Rate"),
    ngx_string!("X-Accel-Buffering"),
    ngx_string!("X-Accel-Charset"),
    ngx_str_t::empty(),
];

fn merge_value<T: Copy + PartialEq>(own: &mut T, parent: T, unset: T, default: T) {
    if *own == unset {
        *own = if parent == unset { default } else { parent };
    }
}

/// Inherits what a location does not set itself, as nginx's upstream modules do.
pub unsafe extern "C" fn merge_loc_conf(
    cf: *mut ngx_conf_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes two distinct structures made by `create_loc_conf`.
    let (prev, conf) =
        unsafe { (&mut *parent.cast::<LocationConf>(), &mut *child.cast::<LocationConf>()) };
    // SAFETY: nginx's globals, set before any configuration is read.
    let (page_size, cache_line) = unsafe { (ngx_pagesize, ngx_cacheline_size) };
    let (own, inherited) = (&mut conf.upstream, &mut prev.upstream);

    merge_value(&mut own.connect_timeout, inherited.connect_timeout, UNSET_MSEC, 60_000);
    merge_value(&mut own.send_timeout, inherited.send_timeout, UNSET_MSEC, 60_000);
    merge_value(&mut own.read_timeout, inherited.read_timeout, UNSET_MSEC, 60_000);
    merge_value(&mut own.next_upstream_timeout, inherited.next_upstream_timeout, UNSET_MSEC, 0);
    merge_value(&mut own.next_upstream_tries, inherited.next_upstream_tries, UNSET_UINT, 0);
    merge_value(&mut own.buffer_size, inherited.buffer_size, UNSET_SIZE, page_size);
    merge_value(&mut own.intercept_errors, inherited.intercept_errors, UNSET_FLAG, 0);
    merge_value(&mut conf.fallback, prev.fallback, UNSET_UINT, FALLBACK_TUNNEL);
    merge_value(&mut conf.protocol, prev.protocol, UNSET_UINT, PROTOCOL_HTTP);
    merge_value(&mut conf.tls, prev.tls, UNSET_UINT, TLS_TUNNEL);
    if conf.set_headers.is_unset() {
        conf.set_headers = prev.set_headers;
    }
    if conf.origins.is_unset() {
        conf.origins = prev.origins;
    }
    if conf.tls_trust.is_unset() {
        conf.tls_trust = prev.tls_trust;
    }

    // An answer that is not HTTP and a draining backend (503) are as good a reason for the next peer as a dead one:
    // until the offer the client has been promised nothing.
    let default_next = NGX_CONF_BITMASK_SET
        | NGX_HTTP_UPSTREAM_FT_ERROR
        | NGX_HTTP_UPSTREAM_FT_TIMEOUT
        | NGX_HTTP_UPSTREAM_FT_INVALID_HEADER
        | NGX_HTTP_UPSTREAM_FT_HTTP_503;
    merge_value(&mut own.next_upstream, inherited.next_upstream, 0, default_next as ngx_uint_t);
    if own.next_upstream & NGX_HTTP_UPSTREAM_FT_OFF as ngx_uint_t != 0 {
        own.next_upstream = (NGX_CONF_BITMASK_SET | NGX_HTTP_UPSTREAM_FT_OFF) as ngx_uint_t;
    }

    let mut hash = ngx_hash_init_t {
        hash: ptr::null_mut(),
        key: None,
        max_size: 512,
        bucket_size: 64usize.next_multiple_of(cache_line.max(1)),
        name: c"ws_handoff_headers_hash".as_ptr().cast_mut(),
        pool: ptr::null_mut(),
        temp_pool: ptr::null_mut(),
    };
    let defaults = ptr::addr_of_mut!(HIDE_HEADERS).cast::<ngx_str_t>();
    // SAFETY: all five are valid through the call; the list of defaults ends with an empty string.
    // Without this hash ngx_http_upstream_process_headers() would divide by zero.
    let rc =
        unsafe { ngx_http_upstream_hide_headers_hash(cf, own, inherited, defaults, &mut hash) };
    if rc != 0 {
        return NGX_CONF_ERROR;
    }

    // SAFETY: `cf` is valid while configurations are merged.
    let Some(core) = NgxHttpCoreModule::location_conf_mut(unsafe { &*cf }) else {
        return NGX_CONF_ERROR;
    };
    target::inherit(core, conf, prev);
    let Ok(tally) = tally(cf, core, &conf.upstream) else { return NGX_CONF_ERROR };
    conf.tally = tally;
    if conf.tls == TLS_ON && conf.protocol == PROTOCOL_HTTP && serves(core, &conf.upstream) {
        if let Some(main) = MainConf::of_conf(cf) {
            main.expect_tls();
        }
    }
    if status::merge(cf, core, &prev.status, &mut conf.status).is_err() {
        return NGX_CONF_ERROR;
    }

    NGX_CONF_OK
}

/// Where the requests of a location are counted that `ws_handoff` serves.
fn tally(
    cf: *mut ngx_conf_t,
    core: &ngx_http_core_loc_conf_t,
    own: &ngx_http_upstream_conf_t,
) -> Result<*const Tally, OutOfMemory> {
    if serves(core, own) { zone::tally_of_location(cf, own.upstream) } else { Ok(ptr::null()) }
}

/// Whether `ws_handoff` serves a location's requests.
fn serves(core: &ngx_http_core_loc_conf_t, own: &ngx_http_upstream_conf_t) -> bool {
    let handle = handler::handle as *const () as usize;
    let handles = core.handler.is_some_and(|handler| handler as usize == handle);
    handles || !own.upstream.is_null()
}
