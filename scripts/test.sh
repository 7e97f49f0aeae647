#!/usr/bin/env bash
# Runs every test: the libraries' and the program's, and the end-to-end tests of what `make build` staged.
#
#   scripts/test.sh CARGO_FLAGS...
#   scripts/test.sh --against DIR CARGO_FLAGS...    only the end-to-end tests, with the nginx and the module in DIR
#
# The backend's tests run for both engines, everything else for the one that WS_HANDOFF_TEST_ENGINE names (parked, if it is
# not set). With WS_HANDOFF_TEST_ENGINE=tasks everything runs for that one, once.
set -euo pipefail
cd "$(dirname "$0")/.."

selection=()
if [[ $1 == --against ]]; then
    export WS_HANDOFF_TEST_NGINX=$PWD/$2/sbin/nginx
    export WS_HANDOFF_TEST_MODULE=$PWD/$2/modules/ngx_http_ws_handoff_module.so
    shift 2
    selection=(--test tests)
    echo "End-to-end tests against $("$WS_HANDOFF_TEST_NGINX" -v 2>&1)"
fi

# A descriptor for each client of the larger tests, in every process that they start.
ulimit -S -n "$(ulimit -H -n)"

log=build/test.log
: >"$log"

status=0
# Everything, also when an early test fails: one run tells all that is wrong.
cargo test "$@" "${selection[@]}" --no-fail-fast 2>&1 | tee "$log" || status=$?

if [[ ${#selection[@]} == 0 && ${WS_HANDOFF_TEST_ENGINE:-parked} == parked ]]; then
    {
        echo
        echo "The backend's tests once more, with --engine tasks"
        WS_HANDOFF_TEST_ENGINE=tasks cargo test "$@" --test main --no-fail-fast 2>&1
    } | tee --append "$log" || status=$?
fi

echo
echo "Closing lines (all of the output: $log)"
# Each binary's name, then its result; "running 0 tests" and its like are left out.
awk '/^The backend.s tests once more, with / { engine = ", " $(NF - 1) " " $NF }
     /^ +Doc-tests / { name = "doc tests of " $2 }
     /^ +Running / {
         # "Running tests/tests.rs (target/release/deps/tests-0123456789abcdef)"
         program = $NF
         sub(/.*\//, "", program)
         sub(/-[0-9a-f]+\)$/, "", program)
         name = program ", " $(NF - 1) engine
     }
     /^test result: / && !/ 0 passed; 0 failed; 0 ignored/ {
         sub(/^test result: /, "")
         printf "  %s: %s\n", name, $0
     }' "$log"
exit "$status"
