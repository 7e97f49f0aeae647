#!/usr/bin/env bash
# Every test that there is, one kind after the other, and at the end what came of each.
#
#   scripts/test-all.sh [--within MINUTES]
#
# With --within, a kind that would not be done by then (by what it takes on two cores) is left out, and named.
set -uo pipefail
cd "$(dirname "$0")/.."

within=
if [[ ${1:-} == --within ]]; then
    within=$2
    [[ $within =~ ^[0-9]+$ ]] || { echo "test-all: WITHIN=$within: not a number of minutes" >&2; exit 1; }
fi
logs=build/test-all
mkdir -p "$logs"
passed=0 failed=0
results=()
# What the kinds that failed said of it.
reasons=()
running=

main() {
    # Job control: what runs in the background has a process group of its own and does not ignore SIGINT.
    set -m
    trap 'stop INT 130' INT
    trap 'stop TERM 143' TERM

    kind libraries-and-end-to-end 10 make test
    kind debian-nginx             4 make test NGINX=debian
    kind documents                3 make test-docs
    kind autobahn                 3 make test-autobahn
    kind browser                  5 make test-browser
    kind monitoring               2 make test-monitoring
    kind docker                  14 make test-docker
    kind debian-13               16 tests/roots/run.sh trixie 'tests/docs/quickstart.sh --all && make test NGINX=debian'
    kind engine-tasks             6 make test ENGINE=tasks
    kind autobahn-wss             3 make test-autobahn TLS=1
    kind clients                  3 make test-clients
    kind static-build            10 make test-static
    kind fuzz                     7 make fuzz SECONDS=20
    kind kernel-tls              25 make test-ktls
    kind asan                    20 make test-asan
    kind debian-packages         18 make test-deb
    kind debian-12               20 tests/roots/run.sh bookworm 'tests/docs/quickstart.sh --all && make test NGINX=debian'

    echo
    echo "All kinds (what each said: $logs/*.log):"
    printf '  %s\n' "${results[@]}"
    (( failed == 0 )) || printf '%s\n' "${reasons[@]}"
    echo "$passed passed, $failed failed"
    (( failed == 0 ))
}

# kind NAME MINUTES COMMAND...
kind() {
    local name=$1 minutes=$2 begun=$SECONDS status=0
    shift 2
    if [[ -n $within ]] && (( SECONDS / 60 + minutes > within )); then
        results+=("LEFT OUT  $name: takes $minutes min, and $(( SECONDS / 60 )) of $within are over. Run: $*")
        return
    fi
    echo
    echo "=== $name"
    # One that hangs is ended as by Ctrl-C, so that it can clean up.
    timeout --signal=INT --kill-after=60 $(( 3 * minutes ))m "$@" </dev/null > >(tee "$logs/$name.log") 2>&1 &
    running=$!
    wait "$running" || status=$?
    running=
    local took="$(( (SECONDS - begun) / 60 )) min $(( (SECONDS - begun) % 60 )) s"
    if (( status == 0 )); then
        passed=$((passed + 1))
        results+=("passed    $name ($took)")
    else
        failed=$((failed + 1))
        results+=("FAILED    $name ($took): $*")
        # tee may still write.
        sleep 1
        reasons+=("--- $name" "$(reason "$logs/$name.log")")
    fi
}

# reason LOG: the lines of it that say what failed, of cargo's tests, pytest's and shell scripts; else its last ones.
reason() {
    grep -E -A3 '^test .* \.\.\. FAILED$|^FAILED |^---- .* stdout|^E   |^error|panicked at|: error: |^make.*\*\*\*' "$1" | tail -n 40 | grep . ||
        tail -n 10 "$1"
}

# stop SIGNAL STATUS: timeout passes the signal on to all that it runs.
stop() {
    trap '' INT TERM
    if [[ -n $running ]]; then
        kill -s "$1" "$running"
        wait "$running"
    fi
    exit "$2"
}

main
