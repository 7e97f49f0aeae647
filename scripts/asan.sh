#!/usr/bin/env bash
# Runs the end-to-end tests under AddressSanitizer: nginx and the module use no memory that is not theirs, and leave
# none behind that nothing points to.
#
#   scripts/asan.sh CARGO_FLAGS... [-- TEST_ARGUMENTS...]
#
# The nginx is built for this, below build/asan: the same as the build compiles, but every palloc() is a malloc(), since
# a pool would hide what happens inside it. A report of any process fails the run and stays in build/asan/reports.
#
# Not seen: what is kept in a pool for too long (it goes with the pool), and the insides of shared memory.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
dir=$root/build/asan
module=ngx_http_ws_handoff_module.so
target=$(rustc -vV | sed -n 's/^host: //p')
# The one runtime, in nginx itself: Rust's. What gcc compiles calls it by the same names.
runtime=$(rustc --print sysroot)/lib/rustlib/$target/lib
runtime=$(find "$runtime" -name 'librustc-*_rt.asan.a' 2>/dev/null | head -n 1)

main() {
    [[ -n $runtime ]] || fail "this Rust comes without AddressSanitizer for $target (rustup's has it, on x86_64 and aarch64)"

    build_nginx
    build_module
    run "$@"
}

# As nginx-sys configures the vendored one, from the same source.
build_nginx() {
    local source more flags stamp
    source=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, os, sys
[found] = [p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "nginx-src"]
print(os.path.join(os.path.dirname(found), "nginx"))')
    more=$(sed -n 's/^NGX_CONFIGURE_ARGS = "\(.*\)"/\1/p' .cargo/config.toml)
    read -ra flags <<<"--with-compat --with-threads --with-http_ssl_module --with-http_v2_module \
        --with-http_realip_module --with-stream $more"
    # NGX_DEBUG_MALLOC: what is free in shared memory holds a pattern.
    flags+=("--with-cc-opt=-O1 -g -fno-omit-frame-pointer -Wno-error -DNGX_DEBUG_PALLOC=1 -DNGX_DEBUG_MALLOC=1")
    stamp=$(printf '%s\n' "$source" "$runtime" "${flags[@]}" && cc --version && sed -n '/^build_nginx/,/^}/p' scripts/asan.sh)
    if [[ -f $dir/stamp && $(<"$dir/stamp") == "$stamp" ]]; then
        return
    fi
    echo "Building nginx with AddressSanitizer in build/asan"
    rm -rf "$dir"
    mkdir -p "$dir/sbin" "$dir/modules"
    cp -R "$source" "$dir/src"
    free_at_exit
    (cd "$dir/src" && auto/configure "${flags[@]}" --builddir="$dir/objs") >"$dir/configure.log" 2>&1 ||
        fail "nginx's configure failed: see $dir/configure.log"
    # Not by configure, whose own small programs would have to be free of leaks. The linker gets no -fsanitize, which
    # would add the C compiler's runtime.
    make -C "$dir/src" -f "$dir/objs/Makefile" -j "$(nproc)" \
        CC="cc -fsanitize=address" \
        LINK="cc -Wl,--whole-archive,$runtime,--no-whole-archive,--export-dynamic -Wl,--push-state,--no-as-needed,-lm,-lpthread,-ldl,-lrt,--pop-state" \
        "$dir/objs/nginx" >"$dir/make.log" 2>&1 ||
        fail "nginx did not build: see $dir/make.log"
    cp "$dir/objs/nginx" "$dir/sbin/nginx"
    printf '%s\n' "$stamp" >"$dir/stamp"
}

# What nginx leaves to the kernel is freed, or stays reachable. A list of leaks that are known would also cover whatever
# the forgotten memory points to, and a worker's connections point to everything.
free_at_exit() {
    # Of `nginx -t` and `nginx -s`, whose main() returns.
    replace core/nginx.c main 'ngx_cycle_t      \*cycle, init_cycle;' \
        'static &'
    replace os/unix/ngx_process_cycle.c ngx_worker_process_exit 'ngx_destroy_pool(cycle->pool);' \
        'void *lost[] = { cycle->connections, cycle->read_events, cycle->write_events }; &
         for (i = 0; i < 3; i++) { ngx_free(lost[i]); }'
    # The module stays loaded, so that reports can name its functions.
    replace core/nginx.c ngx_unload_module 'if (ngx_dlclose(handle) != 0) {' 'if (0) {'
}

# replace FILE FUNCTION LINE WITH: in nginx's source.
replace() {
    local file=$dir/src/src/$1
    cp "$file" "$dir/before.c"
    sed -i "/^$2(/,/^}/ s/^    $3\$/    ${4//$'\n'/ }/" "$file"
    ! cmp --silent "$file" "$dir/before.c" || fail "nginx's $1 is not as free_at_exit knows it"
}

# -Z is nightly's alone, or RUSTC_BOOTSTRAP's. A target is named so that build scripts are not instrumented; the C flags
# are for what of the module is C. What would overflow unseen in a release aborts here.
build_module() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
        CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
        env "CFLAGS_${target//-/_}=-fsanitize=address -fno-omit-frame-pointer" \
        NGINX_SOURCE_DIR=$dir/src NGINX_BUILD_DIR=$dir/objs \
        cargo build --release --locked --package ngx-handoff-module --no-default-features --features export-modules \
        --target "$target" --target-dir target/asan
    cp "target/asan/$target/release/lib$module" "$dir/modules/$module.new"
    mv "$dir/modules/$module.new" "$dir/modules/$module"
}

run() {
    local status=0 reports
    rm -rf "$dir/reports"
    mkdir "$dir/reports"
    # All read when nginx starts: a worker's environment is nginx's own.
    local options=(
        "log_path=$dir/reports/report"
        detect_leaks=1
        detect_stack_use_after_return=1
        strict_string_checks=1
        # What malloc() gives is no zeroes.
        max_malloc_fill_size=65536
        # It comes with gcc; llvm-symbolizer would be one more package.
        allow_addr2line=1
    )
    ASAN_OPTIONS=$(IFS=:; echo "${options[*]}")
    export ASAN_OPTIONS
    export WS_HANDOFF_TEST_NGINX=$dir/sbin/nginx
    export WS_HANDOFF_TEST_MODULE=$dir/modules/$module
    export WS_HANDOFF_TEST_PATIENCE=${WS_HANDOFF_TEST_PATIENCE:-4}
    # What is freed is kept for a while, so that uses of it are seen.
    export WS_HANDOFF_TEST_WEIGHT=any

    ulimit -S -n "$(ulimit -H -n)"
    cargo test --test tests "$@" || status=$?

    mapfile -t reports < <(find "$dir/reports" -type f | sort | while read -r report; do
        only_lost_a_child "$report" || echo "$report"
    done)
    if (( ${#reports[@]} > 0 )); then
        head -n 60 "${reports[0]}" >&2
        fail "${#reports[@]} processes had something to report, the first of them this: $dir/reports"
    fi
    (( status == 0 )) || fail "tests failed; the sanitizers had nothing to report"
    echo "AddressSanitizer and LeakSanitizer had nothing to report"
}

# Before LeakSanitizer looks for leaks it sees in a child process whether it can. nginx's handler of SIGCHLD may wait for
# that child first; LeakSanitizer then warns, and goes on.
only_lost_a_child() {
    [[ -z $(grep -vE '^==[0-9]+==(WARNING: ptrace appears to be blocked|Child exited with signal )' "$1") ]]
}

fail() {
    echo "asan: $*" >&2
    exit 1
}

main "$@"
