"""Passive learning: the baseline that every other strategy has to beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from modicum.base.types import Task
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored


class Random(Strategy):
    """Picks uniformly at random, without replacement. Needs no signal."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "regression"})

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        return unscored(rng.choice(view.n, k, replace=False))
