"""The machine that the packages are installed in: one for all tests, which go on from each other in their order.

    build/venv-tests/bin/python -m pytest --exitfirst tests/deb --suite trixie --packages DIR

As root; tests/deb/run.sh builds the packages.
"""

import shutil
import signal
from pathlib import Path

import pytest

from machine import Machine
from packages import Packages


def pytest_addoption(parser):
    parser.addoption("--suite", required=True, help="bookworm or trixie")
    parser.addoption("--packages", required=True, help="a directory with revisions 1 and 2 of both packages")


def pytest_configure(config):
    # A run that is told to end (a time limit, say) leaves no machine behind: as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def packages(pytestconfig) -> Packages:
    return Packages(Path(pytestconfig.getoption("packages")))


@pytest.fixture(scope="session")
def machine(pytestconfig, packages):
    """Booted, with nginx, and with the packages in /root."""
    with Machine(pytestconfig.getoption("suite")) as machine:
        for file in packages.files():
            shutil.copy(file, machine.root / "root")
        # What apt would fetch is in its cache: the machine has no network.
        files = [f"/root/{file.name}" for file in packages.files(revision=1)]
        machine.chroot("apt-get", "install", "-y", "-qq", "--download-only", *files)
        machine.boot()
        yield machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails shows what the machine's services said."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and machine:
        report.sections.append(("journal", machine.journal()))
    return report
