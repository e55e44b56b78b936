"""Areas, targets, savings and intervals, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modicum.analysis.curves import (
    isotonic,
    labels_to_target,
    mean_interval,
    normalised_auc,
    ripl,
    savings,
)
from modicum.base.errors import SpecError


def test_on_an_even_grid_the_area_is_the_papers_mean_form():
    labels, f1 = np.arange(100, 1001, 50), np.random.default_rng(0).random(19)
    assert normalised_auc(labels, f1) == pytest.approx(np.trapezoid(f1, dx=1) / 18)


def test_an_uneven_grid_weighs_each_step_by_its_labels():
    assert normalised_auc([10, 20, 40], [0.0, 1.0, 1.0]) == pytest.approx((5 + 20) / 30)


def test_a_flat_curve_has_its_height_as_its_area_and_many_curves_go_at_once():
    areas = normalised_auc([10, 20, 50], np.array([[0.4, 0.4, 0.4], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    assert areas == pytest.approx([0.4, 0.0, 1.0])


def test_one_round_has_its_value_and_a_gap_has_no_area():
    assert normalised_auc([100], [0.7]) == pytest.approx(0.7)
    assert math.isnan(normalised_auc([100, 200], [0.7, math.nan]))


def test_curves_that_cannot_be_are_refused():
    with pytest.raises(SpecError, match=r"must increase from round to round, got \[100.0, 100.0\]"):
        normalised_auc([100, 100], [0.1, 0.2])
    with pytest.raises(SpecError, match=r"as many values as numbers of labels.* got \(3,\) values for \(2,\)"):
        normalised_auc([100, 200], [0.1, 0.2, 0.3])


def test_ripl_is_the_share_of_the_room_that_is_closed():
    assert ripl(0.9, 0.8) == pytest.approx(0.5)
    assert ripl(0.7, 0.8) == pytest.approx(-0.5)
    assert math.isnan(ripl(1.2, 1.1))


def test_isotonic_pools_what_goes_the_wrong_way():
    assert isotonic([1, 3, 2, 4]) == pytest.approx([1, 2.5, 2.5, 4])
    assert isotonic([4, 2, 3, 1], increasing=False) == pytest.approx([4, 2.5, 2.5, 1])


def test_labels_to_target_interpolates_between_rounds():
    assert labels_to_target([100, 200, 300], [0.5, 0.7, 0.8], 0.6) == pytest.approx(150)
    assert labels_to_target([100, 200, 300], [0.5, 0.7, 0.8], 0.8) == pytest.approx(300)


def test_one_lucky_round_is_not_arrival():
    # 0.9 at 200 is pooled with 0.5 at 300 into 0.7, so 0.8 is reached half-way from 300 (0.7) to 400 (0.9)
    assert labels_to_target([100, 200, 300, 400], [0.4, 0.9, 0.5, 0.9], 0.8) == pytest.approx(350)


def test_labels_to_target_at_the_start_never_or_with_gaps():
    assert labels_to_target([100, 200], [0.5, 0.7], 0.4) == 100
    assert labels_to_target([100, 200], [0.5, 0.7], 0.71) is None
    assert labels_to_target([100, 200, 300], [0.5, math.nan, 0.7], 0.6) == pytest.approx(200)
    assert labels_to_target([100], [math.nan], 0.6) is None


def test_an_error_reaches_its_target_from_above():
    assert labels_to_target([100, 200], [2.0, 1.0], 1.5, increasing=False) == pytest.approx(150)
    assert labels_to_target([100, 200], [2.0, 1.0], 0.5, increasing=False) is None


def test_savings():
    assert savings(150, 200) == pytest.approx(0.25)
    assert savings(300, 200) == pytest.approx(-0.5)
    assert savings(None, 200) is None and savings(100, None) is None


def test_t_interval_of_one_to_five():
    span = mean_interval([1, 2, 3, 4, 5])
    half = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert (span.mean, span.low, span.high, span.n) == pytest.approx((3, 3 - half, 3 + half, 5))


def test_missing_seeds_are_left_out_and_one_seed_has_no_interval():
    assert mean_interval([1.0, math.nan, 3.0]).n == 2
    one = mean_interval([0.5])
    assert one.mean == 0.5 and math.isnan(one.low) and one.n == 1
    none = mean_interval([math.nan])
    assert math.isnan(none.mean) and none.n == 0


def test_bootstrap_interval_lies_within_the_values_and_repeats():
    first, second = (mean_interval([1, 2, 3, 4, 5], method="bootstrap", rng=np.random.default_rng(1)) for _ in range(2))
    assert first == second
    assert 1 < first.low < first.mean == 3 < first.high < 5


def test_intervals_say_what_they_need():
    with pytest.raises(SpecError, match="between 0 and 1, got 95; 0.95 is customary"):
        mean_interval([1, 2], confidence=95)
    with pytest.raises(SpecError, match="needs a generator, got rng=None"):
        mean_interval([1, 2], method="bootstrap")
