"""Forgetting and data maps, against small matrices worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modicum.analysis.dynamics import cartography, first_learned, forgetting, forgetting_events
from modicum.base.errors import SpecError

NAN = math.nan

# columns: kept from the start, forgotten twice, learned late, never learned, forgotten and not seen again
CORRECT = np.array(
    [
        [1, 1, 0, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ],
    dtype=bool,
)
CONFIDENCE = np.array(
    [
        [0.9, 0.8, 0.2, 0.1, 0.6],
        [0.9, 0.4, 0.4, 0.2, 0.8],
        [0.9, 0.6, 0.6, 0.3, 0.1],
        [0.9, 0.2, NAN, 0.4, NAN],  # this epoch was cut short
    ]
)


def bools(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=bool)


def test_an_event_is_correct_and_then_wrong():
    assert forgetting_events(bools([1], [0], [0], [1], [0])).tolist() == [2]
    assert forgetting_events(bools([0], [0], [1], [1])).tolist() == [0]


def test_an_epoch_in_which_an_example_did_not_come_up_is_no_mistake():
    assert forgetting_events(CORRECT, CONFIDENCE).tolist() == [0, 2, 0, 0, 1]
    assert forgetting_events(CORRECT).tolist() == [0, 2, 1, 0, 1]


def test_a_gap_in_the_middle_is_bridged():
    correct = bools([1, 1], [0, 0], [0, 1])
    unseen = np.array([[0.9, 0.9], [NAN, NAN], [0.1, 0.9]], dtype=np.float16)
    assert forgetting_events(correct, unseen).tolist() == [1, 0]


def test_first_learned_is_the_epoch_from_zero_or_minus_one():
    assert first_learned(CORRECT).tolist() == [0, 0, 2, -1, 0]


def test_shares_and_histogram():
    found = forgetting(CORRECT, CONFIDENCE, often=2)
    assert found.events.tolist() == [0, 2, 0, 0, 1]
    assert (found.never_learned, found.unforgettable, found.forgettable) == pytest.approx((0.2, 0.4, 0.4))
    assert found.often_forgotten == pytest.approx(0.2)
    assert found.histogram.tolist() == [2, 1, 1]  # the one that was never learned is not among them
    assert forgetting(CORRECT, CONFIDENCE).often_forgotten == 0


def test_three_events_are_often():
    assert forgetting(bools([1, 1], [0, 0], [1, 1], [0, 0], [1, 1], [0, 1])).often_forgotten == pytest.approx(0.5)


def test_a_single_epoch_forgets_nothing():
    found = forgetting(bools([1, 0, 1]))
    assert found.events.tolist() == [0, 0, 0] and found.first_learned.tolist() == [0, -1, 0]
    assert (found.unforgettable, found.never_learned, found.forgettable) == pytest.approx((2 / 3, 1 / 3, 0))


def test_an_example_that_never_came_up_is_in_no_share():
    found = forgetting(bools([1, 0, 0]), [[0.9, 0.2, NAN]])
    assert found.seen.tolist() == [True, True, False]
    assert (found.unforgettable, found.never_learned) == pytest.approx((0.5, 0.5))


def test_no_example_at_all_has_no_share():
    found = forgetting(np.zeros((2, 0), dtype=bool))
    assert math.isnan(found.unforgettable) and found.histogram.tolist() == [0]


def test_the_map_of_hand_worked_examples():
    found = cartography(CORRECT, CONFIDENCE)
    assert found.confidence == pytest.approx([0.9, 0.5, 0.4, 0.25, 0.5])
    spread = [0, math.sqrt(0.05), math.sqrt(0.08 / 3), math.sqrt(0.0125), math.sqrt(0.26 / 3)]
    assert found.variability == pytest.approx(spread)
    assert found.correctness == pytest.approx([1, 0.5, 1 / 3, 0, 2 / 3])


def test_the_map_of_one_epoch_and_of_an_unseen_example():
    found = cartography(bools([1, 0, 0]), np.array([[0.75, 0.25, NAN]], dtype=np.float16))
    assert found.confidence == pytest.approx([0.75, 0.25, NAN], nan_ok=True)
    assert found.variability == pytest.approx([0, 0, NAN], nan_ok=True)
    assert found.correctness == pytest.approx([1, 0, NAN], nan_ok=True)


def test_the_map_is_computed_in_double_precision():
    epochs = np.full((3000, 1), 0.1, dtype=np.float16)
    found = cartography(np.zeros((3000, 1), dtype=bool), epochs)
    assert found.confidence[0] == pytest.approx(float(np.float16(0.1)), rel=1e-9)
    assert found.variability[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("wrong", [np.zeros(3, dtype=bool), np.zeros((0, 3), dtype=bool), np.zeros((2, 3))])
def test_answers_must_be_a_matrix_of_booleans(wrong):
    with pytest.raises(SpecError, match=r"booleans of shape \(epochs, examples\).* got .* of shape"):
        forgetting_events(wrong)


def test_matrices_that_do_not_fit_are_refused():
    with pytest.raises(SpecError, match=r"one shape, got \(4, 5\) and \(3, 5\)"):
        forgetting_events(CORRECT, CONFIDENCE[:3])
    with pytest.raises(SpecError, match="not seen cannot be correct, got 1 correct answers without a confidence"):
        cartography(bools([1, 0]), [[NAN, 0.5]])
    with pytest.raises(SpecError, match="one event or more, got often=0; 3 is customary"):
        forgetting(CORRECT, often=0)


def test_squared_errors_make_no_map():
    with pytest.raises(SpecError, match=r"probabilities, in \[0, 1\], got confidence from 0.2 to 4; it is for class"):
        cartography(bools([0, 0]), [[0.2, 4.0]])
