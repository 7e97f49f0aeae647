#!/usr/bin/env bash
# Gets promtool, which checks metrics as Prometheus reads them.
#
#   scripts/promtool.sh FILE        where to put it
#
# From PATH if it is there, else from Debian's package: promtool from Debian 13 on, prometheus before. It is unpacked and
# not installed: installed, prometheus would start one that listens on port 9090.
set -euo pipefail
cd "$(dirname "$0")/.."

destination=$1

main() {
    mkdir -p "$(dirname "$destination")"
    if command -v promtool >/dev/null; then
        ln -sf "$(command -v promtool)" "$destination"
        return
    fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        fail "promtool is missing. Get it from https://prometheus.io/download/ and put it into PATH."
    fi
    echo "Getting promtool from Debian's package"
    directory=$(mktemp -d)
    trap 'rm -rf "$directory"' EXIT
    if ! download; then
        (( EUID == 0 )) || fail "apt-get cannot download the package promtool: is \`sudo apt-get update\` due?"
        apt-get update -qq
        download || fail "apt-get can download neither the package promtool nor prometheus"
    fi
    dpkg-deb --fsys-tarfile "$directory"/*.deb | tar -x -C "$directory" ./usr/bin/promtool
    mv "$directory/usr/bin/promtool" "$destination"
}

# apt's own user could not write to the directory, which root does not need.
download() {
    local package
    for package in promtool prometheus; do
        if (cd "$directory" && apt-get download -qq -o APT::Sandbox::User=root "$package") >/dev/null 2>&1; then
            return
        fi
    done
    return 1
}

fail() {
    echo "promtool: $*" >&2
    exit 1
}

main
