#!/usr/bin/env bash
# Runs the end-to-end tests of TLS, and the Autobahn test suite, with a backend that gives the sessions to the kernel (--tls kernel).
#
#   scripts/ktls.sh CARGO_FLAGS... [-- TEST_ARGUMENTS...]
#
# With TEST_ARGUMENTS, these tests and no others. The Autobahn test suite is the one in build/autobahn.
#
# Where this machine's kernel has TLS (CONFIG_TLS), under that. Else under Debian's User Mode Linux: an ordinary process that
# is a kernel, over this machine's files, which it cannot change; /tmp, /run and /var are empty and in its memory. It has one
# processor: nothing is timed in it. UML=DIR: with that of Debian's package user-mode-linux unpacked there, of a later Debian
# for one, whose Linux changes keys (6.14).
set -euo pipefail
cd "$(dirname "$0")/.."

# Other kernels load the ciphers when TLS asks for them.
modules=(aes aes_generic ctr ghash-generic gcm chacha chacha_generic poly1305_generic chacha20poly1305 tls)
# The tests that run unless others are named.
tests=(tls_)
autobahn=(python3 tests/autobahn/run.py --suite build/autobahn --tls=kernel)
# Everything may take so long.
seconds=3000
uml=${UML:-}
work=$PWD/build/ktls

main() {
    local flags=()
    while (( $# > 0 )) && [[ $1 != -- ]]; do
        flags+=("$1")
        shift
    done
    (( $# == 0 )) || shift
    if (( $# == 0 )); then
        set -- "${tests[@]}"
    else
        autobahn=(true)
    fi

    local programs
    # All tests, though three programs would do: another selection would have cargo compile nginx again.
    mapfile -t programs < <(cargo test "${flags[@]}" --no-run --message-format=json-render-diagnostics | python3 -c '
import json, sys
lines = (json.loads(line) for line in sys.stdin if line.startswith("{"))
tests = {line["target"]["name"]: line["executable"] for line in lines if line.get("executable")}
print(tests["ws_handoff_backend"], tests["main"], tests["tests"], sep="\n")')
    (( ${#programs[@]} == 3 )) || { echo "ktls: the tests did not build" >&2; exit 1; }
    export WS_HANDOFF_TEST_TLS=kernel WS_HANDOFF_TEST_PATIENCE=${WS_HANDOFF_TEST_PATIENCE:-4}
    if has_tls; then
        echo "The tests of kernel TLS, under Linux $(uname -r)"
        # One at a time: the kernel's counters are everybody's.
        "${programs[0]}" --test-threads=1 engine::kernel
        "${programs[1]}" --test-threads=1 engine_tls::
        "${programs[2]}" --test-threads=1 "$@"
        "${autobahn[@]}"
    else
        [[ -n $uml ]] || scripts/deps.sh ktls
        echo "This kernel has no TLS: the tests of it, under User Mode Linux $("$uml/usr/bin/linux.uml" --version)"
        local serial=(--color=never --test-threads=1)
        boot bash -ec "$(printf '%q ' "${programs[0]}" "${serial[@]}" engine::kernel)
            $(printf '%q ' "${programs[1]}" "${serial[@]}" engine_tls::)
            $(printf '%q ' "${programs[2]}" "${serial[@]}" "$@")
            $(printf '%q ' "${autobahn[@]}")"
    fi
}

has_tls() {
    [[ -e /proc/net/tls_stat ]] || { (( EUID == 0 )) && modprobe tls 2>/dev/null && [[ -e /proc/net/tls_stat ]]; }
}

# boot COMMAND...: exits with its status.
boot() {
    rm -rf "$work"
    mkdir -p "$work"
    write_init "$@" >"$work/init"
    # kmod may not be installed. finit_module(2) is 313 on x86-64, which User Mode Linux is.
    cat >"$work/insert.py" <<-'PYTHON'
	import ctypes, errno, os, pathlib, re, sys

	libc = ctypes.CDLL(None, use_errno=True)
	files = {path.name.split(".")[0].replace("-", "_"): path for path in pathlib.Path(sys.argv[1]).rglob("*.ko")}

	def insert(name):
	    # One that is not there is a part of the kernel.
	    if path := files.pop(name.replace("-", "_"), None):
	        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
	        for other in filter(None, depends[1].decode().split(",") if depends else []):
	            insert(other)
	        failed = libc.syscall(313, os.open(path, os.O_RDONLY), b"", 0)
	        if failed and ctypes.get_errno() != errno.EEXIST:
	            print(f"ktls: {path}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)

	for name in sys.argv[2:]:
	    insert(name)
	PYTHON
    chmod +x "$work/init"
    cc -O2 -Wall -shared -fPIC -o "$work/xstate.so" scripts/uml_xstate.c
    # con0 is where the command writes; the kernel's own messages go to its standard error.
    LD_PRELOAD=$work/xstate.so timeout --kill-after=10 "$seconds" "$uml/usr/bin/linux.uml" mem=2G \
        root=/dev/root rootfstype=hostfs rootflags=/ ro init="$work/init" con=null con0=fd:0,fd:1 ssl=null quiet \
        </dev/null 2>"$work/kernel.log" | sed -u 's/\r$//' || true
    if [[ ! -s $work/status ]]; then
        tail -n 20 "$work/kernel.log" >&2
        echo "ktls: User Mode Linux ended without a result (or after $seconds s); its messages: build/ktls/kernel.log" >&2
        exit 1
    fi
    exit "$(<"$work/status")"
}

# The first process in there.
write_init() {
    cat <<-INIT
	#!/bin/bash
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	for dir in /tmp /run /var /dev/shm; do
	    mkdir -p "\$dir" 2>/dev/null
	    mount -t tmpfs -o mode=1777 tmpfs "\$dir"
	done
	mkdir -p /var/tmp /var/log/nginx /var/lib/nginx
	[[ -e /dev/fd ]] || ln -s /proc/self/fd /dev/fd
	# The one place that can be written to from in here.
	mkdir /run/host
	mount -t hostfs -o $(printf %q "$work") hostfs /run/host
	ip link set lo up
	$(export -p | grep -vE '^declare -x (SHLVL|PWD|OLDPWD|_|LD_PRELOAD)(=|$)')
	ulimit -n 4096
	cd $(printf %q "$PWD")
	INIT
    printf 'python3 %q %q %s\n' "$work/insert.py" "$uml/usr/lib/uml/modules" "${modules[*]}"
    printf '%q ' "$@"
    cat <<-'INIT'

	echo $? >/run/host/status
	sync
	echo o >/proc/sysrq-trigger
	sleep 10
	INIT
}

main "$@"
