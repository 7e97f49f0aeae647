#!/usr/bin/env bash
# Gets promtool, which checks metrics as Prometheus reads them, or Prometheus itself.
#
#   scripts/promtool.sh FILE        where to put it; its name, promtool or prometheus, says which
#
# From PATH if it is there, else from Debian's package: promtool has one of its own from Debian 13 on. It is unpacked and
# not installed: installed, prometheus would start one that listens on port 9090.
set -euo pipefail
cd "$(dirname "$0")/.."

destination=$1
tool=${destination##*/}

main() {
    mkdir -p "$(dirname "$destination")"
    if command -v "$tool" >/dev/null; then
        ln -sf "$(command -v "$tool")" "$destination"
        return
    fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        fail "$tool is missing. Get it from https://prometheus.io/download/ and put it into PATH."
    fi
    echo "Getting $tool from Debian's package"
    directory=$(mktemp -d)
    trap 'rm -rf "$directory"' EXIT
    if ! download; then
        (( EUID == 0 )) || fail "apt-get cannot download the package $tool: is \`sudo apt-get update\` due?"
        apt-get update -qq
        download || fail "apt-get can download no package with $tool"
    fi
    dpkg-deb --fsys-tarfile "$directory"/*.deb | tar -x -C "$directory" "./usr/bin/$tool"
    mv "$directory/usr/bin/$tool" "$destination"
}

# apt's own user could not write to the directory, which root does not need.
download() {
    local package
    for package in "$tool" prometheus; do
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
