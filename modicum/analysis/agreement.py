"""How far annotators agree beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha, with intervals over items.

Labels are classes 0..C-1, and -1 is no label. Intervals are percentiles of a bootstrap that draws whole items, since an
item's labels belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modicum.base.errors import SpecError

RESAMPLES = 2_000
BLOCK = 4_000_000
"""Numbers of a bootstrap that are in memory at once."""
MOST_LOST = 0.05
"""An interval is not given where a larger share of the resamples has no value."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""(..., patterns) how often each pattern of labels occurs -> (...) the coefficient, NaN where it has none."""


@dataclass(frozen=True)
class Agreement:
    """A coefficient: 1 is full agreement, 0 what chance gives, NaN where it cannot be told.

    low, high: 95 % limits; NaN where they cannot be told. items: those that two annotators or more have labelled.
    reason: why a number is NaN, "" where none is.
    """

    value: float
    low: float
    high: float
    items: int
    reason: str = ""


def label_table(answers: Iterable[tuple[int, int, int]]) -> tuple[np.ndarray, list[int], list[int]]:
    """(items, annotators) int64 labels, -1 where there is none; the items and the annotators, both in rising order.

    answers: (item, annotator, label); of two for one item and annotator the later counts.
    """
    found = np.array(list(answers), np.int64).reshape(-1, 3)
    items, row = np.unique(found[:, 0], return_inverse=True)
    annotators, column = np.unique(found[:, 1], return_inverse=True)
    table = np.full((len(items), len(annotators)), -1, np.int64)
    table[row, column] = found[:, 2]
    return table, items.tolist(), annotators.tolist()


def cohen_kappa(first: ArrayLike, second: ArrayLike, *, rng: np.random.Generator) -> Agreement:
    """Cohen's kappa of two annotators over the items that both have labelled (Cohen 1960).

    first, second: (n,) labels.

    Raises:
        SpecError: their lengths differ.
    """
    a, b = np.asarray(first, np.int64), np.asarray(second, np.int64)
    if a.ndim != 1 or a.shape != b.shape:
        raise SpecError(f"two annotators' labels must be two rows of one length, got shapes {a.shape} and {b.shape}")
    both = (a >= 0) & (b >= 0)
    cells, counts = np.unique(np.column_stack([a[both], b[both]]), axis=0, return_counts=True)
    same = (cells[:, 0] == cells[:, 1]).astype(float)
    classes = int(cells.max(initial=-1)) + 1
    rows, columns = (np.eye(classes)[cells[:, side]] for side in (0, 1))

    def kappa(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(-1)
        chance = ((weights @ rows) * (weights @ columns)).sum(-1) / total**2
        return _beyond(weights @ same / total, chance)

    return _resampled(kappa, counts, rng)


def fleiss_kappa(table: ArrayLike, *, rng: np.random.Generator) -> Agreement:
    """Fleiss' kappa of (items, annotators) labels (Fleiss 1971).

    Items may have different numbers of labels: those with fewer than two are left out, each of the others counts once
    in the agreement, and each label once in the classes' shares. With equal numbers this is Fleiss' own formula.
    """
    patterns, counts = _patterns(table)
    labels = patterns.sum(1)
    agreeing = (patterns * (patterns - 1)).sum(1) / (labels * (labels - 1))

    def kappa(weights: np.ndarray) -> np.ndarray:
        shares = weights @ patterns / (weights @ labels)[..., None]
        return _beyond(weights @ agreeing / weights.sum(-1), (shares**2).sum(-1))

    return _resampled(kappa, counts, rng)


def krippendorff_alpha(table: ArrayLike, *, rng: np.random.Generator) -> Agreement:
    """Krippendorff's alpha of (items, annotators) labels for nominal classes; labels may be missing.

    1 - observed / expected disagreement, from the matrix of coincidences (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability", section C).
    """
    patterns, counts = _patterns(table)
    labels = patterns.sum(1)
    disagreeing = (labels**2 - (patterns**2).sum(1)) / (labels - 1)

    def alpha(weights: np.ndarray) -> np.ndarray:
        of_class, total = weights @ patterns, weights @ labels
        expected = (total**2 - (of_class**2).sum(-1)) / (total - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(expected > 0, 1 - weights @ disagreeing / expected, np.nan)

    return _resampled(alpha, counts, rng)


def _patterns(table: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(patterns, C) how many labels of each class an item has, of items with two or more; and how many items have it.

    Raises:
        SpecError: the table is no table.
    """
    labels = np.asarray(table, np.int64)
    if labels.ndim != 2:
        raise SpecError(f"labels must be a table of items by annotators, got an array of shape {labels.shape}")
    classes = int(labels.max(initial=-1)) + 1
    found = np.stack([(labels == c).sum(1) for c in range(classes)], 1) if classes else np.zeros((0, 0), np.int64)
    patterns, counts = np.unique(found[found.sum(1) >= 2], axis=0, return_counts=True)
    return patterns.astype(float), counts


def _beyond(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Agreement beyond chance, NaN where chance alone is sure to agree."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)


def _resampled(statistic: Statistic, counts: np.ndarray, rng: np.random.Generator) -> Agreement:
    """The coefficient and its interval. Drawing items is drawing how often each pattern of labels occurs."""
    items, nan = int(counts.sum()), float("nan")
    if not items:
        return Agreement(nan, nan, nan, 0, "no item has labels by two annotators")
    value = float(statistic(counts.astype(float)))
    if np.isnan(value):
        return Agreement(nan, nan, nan, items, "all labels are of one class, so that chance alone would agree as much")
    if len(counts) == 1 or value >= 1:
        why = "there is one item" if items == 1 else "all items agree" if value >= 1 else "all items are alike"
        return Agreement(value, nan, nan, items, f"no interval: {why}, and drawing them again changes nothing")
    size = max(1, BLOCK // len(counts))
    draws = [
        statistic(rng.multinomial(items, counts / items, size=min(size, RESAMPLES - start)).astype(float))
        for start in range(0, RESAMPLES, size)
    ]
    values = np.concatenate(draws)
    known = values[np.isfinite(values)]
    if len(known) < (1 - MOST_LOST) * RESAMPLES:
        why = "no interval: too few items, so that many a draw of them holds one class alone"
        return Agreement(value, nan, nan, items, why)
    low, high = np.quantile(known, [0.025, 0.975])
    return Agreement(value, float(low), float(high), items)
