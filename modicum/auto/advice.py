"""What further labels are likely to bring: a forecast of the learning curve from the labels at hand, with its doubt.

The error 1 - macro-F1 is taken to fall as a power of the number of labels. Cross-validation with all labels of the
other folds, and with half of them, says where the curve is and how it falls; ``known.toml`` says how it usually falls,
and how far such forecasts are off. All is weighed by its variance, in the logarithm. Cross-validated is the first
recipe of ``auto``'s table, which trains soonest; the forecast is of what ``auto`` reaches, by whichever it takes.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import Field

from modicum.analysis.metrics import macro_f1
from modicum.base.rng import stream
from modicum.base.spec import Record
from modicum.base.training import FitJob
from modicum.engine.engine import Engine

SHIPPED = Path(__file__).parent / "known.toml"
FOLDS, THIN = 5, 2
RESAMPLES = 500
STEP, SIGHT = 100, 20
"""Labels that must bring something; and how many times the labels at hand a forecast looks ahead at most."""
Z = 1.645
"""Standard deviations to both sides within which 90 % of a normal distribution lie."""


class Curves(Record):
    """How learning curves usually fall: log error = offset - slope · log labels, from where cross-validation is.

    slope, slope_sd: mean and spread between data sets. offset, offset_sd: of test over cross-validated error, with all
    that no label can foretell. noise: standard deviation of a log error under other folds and first weights.
    """

    slope: float
    slope_sd: float = Field(gt=0)
    offset: float
    offset_sd: float = Field(gt=0)
    noise: float = Field(gt=0)


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


class Evidence(Record):
    """What cross-validation says of the labels at hand.

    labels: on which models were trained, with all and with a part of the other folds'. log_errors: of these two.
    covariance: of the two, over resamples of the labels.
    """

    labels: tuple[int, int]
    log_errors: tuple[float, float]
    covariance: tuple[tuple[float, float], tuple[float, float]]


class Forecast(Record):
    """Macro-F1 to be expected with so many labels, and the limits of its 90 % interval."""

    labels: int
    value: float
    low: float
    high: float


def gather(engine: Engine, job: FitJob) -> Evidence:
    """Cross-validate the labels of a job, with all and with half of the other folds' labels.

    Raises:
        SpecError: there are fewer labels than folds.
    """
    n, errors, trained = len(job.ids), [], []
    draws = stream(job.seed, "advice", job.round).integers(0, n, (RESAMPLES, n))
    for thin in (1, THIN):
        (said,), _ = engine.out_of_fold([job], FOLDS, thin=thin)
        predicted = said.argmax(1)
        errors.append([_error(job.targets[rows], predicted[rows]) for rows in (np.arange(n), *draws)])
        trained.append(max(1, round(n * (1 - 1 / FOLDS) / thin)))
    found = np.array(errors)
    covariance = np.cov(np.log(found[:, 1:]))
    # resamples of few errors say too little of what was not seen: no rate is known better than so many labels tell it
    covariance += max(0.0, (1 - found[0, 0]) / (n * found[0, 0]) - covariance[0, 0])
    return Evidence(
        labels=(trained[0], trained[1]),
        log_errors=(float(np.log(found[0, 0])), float(np.log(found[1, 0]))),
        covariance=tuple(tuple(row) for row in covariance.tolist()),
    )


def _error(truth: np.ndarray, predicted: np.ndarray) -> float:
    """1 - macro-F1, drawn a little to one half, as (errors + 1/2) / (n + 1) draws a rate: it is never 0."""
    n = len(truth)
    return (n * (1 - macro_f1(truth, predicted)) + 0.5) / (n + 1)


def forecast(evidence: Evidence, labels: int, curves: Curves) -> Forecast:
    """What so many labels, drawn as those at hand were, are expected to reach."""
    mean, deviation = log_error(evidence, labels, curves)
    low, value, high = (1 - min(1.0, float(np.exp(mean + by * deviation))) for by in (Z, 0.0, -Z))
    return Forecast(labels=labels, value=value, low=low, high=high)


def log_error(evidence: Evidence, labels: int, curves: Curves) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the test error with so many labels.

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
