#!/usr/bin/env bash
# The demo: the backend and nginx in the foreground until Ctrl-C, everything they write in build/run. Needs no root.
#
#   PORT=8080 scripts/run.sh        nginx on PORT, the backend's HTTP on PORT + 1, its metrics on PORT + 2
set -euo pipefail
cd "$(dirname "$0")/.."

port=${PORT:-8080}
root=$PWD
run=$root/build/run
backend_pid=
nginx_pid=

main() {
    [[ $port =~ ^[1-9][0-9]{0,4}$ ]] && (( port <= 65533 )) || fail "PORT=$port: not a port number up to 65533"
    local name
    for name in "$port" $((port + 1)) $((port + 2)); do
        ! listening "$name" || fail "port $name on 127.0.0.1 is in use (the demo takes $port to $((port + 2)));" \
            "choose another: make run PORT=9090"
    done

    mkdir -p "$run/temp"
    # nginx takes a relative socket path from here; a short one, as 107 bytes are all that it may have.
    cd "$run"
    # Of two demos the later would take the earlier one's socket over, unseen.
    exec 9>lock
    flock --nonblock 9 || fail "the demo already runs from this directory"
    : >error.log
    write_configuration >nginx.conf

    trap stop EXIT
    trap 'exit 0' INT TERM HUP
    # A process group each: Ctrl-C reaches this script alone, which ends them in order; and with nginx's group end also
    # workers whose master was killed.
    set -m

    ../bin/ws-handoff-backend --app demo --socket backend.sock \
        --listen "127.0.0.1:$((port + 1))" --admin "127.0.0.1:$((port + 2))" --drain-timeout 1 \
        </dev/null >backend.log 2>&1 9>&- &
    backend_pid=$!
    wait_for backend "$backend_pid" backend.log $((port + 2)) backend.sock

    # As root, the workers stay root: those of nobody could not reach a working copy below /root.
    local globals=()
    (( EUID != 0 )) || globals=(-g "user root;")
    ../sbin/nginx -p "$run/" -c nginx.conf -e error.log "${globals[@]}" </dev/null >nginx.out 2>&1 9>&- &
    nginx_pid=$!
    wait_for nginx "$nginx_pid" error.log "$port"

    greet
    # Returns when either ends: neither is expected to.
    local ended status=0
    wait -n -p ended "$backend_pid" "$nginx_pid" || status=$?
    if (( ended == backend_pid )); then
        died backend "$ended" backend.log "exit status $status"
    fi
    died nginx "$ended" error.log "exit status $status"
}

# The committed configuration, with the ports asked for. Two steps, as new and old ports may be the same numbers.
write_configuration() {
    sed -e 's/127\.0\.0\.1:808\([0-2]\)/127.0.0.1:@\1@/' \
        -e "s/@0@/$port/; s/@1@/$((port + 1))/; s/@2@/$((port + 2))/" "$root/nginx/demo.conf"
}

greet() {
    cat <<-MESSAGE

	nginx listens on http://127.0.0.1:$port/

	  ws://127.0.0.1:$port/ws/echo          handed over to the backend; also /ws/hello, /ws/rooms/NAME
	  ws://127.0.0.1:$port/proxy/echo       the same through nginx
	  http://127.0.0.1:$port/nginx_status   the connections that nginx holds
	  http://127.0.0.1:$port/metrics        the connections that the backend holds

	Try, in another terminal, and type a line:

	  $root/build/venv/bin/python -m websockets ws://127.0.0.1:$port/ws/echo

	Logs: build/run/{error,access,backend}.log. Ctrl-C stops both.

	MESSAGE
}

# wait_for NAME PID LOG PORT [SOCKET]: until it listens on both, or has died.
wait_for() {
    local deadline=$((SECONDS + 15))
    until listening "$4" && [[ -z ${5:-} || -S $5 ]]; do
        still_running "$@"
        (( SECONDS < deadline )) || died "$1" "$2" "$3" "no listener on port $4 within 15 s"
        sleep 0.05
    done
    # Who listens may be somebody else, who took the port in the meantime.
    still_running "$@"
}

still_running() {
    local status=0
    if ! kill -0 "$2" 2>/dev/null; then
        wait "$2" || status=$?
        died "$1" "$2" "$3" "exit status $status"
    fi
}

listening() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# died NAME PID LOG HOW
died() {
    {
        echo "$1 (pid $2): $4. The end of build/run/$3:"
        tail -n 20 "$3"
        [[ $1 != nginx || ! -s nginx.out ]] || cat nginx.out
    } >&2
    exit 1
}

fail() {
    echo "run: $*" >&2
    exit 1
}

# Only what this script started. The backend first: it closes its clients, those that it reaches through nginx too.
stop() {
    local status=$? pid
    trap - EXIT
    trap '' INT TERM HUP
    for pid in $backend_pid $nginx_pid; do
        kill -TERM -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    exit "$status"
}

main
