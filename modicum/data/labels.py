"""Labels as text become class positions or regression targets, by one rule for every file format.

A label that is empty (null, or nothing but spaces) means: not labelled. Labels are classes unless they are numbers some
of which are not whole; whole numbers, however written (``1``, ``1.0``), are the classes "1", "2", ... in numeric order.
A label that reads ``nan`` is refused, for it may be a class as well as a gap: a gap is left empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modicum.base.errors import DataError, SpecError, UnknownName, did_you_mean
from modicum.base.files import read_text
from modicum.base.types import Task

TASKS: tuple[Task, ...] = ("classification", "regression")
NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
"""A number; with leading zeros, as in ``007``, a label is a name."""
INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)

Meaning = str | float


class Unusable(ValueError):
    """A value that cannot be used; its two arguments say why, and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What the caller knows about the labels.

    task: None where the labels decide it.
    classes: all class names in their order; an integer label i then means ``classes[i]``, unless a class is named so.
    for_training: every class must occur at least twice, and there must be two of them.
    required: every row must have a label.
    """

    task: Task | None = None
    classes: tuple[str, ...] | None = None
    for_training: bool = True
    required: bool = False

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise UnknownName("task", self.task, TASKS)
        if self.task == "regression" and self.classes is not None:
            raise SpecError(f"a regression has no classes, but got classes {_list(self.classes)}; leave them out")


def class_names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Given classes as a tuple.

    Raises:
        SpecError: there are fewer than two, or two of the same name.
    """
    if classes is None:
        return None
    names = tuple(classes)
    proper = all(isinstance(name, str) and name.strip() == name != "" for name in names)
    if isinstance(classes, str) or len(names) < 2 or len(set(names)) < len(names) or not proper:
        raise SpecError(f"classes must be two or more distinct names without spaces around them, got {classes!r}")
    return names


def listed_classes(names: str | None, file: Path | None) -> list[str]:
    """The classes' names with commas between, or from a file's lines; none where neither is given.

    Raises:
        SpecError: both are given, or one class alone, or the file is not UTF-8.
    """
    if names is not None and file is not None:
        raise SpecError("classes come from --classes or from --classes-file: give one of the two")
    listed = read_text(file).splitlines() if file is not None else (names or "").split(",")
    found = [name.strip() for name in listed if name.strip()]
    if len(found) == 1:
        raise SpecError(f"two classes or more are needed, got {found[0]!r}")
    return found


def label_text(value: Any) -> str | None:
    """One label as text: a string, a number, a truth value or None.

    Raises:
        Unusable: the value is anything else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
        return str(value)
    raise Unusable(f"a label must be a string or a number, not {value!r:.80}", "keep one label a row")


def encode(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """The distinct labels of an (n,) column and the (n,) int64 codes of the rows, -1 where there is no label."""
    trimmed = pc.utf8_trim_whitespace(column)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
    encoded = trimmed.dictionary_encode()
    return encoded.dictionary.to_pylist(), pc.fill_null(encoded.indices, -1).to_numpy(False).astype(np.int64)


def task_of(names: Sequence[str], wanted: Wanted) -> Task:
    """Regression where asked for, or where all labels are numbers and some are not whole."""
    if wanted.task is not None:
        return wanted.task
    if wanted.classes is not None or not _numeric(names):
        return "classification"
    return "regression" if any(NUMBER.fullmatch(n) and not float(n).is_integer() for n in names) else "classification"


def reader_of(names: Sequence[str], task: Task, wanted: Wanted) -> Callable[[str], Meaning]:
    """What gives a label its meaning: a target, or a class name. It raises Unusable where there is none."""
    if task == "regression":
        return _target
    if wanted.classes is not None:
        classes = wanted.classes
        return lambda name: classes[class_position(name, classes)]
    numeric = _numeric(names)
    return lambda name: _class_name(name, numeric)


def class_order(names: set[str]) -> tuple[str, ...]:
    """Names in the order in which they become classes: numeric where all are numbers, else alphabetical."""
    numeric = all(NUMBER.fullmatch(name) for name in names)
    return tuple(sorted(names, key=lambda name: (float(name) if numeric else 0.0, name)))


def class_position(name: str, classes: Sequence[str]) -> int:
    """Where a label belongs among the classes: by its name, or as a number where no class is named by a number.

    Raises:
        Unusable: it is none of them.
    """
    plain = _plain_number(name) if NUMBER.fullmatch(name) else name
    for known in (name, plain):
        if known in classes:
            return classes.index(known)
    if INTEGER.fullmatch(plain) and not any(INTEGER.fullmatch(c) for c in classes) and 0 <= int(plain) < len(classes):
        return int(plain)
    why = f"label {name!r} is not one of the classes {_list(classes)}{did_you_mean(name, classes)}"
    raise Unusable(why, "correct it, or add it to the classes")


def check_present(classes: Sequence[str], counts: np.ndarray, source: str) -> None:
    """Refuse labels of one class only, and of which no two agree. counts: (C,) labelled rows of each class.

    Raises:
        DataError: all labelled rows belong to one class, or each to another.
    """
    labelled, where = int(counts.sum()), f"{source}: " if source else ""
    if np.count_nonzero(counts) == 1:
        only = classes[int(np.argmax(counts))]
        raise DataError(
            f"{where}training needs two classes or more, but all {labelled:,} labelled rows are {only!r};"
            " add examples of another class, or check that the right column is the label"
        )
    if labelled and counts.max() == 1:
        raise DataError(
            f"{where}training needs a class with two examples or more, but each of {labelled:,} labelled rows has one"
            " of its own; add examples, check that the right column is the label, or give values as numbers"
        )


def _numeric(names: Sequence[str]) -> bool:
    finite = [name for name in names if not NOT_FINITE.fullmatch(name)]
    return bool(finite) and all(NUMBER.fullmatch(name) for name in finite)


def _class_name(name: str, numeric: bool) -> str:
    if NOT_FINITE.fullmatch(name) and (numeric or "nan" in name.lower()):
        raise Unusable(f"the label reads {name!r}, which is no class", "leave the field empty where there is no label")
    return _plain_number(name) if numeric else name


def _plain_number(name: str) -> str:
    if INTEGER.fullmatch(name):
        return str(int(name))
    number = float(name)
    return str(int(number)) if number.is_integer() else repr(number)


def _target(name: str) -> float:
    try:
        value = float("" if "_" in name else name)
    except ValueError:
        raise Unusable(f"the label {name!r} is not a number, as regression needs", "correct or clear it") from None
    if not math.isfinite(value):
        raise Unusable(f"the target {name!r} is not finite", "correct it, or leave it empty where there is no label")
    return value


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
