//! nginx's OpenSSL, and what stands between it and the module: another library, another module, another use of it.

use crate::support::tls_site::{Site, echo, upgrade};
use crate::support::{Nginx, process, tls};

/// Declarations, and a function that calls the library's own of the same name.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
typedef void *(*make)(void *);
static void *original(const char *name, void *argument) { return ((make) dlsym(RTLD_NEXT, name))(argument); }
"#;

/// `nginx -t` with that in front of OpenSSL.
fn check(source: &str) -> (bool, String) {
    let builder = Nginx::builder().http(
        "server { listen 127.0.0.1:1 ssl; ssl_certificate cert.pem; ssl_certificate_key cert.key; \
         location / { ws_handoff_tls on; ws_handoff unix:/a; } }",
    );
    tls::certificate(builder.dir(), "cert", "localhost");
    let builder = builder.preload(&format!("{LIBRARY}{source}"));
    builder.write_config();
    let output = process::output(builder.command().arg("-t")).expect("run nginx -t");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn functions_in_front_of_openssl_that_the_module_does_not_use_do_no_harm() {
    let (accepted, messages) =
        check("void *SSL_new(void *ctx) { return original(\"SSL_new\", ctx); }");
    assert!(accepted, "{messages}");
}

#[test]
fn functions_of_two_libraries_are_refused() {
    // None of them is called by `nginx -t`.
    for name in ["SSL_version", "SSL_rstate_string", "HMAC"] {
        let (accepted, messages) =
            check(&format!("int {name}(void *any) {{ return original(\"{name}\", any) != 0; }}"));
        assert!(!accepted, "{messages}");
        let complaint = "[emerg] \"ws_handoff_tls on\" needs nginx's own TLS library, and finds ";
        let line = messages.lines().find(|line| line.contains(complaint));
        assert!(line.is_some_and(|line| line.contains("() in another one")), "{messages}");
    }
}

#[test]
fn context_of_another_library_is_refused() {
    // nginx's contexts point to a table that is not in the library whose functions are found by name.
    let (accepted, messages) = check(
        r#"
        void *SSL_CTX_new(void *method) {
            static char table[512];
            memcpy(table, method, 256);
            return original("SSL_CTX_new", table);
        }"#,
    );
    assert!(!accepted, "{messages}");
    let complaint =
        "[emerg] \"ws_handoff_tls on\" needs nginx's own TLS library, and finds another one";
    assert!(messages.contains(complaint), "{messages}");
}

#[test]
fn session_is_tunnelled_whose_secrets_somebody_else_has_asked_for() {
    const TAKER: &str = r#"
        void SSL_CTX_set_keylog_callback(void *ctx, void *callback);
        void SSL_set_msg_callback(void *ssl, void *callback);
        void *SSL_new(void *ctx) {
            void *ssl = original("SSL_new", ctx);
            SSL_CTX_set_keylog_callback(ctx, 0);
            SSL_set_msg_callback(ssl, 0);
            return ssl;
        }"#;
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        lacks_secrets(protocol, TAKER);
    }
}

#[test]
fn session_is_tunnelled_whose_secrets_go_to_somebody_who_came_later() {
    const LATER: &str = r#"
        void SSL_CTX_set_keylog_callback(void *ctx, void *callback);
        static void listen_to(const void *ssl, const char *line) {}
        void *SSL_new(void *ctx) {
            SSL_CTX_set_keylog_callback(ctx, listen_to);
            return original("SSL_new", ctx);
        }"#;
    lacks_secrets("TLSv1.3", LATER);
}

/// Numbers that stand still would have the backend use a nonce a second time.
#[test]
fn session_is_tunnelled_whose_records_nobody_tells_of() {
    // Its secrets are known all the same: somebody else has a use for each line.
    const FROM_THE_BEGINNING: &str = r#"
        void SSL_set_msg_callback(void *ssl, void *callback);
        void *SSL_new(void *ctx) {
            void *ssl = original("SSL_new", ctx);
            SSL_set_msg_callback(ssl, 0);
            return ssl;
        }"#;
    const AFTER_THE_HANDSHAKE: &str = r#"
        void SSL_set_msg_callback(void *ssl, void *callback);
        int SSL_do_handshake(void *ssl) {
            int (*shake)(void *) = dlsym(RTLD_NEXT, "SSL_do_handshake");
            (void) original;
            int done = shake(ssl);
            if (done == 1) SSL_set_msg_callback(ssl, 0);
            return done;
        }"#;
    let listener = LISTENER.replace("@LOG@", "/dev/null");
    lacks_secrets("TLSv1.3", &format!("{listener}{FROM_THE_BEGINNING}"));
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        lacks_secrets(protocol, AFTER_THE_HANDSHAKE);
    }
}

/// With that in front of OpenSSL, sessions stay in nginx for want of their secrets.
fn lacks_secrets(protocol: &str, source: &str) {
    let backend = tls::echo();
    let server = format!("ssl_protocols {protocol};");
    let site = Site::with(&backend.address(), "", &server, |builder, _| {
        builder.preload(&format!("{LIBRARY}{source}"))
    });
    let mut client = site.s_client(&[]);
    upgrade(&mut client, "secrets");
    echo(&mut client, "tunnelled");
    drop(client);
    site.was_tunnelled(&backend, "secrets");
}

/// Somebody was there first: every context that nginx makes has a keylog callback already.
#[test]
fn secrets_are_shared_with_who_asked_for_them_first() {
    let backend = tls::echo();
    let mut log = None;
    let site = Site::with(&backend.address(), "", "ssl_protocols TLSv1.3;", |builder, _| {
        let path = builder.dir().join("labels");
        let listener = LISTENER.replace("@LOG@", &path.display().to_string());
        log = Some(path);
        builder.preload(&format!("{LIBRARY}{listener}"))
    });
    site.run("same_record", &[]);
    site.run("interleaved", &[]);
    site.all_were("tls", "-");

    // Of 12 + 4 connections, of which 4 end before their client's last message.
    let labels = std::fs::read_to_string(log.expect("a path")).expect("read");
    let count = |label: &str| labels.lines().filter(|line| *line == label).count();
    assert_eq!(count("SERVER_HANDSHAKE_TRAFFIC_SECRET"), 16, "{labels}");
    assert_eq!(count("SERVER_TRAFFIC_SECRET_0"), 16, "{labels}");
    assert_eq!(count("EXPORTER_SECRET"), 16, "{labels}");
    assert_eq!(count("CLIENT_TRAFFIC_SECRET_0"), 12, "{labels}");
}

/// Writes the labels, and no secret.
const LISTENER: &str = r#"
    #include <stdio.h>
    #include <string.h>
    static void listen_to(const void *ssl, const char *line) {
        FILE *log = fopen("@LOG@", "a");
        if (log) {
            fprintf(log, "%.*s\n", (int) strcspn(line, " "), line);
            fclose(log);
        }
    }
    void *SSL_CTX_new(void *method) {
        void *context = original("SSL_CTX_new", method);
        void (*set)(void *, void *) = dlsym(RTLD_NEXT, "SSL_CTX_set_keylog_callback");
        set(context, listen_to);
        return context;
    }"#;

#[test]
fn kernel_tls_of_openssls_own_does_no_harm() {
    // Where the kernel has it, OpenSSL's counts are wrong: the session has to stay.
    let kernel = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    let has_it = kernel.is_ok_and(|list| list.split_whitespace().any(|name| name == "tls"));
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let backend = tls::echo();
        let server = format!("ssl_protocols {protocol}; ssl_conf_command Options KTLS;");
        let site = Site::new(&backend, &server);
        let mut client = site.s_client(&[]);
        upgrade(&mut client, "first");
        echo(&mut client, "second");
        drop(client);
        let line = site.nginx.logged("GET /ws");
        let fate = (line.get("result"), line.get("error"));
        eprintln!("{protocol}: {fate:?}");
        assert!(fate == ("tls", "-") || has_it && fate == ("tunnel", "ktls"), "{fate:?}");
        site.all_were(fate.0, fate.1);
    }
}
