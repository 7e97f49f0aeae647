"""One nginx and its backends, of what `make build` staged, in a directory of their own, and what they hold."""

import contextlib
import ctypes
import fcntl
import os
import resource
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
MODULE = BUILD / "modules/ngx_http_ws_handoff_module.so"

# linux/sched.h, linux/sockios.h, linux/if.h
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


class BenchError(Exception):
    """What keeps a figure from being taken, or makes it worthless."""


@dataclass(frozen=True)
class Usage:
    """User memory (bytes; see `memory`) and open descriptors of a group of processes."""

    memory: int
    descriptors: int


def isolate() -> bool:
    """Moves this process, and those that it starts, to a network of its own; whether it could, which takes root.

    A machine's packet filter and connection tracking (Docker sets them up) would take part in every packet, and limit how
    many connections there are. A new network namespace has none.
    """
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket() as control:
        # netdevice(7): struct ifreq; 127.0.0.0/8 comes with being up.
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return True


class Servers:
    """Both programs, freshly started; a context manager that ends them. nginx hands over to all backends in turn, and
    proxies to the first.

    `port` is where clients connect to. With `tls` they speak TLS there, with a server that has `certificate`.
    """

    # What its configuration is made of: the file, and what that includes where clients speak TLS.
    FILES, TLS_FILES = ["nginx.conf"], ["tls.conf"]

    def __init__(self, directory: Path, engine: str = "parked", backends: int = 1, tls: bool = False):
        self.directory = directory
        self.engine = engine
        self.plain_port, tls_port, *ports = free_ports(2 + 2 * backends)
        self.port = tls_port if tls else self.plain_port
        self.certificate = directory / "cert.pem" if tls else None
        self.admin_ports, self.listen_ports = ports[:backends], ports[backends:]
        self.backend_port = self.listen_ports[0]
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "temp").mkdir(parents=True)
        try:
            for index, admin_port in enumerate(self.admin_ports):
                self._start_backend(index, admin_port)
            if self.certificate:
                make_certificate(self.certificate)
            self._start_nginx()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def nginx(self) -> Usage:
        """Of the master and its workers."""
        master = self._processes["nginx"].pid
        return usage([master, *children(master)])

    def backends(self) -> Usage:
        return usage(self.backend_pids())

    def nginx_workers(self) -> list[int]:
        return children(self._processes["nginx"].pid)

    def backend_pids(self) -> list[int]:
        return [process.pid for name, process in self._processes.items() if name != "nginx"]

    def nginx_connections(self) -> int:
        """Connections that nginx holds, apart from the one that asks."""
        return int(self._get(self.plain_port, "/nginx_status").split()[2]) - 1

    def backend_connections(self) -> int:
        """Connections of all backends."""
        return sum(map(self._connections_of, self.admin_ports))

    def _connections_of(self, admin_port: int) -> int:
        for line in self._get(admin_port, "/metrics").splitlines():
            name, _, value = line.rpartition(" ")
            if name.partition("{")[0] == "websocket_connections_active":
                return int(float(value))
        raise BenchError("the backend's /metrics has no websocket_connections_active")

    def complaints(self) -> list[str]:
        """What nginx logged at warn and above."""
        log = self.directory / "error.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def _start_backend(self, index: int, admin_port: int):
        self._start(
            f"backend{index}",
            [BUILD / "bin/ws-handoff-backend", "--app", "demo", "--engine", self.engine,
             "--socket", f"backend{index}.sock", "--listen", f"127.0.0.1:{self.listen_ports[index]}",
             "--admin", f"127.0.0.1:{admin_port}",
             # Nothing that would end the clients' silence, or the servers' patience with it.
             "--ping-interval", "0", "--idle-timeout", "0", "--drain-timeout", "1"],
            admin_port,
        )  # fmt: skip

    def _start_nginx(self):
        values = {
            "MODULE": MODULE,
            "DESCRIPTORS": hard_limit(),
            "PLAIN_PORT": self.plain_port,
            "TLS_PORT": self.port,
            "BACKEND_PORT": self.backend_port,
            "PEERS": "\n".join(f"        server unix:backend{i}.sock;" for i in range(len(self.admin_ports))),
        }
        files = self.FILES + (self.TLS_FILES if self.certificate else [])
        for file in files:
            configuration = (ROOT / "bench" / file).read_text()
            for name, value in values.items():
                configuration = configuration.replace(f"@{name}@", str(value))
            (self.directory / file).write_text(configuration)
        command = [BUILD / "sbin/nginx", "-p", f"{self.directory}/", "-c", files[0], "-e", "error.log"]
        if os.geteuid() == 0:
            # The workers of nobody could not reach a working copy below /root.
            command += ["-g", "user root;"]
        self._start("nginx", command, self.plain_port)

    def _start(self, name: str, command: list, port: int):
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes[name] = process
        wait_until(
            lambda: process.poll() is not None or listening(port),
            lambda: f"{name} does not listen on port {port}",
        )
        if process.poll() is not None:
            logs = [self.directory / f"{name}.log", self.directory / "error.log"]
            text = "".join(log.read_text(errors="replace") for log in logs if log.exists())
            raise BenchError(f"{name} ended at once, exit status {process.returncode}:\n{text}")

    def _get(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.read().decode()


def make_certificate(path: Path):
    """Of 127.0.0.1, signed by itself, and its key beside it: P-256, whose signatures cost a server least."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-keyout", path.with_suffix(".key"), "-out", path, "-subj", "/CN=bench"]
    # No authority's certificate: clients would not take that for a server's.
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BenchError(f"openssl makes no certificate:\n{run.stderr}")


def usage(pids: list[int]) -> Usage:
    return Usage(sum(map(memory, pids)), sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids))


def memory(pid: int) -> int:
    """Anonymous and shared memory, in bytes: Pss, which does not count the master's pages again in each worker.

    Without mapped files: how a library's pages are shared out depends on who else runs, the clients among them.
    """
    fields = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    try:
        return sum(int(fields[name]) * 1024 for name in ("Pss_Anon:", "Pss_Shmem:"))
    except KeyError as error:
        raise BenchError(f"/proc/PID/smaps_rollup has no {error} on this kernel") from error


def settled(measure) -> Usage:
    """`measure()` once two readings half a second apart agree within 16 KiB."""
    last = measure()
    for _ in range(40):
        time.sleep(0.5)
        now = measure()
        if abs(now.memory - last.memory) <= 16 * 1024 and now.descriptors == last.descriptors:
            return now
        last = now
    raise BenchError("memory does not settle within 20 s")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def hard_limit() -> int:
    """Descriptors that one process may have; no more than nginx should allocate connections for."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65536 if limit == resource.RLIM_INFINITY else min(limit, 65536)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, complaint, seconds: float = 20):
    """Raises what `complaint()` says of the moment when time was up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"after {seconds:.0f} s: {complaint()}")
        time.sleep(0.05)
