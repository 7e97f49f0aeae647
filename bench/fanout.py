"""One message to thousands of clients in a room: deliveries a second, and what they cost the backend.

    make bench-fanout [ROUNDS=10]

Handed over, 8,000 clients are in a room, and one of them sends; the next message is sent when fewer than four have not
reached everybody, or when none is under way. Every delivery is compared byte for byte. "Per core" divides by the CPU time that the scheduler counted for
the backend, since the clients, who share the machine, cost about as much as the server.
"""

import argparse
import statistics
import sys

from clients import measure
from results import DIRECTORY, Target, save
from servers import BenchError, Servers, hard_limit, isolate, wait_until

PATH = "/ws/rooms/fan-out"
SIZE = 64
ENGINES = ["parked", "tasks"]
# Messages under way at a time.
DEPTHS = [4, 1]
# Descriptors that the clients' process has besides its connections.
SPARE = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of both engines (10)")
    parser.add_argument("--seconds", type=float, default=2, help="of each engine in a round (2)")
    parser.add_argument("--members", type=int, default=8000, help="clients in the room (8000)")
    arguments = parser.parse_args()
    is_isolated = isolate()
    runs = {(engine, depth): [] for engine in ENGINES for depth in DEPTHS}
    try:
        if arguments.members + SPARE > hard_limit():
            raise BenchError(f"{arguments.members} clients are more than ulimit -Hn, {hard_limit()}, permits")
        with Servers(DIRECTORY / "parked") as parked, Servers(DIRECTORY / "tasks", engine="tasks") as tasks:
            for turn in range(arguments.rounds):
                print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
                for depth in DEPTHS:
                    for engine, servers in zip(ENGINES, (parked, tasks), strict=True):
                        runs[engine, depth].append(one_run(servers, depth, arguments))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows = [
        {"engine": engine, "depth": depth, "runs": of_way}
        | {name: statistics.median(run[name] for run in of_way) for name in of_way[0]}
        for (engine, depth), of_way in runs.items()
    ]
    print(f"\na message of {SIZE} B to {arguments.members} clients; medians of {arguments.rounds} rounds\n")
    print(f"{'':10}{'in flight':>12}{'deliveries/s':>16}{'per core of the backend':>26}{'p50, µs':>12}{'p99, µs':>12}")
    for row in rows:
        cells = f"{row['per_second']:>16,.0f}{row['per_core']:>26,.0f}{row['p50']:>12,.0f}{row['p99']:>12,.0f}"
        print(f"{row['engine']:10}{row['depth']:>12}{cells}")
    target = Target(
        f"deliveries/s per core, {arguments.members} clients", rows[0]["per_core"], 200_000, at_least=True
    )
    save("fanout", is_isolated, vars(arguments) | {"size": SIZE}, {"rows": rows}, [target])
    return 0


def one_run(servers: Servers, depth: int, arguments) -> dict[str, float]:
    backends = servers.backend_pids()
    got = measure(
        servers.port,
        PATH,
        "fanout",
        connections=arguments.members,
        size=SIZE,
        depth=depth,
        seconds=arguments.seconds,
        cpu_of=",".join(map(str, backends)),
    )
    wait_until(
        lambda: servers.backend_connections() == 0,
        lambda: f"{servers.backend_connections()} connections stay open",
    )
    return {
        "per_second": got["per_second"],
        "per_core": got["messages"] / sum(got["cpu_seconds"].values()),
        "p50": got["latency_us"]["p50"],
        "p99": got["latency_us"]["p99"],
    }


if __name__ == "__main__":
    sys.exit(main())
