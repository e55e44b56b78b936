"""Loading files: four formats, columns named or guessed, and bad input named by file and line."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modicum.base.errors import DataError, SpecError
from modicum.data.dataset import Dataset
from modicum.data.ids import BLOCK
from modicum.data.sources import load

TEXTS = ['He said "no", twice', "two\nlines", "naïve café ☕", "a\ttab", "plain", "=1+1"]
LABELS = ["b", "a", "b", None, "a", None]
GOOD = "text,label\none,a\ntwo,b\nthree,a\nfour,b\n"


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def write(content: str | bytes, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def write_all(folder: Path, columns: dict[str, list[Any]]) -> list[Path]:
    """The same columns as csv, jsonl and parquet, and the text formats gzipped."""
    rows = list(zip(*columns.values(), strict=True))
    with (folder / "d.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(columns), *rows])
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    (folder / "d.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "d.ndjson").write_text("\n\n".join(json.dumps(json.loads(line), ensure_ascii=False) for line in lines))
    pq.write_table(pa.table(columns), folder / "d.parquet")
    for name in ("d.csv", "d.jsonl"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (LABELS, {}),
        ([2, 10, 2, None, 10, None], {}),
        ([3.8, 0.1, None, 5.0, 2.4, 1e-7], {}),
        ([1.0, 2.0, 1.0, 2.0, None, None], {}),
        (LABELS, {"text_pair": TEXTS[::-1], "id": ["p", "q", "r", "s", "t", "u"]}),
        ([True, False, True, False, True, False], {"id": [6, 5, 4, 3, 2, 1]}),
    ],
)
def test_every_format_gives_the_same_data(tmp_path: Path, labels: list[Any], more: dict[str, list[Any]]) -> None:
    files = write_all(tmp_path, {"text": TEXTS, "label": labels, **more})
    listed = Dataset.from_lists(TEXTS, labels, pairs=more.get("text_pair"), ids=more.get("id"))
    for file in files:
        data = load(file)
        assert data.texts() == TEXTS, file
        assert data.classes == listed.classes
        np.testing.assert_array_equal(data.labels, listed.labels)
        assert list(data.ids) == list(listed.ids)
        assert data.fingerprint == listed.fingerprint
    assert len(files) == 6


def test_single_precision_targets_are_the_numbers_that_were_meant(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": pa.array([3.8, 0.1], pa.float32())}), tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet").labels.tolist() == [3.8, 0.1]


def test_more_rows_than_a_block(tmp_path: Path) -> None:
    n = BLOCK + 3
    columns: dict[str, list[Any]] = {"text": [f"text number {i}" for i in range(n)], "label": [i % 3 for i in range(n)]}
    prints = set()
    for file in write_all(tmp_path, columns):
        data = load(file)
        assert (len(data), data.texts([n - 1]), data.labels[-1]) == (n, [f"text number {n - 1}"], (n - 1) % 3)
        assert data.ids[n - 1].startswith(f"r{n}-")
        prints.add(data.fingerprint)
    assert len(prints) == 1


def test_name_is_the_files_format_can_be_said_and_gzip_is_known_by_content(put: Any) -> None:
    assert load(put(gzip.compress(GOOD.encode()), "mails.csv.gz")).name == "mails"
    assert load(put(GOOD), name="m").name == "m"
    assert len(load(put(GOOD, "mails.txt"), format="csv")) == 4
    assert len(load(put(GOOD, "mails.csv.gz"))) == 4
    assert len(load(put(gzip.compress(GOOD.encode()), "MAILS.CSV"))) == 4


def test_tsv_keeps_lone_quotes_and_unwraps_whole_fields(put: Any) -> None:
    data = load(put('text\tlabel\n"lone\ta\nsay ""x""\tb\n"both, ""sides"""\ta\nend"\tb\n', "d.tsv"))
    assert data.texts() == ['"lone', 'say ""x""', 'both, "sides"', 'end"']


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators_are_guessed_from_the_header(put: Any, mark: str) -> None:
    data = load(put(GOOD.replace(",", mark)))
    assert data.texts() == ["one", "two", "three", "four"]
    assert f"separator = {mark!r} (guessed)" in data.report.lines()


def test_byte_order_mark_line_ends_and_empty_lines(put: Any) -> None:
    data = load(put("\ufeff" + GOOD.replace("\n", "\r\n").replace("two", '"t\r\nwo"') + "\r\n   \r\n"))
    assert data.texts() == ["one", "t\r\nwo", "three", "four"]
    assert load(put("\ufeff\n" + GOOD)).report.rows_read == 4
    assert load(put('\ufeff{"text": "a"}\n\n', "d.jsonl")).texts() == ["a"]


def test_long_texts_up_to_the_limit_are_read(put: Any) -> None:
    text = "x" * 1_000_000
    assert load(put(f"text\n{text}\n")).texts() == [text]


def test_guessed_columns_are_reported(put: Any) -> None:
    data = load(put("guid,Message,category,sentence2\n7,hello,x,p\n8,you,y,q\n9,there,x,r\n10,all,y,s\n"))
    assert list(data.ids) == ["7", "8", "9", "10"]
    assert data.pairs() == ["p", "q", "r", "s"]
    assert data.report.lines() == [
        "text = 'Message' (guessed)",
        "label = 'category' (guessed)",
        "pair = 'sentence2' (guessed)",
        "id = 'guid' (guessed)",
        "4 rows read, 0 left out",
        "classification, 2 classes (x 2, y 2); 4 labelled, 0 unlabelled",
    ]


def test_named_columns_win_and_empty_names_mean_none(put: Any) -> None:
    path = put("text,title,label,id\na b,one,x,5\nc d,two,x,5\n")
    data = load(path, text="title", label="", id="")
    assert data.texts() == ["one", "two"]
    assert [str(column) for column in data.report.columns] == ["text = 'title'"]
    assert data.labelled_positions().tolist() == []


def test_the_longest_strings_are_the_text_where_no_name_is_known(tmp_path: Path) -> None:
    words = ["a long sentence", "another one"]
    for file in write_all(tmp_path, {"code": ["x1", "x2"], "wording": words, "size": [10**17, 10**17], "id": [1, 2]}):
        assert load(file).report.lines()[0] == "text = 'wording' (guessed)", file


def test_a_guessed_id_must_be_unique(put: Any) -> None:
    data = load(put("id,text\n1,a\n2,b\n1,c\n"))
    assert data.ids[0].startswith("r1-")
    assert "'id' cannot serve as the id: line 4: id '1' already names line 2" in data.report.lines()
    assert "'id' cannot serve as the id: line 3 has none" in load(put("id,text\n1,a\n,b\n1,c\n")).report.lines()


def test_a_label_key_that_comes_late_is_found(put: Any) -> None:
    rows = [{"text": f"t{i}"} for i in range(1500)] + [{"text": f"u{i}", "label": i % 2} for i in range(4)]
    assert load(put("\n".join(map(json.dumps, rows)), "d.jsonl")).labelled_positions().tolist() == [
        1500,
        1501,
        1502,
        1503,
    ]


def test_json_texts_are_guessed_in_spite_of_a_bad_row(put: Any) -> None:
    path = put('{"text": 5, "x": "long long string"}\n{"text": "a", "x": ""}\n{"text": "b", "x": ""}\n', "d.jsonl")
    assert load(path, skip_bad_rows=True).texts() == ["a", "b"]


# (content, what it is called, options, message after the path)
BAD_ROWS = [
    ("text,label\none,a\ntwo\n", "d.csv", {}, ", line 3: the row has 1 field, the header 2 (text, label); quote a fie"),
    ("text,label\none,a\ntwo, b, c\n", "d.csv", {}, ", line 3: the row has 3 fields, the header 2 (text, label)"),
    ('text,label\n"one\n\nmore",a\n"t\nwo",b,c\n', "d.csv", {}, ", line 5: the row has 3 fields"),
    ('text,label\n"one\n\nmore",a\n,b\n', "d.csv", {}, ", line 5: the text is empty; write it, or delete the row"),
    ('text,label\none,a\n"two"s,b\n', "d.csv", {}, ", line 3: a quoted field goes on after its closing quote; double"),
    ('text,label\none,a\n"two,b\nthree,b\n', "d.csv", {}, ", line 3: a quote that opens here is never closed; close i"),
    ("text\tlabel\none\ta\ntwo\n", "d.tsv", {}, ", line 3: the row has 1 field, the header 2 (text, label); a field c"),
    (b"text,label\none,a\n\"a\ncaf\xe9\",b\n", "d.csv", {}, ", line 4: byte 23 (0xe9) is not UTF-8; save the file as"),
    (b'{"text": "a"}\n{"text": "caf\xe9"}\n', "d.jsonl", {}, ", line 2: byte 27 (0xe9) is not UTF-8; save the file as"),
    ("text,label\none,1.5\ntwo,NaN\n", "d.csv", {}, ", line 3: the target 'NaN' is not finite; correct it, or leave"),
    ("text,label\none,1.5\ntwo,inf\n", "d.csv", {}, ", line 3: the target 'inf' is not finite"),
    ("text,label\none,1\ntwo,x\n", "d.csv", {"task": "regression"}, ", line 3: the label 'x' is not a number, as regr"),
    ('{"text": "a", "label": 0.5}\n{"text": "b", "label": Infinity}\n', "d.jsonl", {}, ", line 2: the target 'inf' is"),
    ('{"text": "a", "label": 0.5}\n{"text": "b", "label": 1e999}\n', "d.jsonl", {}, ", line 2: the target 'inf' is"),
    ("text,id\none,1\ntwo,2\nthree,1\n", "d.csv", {"id": "id"}, ", line 4: id '1' already names line 2; give every ro"),
    ("text,id\none,1\ntwo,\n", "d.csv", {"id": "id"}, ", line 3: the id is empty; give every row an id of its own"),
    (f"text\none\n{'x' * 1_000_001}\ntwo\n", "d.csv", {}, ", line 3: a field has more than 1,000,000 characters"),
    (f"text\none\n{'é' * 600_000}\ntwo\n", "d.csv", {}, ", line 3: the text has 1,200,000 bytes, more than 1,000,000"),
    (json.dumps({"text": "x" * 1_000_001}) + '\n{"text": "a"}', "d.jsonl", {}, ", line 1: the text has 1,000,001 byte"),
    ('{"text": "a"}\n\n{"text": "b"\n', "d.jsonl", {}, ", line 3: the line is not JSON (Expecting ',' delimiter"),
    ('{"text": "a"}\n["b"]\n', "d.jsonl", {}, ', line 2: a line must hold a JSON object, not an array; write {"text":'),
    ('{"text": "a"}\n' + "[" * 200_000 + "\n", "d.jsonl", {}, ", line 2: the line is not JSON"),
    ('{"text": "a"}\n{"txt": "b"}\n', "d.jsonl", {}, ", line 2: there is no key 'text' for the text; add it (the keys"),
    ('{"text": "a"}\n{"text": null}\n', "d.jsonl", {}, ", line 2: the text is empty"),
    ('{"text": "a"}\n{"text": "b"}\n{"text": 3}\n', "d.jsonl", {}, ", line 3: the text 'text' must be a string, not a"),
    ('{"text": "a"}\n{"text": "\\ud83d"}\n', "d.jsonl", {}, ", line 2: a string holds '\\ud83d', half of a surrogate"),
    ('{"text": "a"}\n{"text": "b\\u0000"}\n', "d.jsonl", {}, ", line 2: the text holds a NUL character; remove it"),
    ('{"text": "a"}\n{"text": "b", "label": [1]}\n', "d.jsonl", {}, ", line 2: a label must be a string or a number,"),
    ('{"text": "a", "id": 1}\n{"text": "b", "id": 1.5}\n', "d.jsonl", {"id": "id"}, ", line 2: the id 'id' must be a"),
    (GOOD + "five,\n", "d.csv", {"labels_required": True}, ", line 6: the row has no label; label it, or delete the r"),
    (GOOD + "five,c\n", "d.csv", {}, ", line 6: class 'c' occurs only once among the labelled rows; add a second"),
    (GOOD + "five,c\n", "d.csv", {"classes": ["a", "b"]}, ", line 6: label 'c' is not one of the classes 'a', 'b'"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "name", "options", "message"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_and_line(put: Any, content: Any, name: str, options: Any, message: str) -> None:
    path = put(content, name)
    with pytest.raises(DataError, match=re.escape(f"{path}{message}")) as refusal:
        load(path, for_training="once" in message, **options)
    assert str(refusal.value).endswith(", or leave such rows out with --skip-bad-rows (skip_bad_rows=True)")


@pytest.mark.parametrize(("content", "name", "options", "message"), BAD_ROWS)
def test_bad_rows_can_be_left_out(put: Any, content: Any, name: str, options: Any, message: str) -> None:
    path = put(content, name)
    data = load(path, skip_bad_rows=True, for_training="once" in message, **options)
    assert data.report.rows_skipped == 1
    assert data.report.reasons[0].startswith(f"{path}{message}")
    assert len(data) == data.report.rows_read - 1 >= 1


def test_rows_left_out_do_not_move_the_ids_of_the_others(put: Any) -> None:
    whole = load(put("text\none\ntwo\nthree\n"))
    assert [list(whole.ids)[at] for at in (0, 2)] == list(load(put("text\none\nt,wo\nthree\n"), skip_bad_rows=True).ids)


def test_the_report_names_the_first_rows_left_out_and_counts_the_rest(put: Any) -> None:
    path = put(GOOD + "x,y,z\n" * 7)
    lines = load(path, skip_bad_rows=True).report.lines()
    assert lines[2] == "11 rows read, 7 left out"
    assert [line.split(":")[0] for line in lines[3:8]] == [f"  {path}, line {n}" for n in range(6, 11)]
    assert lines[8] == "  and 2 more"


def test_a_lone_class_leaves_the_classes_when_its_row_is_left_out(put: Any) -> None:
    data = load(put(GOOD + "five,aa\nsix,\n"), skip_bad_rows=True)
    assert (data.classes, data.labels.tolist()) == (("a", "b"), [0, 1, 0, 1, -1])


def test_no_row_left(put: Any) -> None:
    path = put("text\na,b\n")
    with pytest.raises(DataError, match=r"none of 1 rows can be used; the first: .*, line 2: the row has 2 fields"):
        load(path, skip_bad_rows=True)


@pytest.mark.parametrize(
    ("content", "name", "options", "message"),
    [
        ("", "d.csv", {}, "d.csv is empty; it must have a row of column names and rows of data"),
        ("\ufeff\n\n", "d.csv", {}, "d.csv is empty"),
        ("", "d.jsonl", {}, "d.jsonl is empty; it must have a JSON object a line"),
        ("not json\n", "d.jsonl", {}, "d.jsonl, line 1: the line is not JSON"),
        ("text,label\n", "d.csv", {}, "d.csv names columns but has no rows of data; add some"),
        (GOOD, "d.csv", {"text": "txt"}, "d.csv has no text column 'txt' (did you mean 'text'?); its columns are 'tex"),
        ('{"text": "a"}\n', "d.jsonl", {"label": "y"}, "d.jsonl has no label column 'y'; its columns are 'text'"),
        ("text,x\na,b\n", "d.csv", {"labels_required": True}, "must have labels, but none of its columns 'text', 'x'"),
        ("text,text\na,b\n", "d.csv", {}, "d.csv: there are two columns 'text'; rename one of them"),
        ("text,label\na,x\nb,x\n", "d.csv", {}, "d.csv: training needs two classes or more, but all 2 labelled rows a"),
        ("text\na\0b\n", "d.csv", {}, "d.csv, line 2: a text file must hold no NUL byte, but byte 6 is one"),
        ("text\na\n".encode("utf-16"), "d.csv", {}, "is it UTF-16 or not a text? save it as UTF-8"),
        (b"t\xe9xt,label\na,b\n", "d.csv", {}, "d.csv, line 1: byte 1 (0xe9) is not UTF-8; save the file as UTF-8"),
        ("text,label\ra,b\r", "d.csv", {}, "line 1: a carriage return stands alone; end the lines of the file with li"),
        (GOOD, "d.xlsx", {}, "d.xlsx: a data file's name must end in .csv, .tsv, .jsonl, .ndjson, .parquet"),
        ("[]", "d.json", {}, "got '.json' (did you mean '.jsonl'?); write one JSON object a line and call it .jsonl"),
        (GOOD, "d", {}, "got 'no suffix'"),
        (GOOD, "d.parquet", {}, "d.parquet is not a parquet file that can be read"),
        (gzip.compress(GOOD.encode())[:-12], "d.csv.gz", {}, "d.csv.gz cannot be read: "),
        (b"\x1f\x8bnonsense", "d.csv.gz", {}, "d.csv.gz cannot be read: "),
    ],
)  # fmt: skip
def test_whole_files_are_refused(put: Any, content: Any, name: str, options: Any, message: str) -> None:
    path = put(content, name)
    for skip in (False, True):
        with pytest.raises(DataError, match=re.escape(message)):
            load(path, skip_bad_rows=skip, **options)


def test_no_such_file(put: Any, tmp_path: Path) -> None:
    put(GOOD, "reviews.csv")
    with pytest.raises(DataError, match=r"there is no file .*review.csv \(did you mean 'reviews.csv'\?\); check"):
        load(tmp_path / "review.csv")
    with pytest.raises(DataError, match=r"there is no file .*zz; data files in .*: reviews.csv; check the path"):
        load(tmp_path / "zz")
    with pytest.raises(DataError, match=r"nor a folder .*nowhere; check the path"):
        load(tmp_path / "nowhere" / "x.csv")
    with pytest.raises(DataError, match=r"is a folder; give a data file in it: reviews.csv"):
        load(tmp_path)


def test_contradictory_arguments(put: Any) -> None:
    path = put(GOOD)
    with pytest.raises(SpecError, match=r"unknown format 'cvs' \(did you mean 'csv'\?\)"):
        load(path, format="cvs")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="column 'text' is named both as the text and as the label"):
        load(path, text="text", label="text")
    with pytest.raises(SpecError, match="a data set needs a text column"):
        load(path, text="")
    with pytest.raises(DataError, match="none of the columns 'label' looks like a text"):
        load(put("label\na\nb\n"))


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "d.parquet")
    return folder / "d.parquet"


def test_parquet_types(tmp_path: Path) -> None:
    text = pa.array(["a", "b", "a", "b"]).dictionary_encode()
    for label in (pa.array([1, 0, 1, 0], pa.uint8()), pa.array(["1", "0", "1", "0"]).dictionary_encode()):
        data = load(parquet(tmp_path, text=text, label=label))
        assert (data.texts(), data.classes, data.labels.tolist()) == (["a", "b", "a", "b"], ("0", "1"), [1, 0, 1, 0])
    assert load(parquet(tmp_path, text=pa.array(["é", "b"], pa.large_string()), label=pa.nulls(2))).texts() == [
        "é",
        "b",
    ]
    decimals = pa.array([1, 2, 1, 2], pa.decimal128(5, 2))
    assert load(parquet(tmp_path, text=pa.array(["a"] * 4, pa.string()), label=decimals)).classes == ("1", "2")
    assert load(parquet(tmp_path, text=pa.array([b"a", b"b"]))).texts() == ["a", "b"]


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=["a", None, "c"], label=[0.5, 1.0, float("nan")])
    with pytest.raises(DataError, match=re.escape(f"{path}, row 2: the text is empty; write it, or delete")):
        load(path)
    report = load(path, skip_bad_rows=True).report
    assert report.reasons[1].startswith(f"{path}, row 3: the target 'nan' is not finite")


def test_parquet_with_broken_utf8(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=pa.array([b"a", b"caf\xe9", b"c"]), label=["x", "x", "x"])
    with pytest.raises(DataError, match=re.escape(f"{path}, row 2: byte 3 (0xe9) of the text is not UTF-8")):
        load(path)
    data = load(path, skip_bad_rows=True, for_training=False)
    assert (data.texts(), [id[:3] for id in data.ids]) == (["a", "c"], ["r1-", "r3-"])


def test_parquet_columns_must_suit_their_roles(tmp_path: Path) -> None:
    path = parquet(tmp_path, body=["a", "b"], n=[1, 2], label=[[1], [2]])
    with pytest.raises(DataError, match="the text column 'n' must hold strings, but holds int64; columns of strings"):
        load(path, text="n")
    with pytest.raises(DataError, match="the label column 'label' must hold strings or numbers, but holds list"):
        load(path)
    with pytest.raises(DataError, match="names columns but has no rows"):
        load(parquet(tmp_path, text=pa.array([], pa.string())))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=[f"text {i}" for i in range(5000)])
    content = bytearray(path.read_bytes())
    content[4:4000] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(DataError, match="d.parquet is damaged"):
        load(path)
