"""The learner as a pure state machine: what it says next, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from toy_learner import IDS, NAMES, SIGNALS, create, known, make, show, state, turn, warmed

from modicum.base.errors import SpecError, StateError
from modicum.base.events import Asked, Told, Trained
from modicum.base.types import ExampleId
from modicum.loop.learner import Learner, Pace

# ---- one round after another -----------------------------------------------------------------------------------------


def test_a_round_step_by_step() -> None:
    learner = make("entropy")
    wanted = learner.plan()
    assert (wanted.round, wanted.candidates, wanted.needs) == (0, tuple(IDS), frozenset())
    first = learner.ask()
    assert first.round == 0 and len(first.ids) == 10 == len(learner.open)
    learner.tell({i: 1 for i in first.ids})
    job = learner.job()
    assert (job.ids, job.seed, job.round) == (tuple(sorted(first.ids)), 0, 0) and job.targets.tolist() == [1] * 10
    learner.accept({"macro_f1": 0.5})
    assert (learner.round, learner.records, learner.stopped) == (1, [{"macro_f1": 0.5}], None)

    wanted = show(learner)
    assert (wanted.round, wanted.needs) == (1, frozenset({"proba"}))
    assert wanted.candidates == tuple(i for i in IDS if i not in first.ids)
    second = learner.ask(cost={"score_seconds": 1.5})
    proba = np.asarray(SIGNALS["proba"], np.float64)
    entropy = {i: -(proba[int(i[1:])] * np.log(proba[int(i[1:])])).sum() for i in wanted.candidates}
    assert second.ids == tuple(sorted(wanted.candidates, key=lambda i: -entropy[i])[:5])
    learner.tell({i: 0 for i in second.ids})
    assert learner.job().ids == (*sorted(first.ids), *sorted(second.ids)) and learner.job().round == 1
    learner.accept({"macro_f1": 0.6})
    assert learner.take_log() == [
        Asked(round=0, ids=first.ids, strategy="warm start"),
        Told(answers={i: 1 for i in first.ids}),
        Trained(round=0, labels=10, record={"macro_f1": 0.5}),
        Asked(round=1, ids=second.ids, strategy="entropy", cost={"score_seconds": 1.5}),
        Told(answers={i: 0 for i in second.ids}),
        Trained(round=1, labels=15, record={"macro_f1": 0.6}),
    ]
    assert learner.take_log() == []


@pytest.mark.parametrize(("strategy", "sought"), [("entropy", True), ("random", False), ("typiclust", False)])
def test_a_job_says_whether_a_model_chose_some_of_its_labels(strategy: str, sought: bool) -> None:
    learner, said = make(strategy), []
    for _ in range(2):
        turn(learner)
        said.append(learner.job().sought)
    assert said == [False, sought]


def test_planning_and_choosing_open_nothing() -> None:
    learner = make("entropy", warm_start=4)
    turn(learner)
    learner.take_log()
    wanted = show(learner)
    assert learner.plan() is wanted
    chosen = learner.choose(3)
    assert learner.open == () and learner.log == []
    assert learner.choose(3) == chosen == learner.ask(3).ids


def test_an_open_query_is_asked_again_whatever_is_asked() -> None:
    learner = make()
    query = learner.ask()
    assert learner.ask() == learner.ask(3) == learner.ask(cost={"score_seconds": 9.0}) == query
    assert [event.kind for event in learner.log] == ["asked"]


def test_partial_answers_leave_the_rest_open() -> None:
    learner = make()
    a, b, c, *rest = learner.ask().ids
    learner.tell({b: 1})
    learner.tell({a: None, c: 0})
    assert learner.open == learner.ask().ids == tuple(rest)
    assert learner.job().ids == (b, c)  # in the order of arrival
    learner.tell(dict.fromkeys(rest, 2))
    assert learner.open == () and len(learner.job().ids) == 9


def test_skipped_examples_are_neither_labels_nor_asked_again() -> None:
    learner = make(budget=12)
    skipped: list[ExampleId] = []
    while not learner.stopped:
        ids = learner.ask().ids
        assert not set(ids) & set(skipped)
        if len(ids) > 1:
            skipped.append(ids[0])
        learner.tell({i: None if i in skipped else 1 for i in ids})
        learner.accept({})
    assert learner.stopped == "budget of 12 labels reached" and learner.pool.skipped == tuple(skipped)
    assert [event.labels for event in learner.log if isinstance(event, Trained)] == [9, 11, 12]


def test_a_model_may_be_trained_while_a_query_is_open() -> None:
    learner = make()
    a, *rest = learner.ask().ids
    learner.tell({a: 1})
    learner.accept({})
    assert learner.round == 1 and learner.ask().ids == tuple(rest)


def test_corrections_keep_their_place_and_skips_become_labels() -> None:
    learner = make(warm_start=4)
    a, b, c, d = sorted(learner.ask().ids)
    learner.tell({a: 0, b: 1, c: None, d: 2})
    learner.tell({b: 2})
    assert list(learner.pool.labelled.items()) == [(a, 0), (b, 2), (d, 2)]
    learner.tell({a: None, c: 1})
    assert list(learner.pool.labelled.items()) == [(b, 2), (d, 2), (c, 1)]
    assert learner.pool.skipped == (a,)
    assert learner.job().targets.tolist() == [2, 2, 1]


def test_the_order_of_answers_that_come_together_does_not_count() -> None:
    jobs = []
    for step in (1, -1):
        learner = make()
        learner.tell({i: 1 for i in learner.ask().ids[::step]})
        learner.tell({i: 2 for i in learner.job().ids[::step]})
        jobs.append(learner.job())
    assert jobs[0].same_as(jobs[1])


def test_answers_and_corrections_come_together() -> None:
    learner = make(warm_start=3)
    a, b, c = learner.ask().ids
    learner.tell({a: 0})
    learner.tell({b: 1, a: 2, c: None})
    assert (dict(learner.pool.labelled), learner.pool.skipped, learner.open) == ({a: 2, b: 1}, (c,), ())


def test_a_correction_makes_the_next_plan_anew() -> None:
    learner = make("coreset")
    turn(learner)
    show(learner)
    learner.tell({learner.job().ids[0]: None})
    assert len(learner.plan().labelled) == 9
    with pytest.raises(StateError, match="this strategy needs signals"):
        learner.ask()


def test_numpy_labels_are_stored_as_plain_numbers() -> None:
    learner = make(warm_start=2)
    a, b = learner.ask().ids
    learner.tell({a: np.int64(2), b: np.float32(0.5)})  # type: ignore[dict-item]
    assert [type(label) for label in learner.log[-1].answers.values()] == [int, float]  # type: ignore[union-attr]
    assert json.loads(learner.log[-1].canonical())["answers"] == {a: 2, b: 0.5}


# ---- how much is asked for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "warm_start", "batch", "budget", "sizes", "reason"),
    [
        (60, 10, 5, 20, [10, 5, 5], "budget of 20 labels reached"),
        (60, 10, 7, 30, [10, 7, 7, 6], "budget of 30 labels reached"),
        (60, 10, 100, 30, [10, 20], "budget of 30 labels reached"),
        (60, 30, 5, 12, [12], "budget of 12 labels reached"),
        (17, 10, 5, 30, [10, 5, 2], "the pool is empty"),
        (8, 10, 5, 30, [8], "the pool is empty"),
        (15, 10, 5, 15, [10, 5], "budget of 15 labels reached"),
    ],
)
@pytest.mark.parametrize("name", ["random", "entropy", "dal", "typiclust"])
def test_sizes(pool: int, warm_start: int, batch: int, budget: int, sizes: list[int], reason: str, name: str) -> None:
    learner = make(name, ids=IDS[:pool], warm_start=warm_start, batch=batch, budget=budget)
    found = []
    while not learner.stopped:
        found.append(len(turn(learner)))
    assert (found, learner.stopped) == (sizes, reason)
    assert learner.size() == 0 and len(set(learner.job().ids)) == sum(sizes)


def test_the_size_of_a_query_can_be_chosen() -> None:
    learner = make()
    assert len(learner.ask(3).ids) == 3


def test_time_ends_a_loop() -> None:
    learner = make(seconds=5)
    turn(learner, seconds=3.0)
    assert learner.stopped is None
    turn(learner, seconds=2.5)
    assert learner.stopped == "time budget of 5 s reached after 6 s"


def test_a_plateau_ends_a_loop() -> None:
    learner = make(plateau=0.99, patience=2, budget=60)
    for kappa in (None, 0.995, 0.5, 0.99, 1.0):
        assert learner.stopped is None
        turn(learner, **({} if kappa is None else {"kappa": kappa}))
    assert learner.stopped == "predictions agreed (kappa ≥ 0.99) in 2 rounds"


def test_an_empty_pool_ends_a_loop_only_when_all_is_answered() -> None:
    learner = make(ids=IDS[:4], warm_start=4)
    a, b, c, d = learner.ask().ids
    learner.tell({a: 0, b: 1, c: None})
    learner.accept({})
    assert learner.stopped is None and learner.ask().ids == (d,)
    learner.tell({d: 1})
    learner.accept({})
    assert learner.stopped == "the pool is empty"


# ---- refusals --------------------------------------------------------------------------------------------------------


def asked() -> Learner:
    learner = make()
    learner.ask()
    return learner


def spent() -> Learner:
    learner = make(warm_start=10, budget=10)
    learner.tell(dict.fromkeys(learner.ask().ids, 1))
    return learner


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: asked().plan(), "a query of 10 examples is open: tell its answers before planning the next"),
        (lambda: asked().see({}, {}), "a query of 10 examples is open"),
        (lambda: make().job(), "there is nothing to train on: ask and tell at least one label first"),
        (lambda: asked().job(), "there is nothing to train on"),
        (lambda: make(warm="kmeans").ask(), "this strategy needs signals: compute what plan.. names and hand it"),
        (lambda: warmed().ask(), "this strategy needs signals"),
        (lambda: warmed().see({}, {}), "strategy Entropy needs proba, which were not handed in"),
        (lambda: make(warm="kmeans").see({}, {}), "strategy KMeans needs frozen_embedding, which were not handed in"),
        (lambda: warmed("coreset").see({"embedding": SIGNALS["embedding"]}, {}), "strategy CoreSet needs embedding"),
        (lambda: spent().ask(), r"nothing left to ask for: train on job\(\) and accept\(\) its record to end the loop"),
        (lambda: make().tell({"x1": 0}), "only asked examples can be used to answer, but 'x1' is free; ask for it"),
        (lambda: make().tell({"y1": 0}), "the pool has no example 'y1'"),
    ],
)
def test_calls_out_of_order_are_refused(misuse: Any, message: str) -> None:
    with pytest.raises(StateError, match=message):
        misuse()


def test_nothing_is_asked_after_the_end() -> None:
    learner = make(warm_start=10, budget=10)
    turn(learner)
    with pytest.raises(StateError, match="this loop has stopped: budget of 10 labels reached"):
        learner.ask()


@pytest.mark.parametrize("k", [61, -1])
def test_impossible_sizes_are_refused(k: int) -> None:
    with pytest.raises(SpecError, match=f"1 to 60 examples .the candidates that are left., got {k}"):
        make().ask(k)


def test_a_refused_call_changes_nothing() -> None:
    learner = asked()
    before = state(learner)
    log = list(learner.log)
    for answers in ({learner.open[0]: 1, "free": 0}, {learner.open[0]: "one"}, {"x0": 1, "nobody": 0}):
        with pytest.raises((StateError, SpecError)):
            learner.tell(answers)  # type: ignore[arg-type]
    assert state(learner) == before and learner.log == log


@pytest.mark.parametrize("name", [name for name in NAMES if create(name).needs])
def test_every_strategy_says_which_signals_it_misses(name: str) -> None:
    learner = warmed(name)
    strategy = learner.strategy
    for signal in strategy.needs:
        rest = known(learner.plan().candidates, strategy.needs - {signal}, strategy.mc_passes)
        labelled = known(learner.plan().labelled, strategy.needs_labelled, strategy.mc_passes)
        with pytest.raises(StateError, match=f"needs {signal}, which were not handed in"):
            learner.see(rest, labelled)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warm_start": 1}, "Pace: setting 'warm_start': Input should be greater than or equal to 2"),
        ({"batch": 0}, "Pace: setting 'batch': Input should be greater than or equal to 1"),
    ],
)
def test_impossible_paces_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Pace(**settings)
