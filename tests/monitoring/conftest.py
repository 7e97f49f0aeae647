"""One stack, one Prometheus and one stream of traffic for all tests; nothing of them is left when they are over.

    build/venv-tests/bin/python -m pytest tests/monitoring
"""

from __future__ import annotations

import os
import signal

import pytest

from stack import Prometheus, Stack, wait_until
from traffic import Traffic

# Whatever proxy the environment names: everything here is on this machine.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

# Scrapes that every rate needs, and then some: prometheus.yml scrapes each 5 seconds.
SCRAPES = 7


def pytest_configure(config):
    # A test run that is told to end (a time limit, say) leaves nothing running: as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack():
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def prometheus(stack):
    """Has scraped for as long as a dashboard's rates take, while clients came and went and failed; they still do."""
    prometheus = Prometheus(stack)
    with Traffic(stack) as traffic:

        def has_scraped():
            if traffic.error:
                pytest.fail(f"the traffic ended: {traffic.error!r}\n{stack.said()}", pytrace=False)
            counts = prometheus.query("count_over_time(up[10m])")
            return len(counts) == 3 and all(count >= SCRAPES for _, count in counts)

        wait_until(f"{SCRAPES} scrapes", has_scraped, seconds=90)
        yield prometheus
    assert traffic.error is None, traffic.error
    assert traffic.rounds > 5, traffic.rounds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails shows what the processes said."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and stack:
        report.sections.append(("processes", stack.said()))
    return report
