"""Does a study bear out what is claimed? Claims as records, and what a study's rows say of each.

A claim names a measure, two selections of rows, and which of them should have the greater value, or within what margin
they should agree. A row is one trial and round, with the columns that ``modicum.report`` takes. A trial of each
selection is summed up by the measure; the values are averaged over all that the selection spans (several methods, say)
within each data set and seed, and the two selections are paired by data set and seed. What has no partner, or has not
finished what its like have, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from modicum.analysis.curves import mean_interval
from modicum.analysis.selections import Row, Selection, absence, is_number, meets, number, partly_absent
from modicum.analysis.significance import Comparison, compare, holm, reach_warning
from modicum.analysis.summaries import CONFIGURATION, THIRDS, Trial, averages, complete, spreads, trials_of
from modicum.base.errors import SpecError, UnknownName, did_you_mean
from modicum.base.rng import stream
from modicum.base.spec import Record, canonical_json

ALPHA = 0.05
MEASURES = ("auc", "final", "last", "first", "mean", "spread")

Outcome = Literal["supported", "contradicted", "undecided", "not run"]


class Contrast(Record):
    """A difference: the measure of one selection minus that of another."""

    of: Selection
    against: Selection


class Claim(Record):
    """One claim, as a study file says it.

    id, text, source: its short name, its words, and who made it.
    measure: what a trial is summed up by. Of the study's main metric: ``auc``, the normalised area of its curve;
        ``final`` or ``last``, ``first``, ``mean``: of the selected rounds; ``spread``: how far the trial is from the
        median of its like over seeds, on average over the selected rounds (Brown & Forsythe 1974). Of any other column
        with numbers: ``last:COLUMN``, ``mean:COLUMN`` and so on.
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
    datasets: the data set of each difference.
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
    datasets: tuple[str, ...] = ()
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
    ``within`` is judged on each data set, so that differences do not cancel: supported where Student's 95 % interval of
    the mean difference lies inside the margin on both sides of 0 on all of them (equivalence tests at level 0.025),
    contradicted where it lies wholly outside on one, at 95 % for all of them together (Bonferroni), undecided else.

    Args:
        claims: what to judge.
        rows: a mapping for each trial and round; those of trials that are ``unfinished`` do not count.
        metric: the column of the main metric.
    """
    rows = [row for row in rows if not row.get("unfinished")]  # the curve of a trial that goes on is not its own yet
    found = [_evidence(claim, rows, metric) for claim in claims]
    p_values = [math.nan if f.claim.expect == "within" or not f.result else f.result.sign_flip for f in found]
    corrected = holm(p_values)
    open_tests = int((corrected > ALPHA).sum())  # the correction's step at which those above alpha stand
    return [_decided(f, float(p), open_tests) for f, p in zip(found, corrected, strict=True)]


def _evidence(claim: Claim, rows: Sequence[Row], metric: str) -> Judged:
    """The paired differences, not judged yet; or, with ``not run``, what is missing."""
    chosen = {side: [row for row in rows if meets(row, wanted)] for side, wanted in claim.sides.items()}
    absent = [f"{side}: {absence(claim.sides[side], rows)}" for side, found in chosen.items() if not found]
    if absent:
        return Judged(claim, "not run", "; ".join(absent))
    started = [trials_of(found) for found in chosen.values()]
    whole = complete(list(claim.sides.values()), started)
    if claim.measure.partition(":")[0] == "spread":
        tables = spreads(started, whole, claim.measure.partition(":")[2] or metric)
    else:
        tables = [averages(*trials, claim.measure, metric) for trials in zip(started, whole, strict=True)]
    empty = [side for side, table in zip(chosen, tables, strict=True) if not table]
    if empty:
        return Judged(claim, "not run", f"{', '.join(empty)}: {_nothing(claim, metric, rows)}")
    units = sorted(set.intersection(*(set(table) for table in tables)), key=repr)
    if not units:
        return Judged(claim, "not run", "no data set and seed is on every side")
    of, against, *minus = (np.array([table[unit] for unit in units]) for table in tables)
    candidate, baseline = (of - against, minus[0] - minus[1]) if minus else (of, against)
    # The generator is named by the claim, so that its interval is the same whatever else is claimed.
    result = compare(candidate, baseline, rng=stream(0, "claim", claim.id))
    names = tuple(str(name) for name, _ in units)
    notes = [*_gaps(claim, rows, names), *_unlike(claim, started, names)]
    total = len({(trial.dataset, trial.seed) for trials in started for trial in trials})
    if total > len(units):
        left_out = f"{total - len(units)} of {total} pairs of data set and seed are left out"
        notes.append(f"{left_out}: a trial that belongs to them is missing, unfinished or without a value.")
    if any(trial.configuration["tapt"] for trials in started for trial in trials):
        notes.append("One pretraining serves all seeds: what another one would have given does not count in p.")
    return Judged(claim, "undecided", "", result, names, result.low, result.high, notes=tuple(notes))


def _gaps(claim: Claim, rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    """What the selections name and no row has, on any data set or on one of these."""
    found = []
    for side, wanted in claim.sides.items():
        everywhere = partly_absent(wanted, rows)
        found += [f"{side}: no finished round that it selects has {gap}." for gap in everywhere]
        for name in dict.fromkeys(datasets):
            here = {k: v for k, v in wanted.items() if k != "dataset"}
            gaps = partly_absent(here, [row for row in rows if row["dataset"] == name])
            found += [
                f"{side}: no finished round that it selects on {name} has {gap}."
                for gap in gaps
                if gap not in everywhere
            ]
    return found


def _unlike(claim: Claim, started: Sequence[Sequence[Trial]], datasets: Sequence[str]) -> list[str]:
    """Where two sides differ in more than their selections do: in what they select alike, or not at all."""
    found = []
    wanted = list(claim.sides.values())
    for one, other in [(0, 1), (2, 3)][: len(wanted) // 2]:
        alike = [c for c in CONFIGURATION if canonical_json(wanted[one].get(c)) == canonical_json(wanted[other].get(c))]
        if "method" in wanted[one] or "method" in wanted[other]:  # its label tells all of these
            alike = [column for column in alike if column not in ("plain_method", "tapt", "recipe", "part")]
        for name in dict.fromkeys(datasets):
            has = {
                side: {tuple(t.configuration[column] for column in alike) for t in started[side] if t.dataset == name}
                for side in (one, other)
            }
            either = has[one] | has[other]
            varied = [i for i in range(len(alike)) if len({values[i] for values in either}) > 1]
            for side, own, others in ((one, has[one], has[other]), (other, has[other], has[one])):
                extra = [" × ".join(str(values[i] or "none") for i in varied) for values in own - others]
                if extra:
                    found.append(f"On {name}, only {list(claim.sides)[side]} has {', '.join(sorted(extra))}.")
    return found


def _decided(found: Judged, corrected: float, open_tests: int) -> Judged:
    """The evidence with its verdict."""
    claim, result = found.claim, found.result
    if result is None:
        return found
    low, high, notes = found.low, found.high, found.notes
    verdict: Outcome = "undecided"
    if claim.expect == "within":
        span = mean_interval(result.differences)
        low, high = span.low, span.high
        verdict, reason, by_set = _agreement(found, claim.margin or 0.0)
        notes = (*notes, *by_set)
    elif result.n < 2:
        reason = "one pair allows no test"
    elif corrected <= ALPHA:
        verdict = "supported" if (result.mean > 0) == (claim.expect == "greater") else "contradicted"
        reason = f"{'greater' if result.mean > 0 else 'less'}, p = {corrected:.3g} ≤ {ALPHA:g}"
    else:
        reason = f"p = {corrected:.3g} > {ALPHA:g}"
        reach = reach_warning(result.n, alpha=ALPHA, comparisons=open_tests, unit="pair")
        notes = (*notes, reach) if reach else notes
    return replace(found, verdict=verdict, reason=reason, low=low, high=high, corrected=corrected, notes=notes)


def _agreement(found: Judged, margin: float) -> tuple[Outcome, str, list[str]]:
    """Verdict, reason and, where there are several data sets, a note of what each of them says."""
    assert found.result is not None
    own: dict[str, list[float]] = {}
    for name, difference in zip(found.datasets, found.result.differences.tolist(), strict=True):
        own.setdefault(name, []).append(difference)
    spans = {name: mean_interval(values) for name, values in own.items()}
    sure = [mean_interval(values, confidence=1 - ALPHA / len(own)) for values in own.values()]
    one = len(own) == 1
    said = [f"{name} {s.mean:+.3f} [{s.low:+.3f}, {s.high:+.3f}]" for name, s in spans.items()]
    notes = [] if one else [f"By data set: {'; '.join(said)}."]
    if any(len(values) < 2 for values in own.values()):
        return "undecided", "one pair allows no interval", notes
    if any(span.high < -margin or span.low > margin for span in sure):
        where = "the 95 % interval lies" if one else "the interval of one data set lies"
        return "contradicted", f"{where} wholly outside ±{margin:g}", notes
    crossing = [name for name, span in spans.items() if not (-margin <= span.low and span.high <= margin)]
    if crossing:
        where = "" if one else f" on {', '.join(crossing)}"
        return "undecided", f"the 95 % interval crosses ±{margin:g}{where}", notes
    where = "the 95 % interval lies" if one else "the 95 % interval of each data set lies"
    return "supported", f"{where} within ±{margin:g}", notes


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
    seeds = "no three seeds have" if kind == "spread" else "no seed has"
    return f"{seeds} a trial with all rounds, and a number in {column!r}, for everything selected"
