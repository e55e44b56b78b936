"""The two charts of the progress page, as SVG whose colours and fonts are the stylesheet's.

Written by hand: matplotlib takes half a second to import and more memory than the rest of the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 34
ROW = 28
"""Height of one bar with its name."""


def curve(points: Sequence[Mapping[str, Any]]) -> Markup:
    """Quality by number of labels, with its interval: each point has labels, value, low and high, in 0..1."""
    if not points:
        return Markup("")
    most = max(int(point["labels"]) for point in points)
    ticks = _round_ticks(most)
    bottom, top = _limits(points)

    def x(labels: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * labels / max(most, 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom), 1)

    tenths = range(round(10 * bottom), round(10 * top) + 1, 1 if top - bottom < 0.61 else 2)
    steps = [tenth / 10 for tenth in tenths]
    parts = [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="end" x="{}" y="{}">{} %</text>'
        ).format(LEFT, WIDTH - RIGHT, y(step), y(step), LEFT - 8, y(step) + 4, round(100 * step))
        for step in steps
    ]
    parts += [
        Markup('<text class="middle" x="{}" y="{}">{}</text>').format(x(tick), HEIGHT - BOTTOM + 18, f"{tick:,}")
        for tick in ticks
    ]
    band = [(x(p["labels"]), y(p["low"])) for p in points if _finite(p)]
    band += [(x(p["labels"]), y(p["high"])) for p in reversed(points) if _finite(p)]
    line = [(x(p["labels"]), y(p["value"])) for p in points]
    parts.append(Markup('<polygon class="band" points="{}"/>').format(_places(band)))
    parts.append(Markup('<polyline class="line" points="{}"/>').format(_places(line)))
    for point, place in zip(points, line, strict=True):
        words = f"{point['labels']:,} labels: {100 * point['value']:.1f} %"
        parts.append(
            Markup('<circle class="dot" cx="{}" cy="{}" r="3.5"><title>{}</title></circle>').format(*place, words)
        )
    first, last = points[0], points[-1]
    label = (
        f"Learning curve: from {100 * first['value']:.1f} % to {100 * last['value']:.1f} % at {last['labels']:,} labels"
    )
    parts.append(Markup('<text class="middle" x="{}" y="{}">labels</text>').format((LEFT + WIDTH) / 2, HEIGHT - 2))
    return _svg(WIDTH, HEIGHT, label, parts)


def bars(rows: Sequence[tuple[str, int]], what: str) -> Markup:
    """A horizontal bar for each (name, count), with both in words. what: the chart's name for those who hear it."""
    if not rows:
        return Markup("")
    edge = 24 + 7.5 * min(30, max(len(name) for name, _ in rows))
    most, room = max(count for _, count in rows), WIDTH - edge - 60
    parts = []
    for i, (name, count) in enumerate(rows):
        top = i * ROW
        long = round(room * count / most, 1) if most else 0
        shown = name if len(name) <= 30 else f"{name[:29]}…"
        parts.append(
            Markup(
                '<text class="end" x="{}" y="{}"><title>{}</title>{}</text>'
                '<rect class="bar" x="{}" y="{}" width="{}" height="16" rx="2"/><text x="{}" y="{}">{}</text>'
            ).format(
                *(edge - 10, top + 18, name, shown),
                *(edge, top + 5, max(long, 1)),
                *(edge + max(long, 1) + 8, top + 18, f"{count:,}"),
            )
        )
    return _svg(WIDTH, ROW * len(rows), f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in rows), parts)


def _svg(width: int, height: int, label: str, parts: Sequence[Markup]) -> Markup:
    """The element around the parts; its label is what a screen reader says."""
    head = Markup('<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}">').format(width, height, label)
    return Markup("").join([head, *parts, Markup("</svg>")])


def _places(places: Sequence[tuple[float, float]]) -> str:
    """Coordinates as SVG wants them."""
    return " ".join(f"{x},{y}" for x, y in places)


def _finite(point: Mapping[str, Any]) -> bool:
    """Whether the point has an interval."""
    return all(point.get(name) is not None and math.isfinite(point[name]) for name in ("low", "high"))


def _limits(points: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Tenths around all values and intervals, at least four tenths apart, within 0..1."""
    values = [p["value"] for p in points] + [p[name] for p in points if _finite(p) for name in ("low", "high")]
    low, high = math.floor(10 * min(values)), math.ceil(10 * max(values))
    low = max(0, min(low, high - 4))
    if high - low > 6:  # where every second tenth is ruled
        low, high = low - low % 2, high + high % 2
    return low / 10, min(10, max(high, low + 4)) / 10


def _round_ticks(most: int) -> list[int]:
    """From 0 to at most so many labels, in four to eight round steps."""
    if most < 4:
        return list(range(most + 1))
    size = 10 ** math.floor(math.log10(most / 4))
    step = next(size * f for f in (1, 2, 5, 10) if most / (size * f) <= 8)
    return list(range(0, most + 1, int(step)))
