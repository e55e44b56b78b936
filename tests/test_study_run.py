"""Studies from end to end, on toy data and a backbone of a few thousand random weights."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from modicum.base.errors import SpecError, StoreError, UnknownName
from modicum.base.events import Asked, Told, Trained
from modicum.base.types import Signal
from modicum.engine.backbone import Backbone
from modicum.engine.engine import Engine
from modicum.report import TIMING_COLUMNS, ReportSource, write_report
from modicum.strategies import STRATEGIES
from modicum.strategies.base import Selection, Strategy, View, unscored
from modicum.study.run import DATABASE, Results, load_results, run_study
from modicum.study.spec import Study, Trial, parse_study
from modicum.study.store import Store
from modicum.testing.backbone import fake_backbone, toy_dataset

Run = Callable[..., Results]


class Interrupted(Exception):
    """Stands for anything that ends a study early."""


class Watcher:
    """Hears all, and interrupts after some rounds."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.heard: list[tuple[str, Mapping[str, Any]]] = []
        self.counts: tuple[int, int, int] = (0, 0, 0)

    def started(self, study: Study, trials: int, rounds: int, done: int) -> None:
        self.counts = (trials, rounds, done)

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None:
        self.heard.append((trial.key(), record))
        if len(self.heard) == self.limit:
            raise Interrupted


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return fake_backbone()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """toy.csv with three classes, two.csv with two, values.csv for regression."""
    folder = tmp_path_factory.mktemp("data")
    for name, classes, n in (("toy", 3, 90), ("two", 2, 60), ("values", 0, 80)):
        data = toy_dataset(n, classes)
        labels = [data.classes[int(label)] if classes else label for label in data.labels]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "text", "label"), *zip(data.ids, data.texts(), labels, strict=True)])
    return folder


@pytest.fixture(scope="module")
def study(folder: Path) -> Callable[..., Study]:
    """A grid of 1 data set, 2 methods, 2 strategies and 1 seed, in 3 rounds: 12, 20 and 24 labels."""
    settings: dict[str, Any] = {
        "data": {"train": "toy.csv"},
        "methods": ["head", {"name": "lora", "rank": 1}],
        "strategies": ["random", "badge"],
        "seeds": 1,
        "loop": {"warm_start": 12, "batch": 8, "budget": 24},
        "training": {"steps": 6},
    }

    def make(loop: Mapping[str, Any] = {}, **changes: Any) -> Study:  # noqa: B006
        return parse_study({**settings, **changes, "loop": {**settings["loop"], **loop}}, folder)

    return make


@pytest.fixture(scope="module")
def run(backbone: Backbone) -> Run:
    def run(study: Study, out: Path, watcher: Watcher | None = None) -> Results:
        return run_study(study, out, watcher or Watcher(), backbone=backbone)

    return run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Any]]]:
    """The jobs of every bank that is trained."""
    banks: list[list[Any]] = []
    fit_bank = Engine._fit_bank

    def counted(self: Engine, jobs: Any) -> Any:
        banks.append([(type(self.method).__name__, job.round, job.seed) for job in jobs])
        return fit_bank(self, jobs)

    monkeypatch.setattr(Engine, "_fit_bank", counted)
    yield banks


def plain(results: Results) -> list[dict[str, Any]]:
    """All that must not depend on how a study came about."""
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in results.rows]


def events(out: Path, kind: type[Any]) -> dict[tuple[str, str, int], list[Any]]:
    """Events of one kind by method, strategy and seed."""
    with Store(out / DATABASE) as store:
        trials = {key: Trial.model_validate_json(store.spec(key)) for gang in store.gangs() for key in gang}
        return {
            (t.method.name, t.strategy.name, t.seed): [e for e in store.events(key) if isinstance(e, kind)]
            for key, t in trials.items()
        }


# ---- a whole grid ----------------------------------------------------------------------------------------------------


def test_a_grid(study: Any, run: Run, tmp_path: Path, jobs: list[list[Any]]) -> None:
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


def test_models_learn(study: Any, run: Run, tmp_path: Path) -> None:
    loop = {"warm_start": 60, "budget": 60}
    results = run(study(methods=["head"], strategies=["random"], loop=loop, training={"steps": 300}), tmp_path)
    assert results.rows[0]["accuracy"] > 0.6


def test_a_method_that_cannot_be_stacked_goes_seed_by_seed(
    study: Any, run: Run, tmp_path: Path, jobs: list[list[Any]]
) -> None:
    run(study(methods=["full"], seeds=2, loop={"budget": 20}, training={"steps": 2}), tmp_path)
    assert all(len(bank) == 1 for bank in jobs) and len(jobs) == 2 + 4
    with Store(tmp_path / DATABASE) as store:
        assert [len(gang) for gang in store.gangs()] == [2, 2]


def test_several_data_sets(study: Any, run: Run, tmp_path: Path) -> None:
    two = study(data=[{"train": "toy.csv"}, {"train": "two.csv", "test_share": 0.5}], methods=["head"])
    watcher = Watcher()
    results = run(two, tmp_path, watcher)
    assert watcher.counts == (4, 12, 0) and len(results.rows) == 12
    assert {row["dataset"] for row in results.rows if "f1" in row} == {"two"}
    assert results.manifest["data"]["two"]["classes"] == ["class-0", "class-1"]
    assert (results.manifest["data"]["two"]["train"], results.manifest["data"]["two"]["test"]) == (30, 30)


def test_values(study: Any, run: Run, tmp_path: Path) -> None:
    results = run(
        study(data={"train": "values.csv"}, methods=["lora"], strategies=["random", "coreset"], training={"steps": 40}),
        tmp_path,
    )
    assert results.metric == "pearson" and len(results.rows) == 6
    assert all({"pearson", "spearman", "rmse"} <= row.keys() for row in results.rows)
    assert np.mean([row["pearson"] for row in results.rows]) > 0.2
    write_report(ReportSource(**vars(results)), tmp_path)


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resumable(study: Any) -> Study:
    """Remembers predictions from round to round, too, but never stops for them."""
    made: Study = study(loop={"plateau": 1.0, "patience": 9})
    return made


@pytest.fixture(scope="module")
def uninterrupted(resumable: Study, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(resumable, tmp_path_factory.mktemp("whole"))


def csv_of(results: Results, folder: Path) -> bytes:
    """``results.csv`` without its timings."""
    write_report(ReportSource(**vars(results)), folder)
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if name not in TIMING_COLUMNS]
    return "\n".join(",".join(row[i] for i in kept) for row in rows).encode()


@pytest.mark.parametrize("rounds", range(1, 8))
def test_an_interrupted_study_goes_on_as_if_nothing_had_been(
    resumable: Study, uninterrupted: Results, run: Run, tmp_path: Path, rounds: int
) -> None:
    with pytest.raises(Interrupted):
        run(resumable, tmp_path, Watcher(limit=rounds))
    partly = load_results(tmp_path)
    assert rounds <= len(partly.rows) < 12
    assert all(row in plain(uninterrupted) for row in plain(partly))
    watcher = Watcher()
    results = run(resumable, tmp_path, watcher)
    assert watcher.counts == (4, 12, len(partly.rows)) and len(watcher.heard) == 12 - len(partly.rows)
    assert plain(results) == plain(uninterrupted)
    assert all("kappa" in row for row in results.rows if row["round"] > 0)
    if rounds == 5:
        assert csv_of(results, tmp_path / "a") == csv_of(uninterrupted, tmp_path / "b")


@pytest.mark.parametrize("appends", [1, 2, 3])
def test_a_round_that_was_not_kept_is_done_again(
    resumable: Study,
    uninterrupted: Results,
    run: Run,
    tmp_path: Path,
    appends: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, append = [], Store.append

    def failing(self: Store, events: Any) -> None:
        if len(done) == appends:
            raise Interrupted
        done.append(append(self, events))

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Store, "append", failing)
        run(resumable, tmp_path)
    assert plain(run(resumable, tmp_path)) == plain(uninterrupted)


def test_a_finished_study_trains_nothing(study: Any, run: Run, tmp_path: Path, jobs: list[list[Any]]) -> None:
    first = run(study(methods=["head"]), tmp_path)
    trained = len(jobs)
    watcher = Watcher()
    again = run(study(methods=["head"]), tmp_path, watcher)
    assert len(jobs) == trained and watcher.counts == (2, 6, 6) and watcher.heard == []
    assert again.rows == first.rows == load_results(tmp_path).rows


def test_a_grid_can_grow_and_shrink(study: Any, run: Run, tmp_path: Path, jobs: list[list[Any]]) -> None:
    first = run(study(methods=["head"]), tmp_path / "out")
    jobs.clear()
    grown = run(study(methods=["head", "bitfit"], strategies=["random", "badge", "margin"], seeds=[0, 7]), tmp_path / "out")
    assert len(grown.rows) == 36
    assert all(row in grown.rows for row in first.rows)
    assert not {("Head", 1, 0), ("Head", 2, 0)} & {job for bank in jobs for job in bank if bank.count(job) > 1}
    alone = run(study(methods=["bitfit"], strategies=["random", "badge", "margin"], seeds=[0, 7]), tmp_path / "alone")
    assert plain(alone) == [row for row in plain(grown) if row["method"] == "bitfit"]
    jobs.clear()
    shrunk = run(study(methods=["head"], seeds=[7]), tmp_path / "out")
    assert jobs == [] and len(shrunk.rows) == 6 and all(row in grown.rows for row in shrunk.rows)


def test_new_names_for_old_things_train_nothing(
    study: Any, backbone: Backbone, run: Run, tmp_path: Path, jobs: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(study(methods=["head"]), tmp_path)
    jobs.clear()
    monkeypatch.setattr(backbone, "name", "moved/fake")
    renamed = run(study(methods=["head"], data={"name": "new", "train": "toy.csv"}), tmp_path)
    assert jobs == []
    assert renamed.rows == [row | {"dataset": "new", "backbone": "moved/fake"} for row in first.rows]


# ---- one at a time ---------------------------------------------------------------------------------------------------

HOLD = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()"


def test_a_second_process_is_refused(study: Any, run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreError, match="another process is running a study in .*: wait for it, or choose another"):
            run(study(), tmp_path)
        other.communicate()
    assert not (tmp_path / DATABASE).exists()


def test_a_failed_study_lets_go_of_its_folder(study: Any, run: Run, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as held:  # as a notebook holds on to its last error
        run(study(methods=["head"]), tmp_path, Watcher(limit=1))
    assert len(run(study(methods=["head"]), tmp_path).rows) == 6 and held


def test_a_file_in_place_of_the_folder_is_refused(study: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(StoreError, match="out cannot hold a study: .*File exists.*. Choose another --out"):
        run(study(), tmp_path / "out")


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no study .study.sqlite is missing.: give the folder that was passed"):
        load_results(tmp_path)
    Store(tmp_path / DATABASE).close()
    with pytest.raises(StoreError, match="holds no trials yet: run the study first"):
        load_results(tmp_path)


# ---- oracles and ends ------------------------------------------------------------------------------------------------


def test_noise_is_the_same_for_all_trials_of_a_seed(study: Any, run: Run, tmp_path: Path) -> None:
    results = run(study(methods=["head"], seeds=2, loop={"noise": 0.4}), tmp_path)
    assert results.notes == ["Labels were wrong for 40% of the examples asked for, by design."]
    gold = {i: n % 3 for n, i in enumerate(toy_dataset(90).ids)}
    told = {
        trial: {i: label for e in found for i, label in e.answers.items()} for trial, found in events(tmp_path, Told).items()
    }
    for seed in (0, 1):
        first, second = told["head", "random", seed], told["head", "badge", seed]
        assert all(first[i] == second[i] for i in first.keys() & second.keys())
        wrong = {i for i, label in {**first, **second}.items() if label != gold[i]}
        assert 0.2 < len(wrong) / len({**first, **second}) < 0.6


def test_a_plateau_ends_trials_one_by_one(study: Any, run: Run, tmp_path: Path) -> None:
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


def test_time_and_an_empty_pool_end_trials(study: Any, run: Run, tmp_path: Path) -> None:
    head = {"methods": ["head"], "strategies": ["badge"]}
    short = run(study(**head, loop={"seconds": 1e-9}), tmp_path / "a")
    assert [row["labels"] for row in short.rows] == [12]
    assert short.notes[0].startswith("head × badge × seed 0 stopped early: time budget of 1e-09 s reached")
    whole = run(study(**head, loop={"batch": 50, "budget": 500}), tmp_path / "b")
    assert [row["labels"] for row in whole.rows] == [12, 62, 72]
    assert whole.notes == ["head × badge × seed 0 stopped early: the pool is empty."]


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_dynamics_are_kept_before_their_round_is(
    study: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_dynamics_are_not_kept_unasked(study: Any, run: Run, tmp_path: Path) -> None:
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


def test_each_strategy_sees_what_it_needs(
    study: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Wide", "Tall"):
        monkeypatch.setitem(STRATEGIES.targets, name.lower(), f"{__name__}:{name}")
    assert len(run(study(methods=["lora"], strategies=["wide", "tall"]), tmp_path).rows) == 6


# ---- refusals before any work ----------------------------------------------------------------------------------------

VALUES = {"data": {"train": "values.csv"}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metric": "macrof1"}, UnknownName, r"unknown metric 'macrof1' \(did you mean 'macro_f1'\?\); valid names: acc"),
        ({"metric": "f1"}, UnknownName, "unknown metric 'f1'"),
        ({**VALUES, "metric": "macro_f1"}, UnknownName, "valid names: pearson, rmse, spearman"),
        ({"methods": ["lara"]}, UnknownName, r"unknown method 'lara' \(did you mean 'lora'\?\)"),
        ({"methods": [{"name": "lora", "alpha": float("inf")}]}, SpecError, "LoRA: setting 'alpha': .* finite number"),
        ({"strategies": ["rando"]}, UnknownName, r"unknown strategy 'rando' \(did you mean 'random'\?\)"),
        ({**VALUES, "strategies": ["badge"]}, SpecError, "strategy 'badge' works for classification, not for regression"),
        ({**VALUES, "strategies": ["random"], "loop": {"noise": 0.1}}, SpecError, "noise works on classes, and 'values'"),
        ({**VALUES, "strategies": ["random"], "loop": {"plateau": 0.9}}, SpecError, "plateau works on classes"),
        ({"loop": {"warm_strategy": "badge"}}, SpecError, "warm_strategy = 'badge' needs a trained model: use random"),
        ({"loop": {"warm_start": 72, "budget": 80}}, SpecError, "warm_start = 72 leaves no pool: 'toy' has 72 labelled"),
        (
            {"data": [{"train": "toy.csv"}, {"name": "b", "train": "toy.csv"}]},
            SpecError,
            "data sets 'toy' and 'b' hold the same examples: leave one of them out",
        ),
    ],
    ids=str,
)
def test_wrong_studies_are_refused_before_any_work(
    study: Any, run: Run, tmp_path: Path, jobs: list[list[Any]], changes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(study(**changes), tmp_path)
    assert jobs == []
    with Store(tmp_path / DATABASE) as store:
        assert store.gangs() == []
