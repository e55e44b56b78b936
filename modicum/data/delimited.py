"""Rows of csv and tsv files.

A csv field may be quoted and then hold separators, line breaks and doubled quotes (RFC 4180). A tsv row ends where its
line ends and a quote in it is a character like any other, except that a field quoted as a whole loses its quotes: tsv
files of the field are full of lone quotes, which a csv reader would take for the beginning of a text of many lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from modicum.base.errors import DataError
from modicum.data.columns import Columns, Sample
from modicum.data.findings import BadRows, Unit
from modicum.data.labels import NUMBER
from modicum.data.lines import Lines, opened
from modicum.data.rows import Rows, RowsBuilder

FIELD_LIMIT = 1_000_000
SAMPLED = 1_000

CSV_ERRORS = {
    "unexpected end of data": ("a quote that opens here is never closed", "close it"),
    "expected after": ("a quoted field goes on after its closing quote", 'double the quotes inside it ("")'),
    "field larger than": (f"a field has more than {FIELD_LIMIT:,} characters", "shorten it, or close its quote"),
    "new-line character": ("a carriage return stands alone", "end the lines of the file with line feeds"),
}


class DelimitedReader:
    """A file whose first row names the columns; empty lines are no rows."""

    unit: ClassVar[Unit] = "line"

    def __init__(self, path: Path, source: str, format: Literal["csv", "tsv"]) -> None:
        self.source = source
        self.notes: list[str] = []
        self._path = path
        self._format = format
        self._last = 0
        self._separator = "\t"
        if format == "csv":
            self._separator = self._guess_separator()

    def sample(self) -> Sample:
        """The header, and the mean length of each column over the first rows, in which numbers count nothing.

        Raises:
            DataError: the file is empty, or its header cannot be read.
        """
        with opened(self._path, self.source) as lines:
            header = self._header(lines)[0]
        rows = [fields for _, _, fields in islice(self._records(BadRows(self.source, self.unit, skip=True)), SAMPLED)]
        lengths = [sum(map(_length, column)) / len(rows) for column in zip(*rows, strict=True)]
        return Sample(header, dict(zip(header, lengths or [0.0] * len(header), strict=True)))

    def rows(self, columns: Columns, bad: BadRows) -> Rows:
        """The chosen columns of all rows; those with a wrong number of fields or broken bytes go to ``bad``."""
        with opened(self._path, self.source) as lines:
            header = self._header(lines)[0]
        wanted = [header.index(name) for name in columns.names]
        builder = RowsBuilder(columns.roles)
        for line, ordinal, fields in self._records(bad):
            builder.add(line, ordinal, [fields[at] for at in wanted])
        return builder.build(read=self._last)

    def _records(self, bad: BadRows) -> Iterator[tuple[int, int, Sequence[str]]]:
        """(line, ordinal, fields) of each row that has as many fields as the header."""
        self._last = 0
        with opened(self._path, self.source) as lines:
            header, reader = self._header(lines)
            while True:
                start = lines.number + 1
                try:
                    fields, problem = _next(reader)
                except StopIteration:
                    return
                if problem is None and len(fields) != len(header):
                    if _is_blank(fields):
                        continue
                    problem = self._miscounted(fields, header)
                self._last += 1
                if lines.broken is not None:
                    start, why = lines.broken
                    problem, lines.broken = (why, "save the file as UTF-8"), None
                if problem is not None:
                    bad.add(start, *problem)
                    continue
                yield start, self._last, _unquoted(fields) if self._format == "tsv" else fields

    def _header(self, lines: Lines) -> tuple[tuple[str, ...], Any]:
        """The columns' names, and the csv reader that stands behind them."""
        csv.field_size_limit(max(csv.field_size_limit(), FIELD_LIMIT))
        quoting: Any = csv.QUOTE_NONE if self._format == "tsv" else csv.QUOTE_MINIMAL
        reader = csv.reader(lines, delimiter=self._separator, quoting=quoting, strict=True)
        try:
            fields = next((fields for fields in reader if fields), None)
        except csv.Error as error:
            why, remedy = _explain(error)
            raise DataError(f"{self.source}, line {lines.number}: {why}; {remedy}") from error
        if fields is None:
            raise DataError(f"{self.source} is empty; it must have a row of column names and rows of data")
        if lines.broken:
            raise DataError(f"{self.source}, line {lines.broken[0]}: {lines.broken[1]}; save the file as UTF-8")
        return tuple(name.strip() for name in (_unquoted(fields) if self._format == "tsv" else fields)), reader

    def _guess_separator(self) -> str:
        """A comma, unless the header has none of it and has semicolons or tabs, as some spreadsheets write them."""
        with opened(self._path, self.source) as lines:
            first = next((line for line in lines if line.strip()), "")
        other = next((mark for mark in (";", "\t") if mark in first and "," not in first), None)
        if other:
            self.notes.append(f"separator = {other!r} (guessed)")
        return other or ","

    def _miscounted(self, fields: Sequence[str], header: Sequence[str]) -> tuple[str, str]:
        """Why a row of another length than the header is bad, and what to do."""
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        why = f"the row has {count}, the header {len(header)} ({', '.join(header)})"
        if self._format == "tsv":
            return why, "a field can hold no tab and no line break, even in quotes: save such texts as csv or jsonl"
        return why, f"quote a field that holds {self._separator!r} or a line break"


def _next(reader: Any) -> tuple[list[str], tuple[str, str] | None]:
    """The next row, and (why, remedy) where it cannot be parsed."""
    try:
        return next(reader), None
    except csv.Error as error:
        return [], _explain(error)


def _is_blank(fields: Sequence[str]) -> bool:
    return len(fields) < 2 and not "".join(fields).strip()


def _length(field: str) -> int:
    return 0 if NUMBER.fullmatch(field) else len(field)


def _unquoted(fields: Sequence[str]) -> list[str]:
    return [_bare(field) if field[:1] == '"' else field for field in fields]


def _bare(field: str) -> str:
    inner = field[1:-1]
    whole = len(field) > 1 and field.endswith('"') and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else field


def _explain(error: csv.Error) -> tuple[str, str]:
    said = str(error)
    return next((words for sign, words in CSV_ERRORS.items() if sign in said), (said, "mend the row"))
