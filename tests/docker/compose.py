"""Runs compose.yaml under a project name and on a port of its own, and removes all of it at the end."""

import functools
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SERVICES = ("demo", "backend", "nginx")


class ComposeCommand(NamedTuple):
    words: list[str]
    missing: str | None


@functools.cache
def compose_command() -> ComposeCommand:
    """Compose v2 where there is one, else docker-compose; and what has to be installed, if anything."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if runs(*words, "version"):
            break
    else:
        return ComposeCommand([], "neither `docker compose` nor `docker-compose` is installed: apt install docker-compose")
    if not runs("docker", "version"):
        return ComposeCommand(
            words,
            "no Docker engine answers `docker version`: apt install docker.io, start it (systemctl start docker), and be"
            " root or in the group docker",
        )
    return ComposeCommand(words, None)


def runs(*command) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Compose:
    """A project: used with `with`, it is gone afterwards, volumes included."""

    def __init__(self, purpose: str):
        self.project = f"ws-handoff-{purpose}-{os.getpid()}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.address = f"127.0.0.1:{self.port}"
        # Beside what `run` sets.
        self.environment: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "10")

    def run(self, *arguments: str, timeout: float = 180) -> str:
        """A Compose command; what it prints."""
        environment = {
            **os.environ,
            "PORT": str(self.port),
            "TAG": "test",
            "COMPOSE_PROJECT_NAME": self.project,
            # docker-compose 1.29 asks the engine itself: the same builder whatever else is installed.
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            **self.environment,
        }
        command = [*compose_command().words, "--file", str(ROOT / "compose.yaml"), *arguments]
        return output(command, timeout=timeout, env=environment, cwd=ROOT)

    def up(self) -> None:
        """Returns when all three are healthy."""
        self.run("up", "--detach", "--no-build")
        for service in SERVICES:
            self.wait_healthy(service)

    def wait_healthy(self, service: str) -> None:
        wait_until(f"{service} is healthy", lambda: self.state(service).get("Health", {}).get("Status") == "healthy")

    def container(self, service: str) -> str:
        """A service's container, running or not."""
        found = self.containers(f"label=com.docker.compose.service={service}")
        assert len(found) == 1, f"{service}: {found}"
        return found[0]

    def containers(self, *filters: str) -> list[str]:
        return self.objects("ps", "--all", *filters)

    def objects(self, *command: str) -> list[str]:
        """The ids of the project's containers (`ps`), networks (`network ls`) or volumes (`volume ls`)."""
        words = [word for word in command if "=" not in word]
        filters = [f"label=com.docker.compose.project={self.project}", *(word for word in command if "=" in word)]
        return docker(*words, "--quiet", *(f"--filter={text}" for text in filters)).split()

    def inspect(self, service: str) -> dict:
        return json.loads(docker("inspect", self.container(service)))[0]

    def state(self, service: str) -> dict:
        return self.inspect(service)["State"]

    def exec(self, service: str, *command: str) -> str:
        return docker("exec", self.container(service), *command)

    def pids(self, service: str) -> list[int]:
        """Its processes, as this machine numbers them."""
        lines = docker("top", self.container(service), "-o", "pid").splitlines()
        return [int(line) for line in lines[1:]]

    def logs(self, *services: str) -> str:
        return self.run("logs", "--no-color", *services)

    def get(self, path: str) -> str:
        return self.request("GET", path)

    def request(self, method: str, path: str, timeout: float = 30) -> str:
        request = urllib.request.Request(self.url + path, method=method, headers={"X-Demo": "1"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code}: {error.read().decode()}") from error

    def metric(self, name: str) -> float:
        """One of the backend's, by way of nginx."""
        values = dict(line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if line[:1] not in ("", "#"))
        return float(values[name])

    def active_connections(self) -> int:
        """nginx's: stub_status counts the connection that asks."""
        return int(self.get("/nginx_status").split()[2])


def docker(*arguments: str) -> str:
    return output(["docker", *arguments], timeout=60)


def output(command: list[str], timeout: float, **options) -> str:
    """What a command prints; if it fails, everything that it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, **options
    )
    said = (done.stdout + done.stderr)[-4000:]
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{said}"
    return done.stdout


def wait_until(what: str, is_so, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
