"""``modicum label``: a project is begun, taken up, exported, reported on, and made into a study and a model."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tiny
from toy_label_store import label, taught

from modicum.annotate.model.queue import audit_items
from modicum.annotate.server import app
from modicum.annotate.store.project import ProjectStore
from modicum.testing.backbone import toy_dataset

DATA = toy_dataset(80)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been served."""
    calls: list[dict[str, Any]] = []

    def serve(folder: Path, *, announce: Callable[[str, str], None], **options: Any) -> None:
        calls.append({"folder": folder, **options})
        announce("me", "http://127.0.0.1:1/link?token=once")

    monkeypatch.setattr(app, "serve", serve)
    return calls


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the present one, with texts of which six have labels."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "message", "topic"])
        for n, (i, text, label) in enumerate(zip(DATA.ids, DATA.texts(), DATA.labels, strict=True)):
            writer.writerow([i, text, DATA.classes[label] if n < 6 else ""])
    (tmp_path / "guide.txt").write_text("Read twice.\n")
    (tmp_path / "classes.txt").write_text("class-2\nclass-0\n\nclass-1\n")
    return tmp_path


COLUMNS = ("--text", "message", "--label", "topic", "--id", "key")


def test_a_project_is_begun_and_taken_up(modicum: Run, files: Path, served: list[dict[str, Any]]) -> None:
    code, out, err = modicum(
        "label", "tickets.csv", *COLUMNS, "--classes-file", "classes.txt", "--guidelines", "guide.txt", "--no-open",
        "--per-item", 2, "--users", "anna, ben", "--retrain-every", 7, "--suggest", "after", "--blind",
        "--method", "bitfit", "--strategy", "margin",
    )  # fmt: skip
    assert code == 0, err
    assert "tickets-labels: 80 items" in out and "me: http://127.0.0.1:1/link?token=once" in out
    call = {"host": "127.0.0.1", "port": 0, "users": ("anna", "ben"), "open_browser": False}
    assert served == [{"folder": Path("tickets-labels"), **call}]
    with closing(ProjectStore(files / "tickets-labels")) as store:
        settings = store.settings
        assert settings.classes == ("class-2", "class-0", "class-1") and settings.guidelines == "Read twice.\n"
        assert (settings.per_item, settings.retrain_every, settings.suggest, settings.blind) == (2, 7, "after", True)
        assert (settings.method.name, settings.strategy.name, settings.warm_strategy) == (
            "bitfit",
            "margin",
            "typiclust",
        )
        assert settings.audit == 16, "a fifth"
        assert [row.item for row in store.resolved()] == list(range(6)), "labels that came with the data"
    for again in (["tickets-labels"], ["tickets.csv"]):
        code, out, err = modicum("label", *again, "--retrain-every", 9, "--no-open", "--port", 8123)
        assert code == 0 and "going on; 6 of 80 items have a label" in out, err
        assert served[-1] == {"folder": Path("tickets-labels"), **call, "port": 8123, "users": ()}
    with closing(ProjectStore(files / "tickets-labels")) as store:
        assert store.settings.retrain_every == 9 and store.settings.per_item == 2
    (files / "other.csv").write_text("text\na b\nc d\n")
    code, out, err = modicum("label", "other.csv", "--out", "tickets-labels", "--classes", "x,y")
    assert code == 1 and "project of other data ('tickets')" in err and len(served) == 3
    code, out, err = modicum("label", "helpdesk", "--out", "tickets-labels")
    assert code == 1 and "project of other data ('tickets')" in err and len(served) == 3
    (files / "notes.txt").write_bytes("Größe".encode("cp1252"))
    for option in ("--guidelines", "--classes-file"):
        code, out, err = modicum("label", "other.csv", option, "notes.txt")
        assert code == 1 and "notes.txt must be UTF-8 text, and is not" in err
    code, out, err = modicum("label", "other.csv", "--classes", "x,y", "--strategy", "subsample:entropi")
    assert code == 1 and "did you mean 'entropy'" in err


def test_the_shipped_messages_can_be_tried_out(modicum: Run, files: Path, served: list[dict[str, Any]]) -> None:
    code, out, err = modicum("label", "helpdesk", "--users", 3, "--audit", 10)
    assert code == 0, err
    assert served[0]["users"] == ("lead", "annotator-1", "annotator-2") and served[0]["open_browser"]
    with closing(ProjectStore(files / "helpdesk-labels")) as store:
        assert len(store.settings.classes) > 2 and store.settings.audit == 10
        assert store.settings.title == "helpdesk"
        assert not list(store.resolved()), "to be labelled anew"
    code, out, err = modicum("label", "helpdesk")
    assert code == 0 and "going on" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tikets.csv"], "did you mean 'tickets.csv'"),
        (["tickets.csv", "--method", "bitfitt"], "unknown method 'bitfitt' (did you mean 'bitfit'?)"),
        (["tickets.csv", "--strategy", "entrop"], "did you mean 'entropy'"),
        (
            ["tickets.csv", "--warm-strategy", "margin"],
            "needs a trained model: use random, kmeans, typiclust or zero-shot",
        ),
        (["tickets.csv", "--classes", "a"], "two classes or more are needed, got 'a'"),
        (["tickets.csv", "--classes", "a,b", "--classes-file", "classes.txt"], "one of the two"),
        (["tickets.csv", *COLUMNS, "--users", "0"], "a number of 1 or more"),
        (["tickets.csv", *COLUMNS, "--users", "Anna,anna"], "different names"),
        (["tickets.csv", *COLUMNS, "--retrain-every", "0"], "'retrain_every'"),
        (["tickets.csv", *COLUMNS, "--suggest", "never"], "'suggest'"),
        (["tickets.csv", *COLUMNS[:2], "--label", ""], "no labels"),
        (["."], "is a folder without a labelling project"),
        (["tickets.csv", "--report"], "holds no labelling project"),
        ([".", "--export", "csv", "--out", "x.csv"], "holds no labelling project"),
    ],
)
def test_mistakes_get_a_sentence_and_leave_nothing(
    modicum: Run, files: Path, served: list[dict[str, Any]], arguments: list[str], message: str
) -> None:
    before = sorted(files.iterdir())
    code, out, err = modicum("label", *arguments)
    assert code == 1 and err.startswith("Error: ") and message in err, err
    assert "Traceback" not in err + out and not served
    assert sorted(files.iterdir()) == before


def test_without_the_extra_it_says_what_to_install(modicum: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "uvicorn" else found(name, *a))
    code, out, err = modicum("label", "tickets.csv", *COLUMNS)
    assert code == 1 and "pip install 'modicum[web]'" in err and "uvicorn" in err
    assert not (files / "tickets-labels").exists()


def test_starting_loads_no_model_library() -> None:
    code = "import modicum.cli.label, modicum.annotate.server.app, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "transformers", "peft", "matplotlib"} & set(done.stdout.split())


@pytest.fixture
def labelled(modicum: Run, files: Path, served: list[dict[str, Any]]) -> Path:
    """A project of which 60 items are labelled, with two models."""
    tiny.save_tiny("bert", files / "base")
    told = ("--backbone", files / "base", "--method", "head", "--audit", 12, "--retrain-every", 10, "--out", "project")
    code, _, err = modicum("label", "tickets.csv", *COLUMNS, *told)
    assert code == 0, err
    folder = files / "project"
    with closing(ProjectStore(folder)) as store:
        audit = audit_items(80, 12, 0).tolist()
        order = audit + [i for i in range(80) if i not in audit]
        for model, items in ((1, order[:30]), (2, order[30:60])):
            label(store, items)
            taught(store, None, model)
    return folder


def test_one_command_each_for_model_export_report_and_study(modicum: Run, files: Path, labelled: Path) -> None:
    for model in (labelled / "models" / "2", files / "home"):
        if not model.exists():
            code, out, err = modicum("label", labelled, "--export", "model", "--out", model)
            assert code == 0 and "Trained on all 6" in out, err
        code, out, err = modicum("predict", model, "tickets.csv", *COLUMNS[:2], *COLUMNS[4:], "--out", "p.csv")
        assert code == 0 and "Classified 80 texts" in out, err
    code, out, err = modicum("label", labelled, "--export", "csv", "--out", "labels.csv")
    assert code == 0 and "Exported" in out, err
    rows = list(csv.DictReader((files / "labels.csv").open()))
    assert sum(bool(row["label"]) for row in rows) >= 60 and {row["id"] for row in rows} >= set(DATA.ids[:3])
    code, out, err = modicum("label", labelled, "--export", "csb", "--out", "labels.csv")
    assert code == 1 and "did you mean 'csv'" in err
    code, out, err = modicum("label", labelled, "--export", "csv")
    assert code == 1 and "--out" in err
    code, out, err = modicum("label", labelled, "--report")
    assert code == 0, err
    page = (labelled / "report" / "report.html").read_text()
    assert "12 by the last model; no model was trained on them" in page and "Too little evidence" in page
    results = list(csv.DictReader((labelled / "report" / "results.csv").open()))
    assert [row["round"] for row in results] == ["0", "1"] and float(results[1]["accuracy"]) <= 1
    code, out, err = modicum("label", labelled, "--replay", "again")
    assert code == 0 and "tested on 12 audit items" in out, err
    study = tomllib.loads((files / "again" / "study.toml").read_text())
    test = {json.loads(line)["id"] for line in (files / "again" / "test.jsonl").open()}
    assert test == {DATA.ids[i] for i in audit_items(80, 12, 0).tolist()} and study["strategies"] == [
        "class-balanced",
        "random",
    ]
    assert study["loop"]["batch"] == 10 and study["methods"] == ["head"]
    text = (files / "again" / "study.toml").read_text().replace("seeds = 3", "seeds = 1")
    (files / "again" / "study.toml").write_text(text + "\n[training]\nsteps = 2\n")
    code, out, err = modicum("study", "again/study.toml", "--out", "again/results")
    assert code == 0 and "2 trials" in out, err


def test_too_little_for_a_report_or_a_study_is_said(modicum: Run, files: Path, served: list[dict[str, Any]]) -> None:
    assert modicum("label", "tickets.csv", *COLUMNS, "--out", "project")[0] == 0
    code, out, err = modicum("label", "project", "--report")
    assert code == 1 and "0 trained models" in err
    code, out, err = modicum("label", "project", "--replay", "again")
    assert code == 1 and "a study needs 8 labels of two classes or more" in err and not (files / "again").exists()
