"""Rows of JSON-lines files: one object a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from modicum.base.errors import DataError
from modicum.data.columns import Columns, Sample, looks_like
from modicum.data.findings import BadRows, Column, Unit
from modicum.data.labels import Unusable, label_text
from modicum.data.lines import opened
from modicum.data.rows import Rows, RowsBuilder

SAMPLED = 1_000


class JsonLinesReader:
    """A file of JSON objects; empty lines are no rows. A row without the label's key has no label."""

    unit: ClassVar[Unit] = "line"

    def __init__(self, path: Path, source: str, label: str | None) -> None:
        """``label`` is the label column that the user named, "" for none and None for a guess."""
        self.source = source
        self.notes: list[str] = []
        self._path = path
        self._label = label
        self._last = 0

    def sample(self) -> Sample:
        """The keys of the first rows, and of later ones until the label's key has been seen.

        Raises:
            DataError: no line holds a JSON object.
        """
        silent = BadRows(self.source, self.unit, skip=True)
        lengths: dict[str, list[int]] = {}  # of the strings under each key
        others: Counter[str] = Counter()
        for count, (_, _, row) in enumerate(self._records(silent)):
            if count >= SAMPLED and any(map(self._may_be_label, lengths)):
                break
            for key, value in row.items():
                known = lengths.setdefault(key, [])
                if count < SAMPLED and isinstance(value, str):
                    known.append(len(value))
                elif count < SAMPLED and value is not None:
                    others[key] += 1
        if not lengths:
            empty = f"{self.source} is empty; it must have a JSON object a line"
            raise DataError(silent.first[0] if silent.first else empty)
        return Sample(tuple(lengths), {k: sum(v) / len(v) for k, v in lengths.items() if len(v) > others[k]})

    def rows(self, columns: Columns, bad: BadRows) -> Rows:
        """The chosen keys of all rows; those without one, or with a value of the wrong type, go to ``bad``."""
        builder = RowsBuilder(columns.roles)
        for line, ordinal, row in self._records(bad):
            try:
                builder.add(line, ordinal, [_value(row, column) for column in columns.chosen])
            except Unusable as problem:
                bad.add(line, *problem.args)
        return builder.build(read=self._last)

    def _may_be_label(self, key: str) -> bool:
        return self._label == "" or key == self._label or (self._label is None and looks_like("label", key))

    def _records(self, bad: BadRows) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """(line, ordinal, object) of each line that holds an object."""
        self._last = 0
        with opened(self._path, self.source) as lines:
            for line in lines:
                if not line.strip() and lines.broken is None:
                    continue
                self._last += 1
                if lines.broken is not None:
                    bad.add(*lines.broken, "save the file as UTF-8")
                    lines.broken = None
                    continue
                try:
                    row = _parse(line)
                except Unusable as problem:
                    bad.add(lines.number, *problem.args)
                    continue
                yield lines.number, self._last, row


def _parse(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"the line is not JSON ({error})", "write one JSON object a line") from error
    if not isinstance(row, dict):
        remedy = 'write {"text": "…", "label": "…"} on each line'
        raise Unusable(f"a line must hold a JSON object, not {_kind(row)}", remedy)
    if "\\u" in line:
        _check_surrogates(row)
    return row


def _check_surrogates(row: Mapping[str, Any]) -> None:
    try:
        for value in row.values():
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise Unusable(f"a string holds {half!a}, half of a surrogate pair", "escape both halves") from error


def _value(row: Mapping[str, Any], column: Column) -> str | None:
    """The text of a value. Raises Unusable."""
    name, role = column.name, column.role
    if name not in row:
        if role == "label" or (role == "id" and column.guessed):
            return None
        keys = ", ".join(map(repr, row)) or "none"
        raise Unusable(f"there is no key {name!r} for the {role}", f"add it (the keys are {keys})")
    value = row[name]
    if value is None or isinstance(value, str):
        return value
    if role == "label":
        return label_text(value)
    if role == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unusable(f"the {role} {name!r} must be a string, not {_kind(value)}", "put it in quotes")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
