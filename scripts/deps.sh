#!/usr/bin/env bash
# Makes sure that the Debian packages and the Rust that a purpose needs are installed.
#
#   scripts/deps.sh PURPOSE...        build:   nginx, the module, the backend
#                                     debian:  the module for Debian's own nginx
#                                     venv:    the Python client in build/venv
#                                     test:    the end-to-end tests
#                                     autobahn: the Autobahn test suite
#                                     valgrind: the same under valgrind
#                                     ktls:    a kernel that has TLS
#                                     fuzz:    the fuzz targets
#                                     go:      the example and a client in Go
#                                     node:    a client in Node
#                                     browser: the tests of the demo page
#                                     docker:  the tests of the compose demo
#                                     roots:   the tests in clean Debian roots
#                                     deb:     the Debian packages
#                                     nspawn:  the tests of the Debian packages
#
# Silent, and quick, where nothing is missing. As root it installs what is; otherwise it prints the command and stops.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A needed=(
    # gcc and make for nginx, libclang for bindgen, the libraries that nginx links, python3 for scripts/stage.py.
    [build]="ca-certificates gcc libc6-dev libclang-dev libpcre2-dev libssl-dev make python3 zlib1g-dev"
    [debian]="nginx-dev"
    [venv]="python3 python3-venv"
    # openssl makes the wss tests' certificate, curl is one of their clients, strace watches a worker's system calls.
    [test]="curl openssl python3 python3-venv strace"
    # dpkg-dev tells where its Python's libraries are.
    [autobahn]="debian-archive-keyring dpkg-dev python3 python3-venv"
    [valgrind]="valgrind"
    # User Mode Linux, and a compiler for scripts/uml_xstate.c.
    [ktls]="gcc iproute2 libc6-dev user-mode-linux"
    # libFuzzer is C++, and comes as source.
    [fuzz]="g++"
    [go]="golang-go"
    [node]="nodejs"
    [browser]="chromium chromium-driver python3 python3-venv"
    [docker]="debootstrap python3 python3-venv"
    [roots]="debootstrap git"
    # debhelper packs the module; cargo-deb asks dpkg-dev what the backend depends on.
    [deb]="debhelper dpkg-dev lintian"
    [nspawn]="debootstrap python3 python3-venv systemd-container"
)

main() {
    local purpose packages=()
    for purpose in "$@"; do
        # shellcheck disable=SC2206  # lists of words
        packages+=(${needed[$purpose]})
    done
    # Docker's own packages, or another engine's, do as well.
    if [[ " $* " == *" docker "* ]] && ! command -v docker >/dev/null; then
        packages+=(docker.io docker-compose)
    fi
    install_missing "${packages[@]}"
    [[ " $* " != *" build "* ]] || require_rust
}

install_missing() {
    if ! command -v dpkg-query >/dev/null; then
        # Not Debian: nothing here can know the names of the packages, so the build itself will tell what is missing.
        return
    fi
    local missing
    mapfile -t missing < <(missing_of "$@")
    if (( ${#missing[@]} == 0 )); then
        return
    fi
    if (( EUID != 0 )); then
        cat >&2 <<-MESSAGE
		Debian packages are missing. Install them, then run make again:

		  sudo apt-get install --no-install-recommends ${missing[*]}

		MESSAGE
        exit 1
    fi
    echo "Installing missing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if lists_are_old; then
        echo "The package lists are missing or older than a day: apt-get update"
        apt-get update -qq
    fi
    apt-get install --yes -qq --no-install-recommends "${missing[@]}"
}

# Prints those of the named packages that are not installed, each once.
missing_of() {
    local installed
    # dpkg-query fails when it does not know a name; what it prints for the others is still right.
    installed=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    printf '%s\n' "$@" | sort -u | grep -vxF -f <(sed -n 's/^installed //p' <<<"$installed") || true
}

# Whether apt has no package lists, or fetched none within a day (partial downloads and lock files do not count).
lists_are_old() {
    [[ -z $(find /var/lib/apt/lists -maxdepth 1 -type f -name '*_Packages*' -print -quit 2>/dev/null) ]] ||
        [[ -z $(find /var/lib/apt/lists /var/lib/apt/lists/partial -maxdepth 0 -mtime -1 -print -quit 2>/dev/null) ]]
}

require_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        how_to_get_rust "Rust is not installed: rustc and cargo $wanted or newer are needed."
    fi
    found=$(rustc --version | awk '{ print $2 }')
    if ! printf '%s\n' "$wanted" "${found%%-*}" | sort --version-sort --check=quiet; then
        how_to_get_rust "Rust $found is too old: $wanted or newer is needed."
    fi
}

how_to_get_rust() {
    cat >&2 <<-MESSAGE
	$1
	Get it from https://rustup.rs (asks before it installs anything):

	  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh

	or, from Debian 13 on:  apt-get install cargo rustfmt rust-clippy
	MESSAGE
    exit 1
}

main "$@"
