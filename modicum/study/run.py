"""Runs a study, or goes on where it was stopped."""

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
from modicum.analysis.metrics import LOWER_IS_BETTER, MAIN_METRIC, evaluate
from modicum.auto.engine import make_engine, make_method, make_one_method
from modicum.base.errors import SpecError, StoreError, UnknownName
from modicum.base.events import Stopped, Trained
from modicum.base.spec import digest
from modicum.engine.backbone import Backbone
from modicum.engine.engine import Engine
from modicum.engine.pretraining import check_pretrainable, pretrain
from modicum.study.gang import Gang
from modicum.study.prepare import Prepared, load_backbone, make_trials, prepare
from modicum.study.results import DATABASE, Results, kind_of_pretraining, read_results
from modicum.study.spec import Study, Trial
from modicum.study.store import Store
from modicum.study.workers import Hears, RunGang, run_side_by_side, threads_each

OF_A_RUN = ("modicum", "libraries", "machine")
"""What of the manifest is each run's own."""
SHARED = {"dataset", "method", "tapt", "loop", "training"}
"""What trials of a gang have in common."""


class Watcher(Protocol):
    """Hears how a study goes."""

    def started(self, study: Study, trials: int, rounds: int, done: int) -> None:
        """So many trials and rounds in all, so many rounds done already."""

    def pretrained(self, trial: Trial, epoch: int, loss: float) -> None:
        """So many epochs of this trial's task-adaptive pretraining are done; it serves all trials of its kind."""

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """A round of a trial is durable."""


def run_study(study: Study, out: Path, watcher: Watcher, backbone: Backbone | None = None, workers: int = 1) -> Results:
    """Run all trials of a study that are not finished yet; every round is kept in ``out`` as soon as it is done.

    backbone: used in place of the one that the study names (for tests). workers: processes among which the work and the
    threads are shared; trials with a time limit run afterwards, alone.

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
        backbone = backbone or load_backbone(study.backbone)
        sets = prepare(study, backbone, out / "cache")
        _check_metric(study, sets)
        trials = _trials(study, backbone, sets)
        _enlist(store, sets, backbone, trials)
        todo = [keys for keys in store.gangs() if any(key in trials and not _is_over(store, key) for key in keys)]
        timed = [keys for keys in todo if any(trials[key].training.seconds for key in keys if key in trials)]
        shared = [keys for keys in todo if keys not in timed]
        workers = max(1, min(workers, len(shared)))
        now = manifest(study, backbone, sets, workers)
        names = {key: {"dataset": t.dataset, "backbone": t.backbone, "part": t.part} for key, t in trials.items()}
        store.set_meta(
            manifest=json.dumps(_with_earlier_runs(now, store.meta("manifest"), bool(todo))),
            study=study.portable.canonical(),
            current=json.dumps(names),
        )
        rounds = sum(len(trial.loop.schedule(len(_set_of(trial, sets).train))) for trial in trials.values())
        watcher.started(study, len(trials), rounds, _rounds_done(store, trials))
        if workers > 1:
            for data in sets:
                _ = data.pool.tokens, data.test.tokens  # made once, for all processes
            run_side_by_side(study, out, [_named(keys, trials) for keys in shared], workers, watcher, _apart)
            todo = timed
        work = _Work(study, out, store, backbone, sets, watcher)
        for keys in todo:
            work.run(*_named(keys, trials))
        return read_results(store)


def _named(keys: Sequence[str], trials: Mapping[str, Trial]) -> tuple[Trial, Sequence[str]]:
    """A gang's trials that the study still names: one of them, under its name of the data, and the keys of all."""
    named = [key for key in keys if key in trials]
    return trials[named[0]], named


@dataclass(frozen=True)
class _Work:
    """What a process needs to run a study's gangs."""

    study: Study
    out: Path
    store: Store
    backbone: Backbone
    sets: Sequence[Prepared]
    watcher: Hears

    def run(self, trial: Trial, keys: Sequence[str]) -> None:
        """Advance the trials of a gang, of which ``trial`` is one, until all have stopped."""
        data = _set_of(trial, self.sets)
        start = _pretrained(self.store, self.backbone, data, trial, self.watcher)
        arrays = self.out / "arrays" if self.study.keep_dynamics else None
        engine = _engine(self.backbone, data, trial, start)
        Gang(self.store, keys, data, engine, self.watcher.round_done, arrays, self.study.layer_similarity).run()


def _apart(study: Study, out: Path, watcher: Hears) -> RunGang:
    """What runs gangs in a process that has nothing else to do."""
    backbone = load_backbone(study.backbone)
    sets = prepare(study, backbone, out / "cache")
    return _Work(study, out, Store(out / DATABASE), backbone, sets, watcher).run


def _check_metric(study: Study, sets: Sequence[Prepared]) -> None:
    known = {data.title: _known_metrics(data) for data in sets}
    if study.metric is not None and study.metric not in set().union(*known.values()):
        raise UnknownName("metric", study.metric, set().union(*known.values()))
    for chosen in study.data:
        if chosen.metric is not None and chosen.metric not in known[chosen.title]:
            raise UnknownName(f"metric of {chosen.title}", chosen.metric, known[chosen.title])
    several = set(_metrics(study, sets).values())
    if len(several) > 1 and several & LOWER_IS_BETTER:
        wrong = ", ".join(sorted(several & LOWER_IS_BETTER))
        raise SpecError(f"where data sets have different metrics, greater must be better in all; {wrong} is an error")


def _metrics(study: Study, sets: Sequence[Prepared]) -> dict[str, str]:
    """The main metric of each data set."""
    own, found = {data.title: data.metric for data in study.data}, {}
    for data in sets:
        whole = study.metric if study.metric in _known_metrics(data) else None
        found[data.title] = own[data.title] or whole or MAIN_METRIC[data.train.task]
    return found


def _known_metrics(data: Prepared) -> set[str]:
    two = np.arange(2)
    return set(evaluate(data.train.task, two, np.eye(2, data.outputs) if data.train.classes else two))


def _trials(study: Study, backbone: Backbone, sets: Sequence[Prepared]) -> dict[str, Trial]:
    """All trials by key.

    Raises:
        SpecError: two of them could not be told apart in the report, or a method cannot be pretrained.
    """
    found: dict[str, Trial] = {}
    shown: dict[tuple[Any, ...], str] = {}
    for grid, data in _on(study, sets):
        for trial in make_trials(grid, backbone, data):
            key = trial.key()
            if key in found:
                continue
            name = trial.dataset, trial.label, trial.strategy.label, trial.seed, trial.training.seconds
            if shown.setdefault(name, key) != key:
                raise SpecError(
                    f"the study has {trial.label} × {trial.strategy.label} on {trial.dataset} twice, in ways that the "
                    'report does not tell apart: make [[parts]] of them, with a name = "..." each'
                )
            found[key] = trial
    for method, tapt in {(t.method.canonical(), t.tapt): (t.method, t.tapt) for t in found.values()}.values():
        if tapt is not None:
            check_pretrainable(backbone, make_one_method(method), tapt)
    return found


def _is_over(store: Store, key: str) -> bool:
    return any(isinstance(event, Stopped) for event in store.events(key))


def _on(study: Study, sets: Sequence[Prepared]) -> list[tuple[Study, Prepared]]:
    """Each grid with each of its data sets."""
    return [(grid, data) for grid in study.grids for data in sets if data.title in {d.title for d in grid.data}]


def _set_of(trial: Trial, sets: Sequence[Prepared]) -> Prepared:
    return next(data for data in sets if data.title == trial.dataset)


def _engine(
    backbone: Backbone, data: Prepared, trial: Trial, start: Mapping[str, torch.Tensor] | None = None
) -> Engine:
    task, method = data.train.task, make_method(trial.method)
    return make_engine(backbone, data.pool, method, trial.training, task, data.outputs, start=start, test=data.test)


def _pretrained(
    store: Store, backbone: Backbone, data: Prepared, trial: Trial, watcher: Hears
) -> Mapping[str, torch.Tensor] | None:
    """What a trial's method begins from, made now or before; None where it begins anew."""
    if trial.tapt is None:
        return None
    method = make_one_method(trial.method)
    done = pretrain(backbone, data.pool, method, trial.tapt, lambda epoch, loss: watcher.pretrained(trial, epoch, loss))
    told = {"dataset": data.title, "method": trial.method.label, "objective": trial.tapt.objective}
    told |= {"losses": done.losses, "seconds": done.seconds}
    store.merge_meta("pretraining", {kind_of_pretraining(trial): told})
    return done.adapter


def _enlist(store: Store, sets: Sequence[Prepared], backbone: Backbone, trials: Mapping[str, Trial]) -> None:
    """Put new trials into gangs: whole seeds of one method, so that strategies share a seed's first round."""
    known = {key for gang in store.gangs() for key in gang}
    alike: dict[str, dict[str, Trial]] = {}
    for key, trial in trials.items():
        if key not in known:
            alike.setdefault(digest(trial.model_dump(mode="json", include=SHARED)), {})[key] = trial
    for own in alike.values():
        first = next(iter(own.values()))
        seeds = list(dict.fromkeys(trial.seed for trial in own.values()))
        strategies = len({trial.strategy.canonical() for trial in own.values()})
        per_gang = max(1, _engine(backbone, _set_of(first, sets), first).runs_per_bank // strategies)
        for start in range(0, len(seeds), per_gang):
            chosen = seeds[start : start + per_gang]
            store.add_gang({key: trial.canonical() for key, trial in own.items() if trial.seed in chosen})


def _rounds_done(store: Store, trials: Mapping[str, Trial]) -> int:
    return sum(isinstance(event, Trained) for key in trials for event in store.events(key))


def _with_earlier_runs(now: dict[str, Any], before: str | None, works: bool) -> dict[str, Any]:
    """The manifest, with the versions and machines of those who have worked on the study until now: whoever finds
    nothing left to do changes none of them."""
    if before is None:
        return now
    known = json.loads(before)
    if not works:
        return now | {name: known[name] for name in (*OF_A_RUN, "earlier_runs") if name in known}
    mine, last = ({name: one.get(name) for name in OF_A_RUN} for one in (now, known))
    earlier = [*known.get("earlier_runs", []), last]
    earlier = [run for i, run in enumerate(earlier) if run != mine and run not in earlier[:i]]
    return now | ({"earlier_runs": earlier} if earlier else {})


def manifest(study: Study, backbone: Backbone, sets: Sequence[Prepared], workers: int) -> dict[str, Any]:
    """What a reader needs to run the study again: versions, machine, precision, fingerprints, settings.

    threads: of each worker. Trials with a time limit run alone, with all of them.
    """
    timed = any(training.seconds for grid in study.grids for training in grid.trainings)
    return {
        "modicum": modicum.__version__,
        "libraries": {name: _version(name) for name in ("torch", "transformers", "peft", "numpy", "scikit-learn")},
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": backbone.device.type,
            "workers": workers,
            "threads": threads_each(workers),
            **({"threads_under_a_time_limit": torch.get_num_threads()} if timed else {}),
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
                "metric": _metrics(study, sets)[data.title],
                "classes": list(data.train.classes),
                "tokens_per_text": round(float(np.mean(data.pool.tokens.lengths)), 1),
                "train_fingerprint": data.train.fingerprint,
                "test_fingerprint": data.test.dataset.fingerprint,
            }
            for data in sets
        },
        "settings": json.loads(study.portable.canonical()),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
