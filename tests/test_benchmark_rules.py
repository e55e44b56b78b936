"""What benchmarks make of their measurements: gains for `auto`, and the labels that a curve needs."""

from __future__ import annotations

import numpy as np
import pytest
from advise import Case, fitted, widening
from harness.rules import EDGES, Cell, cells, gains, settings_of, table_of
from labels_needed import needed

from modicum.auto.advice import Evidence, log_error
from modicum.auto.recipes import Effort, Recipe, Table

TABLE = Table(
    recipes=[Recipe(name="a", method="lora"), Recipe(name="b", method="bitfit", training={"balanced": True})],
    efforts=[Effort(labels=0, recipes=1, rungs=0, folds=2)],
)


def cell(data: str, labels: int, recipe: str, *reached: float) -> Cell:
    return Cell(data, labels, recipe, dict(enumerate(reached)))


MEASURED = [
    cell("trec", 60, "a", 0.5, 0.7),
    cell("trec", 60, "b", 0.6, 0.9),
    cell("ag_news", 40, "a", 0.5, 0.5),
    cell("ag_news", 40, "b", 0.5, 0.4),
    cell("subj", 100, "a", 0.9),
    cell("subj", 100, "b", 0.8, 0.1),  # seed 1 has no pair
]


def test_a_gain_is_the_mean_over_data_sets_of_paired_seeds() -> None:
    found = gains(MEASURED, TABLE)
    assert found["a"] == (0.0, 0.0, None)
    assert found["b"] == (pytest.approx((0.15 - 0.05) / 2), pytest.approx(-0.1), None)


def test_rules_for_a_data_set_do_not_know_it() -> None:
    changed = [c._replace(reached={0: 0.0, 1: 0.0}) if c.data == "trec" else c for c in MEASURED]
    assert gains(MEASURED, TABLE, "trec") == gains(changed, TABLE, "trec") != gains(changed, TABLE)
    assert gains(MEASURED, TABLE, "trec")["b"][0] == pytest.approx(-0.05)


def test_what_was_not_measured_is_not_taken() -> None:
    known = table_of(gains([c for c in MEASURED if c.recipe == "a"], TABLE), TABLE)
    assert [recipe.expected(10) for recipe in known.recipes] == [0.0, -1.0]
    assert [most for most, _ in known.recipes[0].gain] == list(EDGES) and known.efforts == TABLE.efforts


def test_a_recipe_that_has_changed_since_is_not_counted() -> None:
    result = {"runs": {"0": {"macro_f1": 0.5}}}
    measured = [
        {"settings": {"dataset": "trec", "labels": 50, "recipe": settings_of(recipe)}, "result": result}
        for recipe in TABLE.recipes
    ]
    assert [c.recipe for c in cells(measured, TABLE)] == ["a", "b"]
    measured[1]["settings"]["recipe"]["training"] = {"balanced": False}  # type: ignore[index]
    assert cells(measured, TABLE) == [cell("trec", 50, "a", 0.5)]


def test_a_curve_that_never_arrives_counts_as_its_last_number_of_labels() -> None:
    of = needed({0: {50: 0.2, 100: 0.6}, 1: {50: 0.1, 100: 0.3}}, 0.4)
    np.testing.assert_allclose(of.labels, [75, 100])
    assert of.short == 1


def test_forecasts_are_fitted_by_data_sets_and_not_by_cases() -> None:
    """Curves with known numbers are carried on; repeating the seeds of a set makes its offset no surer."""
    rng = np.random.default_rng(0)
    made: list[Case] = []
    for data in "abcdefgh":
        offset = rng.normal(0.1, 0.2)
        for seed in range(3):
            level = rng.normal(-1.0, 0.02)
            errors = (level, level + 0.4 * np.log(2) + rng.normal(0, 0.02))
            known = Evidence(labels=(80, 40), log_errors=errors, covariance=((4e-4, 0.0), (0.0, 4e-4)), seconds=1.0)
            for labels in (100, 400):
                reached = 1 - float(np.exp(level - 0.4 * np.log(labels / 80) + offset + rng.normal(0, 0.02)))
                made.append(Case(data, seed, known, labels, reached))
    found = fitted(made)
    mean, _ = log_error(made[0].evidence, 200, found)
    assert mean - found.offset == pytest.approx(-1.0 - 0.4 * np.log(200 / 80), abs=0.1)
    assert found.offset == pytest.approx(0.1, abs=0.2)
    assert found.offset_sd / widening(8) == pytest.approx(0.2, abs=0.1)
    assert fitted(made * 3).offset_sd > 0.8 * found.offset_sd
    assert widening(4) > widening(8) > widening(1000) == pytest.approx(1.0, abs=0.01)
