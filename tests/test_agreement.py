"""Agreement between annotators: values worked out by hand, published tables, and a second way of counting."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from modicum.analysis.agreement import Agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha, label_table
from modicum.base.errors import SpecError
from modicum.base.rng import stream


def rng() -> np.random.Generator:
    return stream(0, "agreement")


def spread(*rows: tuple[int, ...]) -> np.ndarray:
    """A table of labels in which item i has rows[i][c] labels of class c, whoever gave them."""
    widest = max(map(sum, rows))
    items = [[c for c, times in enumerate(row) for _ in range(times)] for row in rows]
    return np.array([item + [-1] * (widest - len(item)) for item in items])


def alpha_by_pairs(table: np.ndarray) -> float:
    """By the definition: all pairs of labels within items, and all pairs of all labels."""
    units = [[int(v) for v in row if v >= 0] for row in table]
    units = [unit for unit in units if len(unit) > 1]
    every = [v for unit in units for v in unit]
    observed = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(every)
    expected = sum(a != b for a, b in permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / expected


def test_cohen_by_hand() -> None:
    # 20 both yes, 15 both no, 5 and 10 apart: observed 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    first = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    second = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    found = cohen_kappa(first, second, rng=rng())
    assert found.value == pytest.approx(0.4) and found.items == 50 and found.reason == ""
    assert found.low < 0.4 < found.high
    # the same with items that only one of them labelled
    more = cohen_kappa(np.append(first, [0, -1]), np.append(second, [-1, 1]), rng=rng())
    assert more == found


def test_cohens_weights_are_each_annotators_own() -> None:
    # A says 0 three times of four, B once: observed 0.5, chance 0.75 * 0.25 + 0.25 * 0.75 = 0.375
    assert cohen_kappa([0, 0, 0, 1], [0, 1, 1, 1], rng=rng()).value == pytest.approx((0.5 - 0.375) / 0.625)
    worse = cohen_kappa([0, 1, 0, 1], [1, 0, 1, 0], rng=rng())
    assert worse.value == pytest.approx(-1.0)


def test_fleiss_published_table() -> None:
    # 10 items, 14 raters, 5 categories: the worked example of many textbooks, kappa 0.210
    table = spread(
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    )  # fmt: skip
    found = fleiss_kappa(table, rng=rng())
    assert round(found.value, 3) == 0.210 and found.items == 10
    assert found.low < found.value < found.high


def test_fleiss_by_hand() -> None:
    # items 3:0, 2:1, 0:3: P = 1, 1/3, 1; classes 5/9 and 4/9
    found = fleiss_kappa(spread((3, 0), (2, 1), (0, 3)), rng=rng())
    chance = (25 + 16) / 81
    assert found.value == pytest.approx((7 / 9 - chance) / (1 - chance))


def test_krippendorff_published_table() -> None:
    # four observers, twelve units, labels missing: nominal alpha 0.743 (Krippendorff 2011)
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    table = np.array([[-1 if v == "." else int(v) for v in row] for row in observers]).T
    found = krippendorff_alpha(table, rng=rng())
    assert round(found.value, 3) == 0.743
    assert found.items == 11, "the last unit has one label, and says nothing"
    assert found.value == pytest.approx(alpha_by_pairs(table))


def test_both_ways_of_counting_on_random_tables() -> None:
    draw = stream(1, "tables")
    for _ in range(20):
        table = draw.integers(-1, 4, (30, 5))
        assert krippendorff_alpha(table, rng=rng()).value == pytest.approx(alpha_by_pairs(table))
        full = draw.integers(0, 3, (30, 4))
        same = np.mean([[a == b for a, b in combinations(row, 2)] for row in full])
        chance = sum(np.mean(full == c) ** 2 for c in range(3))
        assert fleiss_kappa(full, rng=rng()).value == pytest.approx((same - chance) / (1 - chance))


def test_who_gave_a_label_does_not_matter_where_it_should_not() -> None:
    table = stream(2, "table").integers(-1, 3, (40, 4))
    shuffled = np.array([stream(3, "row", i).permutation(row) for i, row in enumerate(table)])
    assert fleiss_kappa(shuffled, rng=rng()) == fleiss_kappa(table, rng=rng())
    assert krippendorff_alpha(shuffled, rng=rng()) == krippendorff_alpha(table, rng=rng())


@pytest.mark.parametrize("coefficient", [fleiss_kappa, krippendorff_alpha])
def test_the_interval_is_that_of_drawing_items(coefficient) -> None:
    draw = stream(4, "noisy")
    truth = draw.integers(0, 3, 60)
    table = np.where(draw.random((60, 3)) < 0.3, draw.integers(0, 3, (60, 3)), truth[:, None])
    found: Agreement = coefficient(table, rng=rng())
    slow = [coefficient(table[draw.integers(0, 60, 60)], rng=rng()).value for _ in range(300)]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.05) and found.high == pytest.approx(high, abs=0.05)


def test_more_items_narrow_the_interval() -> None:
    few = cohen_kappa([0, 0, 1, 1] * 5, [0, 1, 1, 1] * 5, rng=rng())
    many = cohen_kappa([0, 0, 1, 1] * 500, [0, 1, 1, 1] * 500, rng=rng())
    assert many.value == pytest.approx(few.value)
    assert many.high - many.low < (few.high - few.low) / 5


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.zeros((0, 3), int), "no item has labels by two"),
        (np.full((4, 3), -1), "no item has labels by two"),
        (np.array([[0, -1], [-1, 1]]), "no item has labels by two"),
        (np.zeros((5, 3), int), "all labels are of one class"),
    ],
)
def test_nothing_to_tell_is_said(table: np.ndarray, reason: str) -> None:
    found = [coefficient(table, rng=rng()) for coefficient in (fleiss_kappa, krippendorff_alpha)]
    if table.shape[1] == 2 or not len(table):
        found.append(cohen_kappa(table[:, 0], table[:, 1], rng=rng()))
    for one in found:
        assert np.isnan([one.value, one.low, one.high]).all() and reason in one.reason


def test_full_agreement_has_no_interval() -> None:
    table = np.array([[0, 0], [1, 1], [2, 2]])
    for found in (krippendorff_alpha(table, rng=rng()), cohen_kappa(table[:, 0], table[:, 1], rng=rng())):
        assert found.value == pytest.approx(1.0) and np.isnan(found.low) and "all items agree" in found.reason
    one = fleiss_kappa(np.array([[0, 1]]), rng=rng())
    assert one.value == pytest.approx(-1.0) and "one item" in one.reason
    rare = cohen_kappa([0] * 9 + [1], [0] * 9 + [0], rng=rng())
    assert rare.value == pytest.approx(0.0) and np.isnan(rare.low) and "too few items" in rare.reason


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(SpecError, match=r"two rows of one length, got shapes \(2,\) and \(3,\)"):
        cohen_kappa([0, 1], [0, 1, 1], rng=rng())
    with pytest.raises(SpecError, match="items by annotators"):
        fleiss_kappa([0, 1], rng=rng())


def test_answers_become_a_table() -> None:
    table, items, annotators = label_table([(7, 2, 1), (3, 1, 0), (7, 1, 0), (7, 1, 2)])
    assert items == [3, 7] and annotators == [1, 2]
    assert table.tolist() == [[0, -1], [2, 1]]
    assert label_table([])[0].shape == (0, 0)
