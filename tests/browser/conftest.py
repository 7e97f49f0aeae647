"""The demo, a browser, and the rules that hold in every test: the page fits the window and says nothing on the console."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from page import Page, wait_until

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")

# Whatever proxy the environment names: the demo and the browser's driver are on this machine.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@pytest.fixture(scope="session")
def tls_port() -> int | None:
    """Where the demo speaks TLS, if it is started here."""
    return None if "WS_HANDOFF_DEMO_URL" in os.environ else free_port()


@pytest.fixture(scope="session")
def demo_url(tls_port: int | None) -> Iterator[str]:
    """Where the demo is: at WS_HANDOFF_DEMO_URL, or started here by scripts/run.sh, and ended."""
    if url := os.environ.get("WS_HANDOFF_DEMO_URL"):
        yield url.rstrip("/")
        return
    port = free_port()
    log_path = ROOT / "build" / "browser-demo.log"
    with log_path.open("wb") as log:
        demo = subprocess.Popen(
            [ROOT / "scripts" / "run.sh"],
            env={**os.environ, "PORT": str(port), "TLS_PORT": str(tls_port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: demo.poll() is not None or answers(url), "the demo starts", seconds=30)
        assert demo.poll() is None, f"scripts/run.sh ended ({demo.returncode}):\n{log_path.read_text()}"
        started = processes_of(demo.pid)
        assert {"nginx", "ws-handoff-back", "ws-handoff-demo"} <= set(started.values()), started
        yield url
        assert demo.poll() is None, f"scripts/run.sh ended meanwhile:\n{log_path.read_text()}"
    finally:
        demo.send_signal(signal.SIGTERM)
        demo.wait(timeout=30)
    left = {pid: name for pid, name in started.items() if Path(f"/proc/{pid}").exists()}
    assert not left, f"scripts/run.sh left running: {left}"


@pytest.fixture
def fresh_nginx(demo_url: str) -> None:
    """nginx with new workers: memory that earlier tests' connections took stays with the old ones, to be used again.

    A demo named by WS_HANDOFF_DEMO_URL is left as it is: it must not have served 500 proxied connections before.
    """
    if "WS_HANDOFF_DEMO_URL" in os.environ:
        return
    close_clients(demo_url)
    master = int((ROOT / "build" / "run" / "nginx.pid").read_text())
    old = set(processes_of(master)) - {master}
    os.kill(master, signal.SIGHUP)

    def replaced() -> bool:
        workers = set(processes_of(master)) - {master}
        return len(workers) == len(old) and not workers & old

    wait_until(replaced, "nginx has new workers and the old ones are gone", seconds=30)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    missing = [str(path) for path in (CHROMIUM, CHROMEDRIVER) if not path.exists()]
    if missing:
        pytest.fail(
            f"{' and '.join(missing)} missing: apt-get install chromium chromium-driver", pytrace=False
        )
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.add_argument("--headless=new")
    options.add_argument("--disable-gpu")
    # Containers' /dev/shm is small.
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    # Nothing but the page is fetched.
    options.add_argument("--disable-background-networking")
    options.add_argument("--no-first-run")
    options.add_argument("--no-proxy-server")
    # The demo has signed its certificate itself.
    options.add_argument("--ignore-certificate-errors")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    # Nor is a connection opened before there is a request for it.
    options.add_experimental_option("prefs", {"net.network_prediction_options": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER))) as driver:
        driver.set_page_load_timeout(30)
        driver.set_script_timeout(30)
        yield driver


@pytest.fixture
def page(driver: webdriver.Chrome, demo_url: str) -> Iterator[Page]:
    """The page in a tab of its own, at 1280 pixels; nothing is open when the test begins, nor when it has ended."""
    yield from in_a_tab(driver, demo_url, demo_url)


@pytest.fixture
def secure_page(driver: webdriver.Chrome, demo_url: str, tls_port: int | None) -> Iterator[Page]:
    """The same with TLS."""
    if tls_port is None:
        pytest.skip("the demo at WS_HANDOFF_DEMO_URL has no port with TLS")
    yield from in_a_tab(driver, demo_url, f"https://127.0.0.1:{tls_port}")


def in_a_tab(driver: webdriver.Chrome, demo_url: str, url: str) -> Iterator[Page]:
    close_clients(demo_url)
    before = driver.window_handles
    driver.switch_to.new_window("tab")
    page = Page(driver, url)
    page.resize(1280, 900)
    page.open()
    driver.get_log("browser")
    page.reload()
    yield page
    complaints = page.complaints()
    page.prefer()
    for handle in set(driver.window_handles) - set(before):
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(before[0])
    close_clients(demo_url)
    assert not complaints, complaints


def close_clients(demo_url: str) -> None:
    request = urllib.request.Request(f"{demo_url}/demo/clients", method="DELETE", headers={"X-Demo": "1"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def processes_of(root: int) -> dict[int, str]:
    """Names, by pid, of a process and of everything below it."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            start, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        pid, _, name = start.partition(" (")
        parents[int(pid)], names[int(pid)] = int(rest.split()[1]), name
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: names[pid] for pid in found if pid in names}
