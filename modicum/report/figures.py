"""Learning curves and differences as SVG whose colours belong to the page, so that they are legible in light and dark.

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
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modicum.report.findings import Contrast
from modicum.report.frame import Block, Cell

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


def sheets(block: Block, metric: str, found: Sequence[Contrast]) -> dict[str, list[Sheet]]:
    """The data set's figures, by the key of the part they stand with."""
    by_strategy = {name: _style(i, block.strategies, block.random) for i, name in enumerate(block.strategies)}
    by_method = {name: _style(i, block.methods, None) for i, name in enumerate(block.methods)}
    drawn: list[Sheet] = []
    if len(block.strategies) > 1 or len(block.methods) == 1:
        panels = [(m, [(c.strategy, c) for c in block.ordered if c.method == m]) for m in block.methods]
        drawn.append(_curves(block, metric, panels, by_strategy, "a panel for each method, a line for each strategy"))
    if len(block.methods) > 1:
        across = [(s, [(c.method, c) for c in block.ordered if c.strategy == s]) for s in block.strategies]
        drawn.append(_curves(block, metric, across, by_method, "a panel for each strategy, a line for each method"))
    gaps = [c for c in found if c.block == block.name and c.kind == "strategy" and c.result.n]
    return {"curves": drawn, "random": [_gaps(block, gaps, by_strategy)] if gaps else []}


def _curves(
    block: Block,
    metric: str,
    panels: Sequence[tuple[str, Sequence[tuple[str, Cell]]]],
    styles: Mapping[str, Style],
    layout: str,
) -> Sheet:
    limits = _limits([cell for _, lines in panels for _, cell in lines])
    drawn = []
    for title, lines in panels:
        words = [f"{name} from {cell.mean[0]:.3f} to {cell.mean[-1]:.3f}" for name, cell in lines]
        span = f"{block.labels[0]} to {block.labels[-1]} labels"
        drawn.append(
            Panel(
                title,
                f"{title} on {block.name}: mean {metric} over {span}: {'; '.join(words)}.",
                _curve_svg(lines, styles, metric, limits),
            )
        )
    shade = "; shade: 95\u00a0% interval over seeds" if block.most_seeds > 1 else "; one seed, so no interval"
    caption = f"Mean {metric} against the number of labels, {layout}{shade}."
    return Sheet(caption, tuple(Entry(name, _swatch(style)) for name, style in styles.items()), tuple(drawn))


def _curve_svg(
    lines: Sequence[tuple[str, Cell]], styles: Mapping[str, Style], metric: str, limits: tuple[float, float]
) -> str:
    with _settings():
        figure, axes = _axes(WIDTH, HEIGHT)
        for i, (name, cell) in enumerate(lines):
            style, x, (mean, low, high) = styles[name], cell.labels, cell.band
            if len(x) == 1:  # side by side, because single points on one spot hide one another
                x = x + 0.02 * (i - (len(lines) - 1) / 2)
                axes.vlines(x, low, high, color=style.colour, linewidth=1.2)
            axes.fill_between(x, low, high, color=style.colour, alpha=0.1, linewidth=0)
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
        axes.set_ylim(*limits)
        axes.grid(axis="y")
        grid = lines[0][1].labels
        axes.set_xticks(grid[:: -(-len(grid) // 6)])
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("labels")
        axes.set_title(metric, loc="left", fontsize=8.5, color=MUTED)
        return _svg(figure)


def _limits(cells: Sequence[Cell]) -> tuple[float, float]:
    """Room for every seed's curve; an interval that is wider, as those of two seeds are, runs out of the picture."""
    values = np.concatenate([cell.values.ravel() for cell in cells])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    pad = 0.05 * float(np.ptp(values)) or 0.05
    return float(values.min()) - pad, float(values.max()) + pad


def _gaps(block: Block, found: Sequence[Contrast], styles: Mapping[str, Style]) -> Sheet:
    """Differences of area from random: each seed a dot, the mean a marker, its interval a line."""
    ends = np.concatenate([[*c.result.differences, c.result.low, c.result.high] for c in found])
    reach = 1.08 * float(np.abs(ends[np.isfinite(ends)]).max()) or 1.0
    panels = []
    for method in block.methods:
        mine = [c for c in found if c.cell.method == method]
        if mine:
            words = [f"{c.cell.strategy} {c.result.mean:+.3f}, {c.verdict.word}" for c in mine]
            label = f"{method} on {block.name}: difference of AUC from {block.random}: {'; '.join(words)}."
            panels.append(Panel(method, label, _gap_svg(mine, styles, reach)))
    marks = "Dots are seeds, the marker is their mean and the bar its 95\u00a0% bootstrap interval."
    caption = f"{marks if block.most_seeds > 1 else 'One seed.'} Right of the dashed line is above {block.random}."
    return Sheet(caption, (), tuple(panels))


def _gap_svg(found: Sequence[Contrast], styles: Mapping[str, Style], reach: float) -> str:
    with _settings():
        figure, axes = _axes(WIDTH, 0.62 + 0.27 * len(found))
        for y, contrast in enumerate(found):
            result, style = contrast.result, styles[contrast.cell.strategy]
            axes.plot(
                [result.low, result.high], [y, y], color=style.colour, linewidth=3, alpha=0.4, solid_capstyle="butt"
            )
            axes.plot(result.differences, np.full(result.n, y), ".", color=style.colour, markersize=4.5, alpha=0.65)
            axes.plot(
                [result.mean],
                [y],
                style.marker,
                color=style.colour,
                markersize=7,
                markeredgecolor=PAPER,
                markeredgewidth=0.7,
            )
        axes.axvline(0, color=MUTED, linewidth=0.9, linestyle=DASHED)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_yticks(range(len(found)), [_short(c.cell.strategy) for c in found], color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("AUC difference from random")
        return _svg(figure)


@lru_cache(maxsize=64)
def _swatch(style: Style) -> str:
    with _settings():
        figure = Figure(figsize=(0.46, 0.17))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.plot([0.02, 0.98], [0, 0], color=style.colour, linestyle=style.dash, linewidth=1.8)
        axes.plot([0.5], [0], style.marker, color=style.colour, markersize=6, markeredgecolor=PAPER)
        return _svg(figure)


@contextmanager
def _settings() -> Iterator[None]:
    """matplotlib's defaults and ours, whatever the user's own configuration says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
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
    text = re.sub(r"fill-opacity: 0\.1(?=[;\"])", "fill-opacity: var(--fig-shade, 0.1)", text)
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


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
