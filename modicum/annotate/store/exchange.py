"""Data files into a project, and labels out of it.

Every export holds, for each item, its id, texts, label and how that came about (see ``Verdict``), and the annotators'
own answers. The faithful formats (``jsonl``, ``csv``, ``parquet``) can be made into a project again, which exports the
same bytes. ``datasets`` is a folder (or a zip of one) that Hugging Face datasets loads, with a ``ClassLabel``.
``spreadsheet`` is for reading by eye: no cell in it can be taken for a formula.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modicum.annotate.store.history import COLUMNS, PAIRED, Annotation, annotations_of, told_before
from modicum.annotate.store.project import Answer, Item, Past, ProjectStore
from modicum.annotate.store.records import MODICUM, Imported, Settings
from modicum.annotate.store.tables import judge
from modicum.base.errors import SpecError, StoreError, UnknownName
from modicum.base.files import atomic_write
from modicum.base.spec import digest
from modicum.data.dataset import Dataset
from modicum.data.ids import BLOCK
from modicum.data.sources import Format, load

Export = Literal["jsonl", "csv", "parquet", "datasets", "spreadsheet"]
PAGE = 4_096
CHUNK = 1_000
"""Imported labels that are written at a time, so that people's labels get in between."""
SHOWN = 5
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What makes a spreadsheet program compute a cell that begins with it."""
PARQUET = "data/train-00000-of-00001.parquet"


class Imports(NamedTuple):
    """What became of a file of labels: how many are new, were there already, or are for no item of the project."""

    imported: int
    same: int
    unknown: int
    problems: list[str]


class Exported(NamedTuple):
    """One item as it goes out. label: a class's position."""

    item: Item
    label: int | None
    how: str | None
    annotations: list[Annotation]


# ---- in --------------------------------------------------------------------------------------------------------------


def create_project(
    out: str | Path,
    data: str | Path,
    settings: Mapping[str, Any],
    *,
    columns: Mapping[str, str | None] | None = None,
    now: float,
    skip_bad_rows: bool = False,
    format: Format | None = None,
) -> ProjectStore:
    """A new project in the folder ``out``, from a data file or ``hub:NAME``; its labels, if any, are imported.

    settings: those of ``Settings`` that are not to be as usual; ``classes`` where the labels do not say them all.
    columns: text, pair, label and id, as for ``load``.

    Raises:
        DataError: the data cannot be used.
        SpecError: a setting cannot be used, or there are no classes.
        StoreError: the project cannot be made there.
    """
    given = {**settings}
    classes = given.pop("classes", None)
    named = columns or {}
    dataset = load(
        data, text=named.get("text"), pair=named.get("pair"), label=named.get("label"), id=named.get("id"),
        task="classification", classes=classes, skip_bad_rows=skip_bad_rows, format=format, for_training=False,
    )  # fmt: skip
    chosen = {column.role: column.name for column in dataset.report.columns}
    history: list[Past] = []
    if all(chosen.get(role) == role for role in ("id", "text", "label")):
        dataset, history = told_before(data, format, dataset, fixed=classes is not None)
    if len(dataset.classes) < 2:
        found = f"its labels are all {dataset.classes[0]!r}" if dataset.classes else "it has no labels"
        raise SpecError(f"{data}: labelling needs two classes or more, but {found}; name the classes (--classes a,b,c)")
    labels = dataset.labels.copy()
    labels[[past.event.item for past in history]] = -1  # what people said of these comes with the history
    made = {"title": dataset.name, "data_name": dataset.name} | given
    made |= {"fingerprint": dataset.fingerprint, "classes": dataset.classes}
    return ProjectStore.create(out, Settings.parse(made), _rows(dataset), labels, now=now, history=history)


def _rows(dataset: Dataset) -> Iterator[tuple[str, str, str | None]]:
    ids = iter(dataset.ids)
    for start in range(0, len(dataset), BLOCK):
        at = np.arange(start, min(start + BLOCK, len(dataset)))
        pairs: Sequence[str | None] = dataset.pairs(at) or [None] * len(at)
        yield from zip(islice(ids, len(at)), dataset.texts(at), pairs, strict=True)


def import_labels(
    store: ProjectStore, path: str | Path, *, client: str, now: float, format: Format | None = None
) -> Imports:
    """Labels from a file, for the items of the project that have its ids; they take the place of imported ones.

    They are written a thousand at a time. The same call again goes on where the first one ended.

    Raises:
        DataError: the file cannot be used; a label in it is none of the project's classes.
    """
    dataset = load(
        path, task="classification", classes=store.settings.classes, for_training=False, labels_required=True,
        format=format,
    )  # fmt: skip
    problems = []
    if all(column.role != "id" for column in dataset.report.columns):
        problems.append("the file has no column of ids: its rows were looked up by their numbers and contents")
    imported = same = unknown = 0
    for start in range(0, len(dataset), CHUNK):
        at = np.arange(start, min(start + CHUNK, len(dataset)))
        ids = list(dataset.ids[start : start + len(at)])
        positions = store.positions_of(ids)
        present = {a.item: a.label for a in store.answers(positions.values()) if a.user == MODICUM}
        new = []
        for id, label in zip(ids, dataset.labels[at].tolist(), strict=True):
            if id not in positions:
                unknown += 1
                if unknown <= SHOWN:
                    problems.append(f"no item has the id {id!r}")
            elif present.get(positions[id]) == label:
                same += 1
            else:
                new.append(Imported(item=positions[id], label=label))
        if new:
            part = digest(client, [event.canonical() for event in new])
            store.write_many(new, user=MODICUM, client=f"{client[:100]}/{part}", now=now)
            imported += len(new)
    return Imports(imported, same, unknown, problems)


# ---- out -------------------------------------------------------------------------------------------------------------


def export(store: ProjectStore, format: str, out: str | Path, *, labelled_only: bool = False) -> int:
    """Write the project's items to a file, or for ``datasets`` to a new folder; returns how many.

    out: where it ends in ``.zip``, ``datasets`` is written as one file. labelled_only: leave out items without a label.

    Raises:
        UnknownName: there is no such format.
        StoreError: the file cannot be written.
    """
    if format not in get_args(Export):
        raise UnknownName("format", format, get_args(Export))
    out = Path(out)
    rows = _exported(store, labelled_only)
    try:
        if format != "datasets":
            with atomic_write(out, "wb") as file:
                return WRITERS[format](store, rows, file)
        if out.suffix == ".zip":
            with atomic_write(out, "wb") as file, zipfile.ZipFile(file, "w") as archive:
                return _zipped(store, rows, archive)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StoreError(f"{out} exists and is no empty folder; choose another name for the data set's folder")
        with atomic_write(out / PARQUET, "wb") as file:
            return _parquet(store, rows, file, coded=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}. Choose another place") from error


def _zipped(store: ProjectStore, rows: Iterator[Exported], archive: zipfile.ZipFile) -> int:
    with archive.open(zipfile.ZipInfo(PARQUET), "w", force_zip64=True) as file:
        return _parquet(store, rows, file, coded=True)


def _exported(store: ProjectStore, labelled_only: bool) -> Iterator[Exported]:
    users = {user.user: user.name for user in store.users()}
    classes = store.settings.classes
    items = store.each_item()
    while page := list(islice(items, PAGE)):
        answers: dict[int, list[Answer]] = {}
        for answer in store.answers([item.item for item in page]):
            answers.setdefault(answer.item, []).append(answer)
        for item in page:
            given = answers.get(item.item, [])
            verdict = judge(item.item, given) if given else None
            label, how = (None, None) if verdict is None else (verdict.label, verdict.how)
            if label is not None or not labelled_only:
                yield Exported(item, label, how, annotations_of(given, how, users, classes) if given else [])


def _jsonl(store: ProjectStore, rows: Iterable[Exported], file: IO[bytes]) -> int:
    classes, n = store.settings.classes, 0
    for n, row in enumerate(rows, 1):  # noqa: B007
        item = row.item
        fields: dict[str, Any] = {"id": item.id, "text": item.text}
        fields |= {} if item.pair is None else {"pair": item.pair}
        fields |= {"label": None if row.label is None else classes[row.label], "how": row.how}
        fields["annotations"] = [annotation.model_dump() for annotation in row.annotations]
        file.write(f"{_json(fields)}\n".encode())
    return n


def _csv(store: ProjectStore, rows: Iterable[Exported], file: IO[bytes]) -> int:
    classes, n = store.settings.classes, 0
    with _text(file) as text:
        writer = csv.writer(text)  # its line ends make it quote both kinds of line break inside of a field
        paired = _paired(store)
        writer.writerow(PAIRED if paired else COLUMNS)
        for n, row in enumerate(rows, 1):  # noqa: B007
            said = _json([annotation.model_dump() for annotation in row.annotations]) if row.annotations else ""
            label = "" if row.label is None else classes[row.label]
            pair = [row.item.pair] if paired else []
            writer.writerow([row.item.id, row.item.text, *pair, label, row.how or "", said])
    return n


def _spreadsheet(store: ProjectStore, rows: Iterable[Exported], file: IO[bytes]) -> int:
    """A column for each annotator's label, and for each one's remarks."""
    classes, n = store.settings.classes, 0
    names = [user.name for user in store.users() if user.user != MODICUM]
    paired = _paired(store)
    file.write("\ufeff".encode())  # some programs take the file for an older encoding without
    with _text(file) as text:
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        heads = [
            *(PAIRED if paired else COLUMNS)[:-1],
            *(f"{name}{end}" for name in names for end in ("", ": remarks")),
        ]
        writer.writerow(map(cell, heads))
        for n, row in enumerate(rows, 1):  # noqa: B007
            said = {annotation.annotator: annotation for annotation in row.annotations}
            label = "" if row.label is None else classes[row.label]
            values = [row.item.id, row.item.text, *([row.item.pair or ""] if paired else []), label, row.how or ""]
            values += [value for name in names for value in _remarks(said.get(name))]
            writer.writerow(map(cell, values))
    return n


def _remarks(said: Annotation | None) -> tuple[str, str]:
    if said is None:
        return "", ""
    parts = ["flagged"] if said.flag else []
    parts += [f"skipped: {said.skip}"] if said.skip is not None else []
    return said.label or "", "; ".join([*parts, said.note] if said.note else parts)


def cell(value: str) -> str:
    """A spreadsheet's cell that no program takes for a formula: an apostrophe leads what may look like one."""
    value = value.replace("\0", "")
    return f"'{value}" if value.startswith(FORMULA) or value.lstrip().startswith(FORMULA) else value


def _parquet(store: ProjectStore, rows: Iterator[Exported], file: IO[bytes], *, coded: bool = False) -> int:
    """coded: labels are a ``ClassLabel``'s numbers; by name otherwise."""
    classes, paired, n = store.settings.classes, _paired(store), 0
    schema = _schema(classes, paired, coded)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while page := list(islice(rows, BLOCK)):
            labels: list[Any] = [row.label for row in page]
            if not coded:
                labels = [None if label is None else classes[label] for label in labels]
            columns: dict[str, list[Any]] = {
                "id": [row.item.id for row in page],
                "text": [row.item.text for row in page],
                "pair": [row.item.pair for row in page],
                "label": labels,
                "how": [row.how for row in page],
                "annotations": [[annotation.model_dump() for annotation in row.annotations] for row in page],
            }
            writer.write_table(pa.table({name: columns[name] for name in schema.names}, schema))
            n += len(page)
    return n


def _schema(classes: Sequence[str], paired: bool, coded: bool) -> pa.Schema:
    """The columns' types; where labels are coded, with the features that Hugging Face datasets reads."""
    said = {
        "annotator": "string",
        "label": "string",
        "skip": "string",
        "flag": "bool",
        "note": "string",
        "at": "float64",
    }
    types: dict[str, pa.DataType] = dict.fromkeys(PAIRED if paired else COLUMNS, pa.string())
    types["label"] = pa.int64() if coded else pa.string()
    types["annotations"] = pa.list_(pa.struct([(name, pa.type_for_alias(kind)) for name, kind in said.items()]))
    schema = pa.schema(list(types.items()))
    if not coded:
        return schema
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in types}
    features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    features["annotations"] = [{name: {"dtype": kind, "_type": "Value"} for name, kind in said.items()}]
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _paired(store: ProjectStore) -> bool:
    return store.count() > 0 and store.item(0).pair is not None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _text(io.TextIOWrapper):
    """UTF-8 text into a binary file that stays open."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8", newline="")

    def __exit__(self, *_: object) -> None:
        self.flush()
        self.detach()


WRITERS: dict[str, Callable[[ProjectStore, Iterator[Exported], IO[bytes]], int]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "spreadsheet": _spreadsheet,
}
