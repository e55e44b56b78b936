"""A study's trials in one number each, by data set and seed: what claims are judged on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.analysis.curves import normalised_auc
from modicum.analysis.selections import Row, number, value_of
from modicum.base.spec import canonical_json

LEVELS = ("round", "labels", "share")
CONFIGURATION = ("backbone", "plain_method", "tapt", "recipe", "part", "strategy", "allowed_seconds")
"""What tells apart the trials of one data set and seed."""
THIRDS = ("early", "middle", "late")
Unit = tuple[Any, ...]


@dataclass(frozen=True)
class Trial:
    """The selected rounds of one trial, by rising labels. configuration: what ``CONFIGURATION`` names."""

    dataset: str
    seed: Any
    configuration: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """Of each round."""
        return tuple(int(row["labels"]) for row in self.rows)

    @property
    def configured(self) -> Unit:
        """The configuration as a key."""
        return tuple(self.configuration.values())

    def numbers(self, column: str) -> np.ndarray:
        """(rounds,) a column's values, NaN where there is none."""
        return np.array([number(row.get(column)) for row in self.rows])

    def summary(self, measure: str, metric: str) -> float:
        """The trial in one number."""
        kind, _, name = measure.partition(":")
        if kind == "cka":
            return third_of_layers(self.rows[-1].get("cka") or (), name)
        values = self.numbers(name or metric)
        if kind == "auc":
            return float(normalised_auc(self.labels, values))
        return _mean(values) if kind == "mean" else float(values[0 if kind == "first" else -1])


def trials_of(rows: Sequence[Row]) -> list[Trial]:
    """The trials that rows belong to."""
    by_trial: dict[str, list[Row]] = {}
    for row in rows:
        by_trial.setdefault(str(row["trial"]), []).append(row)
    return [
        Trial(
            str(found[0]["dataset"]),
            found[0]["seed"],
            {column: value_of(found[0], column) for column in CONFIGURATION},
            tuple(sorted(found, key=lambda row: int(row["labels"]))),
        )
        for found in by_trial.values()
    ]


def complete(selections: Sequence[Mapping[str, Any]], sides: Sequence[Sequence[Trial]]) -> list[list[Trial]]:
    """The trials that have every number of labels that any of their like has.

    Alike are those on one data set, with one time allowed, of which the same rounds are selected. A trial cut short,
    whose area and last round are others, would otherwise be paired with whole ones.
    """

    def like(selection: Mapping[str, Any], trial: Trial) -> Unit:
        levels = canonical_json([selection.get(column) for column in LEVELS])
        return levels, trial.dataset, trial.configuration["allowed_seconds"]

    grids: dict[Unit, set[int]] = {}
    for selection, trials in zip(selections, sides, strict=True):
        for trial in trials:
            grids.setdefault(like(selection, trial), set()).update(trial.labels)
    return [
        [trial for trial in trials if set(trial.labels) == grids[like(selection, trial)]]
        for selection, trials in zip(selections, sides, strict=True)
    ]


def averages(started: Iterable[Trial], trials: Iterable[Trial], measure: str, metric: str) -> dict[Unit, float]:
    """(data set, seed) -> mean over configurations, where all that were started on the data set have a value."""
    every: dict[str, set[Unit]] = {}
    for trial in started:
        every.setdefault(trial.dataset, set()).add(trial.configured)
    values: dict[Unit, dict[Unit, float]] = {}
    for trial in trials:
        value = trial.summary(measure, metric)
        if math.isfinite(value):
            values.setdefault((trial.dataset, trial.seed), {})[trial.configured] = value
    return {unit: _mean(found.values()) for unit, found in values.items() if found.keys() == every[unit[0]]}


def spreads(
    started: Sequence[Sequence[Trial]], sides: Sequence[Sequence[Trial]], column: str
) -> list[dict[Unit, float]]:
    """(data set, seed) -> distance from the median over the seeds that all sides have, averaged over rounds and over
    configurations. A trial is one unit, however many rounds it has, since its rounds go up and down together. Two seeds
    are equally far from their median, and would count one distance twice: they have none."""
    seeds = _common_seeds(started, sides)
    tables = []
    for trials in sides:
        groups: dict[tuple[str, Unit], list[Trial]] = {}
        for trial in trials:
            if trial.seed in seeds[trial.dataset]:
                groups.setdefault((trial.dataset, trial.configured), []).append(trial)
        values: dict[Unit, list[float]] = {}
        for own in groups.values():
            curves = np.array([trial.numbers(column) for trial in own])
            distances = np.abs(curves - np.median(curves, axis=0))
            for trial, distance in zip(own, distances, strict=True):
                if len(own) > 2 and math.isfinite(mean := _mean(distance)):
                    values.setdefault((trial.dataset, trial.seed), []).append(mean)
        tables.append({unit: _mean(found) for unit, found in values.items()})
    return tables


def _common_seeds(started: Sequence[Sequence[Trial]], sides: Sequence[Sequence[Trial]]) -> dict[str, set[Any]]:
    """Data set -> the seeds of which every configuration that was started there has a whole trial."""
    seeds: dict[str, set[Any]] = {}
    for begun, whole in zip(started, sides, strict=True):
        for dataset, configured in {(trial.dataset, trial.configured) for trial in begun}:
            found = {trial.seed for trial in whole if (trial.dataset, trial.configured) == (dataset, configured)}
            seeds[dataset] = seeds.get(dataset, found) & found
    return seeds


def third_of_layers(cka: Sequence[float | None], third: str) -> float:
    """Mean over the ``early``, ``middle`` or ``late`` third of the layers, without the embeddings, which come first.

    NaN where the model has fewer than three layers, or the third has no number.
    """
    if len(cka) < 4:
        return math.nan
    part = np.array_split([number(value) for value in cka[1:]], 3)[THIRDS.index(third)]
    return _mean(part)


def _mean(values: Iterable[float]) -> float:
    """Over the numbers among them; NaN where there is none."""
    found = [value for value in values if math.isfinite(value)]
    return float(np.mean(found)) if found else math.nan
