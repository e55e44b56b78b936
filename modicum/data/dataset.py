"""A data set: texts, ids, labels, and a fingerprint that says whether two of them are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa

from modicum.base.errors import DataError, StateError
from modicum.base.spec import canonical_json
from modicum.base.types import ExampleId, Task
from modicum.data.checks import Checked, check
from modicum.data.findings import BadRows, LoadReport, Role
from modicum.data.ids import BLOCK, Ids
from modicum.data.labels import Unusable, Wanted, class_names, class_position, label_text
from modicum.data.pool import Pool
from modicum.data.rows import Rows

Positions = Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """n examples, texts and ids held in Arrow. Made by ``modicum.data.sources.load`` or ``Dataset.from_lists``.

    name: for people; no part of the fingerprint.
    classes: the class names, sorted (whole numbers by value) or in the order that the user gave; () for regression.
    ids: n distinct ids, with ``id_of(position)``, ``position_of(id)`` and ``positions_of(ids)``.
    labels: (n,) int64 positions in ``classes``, -1 where unlabelled; for regression (n,) float64, NaN where unlabelled.
    report: how the data came in.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    ids: Ids
    labels: np.ndarray
    report: LoadReport
    _texts: pa.Array
    _pairs: pa.Array | None

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)

    @classmethod
    def from_lists(
        cls,
        texts: Sequence[str],
        labels: Sequence[Any] | np.ndarray | None = None,
        *,
        pairs: Sequence[str] | None = None,
        ids: Sequence[ExampleId | int] | None = None,
        classes: Sequence[str] | None = None,
        task: Task | None = None,
        name: str = "",
        for_training: bool = True,
    ) -> Self:
        """A data set from lists of equal length, with the checks of ``load`` and its rules for labels.

        A label is a class name, an integer, a float or None (unlabelled); items are counted from 0 in messages.

        Raises:
            DataError: the lists differ in length, or an item cannot be used.
        """
        lists: dict[Role, Sequence[Any] | np.ndarray | None]
        lists = {"text": texts, "pair": pairs, "label": labels, "id": ids}
        bad = BadRows("", "item")
        wanted = Wanted(task, class_names(classes), for_training)
        rows = _listed({role: values for role, values in lists.items() if values is not None}, bad)
        return cls.of(check(rows, wanted, bad), name, LoadReport(rows_read=len(texts)))

    @classmethod
    def of(cls, checked: Checked, name: str, report: LoadReport) -> Self:
        """A data set of checked rows; the report is completed by what the labels turned out to be."""
        task, classes, labels = checked.task, checked.classes, checked.labels
        report = _with_labels(report, task, classes, labels)
        return cls(name, task, classes, checked.ids, labels, report, checked.texts, checked.pairs)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes" if self.task == "classification" else self.task
        pairs = "pairs" if self._pairs is not None else "texts"
        return f"Dataset({self.name!r}: {len(self):,} {pairs}, {what}, {self.report.labelled:,} labelled)"

    def texts(self, positions: Positions | None = None) -> list[str]:
        """The texts at k positions, all n by default."""
        return _taken(self._texts, positions)

    def pairs(self, positions: Positions | None = None) -> list[str] | None:
        """The second texts at k positions; None where the data has no pairs."""
        return None if self._pairs is None else _taken(self._pairs, positions)

    @property
    def paired(self) -> bool:
        """Whether each example is two texts."""
        return self._pairs is not None

    @property
    def is_labelled(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isnan(self.labels) if self.task == "regression" else self.labels >= 0

    def labelled_positions(self) -> np.ndarray:
        """The int64 positions of the examples that have a label, in order."""
        return np.flatnonzero(self.is_labelled)

    def unlabelled_positions(self) -> np.ndarray:
        """The int64 positions of the examples that have none, in order."""
        return np.flatnonzero(~self.is_labelled)

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits over ids, texts, pairs, labels, classes and task, whatever file they came from.

        Targets count in single precision, in which they are trained on: files write 3.8 also as 3.799999952.
        """
        sha = hashlib.sha256(canonical_json(["dataset", 1, self.task, self.classes, len(self)]).encode())
        for strings in (self.ids.array, self._texts, self._pairs):
            _hash_strings(sha, strings)
        kind = "<f4" if self.task == "regression" else "<i8"
        with np.errstate(over="ignore"):
            sha.update(np.where(self.is_labelled, self.labels, -1).astype(kind).tobytes())
        sha.update(np.packbits(self.is_labelled).tobytes())
        return sha.hexdigest()

    @cached_property
    def pool(self) -> Pool:
        """All examples, none asked for yet; the learners over one data set share it."""
        return Pool.of(tuple(self.ids))

    def subset(self, positions: Positions) -> Self:
        """The examples at k distinct positions, in that order, with their ids and the same classes.

        Raises:
            StateError: a position is outside 0..n-1 or given twice.
        """
        at = _checked_positions(positions, len(self))
        if len(np.unique(at)) < len(at):
            raise StateError("a subset takes each example once, but a position was given twice; leave the repeats out")
        take = pa.array(at)
        labels = self.labels[at]
        return replace(
            self,
            ids=Ids(self.ids.array.take(take)),
            labels=labels,
            report=_with_labels(self.report, self.task, self.classes, labels),
            _texts=self._texts.take(take),
            _pairs=None if self._pairs is None else self._pairs.take(take),
        )

    def with_classes(self, classes: Sequence[str]) -> Self:
        """The same examples under the classes of a training set, which are matched by name.

        A class that is a whole number i means ``classes[i]`` where no class is named by a number.

        Raises:
            DataError: an example has a label outside ``classes``, or the data set is for regression.
        """
        if self.task == "regression":
            raise DataError("a regression data set has no classes to replace; load it with task classification")
        names = class_names(classes) or ()
        new = np.full(len(self.classes) + 1, -1, np.int64)  # -1, no label, is the last
        for old in np.unique(self.labels[self.is_labelled]):
            try:
                new[old] = class_position(self.classes[old], names)
            except Unusable as problem:
                why, remedy = problem.args
                first = self.ids[int(np.argmax(self.labels == old))]
                n = int((self.labels == old).sum())
                rows = f"{n:,} rows, the first {first!r}" if n > 1 else f"row {first!r}"
                raise DataError(f"{self.name or 'data set'}: {why} ({rows}); {remedy}") from None
        labels = new[self.labels]
        return replace(self, classes=names, labels=labels, report=_with_labels(self.report, self.task, names, labels))


def _with_labels(report: LoadReport, task: Task, classes: tuple[str, ...], labels: np.ndarray) -> LoadReport:
    known = labels[~np.isnan(labels)] if task == "regression" else labels[labels >= 0]
    counts = np.bincount(known, minlength=len(classes)).tolist() if classes else []
    return replace(
        report,
        task=task,
        labels_per_class=dict(zip(classes, counts, strict=True)),
        labelled=len(known),
        unlabelled=len(labels) - len(known),
    )


def _checked_positions(positions: Positions, n: int) -> np.ndarray:
    at = np.asarray(positions)
    if at.size and (at.ndim != 1 or at.dtype.kind not in "iu"):
        raise StateError(f"positions must be one row of integers, got {at.dtype} of shape {at.shape}")
    at = at.astype(np.int64)
    wrong = at[(at < 0) | (at >= n)]
    if len(wrong):
        raise StateError(f"positions must lie in 0..{n - 1}, got {wrong[0]}")
    return at


def _taken(strings: pa.Array, positions: Positions | None) -> list[str]:
    if positions is not None:
        strings = strings.take(pa.array(_checked_positions(positions, len(strings))))
    taken: list[str] = strings.to_pylist()
    return taken


def _hash_strings(sha: Any, strings: pa.Array | None) -> None:
    """Lengths and bytes, a block at a time: the same for the same strings, however Arrow holds them."""
    if strings is None:
        sha.update(b"none")
        return
    for start in range(0, len(strings), BLOCK):
        block = strings.slice(start, BLOCK)
        _, offsets, data = block.buffers()
        ends = np.frombuffer(offsets, np.int64)[block.offset : block.offset + len(block) + 1]
        sha.update(np.diff(ends).astype("<i8").tobytes())
        if data is not None:
            sha.update(memoryview(data)[ends[0] : ends[-1]])


def _listed(given: dict[Role, Sequence[Any] | np.ndarray], bad: BadRows) -> Rows:
    """Lists as rows.

    Raises:
        DataError: a list is empty, of another length than the texts, or has an item of a wrong type.
    """
    n = len(given["text"])
    if isinstance(given["text"], str) or not n:
        raise DataError(f"a data set needs a list of texts, got {given['text']!r:.80}; give one text or more")
    for role, values in given.items():
        if len(values) != n:
            raise DataError(f"every text needs its {role}: there are {n:,} texts, but {len(values):,} {role}s")
    columns = {role: _strings(role, values, bad) for role, values in given.items()}
    places = np.arange(n)
    return Rows(columns, places, places + 1, n)


def _strings(role: Role, values: Sequence[Any] | np.ndarray, bad: BadRows) -> pa.Array:
    made: list[str | None] = []
    for place, value in enumerate(values):
        try:
            made.append(_string(role, value))
        except Unusable as problem:
            bad.add(place, *problem.args)
    return pa.array(made, pa.large_string())


def _string(role: Role, value: Any) -> str | None:
    if role == "label":
        value = label_text(value)
    elif role == "id" and isinstance(value, int | np.integer) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise Unusable(f"the {role} holds {half!a}, half of a surrogate pair", "remove it") from None
        return str(value)
    if value is None and role == "label":
        return None
    raise Unusable(f"the {role} must be a string, not {type(value).__name__}", "convert it")
