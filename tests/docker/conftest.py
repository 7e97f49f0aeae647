"""The compose demo, built and running once for all tests; nothing of it is left when they are over.

    build/venv-tests/bin/python -m pytest tests/docker

Needs a Docker engine and Compose (v2, or docker-compose 1.29), and the image debian:trixie-slim or root to make it. The
images are tagged `test`: those of somebody's own demo stay what they are, and the next run finds its layers.
"""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from compose import Compose, compose_command

# What an nginx that is restarted, and whose backend is killed, may have to say.
EXPECTED_ERRORS = ("connect() to unix:/run/ws-handoff/backend.sock failed",)


def pytest_configure(config):
    # A test run that is told to end (a time limit, say) leaves no containers behind: as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def images():
    """Builds the images; all of a later run's layers come from the cache."""
    if missing := compose_command().missing:
        pytest.fail(missing, pytrace=False)
    base = subprocess.run([Path(__file__).with_name("base-image.sh")], stderr=subprocess.PIPE, text=True)
    if base.returncode != 0:
        pytest.fail(base.stderr, pytrace=False)
    compose = Compose("build")
    compose.run("build", timeout=1800)


@pytest.fixture(scope="session")
def demo(images):
    """The running demo."""
    with Compose("demo") as compose:
        compose.up()
        yield compose
        complaints = unexpected_lines(compose.logs("nginx"))
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def fresh_nginx(demo):
    """nginx with new workers: memory that other tests' connections took stays with a process, to be used again."""
    demo.run("restart", "nginx")
    demo.wait_healthy("nginx")


def unexpected_lines(log):
    """nginx's error log lines above `notice`, except those that the tests provoke."""
    levels = ("[warn]", "[error]", "[crit]", "[alert]", "[emerg]")
    return [
        line
        for line in log.splitlines()
        if any(level in line for level in levels) and not any(text in line for text in EXPECTED_ERRORS)
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails shows what the containers said."""
    report = yield
    compose = next((value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Compose)), None)
    if report.failed and compose:
        # Without the hundreds of requests that went well.
        lines = [line for line in compose.logs().splitlines() if '" 101 ' not in line and '" 200 ' not in line]
        report.sections.append(("containers", "\n".join(lines[-60:])))
    return report


@pytest.fixture
def figures(demo, record_property):
    """Puts figures that a test measured into the report, and on the terminal with `-s`."""

    def put(**values):
        print(json.dumps(values))
        for name, value in values.items():
            record_property(name, value)

    return put
