"""Batches of uncertain examples that differ from each other."""

from __future__ import annotations

from itertools import islice
from typing import ClassVar

import numpy as np
from pydantic import Field

from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored
from modicum.strategies.clustering import central_first, in_turn, members_of, partition
from modicum.strategies.uncertainty import Margin


class DiverseMargin(Strategy):
    """Clusters the candidates of the smallest margins, and picks the one nearest to each centre (Zhdanov 2019).

    The clusters are the present model's: k-means of its embeddings, in which a candidate weighs the more the smaller
    its margin is. Where duplicates leave fewer than k clusters, it goes round again, largest cluster first.

    prefilter: how many candidates are clustered for each one picked.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"proba", "embedding"})
    prefilter: int = Field(default=10, ge=1)

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        ranked = Margin().select(view, min(self.prefilter * k, view.n), rng=rng)
        x = np.asarray(view.signals["embedding"])[ranked.positions]
        weights = 1 + ranked.scores  # 1 - margin; never all 0, since one margin is the smallest
        labels, _, centres = partition(x, k, rng, weights=np.maximum(weights, 1e-6))
        groups = members_of(labels, k)
        order = sorted(range(k), key=lambda c: -len(groups[c]))
        picks = in_turn(central_first(x, groups[c], centres[c]) for c in order)
        return unscored(ranked.positions[np.fromiter(islice(picks, k), np.int64)])
