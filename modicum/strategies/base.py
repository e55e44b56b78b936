"""What a query strategy is: it sees positions and signals, nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from modicum.base.errors import SpecError
from modicum.base.spec import Record
from modicum.base.types import BEFORE_TRAINING, Signal, Task


@dataclass(frozen=True)
class View:
    """n candidates, known by their positions 0..n-1, with the signals that a strategy asked for.

    ``signals`` maps a signal to its array over the candidates (shapes: ``modicum.base.types.Signal``);
    ``labelled`` does the same over the labelled examples, for strategies that name it in ``needs_labelled``.
    """

    n: int
    signals: Mapping[Signal, Any] = field(default_factory=dict)
    labelled: Mapping[Signal, Any] = field(default_factory=dict)
    n_labelled: int = 0


@dataclass(frozen=True)
class Selection:
    """The picks of one query.

    positions: (k,) int64, distinct, the most wanted first.
    scores: (k,) float64, higher is more wanted; NaN where a strategy does not score single examples.
    """

    positions: np.ndarray
    scores: np.ndarray


class Strategy(Record, ABC):
    """A frozen record of a strategy's settings; every draw comes from the generator that it is handed."""

    needs: ClassVar[frozenset[Signal]] = frozenset()
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset()
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification"})
    deterministic: ClassVar[bool] = False
    """True where the generator is not used: permuting the candidates then permutes the picks."""

    @property
    def asks_model(self) -> bool:
        """Whether it chooses by what a trained model says."""
        return bool((self.needs | self.needs_labelled) - BEFORE_TRAINING)

    @property
    def mc_passes(self) -> int:
        """How many dropout passes ``mc_proba`` takes; 0 where the strategy does not ask for it."""
        return 0

    def narrow(self, n: int, n_labelled: int, k: int, *, rng: np.random.Generator) -> np.ndarray | None:
        """Positions worth computing signals for, before any is computed; None keeps all n."""
        return None

    @abstractmethod
    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        """Pick k of ``view.n`` candidates.

        Raises:
            SpecError: k is larger than the number of candidates, or smaller than 1.
        """


def check_k(view: View, k: int) -> None:
    """Every strategy's first line: 1 <= k <= n."""
    if not 1 <= k <= view.n:
        raise SpecError(f"a query must ask for 1 to {view.n} examples (the candidates that are left), got {k}")


def top_k(scores: np.ndarray, k: int) -> Selection:
    """The k highest of (n,) scores, highest first; ties keep the candidates' order."""
    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")[:k]
    return Selection(order, scores[order])


def unscored(positions: np.ndarray) -> Selection:
    """A selection whose members carry no score of their own."""
    positions = np.asarray(positions, dtype=np.int64)
    return Selection(positions, np.full(len(positions), np.nan))
