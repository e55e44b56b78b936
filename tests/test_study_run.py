"""Studies from end to end, on toy data and a backbone of a few thousand random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from toy_study import Watcher, count_jobs, data_folder, events, run, study

from modicum.base.errors import SpecError, UnknownName
from modicum.base.events import Asked, Told, Trained
from modicum.base.types import Signal
from modicum.engine.engine import Engine
from modicum.report import TIMING_COLUMNS, ReportSource, write_report
from modicum.strategies import STRATEGIES
from modicum.strategies.base import Selection, Strategy, View, unscored
from modicum.study.results import DATABASE
from modicum.study.store import Store
from modicum.testing.backbone import toy_dataset

# ---- a whole grid ----------------------------------------------------------------------------------------------------


def test_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = count_jobs(monkeypatch)
    watcher = Watcher()
    results = run(study(seeds=2), tmp_path, watcher)
    grid = {(m, s, seed) for m in ("head", "lora(rank=1)") for s in ("random", "badge") for seed in (0, 1)}
    rounds = {(0, 12), (1, 20), (2, 24)}
    found = [(r["method"], r["strategy"], r["seed"], r["round"], r["labels"]) for r in results.rows]
    assert sorted(found) == sorted((*trial, *at) for trial in grid for at in rounds)
    assert watcher.counts == (8, 24, 0) and len(watcher.heard) == 24
    assert {r["labels"] for _, r in watcher.heard} == {12, 20, 24}
    for row in results.rows:
        assert {"macro_f1", "accuracy", "matthews", "log_loss", "train_loss", *TIMING_COLUMNS} <= row.keys()
        assert row.keys().isdisjoint({"seconds", "test_seconds", "stop_predictions"})
        assert (row["dataset"], row["backbone"], row["steps"]) == ("toy", "fake", 6)
        assert row["parameters"] == {"head": 51, "lora(rank=1)": 51 + 448}[row["method"]]
    assert results.metric == "macro_f1" and results.notes == []

    # strategies of a seed share the first round: one job for both, and one result
    for method in ("Head", "LoRA"):
        own = [job for bank in jobs for job in bank if job[0] == method]
        assert [own.count((method, 0, seed)) for seed in (0, 1)] == [1, 1]
        assert [own.count((method, round_, seed)) for round_ in (1, 2) for seed in (0, 1)] == [2, 2, 2, 2]
    first = {(r["method"], r["seed"]): {r["log_loss"] for r in results.rows if r["round"] == 0} for r in results.rows}
    assert len(next(iter(first.values()))) == 4
    for method, seed in first:
        mine = [r for r in results.rows if (r["method"], r["seed"], r["round"]) == (method, seed, 0)]
        assert len({r["log_loss"] for r in mine}) == len({r["train_loss"] for r in mine}) == 1

    # warm starts are paired over methods and strategies, and differ between seeds
    warm = {trial: asked[0].ids for trial, asked in events(tmp_path, Asked).items()}
    assert len({warm[m, s, 0] for m, s, seed in warm}) == len({warm[m, s, 1] for m, s, seed in warm}) == 1
    assert len(set(warm.values())) == 2
    later = {trial: asked[1].ids for trial, asked in events(tmp_path, Asked).items()}
    assert later["lora", "random", 0] == later["head", "random", 0] != later["head", "badge", 0]


def test_neither_store_nor_report_tells_where_the_data_lay(tmp_path: Path) -> None:
    made = study(data={"train": str(data_folder() / "toy.csv")}, methods=["head"], strategies=["random"])
    results = run(made, tmp_path)
    assert results.manifest["settings"]["data"][0]["train"] == f"{data_folder().name}/toy.csv"
    assert str(data_folder()).encode() not in (tmp_path / DATABASE).read_bytes()


def test_models_learn(tmp_path: Path) -> None:
    loop = {"warm_start": 60, "budget": 60}
    results = run(study(methods=["head"], strategies=["random"], loop=loop, training={"steps": 300}), tmp_path)
    assert results.rows[0]["accuracy"] > 0.6


def test_a_method_that_cannot_be_stacked_goes_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = count_jobs(monkeypatch)
    run(study(methods=["full"], seeds=2, loop={"budget": 20}, training={"steps": 2}), tmp_path)
    assert all(len(bank) == 1 for bank in jobs) and len(jobs) == 2 + 4
    with Store(tmp_path / DATABASE) as store:
        assert [len(gang) for gang in store.gangs()] == [2, 2]


def test_several_data_sets(tmp_path: Path) -> None:
    two = study(data=[{"train": "toy.csv"}, {"train": "two.csv", "test_share": 0.5}], methods=["head"])
    watcher = Watcher()
    results = run(two, tmp_path, watcher)
    assert watcher.counts == (4, 12, 0) and len(results.rows) == 12
    assert {row["dataset"] for row in results.rows if "f1" in row} == {"two"}
    assert results.manifest["data"]["two"]["classes"] == ["class-0", "class-1"]
    assert (results.manifest["data"]["two"]["train"], results.manifest["data"]["two"]["test"]) == (30, 30)


@pytest.mark.parametrize(
    ("second", "names"),
    [
        ({"name": "lora", "rank": 1, "learning_rate": 0.02}, {"head", "lora(rank=1)"}),
        ({"name": "head", "learning_rate": 0.02}, {"head", "head(learning_rate=0.02)"}),
    ],
)
def test_rates_are_told_where_they_tell_methods_apart(second: Any, names: set[str], tmp_path: Path) -> None:
    made = study(methods=["head", second], strategies=["random"], keep_dynamics=True, training={"steps": 20})
    results = run(made, tmp_path)
    assert {row["method"] for row in results.rows} == {row["plain_method"] for row in results.rows} == names
    assert {example["method"] for example in results.examples} == names


def test_values(tmp_path: Path) -> None:
    results = run(
        study(data={"train": "values.csv"}, methods=["lora"], strategies=["random", "coreset"], training={"steps": 40}),
        tmp_path,
    )
    assert results.metric == "pearson" and len(results.rows) == 6
    assert all({"pearson", "spearman", "rmse"} <= row.keys() for row in results.rows)
    assert np.mean([row["pearson"] for row in results.rows]) > 0.2
    write_report(ReportSource(**vars(results)), tmp_path)


# ---- oracles and ends ------------------------------------------------------------------------------------------------


def test_noise_is_the_same_for_all_trials_of_a_seed(tmp_path: Path) -> None:
    results = run(study(methods=["head"], seeds=2, loop={"noise": 0.4}), tmp_path)
    assert results.notes == ["Labels were wrong for 40% of the examples asked for, by design."]
    gold = {i: n % 3 for n, i in enumerate(toy_dataset(90).ids)}
    told = {}
    for trial, found in events(tmp_path, Told).items():
        told[trial] = {i: label for event in found for i, label in event.answers.items()}
    for seed in (0, 1):
        first, second = told["head", "random", seed], told["head", "badge", seed]
        assert all(first[i] == second[i] for i in first.keys() & second.keys())
        wrong = {i for i, label in {**first, **second}.items() if label != gold[i]}
        assert 0.2 < len(wrong) / len({**first, **second}) < 0.6


def test_a_plateau_ends_trials_one_by_one(tmp_path: Path) -> None:
    settings = {"budget": 72, "plateau": 0.6, "patience": 1}
    results = run(study(methods=["head"], seeds=2, loop=settings, training={"steps": 30}), tmp_path)
    last: dict[str, dict[str, Any]] = {row["trial"]: row for row in results.rows}
    early = [row for row in last.values() if row["labels"] < 70]
    assert early and len({row["round"] for row in last.values()}) > 1
    assert all(row["kappa"] >= 0.6 for row in early)
    before = [row["kappa"] for row in results.rows if row not in last.values() and row["round"] > 0]
    assert all(kappa < 0.6 for kappa in before)
    assert len(results.notes) == len(last) and all("stopped early" in note for note in results.notes)
    kept = events(tmp_path, Trained)["head", "random", 0][0].record["stop_predictions"]
    assert len(kept) == results.manifest["data"]["toy"]["train"] == 72


def test_time_and_an_empty_pool_end_trials(tmp_path: Path) -> None:
    head = {"methods": ["head"], "strategies": ["badge"]}
    short = run(study(**head, loop={"seconds": 1e-9}), tmp_path / "a")
    assert [row["labels"] for row in short.rows] == [12]
    assert short.notes[0].startswith("head × badge × seed 0 stopped early: time budget of 1e-09 s reached")
    whole = run(study(**head, loop={"batch": 50, "budget": 500}), tmp_path / "b")
    assert [row["labels"] for row in whole.rows] == [12, 62, 72]
    assert whole.notes == ["head × badge × seed 0 stopped early: the pool is empty."]


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_dynamics_are_kept_before_their_round_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, fit, fitted = Store.append, Engine.fit, []

    def watched(self: Store, events: Any) -> None:
        for key, new in events.items():
            for event in new:
                if isinstance(event, Trained):
                    assert (tmp_path / "arrays" / key / f"{event.round}-confidence.npy").is_file()
        append(self, events)

    def seen(self: Engine, jobs: Any, on_fit: Any = None) -> Any:
        fitted.append(fit(self, jobs, on_fit))
        return fitted[-1]

    monkeypatch.setattr(Store, "append", watched)
    monkeypatch.setattr(Engine, "fit", seen)
    kept = study(methods=["head"], keep_dynamics=True, training={"steps": 5, "batch_size": 4})
    results = run(kept, tmp_path)
    files = sorted(path.relative_to(tmp_path / "arrays").as_posix() for path in tmp_path.glob("arrays/**/*.*"))
    names = [f"{r['trial']}/{r['round']}-{what}.npy" for r in results.rows for what in ("confidence", "correct")]
    assert files == sorted(names)
    trials = list(dict.fromkeys(row["trial"] for row in results.rows))
    for round_, models in enumerate(fitted):
        for trial, model in zip(trials, models, strict=True):
            for what in ("correct", "confidence"):
                array = np.load(tmp_path / "arrays" / trial / f"{round_}-{what}.npy", allow_pickle=False)
                np.testing.assert_array_equal(array, getattr(model.dynamics, what))
                assert array.shape == [(2, 12), (1, 20), (1, 24)][round_]
                assert array.dtype == (bool if what == "correct" else np.float16)


def test_dynamics_are_not_kept_unasked(tmp_path: Path) -> None:
    run(study(methods=["head"], strategies=["random"]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "cache", DATABASE]


class Wide(Strategy):
    """Needs more of the candidates than of the labelled examples."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"proba", "embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"embedding"})

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        assert view.signals.keys() == self.needs and view.labelled.keys() == self.needs_labelled
        assert all(len(view.signals[name]) == view.n for name in self.needs)
        return unscored(np.arange(k))


class Tall(Wide):
    """Needs more of the labelled examples than of the candidates."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"proba", "embedding"})


def test_each_strategy_sees_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Wide", "Tall"):
        monkeypatch.setitem(STRATEGIES.targets, name.lower(), f"{__name__}:{name}")
    assert len(run(study(methods=["lora"], strategies=["wide", "tall"]), tmp_path).rows) == 6


# ---- refusals before any work ----------------------------------------------------------------------------------------

VALUES = {"data": {"train": "values.csv"}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metric": "macrof1"}, UnknownName, r"metric 'macrof1' \(did you mean 'macro_f1'\?\); valid names: acc"),
        ({"metric": "f1"}, UnknownName, "unknown metric 'f1'"),
        ({**VALUES, "metric": "macro_f1"}, UnknownName, "valid names: pearson, rmse, spearman"),
        ({"methods": ["lara"]}, UnknownName, r"unknown method 'lara' \(did you mean 'lora'\?\)"),
        ({"methods": [{"name": "lora", "alpha": float("inf")}]}, SpecError, "LoRA: setting 'alpha': .* finite number"),
        ({"strategies": ["rando"]}, UnknownName, r"unknown strategy 'rando' \(did you mean 'random'\?\)"),
        ({**VALUES, "strategies": ["badge"]}, SpecError, "'badge' works for classification, not for regression"),
        ({**VALUES, "strategies": ["random"], "loop": {"noise": 0.1}}, SpecError, "noise works on classes, and 'val"),
        ({**VALUES, "strategies": ["random"], "loop": {"plateau": 0.9}}, SpecError, "plateau works on classes"),
        (VALUES | {"strategies": ["random"], "loop": {"warm_strategy": "zero-shot"}}, SpecError, "works for classifi"),
        (VALUES | {"strategies": ["random"], "training": {"balanced": True}}, SpecError, "balanced works on classes"),
        (VALUES | {"strategies": ["random"], "training": {"prototypes": 2}}, SpecError, "prototypes are of classes"),
        ({"training": {"self_training": True}, "loop": {"budget": 80}}, SpecError, "all 72 of 'toy' are labelled"),
        ({"methods": ["auto"], "training": {"objective": "contrastive"}}, SpecError, "auto chooses objective itself"),
        ({"loop": {"warm_strategy": "badge"}}, SpecError, "warm_strategy = 'badge' needs a trained model: use random"),
        ({"loop": {"warm_start": 72, "budget": 80}}, SpecError, "warm_start = 72 leaves no pool: 'toy' has 72 la"),
        (
            {"data": [{"train": "toy.csv"}, {"name": "b", "train": "toy.csv"}]},
            SpecError,
            "data sets 'toy' and 'b' hold the same examples: leave one of them out",
        ),
    ],
    ids=str,
)
def test_wrong_studies_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, error: type[Exception], message: str
) -> None:
    jobs = count_jobs(monkeypatch)
    with pytest.raises(error, match=message):
        run(study(**changes), tmp_path)
    assert jobs == []
    with Store(tmp_path / DATABASE) as store:
        assert store.gangs() == []
