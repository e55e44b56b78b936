"""The Besov index: wavelets worked out by hand, rates known from theory, and the order of rough and smooth labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modicum.analysis.besov import besov_index, m_term_errors
from modicum.base.errors import SpecError

LINE = np.linspace(0, 1, 2000)[:, None]
STAIRS = np.repeat([0.0, 1.0, 2.0, 3.0], 5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def index(x: np.ndarray, targets: np.ndarray, **settings: int) -> float:
    return besov_index(x, targets, rng=rng(), **settings)


def test_four_stairs_by_hand():
    # The first cut leaves two regions of 10 with steps of 1 (squared norm 10 each), the next two cuts four of 5 with
    # steps of 1/2 (1.25 each); the squared deviation from the mean is 25 at the start.
    terms, errors = m_term_errors(np.arange(20)[:, None], STAIRS, trees=1, rng=rng())
    assert terms == pytest.approx([1, 1.5, 2, 2.5, 3, 3.5, 4])
    assert errors**2 == pytest.approx([1, 0.6, 0.2, 0.15, 0.1, 0.05, 0], abs=1e-12)


def test_equal_trees_give_the_curve_of_one():
    terms, errors = m_term_errors(np.arange(20)[:, None], STAIRS, trees=7, rng=rng())
    assert errors[np.isin(terms, [1, 2, 4])] ** 2 == pytest.approx([1, 0.2, 0], abs=1e-12)


def test_the_largest_wavelets_come_first_whatever_their_depth():
    # A pulse of 3 examples at one end: its region is small, but its step is the largest.
    values = np.r_[np.zeros(27), np.full(3, 10.0)]
    _, errors = m_term_errors(np.arange(30)[:, None], values, trees=1, rng=rng())
    # the mean is 1; the pulse's step of 9 on 3 examples (243) comes before the others' step of 1 on 27 (27)
    assert errors[:3] ** 2 == pytest.approx([1, 27 / 270, 0], abs=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_steady_slope_has_index_one_over_the_dimension(d):
    cubes = rng(1).random((10, 2000, d))
    single = [besov_index(x, x.sum(axis=1), trees=1, rng=rng(seed)) for seed, x in enumerate(cubes)]
    assert np.mean(single) == pytest.approx(1 / d, abs=0.08)


def test_a_forest_is_smoother_than_its_trees_and_keeps_their_order():
    found = []
    for d in (1, 2, 3):
        cube = rng(1).random((2000, d))
        found.append(index(cube, cube.sum(axis=1)))
    assert found[0] == pytest.approx(1, abs=0.1)
    assert found[0] > found[1] > found[2] and found[1] > 1 / 2 and found[2] > 1 / 3


def test_a_slope_that_is_steep_in_one_place_is_no_rougher():
    # A fixed grid would need more pieces for the square root; regions that adapt do not.
    assert index(LINE, np.sqrt(LINE[:, 0])) == pytest.approx(1, abs=0.1)


def test_a_brownian_path_has_index_one_half():
    paths = np.cumsum(rng(2).normal(size=(5, 2000)), axis=1)
    assert np.mean([index(LINE, path) for path in paths]) == pytest.approx(1 / 2, abs=0.1)


def test_an_interval_is_described_at_once():
    inside = (LINE[:, 0] > 0.3) & (LINE[:, 0] < 0.7)
    terms, errors = m_term_errors(LINE, inside, rng=rng())
    assert errors[terms >= 3].max() < 1e-12
    assert index(LINE, inside) > 2
    assert index(LINE, LINE[:, 0] > 0.3) > index(LINE, inside)


def test_rougher_labels_have_a_lower_index():
    pulses = [np.sin(2 * np.pi * periods * LINE[:, 0]) > 0 for periods in (1, 3, 9, 27)]
    noise = rng(3).random(len(LINE)) > 0.5
    found = [index(LINE, labels) for labels in (*pulses, noise)]
    assert (np.diff(found) < 0).all() and found[0] > 1.5 and found[-1] < 0.3


def test_wrong_labels_make_it_rougher():
    labels = (LINE[:, 0] > 0.5).astype(int)
    found = []
    for share in (0.0, 0.05, 0.2, 0.5):
        flipped = rng(4).random(len(labels)) < share
        found.append(index(LINE, labels ^ flipped))
    assert (np.diff(found) < 0).all()


def clusters(n: int, width: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Four Gaussian clusters around random centres."""
    classes = rng(5).integers(0, 4, n)
    centres = rng(6).normal(size=(4, width)) * distance
    return centres[classes] + rng(7).normal(size=(n, width)), classes


def test_separate_clusters_are_smoother_than_near_ones_and_than_shuffled_labels():
    far, classes = clusters(300, 64, 3.0)
    near, _ = clusters(300, 64, 0.3)
    shuffled = rng(8).permutation(classes)
    assert index(far, classes) > index(near, classes) > index(near, shuffled)
    assert index(far, classes) > 4 * index(far, shuffled)


def test_classes_are_one_hot_whatever_their_names():
    x, classes = clusters(100, 8, 1.0)
    expected = index(x, np.eye(4)[classes])
    assert index(x, classes) == expected
    assert index(x, np.array(["d", "b", "a", "c"])[classes]) == pytest.approx(expected, rel=1e-6)
    assert index(x, 10 * classes - 3) == expected
    assert index(x, np.eye(4)[classes] * 5 + 2) == pytest.approx(expected, rel=1e-6)


def test_the_scale_of_a_feature_does_not_matter():
    x, classes = clusters(100, 8, 1.0)
    assert index(x * 2.0 ** np.arange(8), classes) == pytest.approx(index(x, classes))


def test_the_generator_decides():
    x, classes = clusters(100, 8, 1.0)
    assert index(x, classes) == index(x, classes)
    assert index(x, classes) != besov_index(x, classes, rng=rng(1))


def test_the_grid_is_the_same_for_all_representations_and_ends_with_five_examples_a_region():
    x, classes = clusters(100, 8, 1.0)
    terms, _ = m_term_errors(x, classes, rng=rng())
    assert terms[-1] <= 100 / 5 < terms[-1] * 1.2
    constant, errors = m_term_errors(np.ones((100, 3)), classes, rng=rng())
    assert constant.tolist() == terms.tolist() and errors == pytest.approx(1)
    assert m_term_errors(x, classes, depth=3, rng=rng())[0][-1] == pytest.approx(8)


def test_a_constant_representation_has_index_zero():
    assert index(np.ones((100, 3)), rng().integers(0, 2, 100)) == pytest.approx(0, abs=1e-12)


def test_too_few_examples_or_one_class_have_no_index():
    x, classes = clusters(100, 8, 1.0)
    assert math.isnan(index(x[:9], classes[:9])) and not math.isnan(index(x[:10], classes[:10]))
    assert math.isnan(index(x, np.zeros(100, dtype=int)))
    assert math.isnan(index(x[:1], classes[:1]))
    assert math.isnan(index(x, np.full(100, 0.1)))


def test_wrong_input_is_named():
    x, classes = clusters(20, 8, 1.0)
    with pytest.raises(SpecError, match=r"a target for each example; got shapes \(20, 8\) and \(19,\)"):
        index(x, classes[:19])
    with pytest.raises(SpecError, match=r"a matrix \(examples, features\), not empty.* got shapes \(20,\) and \(20,\)"):
        index(x[:, 0], classes)
    with pytest.raises(SpecError, match=r"got shapes \(0, 8\) and \(0,\)"):
        index(x[:0], classes[:0])
    with pytest.raises(SpecError, match="one tree and one cut at least, got trees=10 and depth=0"):
        index(x, classes, depth=0)
    with pytest.raises(SpecError, match="finite numbers, got 1 examples whose target is not"):
        index(x, np.r_[np.zeros(19), math.nan])
    x[[3, 4], 0] = math.inf, 1e300
    with pytest.raises(SpecError, match="finite numbers, got 2 examples whose representation is not"):
        index(x, classes)
