"""The tables on how models came out of training: how much seeds vary, what was forgotten, how far layers moved.

With what is known of each labelled example: how often it was forgotten, and which ones are worth a second look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.analysis.curves import mean_interval
from modicum.analysis.summaries import THIRDS, third_of_layers
from modicum.report.findings import number
from modicum.report.frame import FORGETTING_COLUMNS, Block, Cell, Frame
from modicum.report.layout import Item, Line, Part, Table, measured, percent

EVENTS = ("0 events", "1 event", "2 events", "3 events", "4 or more", "never learned")
SECOND_LOOK = 10
"""Examples whose labels a report asks to check."""


@dataclass(frozen=True)
class Example:
    """A labelled example, by means over the runs that trained on it.

    events: how often it was forgotten. never: the number of runs in which it was never learned.
    """

    id: str
    label: str
    confidence: float
    variability: float
    correctness: float
    events: float
    never: int
    runs: int


def variability(frame: Frame, block: Block) -> Part | None:
    """Standard deviations over seeds at each number of labels; None where no cell has two seeds."""
    if block.most_seeds < 2:
        return None
    levels, unit = _levels(block)
    by_method = len(block.methods) > 1
    lines = []
    for group in block.strategies if by_method else block.methods:
        cells = [cell for cell in block.ordered if group == (cell.strategy if by_method else cell.method)]
        deviations = [_deviations(cell.values) for cell in cells]
        least = _least(deviations) if len(cells) > 1 else []
        for cell, values in zip(cells, deviations, strict=True):
            items = [
                Item(_small(value), mark="best" if math.isfinite(value) and value in least[i : i + 1] else "")
                for i, value in enumerate(values)
            ]
            lines.append(Line(group, cell.method if by_method else cell.strategy, tuple(items)))
    names = ("strategy", "method") if by_method else ("method", "strategy")
    caption = f"{block.name}: standard deviation of {frame.metric_name} over seeds, by {unit}"
    notes = (
        f"The smallest of each column within a {names[0]} is marked. A standard deviation over few seeds is itself "
        "uncertain: over five, its standard error is about a third of it.",
    )
    table = Table(caption, (*names, *levels, *(["mean"] if len(levels) > 1 else [])), tuple(lines), notes)
    return Part("variability", "Variability between seeds", "", table)


def forgotten(block: Block) -> Part | None:
    """Shares of the labelled examples by what training did to them; None where no row has them."""
    cells = [cell for cell in block.ordered if np.isfinite(last_shares(cell)).any()]
    if not cells:
        return None
    lines = []
    for cell in cells:
        items = tuple(measured(mean_interval(values), write=percent) for values in last_shares(cell))
        lines.append(Line(cell.strategy, cell.method, items))
    columns = ("strategy", "method", "unforgettable", "forgettable", "often forgotten", "never learned")
    caption = f"{block.name}: the labelled examples in training with {int(block.labels[-1]):,} labels"
    lead = (
        "An example is forgotten when it was right in one epoch and is wrong in the next. Unforgettable ones were "
        "learned and never forgotten; those forgotten often are counted among the forgettable ones."
    )
    notes = ("Mean over seeds of the share of labelled examples, with its 95 % t-interval.",)
    ordered = sorted(lines, key=lambda line: block.strategies.index(line.group))
    return Part("forgotten", "What is forgotten?", lead, Table(caption, columns, tuple(ordered), notes))


def events(block: Block) -> Part | None:
    """The histogram of forgetting events of each method; None without examples."""
    strategy, found = of_one_strategy(block)
    if not found:
        return None
    lines = []
    for method, examples in found.items():
        kinds: dict[str, list[int]] = {}
        for example in examples:
            learned, often = example["first_learned"] >= 0, min(int(example["forgetting_events"]), 4)
            kinds.setdefault(str(example["seed"]), []).append(often if learned else len(EVENTS) - 1)
        shares = np.mean([np.bincount(own, minlength=len(EVENTS)) / len(own) for own in kinds.values()], axis=0)
        lines.append(Line("", method, tuple(Item(percent(share)) for share in shares.tolist())))
    caption = f"{block.name}: labelled examples by how often they were forgotten (strategy: {strategy})"
    notes = (
        "Mean over seeds of the share of labelled examples in the last round that were forgotten so many times, and of "
        "those that were never right.",
    )
    heading = "" if any(np.isfinite(last_shares(cell)).any() for cell in block.ordered) else "What is forgotten?"
    return Part("events", heading, "", Table(caption, ("", "method", *EVENTS), tuple(lines), notes))


def second_look(block: Block) -> Part | None:
    """The examples of the lowest confidence; None without examples."""
    if not block.examples:
        return None
    found = sorted(averaged(block.examples), key=lambda one: (one.confidence, one.id, one.label))[:SECOND_LOOK]
    lines = []
    for one in found:
        never = f"in {one.never} of {one.runs} run{'s' * (one.runs != 1)}"
        numbers = (number(one.confidence), percent(one.correctness), f"{one.events:.1f}", never)
        lines.append(Line("", one.id, (Item(one.label), *map(Item, numbers))))
    columns = ("", "id", "label", "confidence", "correctness", "times forgotten", "never learned")
    lead = (
        "Confidence is the probability that a model in training gave to an example's label, in the mean of its epochs; "
        "correctness is the share of epochs in which the model was right. What stays low in both is hard, or its label "
        "is wrong."
    )
    notes = (
        "Means over the runs (a method, a strategy and a seed) that trained on the example, each in its last round.",
    )
    count = f"the {len(found)} examples" if len(found) > 1 else "the example"
    caption = f"{block.name}: labels worth a second look, those of {count} with the lowest confidence"
    return Part("map", "Labels worth a second look", lead, Table(caption, columns, tuple(lines), notes))


def layers(block: Block) -> Part | None:
    """CKA with the pretrained model by thirds of the layers; None where no row has it."""
    at = last_similar(block)
    if at is None:
        return None
    depth = max(similarity(cell).shape[2] for cell in block.ordered) - 1
    names = [f"layer {i}" for i in range(1, depth + 1)]
    if depth >= 3:
        parts = np.array_split(np.arange(1, depth + 1), 3)
        names = [f"{third} ({_range(part)})" for third, part in zip(THIRDS, parts, strict=True)]
    lines = []
    for strategy in block.strategies:
        for cell in (cell for cell in block.ordered if cell.strategy == strategy):
            found = similarity(cell)[:, at]
            if np.isfinite(found).any():
                items = tuple(measured(mean_interval(column)) for column in _summed_up(found, depth).T)
                lines.append(Line(strategy, cell.method, items))
    caption = f"{block.name}: CKA with the pretrained model at {int(block.labels[at]):,} labels"
    lead = (
        "CKA compares what a layer makes of the same texts before and after training: 1 means that nothing has changed "
        "but rotation and scale."
    )
    notes = ("Mean over seeds (and over the layers named) with its 95 % t-interval.",)
    table = Table(caption, ("strategy", "method", "embeddings", *names), tuple(lines), notes)
    return Part("layers", "How far do layers move?", lead, table)


def last_shares(cell: Cell) -> np.ndarray:
    """(4, s) the shares of ``FORGETTING_COLUMNS`` in the last round."""
    return np.array([cell.table(column)[:, -1] for column in FORGETTING_COLUMNS])


def of_one_strategy(block: Block) -> tuple[str, dict[str, list[Mapping[str, Any]]]]:
    """Random, or else the first strategy that has examples, and these by their method; empty where there are none."""
    strategy = min((str(e["strategy"]) for e in block.examples), key=block.strategies.index, default="")
    mine = [example for example in block.examples if example["strategy"] == strategy]
    found = {method: [example for example in mine if example["method"] == method] for method in block.methods}
    return strategy, {method: examples for method, examples in found.items() if examples}


def averaged(examples: Iterable[Mapping[str, Any]]) -> list[Example]:
    """Each example with each label that it was given, by id."""
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for example in examples:
        runs.setdefault((str(example["id"]), str(example.get("label", ""))), []).append(example)
    names = ("confidence", "variability", "correctness", "forgetting_events")
    found = []
    for (id_, label), own in sorted(runs.items(), key=lambda pair: pair[0]):
        means = np.mean([[float(example[name]) for name in names] for example in own], axis=0).tolist()
        never = sum(example["first_learned"] < 0 for example in own)
        sure, spread, right, often = means
        found.append(Example(id_, label, sure, spread, right, often, never, len(own)))
    return found


def similarity(cell: Cell) -> np.ndarray:
    """(s, m, layers + 1) CKA with the pretrained model, the embeddings first; NaN where a round has none."""
    lists = [[_numbers(row.get("cka")) for row in rows] for rows in cell.rounds]
    width = max(len(values) for found in lists for values in found)
    return np.array([[values + [math.nan] * (width - len(values)) for values in found] for found in lists])


def last_similar(block: Block) -> int | None:
    """The last of the block's rounds in which a cell has CKA; None where there is none."""
    known = [np.isfinite(similarity(cell)).any(axis=(0, 2)) for cell in block.ordered]
    rounds = np.flatnonzero(np.any(known, axis=0))
    return int(rounds[-1]) if len(rounds) else None


def _numbers(values: object) -> list[float]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    return [float(value) if isinstance(value, (int, float)) else math.nan for value in values]


def _summed_up(found: np.ndarray, depth: int) -> np.ndarray:
    """(s, 1 + parts) the embeddings, and the thirds of the layers or, of fewer than three, each layer."""
    if depth < 3:
        return found
    thirds = [[third_of_layers(values, third) for third in THIRDS] for values in found.tolist()]
    return np.concatenate([found[:, :1], np.array(thirds)], axis=1)


def _range(part: np.ndarray) -> str:
    return f"{part[0]}–{part[-1]}" if len(part) > 1 else f"{part[0]}"


def _levels(block: Block) -> tuple[list[str], str]:
    """Names for the rounds: shares of the training set where a study goes through all of it, else numbers of labels."""
    shares = block.ordered[0].table("share")[0]
    if np.isfinite(shares).all() and math.isclose(shares[-1], 1.0):
        return [f"{100 * share:.3g} %" for share in shares], "share of the training set"
    return [f"{labels:,}" for labels in block.labels.tolist()], "number of labels"


def _deviations(values: np.ndarray) -> list[float]:
    """Standard deviations over seeds, NaN for fewer than two; then their mean, if there are several."""
    columns = [column[np.isfinite(column)] for column in values.T]
    found = [float(column.std(ddof=1)) if len(column) > 1 else math.nan for column in columns]
    return [*found, float(np.mean(found))] if len(found) > 1 else found


def _least(rows: Sequence[Sequence[float]]) -> list[float]:
    return [min(filter(math.isfinite, column), default=math.nan) for column in zip(*rows, strict=True)]


def _small(value: float) -> str:
    return f"{value:.4f}" if value < 1 else number(value)
