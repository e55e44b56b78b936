"""Loading a data set from a file or the hub: ``load`` is the one door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import pyarrow.compute as pc

from modicum.base.errors import DataError, UnknownName, did_you_mean
from modicum.base.types import Task
from modicum.data.checks import check
from modicum.data.columns import Columns, Sample, choose
from modicum.data.dataset import Dataset
from modicum.data.delimited import DelimitedReader
from modicum.data.findings import BadRows, LoadReport, Role, Unit
from modicum.data.jsonl import JsonLinesReader
from modicum.data.labels import Wanted, class_names
from modicum.data.rows import Rows
from modicum.data.tables import HubReader, ParquetReader

Format = Literal["csv", "tsv", "jsonl", "parquet"]
HUB = "hub:"
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


class Reader(Protocol):
    """What ``load`` asks of a source; ``unit`` is what a row's place counts, ``notes`` go into the report."""

    source: str
    notes: list[str]

    @property
    def unit(self) -> Unit:
        """Lines or rows."""

    def sample(self) -> Sample:
        """The columns, for choosing among them."""

    def rows(self, columns: Columns, bad: BadRows) -> Rows:
        """The chosen columns of all rows that can be read; the others go to ``bad``."""


def load(
    path: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    pair: str | None = None,
    id: str | None = None,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    skip_bad_rows: bool = False,
    format: Format | None = None,
    labels_required: bool = False,
    for_training: bool = True,
    where: tuple[str, str] | None = None,
    name: str | None = None,
) -> Dataset:
    """Load a csv, tsv, jsonl or parquet file (the text formats also gzipped), or ``hub:NAME[/CONFIG][:SPLIT]``.

    text, label, pair, id: column names; None guesses (the report says so), "" means that there is no such column.
    task, classes: see ``modicum.data.labels``; by default the labels decide.
    skip_bad_rows: leave out rows that cannot be used, and count them in the report, instead of refusing the first.
    format: needed only where the file's name does not end in it.
    labels_required: a row without a label is a bad row.
    for_training: there must be two classes or more and two rows of each; False for test sets and pools.
    where: a column and a value: only rows that have it there are taken.
    name: the data set's name, by default the file's.

    Raises:
        DataError: the source or one of its rows cannot be used; the message names file and line (or row), from 1.
        SpecError: the arguments contradict one another.
    """
    wanted = Wanted(task, class_names(classes), for_training, labels_required)
    named: dict[Role, str | None] = {"text": text, "pair": pair, "label": label, "id": id}
    named["split"] = where[0] if where else ""
    reader = open_source(path, format, label)
    sample = reader.sample()
    columns = choose(sample, named, reader.source)
    if labels_required and columns.of("label") is None:
        there = ", ".join(map(repr, sample.names))
        what = f"{reader.source} must have labels, but none of its columns {there} looks like them"
        raise DataError(f"{what}; name the label column")
    bad = BadRows(reader.source, reader.unit, skip_bad_rows)
    rows = reader.rows(columns, bad)
    if not rows.read:
        raise DataError(f"{reader.source} names columns but has no rows of data; add some")
    if where:
        rows = _only(rows, where, reader)
    id_column = columns.of("id")
    checked = check(rows, wanted, bad, id_guessed=id_column is not None and id_column.guessed)
    if checked.guessed_id_repeats and id_column is not None:
        columns = replace(columns, chosen=tuple(column for column in columns.chosen if column.role != "id"))
        reader.notes.append(f"{id_column.name!r} cannot serve as the id: {checked.guessed_id_repeats}")
    report = LoadReport(
        source=reader.source,
        columns=columns.chosen,
        notes=tuple(reader.notes),
        rows_read=rows.read,
        rows_skipped=bad.count,
        reasons=tuple(bad.first),
    )
    return Dataset.of(checked, _name_of(path) if name is None else name, report)


def _only(rows: Rows, where: tuple[str, str], reader: Reader) -> Rows:
    column, value = where
    values = rows.columns["split"]
    same = pc.fill_null(pc.equal(values, value), False).to_numpy(zero_copy_only=False)
    if not same.any():
        there = ", ".join(repr(v) for v in pc.unique(values).to_pylist()[:10])
        raise DataError(f"{reader.source}: no row has {value!r} in column {column!r}; it holds {there}")
    reader.notes.append(f"only the {same.sum():,} of {len(same):,} rows with {value!r} in column {column!r}")
    return rows.keep(same).without("split")


def open_source(path: str | Path, format: Format | None = None, label: str | None = None) -> Reader:
    """The reader of a source.

    Raises:
        DataError: there is no such file, or its format is unknown.
    """
    if format is not None and format not in get_args(Format):
        raise UnknownName("format", format, get_args(Format))
    source = str(path)
    if source.startswith(HUB):
        return HubReader(source.removeprefix(HUB), source)
    path = Path(path)
    check_is_file(path)
    match format or _format_of(path):
        case "parquet":
            return ParquetReader(path, source)
        case "jsonl":
            return JsonLinesReader(path, source, label)
        case "csv":
            return DelimitedReader(path, source, "csv")
        case "tsv":
            return DelimitedReader(path, source, "tsv")


def check_is_file(path: Path) -> None:
    """Refuse what is not a file, with what there is instead.

    Raises:
        DataError: nothing is there, or a folder.
    """
    if path.is_file():
        return
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if _suffix(file) in SUFFIXES)
        raise DataError(f"{path} is a folder; give a data file{' in it: ' + ', '.join(files[:10]) if files else ''}")
    folder = path.parent
    if not folder.is_dir():
        raise DataError(f"there is no file {path}, nor a folder {folder}; check the path")
    names = [file.name for file in folder.iterdir()]
    near = did_you_mean(path.name, names)
    data = sorted(name for name in names if _suffix(Path(name)) in SUFFIXES)
    others = f"; data files in {folder}: {', '.join(data[:10])}" if data and not near else ""
    raise DataError(f"there is no file {path}{near}{others}; check the path")


def _format_of(path: Path) -> Format:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        hint = "; write one JSON object a line and call it .jsonl" if suffix == ".json" else ""
        raise DataError(
            f"{path}: a data file's name must end in {', '.join(SUFFIXES)} (the text formats also in .gz),"
            f" got {suffix or 'no suffix'!r}{did_you_mean(suffix, SUFFIXES)}{hint}; rename it or say its format"
        )
    return SUFFIXES[suffix]


def _suffix(path: Path) -> str:
    """The last suffix but ``.gz``, in lower case."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _name_of(path: str | Path) -> str:
    name = str(path)
    return name.removeprefix(HUB) if name.startswith(HUB) else Path(Path(name).name.removesuffix(".gz")).stem
