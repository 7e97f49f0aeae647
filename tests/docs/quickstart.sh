#!/usr/bin/env bash
# Follows README.md's first block of commands as it is written: `make run` has to end in a WebSocket that echoes, by the very
# command that it prints, and in nothing after Ctrl-C.
#
#   tests/docs/quickstart.sh          only `make run`
#   tests/docs/quickstart.sh --all    every command of the block
set -euo pipefail
cd "$(dirname "$0")/../.."

mkdir -p build
log=build/quickstart.log
run=

main() {
    local commands command
    mapfile -t commands < <(awk '/^```sh$/ { inside = 1; next } /^```$/ && inside { exit } inside' README.md | sed 's/ *#.*//')
    [[ ${commands[0]:-} == "make run" ]] || fail "README.md's first command is \"${commands[0]:-}\", and not \"make run\""
    # Whoever starts ignoring a signal can have it ignored by nothing else: bash does that to jobs in the background.
    (( (0x$(awk '/^SigIgn:/ { print $2 }' /proc/self/status) & 2) == 0 )) || fail "SIGINT is ignored here: start this in the foreground"
    trap stop EXIT
    for command in "${commands[@]}"; do
        if [[ $command == "make run" ]]; then
            echo "README.md: $command"
            demo
        elif [[ ${1:-} == --all ]]; then
            echo "README.md: $command"
            bash -c "$command"
        else
            echo "README.md: $command (not run without --all)"
        fi
    done
}

demo() {
    # A process group of its own, as a terminal would give it: Ctrl-C goes to all of it.
    set -m
    make run </dev/null >"$log" 2>&1 &
    run=$!
    set +m
    local deadline=$((SECONDS + 1800))
    until grep --quiet '^Logs: ' "$log"; do
        kill -0 "$run" 2>/dev/null || fail "make run ended"
        (( SECONDS < deadline )) || fail "make run printed nothing to open within half an hour"
        sleep 0.5
    done

    local client url answer
    client=$(sed -n 's/^ *\(.*-m websockets ws:.*\)$/\1/p' "$log")
    [[ -n $client ]] || fail "make run printed no command to try"
    # The client reads lines as a person types them, and ends at the end of its input.
    answer=$({ sleep 1; echo "hello, README"; sleep 2; } | timeout 60 bash -c "$client" 2>&1) || fail "$client: $answer"
    grep --quiet '< hello, README' <<<"$answer" || fail "no echo: $answer"
    url=$(sed -n 's/^Open \(http:[^ ]*\) in a browser.*/\1/p' "$log")
    python3 -c 'import sys, urllib.request; sys.exit(b"<html" not in urllib.request.urlopen(sys.argv[1]).read())' "$url" ||
        fail "$url is no page"
    echo "a WebSocket echoes, and $url is there"

    kill -INT -- "-$run"
    wait "$run" || true
    run=
    ! grep --quiet . <(jobs -r) || fail "something still runs"
    ! (exec 3<>"/dev/tcp/127.0.0.1/$(sed 's,.*:\([0-9]*\)/,\1,' <<<"$url")") 2>/dev/null || fail "nginx still listens after Ctrl-C"
}

stop() {
    if [[ -n $run ]]; then
        kill -INT -- "-$run" 2>/dev/null || true
        wait "$run" || true
    fi
}

fail() {
    {
        echo "quickstart: $*"
        [[ ! -s $log ]] || tail -n 30 "$log"
    } >&2
    exit 1
}

main "$@"
