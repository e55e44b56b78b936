"""The ``annotations`` of an item: each annotator's own answer, as exports hold it, and back into events."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from modicum.annotate.store.records import MODICUM, Adjudicated, Answering, Imported, Labelled, Marked, Skipped
from modicum.annotate.store.tables import Answer
from modicum.annotate.store.writing import Past
from modicum.base.errors import DataError, SpecError
from modicum.base.spec import Record
from modicum.data.dataset import Dataset
from modicum.data.jsonl import JsonLinesReader
from modicum.data.labels import class_order
from modicum.data.lines import opened
from modicum.data.sources import Format, open_source
from modicum.data.tables import ParquetReader

COLUMNS = ("id", "text", "label", "how", "annotations")
PAIRED = ("id", "text", "pair", "label", "how", "annotations")


class Annotation(Record):
    """One annotator's answer. at: seconds since the epoch."""

    annotator: str
    label: str | None
    skip: str | None
    flag: bool
    note: str
    at: float


def annotations_of(
    answers: Iterable[Answer], how: str | None, users: Mapping[int, str], classes: Sequence[str]
) -> list[Annotation]:
    """All that annotators said of an item, by name; the project's own answer too where they or a lead spoke."""
    said = [answer for answer in answers if answer.answered or answer.flag or answer.note]
    if how != "adjudicated" and all(answer.user == MODICUM for answer in said):
        return []
    made = [
        Annotation(
            annotator=users[a.user], label=None if a.label is None else classes[a.label], skip=a.skip, flag=a.flag,
            note=a.note, at=a.at,
        )
        for a in said
    ]  # fmt: skip
    return sorted(made, key=lambda annotation: annotation.annotator.lower())


def told_before(
    path: str | Path, format: Format | None, dataset: Dataset, *, fixed: bool
) -> tuple[Dataset, list[Past]]:
    """What the annotations of an exported file say was done, oldest first; nothing where the file is none.

    The data set comes back with the classes that only annotations name, unless its classes are fixed.

    Raises:
        DataError: an annotation cannot be read, or names a class that there is not.
    """
    said = [row for row in _rows(path, format) if row[0] in dataset.ids]
    names = {a.label for _, _, annotations in said for a in annotations if a.label is not None}
    if not fixed and not names <= set(dataset.classes):
        dataset = dataset.with_classes(class_order(names | set(dataset.classes)))
    missing = sorted(names - set(dataset.classes))
    if missing:
        raise DataError(f"{path}: annotations name the class {missing[0]!r}, which is none of the classes; add it")
    labels = {name: label for label, name in enumerate(dataset.classes)}
    positions = dataset.ids.positions_of([id for id, _, _ in said]).tolist() if said else []
    past = [
        event
        for item, (_, how, annotations) in zip(positions, said, strict=True)
        for annotation in annotations
        for event in _events(item, how, annotation, labels)
    ]
    return dataset, sorted(past, key=lambda event: event.at)


def _events(item: int, how: str, said: Annotation, labels: Mapping[str, int]) -> list[Past]:
    label = None if said.label is None else labels[said.label]
    events: list[Answering] = []
    if said.annotator == "modicum":
        if label is None:
            return []
        decided = how == "adjudicated"
        own = Adjudicated(item=item, label=label) if decided else Imported(item=item, label=label)
        return [Past("me" if decided else "modicum", said.at, own)]
    if label is not None:
        events.append(Labelled(item=item, label=label))
    elif said.skip is not None:
        events.append(Skipped(item=item, reason=said.skip))
    if said.flag or said.note:
        events.append(Marked(item=item, flag=said.flag, note=said.note))
    return [Past(said.annotator, said.at, event) for event in events]


def _rows(path: str | Path, format: Format | None) -> Iterator[tuple[str, str, list[Annotation]]]:
    """(id, how, annotations) of each annotated row of an exported file; nothing of any other file."""
    if str(path).startswith("hub:"):
        return
    reader = open_source(path, format)
    if reader.sample().names not in (COLUMNS, PAIRED):
        return
    if isinstance(reader, ParquetReader):
        rows = _parquet(Path(path))
    else:
        rows = _jsonl(Path(path)) if isinstance(reader, JsonLinesReader) else _delimited(Path(path))
    for row in rows:
        try:
            said = row["annotations"]
            said = json.loads(said) if isinstance(said, str) and said else said
            if said:
                yield str(row["id"]), row["how"] or "", [Annotation.parse(fields) for fields in said]
        except (ValueError, TypeError, RecursionError, SpecError) as error:
            raise DataError(
                f"{path}: the annotations of {row['id']!r} cannot be read ({error}); leave out the column, or mend it"
            ) from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["id", "how", "annotations"]):
            yield from batch.to_pylist()


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with opened(path, str(path)) as lines:
        for line in lines:
            if '"annotations":[{' in line:
                yield json.loads(line)


def _delimited(path: Path) -> Iterator[dict[str, Any]]:
    with opened(path, str(path)) as lines:
        yield from csv.DictReader(lines)
