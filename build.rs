//! Tells `tests/` which nginx the module is built against. Never downloads, never runs cargo.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=DEP_NGINX_BUILD_DIR");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_VERSION");
    let build_dir = env::var("DEP_NGINX_BUILD_DIR").unwrap_or_default();
    let version = env::var("DEP_NGINX_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=WS_HANDOFF_NGINX={}", Path::new(&build_dir).join("nginx").display());
    println!("cargo::rustc-env=WS_HANDOFF_NGINX_VERSION={version}");
}
