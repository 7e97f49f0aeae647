/*
 * The bit fields of ngx_http_request_t, for request_flags.rs, which says why they are read and written here.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#pragma GCC visibility push(hidden)

#define FLAG(name)                                                            \
    ngx_uint_t ngx_http_ws_handoff_get_##name(ngx_http_request_t *r);         \
    void ngx_http_ws_handoff_set_##name(ngx_http_request_t *r, ngx_uint_t v); \
                                                                              \
    ngx_uint_t                                                                \
    ngx_http_ws_handoff_get_##name(ngx_http_request_t *r)                     \
    {                                                                         \
        return r->name;                                                       \
    }                                                                         \
                                                                              \
    void                                                                      \
    ngx_http_ws_handoff_set_##name(ngx_http_request_t *r, ngx_uint_t v)       \
    {                                                                         \
        r->name = v;                                                          \
    }

FLAG(buffered)
FLAG(count)
FLAG(error_page)
FLAG(header_only)
FLAG(header_sent)
FLAG(internal)
FLAG(keepalive)
FLAG(limit_rate_set)
FLAG(lingering_close)
FLAG(post_action)
FLAG(quoted_uri)
FLAG(valid_unparsed_uri)
