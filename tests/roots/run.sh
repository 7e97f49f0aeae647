#!/usr/bin/env bash
# Runs a command on this working copy in a Debian root that holds nothing yet, as a new machine would.
#
#   tests/roots/run.sh SUITE COMMAND [RESULTS]        tests/roots/run.sh trixie 'make test && make test NGINX=debian'
#
# RESULTS is a directory of the working copy in the root: what the command has put there is copied into the same directory here.
#
# As root, since debootstrap and chroot take that. Rust, which README asks for, is Debian's own from Debian 13 on; for
# Debian 12, whose Rust is too old, it is this machine's. Everything is in build/roots/SUITE, and removed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=$1
command=$2
results=${3:-}
root=$PWD/build/roots/$suite
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

main() {
    (( EUID == 0 )) || fail "needs root: sudo $0 $*"
    scripts/deps.sh roots
    remove
    trap remove EXIT
    mkdir -p "$root"
    echo "Debian $suite into $root"
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        fail "debootstrap failed; all that it said: $root.log"
    }
    prepare
    copy_project
    # Namespaces of its own: when the command ends, its mounts are gone and so is whatever it left running.
    unshare --mount --pid --fork --kill-child bash -euo pipefail -s "$root" "${toolchain:-}" "$command" <<-'INSIDE'
	root=$1 toolchain=$2 command=$3
	mount --make-rprivate /
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t sysfs -o ro sysfs "$root/sys"
	if [[ -n $toolchain ]]; then
	    mkdir -p "$root/opt/rust"
	    mount --bind "$toolchain" "$root/opt/rust"
	fi
	exec env -i HOME=/root TERM=dumb LANG=C.UTF-8 ${CI:+CI=$CI} PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
	    PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	    chroot "$root" bash -euo pipefail -c "cd /root/ngx-ws-handoff && $command" </dev/null
	INSIDE
    if [[ -n $results ]]; then
        mkdir -p "$results"
        cp --recursive "$root/root/ngx-ws-handoff/$results/." "$results/"
    fi
}

# What differs between this root and a person's new machine: where names are resolved, whom TLS trusts, that nothing is
# started because its package was installed, and Rust.
prepare() {
    cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
    cp /etc/hosts "$root/etc/hosts"
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        mkdir -p "$root/usr/local/share/ca-certificates"
        cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    # make is what a person types; deps.sh brings the rest.
    chroot "$root" apt-get update -qq
    chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends make >/dev/null
    if [[ $suite == bookworm ]]; then
        toolchain=$(rustc --print sysroot)
    else
        chroot "$root" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends cargo rustfmt rust-clippy ca-certificates >/dev/null
    fi
}

# What git knows of, as it is here now.
copy_project() {
    mkdir -p "$root/root/ngx-ws-handoff"
    git ls-files -z --cached --others --exclude-standard --deduplicate |
        xargs -0 -I{} sh -c '[ ! -e "$1" ] || printf "%s\0" "$1"' - {} |
        tar --create --null --files-from=- | tar --extract --directory="$root/root/ngx-ws-handoff"
}

remove() {
    # A mount would mean that a namespace is still there: never delete through it.
    if grep -q " $root/" /proc/self/mounts; then
        fail "something is mounted below $root; not removed"
    fi
    rm -rf "$root"
}

fail() {
    echo "roots: $*" >&2
    exit 1
}

main "$@"
