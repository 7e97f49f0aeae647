"""The browser tests, on the compose demo's page."""

import os
import subprocess
import sys

from compose import ROOT


def test_the_page_works_in_a_browser(demo, fresh_nginx):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/browser"],
        cwd=ROOT,
        env={**os.environ, "WS_HANDOFF_DEMO_URL": demo.url},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
