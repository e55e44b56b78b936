"""Is more labelling worth it? From what the models scored on random items, and how much they changed their minds.

Both can say too little, and then that is what is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

ENOUGH_AUDIT = 50
"""Audit items below which a curve is not judged: 95 % limits are then up to 14 points away."""
ENOUGH_MODELS = 4
GAIN = 0.01
"""A gain of accuracy, from twice the labels, below which more of them are not worth it."""
STEADY, STEADY_ROUNDS = 0.99, 3
"""Predictions are steady where kappa between successive models is so high so many times in a row (Bloodgood &
Vijay-Shanker 2009)."""
Z = 1.959964


class Worth(NamedTuple):
    """verdict: whether more labels are worth it. text: why, in words for people."""

    verdict: Literal["yes", "no", "unknown"]
    text: str


class Gain(NamedTuple):
    """What twice the labels would add to the accuracy, with 95 % limits."""

    value: float
    low: float
    high: float


def wilson(right: float, n: int) -> tuple[float, float]:
    """95 % limits of a share, right of n (Wilson 1927); NaN for none of none."""
    if not n:
        return math.nan, math.nan
    share = right / n
    middle, half = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + Z**2 / n)), min(1.0, (middle + half) / (1 + Z**2 / n))


def curve_point(model: int, labels: int, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A model on the learning curve, by its record: its accuracy on so many audit items, with limits.

    None where no audit item had a label to measure it by.
    """
    audit, accuracy = int(record.get("audit", 0)), record.get("accuracy")
    if not audit or accuracy is None:
        return None
    low, high = wilson(accuracy * audit, audit)
    return {"model": model, "labels": labels, "items": audit, "value": accuracy, "low": low, "high": high}


def gain_of_doubling(points: Sequence[Mapping[str, Any]]) -> Gain | None:
    """The slope of accuracy by log2(labels), by least squares weighted by audit items, from a quarter of the labels on.

    The error is that of shares of as many items. Models share their audit items, so their differences are surer than
    that: the limits are on the safe side. None for fewer than four models that differ in labels.
    """
    latest = max((point["labels"] for point in points), default=0)
    used = {point["labels"]: point for point in points if 4 * point["labels"] >= latest and point["labels"] > 0}
    if len(used) < ENOUGH_MODELS:
        return None
    x = np.log2(np.array(list(used), np.float64))
    y, n = (np.array([point[name] for point in used.values()], np.float64) for name in ("value", "items"))
    share = (y * n + 1) / (n + 2)  # not 0 or 1, where the error would vanish
    variance = share * (1 - share) / n
    weights = 1 / variance
    spread = x - np.average(x, weights=weights)
    size = float((weights * spread**2).sum())
    slope, error = float((weights * spread * y).sum() / size), math.sqrt(1 / size)
    return Gain(slope, slope - Z * error, slope + Z * error)


def is_worth(points: Sequence[Mapping[str, Any]], kappas: Sequence[float]) -> Worth:
    """points: the learning curve. kappas: agreement of each model with the one before, oldest first."""
    audit = points[-1]["items"] if points else 0
    steady = len(kappas) >= STEADY_ROUNDS and min(kappas[-STEADY_ROUNDS:]) >= STEADY
    settled = f"Predictions have hardly changed over the last {STEADY_ROUNDS} trainings" if steady else ""
    gain = gain_of_doubling(points)
    if audit < ENOUGH_AUDIT or gain is None:
        have = f"{audit} audit item{'s' * (audit != 1)} and {len(points)} measured model{'s' * (len(points) != 1)}"
        need = f"it takes {ENOUGH_AUDIT} and {ENOUGH_MODELS}, within a doubling or two of the labels"
        lack = f"Too little evidence to say how much more labels would help: {have} so far; {need}."
        return Worth("unknown", f"{settled}, but whether they are right is not known. {lack}" if steady else lack)
    points_of = f"{100 * gain.value:+.1f} points of accuracy (95 %: {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    measured = (
        f"Twice the labels would bring about {points_of}, if the curve goes on as it does on {audit} random items"
    )
    if gain.low >= GAIN:
        return Worth("yes", f"{measured}.")
    if gain.high < GAIN:
        return Worth("no", f"{measured}.")
    if steady:
        return Worth("no", f"{settled}. {measured}.")
    return Worth("unknown", f"{measured}: too wide a range to tell.")
