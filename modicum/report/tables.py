"""The tables on one data set's curves, worded once; ``html`` and ``text`` only set them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modicum.analysis.curves import Interval, mean_interval, ripl
from modicum.base.spec import canonical_json
from modicum.report.findings import TESTS, Contrast, Target, number, paired_areas, signed, targets
from modicum.report.frame import METRIC_NAMES, Block, Cell, Frame, Key, metric_name
from modicum.report.layout import Item, Line, Part, Table, amount, best_of, duration, measured, p_value, spread
from modicum.report.training import events, forgotten, layers, second_look, variability


def parts(frame: Frame, block: Block, found: Sequence[Contrast]) -> list[Part]:
    """All tables of one data set, in reading order; those with nothing to say are left out."""
    mine = [contrast for contrast in found if contrast.block == block.name]
    pieces = [
        _result(frame, block),
        _against_random(block, [c for c in mine if c.kind == "strategy"]),
        _labels_to_target(frame, block),
        _against_full(block, [c for c in mine if c.kind == "method"]),
        variability(frame, block),
        forgotten(block),
        events(block),
        second_look(block),
        layers(block),
        _cost(block),
    ]
    return [piece for piece in pieces if piece]


def curve_table(frame: Frame) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a terminal: the mean metric at each number of labels, and the normalised AUC."""
    several = len(frame.blocks) > 1
    grid = sorted({int(n) for block in frame.blocks for n in block.labels})
    header = [*(["data set"] if several else []), "method", "strategy", *map(str, grid), "AUC"]
    rows = []
    for block in frame.blocks:
        for cell in block.ordered:
            values = dict(zip(block.labels.tolist(), cell.mean.tolist(), strict=True))
            curve = [number(values[n]) if n in values else "" for n in grid]
            start = [block.name] if several else []
            rows.append([*start, cell.method, cell.strategy, *curve, number(mean_interval(cell.auc).mean)])
    return header, rows


def manifest_tables(manifest: Mapping[str, Any]) -> list[Table]:
    """One table for each top-level entry, with nested names joined by dots."""
    loose = {name: value for name, value in manifest.items() if not isinstance(value, Mapping)}
    nested = {name: value for name, value in manifest.items() if isinstance(value, Mapping) and value}
    sections = {**({"general": loose} if loose else {}), **nested}
    return [
        Table(
            caption=str(name).replace("_", " "),
            columns=("", "setting", "value"),
            lines=tuple(Line("", key, (Item(value),)) for key, value in _flat(entries)),
        )
        for name, entries in sections.items()
    ]


def _result(frame: Frame, block: Block) -> Part:
    main, last = frame.source.metric, f"{int(block.labels[-1]):,}"
    finals = {
        name: {_key(c): mean_interval(c.finals[name]) for c in block.ordered}
        for name in frame.source.metrics
        if name == main or name in METRIC_NAMES
    }
    # a data set may lack some: F1 is of two classes, for one
    shown = [name for name, spans in finals.items() if name == main or any(span.n for span in spans.values())]
    areas = {_key(c): mean_interval(c.auc) for c in block.ordered}
    best = {name: best_of(spans.values(), name) for name, spans in finals.items()}
    best_area = best_of(areas.values(), main)
    gains = _ripl(frame, block, areas)
    lines = []
    for cell in block.ordered:
        key = _key(cell)
        items = [measured(finals[main][key], best[main]), measured(areas[key], best_area)]
        items += [Item(number(gains[key]))] if gains else []
        items += [measured(finals[name][key], best[name], interval=False) for name in shown if name != main]
        items += [Item(str(areas[key].n))]
        lines.append(Line(cell.method, cell.strategy, tuple(items), baseline=cell.strategy == block.random))
    columns = ["method", "strategy", f"{frame.metric_name} at {last} labels", "normalised AUC"]
    columns += ["RIPL"] if gains else []
    columns += [f"{metric_name(name)} at {last}" for name in shown if name != main]
    caption = f"{block.name}: {frame.metric_name} with all labels, and the area under its curve"
    notes = ["Mean over seeds with its 95 % t-interval; the best mean of each column is marked."]
    if gains:
        notes.append(
            "RIPL is the share of the room above random that is closed, (AUC − random) / (1 − random), over the seeds "
            "that both have."
        )
    table = Table(caption, (*columns, "seeds"), tuple(lines), tuple(notes))
    return Part("result", "Final metric and area under the curve", "", table)


def _against_random(block: Block, found: Sequence[Contrast]) -> Part | None:
    if not found:
        return None
    lines = tuple(Line(c.cell.method, c.cell.strategy, _tested(c)) for c in found)
    caption = f"{block.name}: each strategy against {block.random}"
    lead = f"Difference of normalised AUC from {block.random} with the same method, seed by seed."
    table = Table(caption, ("method", "strategy", *TEST_COLUMNS), lines, (TEST_NOTE,))
    return Part("random", "Does choosing beat random?", lead, table)


def _against_full(block: Block, found: Sequence[Contrast]) -> Part | None:
    if not found:
        return None
    several = len({c.baseline.method for c in found}) > 1
    lines = tuple(
        Line(c.cell.strategy, c.cell.method, (*([Item(c.baseline.method)] if several else []), *_tested(c)))
        for c in found
    )
    caption = f"{block.name}: each method against {block.full}"
    lead = f"Difference of normalised AUC from {block.full} with the same strategy, seed by seed."
    if several:
        lead += f" What was pretrained, or trained otherwise, is compared with {block.full} of the same kind."
    columns = ("strategy", "method", *(["against"] if several else []), *TEST_COLUMNS)
    table = Table(caption, columns, lines, (TEST_NOTE,))
    return Part("method", "Which method learns best?", lead, table)


TEST_COLUMNS = ("AUC difference", "wins–ties–losses", "sign-flip p", "Wilcoxon p", "Mann–Whitney p", "verdict")
TEST_NOTE = (
    "Mean difference with its 95 % bootstrap (BCa) interval. Two-sided p, and in brackets after Holm's correction over "
    "all comparisons of the report; sign-flip and Wilcoxon are paired by seed (and exact up to 20 of them; "
    "Wilcoxon beyond 13 only without ties), Mann–Whitney is not. The verdict rests on the corrected sign-flip p."
)


def _tested(contrast: Contrast) -> tuple[Item, ...]:
    result = contrast.result
    span = Interval(result.mean, result.low, result.high, result.n)
    tests = [
        Item(p_value(getattr(result, test)), f"({p_value(contrast.corrected[test])})" if result.n > 1 else "")
        for test in TESTS
    ]
    return (
        Item(signed(result.mean), spread(span, signed)),
        Item(f"{result.wins}–{result.ties}–{result.losses}"),
        *tests,
        Item(contrast.verdict.word, f"({contrast.verdict.reason})", contrast.verdict.word),
    )


def _labels_to_target(frame: Frame, block: Block) -> Part | None:
    better = frame.source.greater_is_better
    found = [t for method in block.methods for t in targets(block, method, greater_is_better=better)]
    if not found or len(block.labels) < 2:
        return None
    columns = ("target", "labels", *(["saved"] if block.random else []), "seeds that reach it")
    lines = tuple(_reached(target, block) for target in found)
    if block.random:
        lead = f"The target is what {block.random} ends at with the same method."
    else:
        lead = "Without a random baseline, the target is what every strategy of the method ends at or beyond."
    note = "Read off the mean curve, made monotone, linearly between rounds; ≤ where the first round is there already."
    caption = f"{block.name}: labels needed to reach a target {frame.metric_name}"
    table = Table(caption, ("method", "strategy", *columns), lines, (note,))
    return Part("target", "How many labels are saved?", lead, table)


def _reached(target: Target, block: Block) -> Line:
    labels = "not reached" if target.labels is None else f"{math.ceil(target.labels - 1e-9):,}"
    items = [Item(number(target.target)), Item(("≤ " if target.at_start else "") + labels)]
    if block.random:
        items.append(Item(_saved(target)))
    items.append(Item(f"{target.reached} of {len(target.cell.seeds)}"))
    return Line(target.cell.method, target.cell.strategy, tuple(items), baseline=target.cell.strategy == block.random)


def _saved(target: Target) -> str:
    if target.saved is None:
        return "–"
    text = f"{100 * target.saved:.0f} %".replace("-", "−")
    return ("≥ " if target.at_start else "") + ("0 %" if text == "−0 %" else text)


COSTS = {
    "parameters": "trainable parameters",
    "steps": "steps",
    "fit_seconds": "fitting, s",
    "score_seconds": "scoring, s",
    "select_seconds": "selecting, s",
    "seconds": "total, s",
    "peak_memory_mb": "peak memory, MB",
}


def _cost(block: Block) -> Part | None:
    known = [name for name in COSTS if any(math.isfinite(cell.costs[name]) for cell in block.ordered)]
    if not known:
        return None
    writers = [(name, duration if name.endswith("seconds") else amount) for name in known]
    lines = tuple(
        Line(cell.method, cell.strategy, tuple(Item(write(cell.costs[name])) for name, write in writers))
        for cell in block.ordered
    )
    columns = ("method", "strategy", *(COSTS[name] for name in known))
    note = (
        "Mean over trials of the sum over rounds; memory is the most that was taken since a trial and those "
        "beside it began. What a rule that ends training computes is in no time. Times depend on the machine."
    )
    return Part("cost", "What does it cost?", "", Table(f"{block.name}: cost of a trial", columns, lines, (note,)))


def _key(cell: Cell) -> Key:
    return cell.method, cell.strategy


def _ripl(frame: Frame, block: Block, areas: Mapping[Key, Interval]) -> dict[Key, float]:
    """RIPL of every cell, NaN for random itself; empty where there is no random, or the metric is not bounded by 1."""
    if block.random is None or not frame.source.greater_is_better:
        return {}
    if any((cell.values > 1).any() for cell in block.ordered):
        return {}
    gains = dict.fromkeys(areas, math.nan)
    for method, strategy in areas:
        cell, passive = block.cells[method, strategy], block.cells.get((method, block.random))
        if passive and strategy != block.random:
            gains[method, strategy] = ripl(*(mean_interval(auc).mean for auc in paired_areas(cell, passive)))
    return gains


def _flat(entries: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in entries.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    try:
        return canonical_json(value)
    except (TypeError, ValueError):
        return str(value)
