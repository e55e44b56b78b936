"""A study that takes a second: toy data in files, the fake backbone, and watchers that interrupt."""

from __future__ import annotations

import atexit
import csv
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from modicum.engine.backbone import Backbone
from modicum.engine.engine import Engine
from modicum.report import TIMING_COLUMNS
from modicum.study.results import DATABASE, Results
from modicum.study.run import run_study
from modicum.study.spec import Study, Trial, parse_study
from modicum.study.store import Store
from modicum.testing.backbone import fake_backbone, toy_dataset

SETTINGS: dict[str, Any] = {
    "data": {"train": "toy.csv"},
    "methods": ["head", {"name": "lora", "rank": 1}],
    "strategies": ["random", "badge"],
    "seeds": 1,
    "loop": {"warm_start": 12, "batch": 8, "budget": 24},
    "training": {"steps": 6},
}
"""A grid of 1 data set, 2 methods, 2 strategies and 1 seed, in 3 rounds: 12, 20 and 24 labels."""


class Interrupted(Exception):
    """Stands for anything that ends a study early."""


class Watcher:
    """Hears all, and interrupts after ``limit`` rounds."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.heard: list[tuple[str, Mapping[str, Any]]] = []
        self.counts: tuple[int, int, int] = (0, 0, 0)
        self.epochs: list[tuple[str, int]] = []

    def started(self, study: Study, trials: int, rounds: int, done: int) -> None:
        self.counts = (trials, rounds, done)

    def pretrained(self, trial: Trial, epoch: int, loss: float) -> None:
        self.epochs.append((trial.method.name, epoch))

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None:
        self.heard.append((trial.key(), record))
        if len(self.heard) == self.limit:
            raise Interrupted


@cache
def backbone() -> Backbone:
    """One for all tests: nothing writes to it."""
    return fake_backbone()


@cache
def data_folder() -> Path:
    """toy.csv with three classes, two.csv with two, values.csv for regression."""
    folder = Path(tempfile.mkdtemp(prefix="modicum-toy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, classes, n in (("toy", 3, 90), ("two", 2, 60), ("values", 0, 80)):
        data = toy_dataset(n, classes)
        labels = [data.classes[int(label)] if classes else label for label in data.labels]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "text", "label"), *zip(data.ids, data.texts(), labels, strict=True)])
    return folder


def study(loop: Mapping[str, Any] | None = None, **changes: Any) -> Study:
    """``SETTINGS`` with changes; those of the loop go into it."""
    return parse_study({**SETTINGS, **changes, "loop": {**SETTINGS["loop"], **(loop or {})}}, data_folder())


def run(study: Study, out: Path, watcher: Watcher | None = None) -> Results:
    return run_study(study, out, watcher or Watcher(), backbone=backbone())


def count_jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """(method, round, seed) of each job of each bank that is trained from now on."""
    banks: list[list[Any]] = []
    fit_bank = Engine._fit_bank

    def counted(self: Engine, jobs: Any) -> Any:
        banks.append([(type(self.method).__name__, job.round, job.seed) for job in jobs])
        return fit_bank(self, jobs)

    monkeypatch.setattr(Engine, "_fit_bank", counted)
    return banks


def plain(results: Results) -> list[dict[str, Any]]:
    """All that must not depend on how a study came about."""
    return [{k: v for k, v in row.items() if k not in {*TIMING_COLUMNS, "unfinished"}} for row in results.rows]


def events(out: Path, kind: type[Any]) -> dict[tuple[str, str, int], list[Any]]:
    """Events of one kind by method, strategy and seed."""
    with Store(out / DATABASE) as store:
        trials = {key: Trial.model_validate_json(store.spec(key)) for gang in store.gangs() for key in gang}
        return {
            (t.method.name, t.strategy.name, t.seed): [e for e in store.events(key) if isinstance(e, kind)]
            for key, t in trials.items()
        }
