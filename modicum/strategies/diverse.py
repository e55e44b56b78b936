"""Batches of uncertain examples that differ from each other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored
from modicum.strategies.clustering import nearest_to_centres
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
        weights = np.maximum(1 + ranked.scores, 1e-6)  # 1 - margin; all margins may be 1, and all weights not 0
        return unscored(ranked.positions[nearest_to_centres(x, k, rng, weights)])
