"""Class-balanced acquisition: for pools in which a class is rare."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored
from modicum.strategies.clustering import TypiClust


class Balanced(Strategy):
    """Asks for examples of the classes with the fewest labels, and explores besides.

    A share ``explore`` of a query is TypiClust's: typical examples of clusters without labels, where a class may lie
    that no model knows. The rest is dealt to the classes so that their labels become as even as can be, rarest first.
    Of a class's share, ``surest`` is what most probably is of it, the rest what is nearest to its border: the first
    finds examples of a rare class, the second says where it ends. Labels are counted as the model predicts them.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"proba", "frozen_embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"proba", "frozen_embedding"})
    explore: float = Field(default=0.2, ge=0, le=1)
    surest: float = Field(default=0.5, ge=0, le=1)

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        proba = np.asarray(view.signals["proba"], dtype=np.float64)
        free = np.ones(view.n, dtype=bool)
        picks: list[int] = []
        if (wanted := round(self.explore * k)) > 0:
            picks += TypiClust().select(view, wanted, rng=rng).positions.tolist()
            free[picks] = False
        known = np.asarray(view.labelled["proba"]).argmax(1) if view.n_labelled else np.zeros(0, np.int64)
        counts = np.bincount(known, minlength=proba.shape[1])
        shares = evened(counts, k - len(picks))
        for c in np.argsort(counts, kind="stable"):
            sure = round(self.surest * shares[c])
            border = -np.abs(proba[:, c] - np.delete(proba, c, axis=1).max(1))
            for score, size in ((proba[:, c], sure), (border, shares[c] - sure)):
                best = np.argsort(np.where(free, -score, np.inf), kind="stable")[:size]
                picks += best.tolist()
                free[best] = False
        return unscored(np.array(picks))


def evened(counts: np.ndarray, more: int) -> np.ndarray:
    """(classes,) how many each gets of so many ``more``, so that the smallest counts grow first, and alike."""
    shares = np.zeros(len(counts), np.int64)
    for _ in range(more):
        shares[np.argmin(counts + shares)] += 1
    return shares
