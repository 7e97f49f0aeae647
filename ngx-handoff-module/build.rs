//! Passes on what nginx-sys found out about the nginx that it was pointed at, `cfg(ngx_feature = "ssl")` and its like, and
//! compiles the one C file with what nginx itself is compiled with.

use std::env;

const FLAGS: &str = "src/nginx/request_flags.c";

fn main() {
    for variable in ["DEP_NGINX_FEATURES", "DEP_NGINX_FEATURES_CHECK"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let known = env::var("DEP_NGINX_FEATURES_CHECK").unwrap_or_else(|_| "any()".into());
    println!("cargo::rustc-check-cfg=cfg(ngx_feature, values({known}))");
    for feature in env::var("DEP_NGINX_FEATURES").unwrap_or_default().split(',') {
        println!("cargo::rustc-cfg=ngx_feature=\"{}\"", feature.trim());
    }

    for variable in ["DEP_NGINX_INCLUDE", "DEP_NGINX_CFLAGS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed={FLAGS}");
    let include = env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default();
    let mut compiler = cc::Build::new();
    compiler.file(FLAGS).includes(env::split_paths(&include));
    for flag in env::var("DEP_NGINX_CFLAGS").unwrap_or_default().split_whitespace() {
        compiler.flag(flag);
    }
    compiler.compile("ws_handoff_request_flags");
}
