"""What the curves say: comparisons with the baselines, labels to target, and the finding in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from modicum.analysis.curves import labels_to_target, mean_interval, savings
from modicum.analysis.significance import Comparison, Verdict, compare, holm, reach_warning, verdict
from modicum.base.rng import stream
from modicum.report.frame import Block, Cell, Frame

ALPHA = 0.05
TESTS = ("sign_flip", "wilcoxon", "mann_whitney")


@dataclass(frozen=True)
class Contrast:
    """A cell against its baseline, over the seeds that both have.

    kind: ``strategy`` against random with the same method, or ``method`` against full (``Block.reference``) with the
        same strategy.
    corrected: test -> p after Holm's correction over all contrasts of the report.
    """

    kind: Literal["strategy", "method"]
    block: str
    cell: Cell
    baseline: Cell
    result: Comparison
    corrected: Mapping[str, float]
    verdict: Verdict


@dataclass(frozen=True)
class Target:
    """How many labels a cell takes to reach a target.

    labels: read off the mean curve; None where it never gets there.
    at_start: the first round is there already, so that ``labels`` is an upper bound.
    reached: seeds whose own curve gets there. saved: share of labels saved against random; None where unknown.
    """

    cell: Cell
    target: float
    labels: float | None
    at_start: bool
    reached: int
    saved: float | None


def contrasts(frame: Frame) -> tuple[Contrast, ...]:
    """Every comparison on the page: strategies with random first, then methods with full, data set by data set."""
    better = frame.source.greater_is_better
    raw = [_contrast(*pair, greater_is_better=better) for block in frame.blocks for pair in _pairs(block)]
    corrected = {test: holm([getattr(c.result, test) for c in raw]) for test in TESTS}
    return tuple(
        replace(
            contrast,
            corrected={test: float(corrected[test][i]) for test in TESTS},
            verdict=verdict(contrast.result, float(corrected["sign_flip"][i]), alpha=ALPHA),
        )
        for i, contrast in enumerate(raw)
    )


def targets(block: Block, method: str, *, greater_is_better: bool) -> list[Target]:
    """Labels to target for each strategy of a method.

    The target is the mean last value of random with this method; without random, the value that every strategy of
    the method ends at or beyond.
    """
    cells = [cell for cell in block.ordered if cell.method == method]
    passive = block.cells.get((method, block.random or ""))
    worst = min if greater_is_better else max
    target = float(passive.mean[-1]) if passive else worst(float(cell.mean[-1]) for cell in cells)
    if not math.isfinite(target):
        return []
    results = [_target(cell, target, greater_is_better) for cell in cells]
    against = next((t for t in results if t.cell is passive), None)
    if against is None or against.at_start:
        return results
    return [replace(t, saved=savings(t.labels, against.labels)) if t is not against else t for t in results]


def best_cell(block: Block, *, greater_is_better: bool) -> Cell | None:
    """The cell with the best mean area; None where no seed has one."""
    sign = 1 if greater_is_better else -1
    scored = [(sign * mean_interval(cell.auc).mean, cell) for cell in block.ordered]
    scored = [pair for pair in scored if math.isfinite(pair[0])]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def headline(frame: Frame, block: Block, found: tuple[Contrast, ...]) -> str:
    """The block's key finding in one plain sentence."""
    metric, better = frame.metric_name, frame.source.greater_is_better
    best = best_cell(block, greater_is_better=better)
    if best is None:
        return f"On {block.name}, no trial has a complete curve of {metric} yet."
    area = mean_interval(best.auc).mean
    start = f"On {block.name}, {best.method} × {best.strategy} has the "
    start += f"{'highest' if better else 'lowest'} normalised AUC of {metric} ({number(area)})"
    if block.random is None:
        return f"{start}; no random baseline was run, so whether choosing pays is open."
    if block.strategies == (block.random,):
        return f"{start}."
    if best.strategy == block.random:
        if not any(c.kind == "strategy" and c.baseline is best for c in found):
            return f"{start}; {best.method} was run with random alone."
        return f"{start}: with {best.method}, no strategy has a better mean than random."
    own = next((c for c in found if c.kind == "strategy" and c.cell is best), None)
    if own is None:
        return f"{start}; {best.method} was not run with random, so whether choosing pays is open."
    gap = signed(own.result.mean)
    if own.verdict.word == "undecided":
        wins = f", better on {own.result.wins} of {own.result.n} seeds" if own.result.n > 1 else ""
        doubt = f"whether it beats random with the same method ({gap}{wins}) is undecided"
        return f"{start}; {doubt}: {own.verdict.reason}."
    seeds = f"{own.result.n} seeds, corrected {own.verdict.reason}"
    return f"{start} and is {own.verdict.word} than random with the same method ({gap}; {seeds})."


def tally(found: tuple[Contrast, ...]) -> str:
    """How the comparisons with random came out, in one sentence; empty where there are none."""
    words = [contrast.verdict.word for contrast in found if contrast.kind == "strategy"]
    if not words:
        return ""
    return (
        f"Of {len(words)} comparison{'s' * (len(words) != 1)} with random, {words.count('better')} "
        f"came out better, {words.count('worse')} worse and {words.count('undecided')} undecided."
    )


def seed_warnings(frame: Frame, found: tuple[Contrast, ...]) -> list[str]:
    """What the numbers of seeds on the page cannot decide; of several too small numbers, the largest speaks for all."""
    if max(block.most_seeds for block in frame.blocks) == 1:
        return ["There is one seed: no interval can be drawn and no test made, so any difference may be chance."]
    open_ones = [c.result.n for c in found if c.result.n > 1 and c.corrected["sign_flip"] > ALPHA]
    texts = (reach_warning(n, alpha=ALPHA, comparisons=len(open_ones)) for n in sorted(set(open_ones), reverse=True))
    return [text for text in texts if text][:1]


def number(value: float | None) -> str:
    """A metric for people: three decimals, or four significant digits from 10 up; a dash where unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
    return ("0.000" if text == "-0.000" else text).replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign."""
    text = number(value)
    return f"+{text}" if value > 0 and text != "0.000" else text


def _pairs(block: Block) -> list[tuple[Literal["strategy", "method"], Block, Cell, Cell]]:
    """The block's candidates with their baselines."""
    cells = block.cells
    pairs: list[tuple[Literal["strategy", "method"], Block, Cell, Cell]] = []
    for method in block.methods if block.random else ():
        passive = cells.get((method, block.random or ""))
        others = [cells.get((method, s)) for s in block.strategies if s != block.random]
        pairs += [("strategy", block, cell, passive) for cell in others if cell and passive]
    for strategy in block.strategies:
        for method in block.methods:
            cell, reference = cells.get((method, strategy)), cells.get((block.reference(method), strategy))
            if cell and reference and cell is not reference:
                pairs.append(("method", block, cell, reference))
    return pairs


def _contrast(
    kind: Literal["strategy", "method"], block: Block, cell: Cell, baseline: Cell, *, greater_is_better: bool
) -> Contrast:
    ours, theirs = paired_areas(cell, baseline)
    # The generator is named by what is compared, so that the page is the same whatever else is on it.
    rng = stream(0, "report", kind, block.name, cell.method, cell.strategy)
    result = compare(ours, theirs, rng=rng, greater_is_better=greater_is_better)
    return Contrast(kind, block.name, cell, baseline, result, {}, verdict(result, alpha=ALPHA))


def paired_areas(cell: Cell, baseline: Cell) -> tuple[np.ndarray, np.ndarray]:
    """(n,) areas of both under the curves of the seeds that both have."""
    shared = [seed for seed in cell.seeds if seed in baseline.seeds]
    ours, theirs = (one.auc[[one.seeds.index(seed) for seed in shared]] for one in (cell, baseline))
    return ours, theirs


def _target(cell: Cell, target: float, greater_is_better: bool) -> Target:
    def reach(values: np.ndarray) -> float | None:
        return labels_to_target(cell.labels, values, target, increasing=greater_is_better)

    labels = reach(cell.mean)
    return Target(
        cell=cell,
        target=target,
        labels=labels,
        at_start=labels is not None and labels == cell.labels[0],
        reached=sum(reach(values) is not None for values in cell.values),
        saved=None,
    )
