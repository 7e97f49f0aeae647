"""Every query of the dashboard, and every alert, is asked of a Prometheus that has scraped the real programs."""

from __future__ import annotations

import math
import re

import pytest
import yaml

from dashboard import DASHBOARD, TARGETS, as_asked
from stack import MONITORING

ALERTS = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def by(prometheus, title: str, label: str) -> dict[str, float]:
    """A panel's figures, by the label that its legend shows."""
    [target] = [target for target in TARGETS if target.panel["title"] == title]
    return {labels[label]: value for labels, value in prometheus.query(as_asked(target.expression))}


def test_every_job_is_scraped(prometheus):
    targets = prometheus.api("targets", state="active")["activeTargets"]
    assert sorted(target["scrapePool"] for target in targets) == sorted(prometheus.jobs)
    for target in targets:
        assert (target["health"], target["lastError"]) == ("up", ""), target["scrapePool"]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_panel_has_data(prometheus, target):
    samples = prometheus.query(as_asked(target.expression))
    assert samples, target.expression
    values = [value for _, value in samples]
    assert all(math.isfinite(value) and value >= 0 for value in values), samples
    if "{{" not in target.legend:
        assert len(samples) == 1, f"several lines with one name: {samples}"
    for labels, _ in samples:
        for label in re.findall(r"{{(\w+)}}", target.legend):
            # Prometheus leaves out a label whose value is empty: an accepted offer has no detail.
            assert labels.get(label) or label == "detail", f"{label} in {labels}"


def test_what_happened_is_what_the_panels_show(prometheus):
    results = by(prometheus, "Handshakes, by result", "result")
    assert set(results) == {"fd", "tls", "tunnel", "refused", "failed"}
    assert all(rate > 0 for rate in results.values()), results

    causes = by(prometheus, "Failures, by cause", "cause")
    assert set(causes) == {"connect", "timeout", "send", "client", "answer", "local", "backend"}
    happened = {cause for cause, rate in causes.items() if rate > 0}
    assert happened == {"connect", "timeout", "send", "client", "answer"}, causes

    sources = by(prometheus, "WebSockets that began, by the way they came", "source")
    assert all(sources[source] > 0 for source in ("handoff", "tunnel", "direct")), sources
    ends = by(prometheus, "WebSockets that ended", "by")
    assert all(ends[end] > 0 for end in ("client", "1009", "lost")), ends
    outcomes = by(prometheus, "Offers at the backend, by outcome", "outcome")
    assert set(outcomes) == {"accepted", "refused", "failed"}


def test_figures_are_of_the_right_size(prometheus):
    def value(title: str, legend: str) -> float:
        [target] = [target for target in TARGETS if (target.panel["title"], target.legend) == (title, legend)]
        [(_, value)] = prometheus.query(as_asked(target.expression))
        return value

    # Twenty stay, and a few come and go.
    assert 20 <= value("WebSockets", "backend") < 40
    assert 0.1 < value("Handshakes that fail", "failed") < 0.9
    median, slowest = (value("Time to answer a handshake", name) for name in ("p50", "p99"))
    # Most are answered at once, one kind after 0.4 s.
    assert 0 < median < 0.25 <= slowest <= 0.5, (median, slowest)
    assert 100_000 < value("nginx's memory", "nginx") < 100_000_000
    assert 1_000_000 < value("Backend's memory", "backend") < 1_000_000_000
    assert 0 < value("Descriptors of the backend", "in use") < 0.5


def test_the_variable_lists_the_upstreams(prometheus):
    [variable] = DASHBOARD["templating"]["list"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
    assert (variable["name"], variable["definition"]) == (label, variable["query"]["query"])
    values = prometheus.api(f"label/{label}/values", **{"match[]": metric})
    assert "websocket_backend" in values and "unix:failing.sock" in values


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_compares_figures_that_exist(prometheus, rule):
    # What is compared, without the comparison: that is empty as long as all is well.
    expression, comparison, threshold = re.fullmatch(r"(.*) (>|==) ([\d.]+)\s*", rule["expr"], re.DOTALL).groups()
    samples = prometheus.query(expression)
    assert samples, expression
    assert any(math.isfinite(value) for _, value in samples), samples
    if comparison == "==":
        assert all(value != float(threshold) for _, value in samples), "all targets are up"


def test_prometheus_evaluates_the_alerts(prometheus):
    groups = prometheus.api("rules", type="alert")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {rule["alert"] for rule in ALERTS}
    for name, rule in rules.items():
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), name
    active = {name for name, rule in rules.items() if rule["state"] != "inactive"}
    # What the traffic does. Nothing is short of descriptors, nobody dies with a socket, and rooms keep up.
    assert active == {"WebSocketsFail", "WebSocketsTunnelled", "WebSocketBackendSlow", "WebSocketBackendLosesClients"}


def test_metrics_have_the_type_that_prometheus_asks_for(stack):
    """Prometheus 3 takes no metrics without a content type that it knows."""
    for path in ("/handoff", "/metrics", "/demo/metrics"):
        content_type, _ = stack.get(path)
        assert content_type.split(";")[0] in ("text/plain", "application/openmetrics-text"), path
