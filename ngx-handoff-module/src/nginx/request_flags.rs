//! The bit fields of a request. The C compiler says where they are, and not the bindings: since nginx 1.29.3 the first of
//! them begins in the middle of an int, where bindgen before 0.73 (nginx-sys 0.5.0 uses 0.72) misplaces those that follow
//! (rust-lang/rust-bindgen#3105). So no other file uses the accessors of `ngx_http_request_t`.

use nginx_sys::{
    ngx_buf_t, ngx_connection_t, ngx_event_t, ngx_http_core_loc_conf_t, ngx_http_headers_in_t,
    ngx_http_request_t, ngx_http_upstream_headers_in_t, ngx_http_upstream_t, ngx_uint_t, ngx_url_t,
};

macro_rules! flags {
    ($($name:ident: $get:ident, $set:ident;)+) => {
        unsafe extern "C" {
            $(
                fn $get(r: *mut ngx_http_request_t) -> ngx_uint_t;
                fn $set(r: *mut ngx_http_request_t, value: ngx_uint_t);
            )+
        }

        $(
            #[doc = concat!("`r->", stringify!($name), "`")]
            #[allow(dead_code)]
            pub mod $name {
                use super::{ngx_http_request_t, ngx_uint_t};

                /// # Safety
                ///
                /// `r` is a live request.
                pub unsafe fn get(r: *mut ngx_http_request_t) -> ngx_uint_t {
                    // SAFETY: by this function's contract; the function only reads.
                    unsafe { super::$get(r) }
                }

                /// # Safety
                ///
                /// `r` is a live request.
                pub unsafe fn set(r: *mut ngx_http_request_t, value: ngx_uint_t) {
                    // SAFETY: by this function's contract; the function writes this field alone.
                    unsafe { super::$set(r, value) }
                }
            }
        )+
    };
}

flags! {
    buffered: ngx_http_ws_handoff_get_buffered, ngx_http_ws_handoff_set_buffered;
    count: ngx_http_ws_handoff_get_count, ngx_http_ws_handoff_set_count;
    error_page: ngx_http_ws_handoff_get_error_page, ngx_http_ws_handoff_set_error_page;
    header_only: ngx_http_ws_handoff_get_header_only, ngx_http_ws_handoff_set_header_only;
    header_sent: ngx_http_ws_handoff_get_header_sent, ngx_http_ws_handoff_set_header_sent;
    internal: ngx_http_ws_handoff_get_internal, ngx_http_ws_handoff_set_internal;
    keepalive: ngx_http_ws_handoff_get_keepalive, ngx_http_ws_handoff_set_keepalive;
    limit_rate_set: ngx_http_ws_handoff_get_limit_rate_set, ngx_http_ws_handoff_set_limit_rate_set;
    lingering_close: ngx_http_ws_handoff_get_lingering_close, ngx_http_ws_handoff_set_lingering_close;
    post_action: ngx_http_ws_handoff_get_post_action, ngx_http_ws_handoff_set_post_action;
    quoted_uri: ngx_http_ws_handoff_get_quoted_uri, ngx_http_ws_handoff_set_quoted_uri;
    valid_unparsed_uri: ngx_http_ws_handoff_get_valid_unparsed_uri, ngx_http_ws_handoff_set_valid_unparsed_uri;
}

/// The other structures whose bit fields this module uses: should a version of nginx move one of them in the same way, the
/// module does not build for it, instead of misbehaving.
const _: () = {
    macro_rules! begins_an_int {
        ($($structure:ty),+) => { $( assert!(core::mem::offset_of!($structure, _bitfield_1) % 4 == 0); )+ };
    }
    begins_an_int!(
        ngx_buf_t,
        ngx_connection_t,
        ngx_event_t,
        ngx_http_core_loc_conf_t,
        ngx_http_headers_in_t,
        ngx_http_upstream_headers_in_t,
        ngx_http_upstream_t,
        ngx_url_t
    );
};
