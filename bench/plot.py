"""Charts as SVG, of what report.py gives: lines and grouped bars, readable on a light page and on a dark one."""

from dataclasses import dataclass
from html import escape
from math import log10

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 48, 48
# Apart from each other for those who do not see red or green, and from white and black.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0d8bd9", "#e0731a", "#2f9e73", "#b05fc0", "#8a8f98"

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.tick { font-size: 12px; fill: #59636e; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .tick { fill: #9198a1; }
  .grid { stroke: #3d444d; }
}
"""


@dataclass(frozen=True)
class Series:
    """A name and its values, one for each place on the x axis; `note` follows the name at a line's end."""

    name: str
    colour: str
    values: list[float]
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """From 0 to beyond the largest value; logarithmic: between powers of ten."""

    largest: float
    smallest: float = 0
    is_logarithmic: bool = False

    def ticks(self) -> list[float]:
        if self.is_logarithmic:
            tick = power_below(self.smallest)
            ticks = [tick]
            while ticks[-1] < self.largest:
                ticks.append(ticks[-1] * 10)
            return ticks
        step = power_below(self.largest)
        # Four to eight of them.
        for part in (0.2, 0.25, 0.5, 1):
            if self.largest / (step * part) <= 6:
                step *= part
                break
        else:
            step *= 2
        count = int(self.largest / step + 0.999)
        return [step * i for i in range(count + 1)]

    def place(self, value: float) -> float:
        """0 at the bottom, 1 at the top."""
        ticks = self.ticks()
        if self.is_logarithmic:
            return log10(value / ticks[0]) / log10(ticks[-1] / ticks[0])
        return value / ticks[-1]


def lines(title: str, unit: str, places: list[tuple[float, str]], series: list[Series], is_logarithmic=False) -> str:
    """A line for each; `places` are the values of x with their labels."""
    every = [value for each in series for value in each.values]
    axis = Axis(max(every), min(every), is_logarithmic)
    first, last = places[0][0], places[-1][0]
    xs = [LEFT + (x - first) / (last - first) * plot_width() for x, _ in places]
    out = frame(title, unit, axis)
    for x, (_, label) in zip(xs, places, strict=True):
        out.append(tick_below(x, label))
    ends = []
    for each in series:
        points = [(x, height(axis, value)) for x, value in zip(xs, each.values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline fill="none" stroke="{each.colour}" stroke-width="2.5" points="{path}"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{each.colour}"/>' for x, y in points]
        ends.append((points[-1][1], f"{each.name}{each.note}", each.colour))
    # Names at the lines' ends, apart from each other, none below the axis.
    lowest = HEIGHT - BOTTOM + 4
    for y, text, colour in sorted(ends, reverse=True):
        y = min(y, lowest)
        lowest = y - 18
        out.append(f'<text x="{LEFT + plot_width() + 10}" y="{y + 4:.1f}" style="fill: {colour}">{escape(text)}</text>')
    return document(title, out)


def bars(title: str, unit: str, groups: list[str], series: list[Series], label) -> str:
    """A group of bars for each of `groups`; `label` writes a value above its bar."""
    axis = Axis(max(value for each in series for value in each.values))
    out = frame(title, unit, axis)
    group_width = plot_width() / len(groups)
    bar_width = group_width * 0.84 / len(series)
    for index, group in enumerate(groups):
        left = LEFT + group_width * (index + 0.08)
        out.append(tick_below(LEFT + group_width * (index + 0.5), group))
        for place, each in enumerate(series):
            x, y = left + bar_width * place, height(axis, each.values[index])
            size = f'width="{bar_width - 2:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
            out.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{each.colour}"/>')
            out.append(
                f'<text class="tick" x="{x + bar_width / 2 - 1:.1f}" y="{y - 5:.1f}" text-anchor="middle">'
                f"{escape(label(each.values[index]))}</text>"
            )
    for place, each in enumerate(series):
        x, y = LEFT + plot_width() + 10, TOP + 12 + 20 * place
        out.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{each.colour}"/>')
        out.append(f'<text x="{x + 18}" y="{y + 1}">{escape(each.name)}</text>')
    return document(title, out)


def frame(title: str, unit: str, axis: Axis) -> list[str]:
    out = [
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
        f'<text class="tick" x="{LEFT - 8}" y="{TOP - 8}" text-anchor="end">{escape(unit)}</text>',
    ]
    for tick in axis.ticks():
        y = height(axis, tick)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + plot_width()}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,.10g}</text>')
    return out


def tick_below(x: float, label: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(label)}</text>'


def document(title: str, out: list[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"'
    body = "\n".join(out)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'


def plot_width() -> int:
    return WIDTH - LEFT - RIGHT


def height(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def power_below(value: float) -> float:
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return power
