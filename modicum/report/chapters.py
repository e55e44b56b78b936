"""What the report says beside its data sets' sections: the claims, quality against time, and pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.analysis.claims import Judged, judge
from modicum.analysis.curves import Interval, mean_interval
from modicum.analysis.summaries import THIRDS
from modicum.report.findings import number, signed
from modicum.report.frame import Block, Frame, Key, ReportSource, metric_name
from modicum.report.layout import (
    Chapter,
    Item,
    Line,
    Mark,
    Part,
    Table,
    best_of,
    duration,
    measured,
    p_value,
    spread,
)

MARKS: dict[str, Mark] = {"supported": "supported", "contradicted": "contradicted", "not run": "absent"}
MEASURES = {
    "auc": "normalised AUC of {}",
    "final": "final {}",
    "last": "last {}",
    "first": "first {}",
    "mean": "mean {}",
    "spread": "distance of {} from its median over seeds",
}


@dataclass(frozen=True)
class Timed:
    """A data set at one number of labels, after several training times.

    blocks: the names of the blocks that hold one time each.
    values: method and strategy -> for each time (s,) the main metric, empty where it was not run.
    """

    name: str
    blocks: tuple[str, ...]
    labels: int
    seconds: tuple[float, ...]
    methods: tuple[str, ...]
    strategies: tuple[str, ...]
    values: Mapping[Key, tuple[np.ndarray, ...]]


def claims(source: ReportSource) -> Chapter | None:
    """The verdict on each claim; None without claims."""
    if not source.claims:
        return None
    judged = judge(source.claims, source.rows, source.metric)
    columns = ("", "id", "claim", "verdict", "effect", "standardised effect", "p (Holm)", "pairs")
    notes = [
        "The effect is the mean difference over pairs of data set and seed, with its 95 % interval: bootstrap (BCa), "
        "or Student's where two sides should agree within a margin; standardised, it is in standard deviations of "
        "these differences. p is that of the two-sided sign-flip test after Holm's correction over all claims so "
        "tested; a claim of agreement rests on the intervals of its data sets alone. ‘Undecided’ does not mean "
        "‘wrong’.",
        *(f"{one.claim.id}: {note}" for one in judged for note in one.notes),
    ]
    lines = tuple(Line("", one.claim.id, _judged(one, source.metric)) for one in judged)
    table = Table("Claims and what this study says of them", columns, lines, tuple(notes))
    return Chapter("claims", "Claims", _count(judged), (Part("claims", "", "", table),))


def against_time(frame: Frame) -> Chapter | None:
    """Quality by the time that training was allowed, where a data set has two times or more."""
    parts = tuple(_timed_part(frame, timed) for timed in timed_sets(frame))
    if not parts:
        return None
    lead = (
        f"{_capital(frame.metric_name)} with the most labels that all times share, after training for a given time. "
        "Times are those of the machine named in the manifest."
    )
    return Chapter("time", "Quality against time", lead, parts)


def pretraining(source: ReportSource) -> Chapter | None:
    """How task-adaptive pretraining went; None where there was none."""
    if not source.pretraining:
        return None
    lines = []
    for entry in sorted(source.pretraining, key=lambda entry: str(entry["dataset"])):
        losses = entry["losses"]
        ends = [Item(number(losses[at])) if len(losses) else Item("–") for at in (0, -1)]
        items = (Item(str(len(losses))), *ends, Item(duration(float(entry["seconds"]))))
        lines.append(Line(str(entry["dataset"]), pretrained_name(entry), items))
    columns = ("data set", "pretraining", "epochs", "first loss", "last loss", "seconds")
    table = Table("Mean loss of the first and the last epoch", columns, tuple(lines))
    lead = "Before it saw a label, a method learned from the texts of the training set alone."
    return Chapter("pretraining", "Task-adaptive pretraining", lead, (Part("pretraining", "", "", table),))


def timed_sets(frame: Frame) -> list[Timed]:
    """The data sets with two training times or more."""
    groups: dict[tuple[str, str], list[Block]] = {}
    for block in frame.blocks:
        if block.seconds is not None:
            groups.setdefault((block.dataset, block.backbone), []).append(block)
    several = len({backbone for _, backbone in groups}) > 1
    found = []
    for (dataset, backbone), blocks in groups.items():
        labels = set.intersection(*({*block.labels.tolist()} for block in blocks))
        if len(blocks) > 1 and labels:
            found.append(_timed(f"{dataset} · {backbone}" if several else dataset, blocks, max(labels)))
    return found


def timed_finding(frame: Frame, timed: Timed) -> str:
    """What is best after the shortest and after the longest time, in one sentence."""
    words = []
    for at in (0, -1):
        spans = {key: mean_interval(series[at]) for key, series in timed.values.items()}
        best = best_of(spans.values(), frame.source.metric)
        key = next((key for key, span in spans.items() if span.mean == best), None)
        words.append(f"{' × '.join(key)} after {timed.seconds[at]:g} s ({number(best)})" if key else "")
    if not all(words):
        return f"On {timed.name}, no trial has a {frame.metric_name} for every time yet."
    grade = "best" if frame.source.greater_is_better else "lowest"
    return f"On {timed.name}, the {grade} mean {frame.metric_name} is that of {words[0]}, and of {words[1]}."


def pretrained_name(entry: Mapping[str, Any]) -> str:
    """A method with what it was pretrained by, as in the label of the trials that start from it."""
    end = f" + {entry['objective']}"
    return str(entry["method"]).removesuffix(end) + end


def _judged(one: Judged, metric: str) -> tuple[Item, ...]:
    claim = one.claim
    expected = f"within ±{claim.margin:g}" if claim.margin is not None else claim.expect
    about = f"({_measure(claim.measure, metric)}{', difference of differences' * (claim.minus is not None)}: "
    about += f"{expected} expected{'; ' * bool(claim.source)}{claim.source})"
    verdict = Item(one.verdict, f"({one.reason})", MARKS.get(one.verdict, "undecided"))
    effect = Item(signed(one.mean), spread(Interval(one.mean, one.low, one.high, one.n), signed))
    numbers = (Item(signed(one.standardised)), Item(p_value(one.corrected)), Item(str(one.n)))
    return Item(claim.text, about), verdict, effect, *numbers


def _measure(measure: str, metric: str) -> str:
    kind, _, column = measure.partition(":")
    if column in THIRDS and kind == "cka":
        return f"CKA of the {column} layers"
    return MEASURES[kind].format(metric_name(column or metric))


def _count(judged: Sequence[Judged]) -> str:
    words = [one.verdict for one in judged]
    absent = f"; {words.count('not run')} not run" if "not run" in words else ""
    return (
        f"Of {len(words)} claim{'s' * (len(words) != 1)}, {words.count('supported')} came out supported, "
        f"{words.count('contradicted')} contradicted and {words.count('undecided')} undecided{absent}."
    )


def _timed(name: str, blocks: Sequence[Block], labels: int) -> Timed:
    def values(block: Block, key: Key) -> np.ndarray:
        cell = block.cells.get(key)
        return cell.values[:, block.labels.tolist().index(labels)] if cell else np.array([])

    keys = dict.fromkeys((cell.method, cell.strategy) for block in blocks for cell in block.ordered)
    return Timed(
        name=name,
        blocks=tuple(block.name for block in blocks),
        labels=labels,
        seconds=tuple(block.seconds for block in blocks if block.seconds is not None),
        methods=tuple(dict.fromkeys(method for block in blocks for method in block.methods)),
        strategies=tuple(dict.fromkeys(strategy for block in blocks for strategy in block.strategies)),
        values={key: tuple(values(block, key) for block in blocks) for key in keys},
    )


def _timed_part(frame: Frame, timed: Timed) -> Part:
    spans = {key: [mean_interval(values) for values in series] for key, series in timed.values.items()}
    best = [best_of(column, frame.source.metric) for column in zip(*spans.values(), strict=True)]
    lines = [
        Line(strategy, method, tuple(measured(*pair) for pair in zip(spans[method, strategy], best, strict=True)))
        for strategy in timed.strategies
        for method in timed.methods
        if (method, strategy) in spans
    ]
    columns = ("strategy", "method", *(f"{seconds:g} s" for seconds in timed.seconds))
    caption = f"{timed.name}: {frame.metric_name} at {timed.labels:,} labels, by seconds of training"
    notes = ("Mean over seeds with its 95 % t-interval; the best mean of each column is marked.",)
    return Part(timed.name, timed.name, "", Table(caption, columns, tuple(lines), notes))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
