"""Which of a teacher's opinions on unlabelled texts its student is told."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-12


def pseudo_labels(proba: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The texts to take, (m,) of n, and their labels, (m,) int64, by (passes, n, classes) probabilities under dropout.

    A text's label is the class of the highest mean probability. Of each class as many are taken, those with the
    highest mean probability times one minus the mutual information of passes and class (in units of its bound, the
    logarithm of the number of classes); a class that is seen seldom gives what it has.
    """
    mean = proba.mean(0)
    labels = mean.argmax(1)
    entropy = -(mean * np.log(mean + EPSILON)).sum(1)
    expected = -(proba * np.log(proba + EPSILON)).sum(2).mean(0)
    steady = 1 - np.clip((entropy - expected) / np.log(proba.shape[2]), 0, 1)
    score = mean.max(1) * steady
    best_first = np.argsort(-score, kind="stable")
    by_class = [best_first[labels[best_first] == c] for c in np.unique(labels)]
    each = max(1, most // proba.shape[2])
    taken = np.concatenate([own[:each] for own in by_class])
    chosen = np.sort(taken[np.argsort(-score[taken], kind="stable")][: max(1, most)])
    return chosen, labels[chosen].astype(np.int64)
