"""Oracles and stopping rules, by hand values."""

from __future__ import annotations

from typing import Any

import pytest

from modicum.base.errors import SpecError
from modicum.loop.oracle import GoldOracle, NoisyOracle
from modicum.loop.stopping import Stopping

IDS = [f"x{i}" for i in range(2000)]
GOLD = {i: n % 4 for n, i in enumerate(IDS)}


def test_the_gold_oracle_tells_what_is_known() -> None:
    assert GoldOracle({"a": 1, "b": 0.5}).answer(["b", "a"]) == {"b": 0.5, "a": 1}


def test_noise_is_a_share_of_the_examples_spread_evenly_over_the_other_classes() -> None:
    told = NoisyOracle(GOLD, classes=4, rate=0.3, seed=0).answer(IDS)
    wrong = [i for i in IDS if told[i] != GOLD[i]]
    assert 0.27 < len(wrong) / len(IDS) < 0.33
    steps = [(int(told[i] or 0) - GOLD[i]) % 4 for i in wrong]
    assert all(150 < steps.count(step) < 250 for step in (1, 2, 3)) and 0 not in steps
    assert all(isinstance(label, int) and 0 <= label < 4 for label in told.values())


def test_noise_is_the_examples_own() -> None:
    oracle = NoisyOracle(GOLD, classes=4, rate=0.3, seed=0)
    whole = oracle.answer(IDS)
    assert [oracle.answer([i])[i] for i in reversed(IDS[:50])] == [whole[i] for i in reversed(IDS[:50])]
    assert NoisyOracle(GOLD, classes=4, rate=0.3, seed=0).answer(IDS) == whole
    assert NoisyOracle(GOLD, classes=4, rate=0.3, seed=1).answer(IDS) != whole


def test_more_noise_keeps_the_errors_of_less() -> None:
    less, more = (NoisyOracle(GOLD, classes=4, rate=rate, seed=0).answer(IDS) for rate in (0.1, 0.3))
    assert all(more[i] == less[i] for i in IDS if less[i] != GOLD[i])


def test_no_noise_and_nothing_but_noise() -> None:
    assert NoisyOracle(GOLD, classes=4, rate=0, seed=0).answer(IDS) == GOLD
    assert NoisyOracle({"a": 1}, classes=2, rate=1, seed=0).answer(["a"]) == {"a": 0}


@pytest.mark.parametrize(
    ("rate", "classes", "message"),
    [
        (1.5, 4, "label noise must be between 0 and 1, got 1.5"),
        (-0.1, 4, "label noise must be between 0 and 1, got -0.1"),
        (0.1, 1, "label noise needs at least 2 classes to confuse, got 1"),
    ],
)
def test_impossible_noise_is_refused(rate: float, classes: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        NoisyOracle({"a": 0}, classes, rate, seed=0)


def kappas(*values: float | None) -> list[dict[str, Any]]:
    return [{} if value is None else {"kappa": value} for value in values]


@pytest.mark.parametrize(
    ("stopping", "labels", "records", "reason"),
    [
        (Stopping(budget=300), 299, [{}], None),
        (Stopping(budget=300), 300, [{}], "budget of 300 labels reached"),
        (Stopping(budget=300), 301, [{}], "budget of 300 labels reached"),
        (Stopping(seconds=10), 5, [{"seconds": 6.0}, {"seconds": 3.9}], None),
        (Stopping(seconds=10), 5, [{"seconds": 6.0}, {}, {"seconds": 6.4}], "time budget of 10 s reached after 12 s"),
        (Stopping(seconds=0.5), 5, [{"seconds": 0.5}], "time budget of 0.5 s reached after 0 s"),
        (Stopping(plateau=0.99), 5, kappas(None), None),
        (Stopping(plateau=0.99), 5, kappas(None, 1.0), None),
        (Stopping(plateau=0.99), 5, kappas(None, 0.99, 0.98), None),
        (Stopping(plateau=0.99), 5, kappas(None, 0.5, 0.99, 1.0), "predictions agreed (kappa ≥ 0.99) in 2"),
        (Stopping(plateau=0.9, patience=1), 5, kappas(None, 0.95), "predictions agreed (kappa ≥ 0.9) in 1"),
        (Stopping(plateau=0.9, patience=3), 5, kappas(None, 0.95, 0.95), None),
        (Stopping(plateau=0.9, patience=1, budget=5), 5, kappas(None, 1.0), "budget of 5 labels reached"),
    ],
)
def test_rules(stopping: Stopping, labels: int, records: list[dict[str, Any]], reason: str | None) -> None:
    found = stopping.reason(labels, records)
    assert found is None if reason is None else (found is not None and found.startswith(reason))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 1}, "setting 'budget': Input should be greater than or equal to 2"),
        ({"seconds": 0}, "setting 'seconds': Input should be greater than 0"),
        ({"plateau": 1.01}, "setting 'plateau': Input should be less than or equal to 1"),
        ({"patience": 0}, "setting 'patience': Input should be greater than or equal to 1"),
        ({"plateaux": 1}, r"unknown setting 'plateaux' \(did you mean 'plateau'\?\)"),
    ],
)
def test_wrong_rules_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"Stopping: {message}"):
        Stopping(**settings)
