"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modicum.analysis.metrics import MAIN_METRIC, evaluate, kappa

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PROBA = np.array([
    [0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [0.4, 0.35, 0.25],
])  # fmt: skip
"""Predicted 0 0 1 1 1 0: F1 of class 0 is 2/3 (2 of 3, 2 of 3), of class 1 is 4/5 (2 of 3, 2 of 2), of class 2 is 0."""


def test_three_classes() -> None:
    found = evaluate("classification", TRUTH, PROBA)
    likelihoods = [0.8, 0.5, 0.2, 0.8, 0.5, 0.25]
    assert found == pytest.approx({
        "macro_f1": (2 / 3 + 4 / 5 + 0) / 3,
        "accuracy": 4 / 6,
        # Gorodkin's R_K: (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2)), s = 6, c = 4, p = 330, t = 321
        "matthews": (24 - 15) / math.sqrt((36 - 18) * (36 - 14)),
        "log_loss": -sum(map(math.log, likelihoods)) / 6,
        "brier": (0.06 + 0.375 + 1.14 + 0.06 + 0.375 + (0.16 + 0.1225 + 0.5625)) / 6,
        # by confidence: 0.4 (wrong); 0.5 twice (right); 0.7 (wrong); 0.8 twice (right), each in a bin of its own
        "ece": (0.4 + 2 * 0.5 + 0.7 + 2 * 0.2) / 6,
        "rarest_recall": 0.0,
    })  # fmt: skip


def test_two_classes_have_an_f1_of_the_second() -> None:
    proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]], dtype=np.float32)
    found = evaluate("classification", np.array([0, 0, 1, 1, 1]), proba)
    assert found["f1"] == pytest.approx(2 / 3)  # 2 of 3 found, 2 of 3 right
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["matthews"] == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))


def test_the_rarest_class_is_that_of_the_truth() -> None:
    truth, proba = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.eye(3)[[0, 1, 1, 1, 0, 2, 2, 1]]
    assert evaluate("classification", truth, proba)["rarest_recall"] == 0.5
    assert evaluate("classification", truth[:2], proba[:2])["rarest_recall"] == 0.5


def test_macro_f1_leaves_out_classes_that_are_neither_true_nor_predicted() -> None:
    proba = np.eye(5)[[0, 1, 1]]
    assert evaluate("classification", np.array([0, 1, 1]), proba)["macro_f1"] == 1.0


def test_one_predicted_class_is_no_correlation() -> None:
    found = evaluate("classification", np.array([0, 1, 1]), np.array([[0.1, 0.9]] * 3))
    assert found["matthews"] == 0.0 and found["accuracy"] == pytest.approx(2 / 3)


def test_a_certain_error_costs_a_finite_log_loss() -> None:
    found = evaluate("classification", np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert found["log_loss"] == pytest.approx(-math.log(1e-12) / 2)


def test_values() -> None:
    truth, values = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 6.0], dtype=np.float32)
    found = evaluate("regression", truth, values)
    assert found == pytest.approx({
        "pearson": 7 / math.sqrt(5 * 14),  # deviations -1.5 -.5 .5 1.5 and -2 0 -1 3
        "spearman": 0.8,  # 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1))
        "rmse": math.sqrt((0 + 1 + 1 + 4) / 4),
    })  # fmt: skip


@pytest.mark.parametrize(("truth", "values"), [([1, 2, 3], [5, 5, 5]), ([2, 2, 2], [1, 2, 3]), ([1], [2])])
def test_without_spread_there_is_no_correlation(truth: list[float], values: list[float]) -> None:
    found = evaluate("regression", np.array(truth, float), np.array(values, np.float32))
    assert found["pearson"] == found["spearman"] == 0.0 and found["rmse"] > 0


def test_kappa() -> None:
    # 4 of 6 agree; by chance (2·3 + 2·3 + 2·0) / 36 would
    first, second = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 1])
    expected = (2 * 3 + 2 * 3 + 2 * 0) / 36
    assert kappa(first, second) == pytest.approx((4 / 6 - expected) / (1 - expected))
    assert kappa(np.zeros(5, int), np.zeros(5, int)) == 1.0  # scikit-learn: 0 / 0
    assert kappa(np.zeros(5, int), np.ones(5, int)) == 0.0
    assert kappa(np.array([0, 1]), np.array([1, 0])) == -1.0


def test_main_metrics_are_among_what_is_measured() -> None:
    assert MAIN_METRIC["classification"] in evaluate("classification", TRUTH, PROBA)
    assert MAIN_METRIC["regression"] in evaluate("regression", TRUTH, PROBA[:, 0])
