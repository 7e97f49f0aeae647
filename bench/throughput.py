"""Messages a second, their latency, and what they cost the servers: handed over, direct, and through proxy_pass.

    make bench-throughput [ROUNDS=10]
    make bench-tls [ROUNDS=10]            with --tls, and more

One nginx (two workers) and one backend serve all ways in turn, round by round, so that whatever else the machine does
befalls each of them; figures are medians of the rounds. Each of 100 clients has one message in flight: it sends the next one
when the last has come back, and compares it byte for byte. Clients and servers share the machine's cores, and the
faster of two ways is held up more by the clients, whose own cost is the same: the ratios are those of whole systems. CPU
time is what the kernel's scheduler counted for nginx and the backend together while the messages were counted.

At a steady rate of 10,000 messages a second, whatever comes back, latency is that of servers with time to spare; it counts from
when a message was due.

With 16 messages in flight on each connection, the engine is compared with `--engine tasks`, another backend beside the first.

With --tls the clients speak TLS with nginx: handed over, the backend carries their sessions on; else nginx opens and seals what it
copies.
"""

import argparse
import contextlib
import os
import statistics
import sys
from dataclasses import dataclass

from clients import measure
from results import DIRECTORY, Target, save
from servers import BenchError, Servers, isolate

SIZES = [64, 1024, 16384]
PIPELINED = 16
# Messages in flight of those that are sent at a steady rate: as many as it takes.
PACED = 0
RATE = 10_000


@dataclass(frozen=True)
class Way:
    """A way from a client to a backend."""

    name: str
    path: str
    engine: str = "parked"
    is_direct: bool = False


HANDOFF = Way("ws_handoff", "/ws/echo")
DIRECT = Way("direct", "/ws/echo", is_direct=True)
PROXY = Way("proxy_pass", "/proxy/echo")
PROXY_64K = Way("proxy_pass, 64k", "/proxy-64k/echo")
TASKS = Way("ws_handoff, tasks", "/ws/echo", engine="tasks")

# Way, size, messages in flight.
CASES = [(way, size, 1) for size in SIZES for way in (HANDOFF, DIRECT, PROXY, PROXY_64K)]
CASES += [(way, SIZES[0], PACED) for way in (HANDOFF, DIRECT, PROXY, PROXY_64K)]
CASES += [(way, SIZES[0], PIPELINED) for way in (HANDOFF, DIRECT, PROXY, TASKS)]

TLS_CASES = [(way, size, 1) for size in SIZES for way in (HANDOFF, PROXY, PROXY_64K)]
TLS_CASES += [(way, SIZES[0], depth) for depth in (PACED, PIPELINED) for way in (HANDOFF, PROXY)]

# Of a run, what is kept.
FIGURES = ["per_second", "cpu_us", "nginx_cpu_us", "clients_cpu_us"]
PERCENTILES = ["p50", "p90", "p99", "p99.9", "max"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of all ways (10)")
    parser.add_argument("--seconds", type=float, default=2, help="of each way in a round (2)")
    parser.add_argument("--connections", type=int, default=100, help="clients (100)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of the clients (2)")
    parser.add_argument("--tls", action="store_true", help="clients speak TLS with nginx (wss)")
    arguments = parser.parse_args()
    is_isolated = isolate()
    cases = TLS_CASES if arguments.tls else CASES
    runs = {case: [] for case in cases}
    try:
        with contextlib.ExitStack() as stack:
            servers = {
                engine: stack.enter_context(Servers(DIRECTORY / engine, engine, tls=arguments.tls))
                for engine in dict.fromkeys(way.engine for way, _, _ in cases)
            }
            for turn in range(arguments.rounds):
                print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
                # No way always follows the same other.
                first = turn % len(cases)
                for case in cases[first:] + cases[:first]:
                    runs[case].append(one_run(servers[case[0].engine], *case, arguments))
            for each in servers.values():
                if complaints := each.complaints():
                    raise BenchError("nginx logged:\n  " + "\n  ".join(complaints[:5]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    medians = {case: summary(of_case) for case, of_case in runs.items()}
    report(medians, arguments)
    rows = [
        {"way": way.name, "size": size, "depth": depth, **medians[way, size, depth], "runs": runs[way, size, depth]}
        for way, size, depth in cases
    ]
    name, met = ("throughput-tls", tls_targets) if arguments.tls else ("throughput", targets)
    save(name, is_isolated, vars(arguments), {"rows": rows}, met(medians))
    return 0


def one_run(servers: Servers, way: Way, size: int, depth: int, arguments) -> dict[str, float]:
    nginx, backends = servers.nginx_workers(), servers.backend_pids()
    got = measure(
        servers.backend_port if way.is_direct else servers.port,
        way.path,
        "echo",
        servers.certificate,
        connections=arguments.connections,
        threads=arguments.threads,
        size=size,
        **({"rate": RATE} if depth == PACED else {"depth": depth}),
        seconds=arguments.seconds,
        cpu_of=",".join(map(str, nginx + backends)),
    )
    each = 1e6 / got["messages"]
    return {
        "per_second": got["per_second"],
        "cpu_us": sum(got["cpu_seconds"].values()) * each,
        "nginx_cpu_us": sum(got["cpu_seconds"][str(pid)] for pid in nginx) * each,
        "clients_cpu_us": got["own_cpu_seconds"] * each,
        **{name: got["latency_us"][name] for name in PERCENTILES},
    }


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    medians = {name: statistics.median(run[name] for run in runs) for name in FIGURES + PERCENTILES}
    rates = [run["per_second"] for run in runs]
    return medians | {"lowest": min(rates), "highest": max(rates)}


def targets(medians: dict) -> list[Target]:
    def ratio(*which) -> float:
        return ratio_of(medians, *which)

    small, large = SIZES[0], SIZES[-1]
    return [
        *(Target(f"handed over / direct, {size} B", ratio(HANDOFF, DIRECT, size), 0.95, True, " ×") for size in SIZES),
        Target(f"handed over / proxy_pass, {small} B", ratio(HANDOFF, PROXY, small), 1.7, True, " ×"),
        Target(f"handed over / proxy_pass, {large} B", ratio(HANDOFF, PROXY, large), 4, True, " ×"),
        Target(f"CPU, handed over / proxy_pass, {small} B", ratio(HANDOFF, PROXY, small, 1, "cpu_us"), 0.5, False, " ×"),
        Target(
            f"{PIPELINED} in flight, engine parked / tasks", ratio(HANDOFF, TASKS, small, PIPELINED), 5, True, " ×"
        ),
    ]


def tls_targets(medians: dict) -> list[Target]:
    return [
        Target(f"wss, handed over / proxy_pass, {size} B", ratio_of(medians, HANDOFF, PROXY, size), 1.5, True, " ×")
        for size in SIZES[1:]
    ]


def ratio_of(medians: dict, one: Way, other: Way, size: int, depth: int = 1, figure: str = "per_second") -> float:
    return medians[one, size, depth][figure] / medians[other, size, depth][figure]


def report(medians: dict, arguments):
    print(
        f"\n{arguments.connections} clients, {arguments.seconds:g} s each; medians of {arguments.rounds} rounds"
        " (lowest to highest); CPU: µs of nginx and the backend for a message, and the clients' own\n"
    )
    titles = ["size", "in flight", "messages/s", "", "p50, µs", "p99, µs", "CPU", "nginx's", "clients'"]
    widths = [7, 11, 13, 23, 10, 10, 9, 9, 10]
    print(f"{'':20}" + "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)))
    for (way, size, depth), m in medians.items():
        cells = [
            f"{size}",
            f"{depth}" if depth != PACED else "steady",
            f"{m['per_second']:,.0f}",
            f"({m['lowest']:,.0f} to {m['highest']:,.0f})",
            f"{m['p50']:,.0f}",
            f"{m['p99']:,.0f}",
            f"{m['cpu_us']:.2f}",
            f"{m['nginx_cpu_us']:.2f}",
            f"{m['clients_cpu_us']:.2f}",
        ]
        print(f"{way.name:20}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
