"""What is in the packages, without installing them."""

import gzip
import re
import subprocess

from packages import BACKEND, MODULE


def test_the_module_depends_on_one_abi_of_nginx(packages):
    depends = packages.field(packages.file(MODULE), "Depends")
    assert re.search(r"(^|, )nginx-abi-[0-9.]+-[0-9]+(,|$)", depends), depends
    assert "libc6 (>= " in depends, depends


def test_each_package_has_what_policy_asks_for(packages):
    # dpkg makes the backend's checksums when it installs it.
    assert "md5sums" in packages.control(packages.file(MODULE))
    for name, path in ((MODULE, "etc/nginx/sites-available/ws-handoff-example"), (BACKEND, "etc/default/ws-handoff-backend")):
        assert "conffiles" in packages.control(packages.file(name))
        assert packages.content(packages.file(name), path)
        assert "Apache-2.0" in packages.content(packages.file(name), f"usr/share/doc/{name}/copyright")


def test_an_instance_is_confined_like_the_service(packages):
    """What differs is where its socket comes from, and that it gives the socket to nginx's group."""
    service, instance = (
        settings(packages.content(packages.file(BACKEND), f"usr/lib/systemd/system/ws-handoff-backend{kind}.service"))
        for kind in ("", "@")
    )
    assert service - instance == {
        "Description=Backend for WebSocket clients that nginx hands over",
        "Requires=ws-handoff-backend.socket",
        "After=ws-handoff-backend.socket",
        "Also=ws-handoff-backend.socket",
        "ExecStart=/usr/bin/ws-handoff-backend",
        "RuntimeDirectory=ws-handoff-backend",
    }
    assert instance - service == {
        "Description=Backend %i for WebSocket clients that nginx hands over",
        "ExecStart=/usr/bin/ws-handoff-backend --socket /run/ws-handoff/%i/backend.sock --socket-group www-data",
        "EnvironmentFile=-/etc/default/ws-handoff-backend-%i",
        "RuntimeDirectory=ws-handoff/%i",
        "SupplementaryGroups=www-data",
        "SystemCallFilter=@chown",
    }


def test_the_settings_that_are_suggested_exist(packages):
    """In /etc/default: the man page, made of the program's own options, has them."""
    suggested = packages.content(packages.file(BACKEND), "etc/default/ws-handoff-backend")
    names = set(re.findall(r"^#?(WS_HANDOFF_[A-Z_]+)=", suggested, re.MULTILINE))
    assert len(names) > 4
    page = man_page(packages)
    missing = {name for name in names if name not in page}
    assert not missing, missing


def man_page(packages) -> str:
    file = packages.file(BACKEND)
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE, check=True).stdout
    page = subprocess.run(
        ["tar", "--extract", "--to-stdout", "./usr/share/man/man1/ws-handoff-backend.1.gz"],
        input=archive, stdout=subprocess.PIPE, check=True,
    ).stdout
    return gzip.decompress(page).decode().replace("\\-", "-").replace("\\", "")


def settings(unit: str) -> set[str]:
    return {line for line in unit.splitlines() if "=" in line and not line.startswith("#")}
