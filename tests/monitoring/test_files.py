"""The committed files: what Prometheus's own checker says, and what Grafana needs of a dashboard."""

from __future__ import annotations

import json
import re
import subprocess

import yaml

from dashboard import DASHBOARD, PANELS, PATH
from stack import BUILD, MONITORING, ROOT


def promtool(*arguments: str) -> None:
    done = subprocess.run([BUILD / "promtool/promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_is_right():
    promtool("check", "config", str(MONITORING / "prometheus.yml"))
    promtool("check", "rules", str(MONITORING / "alerts.yml"))


def test_alerts_fire_when_they_should_and_only_then():
    tests = ROOT / "tests/monitoring/alerts_test.yml"
    promtool("test", "rules", str(tests))
    tested = {case["alertname"] for test in yaml.safe_load(tests.read_text())["tests"] for case in test["alert_rule_test"]}
    rules = [rule for group in alerts()["groups"] for rule in group["rules"]]
    assert tested == {rule["alert"] for rule in rules}
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_the_alerts_of_the_documentation_are_those():
    documented = (ROOT / "docs/status.md").read_text().split("```yaml\n")[2].split("```")[0]
    assert yaml.safe_load(documented)["groups"] == alerts()["groups"][:1]


def alerts() -> dict:
    return yaml.safe_load((MONITORING / "alerts.yml").read_text())


def test_every_panel_asks_the_provisioned_datasource():
    [datasource] = provisioned("datasources/prometheus.yml")["datasources"]
    expected = {"type": datasource["type"], "uid": datasource["uid"]}
    [variable] = DASHBOARD["templating"]["list"]
    assert variable["datasource"] == expected
    for panel in PANELS:
        assert panel["datasource"] == expected, panel["title"]
        assert all(target["datasource"] == expected for target in panel["targets"]), panel["title"]
    interval = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert datasource["jsonData"]["timeInterval"] == interval, "what $__rate_interval follows from"


def test_the_dashboard_is_where_grafana_looks():
    [provider] = provisioned("dashboards/ws-handoff.yml")["providers"]
    volumes = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    [mount] = [volume for volume in volumes if volume["target"] == provider["options"]["path"]]
    assert (ROOT / mount["source"]).resolve() == PATH.parent
    assert len(list(PATH.parent.iterdir())) == 1
    assert re.fullmatch(r"[\w-]{1,40}", DASHBOARD["uid"]) and DASHBOARD["title"]
    assert "id" not in DASHBOARD, "Grafana gives it one"


def provisioned(name: str) -> dict:
    content = yaml.safe_load((MONITORING / "grafana/provisioning" / name).read_text())
    assert content["apiVersion"] == 1
    return content


def test_every_panel_explains_itself():
    for panel in PANELS:
        title = panel["title"]
        assert panel["type"] in ("stat", "timeseries"), title
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert all(target["legendFormat"] for target in panel["targets"]), title
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references), title
    identifiers = [panel["id"] for panel in PANELS]
    assert len(set(identifiers)) == len(identifiers)


def test_panels_do_not_overlap_and_leave_no_gap():
    taken = {}
    for panel in PANELS:
        grid = panel["gridPos"]
        assert grid["x"] >= 0 and grid["x"] + grid["w"] <= 24, panel["title"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in taken, f"{panel['title']} over {taken[x, y]}"
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height


def test_the_dashboard_is_as_it_would_be_written_again():
    assert PATH.read_text() == json.dumps(DASHBOARD, indent=2) + "\n"
