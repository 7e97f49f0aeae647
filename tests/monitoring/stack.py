"""The demo's nginx, backend and helper with their committed configuration, backends that fail, and a Prometheus that
scrapes them: each a process of these tests, on ports of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from os import geteuid
from pathlib import Path

import yaml

from failing import FailingBackend

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
MONITORING = ROOT / "monitoring"
# Where compose.yaml's Prometheus finds nginx.
COMPOSE_TARGET = "demo:8080"
MAX_MESSAGE_SIZE = 65536

# Beside what demo_locations.conf has: a location for each way to fail.
FAILING_LOCATIONS = """
location /fail/ {
    ws_handoff unix:failing.sock;
    ws_handoff_next_upstream off;
    ws_handoff_read_timeout 1s;
}
location /fail/connect { ws_handoff unix:absent.sock; }
location /tunnel/ { ws_handoff 127.0.0.1:TCP_PORT; }
"""

# What demo.conf includes as tls*.conf, and scripts/run.sh writes for TLS_PORT.
TLS = """
listen TLS_ADDRESS ssl;
ssl_certificate cert.pem;
ssl_certificate_key cert.key;
ws_handoff_tls on;
"""


class Stack:
    """Everything that is scraped. Used with `with`, it is gone afterwards."""

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.tls_address = f"127.0.0.1:{free_port()}"
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Stack:
        with self._exit:
            # Short: a socket's path has 107 bytes.
            directory = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="wsm-", dir="/tmp")))
            self.directory = directory
            tcp_port = free_port()
            self._exit.enter_context(FailingBackend(directory / "failing.sock"))
            self.backend = self.start(
                BUILD / "bin/ws-handoff-backend",
                *("--app", "demo", "--socket", "backend.sock", "--admin", "unix:admin.sock"),
                *("--listen", f"127.0.0.1:{tcp_port}", "--max-message-size", str(MAX_MESSAGE_SIZE), "--drain-timeout", "1"),
            )
            self.start(
                BUILD / "bin/ws-handoff-demo",
                *("--listen", "unix:demo.sock", "--target", self.address, "--nginx-pid-file", "nginx.pid"),
            )
            for name in ("backend.sock", "admin.sock", "demo.sock"):
                wait_until(f"{name} is there", (directory / name).exists)
            self.configure_nginx(tcp_port)
            user = ["-g", "user root;"] if geteuid() == 0 else []
            self.start(BUILD / "sbin/nginx", "-p", f"{directory}/", "-c", "nginx.conf", "-e", "error.log", *user)
            wait_until("nginx answers", lambda: answers(f"http://{self.address}/"))
            # From here on __exit__ ends them.
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *_):
        self._exit.close()

    def start(self, program: Path, *arguments: str, directory: Path | None = None) -> subprocess.Popen:
        log = self._exit.enter_context(open(self.directory / f"{program.name}.log", "wb"))
        process = subprocess.Popen(
            [program, *arguments],
            cwd=directory or self.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self._exit.callback(end, process)
        return process

    def configure_nginx(self, tcp_port: int) -> None:
        """demo.conf, with another port and places, and the locations that fail."""
        text = (ROOT / "nginx/demo.conf").read_text()
        for old, new in (
            ("../modules/", f"{BUILD}/modules/"),
            ("127.0.0.1:8080", self.address),
            ("../../demo;", f"{ROOT}/demo;"),
            ("include demo_locations.conf;", "include demo_locations.conf;\ninclude failing_locations.conf;"),
        ):
            assert text.count(old) == 1, f"{old} in nginx/demo.conf"
            text = text.replace(old, new)
        (self.directory / "temp").mkdir()
        (self.directory / "nginx.conf").write_text(text)
        (self.directory / "tls.conf").write_text(TLS.replace("TLS_ADDRESS", self.tls_address))
        sign_certificate(self.directory)
        (self.directory / "failing_locations.conf").write_text(FAILING_LOCATIONS.replace("TCP_PORT", str(tcp_port)))
        shutil.copy(ROOT / "nginx/demo_locations.conf", self.directory)

    @property
    def certificate(self) -> Path:
        return self.directory / "cert.pem"

    def get(self, path: str) -> tuple[str, str]:
        """Content type and body."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as response:
            return response.headers["Content-Type"], response.read().decode()

    def said(self) -> str:
        """The end of each log."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]) for log in logs)


class Prometheus:
    """A Prometheus with monitoring/prometheus.yml and alerts.yml, which scrapes the stack."""

    def __init__(self, stack: Stack):
        directory = stack.directory / "prometheus"
        directory.mkdir()
        text = (MONITORING / "prometheus.yml").read_text()
        assert text.count(COMPOSE_TARGET) == 3
        (directory / "prometheus.yml").write_text(text.replace(COMPOSE_TARGET, stack.address))
        shutil.copy(MONITORING / "alerts.yml", directory)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.jobs = [job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]]
        self.process = stack.start(
            BUILD / "promtool/prometheus",
            "--config.file=prometheus.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.path=data",
            directory=directory,
        )
        wait_until("Prometheus is ready", lambda: answers(f"{self.url}/-/ready"))

    def api(self, path: str, **parameters: str):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict, float]]:
        """Labels and values of an instant query's result."""
        result = self.api("query", query=expression)
        assert result["resultType"] == "vector", expression
        return [(sample["metric"], float(sample["value"][1])) for sample in result["result"]]


def sign_certificate(directory: Path) -> None:
    """cert.pem and cert.key, for 127.0.0.1, signed by itself."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -keyout cert.key -out cert.pem"
    subprocess.run(
        [*command.split(), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=directory,
        check=True,
        stderr=subprocess.DEVNULL,
    )


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(what: str, is_so, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
