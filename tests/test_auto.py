"""``auto``: the table, the search, and an engine that does what was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modicum import Classifier
from modicum.analysis.metrics import macro_f1
from modicum.auto.engine import Auto, AutoEngine, make_method, make_one_method, trained_method
from modicum.auto.recipes import Effort, Recipe, Table, shipped_table
from modicum.auto.search import DOUBT, choose, trainings_of_search
from modicum.base.errors import SpecError
from modicum.base.spec import Choice
from modicum.base.training import FitJob, Training
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import assert_same, jobs_of, tensors_of

BACKBONE, DATA = fake_backbone(), toy_dataset(60)
SHORT = {"steps": 20, "batch_size": 8}


def recipe(name: str, gain: float = 0.0, method: str = "lora", **training: Any) -> Recipe:
    return Recipe(name=name, method=method, training={**SHORT, **training}, gain=[(1e9, gain)])


def table(*recipes: Recipe, rungs: int = 2, folds: int = 3) -> Table:
    effort = Effort(labels=0, recipes=len(recipes), rungs=rungs, folds=folds)
    return Table(recipes=recipes, efforts=[effort])


def judged(quality: dict[str, float], asked: list[tuple[str, int]], seconds: float = 1.0) -> Any:
    """Cross-validation by recipes that are right so often."""

    def cross_validate(recipe: Recipe, folds: int, repeat: int) -> tuple[np.ndarray, float]:
        asked.append((recipe.name, repeat))
        rng = np.random.default_rng([repeat, len(recipe.name)])
        right = rng.random(len(JOB.targets)) < quality[recipe.name]
        said = np.where(right, JOB.targets, (JOB.targets + 1) % 3)
        return np.eye(3)[said] * 0.8 + 0.1, seconds

    return cross_validate


JOB = FitJob(tuple(f"t{i}" for i in range(300)), np.arange(300) % 3, 0, 0)
THREE = (recipe("a"), recipe("bb"), recipe("ccc"))


# ---- the search ------------------------------------------------------------------------------------------------------


def test_the_better_half_is_tried_again_and_the_best_is_taken() -> None:
    asked: list[tuple[str, int]] = []
    chosen = choose(JOB, table(*THREE, rungs=3), judged({"a": 0.6, "bb": 0.9, "ccc": 0.7}, asked))
    assert chosen.recipe.name == "bb" and "best of 3 by cross-validation on 300 labels" in chosen.reason
    assert asked[:3] == [("a", 0), ("bb", 0), ("ccc", 0)]
    assert sorted(asked[3:]) == [("bb", 1), ("ccc", 1)]
    assert chosen.said is not None and chosen.said.shape == (300, 3)
    again = choose(JOB, table(*THREE, rungs=3), judged({"a": 0.6, "bb": 0.9, "ccc": 0.7}, []))
    assert [t.gain for t in again.tried] == [t.gain for t in chosen.tried]


def test_little_evidence_does_not_outweigh_what_is_known() -> None:
    known = table(recipe("a", 0.1), recipe("bb", 0.0), rungs=1)
    few = FitJob(JOB.ids[:12], JOB.targets[:12], 0, 0)

    def cross_validate(recipe: Recipe, folds: int, repeat: int) -> tuple[np.ndarray, float]:
        right = np.arange(12) >= (1 if recipe.name == "bb" else 2)
        return np.eye(3)[np.where(right, few.targets, (few.targets + 1) % 3)], 0.0

    assert choose(few, known, cross_validate).recipe.name == "a"
    plain = choose(few, table(recipe("a"), recipe("bb"), rungs=1), cross_validate)
    gain = next(t.gain for t in plain.tried if t.recipe.name == "bb")
    measured = np.mean(plain.tried[1].scores) - np.mean(plain.tried[0].scores)
    assert 0 < gain < measured < 0.2 and DOUBT < 0.1


def test_known_gains_decide_the_order_and_all_where_there_is_no_search() -> None:
    asked: list[tuple[str, int]] = []
    known = table(recipe("a", 0.0), recipe("bb", 0.3), rungs=0)
    chosen = choose(JOB, known, judged({}, asked))
    assert chosen.recipe.name == "bb" and not asked and "usual recipe" in chosen.reason and chosen.said is None
    steps = Recipe(name="x", method="lora", gain=[(10, 0.1), (50, -0.1)])
    assert [steps.expected(n) for n in (5, 10, 11, 1000)] == [0.1, 0.1, -0.1, -0.1]


def test_a_rare_class_counts_as_few_labels_however_many_there_are() -> None:
    known = table(
        Recipe(name="few", method="lora"), Recipe(name="many", method="lora", gain=[(20, -0.1), (1e6, 0.1)]), rungs=0
    )

    def taken(rare: int) -> str:
        targets = (np.arange(200) < rare).astype(np.int64)
        return choose(FitJob(JOB.ids[:200], targets, 0, 0), known, judged({}, [])).recipe.name

    assert [taken(rare) for rare in (100, 50, 10, 2)] == ["many", "many", "few", "few"]


def test_a_recipe_may_want_so_many_labels_that_are_not_of_the_largest_class() -> None:
    later = Recipe(name="later", method="lora", gain=[(1e6, 0.1)], others=40)
    known = table(Recipe(name="first", method="lora"), later, rungs=0)

    def taken(*counts: int) -> str:
        targets = np.repeat(np.arange(len(counts)), counts)
        return choose(FitJob(JOB.ids[: len(targets)], targets, 0, 0), known, judged({}, [])).recipe.name

    of_first, of_later = ((39, 39), (190, 10), (30, 9)), ((40, 40), (20, 20, 20))
    assert {taken(*counts) for counts in of_first} == {"first"} and {taken(*counts) for counts in of_later} == {"later"}


def test_a_time_limit_leaves_out_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("modicum.auto.search.time.monotonic", lambda: now[0])
    asked: list[tuple[str, int]] = []
    judge = judged({"a": 0.6, "bb": 0.9, "ccc": 0.7}, asked, seconds=10.0)

    def slow(*arguments: Any) -> Any:
        now[0] += 10
        return judge(*arguments)

    def take(limit: float) -> Any:
        now[0] = 0.0
        return choose(JOB, table(*THREE), slow, limit, cost=lambda _: 2.5)  # (3 folds + 1) * 2.5: what is timed here

    assert take(9).said is None and not asked and "no time to compare" in take(9).reason
    chosen = take(19)
    assert [name for name, _ in asked] == ["a"] and "no time to compare" in chosen.reason and chosen.said is not None
    chosen = take(29)
    assert chosen.recipe.name == "bb" and "as far as time went" in chosen.reason


def test_the_trainings_of_a_search_are_known_beforehand() -> None:
    known, taken = table(*THREE, rungs=3, folds=3), list[int]()
    judge = judged({"a": 0.9, "bb": 0.8, "ccc": 0.7}, [])

    def count(made: Recipe, folds: int, repeat: int) -> Any:
        taken.append(folds)
        return judge(made, folds, repeat)

    choose(JOB, known, count)
    assert trainings_of_search(known, 300) == sum(taken) == 3 * 3 + 3 * 2
    assert trainings_of_search(known.without_search(), 300) == 0


def test_one_recipe_alone_is_cross_validated_for_its_calibration() -> None:
    asked: list[tuple[str, int]] = []
    known = table(recipe("a"), rungs=2, folds=3)
    chosen = choose(JOB, known, judged({"a": 0.6}, asked))
    assert asked == [("a", 0)] and trainings_of_search(known, 300) == 3
    assert chosen.said is not None and chosen.reason == "the usual recipe, for 300 labels"


def test_macro_f1_is_over_the_classes_there_are() -> None:
    assert macro_f1(np.array([0, 0, 2]), np.array([0, 0, 2])) == 1.0


# ---- the engine ------------------------------------------------------------------------------------------------------


def auto_engine(*recipes: Recipe, data: Any = DATA, minutes: float | None = None, **settings: Any) -> AutoEngine:
    corpus, auto, outputs = Corpus(BACKBONE, data), Auto(minutes=minutes), len(data.classes) or 1
    return AutoEngine(BACKBONE, corpus, auto, Training(), data.task, outputs, table=table(*recipes, **settings))


def test_each_job_is_trained_as_was_chosen_for_it() -> None:
    good = recipe("good", method="lora", steps=40)
    engine = auto_engine(recipe("poor", method="head", steps=1), good, rungs=1)
    jobs = jobs_of(DATA, (24, 30))
    found = engine.fit([*jobs, jobs[0]])
    assert len(engine.chosen) == 3 and engine.chosen[0] is engine.chosen[2]
    for fitted, chosen, job in zip(found, engine.chosen, [*jobs, jobs[0]], strict=True):
        assert fitted.recipe == chosen.recipe.name and fitted.temperature is not None
        made = chosen.recipe
        alone = Engine(
            BACKBONE,
            engine.corpus,
            make_method(made.method),
            made.over(Training()),
            "classification",
            3,  # type: ignore[arg-type]
        ).fit([job])[0]
        said = engine.scorer(alone.weights).outputs(np.arange(60)).argmax(1)
        assert (said == engine.scorer(fitted.weights).outputs(np.arange(60)).argmax(1)).mean() > 0.95
        assert fitted.seconds > sum(tried.seconds for tried in chosen.tried) > 0
    assert all(tried.scores for tried in engine.chosen[0].tried)


def test_without_a_search_what_is_known_decides() -> None:
    known = table(recipe("a", steps=3), recipe("b", gain=0.1, steps=3))
    parts = BACKBONE, Corpus(BACKBONE, DATA), Auto(search=False), Training(), "classification", 3
    engine = AutoEngine(*parts, table=known)
    (fitted,) = engine.fit(jobs_of(DATA, (20,)))
    assert fitted.recipe == "b" and fitted.temperature is None and not engine.chosen[0].tried[0].scores


@pytest.mark.parametrize(("cooling", "by"), [(6.0, 2.0), (2.0, None)])
def test_where_labels_do_not_say_it_is_as_sure_as_is_usual(cooling: float, by: float | None) -> None:
    made = recipe("a", steps=3).model_copy(update={"cooling": cooling})
    cold, warm = (
        auto_engine(one, rungs=0).fit(jobs_of(DATA, (20,)))[0]
        for one in (made, made.model_copy(update={"cooling": None}))
    )
    assert cold.temperature == by and warm.temperature is None
    assert torch.equal(cold.weights.head["weight"], warm.weights.head["weight"] / (by or 1.0))
    (told,) = auto_engine(made, rungs=1).fit(jobs_of(DATA, (20,)))
    assert told.temperature not in (by, None), "what cross-validation says comes first"


def test_where_a_class_has_most_labels_it_stays_as_sure_as_it_is() -> None:
    made = recipe("a", steps=3).model_copy(update={"cooling": 6.0})
    at = np.concatenate([np.flatnonzero(DATA.labels == 0)[:16], np.flatnonzero(DATA.labels == 1)[:4]])
    ids = tuple(DATA.ids.id_of(int(i)) for i in at)
    temperatures = [
        auto_engine(made, rungs=0).fit([FitJob(ids[:labels], DATA.labels[at[:labels]], 0, 0)])[0].temperature
        for labels in (20, 16)  # four fifths of one class; a class that is alone is no majority
    ]
    assert temperatures == [None, 2.0]


def test_values_have_one_recipe() -> None:
    values = toy_dataset(30, classes=0)
    first = recipe("a", objective="contrastive").model_copy(update={"cooling": 5.0})
    engine = auto_engine(first, recipe("bb"), data=values)
    fitted = engine.fit(jobs_of(values, (20,)))[0]
    assert (
        fitted.recipe == engine.chosen[0].recipe.method.label != "a"
        and fitted.weights.outputs == 1
        and fitted.temperature is None
        and "the one for values" in engine.chosen[0].reason
    )


@pytest.mark.parametrize(("labels", "taken"), [(30, 0), (60, 2)])
def test_a_classifier_that_chooses(tmp_path: Path, labels: int, taken: int) -> None:
    texts, names = DATA.texts(np.arange(60)), [DATA.classes[c] for c in DATA.labels]
    model = Classifier(BACKBONE, method="auto").fit(texts[:labels], names[:labels])
    chosen = shipped_table().recipes[taken]
    assert model.recipe_ == chosen.name and model.chosen_.tried
    model.save(tmp_path)
    again = Classifier.load(tmp_path, backbone=BACKBONE)
    assert again.method == chosen.method.name and again.recipe_ == chosen.name
    np.testing.assert_array_equal(again.predict(texts), model.predict(texts))


def test_what_a_classifier_that_chooses_cannot_be_told() -> None:
    texts, names = DATA.texts(np.arange(30)), [DATA.classes[c] for c in DATA.labels[:30]]
    with pytest.raises(SpecError, match="pretraining on texts is for one method"):
        Classifier(BACKBONE, method="auto", tapt="mlm").fit(texts, names)
    with pytest.raises(SpecError, match="unknown setting 'folds'"):
        Classifier(BACKBONE, method={"name": "auto", "folds": 3}).fit(texts, names)


def test_choosing_does_not_change_what_is_trained() -> None:
    own = recipe("a", steps=15)
    engine = auto_engine(own, rungs=0)
    job = jobs_of(DATA, (20,))[0]
    plain = Engine(BACKBONE, engine.corpus, METHODS.create("lora"), own.over(Training()), "classification", 3)
    assert_same(tensors_of(engine.fit([job])[0].weights), tensors_of(plain.fit([job])[0].weights))


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_shipped_table_is_sound() -> None:
    shipped = shipped_table()
    assert len({r.name for r in shipped.recipes}) == len(shipped.recipes) >= 3
    assert [e.labels for e in shipped.efforts] == sorted(e.labels for e in shipped.efforts) and not shipped.efforts[
        0
    ].labels
    for known in shipped.recipes:
        METHODS.create(known.method.name, **known.method.options)
        assert known.over(Training()) != Training() and trained_method(Choice(name="auto"), known.name) == known.method
        assert trained_method(Choice(name="auto"), known.method.label) == known.method  # as it is called for values
        assert list(known.gain) == sorted(known.gain)
    assert [trainings_of_search(shipped, labels) for labels in (50, 200, 500, 1999, 2000, 5000)] == [0, 0, 2, 2, 4, 2]


def test_names_of_methods() -> None:
    assert isinstance(make_method(Choice(name="auto")), Auto) and len(Auto().table) == 20
    assert make_one_method(Choice(name="lora")) == METHODS.create("lora")
    assert trained_method(Choice(name="lora"), "") == Choice(name="lora")
    with pytest.raises(SpecError, match="unknown setting 'epoch'"):
        Recipe(name="x", method="lora", training={"epoch": 3})
