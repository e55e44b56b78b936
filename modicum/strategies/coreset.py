"""Core-set selection by k-centre greedy, and the distances in small memory that it shares with its neighbours."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from modicum.base.errors import DataError
from modicum.base.types import Signal, Task
from modicum.strategies.base import Selection, Strategy, View, check_k

BLOCK = 2**22
"""How many distances are held at once: 16 MB of float32."""


def squared_norms(x: np.ndarray, signal: Signal) -> np.ndarray:
    """(n,) squared lengths of the rows of (n, width), which the error names as ``signal``.

    Raises:
        DataError: a row holds NaN or infinity, which no distance survives.
    """
    norms = np.einsum("ij,ij->i", x, x)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise DataError(
            f"signal {signal!r} must be finite, but {len(bad)} of {len(x)} rows are not (the first is row {bad[0]}); "
            "the model has probably diverged: lower its learning rate"
        )
    return np.asarray(norms)


def distances_to(x: np.ndarray, norms: np.ndarray, row: int) -> np.ndarray:
    """(n,) squared Euclidean distances from every row of (n, width) to one of them, in one matrix-vector product."""
    distances = x @ x[row]
    distances *= -2
    distances += norms
    distances += norms[row]
    return np.asarray(np.maximum(distances, 0, out=distances))


def distances_to_nearest(x: np.ndarray, norms: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) squared Euclidean distances from every row of (n, width) to the nearest of (m, width) centres.

    Uses ``|a|^2 - 2ab + |b|^2`` with BLAS, block by block: O(n m) time, O(n) memory.
    """
    centre_norms = np.einsum("ij,ij->i", centres, centres)
    nearest = np.empty_like(norms)
    step = max(1, BLOCK // len(centres))
    room = np.empty((min(step, len(x)), len(centres)), dtype=norms.dtype)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        block = np.matmul(x[rows], centres.T, out=room[: len(x) - start])
        block *= -2
        block += centre_norms
        np.add(block.min(axis=1), norms[rows], out=nearest[rows])
    return np.asarray(np.maximum(nearest, 0, out=nearest))


class CoreSet(Strategy):
    """Picks, again and again, the candidate farthest from all labelled and picked ones (Sener & Savarese 2018).

    This is k-centre greedy on the present model's embedding. Scores are the Euclidean distances to the nearest centre
    at the time of the pick. Without labelled examples it starts with the candidate farthest from the mean. O(n k)
    time, O(n) memory beyond the embeddings, which are not copied.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"embedding"})
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "regression"})
    deterministic: ClassVar[bool] = True

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        x = np.asarray(view.signals["embedding"])
        norms = squared_norms(x, "embedding")
        if view.n_labelled:
            centres = np.asarray(view.labelled["embedding"])
            squared_norms(centres, "embedding")
        else:
            centres = x.mean(axis=0, dtype=np.float64, keepdims=True).astype(x.dtype)
        gap = distances_to_nearest(x, norms, centres)
        positions, scores = np.empty(k, dtype=np.int64), np.empty(k)
        for i in range(k):
            pick = int(gap.argmax())
            positions[i], scores[i] = pick, math.sqrt(gap[pick])
            if i == 0 and not view.n_labelled:
                gap = distances_to(x, norms, pick)  # the mean found the first centre, and is none itself
            else:
                np.minimum(gap, distances_to(x, norms, pick), out=gap)
            gap[pick] = -1  # below every distance: never again
        return Selection(positions, scores)
