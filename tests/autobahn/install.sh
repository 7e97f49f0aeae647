#!/usr/bin/env bash
# Puts the Autobahn test suite into a directory: the WebSocket field's conformance tests, which need Python 2.
#
#   tests/autobahn/install.sh DIR
#
# Python 2.7 comes from Debian 11's packages, unpacked in DIR and not installed; the rest from PyPI, in the last versions that
# ran on it. Nothing outside of DIR changes.
set -euo pipefail
dir=$(realpath -m "$1")
[[ -e $dir/complete ]] && exit 0

rm -rf "$dir"
mkdir -p "$dir"/{lists/partial,archives/partial,packages,python,wheels,bootstrap,site}
mirror=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -v security | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} bullseye main" >"$dir/sources.list"
# apt with lists and sources of its own.
apt=(apt-get -qq
    -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir" -o "Dir::Cache::archives=$dir/archives"
    -o APT::Sandbox::User=root)
"${apt[@]}" update
(
    cd "$dir/packages"
    "${apt[@]}" download python2.7 python2.7-minimal libpython2.7 libpython2.7-minimal libpython2.7-stdlib libssl1.1 libffi7
)
for package in "$dir"/packages/*.deb; do
    dpkg-deb -x "$package" "$dir/python"
done

cat >"$dir/python2" <<END
#!/bin/sh
export LD_LIBRARY_PATH="$dir/python/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)"
export PYTHONHOME="$dir/python/usr" PYTHONPATH="\${PYTHONPATH:-$dir/site}"
exec "$dir/python/usr/bin/python2.7" "\$@"
END
chmod +x "$dir/python2"

# The last pip that ran on Python 2, fetched by today's.
python3 -m venv "$dir/fetch"
"$dir/fetch/bin/pip" -q download --no-deps --only-binary=:all: --python-version 2.7 --implementation py --abi none --platform any \
    -d "$dir/wheels" pip==20.3.4 setuptools==44.1.1 wheel==0.37.1
for wheel in "$dir"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$dir/bootstrap"
done
# Not --upgrade: autobahn has files in Twisted's directory, which it would replace.
install() {
    PYTHONPATH=$dir/bootstrap "$dir/python2" -W ignore -m pip -q --no-python-version-warning --disable-pip-version-check \
        install --target "$dir/site" "$@" 2> >(grep -v 'already exists' >&2)
}
install setuptools==44.1.1 Twisted==19.10.0 zope.interface==4.6.0 incremental==16.10.1 txaio==2.1.0 six==1.16.0 \
    cryptography==3.3.2 pyOpenSSL==19.1.0 service_identity==18.1.0 \
    jinja2==2.11.3 markupsafe==1.1.1 Werkzeug==1.0.1 klein==17.10.0 unittest2==1.1.0
install --no-deps autobahn==0.10.9
install --no-deps autobahntestsuite==25.10.1
touch "$dir/site/zope/__init__.py" "$dir/complete"
