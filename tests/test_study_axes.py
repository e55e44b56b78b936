"""What a study can vary beyond methods and strategies: pretraining, shares of the data, seconds; and its parts."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_study import Watcher, backbone, data_folder, run, study

from modicum.analysis.cka import linear_cka
from modicum.analysis.claims import judge
from modicum.analysis.dynamics import forgetting
from modicum.analysis.significance import smallest_p
from modicum.base.errors import DataError, SpecError, UnknownName
from modicum.engine.engine import Engine
from modicum.report import ReportSource, write_report
from modicum.strategies import make_warm
from modicum.study import run as run_module
from modicum.study.prepare import load_data
from modicum.study.results import load_results
from modicum.study.spec import Data, Study, parse_study, read_study

PAPERS = Path(__file__).resolve().parents[1] / "papers"
STUDIES = sorted((PAPERS.parent / "benchmarks" / "studies").glob("*.toml"))
MLM = {"objective": "mlm", "epochs": 2, "batch_size": 16}


def test_the_manifest_tells_the_threads_of_trials_with_a_time_limit(tmp_path: Path) -> None:
    plain, timed = study(methods=["head"]), study(methods=["head"], training={"seconds": [0.01]})
    machines = [run(one, tmp_path / str(i)).manifest["machine"] for i, one in enumerate((plain, timed))]
    assert "threads_under_a_time_limit" not in machines[0]
    assert machines[1]["threads_under_a_time_limit"] == torch.get_num_threads()


# ---- pretraining -----------------------------------------------------------------------------------------------------


def test_pretraining_is_an_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Any] = []
    make = Engine.__init__

    def noted(self: Engine, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        starts.append(options.get("start"))

    monkeypatch.setattr(Engine, "__init__", noted)
    watcher = Watcher()
    one = {"name": "lora", "rank": 1}
    results = run(study(methods=[one, "adapter"], seeds=2, tapt=[False, MLM]), tmp_path, watcher)
    assert watcher.counts == (16, 48, 0)
    assert watcher.epochs == [("lora", 1), ("lora", 2), ("adapter", 1), ("adapter", 2)]
    assert {row["method"] for row in results.rows} == {"lora(rank=1)", "lora(rank=1) + mlm", "adapter", "adapter + mlm"}
    assert {(row["plain_method"], row["tapt"]) for row in results.rows if "mlm" in row["method"]} == {
        ("lora(rank=1)", "mlm"),
        ("adapter", "mlm"),
    }
    curves = {(c["method"], c["objective"]): c["losses"] for c in results.pretraining}
    assert curves.keys() == {("lora(rank=1)", "mlm"), ("adapter", "mlm")}
    assert all(len(losses) == 2 for losses in curves.values())
    assert sum(start is not None for start in starts) == 2  # a gang each, with both seeds and strategies
    first = [r for r in results.rows if r["round"] == 0 and r["plain_method"] == "adapter" and r["seed"] == 0]
    assert len({r["log_loss"] for r in first if r["tapt"]}) == 1 != len({r["log_loss"] for r in first})


# ---- shares and seconds ----------------------------------------------------------------------------------------------


def test_shares_of_the_data(tmp_path: Path) -> None:
    shares = study(methods=["head"], strategies=["random"], data=[{"train": "toy.csv"}, {"train": "two.csv"}])
    shares = shares.model_copy(update={"loop": shares.loop.model_copy(update={"shares": (0.1, 0.5, 1.0)})})
    watcher = Watcher()
    results = run(shares, tmp_path, watcher)
    assert watcher.counts == (2, 6, 0)
    assert [(r["dataset"], r["labels"]) for r in results.rows] == [
        ("toy", 7), ("toy", 36), ("toy", 72), ("two", 5), ("two", 24), ("two", 48)
    ]  # fmt: skip
    assert [round(r["share"], 1) for r in results.rows] == [0.1, 0.5, 1.0] * 2
    assert not results.notes  # all of the data is no early stop


def test_seconds_are_an_axis(tmp_path: Path) -> None:
    timed = study(methods=["lora"], strategies=["random"], loop={"budget": 12}, training={"seconds": [0.05, 2.0]})
    assert [training.seconds for training in timed.trainings] == [0.05, 2.0]
    results = run(timed, tmp_path)
    found = {row["allowed_seconds"]: row for row in results.rows}
    assert found.keys() == {0.05, 2.0}
    assert found[0.05]["steps"] < found[2.0]["steps"]
    assert all(row["fit_seconds"] >= allowed for allowed, row in found.items())


# ---- what is looked at -----------------------------------------------------------------------------------------------


def test_layers_and_forgetting_are_noted(tmp_path: Path) -> None:
    looked = study(methods=["lora", "head"], strategies=["random"], layer_similarity=15, keep_dynamics=True)
    results = run(looked, tmp_path)
    for row in results.rows:
        assert len(row["cka"]) == 3
        if row["method"] == "head":
            assert row["cka"] == [1.0, 1.0, 1.0]
        else:
            assert row["cka"][0] == 1.0 > row["cka"][2]  # nothing stands before the first layer
        arrays = tmp_path / "arrays" / row["trial"]
        correct, sure = (np.load(arrays / f"{row['round']}-{name}.npy") for name in ("correct", "confidence"))
        assert row["unforgettable"] == forgetting(correct, sure).unforgettable
        assert row["unforgettable"] + row["forgettable"] + row["never_learned"] == pytest.approx(1)
    last = [example for example in results.examples if example["method"] == "lora"]
    assert len(last) == 24 == len({example["id"] for example in last})
    gold = {row["id"]: row["label"] for row in csv.DictReader((data_folder() / "toy.csv").open())}
    assert all(gold[example["id"]] == example["label"] for example in last)
    events = np.array([example["forgetting_events"] for example in last])
    never = np.array([example["first_learned"] for example in last]) < 0
    row = next(r for r in results.rows if r["method"] == "lora" and r["round"] == 2)
    assert ((events == 0) & ~never).mean() == row["unforgettable"]


def test_similarity_is_with_the_untouched_backbone(tmp_path: Path) -> None:
    sets = run_module.prepare(study(methods=["lora"]), backbone(), tmp_path)
    made = study(methods=["lora"])
    trial = run_module.make_trials(made, backbone(), sets[0])[0]
    engine = run_module._engine(backbone(), sets[0], trial)
    positions = np.arange(10)
    base = engine.layers(None, positions)
    assert base.shape == (3, 10, 16) and linear_cka(base[0], base[0]) == pytest.approx(1)
    np.testing.assert_allclose(base[-1], sets[0].pool.features()[:10], atol=1e-5)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_each_data_set_has_its_own_metric(tmp_path: Path) -> None:
    data = [{"train": "toy.csv", "metric": "matthews"}, {"train": "values.csv"}]
    results = run(study(methods=["head"], strategies=["random"], data=data), tmp_path)
    assert results.metric == "score"
    own = {"toy": "matthews", "values": "pearson"}
    assert all(row["score"] == row[own[row["dataset"]]] for row in results.rows)
    assert results.notes == ["The score is matthews on toy, pearson on values."]
    with pytest.raises(SpecError, match="rmse is an error"):
        run(study(methods=["head"], data=[data[0], {"train": "values.csv", "metric": "rmse"}]), tmp_path / "c")
    with pytest.raises(UnknownName, match="metric of toy 'pearson'"):
        run(study(methods=["head"], data=[{"train": "toy.csv", "metric": "pearson"}]), tmp_path / "b")


# ---- parts and profiles ----------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "data": [{"train": "toy.csv"}, {"train": "two.csv"}],
    "methods": ["head"],
    "strategies": ["random"],
    "seeds": 1,
    "loop": {"warm_start": 12, "batch": 8, "budget": 20},
    "training": {"steps": 2},
}


def test_parts_make_up_a_study(tmp_path: Path) -> None:
    more = {"data": ["two"], "name": "long", "strategies": ["random", "badge"], "loop": {"budget": 28}}
    parts = [{}, more, {"data": ["toy"]}]
    whole = parse_study({**WHOLE, "parts": parts}, data_folder())
    assert [[d.title for d in grid.data] for grid in whole.grids] == [["toy", "two"], ["two"], ["toy"]]
    assert whole.grids[1].loop.budget == 28 and whole.grids[1].loop.warm_start == 12
    assert [choice.name for choice in whole.strategies] == ["random", "badge"]
    assert Study.model_validate_json(whole.canonical()) == whole
    watcher = Watcher()
    results = run(whole, tmp_path, watcher)
    assert watcher.counts == (4, 2 * 2 + 2 * 3, 0)  # the third part is in the first
    assert len({row["trial"] for row in results.rows}) == 4
    assert load_results(tmp_path).rows == results.rows


def test_parts_that_differ_in_what_is_not_shown_need_names(tmp_path: Path) -> None:
    stopping = {"data": ["two"], "training": {"until": "loss-plateau"}}
    with pytest.raises(
        SpecError, match=r"has head × random on two twice, in .* make \[\[parts\]\] of them, with a name"
    ):
        run(parse_study({**WHOLE, "parts": [{}, stopping]}, data_folder()), tmp_path)
    results = run(parse_study({**WHOLE, "parts": [{}, stopping | {"name": "stopped"}]}, data_folder()), tmp_path)
    assert {row["method"] for row in results.rows if row["dataset"] == "two"} == {"head", "head, stopped"}
    write_report(ReportSource(**vars(results)), tmp_path)


def test_a_part_can_get_another_name(tmp_path: Path) -> None:
    first, second = ({"name": name, "loop": {"budget": 12}} for name in ("old", "new"))
    run(parse_study({**WHOLE, "data": [{"train": "toy.csv"}], "parts": [first]}, data_folder()), tmp_path)
    watcher = Watcher()
    more = {"name": "old", "loop": {"budget": 20}}
    results = run(
        parse_study({**WHOLE, "data": [{"train": "toy.csv"}], "parts": [second, more]}, data_folder()),
        tmp_path,
        watcher,
    )
    assert watcher.counts[2] == 1, "what was done stays done"
    assert {(row["part"], row["method"]) for row in results.rows} == {("new", "head, new"), ("old", "head, old")}
    write_report(ReportSource(**vars(results)), tmp_path)


def test_what_cannot_be_pretrained_is_told_before_any_work(tmp_path: Path) -> None:
    watcher = Watcher()
    with pytest.raises(SpecError, match="Head learns nothing inside the encoder"):
        run(study(methods=["lora", "head"], tapt="mlm"), tmp_path, watcher)
    assert watcher.counts == (0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": [{"data": ["tow"]}]}, r"unknown data set 'tow' \(did you mean 'two'\?\)"),
        ({"parts": [{"metric": "accuracy"}]}, r"metric is the same for all parts .*: set it outside \[\[parts\]\]"),
        ({"parts": [{}, {"data": [{"train": "two.csv", "name": "toy"}]}]}, "data sets need different names"),
        ({"training": {"seconds": 3, "drop_forgotten": 1}}, "cannot go with seconds"),
        ({"parts": 3}, r"\[\[parts\]\] sections"),
        ({"parts": [{"strategy": "random"}]}, "unknown setting 'strategy'"),
        ({"tapt": ["mlm", {"objective": "mlm", "epochs": 3}]}, "tapt must differ from each other; mlm stands there"),
        ({"tapt": True}, 'tapt is false, "mlm", "simcse"'),
        ({"tapt": "mln"}, "'mlm' or 'simcse'"),
        ({"loop": {"shares": [0.5, 0.2]}}, "shares must rise"),
        ({"loop": {"shares": [0.5, 1.2]}}, "less than or equal to 1"),
        ({"training": {"seconds": [1, 1]}}, "seconds must differ"),
        ({"training": {"seconds": [0]}}, "greater than 0"),
        ({"layer_similarity": -1}, "greater than or equal to 0"),
        ({"layer_similarity": 3}, "CKA needs 4 texts or more"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_study({**WHOLE, **changes}, data_folder())


def test_profiles_go_over_the_file(tmp_path: Path) -> None:
    text = 'methods = ["head"]\nstrategies = ["random"]\n[[data]]\ntrain = "helpdesk"\n[loop]\nbatch = 7\nbudget = 90\n'
    (tmp_path / "s.toml").write_text(text + '[profiles.small.loop]\nbudget = 30\n[profiles.big]\nmethods = ["full"]\n')
    plain, small = read_study(tmp_path / "s.toml"), read_study(tmp_path / "s.toml", profile="small")
    assert (plain.loop.budget, small.loop.budget, small.loop.batch) == (90, 30, 7)
    assert read_study(tmp_path / "s.toml", profile="big").methods[0].name == "full"
    with pytest.raises(UnknownName, match=r"unknown profile 'smal' \(did you mean 'small'\?\)"):
        read_study(tmp_path / "s.toml", profile="smal")
    (tmp_path / "s.toml").write_text(f'{text}[[data]]\nname = "b"\ntrain = "b.csv"\n[profiles.one]\ndata = ["b"]\n')
    assert [data.title for data in read_study(tmp_path / "s.toml", profile="one").data] == ["b"]
    for profiles in ("[[profiles.small]]", "[profiles]\nsmall = 3"):
        (tmp_path / "s.toml").write_text(text + profiles)
        with pytest.raises(SpecError, match=r"a profile is a \[profiles.small\] section of settings"):
            read_study(tmp_path / "s.toml", profile="small")


@pytest.mark.parametrize("profile", [None, "small"])
@pytest.mark.parametrize("name", ["jukic-snajder-2023", "doering-2024"])
def test_the_papers_studies_can_be_read(name: str, profile: str | None) -> None:
    made = read_study(PAPERS / f"{name}.toml", profile=profile)
    assert len(made.claims) >= 6 and len(made.seeds) == 5
    assert made.grids[0].backbone.name == ("minilm" if profile else "bert-base-uncased")
    listed = tomllib.loads((PAPERS / f"{name}.toml").read_text(encoding="utf-8"))["claims"]
    assert [claim.id for claim in made.claims] == [claim["id"] for claim in listed]


@pytest.mark.parametrize("profile", [None, "small"])
@pytest.mark.parametrize("name", ["jukic-snajder-2023", "doering-2024"])
def test_the_papers_claims_can_come_out(name: str, profile: str | None) -> None:
    """Each has enough pairs of data set and seed for its p, corrected for all others, to reach 0.05."""
    made = read_study(PAPERS / f"{name}.toml", profile=profile)
    rows = [row for place, grid in enumerate(made.grids) for row in planned(grid, place)]
    for found in judge(made.claims, rows, "score"):
        assert found.n >= 10, (found.claim.id, found.reason)
        assert smallest_p(found.n) * len(made.claims) <= 0.05, found.claim.id


def planned(grid: Study, place: int) -> Iterator[dict[str, Any]]:
    """The rows that a grid will have, with noise for numbers."""
    rng = np.random.default_rng(place)
    every = product(grid.data, grid.methods, grid.strategies, grid.tapt, grid.trainings, grid.seeds)
    for i, (data, method, strategy, tapt, training, seed) in enumerate(every):
        for round_, labels in enumerate(grid.loop.schedule(2000)):
            yield {
                "trial": f"{place}-{i}", "dataset": data.title,
                "backbone": "b", "method": method.label, "plain_method": method.label, "part": grid.name,
                "tapt": tapt.objective if tapt else "", "strategy": strategy.label, "seed": seed, "round": round_,
                "labels": labels, "share": labels / 2000, "score": rng.random(), "cka": rng.random(7).tolist(),
                "allowed_seconds": training.seconds, "unforgettable": rng.random(), "often_forgotten": rng.random(),
            }  # fmt: skip


# ---- rows of a split -------------------------------------------------------------------------------------------------


def test_only_the_rows_of_a_split(tmp_path: Path) -> None:
    rows = [("text", "label", "part"), *((f"word {i}", "ab"[i % 2], "xy"[i >= 20]) for i in range(40))]
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    path = str(tmp_path / "d.csv")
    train, test = load_data(Data(train=path, where={"part": "y"}))
    assert sorted([*train.texts(), *test.texts()]) == sorted(f"word {i}" for i in range(20, 40))
    with pytest.raises(DataError, match="no row has 'z' in column 'part'; it holds 'x', 'y'"):
        load_data(Data(train=path, where={"part": "z"}))
    with pytest.raises(DataError, match="has no split column 'prat'"):
        load_data(Data(train=path, where={"prat": "x"}))


def test_classes_made_rare(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"text {i}", "label": ("spam", "ham", "news")[i % 3]} for i in range(600)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    train, test = load_data(Data(train=str(path), class_shares={"spam": 0.05}))
    for part in (train, test):
        counts = dict(zip(part.classes, np.bincount(part.labels, minlength=3).tolist(), strict=True))
        assert counts["ham"] == counts["news"] and counts["spam"] / len(part) == pytest.approx(0.05, abs=0.005)
    assert load_data(Data(train=str(path), class_shares={"spam": 0.05}))[0].fingerprint == train.fingerprint
    assert len(load_data(Data(train=str(path)))[0]) == 480
    for shares, message in (
        ({"spma": 0.05}, "names classes of the data"),
        ({"spam": 0.6, "ham": 0.5}, "leaves the others a share"),
        ({"spam": 0.5}, "wants 320 rows of 'spam'"),
    ):
        with pytest.raises(SpecError, match=message):
            load_data(Data(train=str(path), class_shares=shares))


def test_some_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"text {i}", "label": "ab"[i % 10 == 0]}) for i in range(600)))
    whole, tested = load_data(Data(train=str(path), class_shares={"b": 0.05}))
    train, test = load_data(Data(train=str(path), class_shares={"b": 0.05}, train_rows=100, test_rows=20))
    assert (len(train), len(test)) == (100, 20) and set(test.texts()) < set(tested.texts())
    order = {text: place for place, text in enumerate(whole.texts())}
    places = [order[text] for text in train.texts()]
    assert places == sorted(places) and places != list(range(100))
    again = load_data(Data(train=str(path), class_shares={"b": 0.05}, train_rows=100, test_rows=10_000))
    assert again[0].fingerprint == train.fingerprint and again[1].fingerprint == tested.fingerprint


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_benchmarks_are_sound(path: Path) -> None:
    made = read_study(path)
    assert made.claims and all(len(grid.seeds) == 5 for grid in made.grids)
    for grid in made.grids:
        assert grid.loop.warm_start <= grid.loop.budget
        make_warm(grid.loop.warm_strategy)
