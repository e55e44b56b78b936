"""Figures on how models came out of training: forgetting as stacked bars, data maps, CKA as heat maps and differences.

Importing this module loads matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from modicum.base.rng import stream
from modicum.report.drawing import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    WIDTH,
    Entry,
    Panel,
    Series,
    Sheet,
    Style,
    legend,
    line_svg,
    new_axes,
    points_svg,
    room_for,
    settings,
    shortened,
    svg_of,
    tile,
)
from modicum.report.findings import number, signed
from modicum.report.frame import Block, Cell, band_over_seeds
from modicum.report.layout import percent
from modicum.report.training import Example, averaged, last_shares, last_similar, of_one_strategy, similarity

SEGMENTS = {
    "unforgettable": PALETTE[0],
    "forgotten sometimes": PALETTE[5],
    "forgotten often": PALETTE[1],
    "never learned": MUTED,
}
"""Disjoint kinds of labelled examples, which add up to all of them."""
STEPS = {
    "right in 75\u00a0% of its epochs or more": PALETTE[0],
    "50 to 75\u00a0%": PALETTE[6],
    "25 to 50\u00a0%": PALETTE[3],
    "under 25\u00a0%": PALETTE[1],
}
"""Correctness by quarters, the best first and so beneath the others."""
MOST_POINTS = 1500
"""Points of a data map: more make a page heavy and hide one another."""
STRONGEST = 0.7
"""Opacity of the furthest move: numbers on it can still be read."""


def forgotten_sheets(block: Block) -> list[Sheet]:
    """What was forgotten: a panel for each strategy and a bar for each method, or of one method, for each strategy."""
    cells = [cell for cell in block.ordered if np.isfinite(last_shares(cell)).all(axis=0).any()]
    if not cells:
        return []
    by_method = len(block.methods) > 1
    panels = []
    for title in block.strategies if by_method else block.methods:
        mine = [cell for cell in cells if title == (cell.strategy if by_method else cell.method)]
        names = [cell.method if by_method else cell.strategy for cell in mine]
        bars = np.array([_segments(cell) for cell in mine])
        if mine:
            words = [
                f"{name} " + ", ".join(f"{percent(share)} {kind}" for share, kind in zip(bar, SEGMENTS, strict=True))
                for name, bar in zip(names, bars.tolist(), strict=True)
            ]
            label = f"{title} on {block.name}: the labelled examples by what training did to them: {'; '.join(words)}."
            panels.append(Panel(title, label, _bar_svg(names, bars)))
    caption = f"The labelled examples of the last round ({int(block.labels[-1]):,} labels), mean over seeds."
    return [Sheet(caption, tuple(Entry(name, tile(colour)) for name, colour in SEGMENTS.items()), tuple(panels))]


def map_sheets(block: Block) -> list[Sheet]:
    """The data map (Swayamdipta et al. 2020): confidence against variability, a panel for each method."""
    strategy, found = of_one_strategy(block)
    if not found:
        return []
    maps = {method: averaged(examples) for method, examples in found.items()}
    right = room_for([np.array([0.0, *(one.variability for own in maps.values() for one in own)])])
    panels = []
    for method, own in maps.items():
        mean = number(float(np.mean([one.confidence for one in own])))
        counts = np.bincount([_step(one) for one in own], minlength=len(STEPS)).tolist()
        words = ", ".join(f"{percent(n / len(own))} {name}" for name, n in zip(STEPS, counts, strict=True))
        label = f"{method} on {block.name}: {len(own):,} labelled examples of mean confidence {mean}: {words}."
        shown = _part_of(own, block.name)
        clouds = [
            (colour, np.array([(one.variability, one.confidence) for one in shown if _step(one) == step]))
            for step, colour in enumerate(STEPS.values())
        ]
        svg = points_svg(clouds, "variability", "confidence", limits=(right, (-0.03, 1.03)))
        panels.append(Panel(method, label, svg))
    most = max(map(len, maps.values()))
    part = f" A panel shows a random but fixed {MOST_POINTS:,} of up to {most:,}." if most > MOST_POINTS else ""
    caption = (
        "Data map: a point for each labelled example of the last round, by mean (confidence) and standard deviation "
        "(variability) of its label's probability over epochs, in the mean of the seeds that trained on it "
        f"(strategy: {strategy}). Top left is easy, right is ambiguous, bottom left is hard or wrongly labelled.{part}"
    )
    entries = tuple(Entry(name, tile(colour)) for name, colour in STEPS.items())
    return [Sheet(caption, entries, tuple(panels))]


def layer_sheets(block: Block, styles: Mapping[str, Style]) -> list[Sheet]:
    """CKA with the pretrained model as heat maps, and its difference from that of full fine-tuning."""
    at = last_similar(block)
    if at is None:
        return []
    drawn = [_heat_maps(block)]
    if block.has_full and len(block.methods) > 1:
        drawn += _differences(block, at, styles)
    return drawn


def _heat_maps(block: Block) -> Sheet:
    """A panel for each method with random, or else the first strategy that has CKA."""
    every = [(cell, _mean_over_seeds(similarity(cell))) for cell in block.ordered]
    every = [(cell, mean) for cell, mean in every if np.isfinite(mean).any()]
    strategy = min((cell.strategy for cell, _ in every), key=block.strategies.index)
    means = [(cell, mean) for cell, mean in every if cell.strategy == strategy]
    least = min(float(np.nanmin(mean)) for _, mean in means)
    floor = min(math.floor(10 * least) / 10, 0.9)
    panels = []
    for cell, mean in means:
        known = np.isfinite(mean).any(axis=1)
        mean, labels = mean[known], block.labels[known]
        words = (
            f"from {number(np.nanmean(mean[0]))} with {labels[0]} to {number(np.nanmean(mean[-1]))} with {labels[-1]}"
        )
        label = f"{cell.method} on {block.name}: CKA with the pretrained model, mean over layers {words} labels."
        panels.append(Panel(cell.method, label, _heat_svg(mean, labels.tolist(), floor)))
    steps = np.linspace(1, floor, 4)
    entries = tuple(Entry(f"CKA {step:.2f}", tile(PALETTE[0], _strength(step, floor))) for step in steps)
    caption = (
        f"CKA of each layer (e: the embeddings) with the pretrained model, by the number of labels, chosen by "
        f"{strategy}; mean over seeds. The stronger the colour, the further the layer has moved."
    )
    return Sheet(caption, entries, tuple(panels))


def _differences(block: Block, at: int, styles: Mapping[str, Style]) -> list[Sheet]:
    """Method minus full, layer by layer, a panel for each strategy; none where no seed has both."""
    lines: dict[str, list[tuple[Series, np.ndarray]]] = {}
    for cell in block.ordered:
        full = block.cells.get((block.reference(cell.method), cell.strategy))
        if full is None or cell is full:
            continue
        gaps = _paired(cell, full, at)
        if np.isfinite(gaps).any():
            series = Series(cell.method, np.arange(gaps.shape[1]), band_over_seeds(gaps))
            lines.setdefault(cell.strategy, []).append((series, gaps))
    if not lines:
        return []
    limits = room_for([np.zeros(1), *(gaps for found in lines.values() for _, gaps in found)])
    panels = []
    for strategy in block.strategies:
        mine = [series for series, _ in lines.get(strategy, [])]
        if mine:
            words = [f"{series.name} {signed(float(np.nanmean(series.band[0])))}" for series in mine]
            label = f"{strategy} on {block.name}: CKA minus that of {block.full}, mean over layers: {'; '.join(words)}."
            ticks = np.arange(len(mine[0].x))[:: -(-len(mine[0].x) // 7)].tolist()
            svg = line_svg(
                mine, styles, "layer (0: embeddings)", "difference of CKA", limits=limits, ticks=ticks, zero=True
            )
            panels.append(Panel(strategy, label, svg))
    shown = {series.name for found in lines.values() for series, _ in found}
    caption = (
        f"CKA with the pretrained model minus that of {block.full}, with {int(block.labels[at]):,} labels, paired by "
        f"seed, both pretrained alike where that was run; shade: 95\u00a0% t-interval. Above the dashed line, a layer "
        f"has stayed closer than under {block.full}."
    )
    return [Sheet(caption, legend({name: style for name, style in styles.items() if name in shown}), tuple(panels))]


def _paired(cell: Cell, full: Cell, at: int) -> np.ndarray:
    """(shared seeds, layers + 1) differences of CKA in one round."""
    shared = [seed for seed in cell.seeds if seed in full.seeds]
    ours = similarity(cell)[[cell.seeds.index(seed) for seed in shared], at]
    theirs = similarity(full)[[full.seeds.index(seed) for seed in shared], at]
    width = min(ours.shape[1], theirs.shape[1])
    return np.asarray(ours[:, :width] - theirs[:, :width])


def _segments(cell: Cell) -> list[float]:
    """Mean shares of ``SEGMENTS`` over the seeds that have all four columns."""
    shares = last_shares(cell)
    unforgettable, forgettable, often, never = shares[:, np.isfinite(shares).all(axis=0)].mean(axis=1).tolist()
    return [unforgettable, forgettable - often, often, never]


def _step(example: Example) -> int:
    """The quarter of ``STEPS`` that its correctness falls in."""
    return 3 - min(3, int(4 * example.correctness))


def _part_of(examples: Sequence[Example], name: str) -> list[Example]:
    """A random part, the same on every page and, of the same number, for every method."""
    if len(examples) <= MOST_POINTS:
        return list(examples)
    chosen = stream(0, "data map", name).choice(len(examples), MOST_POINTS, replace=False)
    return [examples[i] for i in np.sort(chosen)]


def _mean_over_seeds(values: np.ndarray) -> np.ndarray:
    """(m, layers + 1) means of what is known, NaN where nothing is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _strength(cka: float, floor: float) -> float:
    """Opacity that stands for a CKA: a trace for 1, the most for the floor."""
    moved = min(max((1 - cka) / (1 - floor), 0.0), 1.0)
    return round(0.03 + (STRONGEST - 0.03) * moved, 3)


def _heat_svg(mean: np.ndarray, labels: Sequence[int], floor: float) -> str:
    """Layers upwards, labels to the right; with its numbers where there are few."""
    rounds, depth = mean.shape
    with settings():
        figure, axes = new_axes(WIDTH, 0.75 + 0.17 * depth)
        places = [(x, y) for x in range(rounds) for y in range(depth) if math.isfinite(mean[x, y])]
        tiles = PatchCollection([Rectangle((x - 0.5, y - 0.5), 1, 1) for x, y in places])
        tiles.set_facecolor([to_rgba(PALETTE[0], _strength(float(mean[x, y]), floor)) for x, y in places])
        tiles.set_edgecolor(PAPER)
        tiles.set_linewidth(0.7)
        axes.add_collection(tiles)
        if rounds <= 6:
            for x, y in places:
                axes.text(x, y, f"{mean[x, y]:.2f}", ha="center", va="center", fontsize=6.5, color=INK)
        axes.set_xlim(-0.5, rounds - 0.5)
        axes.set_ylim(-0.5, depth - 0.5)
        step = -(-rounds // 6)
        axes.set_xticks(range(0, rounds, step), [f"{n}" for n in labels[::step]])
        axes.set_yticks(range(depth), ["e", *(str(i) for i in range(1, depth))], fontsize=7)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel("labels")
        axes.set_title("layer", loc="left", fontsize=8.5, color=MUTED)
        return svg_of(figure)


def _bar_svg(names: Sequence[str], bars: np.ndarray) -> str:
    """Stacked horizontal bars from 0 to 100 %."""
    with settings():
        figure, axes = new_axes(WIDTH, 0.62 + 0.27 * len(names))
        starts = np.cumsum(bars, axis=1) - bars
        for i, colour in enumerate(SEGMENTS.values()):
            axes.barh(range(len(names)), 100 * bars[:, i], left=100 * starts[:, i], height=0.66, color=colour)
        axes.set_xlim(0, 100)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), [shortened(name) for name in names], color=INK)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("% of the labelled examples")
        return svg_of(figure)
