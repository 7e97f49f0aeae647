"""The profile `monitoring`: what it adds, and a Prometheus that reaches everything it is to ask.

What the metrics say, and the dashboard that shows them, is tested without containers (tests/monitoring).
"""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from compose import ROOT, SERVICES, Compose, docker, wait_until

MONITORING = ("prometheus", "grafana")
IMAGE = "ws-handoff-prometheus:test"


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(Compose("config").run("--profile", "monitoring", "config"))["services"]


def test_the_demo_itself_is_without_it(config):
    assert {name for name, service in config.items() if service.get("profiles") == ["monitoring"]} == set(MONITORING)
    assert set(config) == {*SERVICES, *MONITORING}


def test_its_images_are_pinned_and_its_port_is_for_this_machine(config):
    for name in MONITORING:
        _, _, tag = config[name]["image"].rpartition(":")
        assert tag.lstrip("v")[0].isdigit(), config[name]["image"]
    published = str(config["grafana"]["ports"])
    assert "127.0.0.1" in published and "0.0.0.0" not in published
    assert "ports" not in config["prometheus"]


def test_its_files_are_there_and_can_only_be_read(config):
    mounts = [mount for name in MONITORING for mount in config[name]["volumes"]]
    assert len(mounts) == 5
    for mount in mounts:
        assert mount["type"] == "bind" and mount["read_only"]
        path = Path(mount["source"])
        assert path.is_relative_to(ROOT) and path.exists(), path


@pytest.fixture(scope="module")
def prometheus(demo):
    """The service with Debian's Prometheus, beside the running demo; gone afterwards."""
    file = Path(__file__).with_name("prometheus.Dockerfile")
    with file.open() as standard_input:
        # Its context is empty.
        subprocess.run(["docker", "build", "--quiet", "--tag", IMAGE, "-"], stdin=standard_input, check=True, timeout=1200)
    demo.environment["PROMETHEUS_IMAGE"] = IMAGE
    profile = ("--profile", "monitoring")
    try:
        demo.run(*profile, "up", "--detach", "--no-build", "--no-deps", "prometheus")
        yield lambda path: json.loads(demo.exec("prometheus", "curl", "--silent", f"http://127.0.0.1:9090/api/v1/{path}"))["data"]
    finally:
        demo.run(*profile, "rm", "--stop", "--force", "prometheus")
        del demo.environment["PROMETHEUS_IMAGE"]


def test_prometheus_reaches_everything(demo, prometheus):
    def targets():
        try:
            return prometheus("targets")["activeTargets"]
        except (AssertionError, json.JSONDecodeError):
            return []

    try:
        wait_until("every target is up", lambda: [t["health"] for t in targets()] == ["up"] * 3, seconds=30)
    except AssertionError as error:
        pytest.fail(f"{error}\n{targets()}\n{docker('logs', demo.container('prometheus'))}", pytrace=False)
    assert {target["scrapePool"] for target in targets()} == {"nginx", "backend", "demo"}
    rules = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 9
    for metric in ("nginx_ws_handoff_in_progress", "websocket_connections_active", "ws_handoff_demo_nginx_memory_bytes"):
        [sample] = prometheus(f"query?query={metric}")["result"]
        assert float(sample["value"][1]) >= 0, sample


def test_prometheus_is_confined_as_the_others_are(demo, prometheus):
    for pid in demo.pids("prometheus"):
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines())
        assert (status["Uid"].split()[0], int(status["CapBnd"], 16), status["NoNewPrivs"]) == ("65534", 0, "1")
    root = [line.split() for line in demo.exec("prometheus", "cat", "/proc/self/mounts").splitlines()]
    assert "ro" in next(fields for fields in root if fields[1] == "/")[3].split(",")
