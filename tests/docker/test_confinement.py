"""What each container can and cannot do."""

import pytest

from compose import SERVICES

USERS = {"demo": (10002, 33), "backend": (10001, 33), "nginx": (33, 33)}


def test_the_backend_has_only_loopback(demo):
    lines = demo.exec("backend", "cat", "/proc/net/dev").splitlines()
    assert [line.split(":")[0].strip() for line in lines[2:]] == ["lo"]
    # Not even a way out: no route but, at most, loopback's own.
    assert demo.exec("backend", "cat", "/proc/net/route").splitlines()[1:] == []


def test_nginx_and_its_helper_share_a_network_that_is_not_the_machines(demo):
    network = {service: demo.exec(service, "readlink", "/proc/self/ns/net") for service in SERVICES}
    assert network["nginx"] == network["demo"] != network["backend"]
    lines = demo.exec("nginx", "cat", "/proc/net/dev").splitlines()
    assert sorted(line.split(":")[0].strip() for line in lines[2:]) == ["eth0", "lo"]


def test_only_this_machine_can_reach_the_port(demo):
    ports = demo.inspect("demo")["NetworkSettings"]["Ports"]
    assert ports["8080/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(demo.port)}]
    assert not demo.inspect("nginx")["HostConfig"]["PortBindings"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_process_has_a_capability_or_can_gain_one(demo, service):
    for pid in demo.pids(service):
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines())
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[capabilities], 16) == 0, f"{status['Name']}: {capabilities}"
        assert status["NoNewPrivs"] == "1", status["Name"]
        assert status["Seccomp"] == "2", status["Name"]


@pytest.mark.parametrize("service", SERVICES)
def test_each_runs_as_its_own_user_in_nginxs_group(demo, service):
    user, group = USERS[service]
    for pid in demo.pids(service):
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines())
        assert set(status["Uid"].split()) == {str(user)}, status["Name"]
        assert set(status["Gid"].split()) == {str(group)}, status["Name"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_root_file_system_is_read_only(demo, service):
    mounts = [line.split() for line in demo.exec(service, "cat", "/proc/self/mounts").splitlines()]
    root = [fields for fields in mounts if fields[1] == "/"]
    assert "ro" in root[-1][3].split(",")


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_has_no_compiler(demo, service):
    found = demo.exec(service, "sh", "-c", "command -v cc gcc clang ld make cargo rustc || true")
    assert found == ""


def test_the_sockets_are_for_nginxs_group_only(demo):
    def owners(service, *paths):
        return demo.exec(service, "stat", "--format=%F %u:%g %a", *paths).splitlines()

    assert owners("backend", "/run/ws-handoff", "/run/ws-handoff/backend.sock", "/run/ws-handoff/admin.sock") == [
        "directory 10001:33 2750",
        "socket 10001:33 660",
        "socket 10001:33 660",
    ]
    assert owners("demo", "/run/demo", "/run/demo/demo.sock") == ["directory 10002:33 2770", "socket 10002:33 660"]


def test_the_backend_takes_clients_from_nginx_only(demo):
    """Its own user may connect to the socket as far as the file's mode goes, and is refused all the same."""
    said = demo.exec(
        "backend", "curl", "--silent", "--include", "--unix-socket", "/run/ws-handoff/backend.sock", "http://backend/echo"
    )
    assert said.startswith("HTTP/1.1 403 ")
