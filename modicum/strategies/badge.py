"""BADGE: batches that are uncertain and diverse at once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored
from modicum.strategies.coreset import squared_norms


class GradientEmbeddings:
    """n gradient embeddings u_i = a_i (outer product) b_i, kept as factors (n, classes) and (n, width).

    Both the lengths and the products factor, ``|u_i|^2 = |a_i|^2 |b_i|^2`` and ``<u_i, u_j> = <a_i, a_j> <b_i, b_j>``,
    so that the n x (classes * width) matrix is never needed.
    """

    def __init__(self, residual: np.ndarray, embedding: np.ndarray) -> None:
        self.residual, self.embedding = residual, embedding
        lengths = [squared_norms(factor, "gradient_embedding").astype(np.float64) for factor in (residual, embedding)]
        self.norms = lengths[0] * lengths[1]

    def distances_to(self, row: int) -> np.ndarray:
        """(n,) squared Euclidean distances to one of them, float64."""
        products = (self.residual @ self.residual[row]).astype(np.float64)
        products *= self.embedding @ self.embedding[row]
        return np.asarray(np.maximum(self.norms + self.norms[row] - 2 * products, 0))


class BADGE(Strategy):
    """Picks by k-means++ over gradient embeddings (Ash et al. 2020, algorithm 1).

    A gradient embedding is (p - onehot(argmax p)) (outer product) h, the gradient of the last layer's weights were the
    likeliest class the true one. The first pick has the longest; each later one is drawn with probability
    proportional to its squared distance to the nearest pick. O(n k) time, O(n) memory beyond the signals.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"gradient_embedding"})

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        residual, embedding = view.signals["gradient_embedding"]
        gradients = GradientEmbeddings(np.asarray(residual), np.asarray(embedding))
        picks = [int(gradients.norms.argmax())]
        gap = gradients.distances_to(picks[0])
        gap[picks] = 0
        while len(picks) < k:
            pick = draw(gap, picks, rng)
            picks.append(pick)
            np.minimum(gap, gradients.distances_to(pick), out=gap)
            gap[picks] = 0
        return unscored(np.array(picks))


def draw(weights: np.ndarray, taken: list[int], rng: np.random.Generator) -> int:
    """A position with probability proportional to its weight, or any that is not taken where all weights are 0."""
    total = weights.sum()
    if total > 0:
        return int(rng.choice(len(weights), p=weights / total))
    return int(rng.choice(np.delete(np.arange(len(weights)), taken)))
