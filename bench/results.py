"""What the measurements leave in build/bench/*.json for report.py, and how they tell of the targets."""

import json
import os
import platform
import re
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from servers import BUILD

DIRECTORY = BUILD / "bench"


@dataclass(frozen=True)
class Target:
    """A figure that the project promises, and what was measured."""

    name: str
    measured: float
    limit: float
    # Else at most.
    at_least: bool
    unit: str = ""

    def is_met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def promised(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.limit)}{self.unit}"


def save(name: str, is_isolated: bool, parameters: dict, data: dict, targets: list[Target]):
    """Writes it, and prints which targets are met."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine() | {"own_network": is_isolated},
        "parameters": parameters,
        "data": data,
        "targets": [asdict(target) | {"met": target.is_met()} for target in targets],
    }
    (DIRECTORY / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if targets:
        print("\ntargets")
        width = max(len(target.name) for target in targets)
        for target in targets:
            verdict = "met" if target.is_met() else "MISSED"
            measured = f"{number(target.measured)}{target.unit}"
            print(f"  {target.name.ljust(width)}   {measured:>12}   {target.promised():>12}   {verdict}")


def load(name: str) -> dict | None:
    path = DIRECTORY / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def number(value: float) -> str:
    """To three digits or so, as much as such figures can be trusted."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def machine() -> dict:
    """What figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    nginx = subprocess.run([BUILD / "sbin/nginx", "-v"], capture_output=True, text=True, check=True)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in cpuinfo,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "nginx": nginx.stderr.strip().rpartition("/")[2],
        "date": time.strftime("%Y-%m-%d"),
    }
