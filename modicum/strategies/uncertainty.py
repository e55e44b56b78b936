"""Uncertainty sampling: the examples on which the present model is least sure.

Every strategy here gives each candidate a score of its own and takes the k highest; ties keep the pool's order.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.special import entr

from modicum.base.errors import DataError
from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k, top_k


def entropy(proba: np.ndarray) -> np.ndarray:
    """-sum p log p in nats over the last axis, (..., C) -> (...) float64; a class of probability 0 adds 0."""
    return np.asarray(entr(proba, dtype=np.float64).sum(axis=-1))


def mean_proba(view: View) -> np.ndarray:
    """(n, C) float64 mean over the passes of ``mc_proba``."""
    return np.asarray(np.mean(view.signals["mc_proba"], axis=0, dtype=np.float64))


class Uncertainty(Strategy):
    """The frame of this family: a score per candidate, higher is less certain."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"proba"})
    deterministic: ClassVar[bool] = True

    @abstractmethod
    def scores(self, view: View) -> np.ndarray:
        """(n,) scores, the highest the most wanted."""

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        scores = self.scores(view)
        bad = np.flatnonzero(np.isnan(scores))
        if len(bad):
            raise DataError(
                f"scores must be numbers, but {len(bad)} of {view.n} are NaN (the first at position {bad[0]}); "
                "the model has probably diverged: lower its learning rate"
            )
        return top_k(scores, k)


class Entropy(Uncertainty):
    """Highest entropy of the class probabilities (Shannon 1948; Settles 2009, section 3.1)."""

    def scores(self, view: View) -> np.ndarray:
        return entropy(view.signals["proba"])


class Margin(Uncertainty):
    """Smallest margin p1 - p2 between the two likeliest classes (Scheffer et al. 2001); scores are p2 - p1."""

    def scores(self, view: View) -> np.ndarray:
        ordered = np.sort(np.asarray(view.signals["proba"]), axis=1)
        return np.asarray(ordered[:, -2] - ordered[:, -1])


class LeastConfidence(Uncertainty):
    """Lowest probability of the likeliest class (Lewis & Gale 1994); scores are 1 - p1."""

    def scores(self, view: View) -> np.ndarray:
        return np.asarray(1 - np.asarray(view.signals["proba"]).max(axis=1))


class Dropout(Uncertainty):
    """The frame of the strategies that look at several passes under dropout.

    passes: how many.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"mc_proba"})
    passes: int = Field(default=10, ge=1)

    @property
    def mc_passes(self) -> int:
        return self.passes


class MCEntropy(Dropout):
    """Highest entropy of the mean over passes under dropout (Gal & Ghahramani 2016).

    passes: how many dropout passes.
    """

    def scores(self, view: View) -> np.ndarray:
        return entropy(mean_proba(view))


class BALD(Dropout):
    """Highest mutual information between label and weights, H(mean p) - mean H(p) (Houlsby et al. 2011).

    passes: how many dropout passes; with one, all scores are 0.
    """

    def scores(self, view: View) -> np.ndarray:
        passes = view.signals["mc_proba"]
        # pass by pass, so that no (passes, n, classes) temporary is made
        return np.asarray(entropy(mean_proba(view)) - sum(entropy(proba) for proba in passes) / len(passes))
