"""A first batch from the classes' names alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from modicum.base.types import Signal
from modicum.strategies.base import Selection, Strategy, View, check_k


class ZeroShot(Strategy):
    """Picks as many candidates for each class, those that the untouched encoder sees nearest to the class's name.

    Nearness is the cosine of text and name over that of all classes, as in a softmax (zero-shot classification by
    sentence embeddings), so that a name near to all texts gets none the more. It needs no label and no model, and names
    that say something: ``refund``, not ``class 3``. Scores are those shares.

    sharpness: by which cosines are multiplied before the softmax.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"name_similarity"})
    deterministic: ClassVar[bool] = True
    sharpness: float = 20.0

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        logits = self.sharpness * np.asarray(view.signals["name_similarity"], dtype=np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        orders = [iter(np.argsort(-shares[:, c], kind="stable").tolist()) for c in range(shares.shape[1])]
        picked: dict[int, float] = {}
        while len(picked) < k:
            for c, order in enumerate(orders):
                best = next((i for i in order if i not in picked), None)
                if best is not None and len(picked) < k:
                    picked[best] = float(shares[best, c])
        return Selection(np.array(list(picked)), np.array(list(picked.values())))
