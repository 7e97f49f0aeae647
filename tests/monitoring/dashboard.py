"""What Grafana would ask, from the committed dashboard."""

from __future__ import annotations

import json
from typing import NamedTuple

from stack import MONITORING

PATH = MONITORING / "grafana/dashboards/ws-handoff.json"
DASHBOARD = json.loads(PATH.read_text())
PANELS = DASHBOARD["panels"]

# At a scrape interval of 5 seconds and a range of minutes: four scrapes.
RATE_INTERVAL = "20s"


class Target(NamedTuple):
    panel: dict
    expression: str
    legend: str

    def __str__(self):
        return f"{self.panel['title']}: {self.legend}"


TARGETS = [Target(panel, target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]


def as_asked(expression: str) -> str:
    """With Grafana's variables replaced; all upstreams are chosen."""
    for name, value in (("$__rate_interval", RATE_INTERVAL), ("$upstream", DASHBOARD["templating"]["list"][0]["allValue"])):
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that Grafana would not know: {expression}"
    return expression
