"""What a WebSocket's opening costs in CPU time: handed over, and through proxy_pass.

    make bench-handshakes [ROUNDS=10]
    make bench-tls [ROUNDS=10]            with --tls, and more

One nginx (two workers) and one backend serve all ways in turn, round by round, so that whatever else the machine does
befalls each of them; a second nginx, without the module, proxies to the same backend. CPU time is what the kernel's scheduler counted (first field of /proc/PID/schedstat: user and system,
in nanoseconds), divided by the connections. "open" is up to the last client's 101; "whole" includes what
closing it costs. A handed-over client has left nginx with its 101, a proxied one has that still to come: so rates are taken of
openings alone and of clients that come, say goodbye and go, one after the other. Clients are few at a time, and the same for each way; they share the machine's cores with the servers.

With --tls there is a whole TLS handshake before each opening, with a P-256 certificate; no session is resumed.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from clients import Clients
from proxy import Proxy
from results import DIRECTORY, Target, save
from servers import BenchError, Servers, isolate, wait_until

# Name, path, and what nginx keeps of a connection.
WAYS = [
    ("ws_handoff, keepalive", "/ws-keepalive/echo", 0),
    ("ws_handoff", "/ws/echo", 0),
    ("proxy_pass, Unix socket", "/proxy-unix/echo", 1),
    ("proxy_pass, TCP", "/proxy/echo", 1),
]
# The last of them once more, by an nginx of its own.
WITHOUT = ("proxy_pass, no module", "/proxy/echo", 1)
# Handshakes under way at once, in each of the clients' processes.
CONCURRENCY = 16


@dataclass
class Costs:
    """Of one way: seconds of CPU, and of time, for each connection of a round."""

    nginx_open: list[float] = field(default_factory=list)
    both_open: list[float] = field(default_factory=list)
    nginx_whole: list[float] = field(default_factory=list)
    both_whole: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    visits: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of all ways (10)")
    parser.add_argument("--connections", type=int, default=2000, help="connections of each way in a round (2000)")
    parser.add_argument("--tls", action="store_true", help="clients speak TLS with nginx (wss)")
    arguments = parser.parse_args()
    costs = {name: Costs() for name, _, _ in [*WAYS, WITHOUT]}
    is_isolated = isolate()
    try:
        with Servers(DIRECTORY / "parked", tls=arguments.tls) as servers, Proxy(DIRECTORY / "proxy", servers) as proxy:
            ways = [(servers, way) for way in WAYS] + [(proxy, WITHOUT)]
            # The first round fills caches, heaps and connection tables.
            for turn in range(arguments.rounds + 1):
                for nginx, (name, path, kept) in ways:
                    measured = one_round(nginx, path, kept, arguments.connections)
                    if turn > 0:
                        for which, value in measured.items():
                            getattr(costs[name], which).append(value)
            if complaints := servers.complaints() + proxy.complaints():
                raise BenchError("nginx logged:\n  " + "\n  ".join(complaints[:5]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(costs, arguments)
    rows = [
        {"way": name, "runs": vars(cost)}
        | {column: statistics.median(values) for column, values in vars(cost).items()}
        for name, cost in costs.items()
    ]
    name = "handshakes-tls" if arguments.tls else "handshakes"
    save(name, is_isolated, vars(arguments), {"rows": rows}, tls_targets(costs) if arguments.tls else [])
    return 0


def one_round(servers: Servers, path: str, kept: int, count: int) -> dict[str, float]:
    workers, backends = servers.nginx_workers(), servers.backend_pids()
    before = cpu(workers), cpu(backends)
    with Clients(servers.port, path, 0, CONCURRENCY, servers.certificate) as clients:
        begun = time.monotonic()
        clients.open(count)
        took = time.monotonic() - begun
        wait_until(
            lambda: servers.backend_connections() == count,
            lambda: f"the backend serves {servers.backend_connections()} instead of {count}",
        )
        opened = cpu(workers), cpu(backends)
        if servers.nginx_connections() != count * kept:
            raise BenchError(f"nginx holds {servers.nginx_connections()} connections of {path}, not {count * kept}")
    wait_until(
        lambda: servers.backend_connections() == 0 and servers.nginx_connections() == 0,
        lambda: f"connections of {path} stay open",
    )
    closed = cpu(workers), cpu(backends)
    with Clients(servers.port, path, 0, CONCURRENCY, servers.certificate) as clients:
        begun = time.monotonic()
        clients.visit(count)
        visited = time.monotonic() - begun
    # The next way is not to pay for the last ends.
    wait_until(
        lambda: servers.backend_connections() == 0 and servers.nginx_connections() == 0,
        lambda: f"connections of {path} stay open",
    )
    return {
        "nginx_open": (opened[0] - before[0]) / count,
        "both_open": (sum(opened) - sum(before)) / count,
        "nginx_whole": (closed[0] - before[0]) / count,
        "both_whole": (sum(closed) - sum(before)) / count,
        "rate": count / took,
        "visits": count / visited,
    }


def cpu(pids: list[int]) -> float:
    """Seconds on a CPU of all threads of these processes."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def tls_targets(costs: dict[str, Costs]) -> list[Target]:
    """Of both ways that hand over, against what people have: proxy_pass over TCP, by an nginx without the module."""
    medians = {name: {column: statistics.median(v) for column, v in vars(cost).items()} for name, cost in costs.items()}
    kept, handed, proxied = (medians[name] for name, _, _ in (*WAYS[:2], WITHOUT))
    found = []
    for way, median in (("ws_handoff, keepalive", kept), ("ws_handoff", handed)):
        name = f"wss, {way} / {WITHOUT[0]}"
        found.append(Target(f"{name}: opened a second", median["rate"] / proxied["rate"], 1, True, " ×"))
        found.append(Target(f"{name}: came and went a second", median["visits"] / proxied["visits"], 1, True, " ×"))
        found.append(Target(f"{name}: CPU", median["both_whole"] / proxied["both_whole"], 1, False, " ×"))
    return found


def report(costs: dict[str, Costs], arguments):
    print(
        f"{arguments.rounds} rounds of {arguments.connections} connections each way;"
        " µs of CPU a connection, median of the rounds (lowest to highest)\n"
    )
    columns = ["nginx_open", "both_open", "nginx_whole", "both_whole"]
    titles = ["nginx, open", "nginx + backend, open", "nginx, whole", "nginx + backend, whole"]
    rates = f"{'opened a second':>20}{'came and went':>20}"
    print(f"{'':26}" + "".join(f"{title:>26}" for title in titles) + rates)
    for name, cost in costs.items():
        cells = "".join(f"{spread(getattr(cost, column)):>26}" for column in columns)
        print(f"{name:26}{cells}{statistics.median(cost.rate):>20,.0f}{statistics.median(cost.visits):>20,.0f}")
    base, *others = costs.items()
    print()
    for name, cost in others:
        ratios = "".join(
            f"{statistics.median(getattr(base[1], c)) / statistics.median(getattr(cost, c)):>26.2f}" for c in columns
        )
        rates = "".join(
            f"{statistics.median(getattr(base[1], c)) / statistics.median(getattr(cost, c)):>20.2f}" for c in ("rate", "visits")
        )
        print(f"{'ratio to ' + name:26.26}{ratios}{rates}")


def spread(values: list[float]) -> str:
    low, middle, high = (1e6 * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    sys.exit(main())
