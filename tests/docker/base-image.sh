#!/usr/bin/env bash
# Makes the image debian:trixie-slim by debootstrap, for an engine that reaches no registry. An image of that name that is
# there already stays as it is: then there is nothing to do.
#
#   tests/docker/base-image.sh              the image that the Dockerfile starts from
#
# Close to the real one: a minimal Debian, no documentation, no service started when a package is installed. The
# certificate authorities that this machine trusts in addition to Debian's (/usr/local/share/ca-certificates, say, of a
# proxy that inspects TLS) are put into it: ca-certificates picks them up when the Dockerfile installs it. Without them
# cargo would not believe its registry in a build here.
set -euo pipefail

suite=trixie
image=debian:$suite-slim

main() {
    if docker image inspect "$image" >/dev/null 2>&1; then
        echo "$image is there"
        return
    fi
    docker version >/dev/null || fail "no Docker engine answers"
    command -v debootstrap >/dev/null || fail "no image $image: docker pull $image, or apt install debootstrap"
    (( EUID == 0 )) || fail "no image $image: docker pull $image, or run this as root: debootstrap needs it"

    root=$(mktemp --directory)
    trap 'rm -rf --one-file-system "$root"' EXIT
    local log=$root.log
    debootstrap --variant=minbase "$suite" "$root" >"$log" 2>&1 || fail "debootstrap failed: $log" "$(tail -n 3 "$log")"
    rm "$log"
    add_settings
    add_authorities
    remove_what_slim_leaves_out

    tar --create --numeric-owner --one-file-system --directory "$root" . |
        docker import --change 'CMD ["bash"]' --message "debootstrap --variant=minbase $suite" - "$image"
}

add_settings() {
    # As in Debian's own images: invoke-rc.d starts nothing.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # Also for packages that are installed later.
    cat >"$root/etc/dpkg/dpkg.cfg.d/docker" <<-END
	path-exclude /usr/share/doc/*
	path-include /usr/share/doc/*/copyright
	path-exclude /usr/share/info/*
	path-exclude /usr/share/locale/*
	path-exclude /usr/share/man/*
	END
    cat >"$root/etc/apt/apt.conf.d/docker" <<-END
	Acquire::Languages "none";
	APT::Keep-Downloaded-Packages "false";
	Dir::Cache::pkgcache "";
	Dir::Cache::srcpkgcache "";
	END
    # debootstrap copies this machine's; an engine writes a container's own.
    rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
}

add_authorities() {
    local certificate
    for certificate in /usr/local/share/ca-certificates/*.crt; do
        [[ -f $certificate ]] || continue
        install -D --mode 644 --target-directory "$root/usr/local/share/ca-certificates" "$certificate"
    done
}

remove_what_slim_leaves_out() {
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* \
        "$root"/var/log/{apt,bootstrap.log,dpkg.log} \
        "$root"/usr/share/{info,locale,man}/*
    find "$root/usr/share/doc" -depth ! -type d ! -name copyright -delete
}

fail() {
    printf 'base-image: %s\n' "$@" >&2
    exit 1
}

main
