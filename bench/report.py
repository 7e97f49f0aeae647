"""Writes what the measurements left in build/bench into docs/performance.md, between its markers, and draws the plots.

    make bench-report

A marker is a line `<!-- bench:NAME -->`; what stands between it and `<!-- /bench:NAME -->` is replaced. What was not measured
stays as it is.
"""

import re
import sys
from collections.abc import Callable

import plot
from results import Target, load, number
from servers import ROOT

DOCUMENT = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
MEASUREMENTS = ["throughput", "fanout", "idle", "handshakes", "throughput-tls", "idle-tls", "handshakes-tls"]

SIZES = {64: "64 B", 1024: "1 KiB", 16384: "16 KiB"}
# In the plots of messages.
PLOTTED_WAYS = ["ws_handoff", "direct", "proxy_pass", "proxy_pass, 64k"]
COLOURS = {
    "ws_handoff": plot.BLUE,
    "direct": plot.ORANGE,
    "proxy_pass": plot.GREEN,
    "proxy_pass, 64k": plot.PURPLE,
    "ws_handoff, tasks": plot.GREY,
}
PERCENTILES = ["p50", "p90", "p99", "p99.9"]


def main() -> int:
    results = {name: result for name in MEASUREMENTS if (result := load(name))}
    if not results:
        print("bench: nothing has been measured: make bench", file=sys.stderr)
        return 1
    text = DOCUMENT.read_text()
    text = fill(text, "machine", machines(results))
    text = fill(text, "targets", targets(results))
    writers: dict[str, Callable[[dict], str]] = {
        "throughput": throughput,
        "fanout": fanout,
        "idle": idle,
        "handshakes": handshakes,
        "throughput-tls": throughput,
        "idle-tls": idle,
        "handshakes-tls": handshakes,
    }
    for name, result in results.items():
        text = fill(text, name, writers[name](result))
    DOCUMENT.write_text(text)
    print(DOCUMENT.relative_to(ROOT))
    PLOTS.mkdir(exist_ok=True)
    for name, svg in plots(results):
        (PLOTS / name).write_text(svg)
        print((PLOTS / name).relative_to(ROOT))
    return 0


def fill(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{DOCUMENT} has no markers for {name}")
    return pattern.sub(lambda _: f"{begin}\n{content}\n\n{end}", text)


def machines(results: dict[str, dict]) -> str:
    """One sentence, unless the measurements were taken on several machines or days."""
    by_text: dict[str, list[str]] = {}
    for name, result in results.items():
        by_text.setdefault(machine(result["machine"]), []).append(name)
    if len(by_text) == 1:
        return next(iter(by_text))
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in by_text.items())


def machine(m: dict) -> str:
    kind = " (virtual machine)" if m["virtual"] else ""
    network = "in a network namespace of their own" if m["own_network"] else "in the machine's own network namespace"
    return (
        f"{m['date']}, {m['cores']} cores of {m['cpu']}{kind}, {m['memory'] / 2**30:.0f} GiB, Linux {m['kernel']},"
        f" nginx {m['nginx']}; clients and servers {network}."
    )


def targets(results: dict[str, dict]) -> str:
    rows = []
    for result in results.values():
        for fields in result["targets"]:
            met = fields.pop("met")
            target = Target(**fields)
            verdict = "met" if met else "**missed**"
            rows.append([target.name, f"{number(target.measured)}{target.unit}", target.promised(), verdict])
    return table(["", "measured", "promised", ""], rows)


def throughput(result: dict) -> str:
    p = result["parameters"]
    rows = [
        [
            size_of(row),
            f"`{row['way']}`" if row["way"].startswith(("ws_", "proxy_")) else row["way"],
            f"{row['depth'] or 'steady rate'}",
            f"{row['per_second']:,.0f}",
            f"{row['p50']:,.0f}",
            f"{row['p99']:,.0f}",
            f"{row['cpu_us']:.2f}",
            f"{row['nginx_cpu_us']:.2f}",
        ]
        for row in result["data"]["rows"]
    ]
    head = ["message", "way", "in flight", "messages/s", "p50, µs", "p99, µs", "CPU, µs", "nginx's part"]
    taken = f"{p['connections']} clients, {p['seconds']:g} s each, medians of {p['rounds']} rounds:"
    return f"{taken}\n\n{table(head, rows)}"


def fanout(result: dict) -> str:
    p = result["parameters"]
    rows = [
        [
            f"`--engine {row['engine']}`",
            f"{row['depth']}",
            f"{row['per_second']:,.0f}",
            f"{row['per_core']:,.0f}",
            f"{row['p50'] / 1e3:,.1f}",
            f"{row['p99'] / 1e3:,.1f}",
        ]
        for row in result["data"]["rows"]
    ]
    head = ["", "in flight", "deliveries/s", "per core of the backend", "p50, ms", "p99, ms"]
    taken = f"{p['members']:,} clients in a room, {p['size']} B, medians of {p['rounds']} rounds:"
    return f"{taken}\n\n{table(head, rows)}"


def idle(result: dict) -> str:
    rows = []
    for row in result["data"]["rows"]:
        none, *_, most = row["readings"]
        nginx, backends = most["nginx"] - none["nginx"], most["backends"] - none["backends"]
        rows.append(
            [
                f"`{row['case']}`" if "," not in row["case"] and row["case"] != "direct" else row["case"],
                f"{most['connections']:,}",
                f"{nginx / 1e6:,.2f} MB",
                f"{nginx / most['connections']:,.0f} B",
                f"{most['nginx_descriptors'] - none['nginx_descriptors']:,}",
                f"{backends / 1e6:,.2f} MB",
                f"{backends / most['connections']:,.0f} B",
            ]
        )
    return table(["", "connections", "nginx", "each", "descriptors", "backend", "each"], rows)


def handshakes(result: dict) -> str:
    p = result["parameters"]
    columns = ["nginx_open", "both_open", "nginx_whole", "both_whole"]
    rows = [
        [row["way"], *(f"{1e6 * row[column]:.0f}" for column in columns), f"{row['rate']:,.0f}", f"{row['visits']:,.0f}"]
        for row in result["data"]["rows"]
    ]
    head = [
        "",
        "nginx, open",
        "nginx + backend, open",
        "nginx, open and close",
        "nginx + backend, open and close",
        "opened a second",
        "came and went a second",
    ]
    taken = f"{p['connections']:,} connections each way, medians of {p['rounds']} rounds, microseconds of CPU a connection:"
    return f"{taken}\n\n{table(head, rows)}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """All but the first column are figures, in most rows."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def plots(results: dict[str, dict]):
    if result := results.get("idle"):
        yield "memory.svg", memory_plot(result)
    if result := results.get("throughput"):
        yield "throughput.svg", throughput_plot(result)
        yield "latency.svg", latency_plot(result)


def memory_plot(result: dict) -> str:
    series, places = [], []
    for row in result["data"]["rows"]:
        none, *marks = row["readings"]
        if row["case"] not in COLOURS:
            continue
        grown = [(mark["nginx"] + mark["backends"] - none["nginx"] - none["backends"]) / 1e6 for mark in marks]
        places = [(0, "0")] + [(mark["connections"], f"{mark['connections']:,}") for mark in marks]
        series.append(plot.Series(row["case"], COLOURS[row["case"]], [0, *grown], f": {grown[-1]:,.1f} MB"))
    return plot.lines("Memory of nginx and the backend, against idle connections", "MB", places, series)


def throughput_plot(result: dict) -> str:
    rows = {(row["way"], row["size"]): row for row in result["data"]["rows"] if row["depth"] == 1}
    series = [
        plot.Series(way, COLOURS[way], [rows[way, size]["per_second"] / 1e3 for size in SIZES]) for way in PLOTTED_WAYS
    ]
    title = "Thousands of messages a second, by size"
    return plot.bars(title, "1,000/s", list(SIZES.values()), series, lambda value: f"{value:.0f}")


def latency_plot(result: dict) -> str:
    rows = {row["way"]: row for row in result["data"]["rows"] if row["depth"] == 0}
    series = [plot.Series(way, COLOURS[way], [rows[way][name] / 1e3 for name in PERCENTILES]) for way in PLOTTED_WAYS]
    places = [(float(place), name) for place, name in enumerate(PERCENTILES)]
    title = "Latency of 64-byte messages, 10,000 a second"
    return plot.lines(title, "ms", places, series, is_logarithmic=True)


def size_of(row: dict) -> str:
    return SIZES.get(row["size"], f"{row['size']} B")


if __name__ == "__main__":
    sys.exit(main())
