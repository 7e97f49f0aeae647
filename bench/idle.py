"""What an idle WebSocket costs nginx and the backend: handed over, and through proxy_pass.

    make bench-idle [CONNECTIONS=15000]
    make bench-tls [CONNECTIONS=15000]        with --tls, and more

Each case gets freshly started servers: nginx with two workers, and a backend. Their memory is read before any client has
come, and at several numbers of connections, each time after every one of them has exchanged a message of 8 KiB (in a room: one
client sends it to all), and all are silent again. Everything is counted that the processes have taken since they were
started: what the first handshakes needed, read buffers, tables that grew. At the end every connection has to exchange
another message, and nginx and the backend have to agree on how many they hold: a figure for connections that were not there is
an error, not a result. Kernel memory (some kilobytes for each socket, whoever owns it) is no part of the figures.

With --tls the clients speak TLS with nginx: handed over, their sessions are the backend's.
"""

import argparse
import sys
import time
from dataclasses import dataclass

from clients import PROCESSES, Clients
from results import DIRECTORY, Target, save
from servers import BenchError, Servers, hard_limit, isolate, settled, wait_until

# Descriptors that a process has besides its connections.
SPARE = 200
MESSAGE = 8192
ROOM = "/rooms/idle"


@dataclass(frozen=True)
class Case:
    """A way, an application, and who serves."""

    name: str
    path: str
    engine: str = "parked"
    is_direct: bool = False
    # What nginx keeps of each connection.
    kept_by_nginx: int = 0
    backends: int = 1


HANDOFF = Case("ws_handoff", "/ws/echo")
HANDOFF_ROOM = Case("ws_handoff, one room", f"/ws{ROOM}")
DIRECT = Case("direct", "/ws/echo", is_direct=True)
PROXY = Case("proxy_pass", "/proxy/echo", kept_by_nginx=1)
TASKS = Case("ws_handoff, tasks", "/ws/echo", engine="tasks")
TASKS_ROOM = Case("ws_handoff, tasks, one room", f"/ws{ROOM}", engine="tasks")
FOUR = Case("ws_handoff, four backends", "/ws/echo", backends=4)

CASES = [HANDOFF, HANDOFF_ROOM, DIRECT, PROXY, TASKS, TASKS_ROOM]
TLS_CASES = [HANDOFF, HANDOFF_ROOM, PROXY]


@dataclass(frozen=True)
class Reading:
    """Memory in bytes, and descriptors, with so many connections."""

    connections: int
    nginx: int
    backends: int
    nginx_descriptors: int

    @staticmethod
    def take(servers: Servers, connections: int) -> "Reading":
        nginx, backends = settled(servers.nginx), settled(servers.backends)
        return Reading(connections, nginx.memory, backends.memory, nginx.descriptors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=15000, help="how many in each case (15000)")
    parser.add_argument("--tls", action="store_true", help="clients speak TLS with nginx (wss)")
    arguments = parser.parse_args()
    count, tls = arguments.connections, arguments.tls
    is_isolated = isolate()
    # For the plot.
    marks = sorted({max(1, count * part // 15) for part in (1, 5, 10, 15)})
    try:
        check_limits(count)
        readings = {case: measure(case, marks, tls) for case in (TLS_CASES if tls else CASES)}
        if not tls:
            readings[FOUR] = measure(FOUR, [FOUR.backends * count], tls)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(readings)
    rows = [
        {"case": case.name, "readings": [vars(reading) for reading in of_case]} for case, of_case in readings.items()
    ]
    name, met = ("idle-tls", tls_targets) if tls else ("idle", targets)
    save(name, is_isolated, {"connections": count, "message": MESSAGE}, {"rows": rows}, met(readings))
    return 0


def check_limits(count: int):
    if count < PROCESSES:
        raise BenchError(f"at least {PROCESSES} connections")
    # Proxied, a connection takes two descriptors of one of the two workers, which share them not quite evenly.
    needed = count + count // 10 + SPARE
    if needed > hard_limit():
        raise BenchError(
            f"{count} connections need {needed} descriptors in a process, the hard limit is {hard_limit()}: "
            f"raise it (ulimit -H -n), or try CONNECTIONS={(hard_limit() - SPARE) * 10 // 11}"
        )


def measure(case: Case, marks: list[int], tls: bool) -> list[Reading]:
    """With none, and at each mark."""
    is_room = case.path.endswith(ROOM)
    with Servers(DIRECTORY / "idle", case.engine, case.backends, tls) as servers:
        port = servers.backend_port if case.is_direct else servers.port
        readings = [Reading.take(servers, 0)]
        started = time.monotonic()
        with Clients(port, case.path, 0, certificate=servers.certificate) as clients:

            def exchange(mark: int):
                agree(servers, mark * case.kept_by_nginx, mark)
                (clients.broadcast if is_room else clients.echo)(MESSAGE)

            for mark in marks:
                clients.open(mark)
                exchange(mark)
                readings.append(Reading.take(servers, mark))
            exchange(marks[-1])
            agree(servers, marks[-1] * case.kept_by_nginx, marks[-1])
        if complaints := servers.complaints():
            raise BenchError(f"{case.name}: nginx logged {len(complaints)} lines, the first: {complaints[0]}")
    print(f"{case.name}: {marks[-1]} after {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    return readings


def agree(servers: Servers, at_nginx: int, at_backends: int):
    """Waits until nginx holds just so many clients, and the backends just so many connections."""
    wait_until(
        lambda: (servers.nginx_connections(), servers.backend_connections()) == (at_nginx, at_backends),
        lambda: f"nginx holds {servers.nginx_connections()} connections and the backends "
        f"{servers.backend_connections()}, not {at_nginx} and {at_backends}",
    )


def targets(readings: dict[Case, list[Reading]]) -> list[Target]:
    found = []
    for case, each in ((HANDOFF, 128), (HANDOFF_ROOM, 256), (FOUR, 128)):
        most, nginx, backends = growth(readings[case])
        name = f"{case.name}, {most.connections}"
        found.append(Target(f"{name}: backend", backends / most.connections, each, False, " B each"))
        found.append(Target(f"{name}: nginx", nginx / 1e6, 1, False, " MB"))
        if case is not FOUR:
            found.append(Target(f"{name}: both", (nginx + backends) / 1e6, 4, False, " MB"))
    return found


def tls_targets(readings: dict[Case, list[Reading]]) -> list[Target]:
    found = []
    for case in (HANDOFF, HANDOFF_ROOM):
        most, nginx, backends = growth(readings[case])
        name = f"wss, {case.name}, {most.connections}"
        found.append(Target(f"{name}: backend", backends / most.connections, 512, False, " B each"))
        found.append(Target(f"{name}: nginx", nginx / 1e6, 2, False, " MB"))
    return found


def growth(readings: list[Reading]) -> tuple[Reading, int, int]:
    """The last reading, and what nginx and the backends have more then than at first."""
    none, most = readings[0], readings[-1]
    return most, most.nginx - none.nginx, most.backends - none.backends


def report(readings: dict[Case, list[Reading]]):
    print("\nuser memory more than before the first client: nginx (master and two workers), and the backends\n")
    titles = ["connections", "nginx", "each", "descriptors", "backends", "each", "both"]
    widths = [13, 13, 11, 13, 13, 11, 13]
    print(f"{'':30}" + "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)))
    for case, (none, *marks) in readings.items():
        for mark in marks:
            nginx, backends = mark.nginx - none.nginx, mark.backends - none.backends
            cells = [
                f"{mark.connections}",
                megabytes(nginx),
                f"{nginx / mark.connections:,.0f} B",
                f"{mark.nginx_descriptors - none.nginx_descriptors}",
                megabytes(backends),
                f"{backends / mark.connections:,.0f} B",
                megabytes(nginx + backends),
            ]
            print(f"{case.name:30}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    print("\nevery connection was open, and exchanged another message, at the end")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
