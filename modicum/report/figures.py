"""The figures of the report: learning curves, differences, quality against time and losses of pretraining.

Importing this module loads matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from modicum.report.chapters import Timed, pretrained_name, timed_sets
from modicum.report.drawing import (
    DASHED,
    INK,
    MUTED,
    PAPER,
    WIDTH,
    Panel,
    Series,
    Sheet,
    Style,
    legend,
    line_svg,
    new_axes,
    room_for,
    settings,
    shortened,
    styles_for,
    svg_of,
)
from modicum.report.findings import Contrast, number
from modicum.report.frame import Block, Cell, Frame, band_over_seeds
from modicum.report.training_figures import forgotten_sheets, layer_sheets, map_sheets


def sheets(block: Block, metric: str, found: Sequence[Contrast]) -> dict[str, list[Sheet]]:
    """The data set's figures, by the key of the part they stand with."""
    by_strategy, by_method = styles_for(block.strategies, block.random), styles_for(block.methods)
    drawn: list[Sheet] = []
    if len(block.strategies) > 1 or len(block.methods) == 1:
        panels = [(m, [(c.strategy, c) for c in block.ordered if c.method == m]) for m in block.methods]
        drawn.append(_curves(block, metric, panels, by_strategy, "a panel for each method, a line for each strategy"))
    if len(block.methods) > 1:
        across = [(s, [(c.method, c) for c in block.ordered if c.strategy == s]) for s in block.strategies]
        drawn.append(_curves(block, metric, across, by_method, "a panel for each strategy, a line for each method"))
    gaps = [c for c in found if c.block == block.name and c.kind == "strategy" and c.result.n]
    return {
        "curves": drawn,
        "random": [_gaps(block, gaps, by_strategy)] if gaps else [],
        "forgotten": forgotten_sheets(block),
        "map": map_sheets(block),
        "layers": layer_sheets(block, by_method),
    }


def chapter_sheets(frame: Frame) -> dict[str, dict[str, list[Sheet]]]:
    """The figures beside those of the data sets, by the keys of their chapter and part."""
    losses = frame.source.pretraining
    return {
        "time": {timed.name: [_against_time(timed, frame.metric_name)] for timed in timed_sets(frame)},
        "pretraining": {"pretraining": [_losses(losses)] if losses else []},
    }


def _curves(
    block: Block,
    metric: str,
    panels: Sequence[tuple[str, Sequence[tuple[str, Cell]]]],
    styles: Mapping[str, Style],
    layout: str,
) -> Sheet:
    # An interval that is wider than all curves, as those of two seeds are, runs out of the picture.
    limits = room_for([cell.values for _, lines in panels for _, cell in lines])
    ticks = block.labels[:: -(-len(block.labels) // 6)].tolist()
    drawn = []
    for title, lines in panels:
        words = [f"{name} from {cell.mean[0]:.3f} to {cell.mean[-1]:.3f}" for name, cell in lines]
        span = f"{block.labels[0]} to {block.labels[-1]} labels"
        series = [Series(name, cell.labels, cell.band) for name, cell in lines]
        drawn.append(
            Panel(
                title,
                f"{title} on {block.name}: mean {metric} over {span}: {'; '.join(words)}.",
                line_svg(series, styles, "labels", metric, limits=limits, ticks=ticks),
            )
        )
    shade = "; shade: 95\u00a0% interval over seeds" if block.most_seeds > 1 else "; one seed, so no interval"
    caption = f"Mean {metric} against the number of labels, {layout}{shade}."
    return Sheet(caption, legend(styles), tuple(drawn))


def _against_time(timed: Timed, metric: str) -> Sheet:
    """The main metric over seconds of training, a panel for each strategy and a line for each method."""
    styles = styles_for(timed.methods)
    limits = room_for([values for series in timed.values.values() for values in series])
    panels = []
    for strategy in timed.strategies:
        lines, words = [], []
        for method in timed.methods:
            known = zip(timed.seconds, timed.values.get((method, strategy), ()), strict=False)
            bands = [(seconds, band_over_seeds(values[:, None])) for seconds, values in known if len(values)]
            if bands:
                x, band = np.array([seconds for seconds, _ in bands]), np.hstack([band for _, band in bands])
                lines.append(Series(method, x, band))
                words.append(f"{method} from {number(band[0, 0])} to {number(band[0, -1])}")
        span = f"{timed.seconds[0]:g} to {timed.seconds[-1]:g} seconds of training"
        label = f"{strategy} on {timed.name}: mean {metric} over {span}: {'; '.join(words)}."
        svg = line_svg(lines, styles, "seconds of training", metric, limits=limits, ticks=timed.seconds, log=True)
        panels.append(Panel(strategy, label, svg))
    caption = (
        f"Mean {metric} at {timed.labels:,} labels against the time allowed, on a logarithmic scale; shade: 95\u00a0% "
        "interval over seeds."
    )
    return Sheet(caption, legend(styles), tuple(panels))


def _losses(pretraining: Sequence[Mapping[str, Any]]) -> Sheet:
    """Losses by epoch, a panel for each data set and objective, whose losses have scales of their own."""
    styles = styles_for(list(dict.fromkeys(map(pretrained_name, pretraining))))
    groups: dict[tuple[str, str], list[Series]] = {}
    for entry in pretraining:
        losses = np.array(entry["losses"], dtype=np.float64)
        band = np.stack([losses, np.full(len(losses), np.nan), np.full(len(losses), np.nan)])
        place = (str(entry["dataset"]), str(entry["objective"]))
        groups.setdefault(place, []).append(Series(pretrained_name(entry), np.arange(1.0, len(losses) + 1), band))
    panels = []
    for (dataset, objective), lines in sorted(groups.items(), key=lambda pair: pair[0]):
        lines = [line for line in lines if len(line.x)]
        words = [f"{line.name} from {number(line.band[0, 0])} to {number(line.band[0, -1])}" for line in lines]
        label = f"{objective} on {dataset}: mean loss by epoch: {'; '.join(words)}."
        panels.append(Panel(f"{dataset}, {objective}", label, line_svg(lines, styles, "epoch", "loss")))
    caption = "Mean loss of each epoch of pretraining; losses of different objectives do not compare."
    return Sheet(caption, legend(styles), tuple(panels))


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
    with settings():
        figure, axes = new_axes(WIDTH, 0.62 + 0.27 * len(found))
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
        axes.set_yticks(range(len(found)), [shortened(c.cell.strategy) for c in found], color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("AUC difference from random")
        return svg_of(figure)
