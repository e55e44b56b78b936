"""Class-balanced acquisition: for pools in which a class is rare."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import ClassVar

import numpy as np
from pydantic import Field

from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored
from modicum.strategies.clustering import TypiClust


class Balanced(Strategy):
    """Asks for examples near the classes' borders, and looks for classes that lack labels.

    A class's shortfall is by what share it has fewer labels than the mean class; labels are counted as the model
    predicts them. A share of a query, ``explore`` times the largest shortfall, is TypiClust's: typical examples of
    clusters without labels, where a class may lie that no model knows. The rest is dealt to the classes so that their
    labels become as even as can be, rarest first. Of a class's part, a share of ``surest`` times its shortfall is what
    most probably is of it, the rest what is nearest to its border: the first finds examples of a rare class, the
    second says where it ends. Where classes are even, all are nearest to borders; with two classes that is margin
    sampling. Picks come in an order in which the first of them are a smaller query of the same kind.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"proba", "frozen_embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"proba", "frozen_embedding"})
    explore: float = Field(default=0.2, ge=0, le=1)
    surest: float = Field(default=0.5, ge=0, le=1)

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        proba = np.asarray(view.signals["proba"], dtype=np.float64)
        known = np.asarray(view.labelled["proba"]).argmax(1) if view.n_labelled else np.zeros(0, np.int64)
        counts = np.bincount(known, minlength=proba.shape[1])
        lacks = shortfall(counts)
        free = np.ones(view.n, dtype=bool)
        explored: list[int] = []
        if (wanted := round(self.explore * lacks.max() * k)) > 0:
            explored = TypiClust().select(view, wanted, rng=rng).positions.tolist()
            free[explored] = False
        turns = evened(counts, k - len(explored))
        shares = np.bincount(turns, minlength=len(counts))
        of_class: dict[int, Iterator[int]] = {}
        for c in np.argsort(counts, kind="stable"):
            sure = round(self.surest * lacks[c] * shares[c])
            border = -np.abs(proba[:, c] - np.delete(proba, c, axis=1).max(1))
            picks = []
            for score, size in ((proba[:, c], sure), (border, shares[c] - sure)):
                picks.append(np.argsort(np.where(free, -score, np.inf), kind="stable")[:size].tolist())
                free[picks[-1]] = False
            of_class[c] = iter(merged(*picks))
        return unscored(np.array(merged(explored, [next(of_class[c]) for c in turns])))


def shortfall(counts: np.ndarray) -> np.ndarray:
    """(classes,) by what share each class has fewer labels than the mean class: 0 for none fewer, 1 for no label."""
    lacking: np.ndarray = 1 - counts / max(counts.mean(), 1e-9)
    return lacking.clip(0, 1)


def evened(counts: np.ndarray, more: int) -> np.ndarray:
    """(more,) the class that gets each of so many ``more`` labels: always one of those with the fewest until then."""
    counts = counts.copy()
    turns = np.zeros(more, np.int64)
    for turn in range(more):
        turns[turn] = counts.argmin()
        counts[turns[turn]] += 1
    return turns


def merged(*lists: list[int]) -> list[int]:
    """All items, each list in its order and spread evenly: who labels only some of a query labels some of each."""
    places = np.concatenate([(np.arange(len(one)) + 0.5) / max(1, len(one)) for one in lists])
    items = list(chain.from_iterable(lists))
    return [items[place] for place in np.argsort(places, kind="stable")]
