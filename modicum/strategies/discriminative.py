"""Discriminative active learning: label what does not yet look labelled."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from modicum.base.types import Signal, Task
from modicum.strategies.base import Selection, Strategy, View, check_k, top_k, unscored
from modicum.strategies.coreset import squared_norms


class Discriminative(Strategy):
    """Picks what a classifier of labelled versus unlabelled takes most surely for unlabelled.

    This is discriminative active learning (Gissin & Shalev-Shwartz 2019). The classifier is a logistic regression on
    standardised embeddings with balanced classes, where the paper trains a small network. Picks count as labelled when
    it is refitted for the next sub-batch. Scores are P(unlabelled) at the time of the pick; without labelled examples
    the first sub-batch is random, and scored NaN.

    sub_batches: how many times a query refits the classifier. candidates_per_labelled: the pool is narrowed to a random
    draw of this many candidates for each labelled example.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"embedding"})
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "regression"})
    sub_batches: int = Field(default=10, ge=1)
    candidates_per_labelled: int = Field(default=10, ge=1)

    def narrow(self, n: int, n_labelled: int, k: int, *, rng: np.random.Generator) -> np.ndarray | None:
        size = max(k, self.candidates_per_labelled * n_labelled)
        return None if size >= n else np.sort(rng.choice(n, size, replace=False))

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        x = np.asarray(view.signals["embedding"])
        known = np.asarray(view.labelled["embedding"]) if view.n_labelled else x[:0]
        squared_norms(x, "embedding")  # refuses what is not finite, and says why
        features = StandardScaler(copy=False).fit_transform(np.concatenate([x, known]))
        unlabelled = np.arange(len(features)) < view.n
        model = LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)
        parts = []
        for sub_batch in np.array_split(np.arange(k), min(self.sub_batches, k)):
            if unlabelled.all():  # nothing to tell apart yet
                part = unscored(rng.choice(view.n, len(sub_batch), replace=False))
            else:
                with threadpool_limits(1, "blas"):  # L-BFGS works on short vectors, over which threads only wait
                    logits = model.fit(features, unlabelled).decision_function(features)
                part = top_k(np.where(unlabelled, logits, -np.inf), len(sub_batch))
            unlabelled[part.positions] = False
            parts.append(part)
        scores = expit(np.concatenate([part.scores for part in parts]))
        return Selection(np.concatenate([part.positions for part in parts]), scores)
