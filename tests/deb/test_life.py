"""The packages from their installation to their purge, on a machine that is booted. Each test goes on where the last one ended."""

import socket
import time

import pytest

from machine import wait_until
from packages import BACKEND, MODULE
from tree import difference, snapshot

SERVICE = "ws-handoff-backend.service"
SOCKET = "ws-handoff-backend.socket"
EXAMPLE = "/etc/nginx/sites-available/ws-handoff-example"
ENABLED = "/etc/nginx/sites-enabled/ws-handoff-example"
DEFAULTS = "/etc/default/ws-handoff-backend"
DROP_IN = f"/run/systemd/system/{SERVICE}.d/test.conf"


@pytest.fixture(scope="module")
def before(machine) -> dict[str, str]:
    """What a machine with nginx has."""
    machine.run("apt-get", "install", "-y", "nginx")
    return snapshot(machine.root)


def files(packages, revision: int) -> list[str]:
    return [file.name for file in packages.files(revision)]


def test_the_module_brings_the_nginx_that_it_is_for(machine, packages):
    plan = machine.install(packages.file(MODULE).name, simulate=True)
    assert "Inst nginx " in plan, plan


def test_it_is_installed_and_started(machine, packages, before):
    machine.install(*files(packages, 1))
    for unit in (SOCKET, SERVICE, "nginx.service"):
        assert machine.is_active(unit), unit
        assert machine.run("systemctl", "is-enabled", unit).strip() == "enabled"
    assert machine.run("stat", "--format=%U %G %a", "/run/ws-handoff/backend.sock").strip() == "root www-data 660"
    abi = next(text for text in packages.field(packages.file(MODULE), "Depends").split(", ") if "nginx-abi" in text)
    assert abi in machine.run("dpkg-query", "--show", "--showformat=${Provides}", "nginx")
    assert machine.run("dpkg", "--verify", MODULE, BACKEND) == ""
    # Another nginx, of which this module knows nothing, takes its place.
    assert f"Remv {MODULE} " in stranger(machine)


def test_the_units_are_in_order(machine):
    # There is no man(1) to look for the pages.
    machine.run("systemd-analyze", "verify", "--man=no", SERVICE, SOCKET, "ws-handoff-backend@1.service")
    for unit in (SERVICE, "ws-handoff-backend@1.service"):
        # In tenths.
        print(machine.run("systemd-analyze", "security", "--threshold=15", "--no-pager", unit).splitlines()[-1])


def test_the_example_hands_clients_over(machine):
    machine.run("ln", "-s", EXAMPLE, ENABLED)
    machine.run("nginx", "-t")
    machine.run("systemctl", "reload", "nginx")
    wait_until("nginx listens", lambda: listens(machine))
    machine.echo("by the socket itself")
    wait_until("nginx logs it", lambda: handed_over(machine) == 1)
    assert machine.access_log()[-1].split()[-3:-1] == ["101", "fd"]


def test_a_client_stays_when_nginx_restarts(machine):
    with machine.client("hold", "3") as client:
        assert client.said() == {"received": "held"}
        machine.run("systemctl", "restart", "nginx")
        assert client.said() == {"received": "still"}


def test_the_service_is_confined(machine):
    pid = machine.show(SERVICE, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = machine.run("id", "--user", "ws-handoff").strip()
    assert fields["Uid"].split() == [user] * 4
    assert fields["Groups"].strip() in ("", machine.run("id", "--group", "ws-handoff").strip())
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert machine.show(SERVICE, "LimitNOFILE") == "524288"
    # A first process that may not raise its own limit gives no more than that.
    assert descriptors(machine, pid) in (524288, descriptors(machine, "1"))
    assert machine.run("readlink", f"/proc/{pid}/ns/net") != machine.run("readlink", "/proc/1/ns/net")
    # In its namespaces, and as its user, nothing can be written.
    inside = ["nsenter", f"--target={pid}", "--mount", "setpriv", "--reuid=ws-handoff", "--regid=ws-handoff", "--clear-groups"]
    said = machine.run(*inside, "touch", "/var/lib/x", "/etc/x", "/run/x", "/usr/x", check=False)
    assert said.count("cannot touch") == 4, said


def test_no_packet_is_the_services_own(machine):
    """IPAddressDeny= acts here, and on sockets that the service would open: those that nginx has opened are nginx's."""
    service = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", "--property=IPAddressDeny=any"]
    connect = ["timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && echo connected"]
    assert "connected" in machine.run(*service[:-1], *connect)
    assert "connected" not in machine.run(*service, *connect, check=False)
    machine.echo("a packet of a client that was handed over")


def test_systemd_is_told_whom_it_serves(machine):
    assert machine.show(SERVICE, "Type") == "notify"
    with machine.client("hold", "60") as client:
        client.said()
        wait_until("it is in the status", lambda: machine.show(SERVICE, "StatusText") == "Serving 1 client")


def test_metrics_are_there_where_the_defaults_say_so(machine):
    edit(machine, "#WS_HANDOFF_ADMIN=", "WS_HANDOFF_ADMIN=")
    edit(machine, "#WS_HANDOFF_ALLOW_UID=", "WS_HANDOFF_ALLOW_UID=")
    edit(machine, "#WS_HANDOFF_DRAIN_TIMEOUT=30", "WS_HANDOFF_DRAIN_TIMEOUT=5")
    machine.run("systemctl", "restart", SERVICE)
    machine.echo("as www-data, who is allowed")
    place = "/run/ws-handoff-backend/admin.sock"
    assert machine.run("stat", "--format=%U %G %a", place).strip() == "ws-handoff ws-handoff 660"
    assert "websocket_messages_sent_total 1\n" in admin(machine, place)


def test_a_start_by_the_socket(machine):
    machine.run("systemctl", "stop", SERVICE)
    assert machine.is_active(SOCKET) and not machine.is_active(SERVICE)
    machine.echo("started by this")
    assert machine.is_active(SERVICE)


def test_a_program_that_hangs_is_started_anew(machine):
    # In the machine's own /run.
    machine.shell(f"mkdir -p $(dirname {DROP_IN}) && printf '[Service]\\nWatchdogSec=2\\n' >{DROP_IN}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)
    pid = machine.show(SERVICE, "MainPID")
    time.sleep(5)
    assert machine.show(SERVICE, "MainPID") == pid, "the watchdog is content"
    machine.shell(f"kill -STOP {pid}")
    wait_until("it is another process", lambda: machine.show(SERVICE, "MainPID") not in (pid, "0"))
    machine.echo("served by the new one")
    assert machine.show(SERVICE, "NRestarts") == "1"
    machine.run("rm", DROP_IN)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)


def test_an_upgrade_refuses_nobody(machine, packages):
    pid = machine.show(SERVICE, "MainPID")
    inode = machine.run("stat", "--format=%i", "/run/ws-handoff/backend.sock")
    with machine.client("hold", "60") as client, machine.client("stubborn", "1", "60") as stubborn:
        assert client.said() == {"received": "held"}
        # Keeps the drain going to its end, which is after five seconds here.
        assert stubborn.said() == {"connected": 1}
        with machine.client("knock", "15", "0.05") as visitors:
            machine.install(*files(packages, 2))
            assert client.said() == {"closed": 1001}
            longest = longest_handshake(visitors)
    assert 3 < longest < 20, f"{longest} s: who comes while the old program drains waits for the new one"
    for name in (MODULE, BACKEND):
        shown = machine.run("dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", name)
        assert shown == f"{packages.version(name, 2)} installed"
    assert machine.show(SERVICE, "MainPID") not in (pid, "0")
    assert machine.run("stat", "--format=%i", "/run/ws-handoff/backend.sock") == inode, "the same socket"
    assert "\nWS_HANDOFF_ADMIN=" in machine.run("cat", DEFAULTS), "the administrator's settings"


def test_the_new_module_comes_with_an_upgrade_of_nginx(machine):
    """As the package's README.Debian says: a reload goes on with what is in memory."""
    module = "ngx_http_ws_handoff_module.so"
    assert f"{module} (deleted)" in maps(machine)
    with machine.client("hold", "6") as client:
        assert client.said() == {"received": "held"}
        machine.run("/etc/init.d/nginx", "upgrade")
        wait_until("all of nginx has the new one", lambda: f"{module} (deleted)" not in maps(machine) and module in maps(machine))
        assert client.said() == {"received": "still"}
    machine.echo("by the new module")


def test_two_instances_are_restarted_without_a_wait(machine):
    machine.run("systemctl", "disable", "--now", SERVICE, SOCKET)
    # The admin socket would be both instances'.
    edit(machine, "\nWS_HANDOFF_ADMIN=", "\n#WS_HANDOFF_ADMIN=")
    machine.run("systemctl", "enable", "--now", "ws-handoff-backend@1", "ws-handoff-backend@2")
    example = (machine.root / EXAMPLE[1:]).read_text()
    example = example.replace("    server unix:/run/ws-handoff/backend.sock", "    #server unix:/run/ws-handoff/backend.sock")
    machine.write(EXAMPLE, example.replace("#server unix:/run/ws-handoff/1", "server unix:/run/ws-handoff/1")
                  .replace("#server unix:/run/ws-handoff/2", "server unix:/run/ws-handoff/2"))
    machine.run("nginx", "-t")
    machine.run("systemctl", "reload", "nginx")
    wait_until("nginx has its new workers", lambda: "shutting down" not in machine.shell("cat /proc/[0-9]*/cmdline"))
    # Some at each instance, so that each drain goes on to its end.
    with machine.client("stubborn", "16", "60") as stubborn:
        assert stubborn.said() == {"connected": 16}
        with machine.client("knock", "15", "0.05") as visitors:
            for number in (1, 2):
                begin = time.monotonic()
                machine.run("systemctl", "restart", f"ws-handoff-backend@{number}")
                assert time.monotonic() - begin > 3, "a drain to its end"
            longest = longest_handshake(visitors)
    assert longest < 1, longest


def test_removed_it_leaves_settings_and_nothing_that_runs(machine):
    machine.run("rm", ENABLED)
    machine.run("apt-get", "remove", "-y", MODULE, BACKEND)
    assert machine.is_active("nginx.service")
    machine.run("nginx", "-t")
    assert not [name for name in processes(machine) if name.startswith("ws-handoff")]
    for path in ("/run/ws-handoff", "/run/ws-handoff-backend", "/usr/bin/ws-handoff-backend"):
        assert not machine.shell(f"ls -d {path} 2>/dev/null || true"), path
    assert "\nWS_HANDOFF_ALLOW_UID=" in machine.run("cat", DEFAULTS)
    assert machine.run("cat", EXAMPLE)


def test_purged_it_leaves_nothing(machine, before):
    machine.run("apt-get", "purge", "-y", MODULE, BACKEND)
    assert difference(before, snapshot(machine.root)) == []
    assert not machine.run("getent", "passwd", "ws-handoff", check=False)
    assert not list((machine.root / "var/lib/dpkg/info").glob("*ws-handoff*"))
    assert machine.is_active("nginx.service")
    assert machine.state() == "running", machine.run("systemctl", "--failed")


def longest_handshake(visitors) -> float:
    """In seconds, of many, of which none was refused."""
    knocks = visitors.said()["knocks"]
    assert len(knocks) > 100
    assert not [knock for knock in knocks if "refused" in knock]
    return max(knock["took"] for knock in knocks)


def stranger(machine) -> str:
    """What apt would do about an nginx of another ABI."""
    machine.shell("""
        mkdir -p /tmp/stranger/DEBIAN
        printf '%s\\n' 'Package: nginx' 'Version: 99-1' 'Architecture: all' 'Maintainer: Nobody <nobody@example.org>' \\
            'Provides: nginx-abi-99.0.0-1' 'Description: an nginx of another ABI' >/tmp/stranger/DEBIAN/control
        dpkg-deb --build /tmp/stranger /root/stranger.deb
        rm -r /tmp/stranger
    """)
    return machine.install("stranger.deb", simulate=True)


def listens(machine) -> bool:
    # 8080, as the kernel writes it.
    return ":1F90 " in machine.run("cat", "/proc/net/tcp")


def handed_over(machine) -> int:
    return sum(" fd " in line for line in machine.access_log())


def edit(machine, old: str, new: str):
    text = (machine.root / DEFAULTS[1:]).read_text()
    assert old in text, text
    machine.write(DEFAULTS, text.replace(old, new))


def admin(machine, place: str) -> str:
    """The metrics; a minimal Debian has no curl."""
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/proc/{machine.leader}/root{place}")
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def maps(machine) -> str:
    """What nginx, its master and its workers, has in memory."""
    return machine.shell("""
        master=$(cat /run/nginx.pid)
        for pid in $master $(cat /proc/$master/task/$master/children); do cat /proc/$pid/maps; done
    """)


def descriptors(machine, pid: str) -> int:
    """The hard limit."""
    lines = machine.run("cat", f"/proc/{pid}/limits").splitlines()
    return next(int(line.split()[4]) for line in lines if line.startswith("Max open files"))


def processes(machine) -> list[str]:
    return machine.shell("cat /proc/[0-9]*/comm 2>/dev/null || true").splitlines()
