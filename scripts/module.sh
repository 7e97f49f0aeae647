#!/usr/bin/env bash
# Builds the module for an nginx that somebody else built, instead of the one that the build compiles itself.
#
#   scripts/module.sh debian [--with-nginx]    Debian's nginx, from the headers in its package nginx-dev
#   scripts/module.sh DIR [--with-nginx]       the unpacked source of an nginx release, say, that of nginx.org's package
#   scripts/module.sh debian|DIR --where       only tells the directory of the results
#
# CONFIGURE in the environment replaces configure's arguments for DIR, quoted as `nginx -V` prints them.
#
# The result is build/NAME/modules/ngx_http_ws_handoff_module.so, NAME being `debian` or the directory's own name;
# with --with-nginx also build/NAME/sbin/nginx, for the tests. Neither /usr/share/nginx/src nor DIR is written to.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
module=ngx_http_ws_handoff_module.so

main() {
    local nginx=$1 option=${2:-}
    if [[ $nginx == debian ]]; then
        name=debian
        source=/usr/share/nginx/src
    else
        [[ -f $nginx/src/core/nginx.h ]] ||
            fail "NGINX=$nginx: neither \`debian\` nor a directory with nginx's source (it has no src/core/nginx.h)"
        source=$(realpath "$nginx")
        name=nginx-$(basename "$source")
        name=${name/#nginx-nginx/nginx}
    fi
    if [[ $option == --where ]]; then
        echo "build/$name"
        return
    fi
    if [[ $name == debian ]]; then
        scripts/deps.sh build debian
        debian_flags
    else
        scripts/deps.sh build
        source_flags
    fi
    version=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$source/src/core/nginx.h")
    tree=$root/build/$name/tree

    configure
    NGINX_SOURCE_DIR=$tree/src NGINX_BUILD_DIR=$tree/objs \
        cargo build --release --locked --package ngx-handoff-module --no-default-features --features export-modules \
        --target-dir "target/$name"
    stage "target/$name/release/lib$module" "build/$name/modules/$module"
    if [[ $option == --with-nginx ]]; then
        stage_nginx
    fi
    echo "The module for nginx $version: build/$name/modules/$module"
}

# What Debian's package was configured with decides the layout of nginx's structures, and thereby the signature that
# nginx compares when it loads a module.
debian_flags() {
    [[ -f $source/conf_flags ]] || fail "$source/conf_flags is missing: reinstall Debian's package nginx-dev"
    # shellcheck source=/dev/null
    . "$source/conf_flags"
    flags=("${NGX_CONF_FLAGS[@]}")
}

# --with-compat gives one layout whatever else is configured: nginx.org's packages have it. The rest is what the tests use.
source_flags() {
    local more
    if [[ -n ${CONFIGURE:-} ]]; then
        mapfile -t flags < <(xargs --max-args=1 printf '%s\n' <<<"$CONFIGURE")
        return
    fi
    more=$(sed -n 's/^NGX_CONFIGURE_ARGS = "\(.*\)"/\1/p' .cargo/config.toml)
    read -ra flags <<<"--with-compat --with-threads --with-http_ssl_module --with-http_v2_module \
        --with-http_realip_module $more"
}

# Configures a copy, since configure writes into the source directory; again only when something has changed.
configure() {
    local stamp
    stamp=$(
        printf '%s\n' "$version" "${flags[@]}"
        cd "$source"
        find . -path ./objs -prune -o -type f -printf '%P %s %T@\n' | sort
    )
    if [[ -f $tree/stamp && $(<"$tree/stamp") == "$stamp" ]]; then
        return
    fi
    rm -rf "$tree"
    mkdir -p "$tree"
    cp -R "$source" "$tree/src"
    rm -rf "$tree/src/objs"
    # A release has `configure`; a clone of the repository has it below auto/.
    local script=./configure
    [[ -x $tree/src/configure ]] || script=auto/configure
    echo "Configuring nginx $version from $source"
    if ! (cd "$tree/src" && "$script" "${flags[@]}" "--builddir=$tree/objs") >"$tree/configure.log" 2>&1; then
        tail -n 20 "$tree/configure.log" >&2
        fail "nginx's configure failed; all that it said: $tree/configure.log"
    fi
    printf '%s\n' "$stamp" >"$tree/stamp"
}

# The nginx that the module was built for.
stage_nginx() {
    if [[ $name != debian ]]; then
        make -C "$tree/src" -f "$tree/objs/Makefile" -j "$(nproc)" "$tree/objs/nginx" >"$tree/make.log" 2>&1 || {
            tail -n 20 "$tree/make.log" >&2
            fail "nginx did not build; all that make said: $tree/make.log"
        }
        stage "$tree/objs/nginx" "build/$name/sbin/nginx"
        return
    fi
    # nginx-dev depends on the package nginx of its own version.
    [[ $(/usr/sbin/nginx -v 2>&1) == *"nginx/$version"* ]] ||
        fail "/usr/sbin/nginx is not nginx $version, which nginx-dev is for: install both from the same release of Debian"
    stage /usr/sbin/nginx "build/$name/sbin/nginx"
}

# stage FILE DESTINATION: renamed over it, as a running nginx keeps the file that it was started from.
stage() {
    if cmp --silent "$1" "$2"; then
        return
    fi
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    mv "$2.new" "$2"
}

fail() {
    echo "module: $*" >&2
    exit 1
}

main "$@"
