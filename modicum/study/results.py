"""What a study has found so far, read from its store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modicum.analysis.claims import Claim
from modicum.base.errors import StoreError
from modicum.base.events import Asked, Stopped, Trained
from modicum.base.spec import Choice, digest
from modicum.study.dynamics import example_rows
from modicum.study.spec import Study, Trial
from modicum.study.store import Store

DATABASE = "study.sqlite"
RATES = frozenset({"learning_rate", "head_learning_rate"})
SCORE = "score"
"""The main metric where each data set has one of its own."""
INTERNAL = frozenset({"stop_predictions", "seconds", "test_seconds"})
"""What a record holds for the loop, and no row shows."""


@dataclass
class Results:
    """What a report is made from: a row per trial and round, and how they came about.

    claims: statements to judge. pretraining: data set, method, objective, losses by epoch and seconds of each.
    examples: one mapping for each trial and example whose training dynamics were kept (see ``example_rows``).
    """

    title: str
    metric: str
    rows: list[dict[str, Any]]
    manifest: dict[str, Any]
    notes: list[str]
    claims: Sequence[Claim] = ()
    pretraining: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Any]] = ()


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
    trials = {
        key: Trial.model_validate_json(store.spec(key)).model_copy(update=names)
        for key, names in json.loads(current).items()
    }
    called = method_names(trial.method for trial in trials.values())
    rows = [row for key, trial in trials.items() for row in trial_rows(store, key, trial, called)]
    kept = json.loads(store.meta("manifest") or "{}")
    metrics = {name: data.get("metric", kept.get("metric")) for name, data in kept["data"].items()}
    metric = SCORE if len(set(metrics.values())) > 1 else next(iter(metrics.values()))
    for row in rows:
        row["share"] = row["labels"] / kept["data"][row["dataset"]]["train"]
        if metric == SCORE:
            row[SCORE] = row[metrics[row["dataset"]]]
    curves = json.loads(store.meta("pretraining") or "{}")
    kinds = {kind_of_pretraining(trial): called[trial.method.label] for trial in trials.values() if trial.tapt}
    pretraining = [curves[kind] | {"method": name} for kind, name in kinds.items() if kind in curves]
    examples = list(example_rows(store, trials, store.path.parent / "arrays", called))
    notes = _notes(study, rows)
    if metric == SCORE:
        notes.append("The score is " + ", ".join(f"{own} on {name}" for name, own in metrics.items()) + ".")
    if earlier := kept.get("earlier_runs"):
        ways = f"{len(earlier) + 1} combinations of versions, machine and threads"
        notes.append(f"The study was run under {ways}, which round differently (see the manifest).")
    return Results(study.title, metric, rows, kept, notes, study.claims, pretraining, examples)


def method_names(methods: Iterable[Choice]) -> dict[str, str]:
    """What methods, by their labels, are called in results: rates are told only where they alone tell two apart."""
    alike: dict[str, set[str]] = {}
    for method in methods:
        alike.setdefault(_without_rates(method), set()).add(method.label)
    return {label: short if len(labels) == 1 else label for short, labels in alike.items() for label in labels}


def _without_rates(method: Choice) -> str:
    return Choice(name=method.name, options={k: v for k, v in method.options.items() if k not in RATES}).label


def trial_rows(store: Store, key: str, trial: Trial, called: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per round of a trial, as ``modicum.report`` wants them. called: see ``method_names``."""
    method = called[trial.method.label]
    identity = {
        "trial": key,
        "dataset": trial.dataset,
        "backbone": trial.backbone,
        "method": trial.titled(method),
        "plain_method": method,
        "tapt": trial.tapt.objective if trial.tapt else "",
        "recipe": trial.training.recipe,
        "part": trial.part,
        "strategy": trial.strategy.label,
        "seed": trial.seed,
    }
    if trial.training.seconds is not None:
        identity["allowed_seconds"] = trial.training.seconds
    if trial.training.until == "oracle-test":
        identity["diagnostic"] = "the epoch was chosen on the test set"
    rows: list[dict[str, Any]] = []
    cost: dict[str, float] = {}
    events = store.events(key)
    if not any(isinstance(event, Stopped) for event in events):
        identity["unfinished"] = True
    for event in events:
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
    for noise in sorted({grid.loop.noise for grid in study.grids} - {0.0}):
        notes.append(f"Labels were wrong for {noise:.0%} of the examples asked for, by design.")
    return notes


def kind_of_pretraining(trial: Trial) -> str:
    """A hash of what decides a pretraining's result; it serves all trials of its kind."""
    return digest(trial.model_dump(mode="json", include={"fingerprint", "backbone_fingerprint", "method", "tapt"}))
