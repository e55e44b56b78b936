"""Runs a study, or goes on where it was stopped, and writes its report."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout

import modicum
from modicum.analysis.metrics import MAIN_METRIC, evaluate
from modicum.base.errors import StoreError, UnknownName
from modicum.base.events import Asked, Stopped, Trained
from modicum.engine.backbone import Backbone
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.study.gang import Gang
from modicum.study.prepare import Prepared, load_backbone, make_trials, make_warm, prepare
from modicum.study.spec import Study, Trial
from modicum.study.store import Store

DATABASE = "study.sqlite"
INTERNAL = frozenset({"stop_predictions", "seconds", "test_seconds"})
"""What a record holds for the loop, and no row shows."""


class Watcher(Protocol):
    """Hears how a study goes."""

    def started(self, study: Study, trials: int, rounds: int, done: int) -> None:
        """So many trials and rounds in all, so many rounds done already."""

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """A round of a trial is durable."""


@dataclass
class Results:
    """What a report is made from: a row per trial and round, and how they came about."""

    title: str
    metric: str
    rows: list[dict[str, Any]]
    manifest: dict[str, Any]
    notes: list[str]


def run_study(study: Study, out: Path, watcher: Watcher, backbone: Backbone | None = None) -> Results:
    """Run all trials of a study that are not finished yet; every round is kept in ``out`` as soon as it is done.

    backbone: used in place of the one that the study names (for tests).

    Raises:
        ModicumError: wrong settings, data, backbone or store; or another process is at work in ``out``.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = FileLock(out / ".lock").acquire(timeout=0)
    except Timeout:
        raise StoreError(f"another process is running a study in {out}: wait for it, or choose another --out") from None
    except OSError as error:
        raise StoreError(f"{out} cannot hold a study: {error}. Choose another --out") from error
    with held, Store(out / DATABASE) as store:
        warm = make_warm(study.loop.warm_strategy)
        backbone = backbone or load_backbone(study.backbone)
        sets = prepare(study, backbone, out / "cache")
        _check_metric(study, sets)
        trials = {trial.key(): trial for data in sets for trial in make_trials(study, backbone, data)}
        _enlist(study, store, sets, backbone, trials)
        store.set_meta("study", study.canonical())
        names = {key: {"dataset": t.dataset, "backbone": t.backbone} for key, t in trials.items()}
        store.set_meta("current", json.dumps(names))
        store.set_meta("manifest", json.dumps(manifest(study, backbone, sets)))
        rounds = expected_rounds(study, sets)
        watcher.started(study, len(trials), rounds * len(trials) // max(1, len(sets)), _rounds_done(store, trials))
        gangs = [keys for keys in store.gangs() if any(key in trials for key in keys)]
        for keys in gangs:
            first = trials[next(key for key in keys if key in trials)]
            data = next(d for d in sets if d.title == first.dataset)
            engine = _engine(backbone, data, first)
            arrays = out / "arrays" if study.keep_dynamics else None
            Gang(store, keys, data, engine, warm, watcher.round_done, arrays).run()
        return read_results(store)


def _check_metric(study: Study, sets: Sequence[Prepared]) -> None:
    two = np.arange(2)
    found = {
        name
        for data in sets
        for name in evaluate(data.train.task, two, np.eye(2, data.outputs) if data.train.classes else two)
    }
    if study.metric is not None and study.metric not in found:
        raise UnknownName("metric", study.metric, found)


def _engine(backbone: Backbone, data: Prepared, trial: Trial) -> Engine:
    method = METHODS.create(trial.method.name, **trial.method.options)
    return Engine(backbone, data.pool, method, trial.training, data.train.task, data.outputs)


def _enlist(
    study: Study, store: Store, sets: Sequence[Prepared], backbone: Backbone, trials: Mapping[str, Trial]
) -> None:
    """Put new trials into gangs: whole seeds of one method, so that strategies share a seed's first round."""
    known = {key for gang in store.gangs() for key in gang}
    for data in sets:
        for method in study.methods:
            own = {
                key: trial
                for key, trial in trials.items()
                if trial.dataset == data.title and trial.method == method and key not in known
            }
            if not own:
                continue
            seeds = sorted({trial.seed for trial in own.values()}, key=study.seeds.index)
            engine = _engine(backbone, data, next(iter(own.values())))
            per_gang = max(1, engine.runs_per_bank // len(study.strategies))
            for start in range(0, len(seeds), per_gang):
                chosen = seeds[start : start + per_gang]
                store.add_gang({key: trial.canonical() for key, trial in own.items() if trial.seed in chosen})


def expected_rounds(study: Study, sets: Sequence[Prepared]) -> int:
    """Rounds of a trial, over all data sets, if no rule but the budget ends it."""
    loop = study.loop
    total = 0
    for data in sets:
        budget = min(loop.budget, len(data.train))
        total += 1 + max(0, -(-(budget - loop.warm_start) // loop.batch))
    return total


def _rounds_done(store: Store, trials: Mapping[str, Trial]) -> int:
    return sum(isinstance(event, Trained) for key in trials for event in store.events(key))


def load_results(out: Path) -> Results:
    """The results in a study's folder, finished or not.

    Raises:
        StoreError: there is no study in it.
    """
    if not (out / DATABASE).is_file():
        raise StoreError(f"{out} holds no study ({DATABASE} is missing): give the folder that was passed to --out")
    with Store(out / DATABASE) as store:
        return read_results(store)


def read_results(store: Store) -> Results:
    """Rows and manifest from a store."""
    current = store.meta("current")
    if current is None:
        raise StoreError(f"{store.path} holds no trials yet: run the study first")
    study = Study.model_validate_json(store.meta("study") or "{}")
    rows = [row | names for key, names in json.loads(current).items() for row in trial_rows(store, key)]
    kept = json.loads(store.meta("manifest") or "{}")
    metric = study.metric or kept.get("metric", "macro_f1")
    return Results(study.title, metric, rows, kept, _notes(study, rows))


def trial_rows(store: Store, key: str) -> list[dict[str, Any]]:
    """One row per round of a trial, as ``modicum.report`` wants them."""
    trial = Trial.model_validate_json(store.spec(key))
    identity = {
        "trial": key,
        "dataset": trial.dataset,
        "backbone": trial.backbone,
        "method": trial.method.label,
        "strategy": trial.strategy.label,
        "seed": trial.seed,
    }
    rows: list[dict[str, Any]] = []
    cost: dict[str, float] = {}
    for event in store.events(key):
        if isinstance(event, Asked):
            cost = event.cost
        elif isinstance(event, Trained):
            shown = {k: v for k, v in event.record.items() if k not in INTERNAL}
            rows.append(identity | {"round": event.round, "labels": event.labels} | shown | cost)
        elif isinstance(event, Stopped) and rows and not event.reason.startswith("budget"):
            rows[-1]["stopped"] = event.reason
    return rows


def _notes(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        f"{r['method']} × {r['strategy']} × seed {r['seed']} stopped early: {r['stopped']}."
        for r in rows
        if "stopped" in r
    ]
    if study.loop.noise:
        notes.append(f"Labels were wrong for {study.loop.noise:.0%} of the examples asked for, by design.")
    for row in rows:
        row.pop("stopped", None)  # type: ignore[attr-defined]
    return notes


def manifest(study: Study, backbone: Backbone, sets: Sequence[Prepared]) -> dict[str, Any]:
    """What a reader needs to run the study again: versions, machine, precision, fingerprints, settings."""
    return {
        "metric": MAIN_METRIC[sets[0].train.task],
        "modicum": modicum.__version__,
        "libraries": {name: _version(name) for name in ("torch", "transformers", "peft", "numpy", "scikit-learn")},
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": backbone.device.type,
            "threads": torch.get_num_threads(),
        },
        "backbone": {
            "name": backbone.name,
            "weights_sha256": backbone.fingerprint,
            "precision": str(backbone.dtype).removeprefix("torch."),
            "pooling": backbone.pooling,
            "batches": "packed rows" if backbone.packed else "padded",
        },
        "data": {
            data.title: {
                "train": len(data.train),
                "test": len(data.test),
                "classes": list(data.train.classes),
                "tokens_per_text": round(float(np.mean(data.pool.tokens.lengths)), 1),
                "train_fingerprint": data.train.fingerprint,
                "test_fingerprint": data.test.dataset.fingerprint,
            }
            for data in sets
        },
        "settings": json.loads(study.canonical()),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
