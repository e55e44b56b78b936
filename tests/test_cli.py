"""The command line, as a person or a script uses it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from modicum.auto.advice import shipped_knowledge
from modicum.auto.recipes import shipped_table
from modicum.testing.backbone import toy_dataset


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a tiny encoder, a labelled file, and a file half labelled."""
    tiny.save_tiny("bert", tmp_path / "base")
    data = toy_dataset(48)
    rows = [(i, t, data.classes[c]) for i, t, c in zip(data.ids, data.texts(), data.labels, strict=True)]
    for name, kept in (("train.csv", 48), ("half.csv", 24)):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["key", "message", "topic"])
            writer.writerows((i, text, label if n < kept else "") for n, (i, text, label) in enumerate(rows))
    return tmp_path


COLUMNS = ("--text", "message", "--label", "topic", "--id", "key")


def test_fit_predict_select_export(modicum, files: Path) -> None:
    model = files / "model"
    code, out, err = modicum(
        "fit", files / "train.csv", *COLUMNS, "--out", model, "--backbone", files / "base", "--set", "rank=2",
        "--epochs", 1, "--labels-at", 30, "--test", files / "train.csv", "--precision", "fp32",
    )  # fmt: skip
    assert code == 0, err
    assert "Trained lora on 30 labels in 100 steps" in out and "macro_f1" in out
    assert json.loads((model / "modicum.json").read_text())["method"] == {"name": "lora", "options": {"rank": 2}}
    for suffix in ("csv", "jsonl", "parquet"):
        code, out, err = modicum(
            "predict", model, files / "half.csv", *COLUMNS[:2], *COLUMNS[4:], "--out", files / f"p.{suffix}"
        )
        assert code == 0 and "Classified 48 texts" in out, err
    by_csv = list(csv.DictReader((files / "p.csv").open()))
    by_jsonl = [json.loads(line) for line in (files / "p.jsonl").open()]
    by_parquet = pq.read_table(files / "p.parquet").to_pylist()
    assert len(by_csv) == 48 and by_jsonl == by_parquet
    assert {row["prediction"] for row in by_csv} <= {"class-0", "class-1", "class-2"}
    assert [row["id"] for row in by_csv] == [row["id"] for row in by_jsonl]
    code, out, err = modicum(
        "select", model, files / "half.csv", *COLUMNS, "--strategy", "coreset", "-k", 5, "--out", files / "s.jsonl"
    )
    assert code == 0, err
    free = {row["key"] for row in csv.DictReader((files / "half.csv").open()) if not row["topic"]}
    chosen = [json.loads(line)["id"] for line in (files / "s.jsonl").open()]
    assert len(set(chosen)) == 5 and set(chosen) <= free
    code, out, err = modicum("export", model, "--out", files / "plain")
    assert code == 0 and (files / "plain" / "model.safetensors").is_file(), err


def test_sought_labels_of_a_file(modicum, files: Path) -> None:
    rows = list(csv.DictReader((files / "train.csv").open()))
    few = [row for row in rows if row["topic"] == "class-0"][:2] + [row for row in rows if row["topic"] == "class-1"]
    (files / "few.csv").write_text("message,topic\n" + "".join(f"{row['message']},{row['topic']}\n" for row in few))
    sure = []
    for more in ((), ("--sought",)):
        asked = ("fit", files / "few.csv", *COLUMNS[:4], "--out", files / "model", "--backbone", files / "base")
        assert modicum(*asked, "--method", "auto", *more)[0] == 0
        assert modicum("predict", files / "model", files / "train.csv", *COLUMNS[:2], "--out", files / "p.csv")[0] == 0
        sure.append(sum(float(row["p(class-0)"]) for row in csv.DictReader((files / "p.csv").open())))
    assert sure[0] < sure[1]


def test_advice(modicum, files: Path) -> None:
    asked = ("advise", files / "train.csv", *COLUMNS, "--backbone", files / "base", "--labels", 200, "--minutes", 9)
    code, out, err = modicum(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["labels"] == 48 and found["classes"] == {"class-0": 16, "class-1": 16, "class-2": 16}
    assert [one["labels"] for one in found["forecast"]] == [48, 72, 96, 192, 200]
    assert all(one["low"] <= one["value"] <= one["high"] for one in found["forecast"])
    assert found["strategy"] == "class-balanced" and found["recipe"] in {one.name for one in shipped_table().recipes}
    code, out, err = modicum(*asked, "--labels-at", 30)
    assert code == 0, err
    assert "30 labels in 3 classes" in out and "Label next by class-balanced" in out and "such intervals" in out
    checked = shipped_knowledge().checked
    assert found["checked"] == json.loads(checked.model_dump_json())
    assert f"Of {checked.forecasts} such intervals" in out and f"{100 * checked.held:.0f} % held" in out
    rows = list(csv.DictReader((files / "train.csv").open()))
    drawn = np.random.default_rng(0).permutation([row["topic"] for row in rows])
    lines = [f"{row['key']},{row['message']},{topic}\n" for row, topic in zip(rows, drawn, strict=True)]
    (files / "drawn.csv").write_text("key,message,topic\n" + "".join(lines))
    code, guessed, err = modicum(*asked[:1], files / "drawn.csv", *asked[2:])
    assert code == 0, err
    assert "hardly tells the models from guesses" in guessed and "hardly tells the models from guesses" not in out
    named = ("--classes", "class-0,class-1,class-2,never")
    code, open_, err = modicum(*asked, *named)
    assert code == 0, err
    assert "wider for it: never (0), with fewer than 5" in open_ and "wider for it" not in out
    for more, message in (
        (("--classes", "class-0"), "two classes or more are needed"),
        (("--classes", "class-0,class-1"), "'class-2'"),
        (("--labels", 20), "more than the 48 that there are"),
        (("--labels-at", 10), "--labels-at must be 20 or more for advice"),
    ):
        code, out, err = modicum(*asked[:6], *more)
        assert code == 1 and message in err, (out, err)


@pytest.mark.parametrize("command", ["dynamics", "cka", "shares"])
def test_three_questions_about_ones_labels(modicum, files: Path, command: str) -> None:
    asked = (command, files / "train.csv", *COLUMNS, "--out", files / "out", "--backbone", files / "base")
    asked += ("--methods", "lora, head", "--seeds", 2, "--epochs", 2, "--max-length", 32, "--shares", "0.5,1")
    code, out, err = modicum(*asked)
    assert code == 0, err
    assert "4 trials, 8 rounds" in out
    rows = list(csv.DictReader((files / "out" / "results.csv").open()))
    assert {(row["method"], row["labels"]) for row in rows} == {
        (m, n) for m in ("lora", "head") for n in (("20", "39") if command != "dynamics" else ("22", "45"))
    }
    page = (files / "out" / "report.html").read_text()
    assert ("How far do layers move?" in page) == (command == "cka")
    assert (files / "out" / "examples.csv").is_file() == (command == "dynamics")
    if command == "dynamics":
        examples = list(csv.DictReader((files / "out" / "examples.csv").open()))
        assert len(examples) == 4 * 45 and len({row["id"] for row in examples}) == 45
        assert set(examples[0]) >= {"method", "seed", "id", "label", "forgetting_events", "first_learned", "confidence"}
        assert {row["label"] for row in examples} == {"class-0", "class-1", "class-2"}
    code, out, err = modicum(*asked)
    assert code == 0 and "8 of them done before" in out


def test_pretraining_before_a_fit(modicum, files: Path) -> None:
    told = ("--out", files / "model", "--backbone", files / "base", "--tapt", "simcse", "--epochs", 1)
    code, out, err = modicum("fit", files / "half.csv", *COLUMNS, *told)
    assert code == 0, err
    assert out.count("Pretraining on 48 texts") == 10 and "Trained lora on 24 labels" in out
    kept = json.loads((files / "model" / "modicum.json").read_text())
    assert "simcse" in json.dumps(kept)
    code, out, err = modicum("fit", files / "half.csv", *COLUMNS, *told[:4], "--tapt", "cloze")
    assert code == 1 and "'mlm' or 'simcse'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shares", "FILES/train.csv", "--label", "topic", "--out", "x", "--shares", "a,b"], "numbers such as 0.1,0.3"),
        (["shares", "FILES/train.csv", "--label", "topic", "--out", "x", "--shares", "1,0.5"], "shares must rise"),
        (["cka", "FILES/train.csv", "--label", "topic", "--out", "x", "--methods", "loar"], "did you mean 'lora'"),
        (["dynamics", "FILES/train.csv", "--label", "topic", "--out", "x", "--seeds", "0"], "seeds must be a count"),
        (["study", "STUDY", "--out", "x", "--profile", "small"], "unknown profile 'small'"),
        (["fit", "FILES/train.csv", "--out", "x", "--method", "bitfitt"], "did you mean 'bitfit'"),
        (["fit", "FILES/trane.csv", "--out", "x"], "did you mean 'train.csv'"),
        (["fit", "FILES/train.csv", "--out", "x", "--label", "tpoic"], "topic"),
        (["fit", "FILES/train.csv", "--out", "x", "--label", "topic", "--set", "rank"], "--set takes name=value"),
        (
            ["fit", "FILES/train.csv", "--out", "x", "--label", "topic", "--labels-at", "999"],
            "--labels-at must be 2 to 48",
        ),
        (
            ["fit", "FILES/train.csv", "--out", "x", "--label", "topic", "--backbone", "./nowhere"],
            "folder './nowhere' does not exist",
        ),
        (["fit", "FILES/train.csv", "--out", "x", "--label", "topic", "--precision", "fp8"], "unknown precision 'fp8'"),
        (["predict", "FILES", "FILES/train.csv", "--out", "x.csv"], "is no Modicum model"),
        (["predict", "FILES", "FILES/train.csv", "--out", "x.txt"], "--out must end in .csv, .jsonl, .parquet"),
        (["select", "FILES", "FILES/train.csv", "--out", "x.csv", "--strategy", "entrop"], "did you mean 'entropy'"),
        (["study", "FILES/none.toml", "--out", "x"], "does not exist"),
        (["report", "FILES"], "holds no study"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(
    modicum, files: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)  # where "x" is written
    names = {"FILES": str(files), "STUDY": str(study_file(files))}
    code, out, err = modicum(*(a.replace("FILES", names["FILES"]).replace("STUDY", names["STUDY"]) for a in arguments))
    assert code == 1
    assert err.startswith("Error: ") and message in err
    assert "Traceback" not in err + out


def study_file(files: Path, **changes: object) -> Path:
    settings = {"methods": '["lora", "head"]', "strategies": '["random", "entropy"]', "seeds": "2", **changes}
    lines = [f"{name} = {value}" for name, value in settings.items()]
    lines += [
        "[[data]]",
        'train = "train.csv"',
        'text = "message"',
        'label = "topic"',
        "[backbone]",
        f'name = "{files / "base"}"',
    ]
    lines += ["[loop]", "warm_start = 10", "batch = 5", "budget = 20", "[training]", "steps = 4"]
    path = files / "study.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_study_reports_and_resumes(modicum, files: Path) -> None:
    file, out_dir = study_file(files), files / "out"
    code, out, err = modicum("study", file, "--out", out_dir)
    assert code == 0, err
    assert "8 trials, 24 rounds" in out and "Report: " in out
    for name in ("report.html", "summary.md", "summary.tex", "results.csv"):
        assert (out_dir / name).stat().st_size > 200
    first = (out_dir / "results.csv").read_bytes()
    assert len(first.splitlines()) == 25
    code, out, err = modicum("study", file, "--out", out_dir, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["event"] for e in events] == ["started", "finished"], "a finished study trains nothing again"
    assert (out_dir / "results.csv").read_bytes() == first
    code, out, err = modicum("report", out_dir)
    assert code == 0 and (out_dir / "results.csv").read_bytes() == first


def test_lists_are_made_from_the_plugins(modicum) -> None:
    code, out, _ = modicum("methods", "--json")
    assert code == 0 and {"lora", "full", "peft:…"} <= {row["name"] for row in json.loads(out)}
    code, out, _ = modicum("strategies", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["mc-entropy"]["needs"] == ["mc_proba"] and rows["mc-entropy"]["settings"] == {"passes": 10}
    assert all(row["summary"] for row in rows.values())
    code, out, _ = modicum("methods")
    assert "lora" in out and "rank=8" in out


def test_doctor(modicum, files: Path) -> None:
    code, out, err = modicum("doctor", "--backbone", files / "base", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["batches"].startswith("packed rows"), err
    tiny.save_tiny("mpnet", files / "mpnet")
    code, out, err = modicum("doctor", "--backbone", files / "mpnet")
    assert "padded batches (its attention cannot take packed rows)" in out


def test_help_and_version_are_light() -> None:
    script = "import sys; sys.argv = ['modicum', '--help']\nfrom modicum.cli.main import app\n"
    script += "try:\n    app()\nexcept SystemExit:\n    pass\n"
    script += "print([m for m in ('torch', 'transformers', 'sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
