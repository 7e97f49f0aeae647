#!/usr/bin/env bash
# The demo: the backend, nginx and the page's helper in the foreground until Ctrl-C, everything they write in build/run.
# Needs no root.
#
#   PORT=8080 scripts/run.sh        nginx on PORT; all else goes over Unix sockets
#   TLS_PORT=8443 scripts/run.sh    on this port, too, with TLS and a certificate that it has signed itself
set -euo pipefail
cd "$(dirname "$0")/.."

port=${PORT:-8080}
tls_port=${TLS_PORT:-}
root=$PWD
run=$root/build/run
backend_pid=
demo_pid=
nginx_pid=

main() {
    check_port PORT "$port" 9090
    [[ -z $tls_port ]] || check_port TLS_PORT "$tls_port" 9443
    [[ $port != "$tls_port" ]] || fail "PORT and TLS_PORT are both $port: TLS needs a port of its own"

    mkdir -p "$run/temp"
    # nginx takes a relative socket path from here; a short one, as 107 bytes are all that it may have.
    cd "$run"
    # Of two demos the later would take the earlier one's socket over, unseen.
    exec 9>lock
    flock --nonblock 9 || fail "the demo already runs from this directory"
    : >error.log
    write_configuration >nginx.conf
    rm -f tls.conf
    [[ -z $tls_port ]] || write_tls_configuration >tls.conf
    cp "$root/nginx/demo_locations.conf" .
    # Left behind by processes that were killed: whoever waits for a socket must not find an old one.
    rm -f backend.sock admin.sock demo.sock

    trap stop EXIT
    trap 'exit 0' INT TERM HUP
    # A process group each: Ctrl-C reaches this script alone, which ends them in order; and with nginx's group end also
    # workers whose master was killed.
    set -m

    ../bin/ws-handoff-backend --app demo --socket backend.sock --admin unix:admin.sock --drain-timeout 1 \
        </dev/null >backend.log 2>&1 9>&- &
    backend_pid=$!
    wait_for backend "$backend_pid" backend.log backend.sock admin.sock

    ../bin/ws-handoff-demo --listen unix:demo.sock --target "127.0.0.1:$port" --nginx-pid-file nginx.pid \
        </dev/null >demo.log 2>&1 9>&- &
    demo_pid=$!
    wait_for ws-handoff-demo "$demo_pid" demo.log demo.sock

    # As root, the workers stay root: those of nobody could not reach a working copy below /root.
    local globals=()
    (( EUID != 0 )) || globals=(-g "user root;")
    ../sbin/nginx -p "$run/" -c nginx.conf -e error.log "${globals[@]}" </dev/null >nginx.out 2>&1 9>&- &
    nginx_pid=$!
    wait_for nginx "$nginx_pid" error.log "$port"

    greet
    # Returns when one of them ends: none is expected to.
    local ended status=0
    wait -n -p ended "$backend_pid" "$demo_pid" "$nginx_pid" || status=$?
    case $ended in
        "$backend_pid") died backend "$ended" backend.log "exit status $status" ;;
        "$demo_pid") died ws-handoff-demo "$ended" demo.log "exit status $status" ;;
        *) died nginx "$ended" error.log "exit status $status" ;;
    esac
}

# The committed configuration, with the port asked for.
write_configuration() {
    sed "s/127\.0\.0\.1:8080/127.0.0.1:$port/" "$root/nginx/demo.conf"
}

# With the certificate that it names.
write_tls_configuration() {
    # The same for as long as it lasts: browsers remember whom they were told to trust.
    openssl x509 -in cert.pem -noout -checkend 86400 >/dev/null 2>&1 ||
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout cert.key -out cert.pem \
            -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>openssl.log ||
        fail "openssl makes no certificate: $(cat openssl.log)"
    cat <<-CONFIGURATION
	listen 127.0.0.1:$tls_port ssl;
	ssl_certificate cert.pem;
	ssl_certificate_key cert.key;
	ws_handoff_tls on;
	CONFIGURATION
}

# check_port VARIABLE PORT ANOTHER
check_port() {
    [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] && (( $2 <= 65535 )) || fail "$1=$2: not a port number up to 65535"
    ! listening "$2" || fail "port $2 on 127.0.0.1 is in use; choose another: make run $1=$3"
}

greet() {
    cat <<-MESSAGE

	Open http://127.0.0.1:$port/ in a browser, best in two tabs. What the page uses:

	  ws://127.0.0.1:$port/ws/echo          handed over to the backend; also /ws/hello, /ws/rooms/NAME
	  ws://127.0.0.1:$port/proxy/echo       the same through nginx
	  http://127.0.0.1:$port/nginx_status   the connections that nginx holds
	  http://127.0.0.1:$port/handoff        what became of hand-overs
	  http://127.0.0.1:$port/metrics        the connections that the backend holds

	Or, in another terminal, and type a line:

	  $root/build/venv/bin/python -m websockets ws://127.0.0.1:$port/ws/echo

	$(greet_tls)Logs: build/run/{error,access,backend,demo}.log. Ctrl-C stops all.

	MESSAGE
}

greet_tls() {
    [[ -z $tls_port ]] || printf '%s\n\n\t' "With TLS, handed over too: https://127.0.0.1:$tls_port/ (the browser will warn: nobody vouches for the certificate)"
}

# wait_for NAME PID LOG PLACE...: until it listens on each (a port, or a Unix socket's path), or has died.
wait_for() {
    local deadline=$((SECONDS + 15)) place
    for place in "${@:4}"; do
        until listening "$place"; do
            still_running "$@"
            (( SECONDS < deadline )) || died "$1" "$2" "$3" "no listener on $place within 15 s"
            sleep 0.05
        done
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
    if [[ $1 == *.sock ]]; then
        [[ -S $1 ]]
    else
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
    fi
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
    for pid in $backend_pid $nginx_pid $demo_pid; do
        kill -TERM -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    exit "$status"
}

main
