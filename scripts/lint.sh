#!/usr/bin/env bash
# Checks format and lints; a tool that is not installed (Debian packages them apart from rustc) is named, not ignored.
#
#   scripts/lint.sh CARGO_FLAGS...
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --all --check
    cargo fmt --manifest-path handoff-protocol/fuzz/Cargo.toml --check
    echo "rustfmt: clean"
else
    echo "NOT CHECKED: format. rustfmt is missing (rustup component add rustfmt, or apt-get install rustfmt)"
fi

if cargo clippy --version >/dev/null 2>&1; then
    cargo clippy "$@" --all-targets --quiet -- --deny warnings
    echo "clippy: clean"
else
    echo "NOT CHECKED: lints. clippy is missing (rustup component add clippy, or apt-get install rust-clippy)"
fi
