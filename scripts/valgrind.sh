#!/usr/bin/env bash
# Runs end-to-end tests with nginx under valgrind's memcheck, which sees what AddressSanitizer does not: decisions, and
# arguments of system calls, that depend on memory that nobody has written.
#
#   scripts/valgrind.sh CARGO_FLAGS... [-- TEST_ARGUMENTS...]
#
# The nginx and the module are those of `make build`. Reports of any process fail the run, and stay in build/valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

# Modules that are left out unless they are named on the command line, and why. Under memcheck everything takes many times
# longer; what these do to a request, the others do as well.
declare -A long=(
    [docs::]="nginx -t for each block of the documents, which is the same code each time"
    [binary_upgrade::]="the new nginx is executed without valgrind"
    [failure::]="a thousand clients each"
    [faults::]="ten thousand clients each"
    [release::]="twenty thousand clients"
)
# Tests that cannot hold here, and why.
declare -A skipped=(
    [descriptors::too_many_descriptors_in_flight]="the kernel does not hear of a limit that a process under valgrind sets"
    [handoff::worker_makes_no_system_call_for_clients_that_talk]="valgrind makes system calls of its own"
    [phases::delayed_client_may_leave]="here the next client comes too late to be delayed"
    [phases::limit_req_delays_and_refuses]="here the next client comes too late to be delayed"
    [registration::letting_go_takes_the_registration_away_and_puts_a_dummy_in_place]="valgrind makes system calls of its own"
)
dir=$PWD/build/valgrind

arguments=("$@")
if [[ " $* " != *" -- "* ]]; then
    arguments+=(--)
    for module in "${!long[@]}"; do
        echo "Left out: $module ${long[$module]}"
        arguments+=(--skip "$module")
    done
fi
for test in "${!skipped[@]}"; do
    echo "Left out: $test ${skipped[$test]}"
    arguments+=(--skip "$test")
done

rm -rf "$dir"
mkdir -p "$dir/reports"
# What nginx itself does is in valgrind.supp. Nothing but reports is written.
cat >"$dir/nginx" <<WRAPPER
#!/bin/sh
exec valgrind --quiet --log-file="$dir/reports/%p" --suppressions="$PWD/scripts/valgrind.supp" --gen-suppressions=all \\
    --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \\
    "$PWD/build/sbin/nginx" "\$@"
WRAPPER
chmod +x "$dir/nginx"
export WS_HANDOFF_TEST_NGINX=$dir/nginx
export WS_HANDOFF_TEST_PATIENCE=${WS_HANDOFF_TEST_PATIENCE:-8}
# A process weighs several times as much.
export WS_HANDOFF_TEST_WEIGHT=any

ulimit -S -n "$(ulimit -H -n)"
status=0
cargo test --test tests "${arguments[@]}" || status=$?

mapfile -t reports < <(find "$dir/reports" -type f -size +0 | sort)
if (( ${#reports[@]} > 0 )); then
    head -n 60 "${reports[0]}" >&2
    echo "valgrind: ${#reports[@]} processes had something to report, the first of them this: build/valgrind/reports" >&2
    exit 1
fi
(( status == 0 )) || { echo "valgrind: tests failed; memcheck had nothing to report" >&2; exit 1; }
echo "memcheck had nothing to report"
