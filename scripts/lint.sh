#!/usr/bin/env bash
# Checks format and lints; a tool that is not installed (Debian packages them apart from rustc) is named, not ignored.
#
#   scripts/lint.sh CARGO_FLAGS...
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --all --check
    cargo fmt --manifest-path handoff-protocol/fuzz/Cargo.toml --check
    cargo fmt --manifest-path handoff-websocket/fuzz/Cargo.toml --check
    cargo fmt --manifest-path handoff-tls/fuzz/Cargo.toml --check
    echo "rustfmt: clean"
else
    echo "NOT CHECKED: format. rustfmt is missing (rustup component add rustfmt, or apt-get install rustfmt)"
fi

# Lints differ from one version to the next. An older one than the project is developed with only shows what it finds: what
# it alone complains of is no reason to fail on a distribution's Rust.
developed_with=1.95

if ! cargo clippy --version >/dev/null 2>&1; then
    echo "NOT CHECKED: lints. clippy is missing (rustup component add clippy, or apt-get install rust-clippy)"
    exit
fi
version=$(rustc --version | awk '{ print $2 }')
if printf '%s\n' "$developed_with" "$version" | sort --version-sort --check=quiet; then
    cargo clippy "$@" --all-targets --quiet -- --deny warnings
    echo "clippy: clean"
else
    cargo clippy "$@" --all-targets --quiet
    echo "clippy of Rust $version: shown only; the lints that count are those of $developed_with and newer"
fi
