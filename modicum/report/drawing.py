"""What figures are drawn with: SVG whose colours belong to the page, so that they are legible in light and dark.

Every colour is drawn as a placeholder and replaced by a CSS variable with that colour as its fallback; text stays text,
in the page's own font. Importing this module loads matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator, NullLocator

INK, MUTED, RULE, PAPER = "#1b1d21", "#6b7079", "#e2e4e8", "#fefefe"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5509c", "#9a6b00", "#3a8fd0", "#7a4fc4", "#8c2d3f")
"""Okabe & Ito's colours (2008), the pale ones darkened to be seen on white; the page has lighter ones for the dark."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "h", ">", "*")
SOLID, DASHED, DOTTED = "solid", (0, (5, 2.2)), (0, (1.2, 1.5))
VARIABLES = {INK: "fig-ink", MUTED: "fig-muted", RULE: "fig-rule", PAPER: "fig-paper"} | {
    colour: f"fig-{i}" for i, colour in enumerate(PALETTE)
}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "modicum",
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}
WIDTH, HEIGHT = 3.6, 2.55
DOT = 2.4
"""Width in points of a dot in a cloud."""
SHADE = 0.1001
"""Opacity of bands: a placeholder, as the colours are, and so of a value that nothing else has."""


@dataclass(frozen=True)
class Style:
    """How one series looks wherever it appears."""

    colour: str
    dash: Any
    marker: str
    width: float = 1.5


@dataclass(frozen=True)
class Panel:
    """One small picture: its title, what it shows in words, and its SVG."""

    title: str
    label: str
    svg: str


@dataclass(frozen=True)
class Entry:
    """One legend entry: a name and its swatch."""

    name: str
    svg: str


@dataclass(frozen=True)
class Sheet:
    """Panels on the same scales, with their legend and caption."""

    caption: str
    legend: tuple[Entry, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Series:
    """A line: x of (m,) places, and band of (3, m) means and limits, the limits NaN where there are none."""

    name: str
    x: np.ndarray
    band: np.ndarray


def line_svg(
    lines: Sequence[Series],
    styles: Mapping[str, Style],
    axis: str,
    title: str,
    *,
    limits: tuple[float, float] | None = None,
    ticks: Sequence[float] | None = None,
    log: bool = False,
    zero: bool = False,
) -> str:
    """Lines with their bands over one horizontal axis.

    limits: of the vertical axis. ticks: of the horizontal one, by default round numbers. log: whether its scale is.
    zero: whether a line marks 0.
    """
    with settings():
        figure, axes = new_axes(WIDTH, HEIGHT)
        if log:
            axes.set_xscale("log")
        for i, line in enumerate(lines):
            style, x, (mean, low, high) = styles[line.name], line.x, line.band
            if len(x) == 1:  # side by side, because single points on one spot hide one another
                shift = 0.02 * (i - (len(lines) - 1) / 2)
                x = x * 10**shift if log else x + shift
                axes.vlines(x, low, high, color=style.colour, linewidth=1.2)
            axes.fill_between(x, low, high, color=style.colour, alpha=SHADE, linewidth=0)
            axes.plot(
                x,
                mean,
                color=style.colour,
                linestyle=style.dash,
                linewidth=style.width,
                marker=style.marker,
                markersize=4.4,
                markeredgecolor=PAPER,
                markeredgewidth=0.5,
                markevery=max(1, len(x) // 8),
            )
        if zero:
            axes.axhline(0, color=MUTED, linewidth=0.9, linestyle=DASHED)
        if limits:
            axes.set_ylim(*limits)
        axes.grid(axis="y")
        if ticks is None:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        else:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(axis)
        axes.set_title(title, loc="left", fontsize=8.5, color=MUTED)
        return svg_of(figure)


def points_svg(
    clouds: Sequence[tuple[str, np.ndarray]],
    axis: str,
    title: str,
    *,
    limits: tuple[tuple[float, float], tuple[float, float]],
) -> str:
    """Clouds of dots over one another: for each its colour and the (n, 2) places.

    A cloud is one path of strokes without length and with round ends: a mark for each dot takes ten times the bytes.
    """
    with settings():
        figure, axes = new_axes(WIDTH, HEIGHT)
        for colour, places in clouds:
            if len(places):
                path = Path(np.repeat(places, 2, axis=0), [Path.MOVETO, Path.LINETO] * len(places))
                path.should_simplify = False
                axes.add_patch(PathPatch(path, fill=False, edgecolor=colour, linewidth=DOT, capstyle="round"))
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        axes.grid()
        for one in (axes.xaxis, axes.yaxis):
            one.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(axis)
        axes.set_title(title, loc="left", fontsize=8.5, color=MUTED)
        svg = svg_of(figure)
    return re.sub(r"M ([\d.]+) ([\d.]+)\s+L \1 \2\s*", lambda m: f"M{float(m[1]):.1f} {float(m[2]):.1f}h0", svg)


def tile(colour: str, strength: float = 1.0) -> str:
    """A swatch of a filled area; strength: its opacity."""
    with settings():
        figure = Figure(figsize=(0.46, 0.17))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.add_patch(Rectangle((0.05, 0.05), 0.9, 0.9, facecolor=to_rgba(colour, strength), edgecolor=RULE))
        return svg_of(figure)


def room_for(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis with room for all numbers among the values; the unit interval if there are none."""
    every = np.concatenate([np.ravel(array) for array in values])
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0
    pad = 0.05 * float(np.ptp(every)) or 0.05
    return float(every.min()) - pad, float(every.max()) + pad


def legend(styles: Mapping[str, Style]) -> tuple[Entry, ...]:
    """An entry with its swatch for each style."""
    return tuple(Entry(name, swatch(style)) for name, style in styles.items())


def styles_for(names: Sequence[str], baseline: str | None = None) -> dict[str, Style]:
    """How each name looks: the baseline grey and dashed, the others by their position."""
    return {name: _style(i, names, baseline) for i, name in enumerate(names)}


@lru_cache(maxsize=64)
def swatch(style: Style) -> str:
    """A short piece of a line with its marker."""
    with settings():
        figure = Figure(figsize=(0.46, 0.17))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.plot([0.02, 0.98], [0, 0], color=style.colour, linestyle=style.dash, linewidth=1.8)
        axes.plot([0.5], [0], style.marker, color=style.colour, markersize=6, markeredgecolor=PAPER)
        return svg_of(figure)


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's defaults and ours, whatever the user's own configuration says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one set of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    return figure, axes


def svg_of(figure: Figure) -> str:
    """The figure as an element to put into a page: no prologue, no size, font or colour that the page cannot set."""
    buffer = io.BytesIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S)
    head, _, body = text.partition(">")
    text = re.sub(r' (?:width|height|version)="[^"]*"', "", head) + ">" + body
    text = re.sub(r"font-family: [^;\"]*;? ?", "", re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text))
    text = text.replace(f"fill-opacity: {SHADE}", "fill-opacity: var(--fig-shade, 0.1)")
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    return text.strip()


def with_own_ids(svg: str, prefix: str) -> str:
    """The SVG with its ids prefixed, so that many can share a page; ids that nothing refers to are dropped."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}", svg)


def _style(position: int, names: Sequence[str], baseline: str | None) -> Style:
    """Grey and dashed for the baseline; for the others colour and marker by position, dotted from the ninth on."""
    if names[position] == baseline:
        return Style(MUTED, DASHED, MARKERS[0], 1.3)
    i = position - (baseline is not None)
    dash = SOLID if i < len(PALETTE) else DOTTED
    return Style(PALETTE[i % len(PALETTE)], dash, MARKERS[(i + (baseline is not None)) % len(MARKERS)])


def shortened(name: str, most: int = 24) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
