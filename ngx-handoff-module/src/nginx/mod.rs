//! Views of nginx's structures: the one place where its raw pointers are turned into something the rest of the module can
//! use without `unsafe`. A view is a `Copy` handle that lives no longer than the callback which made it.

mod conf;
mod connection;
mod history;
mod peer;
mod pool;
mod regex;
mod request;
mod request_flags;
mod slab;
pub mod tls;
mod upstream;

pub use conf::{ComplexValue, List, arguments};
pub use connection::Connection;
pub use history::now;
pub use peer::listener_uid;
pub use pool::{Pool, str_bytes, str_of};
pub use regex::Regex;
pub use request::Request;
pub use slab::Slab;
pub use upstream::{AddressFault, FieldError, Upstream};

use nginx_sys::ngx_int_t;

/// `NGX_OK`
pub const OK: ngx_int_t = nginx_sys::NGX_OK as ngx_int_t;
/// `NGX_ERROR`
pub const ERROR: ngx_int_t = nginx_sys::NGX_ERROR as ngx_int_t;
/// `NGX_AGAIN`
pub const AGAIN: ngx_int_t = nginx_sys::NGX_AGAIN as ngx_int_t;
/// `NGX_DONE`
pub const DONE: ngx_int_t = nginx_sys::NGX_DONE as ngx_int_t;
/// `NGX_HTTP_UPSTREAM_INVALID_HEADER`: this peer's answer cannot be used, try the next one.
pub const INVALID_HEADER: ngx_int_t = nginx_sys::NGX_HTTP_UPSTREAM_INVALID_HEADER as ngx_int_t;

/// An allocation from a pool failed; nginx has logged it.
#[derive(Clone, Copy, Debug)]
pub struct OutOfMemory;
