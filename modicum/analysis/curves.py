"""Learning curves as numbers: the area under them, how many labels reach a target, and intervals over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from modicum.base.errors import SpecError


@dataclass(frozen=True)
class Interval:
    """The mean of n finite values and its confidence limits, which are NaN where n < 2."""

    mean: float
    low: float
    high: float
    n: int


def normalised_auc(labels: ArrayLike, values: ArrayLike) -> np.ndarray:
    """Area under the curve by the trapezoidal rule, divided by the range of the label counts.

    It is the curve's mean height, so in [0, 1] for a metric in [0, 1]. On an even grid of m points it equals the
    form of Jukić & Šnajder (2023), the trapezoid over steps of one divided by m - 1. The area of a single point is
    its value.

    Args:
        labels: (m,) strictly increasing numbers of labels.
        values: (..., m) the metric after each round.

    Returns:
        (...) float64; NaN where a value is missing.

    Raises:
        SpecError: the labels do not increase, or the two lengths differ.
    """
    x, y = _curve(labels, values)
    if len(x) == 1:
        return np.asarray(y[..., 0])
    return np.asarray(np.trapezoid(y, x, axis=-1) / (x[-1] - x[0]))


def ripl(active: float, passive: float) -> float:
    """Relative improvement over passive learning, (AUC_AL - AUC_PL) / (1 - AUC_PL) (Jukić & Šnajder 2023).

    1 means that active learning closes all the room that random sampling leaves below a perfect curve. NaN where
    the passive area is 1 or more: no room is left, or the metric is not bounded by 1.
    """
    room = 1.0 - passive
    return (active - passive) / room if room > 0 else float("nan")


def isotonic(values: ArrayLike, *, increasing: bool = True) -> np.ndarray:
    """(m,) the nearest monotone curve by least squares (pool adjacent violators; Barlow et al. 1972)."""
    return np.asarray(optimize.isotonic_regression(np.asarray(values, dtype=np.float64), increasing=increasing).x)


def labels_to_target(labels: ArrayLike, values: ArrayLike, target: float, *, increasing: bool = True) -> float | None:
    """The least number of labels at which the smoothed curve reaches a target.

    The curve is made monotone first, so that one lucky round does not count as arrival, and is read linearly
    between rounds. A curve that starts at the target or beyond answers its first number of labels, an upper bound.

    Args:
        labels: (m,) strictly increasing numbers of labels.
        values: (m,) the metric after each round; missing ones (NaN) are left out.
        target: the value to reach.
        increasing: False for a metric that gets better as it falls.

    Returns:
        The number of labels, or None where the curve never arrives.

    Raises:
        SpecError: the labels do not increase, or the two lengths differ.
    """
    x, y = _curve(labels, values)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(x):
        return None
    smooth = isotonic(y, increasing=increasing)
    if not increasing:
        smooth, target = -smooth, -target
    reached = np.flatnonzero(smooth >= target - 1e-12)
    if not len(reached):
        return None
    first = int(reached[0])
    if first == 0:
        return float(x[0])
    share = (target - smooth[first - 1]) / (smooth[first] - smooth[first - 1])
    return float(x[first - 1] + min(share, 1.0) * (x[first] - x[first - 1]))


def savings(active: float | None, passive: float | None) -> float | None:
    """The share of labels saved, 1 - active / passive; negative where active learning needs more, None if unknown."""
    return None if active is None or passive is None else 1.0 - active / passive


def mean_interval(
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    method: Literal["t", "bootstrap"] = "t",
    rng: np.random.Generator | None = None,
) -> Interval:
    """The mean over seeds with a confidence interval; values that are not finite are left out.

    Args:
        values: (n,) one value a seed.
        confidence: the interval's nominal coverage, in (0, 1).
        method: ``t`` for Student's interval, ``bootstrap`` for percentiles of 10,000 resampled means.
        rng: the bootstrap's generator.

    Raises:
        SpecError: the confidence is not in (0, 1), or the bootstrap has no generator.
    """
    if not 0 < confidence < 1:
        raise SpecError(f"a confidence must lie between 0 and 1, got {confidence}; 0.95 is customary")
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Interval(float(x[0]) if len(x) else float("nan"), float("nan"), float("nan"), len(x))
    mean, tail = float(x.mean()), (1 - confidence) / 2
    if method == "t":
        half = float(stats.t.ppf(1 - tail, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
        return Interval(mean, mean - half, mean + half, len(x))
    if rng is None:
        raise SpecError("a bootstrap interval needs a generator, got rng=None; pass rng=stream(seed, ...)")
    means = rng.choice(x, size=(10_000, len(x))).mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), len(x))


def _curve(labels: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, checked against one another."""
    x, y = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or y.ndim < 1 or y.shape[-1] != len(x):
        raise SpecError(
            f"a curve needs as many values as numbers of labels, and at least one; got {y.shape} values for {x.shape}"
        )
    if (np.diff(x) <= 0).any():
        raise SpecError(f"numbers of labels must increase from round to round, got {x.tolist()}; keep one value each")
    return x, y
