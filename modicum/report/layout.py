"""What tables, parts and chapters are, and how numbers are written in them; ``html`` and ``text`` only set them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from modicum.analysis.curves import Interval
from modicum.analysis.metrics import LOWER_IS_BETTER
from modicum.report.findings import number

PROSE = {"claim": 80, "verdict": 50, "value": 50, "label": 50}
"""Columns of words, which are set from the left, and their width on paper in mm."""

Mark = Literal["", "best", "better", "worse", "undecided", "supported", "contradicted", "absent"]


@dataclass(frozen=True)
class Item:
    """A table's cell: its text, a smaller note after it (an interval, a reason), and what it stands for."""

    text: str
    note: str = ""
    mark: Mark = ""

    @property
    def plain(self) -> str:
        """Text and note on one line."""
        return f"{self.text} {self.note}".strip()


@dataclass(frozen=True)
class Line:
    """A row: the group that it belongs to, its head, and its items."""

    group: str
    head: str
    items: tuple[Item, ...]
    baseline: bool = False


@dataclass(frozen=True)
class Table:
    """columns: the name of the groups (empty where rows have none), of the row heads, and of the items."""

    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """The columns that are printed."""
        return tuple(name for name in self.columns if name)

    @property
    def aligns(self) -> tuple[Literal["l", "r"], ...]:
        """For each of ``columns``, left for names and prose, right for numbers."""
        return tuple("l" if i < 2 or name in PROSE else "r" for i, name in enumerate(self.columns))

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """The lines by their group, in order."""
        return [(name, list(lines)) for name, lines in groupby(self.lines, key=lambda line: line.group)]

    def row(self, line: Line) -> tuple[Item, ...]:
        """A line's printed items, its group and head among them."""
        return (*((Item(line.group),) if self.columns[0] else ()), Item(line.head), *line.items)


@dataclass(frozen=True)
class Part:
    """A headed piece of a section or chapter. key: names the figures that go with it."""

    key: str
    heading: str
    lead: str
    table: Table


@dataclass(frozen=True)
class Chapter:
    """What is said beside the data sets' sections. key: names its figures, part by part."""

    key: Literal["claims", "time", "pretraining"]
    heading: str
    lead: str
    parts: tuple[Part, ...]


def spread(span: Interval, write: Callable[[float], str] = number) -> str:
    """``[low, high]``, or nothing where there is no interval."""
    return f"[{write(span.low)}, {write(span.high)}]" if math.isfinite(span.low) else ""


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %".replace("-", "−") if math.isfinite(share) else "–"


def p_value(p: float) -> str:
    """Two decimals from 0.1 up, four below, ``<0.0001`` beyond."""
    if not math.isfinite(p):
        return "–"
    return "<0.0001" if p < 0.0001 else f"{p:.2f}" if p >= 0.1 else f"{p:.4f}"


def amount(value: float) -> str:
    """A count, with separators."""
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def duration(value: float) -> str:
    """Seconds: two decimals below 10, one below 1,000, then none."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def best_of(spans: Iterable[Interval], metric: str) -> float:
    """The best mean for a metric, NaN where none is known."""
    means = [span.mean for span in spans if math.isfinite(span.mean)]
    return (min if metric in LOWER_IS_BETTER else max)(means, default=math.nan)


def measured(
    span: Interval, best: float = math.nan, *, interval: bool = True, write: Callable[[float], str] = number
) -> Item:
    """A mean with its interval, marked if it is the best."""
    return Item(write(span.mean), spread(span, write) if interval else "", "best" if span.mean == best else "")
