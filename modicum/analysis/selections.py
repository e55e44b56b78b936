"""Rows of a study, chosen by what their columns hold, and the words for what a choice does not find.

A row is a mapping for one trial and round, with the columns that ``modicum.report`` takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from modicum.base.errors import SpecError, UnknownName

NAMES = ("dataset", "backbone", "plain_method", "method", "tapt", "recipe", "part", "strategy")
NUMBERS = ("seed", "round", "labels", "share", "allowed_seconds")
COLUMNS = (*NAMES, *NUMBERS)
"""What rows can be selected by."""
LIMITS = ({"min"}, {"max"}, {"min", "max"})

Row = Mapping[str, Any]


def _checked(wanted: dict[str, Any]) -> dict[str, Any]:
    for column, value in wanted.items():
        if column not in COLUMNS:
            raise UnknownName("column", column, COLUMNS)
        if column in NAMES and _is_exclusion(value):
            value = value["not"]
        if not (_is_range(value) and column in NUMBERS):
            right = [is_number(o) or o == "" if column in NUMBERS else isinstance(o, str) for o in _options(value)]
            if not right or not all(right):
                numbers = "a number, a list of numbers or {min = …, max = …}"
                forms = numbers if column in NUMBERS else "a name, a list of names or {not = …}"
                raise SpecError(f"{column} is selected by {forms}, got {value!r}")
    return wanted


Selection = Annotated[dict[str, Any], AfterValidator(_checked)]
"""Columns with the value, the list of values, the ``{min, max}`` of numbers or the ``{not}`` of names that rows must
have.

A name stands for itself with options too: ``lora`` for ``lora(rank=4)``. A share is met to within one label. In place
of a number, "" stands for rows without one.
"""


def meets(row: Row, wanted: Mapping[str, Any]) -> bool:
    """Whether a row has all that a selection wants."""
    return all(_holds(row, column, value) for column, value in wanted.items())


def absence(wanted: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Why no row meets a selection."""
    for column, value in wanted.items():
        if not any(_holds(row, column, value) for row in rows):
            there = sorted({value_of(row, column) for row in rows} - {None})
            options = ", ".join(_named(option) for option in there[:12]) or "none"
            return f"no finished round has {_said(column, value)}; there are: {options}"
    return f"no finished round has {' and '.join(_said(*pair) for pair in wanted.items()) or 'been selected'}"


def partly_absent(wanted: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """In words, each value of a selection's lists that no row has which meets the rest of it."""
    return [
        _said(column, option)
        for column, value in wanted.items()
        if isinstance(value, list)
        for option in value
        if not any(meets(row, {**wanted, column: option}) for row in rows)
    ]


def without_options(label: str) -> str:
    """``lora + mlm`` for ``lora(rank=4) + mlm``."""
    while (shorter := re.sub(r"\([^()]*\)", "", label)) != label:
        label = shorter
    return label


def value_of(row: Row, column: str) -> Any:
    """What a row has in one of ``COLUMNS``; a method without pretraining is its own plain method."""
    if column in ("tapt", "recipe", "part"):
        return row.get(column) or ""
    return row.get("plain_method", row["method"]) if column == "plain_method" else row.get(column)


def is_number(value: Any) -> bool:
    """True for Python's and NumPy's integers and floats, NaN among them, and not for truth values."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def number(value: Any) -> float:
    """The value, or NaN for what is no number."""
    return float(value) if is_number(value) else math.nan


def _holds(row: Row, column: str, wanted: Any) -> bool:
    value = value_of(row, column)
    if column in NAMES:
        if _is_exclusion(wanted):
            return not _holds(row, column, wanted["not"])
        # "lora" stands for "lora(rank=4)", and "lora + mlm" for "lora(rank=4) + mlm", but "lora" not for the latter.
        return not {value, without_options(str(value))}.isdisjoint(_options(wanted))
    if not is_number(value):
        return "" in _options(wanted)
    # A share is a whole number of labels: 30 % of 3,668 texts are 1,100 labels, which are 29.99 %.
    slack = value / int(row["labels"]) if column == "share" else 1e-9 * abs(value)
    if isinstance(wanted, dict):
        return bool(wanted.get("min", -math.inf) - slack <= value <= wanted.get("max", math.inf) + slack)
    return any(is_number(option) and abs(value - option) <= slack for option in _options(wanted))


def _options(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() in LIMITS and all(map(is_number, value.values()))


def _is_exclusion(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"not"}


def _said(column: str, wanted: Any) -> str:
    if _is_exclusion(wanted):
        return f"{column} other than {' or '.join(_named(option) for option in _options(wanted['not']))}"
    if isinstance(wanted, dict):
        limits = [f"{word} {wanted[end]:g}" for end, word in (("min", "≥"), ("max", "≤")) if end in wanted]
        return f"{column} {' and '.join(limits)}"
    return f"{column} = {' or '.join(_named(option) for option in _options(wanted))}"


def _named(value: Any) -> str:
    return f"{value:g}" if is_number(value) else value or '""'
