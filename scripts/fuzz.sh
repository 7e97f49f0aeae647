#!/usr/bin/env bash
# Runs each fuzz target of handoff-protocol/fuzz, handoff-websocket/fuzz and handoff-tls/fuzz for some time, with AddressSanitizer.
#
#   scripts/fuzz.sh SECONDS [TARGET...]
#
# The committed corpus is where a run begins; what it finds besides stays in build/fuzz, and is where the next one begins.
# An input that fails is saved there too: run the target's program with that file. cargo-fuzz works as well, on nightly.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1
shift
crates=(handoff-protocol/fuzz handoff-websocket/fuzz handoff-tls/fuzz)
dir=$PWD/build/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=$PWD/target/fuzz

targets=("$@")
if (( ${#targets[@]} == 0 )); then
    mapfile -t targets < <(find "${crates[@]/%//fuzz_targets}" -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort)
fi

# What cargo-fuzz passes. -Z is nightly's alone, or RUSTC_BOOTSTRAP's; a target is named so that build scripts are not
# instrumented.
flags=(
    --cfg fuzzing
    -Zsanitizer=address
    -Ccodegen-units=1
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
for fuzz in "${crates[@]}"; do
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" cargo build --release --locked --manifest-path "$fuzz/Cargo.toml" \
        --target "$host" --target-dir "$target_dir"
done

passed=0 failed=0
for target in "${targets[@]}"; do
    mkdir -p "$dir/$target/found"
    corpus=$(find "${crates[@]/%//corpus}" -mindepth 1 -maxdepth 1 -name "$target")
    status=0
    # One that loops or swallows memory fails, too.
    "$target_dir/$host/release/$target" -max_total_time="$seconds" -max_len=2048 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$dir/$target/" \
        "$dir/$target/found" "$corpus" >"$dir/$target.log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/$target.log")
    if (( status == 0 )); then
        passed=$((passed + 1))
        echo "$target: $executions executions in $seconds s"
    else
        failed=$((failed + 1))
        tail -n 40 "$dir/$target.log" >&2
        echo "$target: FAILED (all that it said: build/fuzz/$target.log)"
    fi
done
echo "$passed passed, $failed failed"
(( failed == 0 ))
