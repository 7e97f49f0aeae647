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

/*
 * TLS, for tls.rs. An nginx that is compatible with this one may have no TLS: nothing here needs its library.
 */

int ngx_http_ws_handoff_tls_built_in(void);
void *ngx_http_ws_handoff_tls_connection(ngx_connection_t *c);
void *ngx_http_ws_handoff_tls_context(void *conf);
void ngx_http_ws_handoff_tls_quiet(ngx_connection_t *c);

#if (NGX_HTTP_SSL)

int
ngx_http_ws_handoff_tls_built_in(void)
{
    return 1;
}

void *
ngx_http_ws_handoff_tls_connection(ngx_connection_t *c)
{
    return c->ssl ? c->ssl->connection : NULL;
}

void *
ngx_http_ws_handoff_tls_context(void *conf)
{
    return ((ngx_http_ssl_srv_conf_t *) conf)->ssl.ctx;
}

void
ngx_http_ws_handoff_tls_quiet(ngx_connection_t *c)
{
    if (c->ssl) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;
    }
}

#else

int
ngx_http_ws_handoff_tls_built_in(void)
{
    return 0;
}

void *
ngx_http_ws_handoff_tls_connection(ngx_connection_t *c)
{
    (void) c;
    return NULL;
}

void *
ngx_http_ws_handoff_tls_context(void *conf)
{
    (void) conf;
    return NULL;
}

void
ngx_http_ws_handoff_tls_quiet(ngx_connection_t *c)
{
    (void) c;
}

#endif
