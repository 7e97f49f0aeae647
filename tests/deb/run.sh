#!/usr/bin/env bash
# The Debian packages: built in a clean root of a release, then installed, used, upgraded and purged in another one, which is
# booted with systemd (systemd-nspawn) and has no network.
#
#   tests/deb/run.sh [SUITE...]        bookworm trixie, if none is given
#
# As root. With PACKAGES=DIR in the environment nothing is built: DIR/SUITE holds the packages of revisions 1 and 2.
set -euo pipefail
cd "$(dirname "$0")/../.."

main() {
    (( EUID == 0 )) || fail "needs root: sudo $0 $*"
    scripts/deps.sh nspawn
    (( $# > 0 )) || set -- bookworm trixie
    local suite packages status=0
    for suite in "$@"; do
        packages=${PACKAGES:+$PACKAGES/$suite}
        if [[ -z $packages ]]; then
            packages=build/deb-$suite
            rm -rf "$packages"
            # Revision 2 is the same program with a higher number: what an upgrade is.
            tests/roots/run.sh "$suite" "make deb && make deb REVISION=2 && mkdir -p $packages && cp build/deb/*.deb $packages" "$packages"
        fi
        build/venv-tests/bin/python -m pytest -p no:cacheprovider --exitfirst tests/deb \
            --suite "$suite" --packages "$packages" || status=1
    done
    return "$status"
}

fail() {
    echo "test-deb: $*" >&2
    exit 1
}

main "$@"
