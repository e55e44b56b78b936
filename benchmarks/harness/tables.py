"""Markdown tables of measurements: medians, spreads, ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the columns of the first row; text to the left, numbers to the right."""
    if not rows:
        return "(nothing measured)"
    columns = list(rows[0])
    cells = [[shown(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)]
    right = [all(not isinstance(row.get(name), str) or row[name][:1].isdigit() for row in rows) for name in columns]

    def line(texts: Sequence[str]) -> str:
        padded = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(columns), rule, *map(line, cells)])


def shown(value: Any) -> str:
    """A number with three significant digits or all before its point, a text as it is, nothing for None."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def middle(values: Sequence[float]) -> float | None:
    """The median; None where there is nothing."""
    return float(median(values)) if values else None


def spread(values: Sequence[float]) -> str:
    """The least and the greatest, and of how many."""
    if len(values) < 2:
        return "n = 1" if values else "not measured"
    return f"{shown(min(values))}–{shown(max(values))}, n = {len(values)}"


def ratio(other: float | None, own: float | None) -> str | None:
    """How many times longer another took."""
    return f"{other / own:.2f}×" if other and own else None
