"""The search: cross-validation within the labels given, by successive halving, weighed against what was known.

Nothing but the job's labels is looked at. How far it goes depends on their number, so that the same labels and seed
give the same choice on every machine; only a time limit makes it depend on the machine, and that is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import hmean

from modicum.analysis.metrics import macro_f1
from modicum.auto.recipes import Recipe, Table
from modicum.base.rng import stream
from modicum.base.training import FitJob

RESAMPLES = 200
"""Of the labels, to learn how far a difference in macro-F1 may be chance."""
DOUBT = 0.01
"""Standard deviation of a recipe's gain between data sets, which the known gains are trusted to: 0.006 to 0.011 on
the four where 100 labels or more teach something (docs/design/007)."""

CrossValidate = Callable[[Recipe, int, int], tuple[np.ndarray, float]]
"""(recipe, folds, repeat) -> (n, classes) probabilities of unseen labels, and seconds of training."""
Cost = Callable[[Recipe], float]
"""Seconds of one training by a recipe, about."""


@dataclass
class Tried:
    """A recipe's evidence. scores: macro-F1 of each round of folds. gain: over the first recipe, expected after all."""

    recipe: Recipe
    expected: float
    said: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and why in a sentence. said: (n, classes) what its models said of labels they did not see."""

    recipe: Recipe
    reason: str
    tried: tuple[Tried, ...]
    said: np.ndarray | None


def choose(
    job: FitJob, table: Table, cross_validate: CrossValidate, limit: float | None = None, cost: Cost | None = None
) -> Chosen:
    """The recipe for these labels. One that is alone to be tried is cross-validated, too, for its calibration.

    limit: seconds that search and the training to come may take together; a comparison that does not fit is left out,
    by what ``cost`` says of one training. The training to come is done in any case.
    """
    labels, started = len(job.targets), time.monotonic()
    counts = np.unique(job.targets, return_counts=True)[1]
    per_class = float(hmean(counts))  # a rare class decides, however many texts the others have
    known = table.best(per_class, labels - counts.max())
    effort = table.effort(labels)
    every = [Tried(recipe, recipe.expected(per_class)) for recipe in known[: effort.recipes]]
    usual = f"the usual recipe, for {labels} labels"
    if not effort.rungs or counts.max() < 2:
        return Chosen(every[0].recipe, usual, tuple(every), None)
    left, short, dearest = list(every), False, 0.0
    for rung in range(effort.rungs):
        for tried in left:
            if limit is not None and cost is not None:
                one = cost(tried.recipe)
                dearest = max(dearest, one)  # whichever is chosen is trained once more
                if time.monotonic() - started + effort.folds * one + dearest > limit:
                    short = True
                    break
            said, seconds = cross_validate(tried.recipe, effort.folds, rung)
            tried.said.append(said)
            tried.scores.append(macro_f1(job.targets, said.argmax(1)))
            tried.seconds += seconds
        _weigh(job, every)
        left = sorted((t for t in left if t.scores), key=lambda t: -t.gain)[: _half(len(left))]
        if short or len(left) <= 1:
            break
    seen = [tried for tried in every if tried.scores]
    if len(seen) < 2:
        said = seen[0].said[0] if seen else None
        reason = usual if len(every) == 1 else "the usual recipe, there being no time to compare"
        return Chosen(every[0].recipe, reason, tuple(every), said)
    best = max(seen, key=lambda tried: tried.gain)
    reason = f"best of {len(seen)} by cross-validation on {labels} labels, weighed against what is usual"
    said = best.said[-1]  # of one model, as the one to be calibrated is; a mean over rungs would be less sure
    return Chosen(best.recipe, reason + (", as far as time went" if short else ""), tuple(every), said)


def trainings_of_search(table: Table, labels: int) -> int:
    """How often ``choose`` trains for so many labels where no limit stops it."""
    effort, total = table.effort(labels), 0
    left = min(effort.recipes, len(table.recipes))
    for _ in range(effort.rungs):
        total += effort.folds * left
        left = _half(left)
        if left == 1:
            break
    return total


def _half(count: int) -> int:
    """How many of so many recipes go on."""
    return max(1, -(-count // 2))


def _weigh(job: FitJob, every: Sequence[Tried]) -> None:
    """Each recipe's expected gain over the first one tried: the known gain and the measured one, by their precisions.

    Both are taken as normal: the known gain with a deviation of ``DOUBT``, the measured one with that of the bootstrap
    over the labels, each resample the same for all recipes.
    """
    seen = [tried for tried in every if tried.scores]
    if not seen:
        return
    rng = stream(job.seed, "auto", job.round)
    base, n = seen[0], len(job.targets)
    draws = rng.integers(0, n, (RESAMPLES, n))
    for tried in seen:
        known = tried.expected - base.expected
        if tried is base:
            tried.gain = 0.0
            continue
        measured = np.mean(tried.scores) - np.mean(base.scores)
        noise = float(np.std([_difference(job.targets, tried, base, rows) for rows in draws])) or 1e-6
        trust = DOUBT**2 / (DOUBT**2 + noise**2)
        tried.gain = float(known + trust * (measured - known))


def _difference(targets: np.ndarray, tried: Tried, base: Tried, rows: np.ndarray) -> float:
    def score(one: Tried) -> float:
        return float(np.mean([macro_f1(targets[rows], said[rows].argmax(1)) for said in one.said]))

    return score(tried) - score(base)
