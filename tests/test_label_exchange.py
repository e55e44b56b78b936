"""Data into a labelling project and labels out of it: what comes back is what went in, byte for byte."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from modicum.annotate.store.exchange import FORMULA, cell, create_project, export, import_labels
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Adjudicated, Labelled, Marked, Skipped
from modicum.base.errors import DataError, SpecError, StoreError, UnknownName
from modicum.data.sources import load

FAITHFUL = ("jsonl", "csv", "parquet")
NASTY = [
    'He said "refund", twice',
    "two\nlines and\r\nthree\rand four",
    "  spaces around\t",
    "=1+1",
    "'quoted'",
    "ünïcödé 🙂 \u202eright to left\u202c",
    "semi;colon, comma",
    '""',
    "\ufeffmark",
    "null",
    "@sum(A1)",
    "<script>alert(1)</script>",
]


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve texts that are hard on formats, four of them labelled."""
    labels = ["=refund", "", "delivery", "", "", "=refund", "", "", "", "delivery", "", ""]
    rows = [[f"id {i},", text, label] for i, (text, label) in enumerate(zip(NASTY, labels, strict=True))]
    return write_csv(tmp_path / "data.csv", [["id", "text", "label"], *rows])


def labelled(folder: Path, data: Path) -> ProjectStore:
    """A project in which three people have done all that can be done."""
    store = create_project(folder, data, {"per_item": 3, "classes": ["=refund", "delivery", "other"]}, now=1.5)
    ann, bob = store.add_user("Ann", "annotator", None, 1.5), store.add_user("=bob", "lead", None, 1.5)
    acts: list[tuple[int, Any]] = [
        (1, Labelled(item=1, label=0)),
        (ann, Labelled(item=1, label=0)),
        (bob, Labelled(item=1, label=1)),  # a majority
        (1, Labelled(item=0, label=1)),  # against an imported label
        (1, Labelled(item=3, label=0)),
        (ann, Labelled(item=3, label=2)),  # a tie
        (ann, Skipped(item=4, reason='no "text", =1+1')),
        (bob, Marked(item=4, flag=True, note="-look\nhere")),
        (bob, Marked(item=5, note="a note on an imported label")),
        (ann, Labelled(item=6, label=1)),
        (bob, Adjudicated(item=6, label=2, version=0)),
        (bob, Adjudicated(item=7, label=1, version=0)),
    ]
    for number, (user, event) in enumerate(acts):
        store.write(event, user=user, client=f"a{number}", now=10.0 + number / 3)
    return store


@pytest.mark.parametrize("format", FAITHFUL)
def test_a_full_round_trip_is_byte_identical(tmp_path: Path, data: Path, format: str) -> None:
    first, second = tmp_path / f"first.{format}", tmp_path / f"second.{format}"
    with labelled(tmp_path / "one", data) as one:
        assert export(one, format, first) == len(NASTY)
        classes = one.settings.classes
        with create_project(tmp_path / "two", first, {"classes": classes}, now=99.0) as two:
            export(two, format, second)
            assert second.read_bytes() == first.read_bytes()
            assert [(item.id, item.text) for item in two.each_item()] == [
                (f"id {i},", text) for i, text in enumerate(NASTY)
            ]
            assert list(two.resolved()) == list(one.resolved()) and two.check() == []
            assert [user.name for user in two.users() if user.password is None][:2] == ["modicum", "me"]


@pytest.mark.parametrize("format", FAITHFUL)
def test_the_faithful_formats_are_data_files_like_any_other(tmp_path: Path, data: Path, format: str) -> None:
    with labelled(tmp_path / "p", data) as store:
        export(store, format, tmp_path / f"out.{format}")
        resolved = {item: label for item, label, _ in store.resolved()}
        classes = store.settings.classes
    found = load(tmp_path / f"out.{format}", classes=classes, for_training=False)
    assert found.texts() == NASTY and list(found.ids) == [f"id {i}," for i in range(len(NASTY))]
    assert found.labels.tolist() == [-1 if (label := resolved.get(i)) is None else label for i in range(len(NASTY))]
    assert classes == ("=refund", "delivery", "other")


def test_pairs_and_made_ids_go_round_as_well(tmp_path: Path) -> None:
    lines = [{"text": f"a {i}", "text_pair": f"b\r\n{i}", "label": "yes" if i % 2 else "no"} for i in range(6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with create_project(tmp_path / "p0", tmp_path / "pairs.jsonl", {}, now=1.0) as store:
        assert store.item(3).id.startswith("r4-") and store.texts([3]) == (["a 3"], ["b\r\n3"])
        export(store, "jsonl", tmp_path / "0.jsonl")
    for number, format in enumerate(("csv", "parquet", "jsonl")):
        before = tmp_path / f"{number}.{('jsonl', 'csv', 'parquet')[number]}"
        with create_project(tmp_path / f"p{number + 1}", before, {}, now=1.0) as store:
            export(store, format, tmp_path / f"{number + 1}.{format}")
    assert (tmp_path / "3.jsonl").read_bytes() == (tmp_path / "0.jsonl").read_bytes()


def test_labels_become_imported_events_and_classes(data: Path, tmp_path: Path) -> None:
    with create_project(tmp_path / "p", data, {"title": "Nasty"}, now=2.0) as store:
        assert store.settings.classes == ("=refund", "delivery") and store.settings.title == "Nasty"
        assert store.settings.data_name == "data" and len(store.settings.fingerprint) == 64
        assert [(e.user, e.item, e.event.kind) for e in store.events()] == [(0, i, "imported") for i in (0, 2, 5, 9)]
        assert [(a.item, a.label) for a in store.answers()] == [(0, 0), (2, 1), (5, 0), (9, 1)]
        assert store.undo(user=1, client="u", now=3.0) is None and store.check() == []


@pytest.mark.parametrize(
    ("rows", "settings", "error", "message"),
    [
        (["text", "a", "b"], {}, SpecError, "needs two classes or more, but it has no labels; name the classes"),
        (["text,label", "a,x", "b,x"], {}, SpecError, "but its labels are all 'x'; name the classes"),
        (["text,label", "a,x", "b,y"], {"classes": ["x", "z"]}, DataError, "line 3: label 'y' is not one of the"),
        (["text,label", "a,x", ",y"], {}, DataError, "line 3: the text is empty"),
        (["id,text,label", "1,a,x", "1,b,y"], {"columns": {"id": "id"}}, DataError, "line 3: id '1' already names"),
        (["text,label", "a,x", "b,y"], {"colour": "red"}, SpecError, "unknown setting 'colour'"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_is_refused(
    tmp_path: Path, rows: list[str], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    columns = settings.pop("columns", None)
    with pytest.raises(error, match=message):
        create_project(tmp_path / "p", tmp_path / "data.csv", settings, columns=columns, now=1.0)
    assert not (tmp_path / "p" / "project.sqlite").exists()


def test_bad_rows_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("text,label\na,x\n,y\nb,y\n")
    with create_project(tmp_path / "p", tmp_path / "data.csv", {}, now=1.0, skip_bad_rows=True) as store:
        assert [item.text for item in store.each_item()] == ["a", "b"]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ('[{"annotator":"Ann"}]', "cannot be read \\(Annotation: setting 'label' is missing"),
        ("[1]", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('[{"annotator":"A","label":"zz","skip":null,"flag":false,"note":"","at":1}]', "the class 'zz', which is none"),
    ],
)
def test_annotations_that_cannot_be_read_are_named(tmp_path: Path, annotations: str, message: str) -> None:
    rows = [["id", "text", "label", "how", "annotations"], ["1", "a", "x", "majority", annotations]]
    data = write_csv(tmp_path / "data.csv", rows)
    with pytest.raises(DataError, match=message):
        create_project(tmp_path / "p", data, {"classes": ["x", "y"]}, now=1.0)


def test_a_column_of_that_name_in_another_file_is_left_alone(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "data.csv", [["text", "label", "annotations"], ["a", "x", "my own"], ["b", "y", ""]])
    with create_project(tmp_path / "p", data, {}, now=1.0) as store:
        assert [label for _, label, _ in store.resolved()] == [0, 1]


# ---- labels for a project that is there ------------------------------------------------------------------------------


def test_labels_are_imported_by_id(tmp_path: Path, data: Path) -> None:
    with create_project(tmp_path / "p", data, {}, now=1.0) as store:
        store.write(Labelled(item=1, label=0), user=1, client="a", now=2.0)
        rows = [
            ["id 0,", "delivery"],
            ["id 2,", "delivery"],
            ["id 1,", "delivery"],
            ["id 8,", "=refund"],
            ["id 99", "delivery"],
        ]
        file = write_csv(tmp_path / "labels.csv", [["id", "text", "label"], *([i, "x", name] for i, name in rows)])
        found = import_labels(store, file, client="upload", now=3.0)
        assert found[:3] == (3, 1, 1) and found.problems == ["no item has the id 'id 99'"]
        again = import_labels(store, file, client="upload", now=4.0)
        assert again[:3] == (0, 4, 1) and store.check() == []
        labels = {item: (label, how) for item, label, how in store.resolved()}
        assert labels[0] == (1, "imported") and labels[8] == (0, "imported")
        assert labels[1] == (0, "majority")  # people's labels stand before imported ones
        with pytest.raises(DataError, match="label 'spam' is not one of the classes"):
            import_labels(
                store, write_csv(tmp_path / "bad.csv", [["id", "text", "label"], ["1", "x", "spam"]]), client="b", now=1
            )


# ---- other forms of export -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", FORMULA)
def test_no_cell_of_a_spreadsheet_is_a_formula(start: str) -> None:
    for value in (f"{start}cmd", f"{start}{start}cmd", f"\n{start}cmd"):
        assert cell(value) == f"'{value}"
    assert cell(" \u00a0=cmd") == "' \u00a0=cmd"
    assert cell("a" + start) == "a" + start and cell("") == ""


def test_a_spreadsheet_has_a_column_for_each_annotator(tmp_path: Path, data: Path) -> None:
    with labelled(tmp_path / "p", data) as store:
        export(store, "spreadsheet", tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_bytes().decode("utf-8-sig")
    header, *rows = list(csv.reader(io.StringIO(text, newline="")))
    assert header == [
        "id",
        "text",
        "label",
        "how",
        "me",
        "me: remarks",
        "Ann",
        "Ann: remarks",
        "'=bob",
        "'=bob: remarks",
    ]
    assert rows[1] == ["id 1,", NASTY[1], "'=refund", "majority", "'=refund", "", "'=refund", "", "delivery", ""]
    assert rows[4][6:] == ["", 'skipped: no "text", =1+1', "", "flagged; -look\nhere"]
    assert rows[3][1] == "'=1+1" and rows[10][1] == "'@sum(A1)" and rows[2][1] == NASTY[2]
    assert not any(value.lstrip().startswith(FORMULA) for row in [header, *rows] for value in row)


def test_only_labelled_items_where_asked(tmp_path: Path, data: Path) -> None:
    with labelled(tmp_path / "p", data) as store:
        n = export(store, "jsonl", tmp_path / "out.jsonl", labelled_only=True)
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert n == len(lines) == 7 and all(line["label"] for line in lines)
        assert list(lines[0]) == ["id", "text", "label", "how", "annotations"]
        assert lines[1]["annotations"][1] == {
            "annotator": "Ann", "label": "=refund", "skip": None, "flag": False, "note": "", "at": 10.0 + 1 / 3,
        }  # fmt: skip


def test_a_datasets_folder_holds_coded_labels(tmp_path: Path, data: Path) -> None:
    with labelled(tmp_path / "p", data) as store:
        assert export(store, "datasets", tmp_path / "set") == len(NASTY)
        assert export(store, "datasets", tmp_path / "set.zip") == len(NASTY)
        with pytest.raises(StoreError, match="exists and is no empty folder"):
            export(store, "datasets", tmp_path / "set")
    part = tmp_path / "set" / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(part)
    assert table["label"].to_pylist()[:4] == [1, 0, 1, None] and table["text"].to_pylist() == NASTY
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": ["=refund", "delivery", "other"], "_type": "ClassLabel"}
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.read("data/train-00000-of-00001.parquet") == part.read_bytes()


LOADED = """
import sys, datasets
data = datasets.load_dataset(sys.argv[1], split="train", cache_dir=sys.argv[2])
print(data.features["label"].names, data["label"][:4], len(data), data[1]["annotations"][0]["annotator"])
"""


def test_hugging_face_datasets_loads_the_folder(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("datasets")
    with labelled(tmp_path / "p", data) as store:
        export(store, "datasets", tmp_path / "set")
    command = [sys.executable, "-c", LOADED, str(tmp_path / "set"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.stdout.split("\n")[0] == "['=refund', 'delivery', 'other'] [1, 0, 1, None] 12 =bob", done.stderr


def test_an_export_that_fails_says_so_and_leaves_nothing(tmp_path: Path, data: Path, monkeypatch: Any) -> None:
    with create_project(tmp_path / "p", data, {}, now=1.0) as store:
        with pytest.raises(UnknownName, match="unknown format 'xlsx'"):
            export(store, "xlsx", tmp_path / "out")
        with pytest.raises(StoreError, match="cannot be written: File exists. Choose another place"):
            export(store, "csv", data / "out.csv")

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="cannot be written: No space left on device"):
            export(store, "csv", tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "p"]
