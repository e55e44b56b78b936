"""From raw rows to what a data set holds: every row checked, every label given its meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modicum.base.errors import DataError
from modicum.base.types import Task
from modicum.data.findings import BadRows, Role
from modicum.data.ids import Ids, made_ids
from modicum.data.labels import (
    NUMBER,
    Meaning,
    Unusable,
    Wanted,
    check_present,
    class_order,
    encode,
    reader_of,
    task_of,
)
from modicum.data.rows import Rows

MAX_TEXT_BYTES = 1_000_000
REMEDY_ALONE = "add a second example of it, merge it with another class or clear the label"
WORDS: dict[Role, str] = {"text": "text", "pair": "second text"}


@dataclass(frozen=True)
class Checked:
    """n usable examples; see ``Dataset`` for shapes and meanings."""

    ids: Ids
    texts: pa.Array
    pairs: pa.Array | None
    task: Task
    classes: tuple[str, ...]
    labels: np.ndarray
    guessed_id_repeats: str  # why a guessed id column was not used, else ""


def check(rows: Rows, wanted: Wanted, bad: BadRows, *, id_guessed: bool = False) -> Checked:
    """Check rows and read their labels; each row that cannot be used goes to ``bad``.

    Raises:
        DataError: a bad row that is not to be skipped, labels of one class only, or nothing left.
    """
    rows = check_texts(rows, bad)
    rows, repeats = check_ids(rows, bad, id_guessed)
    rows, task, classes, labels = read_labels(rows, wanted, bad)
    if not len(rows):
        raise DataError(f"{bad.source}: none of {rows.read:,} rows can be used; the first: {'; '.join(bad.first[:1])}")
    texts, pairs = rows.columns["text"], rows.columns.get("pair")
    ids = rows.columns["id"] if "id" in rows.columns else made_ids(texts, pairs, rows.ordinals)
    return Checked(Ids(ids), texts, pairs, task, classes, labels, repeats)


def check_texts(rows: Rows, bad: BadRows) -> Rows:
    """Leave out rows whose text (or second text) is empty, too long, or holds a NUL."""
    for role in (role for role in WORDS if role in rows.columns):
        rows = _check_text(rows, role, bad)
    return rows


def _check_text(rows: Rows, role: Role, bad: BadRows) -> Rows:
    word, column = WORDS[role], rows.columns[role]
    empty = pc.fill_null(pc.or_(pc.equal(column, ""), pc.utf8_is_space(column)), True)
    rows = _drop(rows, empty, bad, lambda at: f"the {word} is empty", "write it, or delete the row")
    sizes = pc.binary_length(rows.columns[role])

    def too_long(at: int) -> str:
        return f"the {word} has {sizes[at].as_py():,} bytes, more than {MAX_TEXT_BYTES:,}"

    rows = _drop(rows, pc.greater(sizes, MAX_TEXT_BYTES), bad, too_long, "shorten or split it")
    nul = pc.match_substring(rows.columns[role], "\0")
    return _drop(rows, nul, bad, lambda at: f"the {word} holds a NUL character", "remove it")


def check_ids(rows: Rows, bad: BadRows, guessed: bool) -> tuple[Rows, str]:
    """Leave out rows with an empty or repeated id; a guessed id column that has any is left out as a whole.

    Returns the rows, and why a guessed column was left out.
    """
    if "id" not in rows.columns:
        return rows, ""
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(rows.columns["id"]), ""), True)
    if guessed and pc.any(empty).as_py():
        return rows.without("id"), f"{bad.nearby(int(rows.places[_first(empty)]))} has none"
    rows = _drop(rows, empty, bad, lambda at: "the id is empty", "give every row an id of its own")
    codes = rows.columns["id"].dictionary_encode().indices.to_numpy(False)
    distinct, first = np.unique(codes, return_index=True)
    if len(distinct) == len(codes):
        return rows, ""
    earlier = first[codes]
    repeated = earlier != np.arange(len(codes))

    def why(at: int) -> str:
        return f"id {rows.columns['id'][at].as_py()!r} already names {bad.nearby(int(rows.places[earlier[at]]))}"

    if guessed:
        at = int(np.argmax(repeated))
        return rows.without("id"), f"{bad.nearby(int(rows.places[at]))}: {why(at)}"
    return _drop(rows, pa.array(repeated), bad, why, "give every row an id of its own"), ""


def read_labels(rows: Rows, wanted: Wanted, bad: BadRows) -> tuple[Rows, Task, tuple[str, ...], np.ndarray]:
    """The rows whose labels can be used, the task, the classes and the labels as ``Dataset`` holds them."""
    column = rows.columns.get("label", pa.nulls(len(rows), pa.large_string()))
    names, codes = encode(column)
    if wanted.required:
        gap = codes < 0
        rows = _drop(rows, pa.array(gap), bad, lambda at: "the row has no label", "label it, or delete the row")
        codes = codes[~gap]
    task = task_of(names, wanted)
    meanings, unusable = _meanings(names, reader_of(names, task, wanted))
    faulty = np.isin(codes, np.array(list(unusable), np.int64))
    for at in np.flatnonzero(faulty):
        bad.add(int(rows.places[at]), *unusable[int(codes[at])])
    rows, codes = rows.keep(~faulty), codes[~faulty]
    if task == "regression":
        targets = np.array([*meanings, np.nan], np.float64)  # code -1, no label, is the last
        return rows, task, (), targets[codes]
    classes = wanted.classes or class_order({str(meanings[code]) for code in np.unique(codes[codes >= 0])})
    positions = {name: position for position, name in enumerate(classes)}
    labels = np.array([*(positions.get(str(meaning), -1) for meaning in meanings), -1], np.int64)[codes]
    if wanted.for_training:
        rows, classes, labels = _check_counts(rows, classes, labels, wanted.classes is not None, bad)
    return rows, task, classes, labels


def _meanings(names: list[str], read: Callable[[str], Meaning]) -> tuple[list[Meaning], dict[int, tuple[str, str]]]:
    """Each distinct label's meaning (NaN where it has none), and (why, remedy) by code for those without."""
    meanings: list[Meaning] = []
    unusable: dict[int, tuple[str, str]] = {}
    for code, name in enumerate(names):
        try:
            meanings.append(read(name))
        except Unusable as problem:
            meanings.append(np.nan)
            unusable[code] = problem.args[0], problem.args[1]
    return meanings, unusable


def _check_counts(
    rows: Rows, classes: tuple[str, ...], labels: np.ndarray, fixed: bool, bad: BadRows
) -> tuple[Rows, tuple[str, ...], np.ndarray]:
    """Leave out rows that are alone in their class, and refuse what is left if it has one class only."""
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    alone = (labels >= 0) & (counts == 1)[labels] if len(classes) else np.zeros(len(labels), bool)
    others = int(alone.sum()) - 1

    def why(at: int) -> str:
        name = classes[labels[at]]
        number = "; are the labels numbers to predict (task regression)?" if NUMBER.fullmatch(name) else ""
        more = f" (and {others:,} more classes do)" if others else ""
        return f"class {name!r} occurs only once among the labelled rows{more}{number}"

    rows = _drop(rows, pa.array(alone), bad, why, REMEDY_ALONE)
    labels = labels[~alone]
    if not fixed and alone.any():
        kept = np.flatnonzero(counts > 1)
        renumbered = np.full(len(classes) + 1, -1, np.int64)  # -1, no label, is the last
        renumbered[kept] = np.arange(len(kept))
        classes, labels = tuple(classes[at] for at in kept), renumbered[labels]
    check_present(classes, np.bincount(labels[labels >= 0], minlength=len(classes)), bad.source)
    return rows, classes, labels


def _drop(rows: Rows, faulty: pa.Array, bad: BadRows, why: Callable[[int], str], remedy: str) -> Rows:
    """The rows that are not faulty; ``why`` tells what is wrong at a position."""
    mask = faulty.to_numpy(False).astype(bool)
    for at in np.flatnonzero(mask):
        bad.add(int(rows.places[at]), why(int(at)), remedy)
    return rows.keep(~mask)


def _first(mask: pa.Array) -> int:
    return int(np.argmax(mask.to_numpy(False)))
