"""Does a study bear out what is claimed? Claims as records, and what a study's rows say of each.

A claim names a measure, two selections of rows, and which of them should have the greater value, or within what margin
they should agree. A row is one trial and round, with the columns that ``modicum.report`` takes. A trial of each
selection is summed up by the measure; the values are averaged over all that the selection spans (several methods, say)
within each data set and seed, and the two selections are paired by data set and seed. What has no partner, or has not
finished what its like have, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from modicum.analysis.curves import mean_interval, normalised_auc
from modicum.analysis.selections import (
    COLUMNS,
    Row,
    Selection,
    absence,
    is_number,
    meets,
    number,
    partly_absent,
    value_of,
)
from modicum.analysis.significance import Comparison, compare, holm, reach_warning
from modicum.base.errors import SpecError, UnknownName, did_you_mean
from modicum.base.rng import stream
from modicum.base.spec import Record, canonical_json

ALPHA = 0.05
LEVELS = ("round", "labels", "share")
CONFIGURATION = ("backbone", "plain_method", "tapt", "recipe", "part", "strategy", "allowed_seconds")
"""What tells apart the trials of one data set and seed."""
THIRDS = ("early", "middle", "late")
MEASURES = ("auc", "final", "last", "first", "mean", "spread")

Outcome = Literal["supported", "contradicted", "undecided", "not run"]
Unit = tuple[Any, ...]


class Contrast(Record):
    """A difference: the measure of one selection minus that of another."""

    of: Selection
    against: Selection


class Claim(Record):
    """One claim, as a study file says it.

    id, text, source: its short name, its words, and who made it.
    measure: what a trial is summed up by. Of the study's main metric: ``auc``, the normalised area of its curve;
        ``final`` or ``last``, ``first``, ``mean``: of the selected rounds; ``spread``: its standard deviation over
        seeds at each number of labels. Of any other column with numbers: ``last:COLUMN``, ``mean:COLUMN`` and so on.
        ``cka:early``, ``cka:middle``, ``cka:late``: CKA with the pretrained model in the last round, averaged over a
        third of the layers.
    of, against: the rows compared.
    minus: a second difference that is subtracted from the first (a difference of differences).
    expect: ``greater``, ``less`` or ``within``: what the difference should be. Greater is numerically greater, which is
        worse for an error such as RMSE.
    margin: of ``within``, in the measure's units.
    """

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    source: str = ""
    measure: str
    of: Selection
    against: Selection
    minus: Contrast | None = None
    expect: Literal["greater", "less", "within"]
    margin: float | None = Field(default=None, gt=0)

    @field_validator("measure")
    @classmethod
    def _known(cls, measure: str) -> str:
        kind, colon, column = measure.partition(":")
        if kind == "cka" and column in THIRDS:
            return measure
        if kind not in MEASURES or (colon and not column):
            named = [f"{name}:COLUMN" for name in MEASURES]
            raise UnknownName("measure", measure, [*MEASURES, *named, *(f"cka:{third}" for third in THIRDS)])
        return measure

    @field_validator("margin")
    @classmethod
    def _fits(cls, margin: float | None, info: ValidationInfo) -> float | None:
        expect = info.data.get("expect")
        if expect == "within" and margin is None:
            raise SpecError('expect = "within" needs the margin within which both sides should agree; give one above 0')
        if expect in ("greater", "less") and margin is not None:
            raise SpecError(f'a margin belongs to expect = "within", and this claim expects {expect!r}; leave it out')
        return margin

    @property
    def sides(self) -> dict[str, dict[str, Any]]:
        """The two or four selections by their place in the claim."""
        sides = {"of": self.of, "against": self.against}
        if self.minus is not None:
            sides |= {"minus.of": self.minus.of, "minus.against": self.minus.against}
        return sides


@dataclass(frozen=True)
class Judged:
    """What the rows say of a claim.

    reason: why the verdict is what it is; for ``not run``, what is missing.
    result: the paired differences and their tests; None where nothing was paired.
    low, high: 95 % interval of the mean difference, NaN for fewer than two pairs: Student's for ``within``, which rests
        on it, else BCa.
    corrected: p of the sign-flip test after Holm's correction over the tested claims; NaN for ``within`` and where
        there is no test.
    notes: sentences on what is left out, or to be read with care.
    """

    claim: Claim
    verdict: Outcome
    reason: str
    result: Comparison | None = None
    low: float = math.nan
    high: float = math.nan
    corrected: float = math.nan
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return self.result.n if self.result else 0

    @property
    def mean(self) -> float:
        """The mean difference, in the measure's units."""
        return self.result.mean if self.result else math.nan

    @property
    def standardised(self) -> float:
        """The mean difference in standard deviations of the differences; NaN for fewer than two, or all equal."""
        if self.result is None or self.n < 2:
            return math.nan
        deviation = float(self.result.differences.std(ddof=1))
        return self.mean / deviation if deviation > 1e-12 * abs(self.mean) else math.nan


def judge(claims: Sequence[Claim], rows: Sequence[Row], metric: str) -> list[Judged]:
    """A verdict on each claim.

    ``greater`` and ``less`` rest on the sign-flip test, with Holm's correction over all claims that are so tested:
    supported, or contradicted, where p is at most 0.05 and the mean difference has the sign expected, or the other.
    ``within`` is supported where Student's 95 % interval of the mean difference lies inside the margin on both
    sides of 0 (an equivalence test at level 0.025), contradicted where it lies wholly outside, undecided else.

    ``spread`` has no seeds to pair: it pairs data sets, numbers of labels, and all else by which the selections do not
    differ (strategies, say). Levels of one data set share their trials, so its p is smaller than it should be.

    Args:
        claims: what to judge.
        rows: a mapping for each trial and round.
        metric: the column of the main metric.
    """
    found = [_evidence(claim, rows, metric) for claim in claims]
    p_values = [math.nan if f.claim.expect == "within" or not f.result else f.result.sign_flip for f in found]
    corrected = holm(p_values)
    open_tests = int((corrected > ALPHA).sum())  # the correction's step at which those above alpha stand
    return [_decided(f, float(p), open_tests) for f, p in zip(found, corrected, strict=True)]


def third_of_layers(cka: Sequence[float | None], third: str) -> float:
    """Mean over the ``early``, ``middle`` or ``late`` third of the layers, without the embeddings, which come first.

    NaN where the model has fewer than three layers, or the third has no number.
    """
    if len(cka) < 4:
        return math.nan
    part = np.array_split([number(value) for value in cka[1:]], 3)[THIRDS.index(third)]
    return _mean(part)


@dataclass(frozen=True)
class _Trial:
    dataset: str
    seed: Any
    configuration: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(int(row["labels"]) for row in self.rows)

    @property
    def configured(self) -> Unit:
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


def _evidence(claim: Claim, rows: Sequence[Row], metric: str) -> Judged:
    """The paired differences, not judged yet; or, with ``not run``, what is missing."""
    chosen = {side: [row for row in rows if meets(row, wanted)] for side, wanted in claim.sides.items()}
    absent = [f"{side}: {absence(claim.sides[side], rows)}" for side, found in chosen.items() if not found]
    if absent:
        return Judged(claim, "not run", "; ".join(absent))
    started = [_trials(found) for found in chosen.values()]
    whole = _complete(list(claim.sides.values()), started)
    spread = claim.measure.partition(":")[0] == "spread"
    if spread:
        tables = _spreads(claim, started, whole, metric)
    else:
        tables = [_averages(*trials, claim.measure, metric) for trials in zip(started, whole, strict=True)]
    empty = [side for side, table in zip(chosen, tables, strict=True) if not table]
    if empty:
        return Judged(claim, "not run", f"{', '.join(empty)}: {_nothing(claim, metric, rows)}")
    units = sorted(set.intersection(*(set(table) for table in tables)), key=repr)
    if not units:
        return Judged(claim, "not run", f"no data set and {'number of labels' if spread else 'seed'} is on every side")
    of, against, *minus = (np.array([table[unit] for unit in units]) for table in tables)
    candidate, baseline = (of - against, minus[0] - minus[1]) if minus else (of, against)
    # The generator is named by the claim, so that its interval is the same whatever else is claimed.
    result = compare(candidate, baseline, rng=stream(0, "claim", claim.id))
    gaps = [(side, gap) for side, wanted in claim.sides.items() for gap in partly_absent(wanted, rows)]
    notes = [f"{side}: no finished round has {gap}." for side, gap in gaps]
    if spread:
        notes.append("The levels of a data set share their trials, so p is smaller than it should be.")
    total = len({(trial.dataset, trial.seed) for trials in started for trial in trials})
    if total > len(units) and not spread:
        left_out = f"{total - len(units)} of {total} pairs of data set and seed are left out"
        notes.append(f"{left_out}: a trial that belongs to them is missing, unfinished or without a value.")
    return Judged(claim, "undecided", "", result, result.low, result.high, notes=tuple(notes))


def _decided(found: Judged, corrected: float, open_tests: int) -> Judged:
    """The evidence with its verdict."""
    claim, result = found.claim, found.result
    if result is None:
        return found
    low, high, notes = found.low, found.high, found.notes
    verdict: Outcome = "undecided"
    if claim.expect == "within":
        margin = claim.margin or 0.0
        span = mean_interval(result.differences)
        low, high = span.low, span.high
        if result.n < 2:
            reason = "one pair allows no interval"
        elif -margin <= low and high <= margin:
            verdict, reason = "supported", f"the 95 % interval lies within ±{margin:g}"
        elif high < -margin or low > margin:
            verdict, reason = "contradicted", f"the 95 % interval lies wholly outside ±{margin:g}"
        else:
            reason = f"the 95 % interval crosses ±{margin:g}"
    elif result.n < 2:
        reason = "one pair allows no test"
    elif corrected <= ALPHA:
        verdict = "supported" if (result.mean > 0) == (claim.expect == "greater") else "contradicted"
        reason = f"{'greater' if result.mean > 0 else 'less'}, p = {corrected:.3g} ≤ {ALPHA:g}"
    else:
        reason = f"p = {corrected:.3g} > {ALPHA:g}"
        reach = reach_warning(result.n, alpha=ALPHA, comparisons=open_tests, unit="pair")
        notes = (*notes, reach) if reach else notes
    return Judged(claim, verdict, reason, result, low, high, corrected, notes)


def _trials(rows: Sequence[Row]) -> list[_Trial]:
    by_trial: dict[str, list[Row]] = {}
    for row in rows:
        by_trial.setdefault(str(row["trial"]), []).append(row)
    return [
        _Trial(
            str(found[0]["dataset"]),
            found[0]["seed"],
            {column: value_of(found[0], column) for column in CONFIGURATION},
            tuple(sorted(found, key=lambda row: int(row["labels"]))),
        )
        for found in by_trial.values()
    ]


def _complete(selections: Sequence[Mapping[str, Any]], sides: Sequence[Sequence[_Trial]]) -> list[list[_Trial]]:
    """The trials that have every number of labels that any of their like has.

    Alike are those on one data set, with one time allowed, of which the same rounds are selected. A trial cut short,
    whose area and last round are others, would otherwise be paired with whole ones.
    """

    def like(selection: Mapping[str, Any], trial: _Trial) -> Unit:
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


def _averages(started: Iterable[_Trial], trials: Iterable[_Trial], measure: str, metric: str) -> dict[Unit, float]:
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


def _spreads(
    claim: Claim, started: Sequence[Sequence[_Trial]], sides: Sequence[Sequence[_Trial]], metric: str
) -> list[dict[Unit, float]]:
    """(data set, what the selections share, labels) -> standard deviation over the seeds that all of them have."""
    column = claim.measure.partition(":")[2] or metric
    wanted = list(claim.sides.values())
    differ = {name for name in COLUMNS if any(other.get(name) != wanted[0].get(name) for other in wanted)}
    differ |= {"plain_method", "tapt", "recipe", "part"} if "method" in differ else set()
    shared = [name for name in CONFIGURATION if name not in differ]
    seeds = _common_seeds(started, sides)
    tables = []
    for trials in sides:
        groups: dict[tuple[str, Unit], list[_Trial]] = {}
        for trial in trials:
            if trial.seed in seeds[trial.dataset]:
                groups.setdefault((trial.dataset, trial.configured), []).append(trial)
        values: dict[Unit, list[float]] = {}
        for (dataset, _), own in groups.items():
            if len(own) < 2:
                continue
            place = (dataset, *(own[0].configuration[name] for name in shared))
            deviations = np.std([trial.numbers(column) for trial in own], axis=0, ddof=1)
            for labels, deviation in zip(own[0].labels, deviations.tolist(), strict=True):
                if math.isfinite(deviation):
                    unit = place if differ.intersection(LEVELS) else (*place, labels)
                    values.setdefault(unit, []).append(deviation)
        tables.append({unit: _mean(found) for unit, found in values.items()})
    return tables


def _common_seeds(started: Sequence[Sequence[_Trial]], sides: Sequence[Sequence[_Trial]]) -> dict[str, set[Any]]:
    """Data set -> the seeds of which every configuration that was started there has a whole trial."""
    seeds: dict[str, set[Any]] = {}
    for begun, whole in zip(started, sides, strict=True):
        for dataset, configured in {(trial.dataset, trial.configured) for trial in begun}:
            found = {trial.seed for trial in whole if (trial.dataset, trial.configured) == (dataset, configured)}
            seeds[dataset] = seeds.get(dataset, found) & found
    return seeds


def _nothing(claim: Claim, metric: str, rows: Sequence[Row]) -> str:
    """Why selected rows give no value."""
    kind, _, name = claim.measure.partition(":")
    if kind == "cka":
        return "no last round has CKA of three layers or more for everything selected; the study must ask for it"
    column = name or metric
    if not any(math.isfinite(number(row.get(column))) for row in rows):
        valid = sorted({key for row in rows for key, value in row.items() if is_number(value)})
        hint = did_you_mean(column, valid)
        return f"no row has a number in {column!r}{hint}; columns with numbers: {', '.join(valid)}"
    seeds = "no two seeds have" if kind == "spread" else "no seed has"
    return f"{seeds} a trial with all rounds, and a number in {column!r}, for everything selected"


def _mean(values: Iterable[float]) -> float:
    """Over the numbers among them; NaN where there is none."""
    found = [value for value in values if math.isfinite(value)]
    return float(np.mean(found)) if found else math.nan
