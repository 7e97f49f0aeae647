#!/usr/bin/env bash
# The module in nginx's own build: configures and builds an nginx with --add-module, and the shared object with
# --add-dynamic-module, and runs the end-to-end tests against each.
#
#   tests/static/run.sh CARGO_FLAGS...
#
# The source is that of the nginx which `make build` compiles (build/sbin/nginx, which loads the shared object).
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
tree=$root/build/static/tree
library=ws_handoff/release/libngx_http_ws_handoff_module.a

main() {
    local more common flags
    more=$(sed -n 's/^NGX_CONFIGURE_ARGS = "\(.*\)"/\1/p' .cargo/config.toml)
    read -ra common <<<"--with-threads --with-http_ssl_module --with-http_v2_module --with-http_realip_module $more"
    fetch_source

    echo "Static, in the smallest nginx: no TLS, no threads, no PCRE"
    flags=(--without-http_rewrite_module --without-http_gzip_module)
    build objs "objs/$library" "${flags[@]}" --add-module="$root"

    echo "Static: --add-module"
    build objs build "${common[@]}" --add-module="$root"
    incremental objs
    exports_nothing "$tree/objs/nginx"
    WS_HANDOFF_TEST_NGINX=$tree/objs/nginx WS_HANDOFF_TEST_MODULE=builtin test_it "$@"

    echo "Dynamic: --add-dynamic-module, make modules"
    build objs-dynamic modules --with-compat "${common[@]}" --add-dynamic-module="$root"
    exports_nothing "$tree/objs-dynamic/ngx_http_ws_handoff_module.so"
    WS_HANDOFF_TEST_NGINX=$root/build/sbin/nginx \
        WS_HANDOFF_TEST_MODULE=$tree/objs-dynamic/ngx_http_ws_handoff_module.so test_it "$@"
}

# A copy of the source in the crate nginx-src, since configure writes into it. What was built in the copy is kept.
fetch_source() {
    local source
    source=$(cargo metadata --format-version 1 --locked | python3 -c '
import json, pathlib, sys
packages = json.load(sys.stdin)["packages"]
print(next(pathlib.Path(p["manifest_path"]).parent / "nginx" for p in packages if p["name"] == "nginx-src"))')
    if [[ -f $tree/from && $(<"$tree/from") == "$source" ]]; then
        return
    fi
    rm -rf "$tree"
    mkdir -p "${tree%/*}"
    cp -R "$source" "$tree"
    rm -rf "$tree/objs" "$tree/Makefile"
    echo "$source" >"$tree/from"
}

# build BUILDDIR TARGET CONFIGURE_ARGUMENTS...
build() {
    local dir=$1 target=$2 script=./configure
    shift 2
    cd "$tree"
    [[ -x configure ]] || script=auto/configure
    quietly "$dir-configure.log" "$script" --builddir="$dir" "$@"
    quietly "$dir-make.log" make -f "$dir/Makefile" -j "$(nproc)" "$target"
    cd "$root"
}

# A second make does nothing; after a change in the module it links nginx again, and compiles nothing in C.
incremental() {
    local before
    before=$(stat -c %y.%i "$tree/$1/nginx")
    make -C "$tree" -f "$1/Makefile" build >"$tree/again.log" 2>&1
    [[ $(stat -c %y.%i "$tree/$1/nginx") == "$before" ]] || fail "make linked nginx again without any change"
    # The library alone: what the module's sources are is cargo's business.
    touch "$tree/$1/$library"
    make -C "$tree" -f "$1/Makefile" build >"$tree/again.log" 2>&1
    ! grep -q -- ' -c ' "$tree/again.log" || fail "make compiled nginx again for a newer library"
    [[ $(stat -c %y.%i "$tree/$1/nginx") != "$before" ]] || fail "make did not link nginx with a newer library"
}

# Two modules in Rust in one process would share what they export of Rust's standard library.
exports_nothing() {
    if nm --dynamic --defined-only "$1" | grep -E ' (_*rust_|_R|_ZN)|ws_handoff_(get|set)'; then
        fail "$1 exports these symbols of the Rust part"
    fi
}

test_it() {
    ulimit -S -n "$(ulimit -H -n)"
    cargo test "$@" --test tests
}

# quietly LOG COMMAND...: its output only if it fails.
quietly() {
    local log=$tree/$1
    shift
    "$@" >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        fail "$* failed; all that it said: $log"
    }
}

fail() {
    echo "static: $*" >&2
    exit 1
}

main "$@"
