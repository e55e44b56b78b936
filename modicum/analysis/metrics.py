"""Quality of predictions against known labels, by scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn import metrics

from modicum.base.types import Task

MAIN_METRIC: dict[Task, str] = {"classification": "macro_f1", "regression": "pearson"}

LOWER_IS_BETTER = frozenset({"rmse", "mae", "mse", "log_loss", "loss", "brier", "ece"})


def evaluate(task: Task, truth: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """Metrics by name.

    truth: (n,) classes or values. outputs: (n, classes) probabilities or (n,) values.
    """
    if task == "regression":
        return regression(truth, outputs)
    return classification(truth, outputs)


def classification(truth: np.ndarray, proba: np.ndarray) -> dict[str, float]:
    """Macro-F1 (over the classes in truth or predictions), accuracy (= micro-F1), Matthews correlation, log loss, Brier
    score, expected calibration error, the recall of the class that is rarest in truth; F1 of class 1 where there are
    two."""
    predicted = proba.argmax(1)
    likelihood = np.clip(proba[np.arange(len(truth)), truth].astype(np.float64), 1e-12, 1.0)
    found = {
        "macro_f1": macro_f1(truth, predicted),
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "matthews": float(metrics.matthews_corrcoef(truth, predicted)),
        "log_loss": float(-np.log(likelihood).mean()),
        "brier": float(((proba - np.eye(proba.shape[1])[truth]) ** 2).sum(1).mean()),
        "ece": calibration_error(truth, proba),
        "rarest_recall": rarest_recall(truth, predicted),
    }
    if proba.shape[1] == 2:
        found["f1"] = float(metrics.f1_score(truth, predicted, pos_label=1, zero_division=0))
    return found


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 of the classes in truth or predictions."""
    return float(metrics.f1_score(truth, predicted, average="macro", zero_division=0))


def rarest_recall(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The share that was found of the class with the fewest examples in truth, the first of several."""
    classes, counts = np.unique(truth, return_counts=True)
    rarest = truth == classes[counts.argmin()]
    return float((predicted[rarest] == truth[rarest]).mean())


def calibration_error(truth: np.ndarray, proba: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy over bins of equal width, weighted
    by their examples (Guo et al. 2017, eq. 3)."""
    confidence, right = proba.max(1), proba.argmax(1) == truth
    where = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(where, right - confidence, bins)).sum() / len(truth))


def regression(truth: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation (0 where either side is constant) and root mean squared error."""
    constant = np.ptp(truth) == 0 or np.ptp(values) == 0 or len(truth) < 2
    return {
        "pearson": 0.0 if constant else float(stats.pearsonr(truth, values).statistic),
        "spearman": 0.0 if constant else float(stats.spearmanr(truth, values).statistic),
        "rmse": float(np.sqrt(np.mean((truth - values) ** 2))),
    }


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa between two rows of predicted classes; 1 where both predict one and the same class throughout."""
    if np.array_equal(first, second):
        return 1.0
    return float(metrics.cohen_kappa_score(first, second))
