"""Tests of the tests: exact p-values by hand or by enumeration, corrections, intervals and verdicts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from modicum.analysis.significance import (
    bootstrap_interval,
    compare,
    holm,
    mann_whitney_test,
    reach_warning,
    seeds_needed,
    sign_flip_test,
    smallest_p,
    verdict,
    wilcoxon_test,
)
from modicum.base.errors import SpecError


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def enumerated(d: list[float]) -> float:
    sums = np.array(list(itertools.product([1, -1], repeat=len(d)))) @ d
    return float(np.mean(np.abs(sums) >= abs(sum(d)) - 1e-12))


@pytest.mark.parametrize("d", [[0.1, 0.2, 0.3], [0.1, -0.2, 0.3, 0.05, 0.05], [0.3, -0.3, 0.1], [-1, -2, -3, 0.5]])
def test_sign_flip_is_the_full_enumeration(d):
    assert sign_flip_test(d) == pytest.approx(enumerated(d))


def test_sign_flip_at_its_limits():
    assert sign_flip_test([1, 2, 3, 4, 5]) == 0.0625
    assert sign_flip_test(np.arange(1, 21)) == 2 / 2**20
    assert sign_flip_test([0.0, 0.0, 0.0]) == 1.0
    assert math.isnan(sign_flip_test([]))


def test_sign_flip_counts_ties_that_differ_in_the_last_bit():
    # 0.1 + 0.2 is not 0.3 in binary; flipping all of them must still tie
    assert sign_flip_test([0.1, 0.2, -0.3, 0.1, 0.2, -0.3]) == 1.0


def test_sign_flip_beyond_twenty_is_monte_carlo_and_repeats():
    d = np.concatenate([np.full(16, 0.1), np.full(8, -0.1)])  # 16 of 24: binomial p = 0.1516
    first = sign_flip_test(d, rng=rng())
    assert first == sign_flip_test(d, rng=rng()) == pytest.approx(0.1516, abs=0.005)
    with pytest.raises(SpecError, match=r"exact for up to 20 differences.*got 24 and rng=None"):
        sign_flip_test(d)


def test_wilcoxon_is_exact_with_and_without_ties():
    assert wilcoxon_test([1, 2, 3, 4, 5]) == 0.0625
    assert wilcoxon_test([1, 1, 3, -4, 5]) == pytest.approx(12 / 32)  # mid-ranks 1.5 1.5 3 4 5, by hand
    assert wilcoxon_test([0, 0, 0]) == 1.0
    assert wilcoxon_test([0, 1, 2, 3, 4, 5]) == 0.0625
    assert math.isnan(wilcoxon_test([]))


def test_mann_whitney_of_two_separate_fives():
    assert mann_whitney_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert math.isnan(mann_whitney_test([], [1]))


def test_holm_steps_down_and_skips_what_was_not_tested():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.02, math.nan, 0.5])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.5]) and math.isnan(adjusted[1])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


def test_bootstrap_interval_brackets_the_mean_and_repeats():
    d = [0.1, 0.15, 0.2, 0.22, 0.3]
    low, high = bootstrap_interval(d, rng=rng())
    assert (low, high) == bootstrap_interval(d, rng=rng())
    assert 0.1 < low < np.mean(d) < high < 0.3


def test_bootstrap_interval_of_equal_and_of_single_differences():
    assert bootstrap_interval([0.1, 0.1, 0.1], rng=rng()) == (0.1, 0.1)
    assert bootstrap_interval([0.0, 0.0], rng=rng()) == (0.0, 0.0)
    assert np.isnan(bootstrap_interval([0.1], rng=rng())).all()
    assert np.isfinite(bootstrap_interval([0.1, 0.2], rng=rng())).all()


def test_the_smallest_p_that_seeds_can_give():
    assert smallest_p(5) == 0.0625
    assert smallest_p(6) == 0.03125
    assert smallest_p(1) == smallest_p(0) == 1.0
    assert smallest_p(5, paired=False) == pytest.approx(2 / 252)
    for n in (3, 5, 8):
        assert sign_flip_test(np.arange(1, n + 1)) == wilcoxon_test(np.arange(1, n + 1)) == smallest_p(n)


def test_seeds_needed():
    assert seeds_needed() == 6
    assert seeds_needed(0.05, comparisons=18) == 10
    with pytest.raises(SpecError, match="between 0 and 1, got 0; 0.05 is customary"):
        seeds_needed(0)


def test_the_warning_tells_what_it_takes():
    assert reach_warning(5) == (
        "5 seeds cannot reach α = 0.05: the smallest two-sided p of a paired test is 0.0625. It takes 6 seeds."
    )
    assert reach_warning(5, comparisons=18).endswith(
        "It takes 6 seeds, or 10 seeds under Holm's correction for 18 comparisons."
    )
    assert reach_warning(6) is None
    assert reach_warning(6, comparisons=18).startswith("6 seeds cannot reach α = 0.05 after correction")
    assert reach_warning(10, comparisons=18) is None


def test_compare_counts_wins_and_leaves_gaps_out():
    result = compare([0.5, 0.6, 0.7, math.nan], [0.4, 0.6, 0.8, 0.1], rng=rng())
    assert (result.n, result.wins, result.ties, result.losses) == (3, 1, 1, 1)
    assert result.mean == pytest.approx(0.0) and result.sign_flip == 1.0
    mirrored = compare([0.5, 0.5], [0.4, 0.3], rng=rng(), greater_is_better=False)
    assert (mirrored.wins, mirrored.losses) == (0, 2) and mirrored.mean == pytest.approx(0.15)
    with pytest.raises(SpecError, match=r"one value a seed on both sides, got shapes \(2,\) and \(3,\)"):
        compare([1, 2], [1, 2, 3], rng=rng())


def test_verdicts_and_their_reasons():
    base = np.linspace(0.5, 0.6, 6)
    better = compare(base + 0.1 + base / 10, base, rng=rng())
    assert (verdict(better).word, verdict(better).reason) == ("better", "p = 0.0312 ≤ 0.05")
    worse = compare(base, base + 0.1 + base / 10, rng=rng())
    assert verdict(worse).word == "worse"
    lower = compare(base, base + 0.1 + base / 10, rng=rng(), greater_is_better=False)
    assert verdict(lower).word == "better"
    assert verdict(better, 0.3).word == "undecided" and verdict(better, 0.3).reason == "p = 0.3 > 0.05"
    five = verdict(compare(base[:5] + 0.1, base[:5], rng=rng()))
    assert (five.word, five.reason) == ("undecided", "5 seeds cannot reach 0.05")


def test_one_seed_or_none_is_not_tested():
    one = compare([0.5], [0.4], rng=rng())
    assert math.isnan(one.sign_flip) and verdict(one).reason == "one seed allows no test"
    assert verdict(compare([], [], rng=rng())).reason == "no seed has both sides"
