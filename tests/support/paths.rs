//! Where the things under test are: what `make build` stages, unless the environment says
//! otherwise.

use std::env;
use std::path::{Path, PathBuf};

/// The nginx that the module was built against.
pub fn nginx() -> PathBuf {
    staged("WS_HANDOFF_TEST_NGINX", "build/sbin/nginx")
}

/// The module, loaded with `load_module`; `None` for an nginx that it is part of (`builtin` in the environment).
pub fn module() -> Option<PathBuf> {
    const VARIABLE: &str = "WS_HANDOFF_TEST_MODULE";
    if env::var_os(VARIABLE).is_some_and(|value| value == "builtin") {
        return None;
    }
    Some(staged(VARIABLE, "build/modules/ngx_http_ws_handoff_module.so"))
}

/// The backend program.
pub fn backend() -> PathBuf {
    staged("WS_HANDOFF_TEST_BACKEND", "build/bin/ws-handoff-backend")
}

/// A service of `examples/`, built.
pub fn example(name: &str) -> PathBuf {
    let path = root().join("build/examples").join(name);
    assert!(path.is_file(), "{} is missing: run `make examples`", path.display());
    path
}

/// The Python interpreter that has the `websockets` package.
pub fn python() -> PathBuf {
    staged("WS_HANDOFF_TEST_PYTHON", "build/venv/bin/python")
}

/// Prometheus's own checker of metrics.
pub fn promtool() -> PathBuf {
    staged("WS_HANDOFF_TEST_PROMTOOL", "build/promtool/promtool")
}

/// The Go example, which `make test-docs` compiles.
pub fn go_backend() -> PathBuf {
    staged("WS_HANDOFF_TEST_GO_BACKEND", "build/go/backend")
}

/// The client in Go, which `make test-clients` compiles.
pub fn go_client() -> PathBuf {
    staged("WS_HANDOFF_TEST_GO_CLIENT", "build/go/client")
}

/// A script of `tests/clients`.
pub fn client_script(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// A file of `examples/`.
pub fn example_file(name: &str) -> PathBuf {
    root().join("examples").join(name)
}

/// A script of `tests/python`.
pub fn python_script(name: &str) -> PathBuf {
    root().join("tests/python").join(name)
}

/// The working copy.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn staged(variable: &str, default: &str) -> PathBuf {
    let path = match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => root().join(default),
    };
    assert!(path.is_file(), "{} is missing: run `make build` (or set {variable})", path.display());
    path
}
