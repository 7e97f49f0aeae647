"""What an idle WebSocket costs nginx and the backend: handed over, and through proxy_pass.

    make bench [CONNECTIONS=15000]

Each path gets a freshly started nginx (two workers) and backend. Their memory is read with no connection, and with all
of them open and silent. Then every connection has to echo a text, and nginx and the backend have to agree on how many
they hold: a figure for connections that were not there is an error, not a result. Kernel memory (some kilobytes for each
socket, whoever owns it) is no part of the figures.
"""

import argparse
import sys
import time
from dataclasses import dataclass

from clients import Clients
from servers import BUILD, BenchError, Servers, Usage, hard_limit, settled, wait_until

# Descriptors that a process has besides its connections.
SPARE = 200
# Connections opened and closed before the first reading.
WARM_UP = 256


@dataclass(frozen=True)
class Result:
    """One path: what the two held before (`idle`) and with the connections (`loaded`)."""

    name: str
    connections: int
    nginx_idle: Usage
    nginx_loaded: Usage
    backend_idle: Usage
    backend_loaded: Usage

    def nginx_growth(self) -> int:
        return self.nginx_loaded.memory - self.nginx_idle.memory

    def backend_growth(self) -> int:
        return self.backend_loaded.memory - self.backend_idle.memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=15000, help="how many on each path (15000)")
    count = parser.parse_args().connections
    try:
        check_limits(count)
        handed_over = measure("ws_handoff", "/ws/echo", count, kept_by_nginx=0)
        proxied = measure("proxy_pass", "/proxy/echo", count, kept_by_nginx=count)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(handed_over, proxied)
    return 0


def check_limits(count: int):
    if count < 1:
        raise BenchError("at least one connection")
    # Proxied, a connection takes two descriptors of one of the two workers, which share them not quite evenly.
    needed = count + count // 10 + SPARE
    if needed > hard_limit():
        raise BenchError(
            f"{count} connections need {needed} descriptors in a process, the hard limit is {hard_limit()}: "
            f"raise it (ulimit -H -n), or try CONNECTIONS={(hard_limit() - SPARE) * 10 // 11}"
        )


def measure(name: str, path: str, count: int, kept_by_nginx: int) -> Result:
    with Servers(BUILD / "bench" / name) as servers:
        # What handshakes leave allocated for the next ones is no open connection's cost.
        with Clients(servers.port, path, WARM_UP) as first:
            first.echo()
        agree(servers, 0, 0)
        nginx_idle, backend_idle = settled(servers.nginx), settled(servers.backend)

        print(f"{name}: opening {count} connections", file=sys.stderr, flush=True)
        started = time.monotonic()
        with Clients(servers.port, path, count) as clients:
            print(f"{name}: open after {time.monotonic() - started:.1f} s, now idle", file=sys.stderr, flush=True)
            agree(servers, kept_by_nginx, count)
            nginx_loaded, backend_loaded = settled(servers.nginx), settled(servers.backend)
            clients.echo()
            agree(servers, kept_by_nginx, count)
        if complaints := servers.complaints():
            raise BenchError(f"{name}: nginx logged {len(complaints)} lines, the first: {complaints[0]}")
    return Result(name, count, nginx_idle, nginx_loaded, backend_idle, backend_loaded)


def agree(servers: Servers, at_nginx: int, at_backend: int):
    """Waits until nginx holds just so many clients, and the backend just so many connections."""
    wait_until(
        lambda: (servers.nginx_connections(), servers.backend_connections()) == (at_nginx, at_backend),
        lambda: f"nginx holds {servers.nginx_connections()} connections and the backend "
        f"{servers.backend_connections()}, not {at_nginx} and {at_backend}",
    )


def report(handed_over: Result, proxied: Result):
    count = handed_over.connections
    print(f"\n{count} idle connections, user memory of nginx (master and two workers) and of the backend\n")
    rows = [("", handed_over.name, proxied.name)]
    for title, figure in (
        ("nginx, none", lambda r: megabytes(r.nginx_idle.memory)),
        (f"nginx, {count}", lambda r: megabytes(r.nginx_loaded.memory)),
        ("  more", lambda r: megabytes(r.nginx_growth())),
        ("  a connection", lambda r: each(r.nginx_growth(), count)),
        ("  descriptors more", lambda r: str(r.nginx_loaded.descriptors - r.nginx_idle.descriptors)),
        ("backend, none", lambda r: megabytes(r.backend_idle.memory)),
        (f"backend, {count}", lambda r: megabytes(r.backend_loaded.memory)),
        ("  more", lambda r: megabytes(r.backend_growth())),
        ("  a connection", lambda r: each(r.backend_growth(), count)),
        ("both, a connection", lambda r: each(r.nginx_growth() + r.backend_growth(), count)),
    ):
        rows.append((title, figure(handed_over), figure(proxied)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for title, *figures in rows:
        cells = "   ".join(text.rjust(width) for text, width in zip(figures, widths[1:], strict=True))
        print(f"  {title.ljust(widths[0])}   {cells}")

    ours = handed_over.nginx_growth() + handed_over.backend_growth()
    theirs = proxied.nginx_growth() + proxied.backend_growth()
    more = [megabytes(result.nginx_growth()) for result in (handed_over, proxied)]
    print(f"\nnginx: {more[0]} more when handed over, {more[1]} more when proxied")
    if ours > 0:
        print(f"both together: proxied costs {theirs / ours:.1f} times what handed over does")
    print(f"every one of {2 * count} connections was open, and echoed, at the end")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def each(size: int, count: int) -> str:
    return f"{size / count:,.0f} B"


if __name__ == "__main__":
    sys.exit(main())
