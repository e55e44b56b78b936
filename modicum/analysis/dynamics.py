"""Training dynamics: which examples a run learned, forgot or never got right, and how sure it was of them.

Everything here is read from two matrices with a row an epoch, ``correct`` and ``confidence``, taken when each example
came up. An example that did not come up in an epoch (the last one may be cut short) has NaN confidence there; that
epoch then says nothing about it, and no mistake is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modicum.base.errors import SpecError


@dataclass(frozen=True)
class Forgetting:
    """What n training examples went through (Toneva et al. 2019).

    The shares are of the examples that came up at all, and NaN where none did; never learned, unforgettable and
    forgettable ones add up to 1.

    events: (n,) how often each was forgotten; 0 for one that was never learned.
    first_learned: (n,) the epoch, from 0, of its first correct answer; -1 for never.
    seen: (n,) bool, whether it came up at all.
    often: the number of events from which an example counts as often forgotten.
    """

    events: np.ndarray
    first_learned: np.ndarray
    seen: np.ndarray
    often: int = 3

    @property
    def learned(self) -> np.ndarray:
        """(n,) bool: correct in one epoch at least."""
        return np.asarray(self.first_learned >= 0)

    @property
    def never_learned(self) -> float:
        """Share that was wrong whenever it came up."""
        return self._share(~self.learned)

    @property
    def unforgettable(self) -> float:
        """Share that was learned, and never forgotten from then on."""
        return self._share(self.learned & (self.events == 0))

    @property
    def forgettable(self) -> float:
        """Share that was learned, and forgotten once at least."""
        return self._share(self.events > 0)

    @property
    def often_forgotten(self) -> float:
        """Share with ``often`` events or more."""
        return self._share(self.events >= self.often)

    @property
    def histogram(self) -> np.ndarray:
        """(most events + 1,) how many of the learned examples were forgotten 0, 1, 2 ... times."""
        return np.bincount(self.events[self.learned], minlength=1)

    def _share(self, chosen: np.ndarray) -> float:
        return float(chosen[self.seen].mean()) if self.seen.any() else float("nan")


@dataclass(frozen=True)
class Cartography:
    """Where n training examples lie on the data map (Swayamdipta et al. 2020, section 2); NaN for those never seen.

    confidence: (n,) mean probability of the label over the epochs in which the example came up.
    variability: (n,) its standard deviation over them (divided by their number); 0 for a single one.
    correctness: (n,) share of them with a correct answer.
    """

    confidence: np.ndarray
    variability: np.ndarray
    correctness: np.ndarray


def forgetting_events(correct: ArrayLike, confidence: ArrayLike | None = None) -> np.ndarray:
    """How often each example was forgotten: correct in one epoch, wrong in the next in which it came up.

    Args:
        correct: (epochs, n) bool, False where an example did not come up.
        confidence: (epochs, n), NaN where an example did not come up; None if all did in every epoch.

    Returns:
        (n,) integers (Toneva et al. 2019, section 3).

    Raises:
        SpecError: the matrices do not fit one another, or an answer that was not seen counts as correct.
    """
    right, seen = _checked(correct, confidence)
    events = np.zeros(right.shape[1], dtype=np.int64)
    before = np.zeros(right.shape[1], dtype=bool)  # the last answer seen
    for now, here in zip(right, seen, strict=True):
        events += before & here & ~now
        before = np.where(here, now, before)
    return events


def first_learned(correct: ArrayLike) -> np.ndarray:
    """(n,) the epoch, from 0, of each example's first correct answer; -1 for one never learned.

    Args:
        correct: (epochs, n) bool, False where an example did not come up.

    Raises:
        SpecError: it is no such matrix.
    """
    right, _ = _checked(correct, None)
    return np.where(right.any(axis=0), right.argmax(axis=0), -1)


def forgetting(correct: ArrayLike, confidence: ArrayLike | None = None, *, often: int = 3) -> Forgetting:
    """A run's forgetting, from the two matrices that training keeps.

    Nothing is ever correct in the dynamics of a regression, whose examples would all count as never learned.

    Args:
        correct: (epochs, n) bool, False where an example did not come up.
        confidence: (epochs, n), NaN where an example did not come up; None if all did in every epoch.
        often: the number of events from which an example counts as often forgotten.

    Raises:
        SpecError: as for ``forgetting_events``, or ``often`` is below 1.
    """
    if often < 1:
        raise SpecError(f"often forgotten means one event or more, got often={often}; 3 is customary")
    _, seen = _checked(correct, confidence)
    came_up = np.asarray(seen.any(axis=0))
    return Forgetting(forgetting_events(correct, confidence), first_learned(correct), came_up, often)


def cartography(correct: ArrayLike, confidence: ArrayLike) -> Cartography:
    """A run's data map: confidence, variability and correctness of each example.

    Args:
        correct: (epochs, n) bool, False where an example did not come up.
        confidence: (epochs, n) probability of each example's label, NaN where it did not come up.

    Raises:
        SpecError: as for ``forgetting_events``, or the confidence is no probability, as in a regression.
    """
    right, seen = _checked(correct, confidence)
    p = np.where(seen, np.asarray(confidence, dtype=np.float64), 0.0)
    if (p < 0).any() or (p > 1).any():
        raise SpecError(
            f"a data map needs probabilities, in [0, 1], got confidence from {p.min():.4g} to {p.max():.4g}; "
            "it is for classification"
        )
    epochs = np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    mean = p.sum(axis=0) / epochs
    variance = np.where(seen, (p - mean) ** 2, 0.0).sum(axis=0) / epochs
    return Cartography(mean, np.sqrt(variance), right.sum(axis=0) / epochs)


def _checked(correct: ArrayLike, confidence: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """``correct``, and which of its cells were seen; both (epochs, n) bool."""
    right = np.asarray(correct)
    if right.ndim != 2 or not len(right) or right.dtype != np.bool_:
        raise SpecError(
            "dynamics need correct answers as booleans of shape (epochs, examples), with one epoch at least; "
            f"got {right.dtype} of shape {right.shape}"
        )
    if confidence is None:
        return right, np.ones_like(right)
    sure = np.asarray(confidence, dtype=np.float64)
    if sure.shape != right.shape:
        raise SpecError(f"correct and confidence must have one shape, got {right.shape} and {sure.shape}")
    seen = ~np.isnan(sure)
    if (right & ~seen).any():
        raise SpecError(
            f"an answer that was not seen cannot be correct, got {int((right & ~seen).sum())} correct answers without "
            "a confidence; give False where an example did not come up"
        )
    return right, seen
