"""What further labels are likely to bring: a forecast of the learning curve from the labels at hand, with its doubt.

The error 1 - macro-F1 is taken to fall as a power of the number of labels. Cross-validation with all labels of the
other folds, and with half of them, says where the curve is and how it falls; ``known.toml`` says how it usually falls,
and how far such forecasts are off. All is weighed by its variance, in the logarithm. Or labels teach nothing, and the
curve stays where guessing is: how likely that is, cross-validation says too. Cross-validated is the first recipe of
``auto``'s table, which trains soonest; the forecast is of what ``auto`` reaches, by whichever it takes.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import brentq
from scipy.special import expit, logit, logsumexp
from scipy.stats import norm
from sklearn.metrics import f1_score

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.spec import Record
from modicum.base.training import FitJob
from modicum.engine.engine import Engine

SHIPPED = Path(__file__).parent / "known.toml"
FOLDS, THIN = 5, 2
RESAMPLES = 500
STEP, SIGHT = 100, 20
"""Labels that must bring something; and how many times the labels at hand a forecast looks ahead at most."""
COVERED = 0.9
"""What intervals are meant to cover."""
GUESS_SD = 0.1
"""Standard deviation of what models that guess reach, as a share of what guessing by the classes' frequencies reaches,
1 / classes. It is set so that with two classes, of which one has 70 %, always guessing that one is within 90 %."""
UNJUDGED, UNJUDGED_SD = 0.86, 0.27
"""What classes with fewer labels than folds reach of the others' F1, and the standard deviation, on the helpdesk
messages: 17 classes with one to four of 40 labels, five seeds (docs/design/007)."""
LEVELS = 200
"""Levels between guessing and no error, all as likely, that a curve is taken to be at."""


class Curves(Record):
    """How learning curves usually fall: log error = offset - slope · log labels, from where cross-validation is.

    slope, slope_sd: mean and spread between data sets. offset, offset_sd: of test over cross-validated error, with all
    that no label can foretell. noise: standard deviation of a log error under other folds and first weights. flat: how
    often labels teach nothing.
    """

    slope: float
    slope_sd: float = Field(gt=0)
    offset: float
    offset_sd: float = Field(gt=0)
    noise: float = Field(gt=0)
    flat: float = Field(ge=0, lt=1)


class Checked(Record):
    """How far forecasts were right on data sets that they were not fitted on.

    held: share of the 90 % intervals that held. labels: the fewest and the most that were foretold.
    """

    data_sets: int = Field(ge=1)
    forecasts: int = Field(ge=1)
    held: float = Field(ge=0, le=1)
    labels: tuple[int, int]


class Known(Record):
    """What does not come from the labels at hand. cold: the strategy to take before there is a label."""

    curves: Curves
    checked: Checked
    cold: str


@cache
def shipped_knowledge() -> Known:
    """What comes with Modicum."""
    return Known(**tomllib.loads(SHIPPED.read_text(encoding="utf-8")))


LogError = Annotated[float, Field(lt=0)]


class Evidence(Record):
    """What cross-validation says of the labels at hand.

    classes: with labels or without. labels: on which models were trained, with all and with a part of the other folds'.
    log_errors: of these two. guessed: the log error of guessing by the classes' frequencies, counted alike. covariance:
    of the two, over resamples of the labels, and by classes that are not judged.
    """

    classes: int = Field(ge=2)
    labels: tuple[int, int]
    log_errors: tuple[LogError, LogError]
    guessed: LogError
    covariance: tuple[tuple[float, float], tuple[float, float]]


class Forecast(Record):
    """Macro-F1 to be expected with so many labels, and the limits of its 90 % interval."""

    labels: int
    value: float
    low: float
    high: float


def gather(engine: Engine, job: FitJob) -> Evidence:
    """Cross-validate the labels of a job, with all and with half of the other folds' labels.

    A class with fewer labels than folds, or none, is not judged: such classes are taken to reach ``UNJUDGED`` of the
    others' F1, all with the same deviation.

    Raises:
        SpecError: no class has as many labels as there are folds.
    """
    n, errors, counts = len(job.ids), [], np.bincount(job.targets)
    judged = np.flatnonzero(counts >= FOLDS)
    if not len(judged):
        raise SpecError(f"no class has {FOLDS} labels, which {FOLDS} folds need to judge it")
    draws = stream(job.seed, "advice", job.round).integers(0, n, (RESAMPLES, n))
    for thin in (1, THIN):
        (said,), _ = engine.out_of_fold([job], FOLDS, thin=thin)
        predicted, classes = said.argmax(1), said.shape[1]
        errors.append([_error(job.targets[at], predicted[at], judged, classes) for at in (np.arange(n), *draws)])
    found = np.array(errors)
    covariance = np.cov(np.log(found[:, 1:]))
    # resamples of few errors say too little of what was not seen: no rate is known better than so many labels tell it
    covariance += max(0.0, (1 - found[0, 0]) / (n * found[0, 0]) - covariance[0, 0])
    whole = _whole(len(judged), classes)
    doubt = UNJUDGED_SD * (1 - len(judged) / classes) * (1 - found[:, 0]) / whole / found[:, 0]
    covariance += np.outer(doubt, doubt)
    return Evidence(
        classes=classes,
        guessed=float(np.log(1 - whole * counts[judged].mean() / n)),
        labels=trained_on(n),
        log_errors=(float(np.log(found[0, 0])), float(np.log(found[1, 0]))),
        covariance=tuple(tuple(row) for row in covariance.tolist()),
    )


def trained_on(labels: int) -> tuple[int, int]:
    """How many of so many labels models are trained on, with all and with a part of the other folds'."""
    whole, part = (max(1, round(labels * (1 - 1 / FOLDS) / thin)) for thin in (1, THIN))
    return whole, part


def _error(truth: np.ndarray, predicted: np.ndarray, judged: np.ndarray, classes: int) -> float:
    """1 - macro-F1, drawn a little to one half, as (errors + 1/2) / (n + 1) draws a rate: it is never 0.

    Of ``classes`` those that are not ``judged`` are taken to have ``UNJUDGED`` of the others' F1.
    """
    n, known = len(truth), f1_score(truth, predicted, labels=judged, average="macro", zero_division=0)
    return (n * (1 - known * _whole(len(judged), classes)) + 0.5) / (n + 1)


def _whole(judged: int, classes: int) -> float:
    """The macro-F1 of all classes as a share of that of the judged ones."""
    return 1 - (1 - UNJUDGED) * (1 - judged / classes)


def forecast(evidence: Evidence, labels: int, curves: Curves) -> Forecast:
    """What so many labels, drawn as those at hand were, are expected to reach.

    Either the error falls as ``log_error`` says, or it stays near that of guessing: the limits are quantiles of the
    mixture, and the value is the mean of what the two expect, or the nearer limit where it is beyond.
    """
    mean, deviation = log_error(evidence, labels, curves)
    chance, flat = np.log(1 - 1 / evidence.classes), guessing(evidence, curves)
    mean, spread = min(mean, chance), _spread(chance)
    ends = [at + by * 10 * sd for at, sd in ((mean, deviation), (chance, spread)) for by in (-1, 1)]

    def exceeded(share: float) -> float:
        """The macro-F1 that is exceeded with this probability."""

        def less(at: float) -> float:
            return flat * norm.cdf(at, chance, spread) + (1 - flat) * norm.cdf(at, mean, deviation) - share

        return 1 - float(np.exp(min(0.0, brentq(less, min(ends), max(ends)))))

    low, high = exceeded((1 + COVERED) / 2), exceeded((1 - COVERED) / 2)
    value = flat / evidence.classes + (1 - flat) * (1 - float(np.exp(mean)))
    return Forecast(labels=labels, value=min(max(value, low), high), low=low, high=high)


def guessing(evidence: Evidence, curves: Curves) -> float:
    """The probability that labels teach nothing, after cross-validation.

    By Bayes' rule between two explanations of the log error with all labels: it is that of guessing; or it is any whose
    macro-F1 lies between guessing's and 1. Its variance is what it would be under either, as a rate's (1 - e) / (n e).
    """
    if not curves.flat:
        return 0.0
    seen, chance = evidence.log_errors[0], evidence.guessed
    levels = chance + np.log((np.arange(LEVELS) + 0.5) / LEVELS)  # macro-F1 in equal steps

    def density(at: np.ndarray, spread: float) -> float:
        """The logarithm of the mean over these levels."""
        variance = evidence.covariance[0][0] * np.expm1(-at) / np.expm1(-seen) + curves.noise**2 + spread**2
        return float(logsumexp(norm.logpdf(seen, at, np.sqrt(variance))) - np.log(len(at)))

    guessed, taught = density(np.array([chance]), _spread(chance)), density(levels, 0.0)
    return float(expit(logit(curves.flat) + guessed - taught))


def _spread(chance: float) -> float:
    """The standard deviation of the log error of models that guess, whose log error is ``chance`` in the mean."""
    return float(GUESS_SD * np.expm1(-chance))


def log_error(evidence: Evidence, labels: int, curves: Curves) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the test error with so many labels, if these teach something.

    The two log errors are l and l + slope · log(ratio), with their covariance; l is not known beforehand, the slope as
    is usual. Of these the posterior is normal, and the forecast a linear map of it; a slope that comes out below 0 is
    taken as 0, since labels do no harm.
    """
    ratio = np.log(evidence.labels[0] / evidence.labels[1])
    design = np.array([[1.0, 0.0], [1.0, ratio]])
    precision = np.linalg.inv(np.array(evidence.covariance) + curves.noise**2 * np.eye(2))
    prior = np.diag([0.0, curves.slope_sd**-2])
    posterior = np.linalg.inv(design.T @ precision @ design + prior)
    told = design.T @ precision @ np.array(evidence.log_errors) + prior @ np.array([0.0, curves.slope])
    level, slope = posterior @ told
    onward = np.array([1.0, -np.log(labels / evidence.labels[0])])
    mean = float(onward @ [level, max(0.0, slope)]) + curves.offset
    return mean, float(np.sqrt(onward @ posterior @ onward + curves.offset_sd**2))


def enough(evidence: Evidence, labels: int, worth: float, curves: Curves) -> int | None:
    """From how many labels on ``STEP`` more are expected to bring less macro-F1 than is worth it; None beyond sight."""
    for at in range(labels, SIGHT * labels + STEP, STEP // 2):
        if forecast(evidence, at + STEP, curves).value - forecast(evidence, at, curves).value < worth:
            return at
    return None
