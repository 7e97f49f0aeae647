"""Many WebSocket clients that stay open, in a few processes of ws-handoff-load; and single runs of it that take figures."""

import json
import subprocess
from pathlib import Path

from servers import BUILD, BenchError

LOAD = BUILD / "bin/ws-handoff-load"
PROCESSES = 4
# Handshakes under way at once in each process. What nginx allocates for one is free memory afterwards, but stays its
# own: a larger burst leaves more of it, whatever the number of connections.
CONCURRENCY = 4


class Clients:
    """`count` connections to `path`, open from `__enter__` on, more of them by `open`; idle but for what is asked of them.

    With a `certificate` they speak TLS, with a server that has it.
    """

    def __init__(
        self, port: int, path: str, count: int, concurrency: int = CONCURRENCY, certificate: Path | None = None
    ):
        self.port, self.path, self.count, self.concurrency = port, path, count, concurrency
        self.certificate = certificate
        self._processes: list[subprocess.Popen] = []

    def __enter__(self):
        for index in range(PROCESSES):
            # An address each: one alone has some 28,000 ports for all connections to the same server.
            command = [LOAD, *target(self.port, self.path, f"127.0.1.{index + 1}", self.certificate), "idle"]
            command += ["--concurrency", str(self.concurrency)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._processes.append(subprocess.Popen(command, text=True, bufsize=1, **pipes))
        try:
            self.open(self.count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()

    def open(self, count: int):
        """Opens until there are `count`."""
        self.count = count
        self._tell([f"open {share}" if share else None for share in shares(self.count)])

    def visit(self, count: int):
        """Opens so many more, each of which is closed in order before its process opens the next one."""
        self._tell([f"visit {share}" if share else None for share in shares(count)])

    def echo(self, size: int):
        """Sends a message on every connection and awaits it: an error unless every one is alive."""
        self._tell([f"echo {size}" if share else None for share in shares(self.count)])

    def broadcast(self, size: int):
        """Sends a message to the room in which all are, and awaits it on every connection."""
        self._tell([f"send {size}"] + [None] * (PROCESSES - 1))
        self._tell([f"receive {size}" if share else None for share in shares(self.count)])

    def _tell(self, commands: list[str | None]):
        """A command to each process, all at work at the same time; `None`: nothing."""
        told = [(process, command) for process, command in zip(self._processes, commands, strict=True) if command]
        errors, shown = 0, []
        try:
            for process, command in told:
                process.stdin.write(f"{command}\n")
            for process, command in told:
                line = process.stdout.readline()
                if not line:
                    raise BenchError(f"a client process died of {command!r} at {self.path}")
                answer = json.loads(line)
                errors += answer["errors"]
                shown += answer["first_errors"]
        except BrokenPipeError as error:
            raise BenchError(f"a client process died at {self.path}") from error
        if errors:
            raise BenchError(f"{errors} connections failed at {self.path}:\n  " + "\n  ".join(shown[:5]))


def shares(count: int) -> list[int]:
    """Each process's."""
    return [count // PROCESSES + (i < count % PROCESSES) for i in range(PROCESSES)]


def measure(port: int, path: str, mode: str, certificate: Path | None = None, **options) -> dict:
    """One run of ws-handoff-load; its figures. With a `certificate` over TLS, with a server that has it."""
    command = [LOAD, *target(port, path, "127.0.1.1", certificate), mode]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BenchError(f"{mode} at {path} failed:\n{run.stdout}{run.stderr}")
    return json.loads(run.stdout)


def target(port: int, path: str, source: str, certificate: Path | None) -> list[str]:
    tls = ["--tls", str(certificate)] if certificate else []
    return ["--connect", f"127.0.0.1:{port}", "--path", path, "--source", source, *tls]
