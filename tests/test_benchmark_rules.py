"""What benchmarks make of their measurements: gains for `auto`, and the labels that a curve needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_study
from chosen_labels import asked
from forecasts import Case, NoCurves, fitted, widening
from harness.rules import (
    CLASSES,
    EDGES,
    LABELS,
    TEMPERATURES,
    Cell,
    Incomplete,
    cells,
    coolings,
    gains,
    kept,
    others,
    rules,
    settings_of,
    table_of,
)
from harness.rules import MEASURED as MEASURED_FILE
from labels_needed import against_half, apart, curves, needed

from modicum.auto.advice import Evidence, log_error
from modicum.auto.recipes import Effort, Recipe, Table, shipped_table
from modicum.base.errors import StoreError

TABLE = Table(
    recipes=[Recipe(name="a", method="lora"), Recipe(name="b", method="bitfit", training={"balanced": True})],
    efforts=[Effort(labels=0, recipes=1, rungs=0, folds=2)],
)


def cell(data: str, labels: int, recipe: str, *reached: float) -> Cell:
    return Cell(data, labels, recipe, dict(enumerate(reached)))


MEASURED = [
    cell("trec", 100, "a", 0.5, 0.7),
    cell("trec", 100, "b", 0.6, 0.9),
    cell("ag_news", 50, "a", 0.5, 0.5),
    cell("ag_news", 50, "b", 0.5, 0.4),
    cell("subj", 100, "a", 0.9),
    cell("subj", 100, "b", 0.8, 0.7),  # seed 1 has no pair
]


def test_a_gain_is_the_mean_over_data_sets_of_paired_seeds() -> None:
    found = gains(MEASURED, TABLE)
    assert found["a"] == (0.0, 0.0, None)
    assert found["b"] == (pytest.approx((0.15 - 0.05) / 2), pytest.approx(-0.1), None)


def test_labels_that_teach_nothing_do_not_count() -> None:
    """Guessing one of two classes by their frequencies reaches one half."""
    guessed = [cell("cola", 100, "a", 0.51, 0.52), cell("cola", 100, "b", 0.45, 0.46)]
    assert gains([*MEASURED, *guessed], TABLE) == gains(MEASURED, TABLE)
    learnt = [cell("cola", 100, "a", 0.51, 0.52), cell("cola", 100, "b", 0.56, 0.57)]
    assert gains([*MEASURED, *learnt], TABLE)["b"][1] == pytest.approx((0.05 - 0.1) / 2)


def test_a_gain_where_nothing_can_be_measured_is_the_nearest() -> None:
    first, second = TABLE.recipes
    later = Table(recipes=[first, second.model_copy(update={"others": 45})], efforts=TABLE.efforts)
    every = [cell(data, n, name, 0.8 + 0.1 * (name == "b")) for data in CLASSES for n in LABELS for name in "ab"]
    whole = [c for c in every if c.recipe == "a" or others(c.data, c.labels) >= 45]
    assert gains(whole, later, whole=True)["b"] == pytest.approx((0.1, 0.1, 0.1))
    few_only_there = [c._replace(reached={0: 0.1 * (c.recipe == "a") + 0.6}) if c.data == "trec" else c for c in whole]
    assert gains(few_only_there, later, whole=True)["b"][0] == pytest.approx(-0.1)
    assert gains(few_only_there, later, "trec", whole=True)["b"] == pytest.approx((0.1, 0.1, 0.1))


def test_rules_for_a_data_set_do_not_know_it() -> None:
    changed = [c._replace(reached={0: 0.5, 1: 0.5}) if c.data == "trec" else c for c in MEASURED]
    assert gains(MEASURED, TABLE, "trec") == gains(changed, TABLE, "trec") != gains(changed, TABLE)
    assert gains(MEASURED, TABLE, "trec")["b"][0] == pytest.approx(-0.05)


def test_a_cooling_is_the_mean_over_data_sets_that_do_not_know_this_one() -> None:
    known = [
        cell("trec", 50, "a", 2.0, 2.0),
        cell("trec", 100, "a", 0.5),
        cell("subj", 50, "a", 8.0),
        cell("cola", 50, "a", 1.0, 4.0),
    ]
    assert coolings(known) == {"a": round((6 * 16 * 4) ** (1 / 3), 1)}
    assert coolings(known, "trec") == {"a": 8.0}
    assert coolings(known, "sst2_sentence") == {"a": round((6 * 4) ** (1 / 2), 1)}


def test_shipped_coolings_are_the_measured_ones() -> None:
    measured = json.loads(TEMPERATURES.read_text(encoding="utf-8"))["measurements"]
    known = coolings(cells(measured, shipped_table(), "temperature"))
    assert known == {recipe.name: recipe.cooling for recipe in shipped_table().recipes if recipe.cooling}
    assert coolings(cells(measured, TABLE, "temperature")) == {}, "other recipes have others"


def test_a_table_for_a_comparison_has_coolings_only_where_labels_do_not_tell() -> None:
    assert not any(recipe.cooling for recipe in rules("trec", 500).recipes)
    for labels in (50, 200):
        first = rules("trec", labels).recipes[0]
        (shipped,) = (recipe for recipe in shipped_table().recipes if recipe.name == first.name)
        assert first.cooling not in (None, shipped.cooling)


def test_a_table_for_a_comparison_has_the_recipes_that_may_be_tried() -> None:
    shipped = shipped_table()
    whole = table_of(gains(cells(kept(MEASURED_FILE), shipped), shipped, "trec", whole=True), shipped)
    for labels in (50, 100, 200, 500):
        held, tried = rules("trec", labels), shipped.effort(labels).recipes
        for per_class in (p for p in (1, 20, 21, 60, 61, 250) if p <= labels / 2):
            for least in (0, others("trec", labels)):
                names = [[recipe.name for recipe in table.best(per_class, least)[:tried]] for table in (held, whole)]
                assert names[0] == names[1]
    assert len(rules("trec", 50).recipes) < len(shipped.recipes)


def test_data_sets_that_share_texts_do_not_know_each_other() -> None:
    changed = [c._replace(reached={0: 0.6}) if c.data == "subj" else c for c in MEASURED]
    assert gains(MEASURED, TABLE, "sst2_sentence") == gains(changed, TABLE, "sst2_sentence")
    assert gains(MEASURED, TABLE, "sst2_sentence")["b"][1] is None != gains(MEASURED, TABLE)["b"][1]


def test_what_was_not_measured_is_not_taken() -> None:
    known = table_of(gains([c for c in MEASURED if c.recipe == "a"], TABLE), TABLE)
    assert [recipe.expected(10) for recipe in known.recipes] == [0.0, -1.0]
    assert [most for most, _ in known.recipes[0].gain] == list(EDGES) and known.efforts == TABLE.efforts
    assert [recipe.name for recipe in known.best(10, 40)] == ["a"], "nor is it tried"


def test_a_recipe_that_has_changed_since_is_not_counted() -> None:
    result = {"runs": {"0": {"macro_f1": 0.5}}}
    measured = [
        {
            "settings": {"dataset": "trec", "labels": 50, "split": "held-out", "recipe": settings_of(recipe)},
            "result": result,
        }
        for recipe in TABLE.recipes
    ]
    assert [c.recipe for c in cells(measured, TABLE)] == ["a", "b"]
    measured[1]["settings"]["recipe"]["training"] = {"balanced": False}  # type: ignore[index]
    assert cells(measured, TABLE) == [cell("trec", 50, "a", 0.5)]


def test_what_was_measured_in_pieces_is_one_cell() -> None:
    def measured(recipe: Recipe, split: str = "held-out", **reached: float) -> dict[str, Any]:
        settings = {"dataset": "trec", "labels": 50, "split": split, "recipe": settings_of(recipe)}
        runs = {seed[1:]: {"macro_f1": value} for seed, value in reached.items()}
        return {"settings": settings, "result": {"runs": runs}}

    first, second = TABLE.recipes
    pieces = [measured(first, s0=0.5, s1=0.5), measured(second, s0=0.7, s1=0.7), measured(first, s2=0.5)]
    pieces += [measured(second, s2=0.4), measured(second, "test", s0=0.0)]
    assert gains(cells(pieces, TABLE), TABLE)["b"][0] == pytest.approx(0.1)


def test_rules_from_a_part_of_the_data_are_refused() -> None:
    every = [cell(data, n, name, 0.8) for data in CLASSES for n in LABELS for name in "ab"]
    assert gains(every, TABLE, "trec", whole=True) == gains(every, TABLE, "trec")
    for left_out, message in (
        ([c for c in every if c[:3] != ("subj", 500, "b")], "b is not measured on subj with 500"),
        ([c for c in every if c.recipe != "a"], "a is not measured on"),
    ):
        with pytest.raises(Incomplete, match=message):
            gains(left_out, TABLE, "trec", whole=True)
    few_left_out = [c for c in every if c.recipe == "a" or c.labels / CLASSES[c.data] > EDGES[0]]
    assert gains(few_left_out, TABLE, "trec", whole=True)["b"] == (None, 0.0, 0.0)
    assert gains([c for c in every if c[:3] != ("trec", 500, "b")], TABLE, "trec", whole=True)


def test_labels_needed_come_with_the_doubt_of_target_and_curve() -> None:
    rng = np.random.default_rng(0)
    ours = {seed: {50: 0.2, 100: 0.4 + 0.02 * seed, 300: 0.8} for seed in range(5)}
    usual = {seed: {500: 0.5 + 0.02 * seed} for seed in range(5)}
    labels, low, high = needed(ours, usual, rng)
    assert labels == pytest.approx(100 + 200 * (0.54 - 0.44) / 0.36) and low < labels < high < 250
    assert against_half(low, high, 500) == "at most half"
    never = {seed: {50: 0.2, 100: 0.3} for seed in range(5)}
    assert needed(never, usual, rng) == (np.inf, np.inf, np.inf)
    assert against_half(np.inf, np.inf, 500) == "more than half" and against_half(100, np.inf, 500) == "undecided"


def test_a_trial_that_goes_on_is_not_counted() -> None:
    row = {"dataset": "trec", "plain_method": "auto", "strategy": "random", "labels": 50, "macro_f1": 0.5}
    found = curves([row | {"trial": "a", "seed": 0}, row | {"trial": "b", "seed": 1, "unfinished": True}])
    assert found == {("trec", "auto", "random"): {0: {50: 0.5}}}


def test_the_trial_that_goes_further_counts() -> None:
    row = {"dataset": "trec", "plain_method": "auto", "strategy": "entropy", "seed": 0}
    further = [row | {"trial": "a", "labels": n, "macro_f1": 0.5} for n in (50, 100, 150)]
    short = [row | {"trial": "b", "labels": n, "macro_f1": 0.4} for n in (50, 100)]
    alone = [row | {"trial": "c", "labels": 500, "macro_f1": 0.6}]
    (curve,) = curves([*further, *short, *alone]).values()
    assert curve == {0: {50: 0.5, 100: 0.5, 150: 0.5, 500: 0.6}}


def test_studies_of_different_data_sets_are_read_together() -> None:
    trec, subj = [{"dataset": "trec", "seed": 0}], [{"dataset": "subj", "seed": 0}]
    assert apart([trec, subj]) == [*trec, *subj]
    with pytest.raises(StoreError, match="trec is in two"):
        apart([trec, subj, trec])


def test_forecasts_are_fitted_by_data_sets_and_not_by_cases() -> None:
    """Curves with known numbers are carried on; repeating the seeds of a set makes its offset no surer."""
    rng = np.random.default_rng(0)
    made: list[Case] = []
    for data in "abcdefgh":
        offset = rng.normal(0.1, 0.2)
        for seed in range(3):
            level = rng.normal(-1.0, 0.02)
            errors = (level, level + 0.4 * np.log(2) + rng.normal(0, 0.02))
            known = Evidence(
                classes=2,
                guessed=np.log(0.5),
                labels=(80, 40),
                log_errors=errors,
                covariance=((4e-4, 0.0), (0.0, 4e-4)),
            )
            for labels in (100, 400):
                reached = 1 - float(np.exp(level - 0.4 * np.log(labels / 80) + offset + rng.normal(0, 0.02)))
                made.append(Case(data, seed, known, labels, reached))
    found = fitted(made)
    mean, _ = log_error(made[0].evidence, 200, found)
    assert mean - found.offset == pytest.approx(-1.0 - 0.4 * np.log(200 / 80), abs=0.1)
    assert found.offset == pytest.approx(0.1, abs=0.2)
    assert found.offset_sd / widening(8) == pytest.approx(0.2, abs=0.1)
    assert fitted(made * 3).offset_sd > 0.8 * found.offset_sd
    assert found.flat == pytest.approx(1 / 10)
    guesses = [case._replace(data="i", reached=0.5 + rng.normal(0, 0.02)) for case in made[:6]]
    with_guesses = fitted([*made, *guesses])
    assert with_guesses == found.model_copy(update={"flat": pytest.approx(2 / 11)})
    with pytest.raises(NoCurves, match="no data set whose labels teach something"):
        fitted(guesses)
    assert widening(4) > widening(8) > widening(1000) == pytest.approx(1.0, abs=0.01)


def test_chosen_labels_are_those_of_a_seeds_longest_trial(tmp_path: Path) -> None:
    for budget in (24, 20):
        toy_study.run(toy_study.study(methods=["head"], loop={"budget": budget}), tmp_path)
    found = asked(tmp_path)
    assert {strategy for _, strategy, _ in found} == {"random", "badge"}
    assert all(len(set(ids)) == len(ids) == 24 for ids in found.values())
