#!/usr/bin/env bash
# Builds the Debian packages, for the Debian that this runs on, into build/deb/: the module for Debian's nginx, and the backend.
#
#   scripts/deb.sh [REVISION]           REVISION 2 makes 0.1.0-2+deb13 from version 0.1.0, on Debian 13; 1 if not given
#
# MAINTAINER="Name <address>" in the environment is who is named in the packages. Dates are those of CHANGELOG.md, or of
# SOURCE_DATE_EPOCH. Needs no root once its own packages are installed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The newest that Debian 13's Rust compiles.
cargo_deb_version=3.6.3
maintainer=${MAINTAINER:-The ngx-ws-handoff authors <packages@ngx-ws-handoff.example.org>}
module=libnginx-mod-http-ws-handoff
backend=ws-handoff-backend
root=$PWD
out=$root/build/deb
work=$out/work

main() {
    local revision=${1:-1}
    [[ $revision =~ ^[1-9][0-9]*$ ]] || fail "REVISION=$revision: not a number from 1 on"
    [[ -f /etc/debian_version ]] || fail "packages are built on the Debian that they are for: this is none"
    scripts/deps.sh build debian deb
    install_cargo_deb

    # shellcheck source=/dev/null
    . /etc/os-release
    # Of the same version, that for the newer release counts as the newer one.
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)-$revision+deb${VERSION_ID:?Debian testing has no number}
    suite=$VERSION_CODENAME
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(stat --format=%Y CHANGELOG.md)}
    export SOURCE_DATE_EPOCH

    rm -rf "$work"
    mkdir -p "$work"
    rm -f "$out/$module"_*-"$revision"+* "$out/$backend"_*-"$revision"+*
    pack_module
    pack_backend
    echo
    check
    rm -rf "$work"
}

# Of a version of its own, whatever the machine has: it writes the scripts that the package runs.
install_cargo_deb() {
    local program=build/cargo-deb/bin/cargo-deb
    if [[ ! -x $program || $("$program" --version) != "cargo-deb $cargo_deb_version" ]]; then
        echo "Installing cargo-deb $cargo_deb_version into build/cargo-deb"
        cargo install --quiet --force --locked cargo-deb --version "$cargo_deb_version" --root build/cargo-deb \
            --target-dir target/cargo-deb
    fi
}

pack_module() {
    local tree=$work/module
    scripts/module.sh debian
    mkdir "$tree"
    cp -R packaging/debian/module "$tree/debian"
    cp packaging/debian/copyright "$tree/debian/"
    mv "$tree/debian/ws-handoff-example" "$tree/"
    cp build/debian/modules/ngx_http_ws_handoff_module.so nginx/ws_handoff.conf.example docs/{directives,status,protocol}.md \
        "$tree/"
    sed -i "s/@MAINTAINER@/$maintainer/" "$tree/debian/control"
    changelog "$module" >"$tree/debian/changelog"
    # nginx-dev says which ABI its headers are of; the nginx that is installed, which one it has.
    local abi
    abi=$(sed -n 's/^nginx:abi=//p' /usr/share/nginx/src/debian/libnginx-mod.abisubstvars)
    dpkg-query --show --showformat='${Provides}\n' nginx | grep --quiet --word-regexp --fixed-strings "$abi" ||
        fail "nginx-dev is for $abi, which the installed nginx does not provide: install both from the same release"
    # deps.sh has seen to what is needed; build-essential is not: nothing is compiled here.
    (cd "$tree" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps) >"$work/module.log" 2>&1 || {
        tail -n 30 "$work/module.log" >&2
        fail "dpkg-buildpackage failed"
    }
    mv "$work/$module"_*.deb "$out/"
}

pack_backend() {
    mkdir "$work/backend"
    changelog "$backend" >"$work/backend/changelog"
    # Without the rest of the workspace: the backend needs no nginx to be compiled.
    export CARGO_TARGET_DIR=$root/target/deb
    cargo build --release --locked --package "$backend" --bin "$backend"
    cargo run --quiet --release --locked --package "$backend" --example manpage >"$work/backend/$backend.1"
    build/cargo-deb/bin/cargo-deb deb --package "$backend" --no-build --quiet --deb-version "$version" --maintainer "$maintainer" \
        --output "$out/"
}

# changelog PACKAGE: a Debian package has one of its packaging; what the project has changed is in CHANGELOG.md.
changelog() {
    cat <<-END
	$1 ($version) $suite; urgency=medium

	  * ngx-ws-handoff ${version%-*}, packed for the nginx of Debian ${VERSION_ID}.

	 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
	END
}

check() {
    local package
    for package in "$out"/*.deb; do
        echo "${package#"$root/"}"
        dpkg-deb --field "$package" Depends | sed 's/^/  depends on /'
    done
    lintian --allow-root --fail-on error "$out"/*.deb
    echo "lintian: no errors"
}

fail() {
    echo "deb: $*" >&2
    exit 1
}

main "$@"
