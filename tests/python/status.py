"""Reads what ws_handoff_status reports with parsers that share no code with this project.

    status.py FORMAT FILE    prometheus, json or html
"""

import html.parser
import json
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

VOID = {"meta"}


def main() -> None:
    form, path = sys.argv[1:]
    text = Path(path).read_text(encoding="utf-8")
    {"prometheus": prometheus, "json": from_json, "html": from_html}[form](text)


def prometheus(text: str) -> None:
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        if family.type == "histogram":
            check_histogram(family)
        print(f"{family.type} {family.name}")
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                print(f"{sample.name} {json.dumps(sample.labels, sort_keys=True)} {sample.value:g}")


def check_histogram(family) -> None:
    """Buckets grow, end with +Inf, and that is the count."""
    series = {}
    for sample in family.samples:
        rest = {name: value for name, value in sample.labels.items() if name != "le"}
        series.setdefault(json.dumps(rest), []).append(sample)
    assert series
    for samples in series.values():
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
        count = next(s.value for s in samples if s.name.endswith("_count"))
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert buckets[-1] == (float("inf"), count)
        assert any(s.name.endswith("_sum") for s in samples)


def from_json(text: str) -> None:
    status = json.loads(text)
    total = status["total"]
    for upstream in status["upstreams"].values():
        assert upstream.keys() == total.keys()
    for family in ("requests", "failures", "refusals"):
        for name, value in total[family].items():
            parts = (upstream[family].get(name, 0) for upstream in status["upstreams"].values())
            assert value == sum(parts), (family, name)
    print(json.dumps(status, sort_keys=True))


class Page(html.parser.HTMLParser):
    """Every element is closed where it should be, and nothing is loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open = []

    def handle_starttag(self, tag: str, attributes) -> None:
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert all(name in ("lang", "charset", "name", "content", "class") for name, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def from_html(text: str) -> None:
    assert text.startswith("<!DOCTYPE html>\n")
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open, page.open


if __name__ == "__main__":
    main()
