"""CKA against the direct n x n formulas, its invariances, and the bias that the unbiased estimator removes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ortho_group

from modicum.analysis.cka import MinibatchCKA, linear_cka, rbf_cka
from modicum.base.errors import SpecError


def related(n: int, d1: int, d2: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two noisy views of the same three factors, away from the origin."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 3))
    return (
        factors @ rng.normal(size=(3, d1)) + rng.normal(size=(n, d1)) + 5,
        factors @ rng.normal(size=(3, d2)) + rng.normal(size=(n, d2)) - 2,
    )


def song(k: np.ndarray, m: np.ndarray) -> float:
    """Equation 5 of Song et al. (2012), as it stands."""
    n = len(k)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    inner = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((inner - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


def gretton(k: np.ndarray, m: np.ndarray) -> float:
    """The biased estimator, tr(K H L H) / (n - 1)^2."""
    n = len(k)
    h = np.eye(n) - 1 / n
    return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)


def direct(hsic, k, m) -> float:
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def gaussian(x: np.ndarray, fraction: float) -> np.ndarray:
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    median = np.median(squared[np.triu_indices(len(x), 1)])
    return np.exp(-squared / (2 * fraction**2 * median))


MEASURES = [linear_cka, rbf_cka]
SHAPES = [(50, 8, 5), (20, 40, 60), (30, 4, 70), (4, 3, 3)]


@pytest.mark.parametrize("n, d1, d2", SHAPES)
@pytest.mark.parametrize("unbiased, hsic", [(True, song), (False, gretton)])
def test_linear_cka_is_the_direct_formula(n, d1, d2, unbiased, hsic):
    x, y = related(n, d1, d2)
    assert linear_cka(x, y, unbiased=unbiased) == pytest.approx(direct(hsic, x @ x.T, y @ y.T), rel=1e-9)


@pytest.mark.parametrize("n, d1, d2", SHAPES)
@pytest.mark.parametrize("unbiased, hsic", [(True, song), (False, gretton)])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_rbf_cka_is_the_direct_formula(n, d1, d2, unbiased, hsic, fraction):
    x, y = related(n, d1, d2)
    expected = direct(hsic, gaussian(x, fraction), gaussian(y, fraction))
    assert rbf_cka(x, y, unbiased=unbiased, fraction=fraction) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("unbiased", [True, False])
def test_a_representation_is_like_itself_and_the_order_does_not_matter(measure, unbiased):
    x, y = related(40, 6, 9)
    assert measure(x, x, unbiased=unbiased) == pytest.approx(1)
    assert measure(x, y, unbiased=unbiased) == pytest.approx(measure(y, x, unbiased=unbiased))
    assert 0.1 < measure(x, y, unbiased=unbiased) < 0.99


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("unbiased", [True, False])
def test_rotation_scale_and_translation_do_not_matter(measure, unbiased):
    x, y = related(40, 6, 9)
    turned = 3.7 * x @ ortho_group.rvs(6, random_state=1) + np.arange(6) * 100
    assert measure(turned, y, unbiased=unbiased) == pytest.approx(measure(x, y, unbiased=unbiased), rel=1e-8)
    assert measure(turned, x, unbiased=unbiased) == pytest.approx(1, rel=1e-8)


@pytest.mark.parametrize("measure", MEASURES)
def test_other_linear_maps_do_matter(measure):
    x, _ = related(40, 6, 9)
    stretched = x * np.array([1, 1, 1, 1, 1, 30.0])
    assert measure(x, stretched) < 0.9


def test_unrelated_gaussians_are_unlike_only_to_the_unbiased_estimator():
    n = 200
    pairs = [np.random.default_rng(seed).normal(size=(2, n, n)) for seed in range(10)]
    unbiased, biased = np.array([(linear_cka(x, y), linear_cka(x, y, unbiased=False)) for x, y in pairs]).T
    assert np.abs(unbiased).max() < 0.05 and abs(unbiased.mean()) < 0.02
    assert biased.min() > 0.4  # d / (n + d) in expectation, to first order


def test_float16_is_lifted_before_anything_is_multiplied():
    x, y = related(50, 8, 5)
    x, y = (x * 300).astype(np.float16), y.astype(np.float16)  # products beyond float16's 65,504
    assert linear_cka(x, y) == pytest.approx(linear_cka(x.astype(np.float64), y.astype(np.float64)))


def test_one_batch_is_the_whole():
    x, y = related(60, 8, 5)
    whole = MinibatchCKA()
    whole.add(x, y)
    assert whole.value == pytest.approx(linear_cka(x, y), rel=1e-12)


def test_batches_average_the_three_hsics_by_their_sizes():
    x, y = related(100, 8, 5)
    parts = [slice(0, 40), slice(40, 80), slice(80, 100)]
    running = MinibatchCKA()
    for part in parts:
        running.add(x[part], y[part])

    def mean(u: np.ndarray, v: np.ndarray) -> float:
        return sum(len(u[part]) * song(u[part] @ u[part].T, v[part] @ v[part].T) for part in parts)

    assert running.value == pytest.approx(mean(x, y) / math.sqrt(mean(x, x) * mean(y, y)), rel=1e-9)


def test_many_small_batches_come_near_the_whole():
    x, y = related(4000, 8, 5)
    running = MinibatchCKA()
    for start in range(0, 4000, 40):
        running.add(x[start : start + 40], y[start : start + 40])
    assert running.value == pytest.approx(linear_cka(x, y), abs=0.02)


def test_a_constant_representation_has_no_cka():
    x, _ = related(30, 4, 4)
    constant = np.full((30, 3), 0.1)
    for measure in MEASURES:
        for unbiased in (True, False):
            assert math.isnan(measure(x, constant, unbiased=unbiased))
            assert math.isnan(measure(np.full((30, 50), 0.1), x, unbiased=unbiased))
    running = MinibatchCKA()
    assert math.isnan(running.value)
    running.add(x, constant)
    assert math.isnan(running.value)


def test_rows_that_are_all_alike_to_the_kernel_have_no_unbiased_cka():
    x, _ = related(10, 4, 4)
    assert math.isnan(linear_cka(ortho_group.rvs(10, random_state=0), x))


def test_half_of_the_pairs_coinciding_leaves_no_bandwidth():
    x, y = related(30, 4, 4)
    x[:25] = x[0]
    assert math.isnan(rbf_cka(x, y)) and not math.isnan(linear_cka(x, y))


@pytest.mark.parametrize("measure", [*MEASURES, lambda x, y: MinibatchCKA().add(x, y)])
def test_wrong_input_is_named(measure):
    x, y = related(30, 4, 4)
    with pytest.raises(SpecError, match=r"the same examples, got shapes \(30, 4\) and \(29, 4\)"):
        measure(x, y[:29])
    with pytest.raises(SpecError, match=r"two matrices .*, got shapes \(30,\) and \(30, 4\)"):
        measure(x[:, 0], y)
    with pytest.raises(SpecError, match="the unbiased estimator of CKA needs 4 examples at least, got 3; give more"):
        measure(x[:3], y[:3])
    y[[2, 5], 1] = math.nan, math.inf
    with pytest.raises(SpecError, match="finite numbers, got 2 examples of the second side with NaN or infinity"):
        measure(x, y)


def test_limits_of_the_other_settings():
    x, y = related(30, 4, 4)
    with pytest.raises(SpecError, match="the biased estimator of CKA needs 2 examples at least, got 1"):
        linear_cka(x[:1], y[:1], unbiased=False)
    assert linear_cka(x[:3], y[:3], unbiased=False) > 0
    for fraction in (0.0, -1.0, math.nan):
        with pytest.raises(SpecError, match="must be above 0, got .*; 1 is usual"):
            rbf_cka(x, y, fraction=fraction)
